// Package simotel decodes Simotel's event webhooks ("SEA"), versions G2 to Rest4, by GET and POST.
//
// Facts are from Simotel's pages Event Webhooks: Introduction and Settings, and one page an event.
// It must not know how requests arrive or where events go.
package simotel

import (
	"bytes"
	"net/http"
	"slices"
	"strings"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/provider/wire"
)

// Decoder decodes the requests of a Simotel.
type Decoder struct{}

// Decode makes a canonical event of a request.
func (Decoder) Decode(r *event.Request, s wire.Settings) event.Event {
	e := event.Event{Provider: v1alpha1.Simotel, ReceivedAt: r.ReceivedAt}
	fields, err := wire.Read(r, s)
	fields.Unfold("api_data") // the README of its PHP package reads $_POST["api_data"]
	e.Name = name(fields, r.Path)
	e.OtherVersion = otherVersion(s.Version, r)
	if err != nil {
		e.Type, e.Reason = event.Unparsed, err.Error()
		return e
	}
	e.Payload = fields.Payload()
	switch known := Catalog.Find(e.Name); {
	case known != nil:
		known.Decode(&e, fields, s)
		if e.Type == event.Unparsed && namesItself(fields) {
			e.Type, e.Reason = known.Type, ""
			e.Complete()
		}
	case fields.Has("app_name"):
		e.NeedsAnswer = "this is a call of a Simotel component API (app_name), which waits for a routing answer that pbxhook cannot give: point Exten API, Trunk API, IVR API and Smart API to your own service, and only Event Webhooks to pbxhook"
	case fields.Text(nameKeys...) != "":
		e.Type = event.Other
		about.Fill(&e, fields, s)
		e.Complete()
	case e.Name != "": // of the path alone
		if e.Type = event.Other; !about.Fill(&e, fields, s) {
			wire.Nothing(&e, fields)
			return e
		}
		e.Complete()
	default:
		e.Type = event.Unparsed
		e.Reason = "expected event_name or event among the fields, or the event's name at the end of the path; got neither"
	}
	return e
}

// namesItself reports whether a request names its event among its fields and has more than that: it is one of whose fields
// none is known (the test of Simotel's own package), and no call of a bare URL.
func namesItself(f wire.Fields) bool {
	return f.Text(nameKeys...) != "" && f.Present() > 1
}

var nameKeys = wire.Keys("event_name", "event")

// name resolves the event's name: event_name, event, the last part of the path, then the shape.
func name(f wire.Fields, path string) string {
	last := wire.LastPart(path)
	for _, candidate := range []string{f.Text(nameKeys[0]), f.Text(nameKeys[1]), last} {
		if candidate == "" {
			continue
		}
		if known := Catalog.Find(candidate); known != nil {
			return known.Name
		}
		if candidate == last && f.Has("app_name") {
			continue // a component API's own path
		}
		if candidate == last && looksLikeReport(f) {
			break
		}
		return candidate
	}
	if looksLikeReport(f) {
		return "AutoDialerReport"
	}
	return ""
}

// looksLikeReport: the sample of the page AutoDialerReport has no event_name.
func looksLikeReport(f wire.Fields) bool { return f.Has("campaign_id") && f.Has("tries") }

// otherVersion names the version that a request shows where it is not the one that it should be. What
// a request shows: Rest has the event's name in its path and G has not; in version 4 a POST carries
// JSON, before it parameters (Simotel: Introduction and Settings). A GET looks the same in all.
func otherVersion(want v1alpha1.Version, r *event.Request) string {
	if want == "" {
		return ""
	}
	kind := "G"
	if Catalog.Find(wire.LastPart(r.Path)) != nil {
		kind = "Rest"
	}
	generations := []string{"2", "3", "4"}
	if r.Method == http.MethodPost {
		generations = []string{"2", "3"}
		if body := bytes.TrimSpace(r.Body); len(body) > 0 && (body[0] == '{' || body[0] == '[') {
			generations = []string{"4"}
		}
	}
	shown := make([]string, len(generations))
	for i, generation := range generations {
		shown[i] = kind + generation
	}
	if slices.Contains(shown, string(want)) {
		return ""
	}
	return strings.Join(shown, " or ")
}
