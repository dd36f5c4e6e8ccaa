// Package acefone decodes the webhooks of Acefone and of its siblings Smartflo and Servetel.
//
// Acefone's payload does not name its event: each trigger has a webhook of its own, so the trigger
// stands in the path, else it is told from the fields. The body is a template that the customer
// edits. Facts are from Acefone's page Webhook and from captures of its siblings. The package must
// not know how requests arrive or where events go.
package acefone

import (
	"strings"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/provider/wire"
)

// Decoder decodes the requests of an Acefone.
type Decoder struct{}

// Decode makes a canonical event of a request.
func (Decoder) Decode(r *event.Request, s wire.Settings) event.Event {
	e := event.Event{Provider: v1alpha1.Acefone, ReceivedAt: r.ReceivedAt, Repeats: true}
	trigger := named(wire.LastPart(r.Path))
	if trigger != nil {
		e.Name = trigger.Name
	}
	fields, err := wire.Read(r, s)
	if err != nil {
		e.Type, e.Reason = event.Unparsed, err.Error()
		return e
	}
	e.Payload = fields.Payload()
	t := template{fields, s}
	if trigger == nil {
		trigger = t.trigger()
	}
	if trigger == nil {
		e.Type = event.Unparsed
		e.Type = event.Unparsed
		e.Reason = "expected a trigger at the end of the path (such as /call-missed), or fields that tell it (call_status, start_stamp, end_stamp), got neither: " + fields.Came() + hint
		return e
	}
	e.Name, e.Type = trigger.Name, trigger.Type
	if e.Type == "" { // missed or answered
		e.Type = event.CallEnded
		if t.missed() {
			e.Type = event.CallMissed
		}
	}
	c := e.NeedCall()
	c.State, c.AnsweredBy = states[e.Type], trigger.AnsweredBy
	if !Rules.Fill(&e, fields, s) {
		wire.Nothing(&e, fields)
		e.Reason += hint
		return e
	}
	e.Complete()
	return e
}

// hint is what one can do about a body with unknown keys.
const hint = ". If the body template has keys of its own, say in spec.fields which is which"

// template is a body that the customer may have edited.
type template struct {
	wire.Fields
	settings wire.Settings
}

// text is what the request has for a canonical field.
func (t template) text(field string) string {
	for i := range Rules {
		if Rules[i].Field == field {
			return t.Text(Rules[i].KeysOf(t.settings)...)
		}
	}
	return ""
}

// statuses are all that the request says of the call's status. A template may have it as call_status
// or status, and a consumer in between may have overwritten one of them.
type statuses struct {
	disposition string // noAnswer or busy where any of them says so, else answered where one does
	answeredBy  string // the trigger of who answered, where one names it
}

func (t template) statuses() statuses {
	return statusesOf(t.Fields, append([]string{t.settings.Fields["call.disposition"]}, statusKeys...))
}

func statusesOf(f wire.Fields, keys []string) (s statuses) {
	for _, key := range keys {
		text := f.Text(key)
		disposition, known := wire.Disposition(text)
		if known && (s.disposition == "" || s.disposition == wire.Answered) {
			s.disposition = disposition
		}
		s.answeredBy = wire.First(s.answeredBy, answeredBy[strings.TrimPrefix(wire.Plain(text), "call")])
	}
	return s
}

// answeredBy are the triggers of an answered call whose status names who answered.
var answeredBy = map[string]string{
	"answeredbyagent": "CallAnsweredByExtension", "answeredbyextension": "CallAnsweredByExtension", "answeredbycustomer": "CallAnsweredByCustomer",
}

// missed is whether nobody answered: the status says so or, in a template without one, that no agent was
// reached.
func (t template) missed() bool {
	switch t.statuses().disposition {
	case wire.NoAnswer, wire.Busy:
		return true
	case wire.Answered:
		return false
	}
	return t.Text("call_connected") == "0"
}

// trigger tells the trigger from the fields, most telling first.
func (t template) trigger() *Trigger {
	for _, key := range triggerKeys { // customers who have one URL add such a key
		if trigger := named(t.Text(key)); trigger != nil {
			return trigger
		}
	}
	statuses := t.statuses()
	ended := t.text("call.endTime") != "" || t.text("call.durationSeconds") != "" || t.text("call.hangupCause") != "" || t.text("call.talkSeconds") != ""
	switch {
	case statuses.answeredBy != "":
		return named(statuses.answeredBy)
	case t.missed():
		return named("CallMissed")
	case ended, t.Text("billsec") != "":
		return named("CallHangup")
	case t.Text("digit_pressed") != "":
		return named("DTMFOption")
	case t.Text("ivr_id", "ivr_name") != "":
		return named("CallAnsweredOnIVR")
	case statuses.disposition == wire.Answered:
		return named("CallHangup") // call_status is "answered" on hangup alone
	case t.Text("customer_ring_time") != "":
		return named("CallAnsweredByCustomer")
	case t.Value("answered_agent", "answered_agent_number", "answered_agent_name", "answer_agent_number") != nil:
		return named("CallAnsweredByExtension")
	case t.text("call.startTime") != "":
		return named("CallReceivedOnServer")
	}
	return nil
}

var triggerKeys = wire.Keys("trigger", "event", "event_name")

var _ = wire.Keys("call_connected", "billsec", "ivr_id", "ivr_name", "customer_ring_time")
