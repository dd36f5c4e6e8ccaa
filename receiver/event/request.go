package event

import (
	"net/http"
	"time"
)

// MaxBody is the longest body that is taken from a PBX, in bytes.
const MaxBody = 1 << 20

// HeaderPrefix is what all headers begin with that are pbxhook's own, and HopsHeader is the one that says how often a
// request passed pbxhook.
const (
	HeaderPrefix = "Pbxhook-"
	HopsHeader   = HeaderPrefix + "Hops"
)

// Request is a request as the PBX sent it, without what showed that it is the PBX: the token and
// the Authorization header are gone.
type Request struct {
	Method     string
	Path       string // what follows the webhook's own path and the token, such as "/NewState"
	Query      string // raw, without the token
	Header     http.Header
	Body       []byte
	ReceivedAt time.Time
}

// ContentType is the Content-Type header as sent.
func (r *Request) ContentType() string { return r.Header.Get("Content-Type") }

// Decoded is an event, and the settings under which its request was decoded: under others it may be another.
type Decoded struct {
	Event    Event
	Settings any
}
