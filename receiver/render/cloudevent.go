package render

import (
	"net/http"
	"strings"
	"time"

	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/journal"
)

// The media types of CloudEvents, as the specification prints them (CloudEvents: JSON Event Format, 2 and 4.1): its
// JavaScript SDK knows them by their exact text.
const (
	typeCloudEvent  = "application/cloudevents+json; charset=utf-8"
	typeCloudEvents = "application/cloudevents-batch+json; charset=utf-8"
)

// CloudEvent is the event as every target knows it, whatever its format. It is written by hand, as every event
// is; the tests read it with the library of the standard.
type CloudEvent struct {
	source string
	record *journal.Record
	event  *event.Event
}

// NewCloudEvent makes the CloudEvent of a record and what it decodes to.
func NewCloudEvent(source string, r *journal.Record, e *event.Event) CloudEvent {
	return CloudEvent{source, r, e}
}

// attributes calls each for those of its context that have a value, all of which are texts here.
func (ce CloudEvent) attributes(each func(name, value string)) {
	e, r := ce.event, ce.record
	when := e.Time
	if when.IsZero() {
		when = r.Request.ReceivedAt
	}
	each("specversion", "1.0")
	each("id", r.ID)
	each("source", ce.source)
	each("type", event.TypePrefix+string(e.Type))
	each("time", when.UTC().Truncate(time.Microsecond).Format(time.RFC3339Nano))
	each("pbxprovider", string(e.Provider))
	if id := e.CallID(); id != "" {
		each("subject", id)
		each("partitionkey", id)
	}
	if e.Name != "" {
		each("pbxevent", e.Name)
	}
	if validTrace(r) { // CloudEvents: Distributed Tracing extension, of the PBX's own request
		each("traceparent", r.Request.Header.Get("Traceparent"))
	}
}

// AppendJSON appends it in structured mode.
func (ce CloudEvent) AppendJSON(text []byte) []byte {
	text = append(text, `{"datacontenttype":"`+typeJSON+`"`...)
	ce.attributes(func(name, value string) {
		text = append(append(append(text, `,"`...), name...), `":`...)
		text = event.AppendText(text, value)
	})
	return append(ce.event.AppendJSON(append(text, `,"data":`...)), '}')
}

func (s Shape) structured(r *journal.Record, e *event.Event) *Request {
	request := &Request{Method: http.MethodPost, URL: s.URL, Header: http.Header{"Content-Type": {typeCloudEvent}}}
	return request.write(NewCloudEvent(s.Source, r, e).AppendJSON)
}

// batch is a list of one.
func (s Shape) batch(r *journal.Record, e *event.Event) *Request {
	request := &Request{Method: http.MethodPost, URL: s.URL, Header: http.Header{"Content-Type": {typeCloudEvents}}}
	return request.write(func(list []byte) []byte {
		return append(NewCloudEvent(s.Source, r, e).AppendJSON(append(list, '[')), ']')
	})
}

// binary carries the attributes as headers (CloudEvents: HTTP Protocol Binding, 3.1).
func (s Shape) binary(r *journal.Record, e *event.Event) *Request {
	header := http.Header{"Content-Type": {typeJSON}}
	NewCloudEvent(s.Source, r, e).attributes(func(name, value string) {
		if value != "" {
			header.Set("Ce-"+name, HeaderText(value))
		}
	})
	request := &Request{Method: http.MethodPost, URL: s.URL, Header: header}
	return request.write(e.AppendJSON)
}

const hexDigitsUpper = "0123456789ABCDEF"

// HeaderText percent-encodes what a header cannot carry, or not to every receiver alike (CloudEvents: HTTP Protocol
// Binding, 3.1.3.2).
func HeaderText(value string) string {
	var out strings.Builder
	for i := range len(value) {
		if c := value[i]; c <= 0x20 || c >= 0x7f || c == '"' || c == '%' {
			out.Write([]byte{'%', hexDigitsUpper[c>>4], hexDigitsUpper[c&0xf]})
		} else {
			out.WriteByte(c)
		}
	}
	return out.String()
}
