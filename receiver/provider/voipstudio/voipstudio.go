// Package voipstudio decodes VoIPstudio's webhooks.
//
// Facts are from VoIPstudio's page Integrations - Webhooks, and from captures where that is silent
// (root_call_id, final, terminated_by, monitor.audio_ready). It must not know how requests arrive
// or where events go.
package voipstudio

import (
	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/provider/wire"
)

// Decoder decodes the requests of VoIPstudio.
type Decoder struct{}

// Decode makes a canonical event of a request.
func (Decoder) Decode(r *event.Request, s wire.Settings) event.Event {
	e := event.Event{Provider: v1alpha1.VoIPstudio, ReceivedAt: r.ReceivedAt}
	fields, err := wire.Read(r, s)
	if err != nil {
		e.Type, e.Reason = event.Unparsed, err.Error()
		return e
	}
	e.Payload = fields.Payload()
	e.Name = fields.Text(nameKeys...)
	if e.Name == "" {
		e.Type, e.Reason = event.Unparsed, "expected event_name or event among the fields, got neither"
		return e
	}
	e.ID = fields.Text("id")
	e.Repeats = e.ID != ""
	s.Location = nil       // VoIPstudio: event_time and the others are in UTC
	s.International = true // its samples: 447854740947
	known := Catalog.Find(e.Name)
	if known == nil {
		kind := event.Other // added by VoIPstudio some day
		if wire.Plain(e.Name) == "ping" {
			kind = event.Ping
		}
		e.Type = kind
		call.Fill(&e, fields, s)
		e.Complete()
		return e
	}
	known.Decode(&e, fields, s)
	return e
}

// nameKeys: some relays call event_name event.
var nameKeys = wire.Keys("event_name", "event")
