// Package sim is what simulated PBXs have in common: calls, the messages about them in the order and
// the spelling of the wire, and the quirks of whole calls.
//
// It must not know any one provider: each has its scenarios beside its decoder.
package sim

import (
	"math/rand/v2"
	"slices"
	"time"
)

// Call is a simulated call, its values written as the provider writes them.
type Call struct {
	ID       string
	Began    time.Time // in the zone in which the PBX writes times
	Wait     time.Duration
	Talk     time.Duration
	Customer string // the outside number
	Own      string // the PBX's number that was called, or that calls
	Agents   []Agent
	// EventID makes an id of an event, where the provider gives events one.
	EventID func() string
}

// Agent is a person of the simulated call centre.
type Agent struct{ ID, Name, Number string }

// Moment is a point of a call's life.
type Moment int

// The moments.
const (
	Began Moment = iota
	Rang
	Answered
	Talking
	Ended
)

// At is when a moment of the call was.
func (c *Call) At(m Moment) time.Time {
	switch m {
	case Rang:
		return c.Began.Add(c.Wait / 2)
	case Answered:
		return c.Began.Add(c.Wait)
	case Talking:
		return c.Began.Add(c.Wait + c.Talk/2)
	case Ended:
		return c.Began.Add(c.Wait + c.Talk)
	default:
		return c.Began
	}
}

// Until moves the call so that a moment of it is now.
func (c *Call) Until(m Moment, now time.Time) { c.Began = c.Began.Add(now.Sub(c.At(m))) }

// Lasted is how long the call was, with waiting.
func (c *Call) Lasted() time.Duration { return c.Wait + c.Talk }

// Step is one event of a scenario.
type Step struct {
	Event string
	At    Moment
	// Change makes what is special about this one.
	Change func(c *Call, f *Fields)
}

// Scenario is the course of a whole call.
type Scenario struct {
	Name  string
	About string
	Steps []Step
}

// Message is one event on its way.
type Message struct {
	Event  string
	Path   string // what follows the webhook's URL
	Fields Fields
	Style  Style
	At     time.Time
	// Charset that a body is written in, by its IANA name; empty: UTF-8.
	Charset string
	// Gzip compresses the body.
	Gzip bool
}

// Quirk is a way in which a PBX differs from its manual, or from another of its kind.
type Quirk struct {
	Name  string
	About string
	// Change changes one message; nil for the quirks of whole calls.
	Change func(m *Message, c *Call)
}

// The quirks of whole calls, which all providers have.
var (
	Duplicates = Quirk{Name: "duplicates", About: "every third message is sent twice"}
	Gzip       = Quirk{Name: "gzip", About: "bodies are compressed with gzip", Change: func(m *Message, _ *Call) { m.Gzip = true }}
	Charset    = Quirk{Name: "charset", About: "bodies are in UTF-16, as some relays write them", Change: func(m *Message, _ *Call) { m.Charset = "utf-16" }}
	OutOfOrder = Quirk{Name: "out-of-order", About: "the messages of a call come in any order"}
)

// Reorder applies the quirks of whole calls to the messages of one.
func Reorder(messages []Message, quirks []Quirk, random *rand.Rand) []Message {
	named := func(name string) bool {
		return slices.ContainsFunc(quirks, func(q Quirk) bool { return q.Name == name })
	}
	if named(OutOfOrder.Name) {
		random.Shuffle(len(messages), func(i, j int) { messages[i], messages[j] = messages[j], messages[i] })
	}
	if !named(Duplicates.Name) {
		return messages
	}
	var all []Message
	for i, m := range messages {
		all = append(all, m)
		if i%3 == 0 {
			all = append(all, m)
		}
	}
	return all
}

// Placeholders are what relays and templates write where there is nothing.
var Placeholders = Quirk{Name: "placeholders", About: "None, null, undefined, N/A, $name, {name} and {{name}} where there is nothing", Change: func(m *Message, _ *Call) {
	for i, field := range m.Fields {
		if field.Value != nil && field.Value != "" {
			continue
		}
		words := []string{"None", "null", "undefined", "N/A", "$" + field.Key, "{" + field.Key + "}", "{{" + field.Key + "}}"}
		m.Fields[i].Value = words[i%len(words)]
	}
}}

// Wrapped is how some relays hand JSON on.
var Wrapped = Quirk{Name: "wrapped", About: "JSON as the value of payload in a form", Change: func(m *Message, _ *Call) {
	if m.Style != Query && m.Style != Form {
		m.Style = Payload
	}
}}
