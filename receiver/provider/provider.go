// Package provider turns what a PBX sent into a canonical event: a pure function from request to
// event that never fails a request away. What it cannot decode becomes an event of type unparsed,
// which carries the request and the reason.
//
// A new provider is one folder beside this file and one line in the registry. The package must not
// know how requests arrive, nor where events go.
package provider

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/provider/acefone"
	"github.com/pbxhook/pbxhook/receiver/provider/simotel"
	"github.com/pbxhook/pbxhook/receiver/provider/voipstudio"
	"github.com/pbxhook/pbxhook/receiver/provider/wire"
)

// Decoder decodes the requests of one make of PBX.
type Decoder interface {
	Decode(r *event.Request, s wire.Settings) event.Event
}

var registry = map[v1alpha1.Provider]Decoder{
	v1alpha1.Simotel:    simotel.Decoder{},
	v1alpha1.VoIPstudio: voipstudio.Decoder{},
	v1alpha1.Acefone:    acefone.Decoder{},
}

// Find returns the provider of a name in any case.
func Find(name string) (v1alpha1.Provider, error) {
	for known := range registry {
		if strings.EqualFold(string(known), name) {
			return known, nil
		}
	}
	return "", fmt.Errorf("expected Simotel, VoIPstudio or Acefone as the provider, got %q", name)
}

// Decode makes a canonical event of a request of a provider. A decoder that fails makes it unparsed, with the reason.
func Decode(p v1alpha1.Provider, r *event.Request, s wire.Settings) event.Event {
	return decode(registry[p], p, r, s)
}

func decode(d Decoder, p v1alpha1.Provider, r *event.Request, s wire.Settings) (e event.Event) {
	defer func() {
		if failure := recover(); failure != nil {
			failures.Add(1)
			e = event.Event{Provider: p, ReceivedAt: r.ReceivedAt, Type: event.Unparsed, Request: rawRequest(r), Defect: where(debug.Stack())}
			e.Reason = fmt.Sprintf("the decoder failed at %s, which is a defect of pbxhook: %.200s", e.Defect, fmt.Sprint(failure))
		}
	}()
	e = d.Decode(r, s)
	if c := e.Call; c != nil {
		if c.Agents == nil {
			c.Agents = []event.Agent{} // a list in JSON, also when there is nobody on it
		}
		if e.Type == event.CallMissed || c.Disposition == wire.NoAnswer || c.Disposition == wire.Busy {
			c.AnswerTime = nil // nobody answered: what the PBX gives is the time of its IVR, or of another leg
		}
	}
	if e.Type == event.Unparsed {
		e.Request = rawRequest(r)
	}
	return e
}

// rawRequest is what arrived, for an event that could not be decoded.
func rawRequest(r *event.Request) *event.RawRequest {
	raw := &event.RawRequest{Method: r.Method, Path: r.Path, Query: r.Query, ContentType: r.ContentType(), Body: string(r.Body)}
	if !utf8.Valid(r.Body) {
		raw.Body = strings.ToValidUTF8(raw.Body, "\ufffd")
		raw.BodyBase64 = base64.StdEncoding.EncodeToString(r.Body)
	}
	return raw
}

var failures atomic.Int64

// Failures returns how often a decoder failed since the process started.
func Failures() int64 { return failures.Load() }

// where is the line of ours at which a decoder failed, out of a stack.
func where(stack []byte) string {
	for line := range strings.SplitSeq(string(stack), "\n") {
		if _, at, found := strings.Cut(line, "/receiver/provider/"); found && strings.HasPrefix(line, "\t") && !strings.HasPrefix(at, "provider.go") {
			at, _, _ = strings.Cut(at, " ")
			return at
		}
	}
	return "somewhere else"
}

// Events say how each of a provider's events becomes canonical.
func Events(p v1alpha1.Provider) []wire.Event {
	switch p {
	case v1alpha1.Simotel:
		return simotel.Catalog.Events
	case v1alpha1.VoIPstudio:
		return voipstudio.Catalog.Events
	}
	all := make([]wire.Event, 0, len(acefone.Triggers))
	for _, t := range acefone.Triggers {
		e := wire.Event{Name: t.Name, Type: t.Type, Rules: acefone.Rules}
		if t.Type == "" {
			e.Becomes = "call.missed or call.ended, as the call's status says"
		}
		all = append(all, e)
	}
	return all
}

// Names returns the names of a provider's events, as the provider spells them.
func Names(p v1alpha1.Provider) []string {
	events := Events(p)
	all := make([]string, len(events))
	for i := range events {
		all[i] = events[i].Name
	}
	return all
}

// Expected returns the names of the events that a webhook expects whose spec.events are selected: those, and the events
// of its panel's categories among them; of none selected, all.
func Expected(p v1alpha1.Provider, selected []string) []string {
	known := Names(p)
	if len(selected) == 0 {
		return known
	}
	var all []string
	for _, name := range selected {
		if slices.Contains(known, name) {
			all = append(all, name)
		} else {
			all = append(all, Categories(p, name)...)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// RepeatKey is equal for two requests of a webhook that are one event; ok is false where a provider
// is not known to repeat itself. The body is always part of it: VoIPstudio's own examples give
// different events one id, and taking two events for one would lose the second.
func RepeatKey(e *event.Event, r *event.Request) (key [16]byte, ok bool) {
	if !e.Repeats {
		return key, false
	}
	hash := sha256.New()
	for _, part := range []string{r.Method, r.Path, r.Query, e.ID} {
		hash.Write(fmt.Appendf(nil, "%d:%s", len(part), part))
	}
	hash.Write(r.Body)
	copy(key[:], hash.Sum(nil))
	return key, true
}

// Categories are the events that a name in spec.events stands for besides itself.
func Categories(p v1alpha1.Provider, name string) []string {
	switch p {
	case v1alpha1.VoIPstudio:
		return voipstudio.Categories[name]
	case v1alpha1.Acefone:
		return acefone.Categories[name]
	default:
		return nil
	}
}
