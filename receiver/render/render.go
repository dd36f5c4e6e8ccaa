// Package render gives an event the shape in which a target wants it: a pure function from the kept
// request and its canonical event to an HTTP request.
//
// It must not know how events are kept, nor what becomes of the request.
package render

import (
	"fmt"
	"net/http"
	"strconv"
	"sync"

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
	buffer *[]byte // that the body was made in, to be used again; or nil
}

var buffers = sync.Pool{New: func() any { return new([]byte) }}

// maxPooled is how large a buffer is kept for the next event.
const maxPooled = 64 << 10

// write makes the request's body in a buffer.
func (r *Request) write(text func(buffer []byte) []byte) *Request {
	r.buffer = buffers.Get().(*[]byte)
	r.Body = text((*r.buffer)[:0])
	*r.buffer = r.Body
	return r
}

// Release says that the request is not used any more.
func (r *Request) Release() {
	if r.buffer != nil && cap(r.Body) <= maxPooled {
		buffers.Put(r.buffer)
	}
	r.Body, r.buffer = nil, nil
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

// Render makes the request for a target. Each tells how often the event passed pbxhook, so that a loop ends.
func Render(s Shape, r *journal.Record, e *event.Event) (*Request, error) {
	request, err := s.render(r, e)
	if err == nil {
		passed, _ := strconv.Atoi(r.Request.Header.Get(event.HopsHeader)) // ingest stored a number, or none
		request.Header.Set(event.HopsHeader, strconv.Itoa(passed+1))
	}
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
		return s.structured(r, e), nil
	case v1alpha1.FormatCloudEventsBatch:
		return s.batch(r, e), nil
	case v1alpha1.FormatCloudEventsBinary:
		return s.binary(r, e), nil
	default:
		return nil, fmt.Errorf("expected a format of targets, got %q", s.Format)
	}
}
