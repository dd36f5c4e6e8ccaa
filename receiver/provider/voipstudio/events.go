package voipstudio

import (
	"net/url"
	"strings"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/provider/wire"
)

// Catalog is all that VoIPstudio sends (VoIPstudio: Integrations - Webhooks; monitor.audio_ready is
// known from captures alone).
var Catalog = wire.NewCatalog(
	wire.Event{Name: "call.initial", Type: event.CallStarted, Rules: wire.Join(call, state(event.StateStarted))},
	wire.Event{Name: "call.ringing", Type: event.CallRinging, Rules: wire.Join(call, state(event.StateRinging), rang)},
	wire.Event{Name: "call.connected", Type: event.CallAnswered, Rules: wire.Join(call, state(event.StateAnswered))},
	wire.Event{Name: "call.hold", Type: event.CallHeld, Rules: wire.Join(call, state(event.StateHeld))},
	wire.Event{Name: "call.unhold", Type: event.CallResumed, Rules: wire.Join(call, state(event.StateAnswered))},
	wire.Event{Name: "call.missed", Type: event.CallMissed, Rules: wire.Join(call, state(event.StateMissed), missed)},
	wire.Event{Name: "call.hangup", Type: event.CallEnded, Rules: wire.Join(call, state(event.StateEnded), ended)},
	wire.Event{Name: "call.dtmf", Type: event.CallDTMF, Rules: wire.Join(call, state(event.StateAnswered), dtmf)},
	wire.Event{Name: "sms.received", Type: event.SMSReceived, Rules: wire.Join(about, sms)},
	wire.Event{Name: "queue.wrapup", Type: event.QueueWrapup, Rules: wire.Join(call, wrapup)},
	wire.Event{Name: "monitor.audio_ready", Type: event.RecordingReady, Rules: wire.Join(call, recording)},
)

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

// about is what every event has.
var about = wire.Rules{
	{Field: "time", Keys: []string{"event_time"}},
}

// call is what every event of a call has.
var call = wire.Join(about, wire.Rules{
	{Field: "call.id", Keys: []string{"root_call_id", "call_id"}, Set: callID, Note: "the whole call where `root_call_id` is given and not 0"},
	{Field: "call.legId", Keys: []string{"call_id"}, Set: legID, Note: "where `root_call_id` is given too"},
	{Field: "call.direction", Keys: []string{"destination"}, Closed: true, Values: wire.Directions},
	{Field: "call.callType", Keys: []string{"destination"}, Closed: true, Values: wire.CallTypes},
	{Field: "call.callType", Keys: []string{"state"}, As: clickToCall, Note: "ClickToCall for ACCEPTED"},
	{Field: "call.context", Keys: []string{"context"}},
	{Field: "call.final", Keys: []string{"final"}},
	{Field: "call.from.number", Keys: []string{"src"}},
	{Field: "call.from.name", Keys: []string{"src_name"}, As: displayName},
	{Field: "call.to.number", Keys: []string{"dst"}},
	{Field: "call.to.name", Keys: []string{"dst_name"}, As: displayName},
	{Field: "call.agents", Keys: []string{"dst_id", "src_id"}, Set: agent, Note: "`dst_id` of an inbound call, `src_id` of an outbound one, with that side's name and extension; nobody for 0, and for the context QUEUE, where it is the queue"},
	{Field: "call.startTime", Keys: []string{"start_time"}},
	{Field: "call.answerTime", Keys: []string{"connected_at"}},
	{Field: "call.durationSeconds", Keys: []string{"duration"}},
	{Field: "call.hangupCause", Keys: []string{"t_cause"}},
	{Field: "call.endedBy", Keys: []string{"terminated_by"}},
	{Field: "links.call", Keys: []string{"call_id"}, As: callLink},
	{Field: "links.cdrs", Keys: []string{"call_id"}, As: filtered("cdrs")},
	{Field: "links.monitors", Keys: []string{"call_id"}, As: filtered("monitors")},
})

// state is the call's state after an event.
func state(state string) wire.Rules { return wire.Rules{{Field: "call.state", Const: state}} }

var rang = wire.Rules{
	{Field: "call.ringTime", Keys: []string{"event_time"}},
}

var missed = wire.Rules{
	{Field: "call.disposition", Const: wire.NoAnswer}, // "Missed (unanswered) call"
	{Field: "call.disposition", Keys: []string{"t_cause"}, As: wire.DispositionOfCause, Note: "busy where the cause says so"},
}

var ended = wire.Rules{
	{Field: "call.endTime", Keys: []string{"event_time"}},
	{Field: "call.disposition", Keys: []string{"connected_at", "t_cause"}, Set: disposition, Note: "answered where the call was connected; else noAnswer or busy where the cause says so, and nothing where `connected_at` holds neither a time nor null"},
}

var dtmf = wire.Rules{
	{Field: "call.digits", Keys: []string{"dtmf_tag"}},
}

var wrapup = wire.Rules{
	{Field: "call.state", Keys: []string{"state"}, As: strings.ToLower, Note: "of the wrap-up panel: start, end, timeout"},
}

var recording = wire.Rules{
	{Field: "call.recording", Keys: []string{"monitor_id"}, As: wire.WholeNumber, Note: "the id of the recording among the monitors"},
}

var sms = wire.Rules{
	{Field: "sms.from.number", Keys: []string{"from_no"}},
	{Field: "sms.to.number", Keys: []string{"to_no"}},
	{Field: "sms.text", Keys: []string{"text"}, Verbatim: true},
	{Field: "sms.customerId", Keys: []string{"customer_id"}, As: wire.WholeNumber},
	{Field: "sms.userId", Keys: []string{"user_id"}, As: wire.WholeNumber},
}

// id is the first of the ids under keys that is one: 0 stands for none, and relays write whole numbers as floats.
func id(f wire.Fields, keys ...string) string {
	for _, key := range keys {
		if id := wire.WholeNumber(f.Text(key)); strings.Trim(id, "0") != "" && id != "false" {
			return id
		}
	}
	return ""
}

func callID(e *event.Event, f wire.Fields, _ wire.Settings, keys []string) bool {
	call := id(f, keys...)
	if call != "" {
		e.NeedCall().ID = call
	}
	return call != ""
}

// legID: without a root the leg is the call, and there is no other.
func legID(e *event.Event, f wire.Fields, _ wire.Settings, keys []string) bool {
	leg := id(f, keys...)
	if leg == "" || id(f, "root_call_id") == "" {
		return false
	}
	e.NeedCall().LegID = leg
	return true
}

// disposition: a call that was connected was answered; of one that was not, its cause tells. A zero date, false, or another
// text in connected_at is neither.
func disposition(e *event.Event, f wire.Fields, s wire.Settings, keys []string) bool {
	found := ""
	switch {
	case f.Time(s, keys[0]) != nil:
		found = wire.Answered
	case !f.Says(keys[0]):
		found = wire.DispositionOfCause(f.Text(keys[1:]...))
	}
	if found != "" {
		e.NeedCall().Disposition = found
	}
	return found != ""
}

// clickToCall: ACCEPTED is the state of a click-to-call whose caller has answered.
func clickToCall(state string) string {
	if wire.Plain(state) == "accepted" {
		return string(v1alpha1.CallTypeClickToCall)
	}
	return ""
}

func agent(e *event.Event, f wire.Fields, _ wire.Settings, keys []string) bool {
	c := e.NeedCall()
	key, party := keys[0], c.To
	if c.Direction == event.Outbound {
		key, party = keys[1], c.From
	}
	person := id(f, key)
	if c.Direction == "" || person == "" || wire.Plain(c.Context) == "queue" {
		return false
	}
	c.Agents = []event.Agent{{ID: person, Name: party.Name, Number: party.Extension}}
	return true
}

// callLink is the call's own resource, which is there while the call goes on.
func callLink(leg string) string {
	if leg = wire.WholeNumber(leg); strings.Trim(leg, "0") == "" {
		return ""
	}
	return "/v1.1/calls/" + url.PathEscape(leg)
}

// filtered is the list of a resource's entries for a call: call_id is their live_id.
func filtered(resource string) func(leg string) string {
	return func(leg string) string {
		if leg = wire.WholeNumber(leg); strings.Trim(leg, "0") == "" {
			return ""
		}
		return "/v1.1/" + resource + "?filter=" + url.QueryEscape(`[{"property":"live_id","operator":"=","value":`+string(wire.Marshal(leg))+`}]`)
	}
}

// displayName is the name in a SIP display name such as "John" <2001>, quotes gone. Without a name it is
// the address.
func displayName(text string) string {
	text = strings.TrimSpace(text)
	name, address := text, ""
	if at := strings.LastIndexByte(text, '<'); at >= 0 && strings.HasSuffix(text, ">") {
		name, address = text[:at], text[at+1:len(text)-1]
	}
	name = strings.TrimSpace(strings.Trim(strings.TrimSpace(name), `"`))
	return wire.First(name, strings.TrimSpace(address))
}
