package acefone

import (
	"slices"
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
func named(name string) *Trigger { return triggers[wire.PlainName(name)] }

var triggers = func() map[string]*Trigger {
	found := map[string]*Trigger{}
	add := func(t *Trigger) {
		for _, name := range append([]string{t.Name, t.Path}, t.Also...) {
			if name != "" {
				found[wire.PlainName(name)] = t
			}
		}
	}
	for i := range Triggers {
		add(&Triggers[i])
	}
	add(&dispositionUpdated)
	return found
}()

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
var Rules = wire.Join(wire.Rules{
	{Field: "call.id", Keys: []string{"call_id"}},
	{Field: "call.legId", Keys: []string{"uuid"}},
	{Field: "call.reference", Keys: []string{"custom_identifier", "ref_id"}},
	{Field: "call.direction", Keys: []string{"direction"}, Values: directions, Closed: true},
	{Field: "call.callType", Keys: []string{"direction"}, Values: callTypes, Closed: true},
	{Field: "call.from.number", Keys: []string{"caller_id_number", "caller_number"}, Note: "in a click-to-call the DID"},
	{Field: "call.to.number", Keys: []string{"call_to_number", "call_to"}, Note: "in a click-to-call the customer"},
	{Field: "call.direction", Set: direction, Note: "where no direction came, by the customer's number (see `call.from.number`): inbound where the customer calls, outbound where the customer is called"},
	{Field: "call.from.number", Keys: customerKeys, Set: customer, Note: "the customer of an inbound call; a key that holds the country code also gives a number without one its E.164 form, and comes before `spec.defaultRegion`"},
	{Field: "call.to.number", Keys: customerKeys, Set: customer, Note: "the customer of other calls"},
	{Field: "call.did", Keys: []string{"did_number"}, Set: did, Note: "else the number that the call's direction makes the PBX's; E.164 where that can be told"},
	{Field: "call.queue", Keys: []string{"queue_name", "call_flow"}, Set: queue, Note: "`queue_name`, else the name of the step Inbound Queue in `call_flow`"},
	{Field: "call.agents", Keys: []string{"answered_agent", "answered_agent_number", "answered_agent_name", "answer_agent_number", "agent_number", "agent_name", "agent", "missed_agent", "call_flow"}, Set: agents, Note: "who answered (text, object, list, or JSON text); else who missed the call; else the steps Agent in `call_flow`"},
	{Field: "call.startTime", Keys: []string{"start_stamp", "start_time"}},
	{Field: "call.answerTime", Keys: []string{"answer_stamp"}, Note: "null of a call that nobody answered, and of CallAnsweredOnIVR: it is the IVR's"},
	{Field: "call.endTime", Keys: []string{"end_stamp"}},
	{Field: "call.durationSeconds", Keys: []string{"duration"}, Note: "with ringing and IVR"},
	{Field: "call.talkSeconds", Keys: []string{"outbound_sec"}, Note: "`billsec` counts the IVR too: map it with `fields` where that is wanted"},
	{Field: "call.waitSeconds", Keys: []string{"agent_ring_time"}},
	{Field: "call.disposition", Keys: statusKeys, Set: disposition, Note: "of a call that has ended what the status says; of a missed call noAnswer, or busy where the status or the cause says so"},
	{Field: "call.hangupCause", Keys: []string{"hangup_cause", "hangup_cause_key", "hangup_cause_description", "hangup_key", "reason_key"}},
	{Field: "call.endedBy", Keys: []string{"hangup_cause", "reason_key"}, Set: endedBy, Note: "caller, callee or agent, where the cause is disconnected_by_caller, _callee or _agent"},
	{Field: "call.recording", Keys: []string{"recording_url"}},
	{Field: "call.digits", Keys: []string{"digit_pressed", "digits_dialed", "last_dtmf", "call_flow"}, Set: digits, Note: "those of a list, or of the steps DTMF in `call_flow`, one after the other"},
	{Field: "time", Keys: []string{"date"}, Set: happened, Note: "of call.dtmf; else the call's start, answer or end, as the event is"},
})

var (
	statusKeys   = []string{"call_status", "status"}
	causeKeys    = wire.Keys("reason_key", "hangup_cause", "hangup_cause_key", "hangup_cause_description", "hangup_cause_code", "hangup_key", "hangup_code")
	customerKeys = []string{"customer_no_with_prefix", "customer_number_with_prefix", "customer_number", "customer_phone", "broadcast_lead_fields.Phone_Number"}
)

// prefixed are the keys that hold a number with its country code, as their names say.
var prefixed = map[string]bool{"customer_no_with_prefix": true, "customer_number_with_prefix": true}

// directions: hangup triggers have clicktocall, answered ones click_to_call; the dialler writes
// Dialer (inbound), Broadcast or auto dialer.
var directions = wire.Words(wire.Directions, map[string]string{
	"clicktocall": event.Outbound, "dialer(inbound)": event.Inbound, "dialer(outbound)": event.Outbound,
	"autodialer": event.Outbound, "autodialer(inbound)": event.Inbound, "autodialer(outbound)": event.Outbound,
	"broadcast": event.Outbound, "voicebroadcast": event.Outbound, "broadcast(outbound)": event.Outbound,
})

var callTypes = wire.Words(wire.CallTypes, map[string]string{
	"clicktocall": string(v1alpha1.CallTypeClickToCall), "dialer(inbound)": string(v1alpha1.CallTypeInbound), "dialer(outbound)": string(v1alpha1.CallTypeOutbound),
	"autodialer": string(v1alpha1.CallTypeOutbound), "autodialer(inbound)": string(v1alpha1.CallTypeInbound), "autodialer(outbound)": string(v1alpha1.CallTypeOutbound),
	"broadcast": string(v1alpha1.CallTypeOutbound), "voicebroadcast": string(v1alpha1.CallTypeOutbound), "broadcast(outbound)": string(v1alpha1.CallTypeOutbound),
})

// happened: when the event happened is one of the call's times, and of DTMF a key of its own.
func happened(e *event.Event, f wire.Fields, s wire.Settings, keys []string) bool {
	c := e.NeedCall()
	when := map[event.Type]*time.Time{
		event.CallStarted: c.StartTime, event.CallAnswered: c.AnswerTime, event.CallMissed: c.EndTime, event.CallEnded: c.EndTime,
	}[e.Type]
	if c.AnsweredBy == "ivr" {
		c.AnswerTime = nil
	}
	if e.Type == event.CallDTMF {
		when = f.Time(s, keys...)
	}
	if when != nil {
		e.Time = *when
	}
	return when != nil
}

// direction tells the direction of a call without one by its end that the customer is at.
func direction(e *event.Event, f wire.Fields, s wire.Settings, _ []string) bool {
	c := e.NeedCall()
	if c.Direction != "" || f.Text("direction") != "" {
		return false
	}
	for _, key := range customerKeys {
		number := customerOf(f, s, key)
		calls, called := wire.SameNumber(number.Raw, c.From.Raw), wire.SameNumber(number.Raw, c.To.Raw)
		switch {
		case number.Raw == "" || calls == called:
			continue
		case calls:
			c.Direction, c.CallType = event.Inbound, v1alpha1.CallTypeInbound
		default:
			c.Direction = event.Outbound // whether it is a click-to-call is not known
		}
		return true
	}
	return false
}

func customerOf(f wire.Fields, s wire.Settings, key string) event.Party {
	s.International = s.International || prefixed[key]
	return f.Party(s, key)
}

func did(e *event.Event, f wire.Fields, s wire.Settings, keys []string) bool {
	c := e.NeedCall()
	number := f.Party(s, keys...)
	given := number.Raw != ""
	if !given {
		switch c.Direction {
		case event.Inbound:
			number = c.To
		case event.Outbound:
			number = c.From
		}
	}
	c.DID = wire.First(number.Number, number.Raw)
	return given
}

// customer fills the customer's end of the call from the keys that say that it is the customer's, and gives a number of
// the call its country code where one of them has it.
func customer(e *event.Event, f wire.Fields, s wire.Settings, keys []string) (found bool) {
	c := e.NeedCall()
	for _, key := range keys {
		number := customerOf(f, s, key)
		if number.Raw == "" {
			continue
		}
		found = true
		end := &c.To
		if c.Direction == event.Inbound {
			end = &c.From
		}
		if end.Raw == "" && c.Direction != "" {
			*end = number
		}
		for _, end := range []*event.Party{&c.From, &c.To} {
			*end = wire.Prefer(*end, number, prefixed[key])
		}
	}
	return found
}

func queue(e *event.Event, f wire.Fields, _ wire.Settings, keys []string) bool {
	c := e.NeedCall()
	last := len(keys) - 1 // call_flow
	if c.Queue = f.Text(keys[:last]...); c.Queue != "" {
		return true
	}
	for _, step := range steps(f, keys[last], "inboundqueue", "queue", "callqueue") {
		c.Queue = wire.First(step.Text("name"), c.Queue)
	}
	return c.Queue != ""
}

// steps are those of call_flow that have one of some types.
func steps(f wire.Fields, key string, types ...string) (found []wire.Fields) {
	for _, item := range f.List(key) {
		if step := wire.AsFields(item); slices.Contains(types, wire.Plain(step.Text("type"))) {
			found = append(found, step)
		}
	}
	return found
}

func digits(e *event.Event, f wire.Fields, _ wire.Settings, keys []string) bool {
	last := len(keys) - 1 // call_flow
	for _, key := range keys[:last] {
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
			return true
		}
	}
	pressed := ""
	for _, step := range steps(f, keys[last], "dtmf") {
		pressed += step.Text("input", "digit", "digits")
	}
	e.NeedCall().Digits = pressed
	return pressed != ""
}

// disposition: the status says "answered" on hangup, "Answered by agent" before.
func disposition(e *event.Event, f wire.Fields, _ wire.Settings, keys []string) bool {
	c := e.NeedCall()
	said := statusesOf(f, keys).disposition
	switch e.Type {
	case event.CallMissed:
		c.Disposition = wire.NoAnswer
		if said == wire.Busy || busy(f) {
			c.Disposition = wire.Busy
		}
	case event.CallEnded:
		c.Disposition = said
		if said == "" {
			c.Disposition = strings.ToLower(f.Text(keys...))
		}
		if said == wire.NoAnswer && busy(f) {
			c.Disposition = wire.Busy
		}
	}
	return f.Text(keys...) != ""
}

// busy is whether a cause of the call's end says that the other side was.
func busy(f wire.Fields) bool {
	return slices.ContainsFunc(causeKeys, func(key string) bool { return wire.DispositionOfCause(f.Text(key)) == wire.Busy })
}

func endedBy(e *event.Event, f wire.Fields, _ wire.Settings, keys []string) bool {
	for _, key := range keys {
		if by := endings[strings.TrimPrefix(wire.Plain(f.Text(key)), "call")]; by != "" {
			e.NeedCall().EndedBy = by
			return true
		}
	}
	return false
}

var endings = map[string]string{
	"disconnectedbycaller": "caller", "disconnectedbycallee": "callee", "disconnectedbyagent": "agent",
	"hangupbycaller": "caller", "hangupbycallee": "callee", "hangupbyagent": "agent",
}

const maxAgents = 100

// agents are who answered, in whatever shape they came, else who missed the call, else who is on call_flow.
func agents(e *event.Event, f wire.Fields, _ wire.Settings, keys []string) bool {
	last := len(keys) - 1 // call_flow; before it missed_agent
	c := e.NeedCall()
	for _, key := range keys[:last-1] {
		if c.Agents = people(f.Value(key)); len(c.Agents) > 0 {
			return true
		}
	}
	answered := event.Agent{
		Name:   wire.First(readable(f.Text("answered_agent_name")), readable(f.Text("agent_name")), readable(f.Text("agent"))),
		Number: wire.First(readable(f.Text("answered_agent_number")), readable(f.Text("answer_agent_number")), readable(f.Text("agent_number"))),
	}
	switch text := readable(f.Text(keys[0])); { // answered_agent, or the customer's own key for it
	case text == "":
	case isNumber(text):
		answered.Number = wire.First(answered.Number, text)
	default:
		answered.Name = wire.First(answered.Name, text)
	}
	if answered != (event.Agent{}) {
		c.Agents = []event.Agent{answered}
		return true
	}
	if c.Agents = people(f.Value(keys[last-1])); len(c.Agents) == 0 {
		c.Agents = inFlow(f, keys[last], e.Type == event.CallMissed)
	}
	return len(c.Agents) > 0
}

// inFlow are the agents of call_flow who answered or, where the call was missed, whom it rang.
func inFlow(f wire.Fields, key string, missed bool) (agents []event.Agent) {
	for _, step := range steps(f, key, "agent") {
		answered := wire.Plain(step.Text("dialst")) == "answered"
		if answered == missed {
			continue
		}
		for _, person := range people(map[string]any{
			"id": step.Value("id"), "name": step.Value("name"), "email": step.Value("email"), "number": step.Value("num", "number"),
		}) {
			if !slices.Contains(agents, person) && (person.ID != "" || person.Name != "") {
				agents = append(agents, person)
			}
		}
	}
	return agents[:min(len(agents), maxAgents)]
}

// readable is a text, or empty where it is an object or list in a notation that cannot be read, such as Go's.
func readable(text string) string {
	for _, prefix := range []string{"[", "{", "map["} {
		if strings.HasPrefix(text, prefix) {
			return ""
		}
	}
	return text
}

// people are the agents in an object, a list of objects, or either as JSON text.
func people(value any) []event.Agent {
	var agents []event.Agent
	list := wire.AsList(value)
	for _, item := range list[:min(len(list), maxAgents)] {
		person := wire.AsFields(item)
		agent := event.Agent{
			ID: person.Text("id"), Name: person.Text("name"), Email: person.Text("email"),
			Number: person.Text("number", "follow_me_number", "agent_number"),
		}
		if agent != (event.Agent{}) {
			agents = append(agents, agent)
		}
	}
	return agents
}

func isNumber(text string) bool {
	return strings.Trim(text, "+0123456789 -()") == ""
}
