package render

import (
	"net/http"
	"strings"
	"time"

	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/journal"
)

// The media types of CloudEvents (CloudEvents: JSON Event Format, 2 and 4.1).
const (
	typeCloudEvent  = "application/cloudevents+json; charset=UTF-8"
	typeCloudEvents = "application/cloudevents-batch+json; charset=UTF-8"
)

// CloudEvent is the event as every target knows it, whatever its format. It is written by hand, as every event
// is; the tests read it with the library of the standard.
type CloudEvent struct {
	attributes []attribute
	data       *event.Event
}

// attribute is one of a CloudEvent's context, all of which are texts here.
type attribute struct{ name, value string }

// NewCloudEvent makes the CloudEvent of a record and what it decodes to.
func NewCloudEvent(source string, r *journal.Record, e *event.Event) CloudEvent {
	ce := CloudEvent{attributes: make([]attribute, 0, 10), data: e}
	add := func(name, value string) {
		if value != "" {
			ce.attributes = append(ce.attributes, attribute{name, value})
		}
	}
	when := e.Time
	if when.IsZero() {
		when = r.Request.ReceivedAt
	}
	add("specversion", "1.0")
	add("id", r.ID)
	add("source", source)
	add("type", event.TypePrefix+string(e.Type))
	add("subject", e.CallID())
	add("time", when.UTC().Truncate(time.Microsecond).Format(time.RFC3339Nano))
	add("partitionkey", e.CallID())
	add("pbxprovider", string(e.Provider))
	add("pbxevent", e.Name)
	if validTrace(r) { // CloudEvents: Distributed Tracing extension, of the PBX's own request
		add("traceparent", r.Request.Header.Get("Traceparent"))
	}
	return ce
}

// AppendJSON appends it in structured mode.
func (ce CloudEvent) AppendJSON(text []byte) []byte {
	text = append(text, '{')
	for _, a := range ce.attributes {
		text = append(append(append(text, '"'), a.name...), `":`...)
		text = append(event.AppendText(text, a.value), ',')
	}
	text = append(text, `"datacontenttype":"`+typeJSON+`","data":`...)
	return append(ce.data.AppendJSON(text), '}')
}

func (s Shape) structured(r *journal.Record, e *event.Event) *Request {
	return &Request{
		Method: http.MethodPost, URL: s.URL, Header: http.Header{"Content-Type": {typeCloudEvent}}, pooled: true,
		Body: NewCloudEvent(s.Source, r, e).AppendJSON(buffer()),
	}
}

// batch is a list of one.
func (s Shape) batch(r *journal.Record, e *event.Event) *Request {
	list := append(buffer(), '[')
	return &Request{
		Method: http.MethodPost, URL: s.URL, Header: http.Header{"Content-Type": {typeCloudEvents}}, pooled: true,
		Body: append(NewCloudEvent(s.Source, r, e).AppendJSON(list), ']'),
	}
}

// binary carries the attributes as headers (CloudEvents: HTTP Protocol Binding, 3.1).
func (s Shape) binary(r *journal.Record, e *event.Event) *Request {
	header := http.Header{"Content-Type": {typeJSON}}
	for _, a := range NewCloudEvent(s.Source, r, e).attributes {
		header.Set("Ce-"+a.name, escapeHeader(a.value))
	}
	return &Request{Method: http.MethodPost, URL: s.URL, Header: header, pooled: true, Body: e.AppendJSON(buffer())}
}

const hexDigitsUpper = "0123456789ABCDEF"

// escapeHeader percent-encodes what a header cannot carry (CloudEvents: HTTP Protocol Binding,
// 3.1.3.2).
func escapeHeader(value string) string {
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
