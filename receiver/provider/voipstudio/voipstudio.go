// Package voipstudio decodes VoIPstudio's webhooks.
//
// Facts are from VoIPstudio's page Integrations - Webhooks, and from captures where that is silent
// (root_call_id, final, terminated_by, monitor.audio_ready). It must not know how requests arrive
// or where events go.
package voipstudio

import (
	"net/url"
	"strings"
	"time"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/provider/wire"
)

// Decoder decodes the requests of VoIPstudio.
type Decoder struct{}

// Names are VoIPstudio's events.
var Names = []string{
	"call.initial", "call.ringing", "call.connected", "call.hold", "call.unhold", "call.missed",
	"call.hangup", "call.dtmf", "sms.received", "queue.wrapup", "monitor.audio_ready",
}

// Categories are the event types that one chooses in VoIPstudio's panel, with the events of each.
var Categories = map[string][]string{
	"CallStateChange": {"call.initial", "call.ringing", "call.connected", "call.hold", "call.unhold", "call.missed", "call.hangup"},
	"CallRinging":     {"call.ringing"},
	"CallConnected":   {"call.connected"},
	"CallEnded":       {"call.hangup"},
	"CallMissed":      {"call.missed"},
	"CallDTMF":        {"call.dtmf"},
	"SMSReceived":     {"sms.received"},
	"QueueWrapUp":     {"queue.wrapup"},
}

var types = map[string]event.Type{
	"call.initial":        event.CallStarted,
	"call.ringing":        event.CallRinging,
	"call.connected":      event.CallAnswered,
	"call.hold":           event.CallHeld,
	"call.unhold":         event.CallResumed,
	"call.missed":         event.CallMissed,
	"call.hangup":         event.CallEnded,
	"call.dtmf":           event.CallDTMF,
	"queue.wrapup":        event.QueueWrapup,
	"sms.received":        event.SMSReceived,
	"monitor.audio_ready": event.RecordingReady,
	"ping":                event.Ping,
}

var states = map[event.Type]string{
	event.CallStarted:  event.StateStarted,
	event.CallRinging:  event.StateRinging,
	event.CallAnswered: event.StateAnswered,
	event.CallHeld:     event.StateHeld,
	event.CallResumed:  event.StateAnswered,
	event.CallMissed:   event.StateMissed,
	event.CallEnded:    event.StateEnded,
	event.CallDTMF:     event.StateAnswered,
}

// Decode makes a canonical event of a request.
func (Decoder) Decode(r *event.Request, s wire.Settings) event.Event {
	e := event.Event{Provider: v1alpha1.VoIPstudio, ReceivedAt: r.ReceivedAt}
	fields, err := wire.Read(r, s)
	if err != nil {
		e.Type, e.Reason = event.Unparsed, err.Error()
		return e
	}
	e.Payload = fields.Payload()
	e.Name = fields.Text("event_name")
	if e.Name == "" {
		e.Type, e.Reason = event.Unparsed, "expected event_name among the fields, got none"
		return e
	}
	e.ID = fields.Text("id")
	e.Repeats = e.ID != ""
	s.Location = nil // VoIPstudio: event_time and the others are in UTC
	if t := fields.Time(s, "event_time"); t != nil {
		e.Time = *t
	}
	known, ok := types[strings.ToLower(e.Name)]
	if !ok {
		known = event.Other
	}
	e.Type = known
	if e.Type == event.SMSReceived {
		sms(&e, fields, s)
		return e
	}
	call(&e, fields, s)
	return e
}

func sms(e *event.Event, f wire.Fields, s wire.Settings) {
	e.SMS = &event.SMS{
		From: s.Party(f.Text("from_no"), "", true), To: s.Party(f.Text("to_no"), "", true),
		Text: f.Text("text"), CustomerID: f.Text("customer_id"), UserID: f.Text("user_id"),
	}
}

func call(e *event.Event, f wire.Fields, s wire.Settings) {
	leg, root := f.Text("call_id"), f.Text("root_call_id")
	if leg == "" && root == "" {
		return
	}
	c := &event.Call{
		ID: wire.First(root, leg), State: states[e.Type], Context: f.Text("context"), Final: f.Bool("final"),
		From:        s.Party(f.Text("src"), displayName(f.Text("src_name")), true),
		To:          s.Party(f.Text("dst"), displayName(f.Text("dst_name")), true),
		StartTime:   f.Time(s, "start_time"),
		AnswerTime:  f.Time(s, "connected_at"),
		HangupCause: f.Text("t_cause"), EndedBy: f.Text("terminated_by"), Digits: f.Text("dtmf_tag"),
		DurationSeconds: f.Int("duration"),
	}
	if root != "" {
		c.LegID = leg
	}
	e.Call = c
	agent := event.Agent{}
	switch strings.ToLower(f.Text("destination")) { // VoIPstudio: in for an inbound call, out for an outbound one
	case "in":
		c.Direction, c.CallType = event.Inbound, v1alpha1.CallTypeInbound
		agent = event.Agent{ID: id(f.Text("dst_id")), Name: c.To.Name, Number: c.To.Extension}
	case "out":
		c.Direction, c.CallType = event.Outbound, v1alpha1.CallTypeOutbound
		agent = event.Agent{ID: id(f.Text("src_id")), Name: c.From.Name, Number: c.From.Extension}
	}
	if agent.ID != "" {
		c.Agents = []event.Agent{agent}
	}
	switch e.Type {
	case event.CallMissed:
		c.Disposition = "noAnswer"
	case event.CallEnded:
		c.EndTime = timeOf(e)
		if c.AnswerTime != nil {
			c.Disposition = "answered"
		}
	case event.CallRinging:
		c.RingTime = timeOf(e)
	}
	e.Links = links(leg)
}

// id: "0" stands for nobody (an outside party).
func id(text string) string {
	if text == "0" {
		return ""
	}
	return text
}

// links are the call's resources: VoIPstudio's page names call_id live_id in cdrs and monitors.
func links(leg string) *event.Links {
	filter := url.QueryEscape(`[{"property":"live_id","operator":"=","value":"` + leg + `"}]`)
	return &event.Links{
		Call:     "/v1.1/calls/" + url.PathEscape(leg),
		CDRs:     "/v1.1/cdrs?filter=" + filter,
		Monitors: "/v1.1/monitors?filter=" + filter,
	}
}

// displayName is the name in a SIP display name such as "John" <2001>, quotes gone.
func displayName(text string) string {
	name, address, found := strings.Cut(text, "<")
	name = strings.Trim(strings.TrimSpace(name), `"`)
	if name == "" && found {
		return strings.TrimSuffix(strings.TrimSpace(address), ">")
	}
	return name
}

// timeOf is when the event happened, or nil where VoIPstudio did not say.
func timeOf(e *event.Event) *time.Time {
	if e.Time.IsZero() {
		return nil
	}
	t := e.Time
	return &t
}
