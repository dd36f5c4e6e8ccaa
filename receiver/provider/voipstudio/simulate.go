package voipstudio

import (
	"crypto/sha1"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/pbxhook/pbxhook/receiver/provider/sim"
)

// Simulator plays calls as VoIPstudio sends them: POST and JSON alone.
type Simulator struct{}

// Events are the names of what can be sent.
func (Simulator) Events() []string { return Catalog.Names() }

// Call makes the n-th call.
func (Simulator) Call(n int, began time.Time, random *rand.Rand) sim.Call {
	events := 0
	return sim.Call{
		ID: strconv.FormatInt(began.Unix()*1000+int64(n), 10), Began: began,
		Wait: time.Duration(2+random.IntN(40)) * time.Second, Talk: time.Duration(5+random.IntN(600)) * time.Second,
		Customer: fmt.Sprintf("4478547%05d", random.IntN(100_000)), Own: "441183211001",
		Agents: []sim.Agent{{ID: "10002", Name: "John Smith", Number: "2001"}, {ID: "10003", Name: "Zoë Ürün", Number: "2002"}},
		EventID: func() string { // as uk003.608920d55f7ac3.77053295
			events++
			return fmt.Sprintf("uk003.%x%05x.%08d", began.Unix(), n&0xfffff, events)
		},
	}
}

// Scenarios are the calls that can be played.
func (Simulator) Scenarios() []sim.Scenario { return scenarios }

// Quirks are those of VoIPstudio's samples and captures.
func (Simulator) Quirks() []sim.Quirk { return quirks }

func at(t time.Time) string { return t.UTC().Format(time.DateTime) }

// number: VoIPstudio's ids of calls are integers; an id that was asked for need not be one.
func number(id string) any {
	if _, err := strconv.ParseInt(id, 10, 64); err != nil {
		return id
	}
	return sim.Number(id)
}

// Message composes one event of a call, in the order of fields of the page's sample.
func (Simulator) Message(c *sim.Call, step sim.Step) (sim.Message, error) {
	event := Catalog.Find(step.Event)
	if event == nil {
		return sim.Message{}, fmt.Errorf("expected one of VoIPstudio's events (%s), got %q", strings.Join(Catalog.Names(), ", "), step.Event)
	}
	when := c.At(step.At)
	m := sim.Message{Event: event.Name, Fields: fields(event.Name, c, when), Style: sim.JSON, At: when}
	if step.Change != nil {
		step.Change(c, &m.Fields)
	}
	return m, nil
}

// wireStates are the states that events come with; samples have MISSED and DTMF_RECEIVED, which the
// page's list has not.
var wireStates = map[string]string{
	"call.initial": "INITIAL", "call.ringing": "RINGING", "call.connected": "CONNECTED", "call.hold": "ON_HOLD",
	"call.unhold": "CONNECTED", "call.missed": "MISSED", "call.hangup": "HANGUP", "call.dtmf": "DTMF_RECEIVED", "queue.wrapup": "START",
}

func fields(name string, c *sim.Call, when time.Time) sim.Fields {
	f := sim.Of("id", c.EventID(), "event_time", at(when), "event_name", name)
	switch name {
	case "sms.received":
		return append(f, sim.Of("customer_id", 100, "user_id", nil, "from_no", c.Customer, "to_no", c.Own, "text", "Where is order n° 7? Best, \"Ann\" & Bob")...)
	case "monitor.audio_ready":
		return append(f, sim.Of(
			"monitor_id", 123456, "call_id", number(c.ID), "customer_id", 100, "user_id", 50, "src_id", "0", "src", c.Customer, "src_name", "Test Caller",
			"dst_id", c.Agents[0].ID, "dst", c.Own, "dst_name", c.Agents[0].Name, "context", "LOCAL_USER", "duration", int(c.Talk/time.Second), "size", 2048000,
		)...)
	}
	var connected any
	duration := 0
	if !when.Before(c.At(sim.Answered)) && name != "call.missed" {
		connected, duration = at(c.At(sim.Answered)), int(when.Sub(c.At(sim.Answered))/time.Second)
	}
	f = append(f, sim.Of(
		"call_id", number(c.ID), "state", wireStates[name], "connected_at", connected, "start_time", at(c.Began), "context", "LOCAL_USER",
		"destination", "in", "duration", duration, "t_cause", "", "src", c.Customer, "src_id", "0", "src_name", `"`+c.Customer+`" <`+c.Customer+`>`,
		"src_hash", fmt.Sprintf("%x", sha1.Sum([]byte(c.ID))), "dst", c.Own, "dst_id", c.Agents[0].ID, "dst_name", c.Agents[0].Name,
	)...)
	switch name {
	case "call.hangup":
		f.Set("t_cause", "Normal Clearing")
		f.Set("terminated_by", "caller")
	case "call.missed":
		f.Set("t_cause", "No Answer")
	case "call.dtmf":
		f.Delete("t_cause")
		f.Set("dtmf_tag", "*")
		f.Set("dtmf_target", "U:123456")
	}
	return f
}

// leg is one of several legs of a call, that of the n-th agent. Captures have root_call_id and final,
// which the page has not.
func leg(n int) func(*sim.Call, *sim.Fields) {
	return func(c *sim.Call, f *sim.Fields) {
		f.Set("call_id", number(c.ID+strconv.Itoa(n+1)))
		f.Set("root_call_id", number(c.ID))
		f.Set("context", "RG-83502")
		f.Set("final", false)
		f.Set("dst_id", c.Agents[n].ID)
		f.Set("dst_name", c.Agents[n].Name)
	}
}

// root is the whole of a call that has legs.
func root(pairs ...any) func(*sim.Call, *sim.Fields) {
	return func(c *sim.Call, f *sim.Fields) {
		f.Set("root_call_id", number(c.ID))
		f.Set("context", "QUEUE")
		f.Set("final", true)
		f.Set("dst_id", "83502")
		f.Set("dst_name", "Sales")
		sim.With(pairs...)(c, f)
	}
}

// outgoing turns an incoming call round.
func outgoing(pairs ...any) func(*sim.Call, *sim.Fields) {
	return func(c *sim.Call, f *sim.Fields) {
		sim.With("destination", "out", "src", c.Agents[0].Number, "src_id", c.Agents[0].ID, "src_name", `"`+c.Agents[0].Name+`" <`+c.Agents[0].Number+`>`,
			"dst", c.Customer, "dst_id", "0", "dst_name", "")(c, f)
		sim.With(pairs...)(c, f)
	}
}

var answered = []sim.Step{
	{Event: "call.initial"},
	{Event: "call.ringing", At: sim.Rang},
	{Event: "call.connected", At: sim.Answered},
}

// then goes on from an answered call.
func then(steps ...sim.Step) []sim.Step {
	return append(answered[:len(answered):len(answered)], steps...)
}

var scenarios = []sim.Scenario{
	{Name: "answered", About: "an incoming call that is answered and recorded", Steps: then(
		sim.Step{Event: "call.hangup", At: sim.Ended},
		sim.Step{Event: "monitor.audio_ready", At: sim.Ended},
	)},
	{Name: "missed", About: "an incoming call that nobody answers", Steps: []sim.Step{
		{Event: "call.initial"},
		{Event: "call.ringing", At: sim.Rang},
		{Event: "call.missed", At: sim.Answered},
	}},
	{Name: "transferred", About: "a call that goes on with another agent as a leg of its own", Steps: then(
		sim.Step{Event: "call.initial", At: sim.Talking, Change: leg(1)},
		sim.Step{Event: "call.ringing", At: sim.Talking, Change: leg(1)},
		sim.Step{Event: "call.connected", At: sim.Talking, Change: leg(1)},
		sim.Step{Event: "call.hangup", At: sim.Ended, Change: leg(1)},
		sim.Step{Event: "call.hangup", At: sim.Ended},
	)},
	{Name: "queued", About: "a queue with several legs: one agent misses the call, the next one takes it", Steps: []sim.Step{
		{Event: "call.initial", Change: root("final", nil)},
		{Event: "call.ringing", At: sim.Rang, Change: leg(0)},
		{Event: "call.ringing", At: sim.Rang, Change: leg(1)},
		{Event: "call.missed", At: sim.Rang, Change: leg(0)},
		{Event: "call.connected", At: sim.Answered, Change: leg(1)},
		{Event: "call.hangup", At: sim.Ended, Change: leg(1)},
		{Event: "call.hangup", At: sim.Ended, Change: root()},
		{Event: "queue.wrapup", At: sim.Ended, Change: root("state", "START")},
		{Event: "queue.wrapup", At: sim.Ended, Change: root("state", "END")},
	}},
	{Name: "lost", About: "a queue whose agents all miss the call", Steps: []sim.Step{
		{Event: "call.initial", Change: root("final", nil)},
		{Event: "call.ringing", At: sim.Rang, Change: leg(0)},
		{Event: "call.ringing", At: sim.Rang, Change: leg(1)},
		{Event: "call.missed", At: sim.Answered, Change: leg(0)},
		{Event: "call.missed", At: sim.Answered, Change: leg(1)},
		{Event: "call.missed", At: sim.Answered, Change: root()},
	}},
	{Name: "held", About: "a call that is put on hold and taken back", Steps: then(
		sim.Step{Event: "call.hold", At: sim.Talking},
		sim.Step{Event: "call.unhold", At: sim.Talking},
		sim.Step{Event: "call.hangup", At: sim.Ended},
	)},
	{Name: "dtmf", About: "a caller who presses keys", Steps: then(
		sim.Step{Event: "call.dtmf", At: sim.Talking},
		sim.Step{Event: "call.dtmf", At: sim.Talking, Change: sim.With("dtmf_tag", "7")},
		sim.Step{Event: "call.hangup", At: sim.Ended},
	)},
	{Name: "outgoing", About: "a call to the outside", Steps: []sim.Step{
		{Event: "call.initial", Change: outgoing()},
		{Event: "call.ringing", At: sim.Rang, Change: outgoing()},
		{Event: "call.connected", At: sim.Answered, Change: outgoing()},
		{Event: "call.hangup", At: sim.Ended, Change: outgoing("terminated_by", "callee")},
	}},
	{Name: "click-to-call", About: "a call that begins in the browser", Steps: []sim.Step{
		{Event: "call.initial", Change: outgoing("state", "ACCEPTED")},
		{Event: "call.ringing", At: sim.Rang, Change: outgoing()},
		{Event: "call.connected", At: sim.Answered, Change: outgoing()},
		{Event: "call.hangup", At: sim.Ended, Change: outgoing()},
	}},
	{Name: "sms", About: "a text message comes in", Steps: []sim.Step{{Event: "sms.received"}}},
}

var quirks = []sim.Quirk{
	{Name: "integers", About: "src_id and dst_id as integers, as the page's table has them", Change: func(m *sim.Message, _ *sim.Call) {
		for _, key := range []string{"src_id", "dst_id"} {
			if id, ok := m.Fields.Get(key).(string); ok {
				m.Fields.Set(key, sim.Number(id))
			}
		}
	}},
	{Name: "number-integers", About: "src and dst as integers", Change: func(m *sim.Message, _ *sim.Call) {
		for _, key := range []string{"src", "dst"} {
			if number, ok := m.Fields.Get(key).(string); ok {
				m.Fields.Set(key, sim.Number(number))
			}
		}
	}},
	{Name: "withheld", About: "the caller's number is withheld", Change: func(m *sim.Message, c *sim.Call) {
		if m.Fields.Get("src") == c.Customer {
			m.Fields.Set("src", "")
			m.Fields.Set("src_name", "")
		}
	}},
	{Name: "undocumented", About: "fields that no page has", Change: func(m *sim.Message, _ *sim.Call) {
		m.Fields.Set("account_tag", sim.Of("nested", []any{1, true, nil, "x"}))
	}},
	sim.Wrapped,
	sim.Placeholders,
	sim.Charset,
	sim.Gzip,
	sim.Duplicates,
	sim.OutOfOrder,
}
