// Package acefone decodes the webhooks of Acefone and of its siblings Smartflo and Servetel.
//
// Acefone's payload does not name its event: each trigger has a webhook of its own, so the trigger
// stands in the path, else it is told from the fields. The body is a template that the customer
// edits. Facts are from Acefone's page Webhook and from captures of its siblings. The package must
// not know how requests arrive or where events go.
package acefone

import (
	"slices"
	"strings"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/provider/wire"
)

// Decoder decodes the requests of an Acefone.
type Decoder struct{}

// Trigger is one of the events for which Acefone calls a URL of its own.
type Trigger struct {
	Name string // as in spec.events
	Path string // the last part of the URL
	// also are the parts that siblings' names of the same trigger would make.
	also []string
	// kind is the canonical type; empty where the call's status decides between missed and ended.
	kind       event.Type
	answeredBy string
}

// Triggers are Acefone's triggers (Acefone: Webhook, table of triggers).
var Triggers = []Trigger{
	{Name: "CallReceivedOnServer", Path: v1alpha1.AcefonePaths["CallReceivedOnServer"], kind: event.CallStarted},
	{Name: "CallAnsweredOnIVR", Path: v1alpha1.AcefonePaths["CallAnsweredOnIVR"], also: []string{"received-on-auto-attendant", "call-received-on-auto-attendant"}, kind: event.CallAnswered, answeredBy: "ivr"},
	{Name: "CallAnsweredOnRingGroup", Path: v1alpha1.AcefonePaths["CallAnsweredOnRingGroup"], also: []string{"received-on-department", "call-received-on-department"}, kind: event.CallAnswered, answeredBy: "ringGroup"},
	{Name: "CallAnsweredOnCallQueue", Path: v1alpha1.AcefonePaths["CallAnsweredOnCallQueue"], kind: event.CallAnswered, answeredBy: "queue"},
	{Name: "CallAnsweredByExtension", Path: v1alpha1.AcefonePaths["CallAnsweredByExtension"], also: []string{"call-answered-by-agent", "call-connected-to-agent"}, kind: event.CallAnswered, answeredBy: "extension"},
	{Name: "CallAnsweredByCustomer", Path: v1alpha1.AcefonePaths["CallAnsweredByCustomer"], kind: event.CallAnswered, answeredBy: "customer"},
	{Name: "CallMissed", Path: v1alpha1.AcefonePaths["CallMissed"], also: []string{"call-hangup-missed", "call-missed-by-agent", "call-missed-by-customer"}, kind: event.CallMissed},
	{Name: "CallHangup", Path: v1alpha1.AcefonePaths["CallHangup"], also: []string{"call-hangup-answered"}, kind: event.CallEnded},
	{Name: "CallMissedOrAnswered", Path: v1alpha1.AcefonePaths["CallMissedOrAnswered"], also: []string{"call-hangup-missed-or-answered"}},
	{Name: "DTMFOption", Path: v1alpha1.AcefonePaths["DTMFOption"], kind: event.CallDTMF},
	{Name: "DialedOnExtensions", Path: v1alpha1.AcefonePaths["DialedOnExtensions"], also: []string{"dialed-on-agent", "dialed-on-extension"}, kind: event.CallRinging},
}

// Categories are triggers that another one stands for too: without a trigger in the path, a call that
// was missed or answered is told as one or the other.
var Categories = map[string][]string{"CallMissedOrAnswered": {"CallMissed", "CallHangup"}}

func byPath(path string) *Trigger {
	part := strings.ToLower(wire.LastPart(path))
	for i := range Triggers {
		if t := &Triggers[i]; t.Path == part || strings.EqualFold(t.Name, part) || slices.Contains(t.also, part) {
			return t
		}
	}
	return nil
}

func byName(name string) *Trigger {
	for i := range Triggers {
		if Triggers[i].Name == name {
			return &Triggers[i]
		}
	}
	return nil
}

// Decode makes a canonical event of a request.
func (Decoder) Decode(r *event.Request, s wire.Settings) event.Event {
	e := event.Event{Provider: v1alpha1.Acefone, ReceivedAt: r.ReceivedAt, Repeats: true}
	trigger := byPath(r.Path)
	if trigger != nil {
		e.Name = trigger.Name
	}
	fields, err := wire.Read(r, s)
	if err != nil {
		e.Type, e.Reason = event.Unparsed, err.Error()
		return e
	}
	e.Payload = fields.Payload()
	fields.Drop(unresolved)
	t := template{Fields: fields, renamed: s.Fields}
	if trigger == nil {
		if trigger = t.trigger(); trigger == nil {
			e.Type = event.Unparsed
			e.Reason = "expected a trigger at the end of the path (such as /call-missed), or fields that tell it (call_status, start_stamp, end_stamp); got neither, or only $variables that were not resolved"
			return e
		}
		e.Name = trigger.Name
	}
	e.Type = trigger.kind
	if e.Type == "" {
		e.Type = event.CallEnded
		if t.missed() {
			e.Type = event.CallMissed
		}
	}
	t.call(&e, trigger, s)
	return e
}

// unresolved is whether a value is a variable of the template that Acefone had nothing for:
// "$campaign_name" arrives literally.
func unresolved(value string) bool {
	return len(value) > 1 && value[0] == '$' && strings.Trim(value[1:], "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == ""
}

// template is a body that the customer may have edited.
type template struct {
	wire.Fields
	renamed map[string]string
}

// keys are the stock keys of a canonical field, after the customer's own key for it.
func (t template) keys(canonical string, stock ...string) []string {
	if key := t.renamed[canonical]; key != "" {
		return append([]string{key}, stock...)
	}
	return stock
}

func (t template) text(canonical string, stock ...string) string {
	return t.Text(t.keys(canonical, stock...)...)
}

// status is the call's status; a template may have it as call_status or status.
func (t template) status() string {
	return strings.ToLower(t.text("call.disposition", "call_status", "status"))
}

func (t template) missed() bool {
	return strings.Contains(t.status(), "missed") || strings.Contains(strings.ToLower(t.Text("status")), "missed")
}

// trigger tells the trigger from the fields, most telling first.
func (t template) trigger() *Trigger {
	statuses := t.status() + " " + strings.ToLower(t.Text("status"))
	ended := t.text("call.endTime", "end_stamp") != "" || t.text("call.durationSeconds", "duration") != "" ||
		t.text("call.hangupCause", "hangup_cause") != "" || t.text("call.talkSeconds", "billsec") != ""
	switch {
	case strings.Contains(statuses, "answered by agent"):
		return byName("CallAnsweredByExtension")
	case strings.Contains(statuses, "answered by customer"):
		return byName("CallAnsweredByCustomer")
	case t.missed():
		return byName("CallMissed")
	case ended:
		return byName("CallHangup")
	case t.text("call.digits", "digit_pressed") != "":
		return byName("DTMFOption")
	case t.Text("ivr_id", "ivr_name") != "":
		return byName("CallAnsweredOnIVR")
	case strings.Contains(statuses, "answered"):
		return byName("CallHangup") // call_status is "answered" on hangup alone
	case t.text("call.startTime", "start_stamp") != "":
		return byName("CallReceivedOnServer")
	}
	return nil
}

var states = map[event.Type]string{
	event.CallStarted:  event.StateStarted,
	event.CallRinging:  event.StateRinging,
	event.CallAnswered: event.StateAnswered,
	event.CallDTMF:     event.StateAnswered,
	event.CallMissed:   event.StateMissed,
	event.CallEnded:    event.StateEnded,
}

func (t template) call(e *event.Event, trigger *Trigger, s wire.Settings) {
	c := &event.Call{
		ID:              t.text("call.id", "call_id"),
		LegID:           t.text("call.legId", "uuid"),
		State:           states[e.Type],
		AnsweredBy:      trigger.answeredBy,
		Queue:           t.text("call.queue", "queue_name"),
		StartTime:       t.Time(s, t.keys("call.startTime", "start_stamp")...),
		AnswerTime:      t.Time(s, t.keys("call.answerTime", "answer_stamp")...),
		EndTime:         t.Time(s, t.keys("call.endTime", "end_stamp")...),
		DurationSeconds: t.Int(t.keys("call.durationSeconds", "duration")...),
		TalkSeconds:     t.Int(t.keys("call.talkSeconds", "outbound_sec")...),
		WaitSeconds:     t.Int(t.keys("call.waitSeconds", "agent_ring_time")...),
		HangupCause:     t.text("call.hangupCause", "hangup_cause", "hangup_cause_key", "hangup_cause_description", "reason_key"),
		Recording:       t.text("call.recording", "recording_url"),
		Digits:          t.text("call.digits", "digit_pressed", "digits_dialed", "last_dtmf"),
		Agents:          t.agents(),
	}
	caller := t.text("call.from.number", "caller_id_number", "customer_number")
	called := t.text("call.to.number", "call_to_number")
	c.From, c.To = s.Party(caller, "", false), s.Party(called, "", false)
	c.DID = t.text("call.did", "did_number")
	switch direction := strings.ToLower(t.text("call.direction", "direction")); {
	case strings.Contains(direction, "click"): // clicktocall on hangup, click_to_call when answered
		c.Direction, c.CallType = event.Outbound, v1alpha1.CallTypeClickToCall
		c.DID = wire.First(c.DID, caller)
	case strings.Contains(direction, "inbound"): // also "Dialer (inbound)"
		c.Direction, c.CallType = event.Inbound, v1alpha1.CallTypeInbound
		c.DID = wire.First(c.DID, called)
	case strings.Contains(direction, "outbound"):
		c.Direction, c.CallType = event.Outbound, v1alpha1.CallTypeOutbound
		c.DID = wire.First(c.DID, caller)
	}
	switch {
	case e.Type == event.CallMissed:
		c.Disposition = "noAnswer"
	case e.Type == event.CallEnded && strings.Contains(t.status(), "answered"):
		c.Disposition = "answered"
	}
	if number := wire.E164(c.DID, s.Region, false); number != "" {
		c.DID = number
	}
	happened := map[event.Type][]string{
		event.CallEnded:    t.keys("call.endTime", "end_stamp"),
		event.CallMissed:   t.keys("call.endTime", "end_stamp"),
		event.CallAnswered: t.keys("call.answerTime", "answer_stamp"),
		event.CallDTMF:     {"date"},
		event.CallStarted:  t.keys("call.startTime", "start_stamp"),
	}[e.Type]
	if when := t.Time(s, happened...); when != nil {
		e.Time = *when
	}
	e.Call = c
}

// agents are who answered: answered_agent is a text, an object, a list or any of them as JSON text.
func (t template) agents() []event.Agent {
	var agents []event.Agent
	value := t.Value(t.keys("call.agents", "answered_agent")...)
	if number := t.Value("answered_agent_number"); value == nil && wire.AsFields(number).Has("id", "name") {
		value = number // an object in "answered by customer"
	}
	list := wire.AsList(value)
	for _, item := range list[:min(len(list), 100)] {
		agent := wire.AsFields(item)
		if a := (event.Agent{ID: agent.Text("id"), Name: agent.Text("name"), Number: agent.Text("number", "follow_me_number", "agent_number")}); a != (event.Agent{}) {
			agents = append(agents, a)
		}
	}
	if len(agents) > 0 {
		return agents
	}
	plain := event.Agent{
		Name:   wire.First(t.Text("answered_agent_name"), textOnly(value)),
		Number: t.Text("answered_agent_number", "answer_agent_number", "agent_number"),
	}
	if plain == (event.Agent{}) {
		return nil
	}
	return []event.Agent{plain}
}

func textOnly(value any) string {
	text, _ := value.(string)
	return strings.TrimSpace(text)
}
