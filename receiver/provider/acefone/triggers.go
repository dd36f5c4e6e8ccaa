package acefone

import (
	"strings"
	"time"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/provider/wire"
)

// Trigger is one of the events for which Acefone calls a URL of its own.
type Trigger struct {
	Name string // as in spec.events
	Path string // the last part of the URL
	// Also are the names that siblings' panels have for it, as they would stand in a path.
	Also []string
	// Type is the canonical type; empty where the call's status decides between missed and ended.
	Type       event.Type
	AnsweredBy string
}

// Triggers are Acefone's triggers (Acefone: Webhook, table of triggers) with those of Servetel and
// Smartflo that mean the same.
var Triggers = []Trigger{
	trigger("CallReceivedOnServer", event.CallStarted, ""),
	trigger("CallAnsweredOnIVR", event.CallAnswered, "ivr", "received-on-auto-attendant", "call-received-on-auto-attendant"),
	trigger("CallAnsweredOnRingGroup", event.CallAnswered, "ringGroup", "received-on-department", "call-received-on-department"),
	trigger("CallAnsweredOnCallQueue", event.CallAnswered, "queue"),
	trigger("CallAnsweredByExtension", event.CallAnswered, "extension", "call-answered-by-agent", "call-connected-to-agent", "call-connected-to-agent-dialer", "session-call-answered"),
	trigger("CallAnsweredByCustomer", event.CallAnswered, "customer", "call-answered-by-customer-click-to-call"),
	trigger("CallMissed", event.CallMissed, "", "call-hangup-missed", "call-missed-by-agent", "call-missed-by-agent-hangup", "call-missed-by-customer", "call-missed-by-customer-click-to-call"),
	trigger("CallHangup", event.CallEnded, "", "call-hangup-answered", "call-answered-by-agent-hangup"),
	trigger("CallMissedOrAnswered", "", "", "call-hangup-missed-or-answered", "call-answered-missed-by-agent-hangup"),
	trigger("DTMFOption", event.CallDTMF, ""),
	trigger("DialedOnExtensions", event.CallRinging, "", "dialed-on-agent", "dialed-on-extension"),
}

func trigger(name string, kind event.Type, answeredBy string, also ...string) Trigger {
	return Trigger{Name: name, Path: v1alpha1.AcefonePaths[name], Also: also, Type: kind, AnsweredBy: answeredBy}
}

// dispositionUpdated is a trigger of Smartflo's dialler that none of Acefone's corresponds to.
var dispositionUpdated = Trigger{Name: "DispositionStatusUpdated", Also: []string{"disposition-status-updated-dialer"}, Type: event.Other}

// Categories are triggers that another one stands for too: without a trigger in the path, a call that
// was missed or answered is told as one or the other.
var Categories = map[string][]string{"CallMissedOrAnswered": {"CallMissed", "CallHangup"}}

// named finds a trigger by a name in any spelling: call-missed, CallMissed, call_missed, Call Missed.
func named(name string) *Trigger { return triggers[plain(name)] }

var triggers = func() map[string]*Trigger {
	found := map[string]*Trigger{}
	add := func(t *Trigger) {
		for _, name := range append([]string{t.Name, t.Path}, t.Also...) {
			if name != "" {
				found[plain(name)] = t
			}
		}
	}
	for i := range Triggers {
		add(&Triggers[i])
	}
	add(&dispositionUpdated)
	return found
}()

// plain is a name without all but its letters: panels write Call answered by Customer(Click to Call).
func plain(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' {
			return r
		}
		return -1
	}, strings.ToLower(name))
}

var states = map[event.Type]string{
	event.CallStarted:  event.StateStarted,
	event.CallRinging:  event.StateRinging,
	event.CallAnswered: event.StateAnswered,
	event.CallDTMF:     event.StateAnswered,
	event.CallMissed:   event.StateMissed,
	event.CallEnded:    event.StateEnded,
}

// Rules are those of all triggers: the template is the customer's, so any field may come with any
// trigger. The stock keys are known from captures of Smartflo and Acefone India.
var Rules = wire.Rules{
	{Field: "call.id", Keys: []string{"call_id"}},
	{Field: "call.legId", Keys: []string{"uuid"}},
	{Field: "call.direction", Keys: []string{"direction"}, Values: directions, Closed: true},
	{Field: "call.callType", Keys: []string{"direction"}, Values: callTypes, Closed: true},
	{Field: "call.from.number", Keys: []string{"caller_id_number"}, Note: "in a click-to-call the DID"},
	{Field: "call.to.number", Keys: []string{"call_to_number"}, Note: "in a click-to-call the customer"},
	{Field: "call.did", Keys: []string{"did_number"}, Set: did, Note: "else the number that the call's direction makes the PBX's; E.164 where that can be told"},
	{Field: "call.from.number", Keys: customerKeys, Set: customer, Note: "the customer of an inbound call; also gives a number without country code its E.164 form"},
	{Field: "call.to.number", Keys: customerKeys, Set: customer, Note: "the customer of other calls"},
	{Field: "call.queue", Keys: []string{"queue_name", "call_flow"}, Set: queue, Note: "`queue_name`, else the name of the step Inbound Queue in `call_flow`"},
	{Field: "call.agents", Keys: []string{"answered_agent", "answered_agent_number", "answered_agent_name", "answer_agent_number", "agent_number", "agent_name", "missed_agent"}, Set: agents, Note: "who answered (text, object, list, or JSON text); else who missed the call"},
	{Field: "call.startTime", Keys: []string{"start_stamp"}},
	{Field: "call.answerTime", Keys: []string{"answer_stamp"}},
	{Field: "call.endTime", Keys: []string{"end_stamp"}},
	{Field: "call.durationSeconds", Keys: []string{"duration"}, Note: "with ringing and IVR"},
	{Field: "call.talkSeconds", Keys: []string{"outbound_sec"}, Note: "`billsec` counts the IVR too: map it with `fields` where that is wanted"},
	{Field: "call.waitSeconds", Keys: []string{"agent_ring_time"}},
	{Field: "call.disposition", Keys: statusKeys, Set: disposition, Note: "answered; of a missed call noAnswer, or busy where `reason_key` says so"},
	{Field: "call.hangupCause", Keys: []string{"hangup_cause", "hangup_cause_key", "hangup_cause_description", "reason_key"}},
	{Field: "call.endedBy", Keys: []string{"hangup_cause", "reason_key"}, Set: endedBy, Note: "caller or callee, where the cause is disconnected_by_caller or _callee"},
	{Field: "call.recording", Keys: []string{"recording_url"}},
	{Field: "call.digits", Keys: []string{"digit_pressed", "digits_dialed", "last_dtmf"}, Set: digits, Note: "those of a list one after the other"},
	{Field: "time", Keys: []string{"date"}, Set: happened, Note: "of call.dtmf; else the call's start, answer or end, as the event is"},
}

var (
	statusKeys   = []string{"call_status", "status"}
	customerKeys = []string{"customer_no_with_prefix", "customer_number_with_prefix", "customer_number", "customer_phone"}
)

// directions: hangup triggers have clicktocall, answered ones click_to_call; the dialler writes
// Dialer (inbound).
var directions = map[string]string{
	"inbound": event.Inbound, "outbound": event.Outbound, "clicktocall": event.Outbound,
	"dialer(inbound)": event.Inbound, "dialer(outbound)": event.Outbound, "incoming": event.Inbound, "outgoing": event.Outbound,
}

var callTypes = map[string]string{
	"inbound": string(v1alpha1.CallTypeInbound), "outbound": string(v1alpha1.CallTypeOutbound), "clicktocall": string(v1alpha1.CallTypeClickToCall),
	"dialer(inbound)": string(v1alpha1.CallTypeInbound), "dialer(outbound)": string(v1alpha1.CallTypeOutbound),
	"incoming": string(v1alpha1.CallTypeInbound), "outgoing": string(v1alpha1.CallTypeOutbound),
}

// happened: when the event happened is one of the call's times, and of DTMF a key of its own.
func happened(e *event.Event, f wire.Fields, s wire.Settings, keys []string) {
	c := e.NeedCall()
	when := map[event.Type]*time.Time{
		event.CallStarted: c.StartTime, event.CallAnswered: c.AnswerTime, event.CallMissed: c.EndTime, event.CallEnded: c.EndTime,
	}[e.Type]
	if e.Type == event.CallDTMF {
		when = f.Time(s, keys...)
	}
	if when != nil {
		e.Time = *when
	}
}

func did(e *event.Event, f wire.Fields, s wire.Settings, keys []string) {
	c := e.NeedCall()
	number := f.Text(keys...)
	if number == "" {
		switch c.Direction {
		case event.Inbound:
			number = c.To.Raw
		case event.Outbound:
			number = c.From.Raw
		}
	}
	c.DID = number
	if e164 := wire.E164(number, s.Region, false); e164 != "" {
		c.DID = e164
	}
}

// customer fills the customer's end of the call from the keys that say that it is the customer's, and
// completes a number of the call to which it is the form with a prefix.
func customer(e *event.Event, f wire.Fields, s wire.Settings, _ []string) {
	c := e.NeedCall()
	for _, key := range customerKeys {
		number := s.Party(f.Text(key))
		if number.Raw == "" {
			continue
		}
		end := &c.To
		if c.Direction == event.Inbound {
			end = &c.From
		}
		if end.Raw == "" && c.Direction != "" {
			*end = number
		}
		for _, end := range []*event.Party{&c.From, &c.To} {
			if end.Number == "" && isPrefixed(number.Number, end.Raw) {
				end.Number = number.Number
			}
		}
	}
}

// isPrefixed is whether an E.164 number is another one with its country code.
func isPrefixed(e164, national string) bool {
	return e164 != "" && len(national) >= 7 && strings.HasSuffix(e164, strings.TrimLeft(national, "0"))
}

func queue(e *event.Event, f wire.Fields, _ wire.Settings, keys []string) {
	c := e.NeedCall()
	last := len(keys) - 1 // call_flow
	if c.Queue = f.Text(keys[:last]...); c.Queue != "" {
		return
	}
	for _, step := range f.List(keys[last]) {
		if step := wire.AsFields(step); wire.Plain(step.Text("type")) == "inboundqueue" {
			c.Queue = step.Text("name")
		}
	}
}

func digits(e *event.Event, f wire.Fields, _ wire.Settings, keys []string) {
	for _, key := range keys {
		pressed, list := "", f.List(key)
		for _, digit := range list {
			if _, object := digit.(map[string]any); !object {
				pressed += wire.Text(digit)
			}
		}
		if list == nil {
			pressed = f.Text(key)
		}
		if pressed != "" {
			e.NeedCall().Digits = pressed
			return
		}
	}
}

// disposition: the status says "answered" on hangup, "Answered by agent" before.
func disposition(e *event.Event, f wire.Fields, _ wire.Settings, keys []string) {
	switch c := e.NeedCall(); e.Type {
	case event.CallMissed:
		c.Disposition = "noAnswer"
		if wire.Plain(f.Text("reason_key")) == "busy" {
			c.Disposition = "busy"
		}
	case event.CallEnded:
		for _, key := range keys {
			if strings.Contains(strings.ToLower(f.Text(key)), "answered") {
				c.Disposition = "answered"
			}
		}
	}
}

func endedBy(e *event.Event, f wire.Fields, _ wire.Settings, keys []string) {
	for _, key := range keys {
		switch cause := wire.Plain(f.Text(key)); {
		case strings.Contains(cause, "disconnectedbycaller"):
			e.NeedCall().EndedBy = "caller"
		case strings.Contains(cause, "disconnectedbycallee"):
			e.NeedCall().EndedBy = "callee"
		}
	}
}

const maxAgents = 100

// agents are who answered, in whatever shape they came, else who missed the call.
func agents(e *event.Event, f wire.Fields, _ wire.Settings, keys []string) {
	last := len(keys) - 1 // missed_agent
	for _, key := range keys[:last] {
		if list := people(f.Value(key)); len(list) > 0 {
			e.NeedCall().Agents = list
			return
		}
	}
	answered := event.Agent{
		Name:   wire.First(f.Text("answered_agent_name"), f.Text("agent_name")),
		Number: f.Text("answered_agent_number", "answer_agent_number", "agent_number"),
	}
	switch text, ok := f.Value(keys[0]).(string); { // answered_agent, or the customer's own key for it
	case !ok, strings.HasPrefix(text, "["), strings.HasPrefix(text, "{"), strings.HasPrefix(text, "map["): // nobody, or not readable
	case isNumber(text):
		answered.Number = wire.First(answered.Number, strings.TrimSpace(text))
	default:
		answered.Name = wire.First(answered.Name, strings.TrimSpace(text))
	}
	if answered != (event.Agent{}) {
		e.NeedCall().Agents = []event.Agent{answered}
		return
	}
	e.NeedCall().Agents = people(f.Value(keys[last]))
}

// people are the agents in an object, a list of objects, or either as JSON text.
func people(value any) []event.Agent {
	var agents []event.Agent
	list := wire.AsList(value)
	for _, item := range list[:min(len(list), maxAgents)] {
		person := wire.AsFields(item)
		agent := event.Agent{ID: person.Text("id"), Name: person.Text("name"), Number: person.Text("number", "follow_me_number", "agent_number")}
		if agent != (event.Agent{}) {
			agents = append(agents, agent)
		}
	}
	return agents
}

func isNumber(text string) bool {
	return strings.Trim(text, "+0123456789 -()") == ""
}
