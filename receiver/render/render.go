// Package render gives an event the shape in which a target wants it: a pure function from the kept
// request and its canonical event to an HTTP request.
//
// It must not know how events are kept, nor what becomes of the request.
package render

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2/event"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/expression"
	"github.com/pbxhook/pbxhook/receiver/journal"
)

// Request is what a target is to get.
type Request struct {
	Method string
	URL    string
	Header http.Header
	Body   []byte
}

// Source is the CloudEvents source of a webhook.
func Source(namespace, name string) string {
	return "/namespaces/" + namespace + "/pbxwebhooks/" + name
}

// Shape is how a target wants its events.
type Shape struct {
	Format v1alpha1.Format
	URL    string // the target's own
	Source string // of CloudEvents
	// Of the format Template.
	Template    *expression.Template
	Method      string // empty: POST
	ContentType string // that the target's headers ask for; empty: as the template's value is
}

// Render makes the request for a target.
func Render(s Shape, r *journal.Record, e *event.Event) (*Request, error) {
	request, err := s.render(r, e)
	if err == nil && s.Format != v1alpha1.FormatOriginal { // the PBX's own request stays as it was
		request.Header.Set("Traceparent", childOf(r))
		if state := r.Request.Header.Get("Tracestate"); state != "" && validTrace(r) {
			request.Header.Set("Tracestate", state)
		}
	}
	return request, err
}

func (s Shape) render(r *journal.Record, e *event.Event) (*Request, error) {
	switch s.Format {
	case v1alpha1.FormatTemplate:
		return s.templated(e)
	case v1alpha1.FormatOriginal:
		return s.original(&r.Request)
	case v1alpha1.FormatCloudEvents, "":
		return s.structured(r, e)
	case v1alpha1.FormatCloudEventsBatch:
		request, err := s.structured(r, e)
		if err != nil {
			return nil, err
		}
		request.Header.Set("Content-Type", cloudevents.ApplicationCloudEventsBatchJSON+"; charset=UTF-8")
		request.Body = append(append([]byte("["), request.Body...), ']')
		return request, nil
	case v1alpha1.FormatCloudEventsBinary:
		return s.binary(r, e)
	default:
		return nil, fmt.Errorf("expected a format of targets, got %q", s.Format)
	}
}

// CloudEvent is the event as every target knows it, whatever its format.
func CloudEvent(source string, r *journal.Record, e *event.Event) (cloudevents.Event, error) {
	ce := cloudevents.New(cloudevents.CloudEventsVersionV1)
	ce.SetID(r.ID)
	ce.SetType(event.TypePrefix + string(e.Type))
	ce.SetSource(source)
	when := e.Time
	if when.IsZero() {
		when = r.Request.ReceivedAt
	}
	ce.SetTime(when.UTC().Truncate(time.Microsecond))
	if id := e.CallID(); id != "" {
		ce.SetSubject(id)
		ce.SetExtension("partitionkey", id)
	}
	ce.SetExtension("pbxprovider", string(e.Provider))
	if e.Name != "" {
		ce.SetExtension("pbxevent", e.Name)
	}
	if validTrace(r) { // CloudEvents: Distributed Tracing extension, of the PBX's own request
		ce.SetExtension("traceparent", r.Request.Header.Get("Traceparent"))
	}
	data, err := Data(e)
	if err != nil {
		return ce, err
	}
	if err := ce.SetData(cloudevents.ApplicationJSON, json.RawMessage(data)); err != nil {
		return ce, fmt.Errorf("make a CloudEvent: %w", err)
	}
	if err := ce.Validate(); err != nil {
		return ce, fmt.Errorf("make a CloudEvent: %w", err)
	}
	return ce, nil
}

// Data is the canonical event as JSON.
func Data(e *event.Event) ([]byte, error) { return event.JSON(e) }

func (s Shape) structured(r *journal.Record, e *event.Event) (*Request, error) {
	ce, err := CloudEvent(s.Source, r, e)
	if err != nil {
		return nil, err
	}
	body, err := ce.MarshalJSON() // json.Marshal would read it all once more, to compact it
	if err != nil {
		return nil, fmt.Errorf("write a CloudEvent: %w", err)
	}
	return &Request{
		Method: http.MethodPost, URL: s.URL, Body: body,
		Header: http.Header{"Content-Type": {cloudevents.ApplicationCloudEventsJSON + "; charset=UTF-8"}},
	}, nil
}

// binary carries the attributes as headers (CloudEvents: HTTP Protocol Binding, 3.1).
func (s Shape) binary(r *journal.Record, e *event.Event) (*Request, error) {
	ce, err := CloudEvent(s.Source, r, e)
	if err != nil {
		return nil, err
	}
	header := http.Header{"Content-Type": {cloudevents.ApplicationJSON}}
	set := func(name, value string) {
		if value != "" {
			header.Set("Ce-"+name, escapeHeader(value))
		}
	}
	set("specversion", ce.SpecVersion())
	set("id", ce.ID())
	set("type", ce.Type())
	set("source", ce.Source())
	set("subject", ce.Subject())
	set("time", ce.Time().Format(time.RFC3339Nano))
	for name, value := range ce.Extensions() {
		set(name, fmt.Sprint(value))
	}
	return &Request{Method: http.MethodPost, URL: s.URL, Header: header, Body: ce.Data()}, nil
}

// escapeHeader percent-encodes what a header cannot carry (CloudEvents: HTTP Protocol Binding,
// 3.1.3.2).
func escapeHeader(value string) string {
	var out strings.Builder
	for i := range len(value) {
		if c := value[i]; c <= 0x20 || c >= 0x7f || c == '"' || c == '%' {
			fmt.Fprintf(&out, "%%%02X", c)
		} else {
			out.WriteByte(c)
		}
	}
	return out.String()
}

// original is the PBX's own request: a service that was behind the PBX sees no difference. The
// target's URL takes the place of the webhook's.
func (s Shape) original(r *event.Request) (*Request, error) {
	target, err := url.Parse(s.URL)
	if err != nil {
		return nil, fmt.Errorf("read the target's URL: %w", err)
	}
	if suffix := strings.TrimPrefix(r.Path, "/"); suffix != "" {
		joined := strings.TrimSuffix(target.EscapedPath(), "/") + "/" + suffix
		if target.Path, err = url.PathUnescape(joined); err != nil {
			return nil, fmt.Errorf("join the target's URL and the event's path: %w", err)
		}
		target.RawPath = joined
	}
	switch {
	case target.RawQuery == "":
		target.RawQuery = r.Query
	case r.Query != "":
		target.RawQuery += "&" + r.Query
	}
	header := r.Header.Clone()
	if header == nil {
		header = http.Header{}
	}
	return &Request{Method: r.Method, URL: target.String(), Header: header, Body: r.Body}, nil
}
