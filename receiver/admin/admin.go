// Package admin is what people ask of a running receiver, and tell it: its dead letters, and to hand
// events to targets again. It is served on a loopback address alone, so that whoever reaches it is on
// this machine or has the right to forward a port of the pod.
//
// It must not know how events are kept or delivered.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// ErrNotFound says that there is no such webhook, target or event.
var ErrNotFound = errors.New("not found")

// ErrInvalid says that what was asked for makes no sense.
var ErrInvalid = errors.New("invalid")

// Bounds of what is asked for at once.
const (
	maxBody = 64 << 10
	maxList = 10_000
)

// Webhook names a webhook of the receiver.
type Webhook struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

func (w Webhook) String() string { return w.Namespace + "/" + w.Name }

// DeadLetter is an event that was given up for a target.
type DeadLetter struct {
	ID       string    `json:"id"`
	CallID   string    `json:"callId"`
	Target   string    `json:"target"`
	Attempts int32     `json:"attempts"` // that the target answered
	Status   int       `json:"status"`   // the last HTTP status; 0 where there was no answer
	Reason   string    `json:"reason"`
	Time     time.Time `json:"time"` // when it was given up
	// Webhook it belongs to.
	Webhook string `json:"webhook"`
	// Reply is the beginning of the target's last answer; only when one letter is asked for.
	Reply string `json:"reply,omitempty"`
	// Event is the CloudEvent, decoded anew; only when one letter is asked for.
	Event json.RawMessage `json:"event,omitempty"`
}

// Service is what a receiver can do for people.
type Service interface {
	Webhooks() []Webhook
	Status() []Status
	Calls(ctx context.Context, q CallQuery) (CallPage, error)
	// Call is a call, by its id, or what has an event, by the event's.
	Call(ctx context.Context, w Webhook, call, event string) (CallDetail, error)
	Rejected() []Rejected
	// Pulse is another number whenever something has happened.
	Pulse() uint64
	// Follow tells what happens from now on, until ctx ends or tell fails.
	Follow(ctx context.Context, tell func(Update) error) error
	DeadLetters(w Webhook, s Selection, limit int) ([]DeadLetter, error)
	DeadLetter(w Webhook, target, id string) (DeadLetter, error)
	DropDeadLetters(w Webhook, r DropRequest) (Drop, error)
	Replay(ctx context.Context, w Webhook, r ReplayRequest) (Replay, error)
	// Replays returns the replays that are running, and the last ones that have ended, the newest first.
	Replays(ctx context.Context, w Webhook) ([]ReplayState, error)
	// CancelReplay ends a replay: what has not gone out does not go out any more.
	CancelReplay(ctx context.Context, w Webhook, id string) (ReplayState, error)
	// ResetCursors has targets whose cursors in a shared journal are damaged begin at the first stored event.
	ResetCursors(ctx context.Context, w Webhook, r ResetRequest) (Reset, error)
}

// Register adds the admin API to a server's paths.
func Register(mux *http.ServeMux, service Service) {
	const webhook = "/api/v1/webhooks/{namespace}/{name}"
	h := &handler{service}
	mux.HandleFunc("GET /api/v1/webhooks", h.local(func(*http.Request, Webhook) (any, error) { return service.Webhooks(), nil }))
	mux.HandleFunc("GET /api/v1/status", h.local(func(*http.Request, Webhook) (any, error) { return service.Status(), nil }))
	mux.HandleFunc("GET /api/v1/rejected", h.local(func(*http.Request, Webhook) (any, error) { return service.Rejected(), nil }))
	mux.HandleFunc("GET /api/v1/calls", h.local(h.calls))
	mux.HandleFunc("GET /api/v1/follow", h.follow)
	mux.HandleFunc("GET "+webhook+"/call", h.local(h.call))
	mux.HandleFunc("GET "+webhook+"/dead-letters", h.local(h.deadLetters))
	mux.HandleFunc("GET "+webhook+"/dead-letters/{target}/{id}", h.local(h.deadLetter))
	mux.HandleFunc("POST "+webhook+"/dead-letters/drop", h.local(h.drop))
	mux.HandleFunc("POST "+webhook+"/replay", h.local(h.replay))
	mux.HandleFunc("GET "+webhook+"/replays", h.local(h.replays))
	mux.HandleFunc("POST "+webhook+"/replays/{id}/cancel", h.local(h.cancelReplay))
	mux.HandleFunc("POST "+webhook+"/cursors/reset", h.local(h.resetCursors))
}

type handler struct{ service Service }

// problem is how errors are told.
type problem struct {
	Error string `json:"error"`
}

// Local refuses requests that do not come from this machine by intent. A web page that is open in somebody's
// browser can reach loopback addresses too: it cannot choose the Host, nor make itself of one origin with it.
func Local(next http.Handler) http.Handler {
	crossOrigin := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			write(w, http.StatusForbidden, problem{"expected a loopback address as the Host"})
			return
		}
		if err := crossOrigin.Check(r); err != nil {
			write(w, http.StatusForbidden, problem{"expected a request of this origin"})
			return
		}
		next.ServeHTTP(w, r)
	})
}

// local answers requests of programs. Another origin's page cannot send JSON without asking.
func (h *handler) local(do func(*http.Request, Webhook) (any, error)) http.HandlerFunc {
	return Local(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Header.Get("Content-Type") != "application/json" {
			write(w, http.StatusUnsupportedMediaType, problem{"expected application/json"})
			return
		}
		answer, err := do(r, Webhook{r.PathValue("namespace"), r.PathValue("name")})
		if err != nil {
			write(w, Code(err), problem{err.Error()})
			return
		}
		write(w, http.StatusOK, answer)
	})).ServeHTTP
}

// Code is the HTTP status that tells an error.
func Code(err error) int {
	switch {
	case errors.Is(err, ErrNotFound):
		return http.StatusNotFound
	case errors.Is(err, ErrInvalid):
		return http.StatusBadRequest
	}
	return http.StatusInternalServerError
}

func write(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // a client that went needs no answer
}

func (h *handler) calls(r *http.Request, _ Webhook) (any, error) {
	q, err := ParseCallQuery(r)
	if err != nil {
		return nil, err
	}
	return h.service.Calls(r.Context(), q)
}

func (h *handler) call(r *http.Request, w Webhook) (any, error) {
	return h.service.Call(r.Context(), w, r.FormValue("id"), r.FormValue("event"))
}

// follow tells what happens, a JSON object a line, until the client goes.
func (h *handler) follow(w http.ResponseWriter, r *http.Request) {
	Local(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		lines := NewStream(w, "application/x-ndjson")
		_ = h.service.Follow(r.Context(), func(u Update) error { // it ends with the client
			return lines.Send(func(out io.Writer) error { return json.NewEncoder(out).Encode(u) })
		})
	})).ServeHTTP(w, r)
}

// Stream is an answer that has no end: each part must be taken within a bounded time.
type Stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

const partTimeout = 10 * time.Second

// NewStream begins one.
func NewStream(w http.ResponseWriter, mediaType string) *Stream {
	s := &Stream{w: w, control: http.NewResponseController(w)}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	_ = s.Send(func(io.Writer) error { return nil }) // so that the client knows that it has begun
	return s
}

// Send sends a part at once.
func (s *Stream) Send(write func(out io.Writer) error) error {
	if err := s.control.SetWriteDeadline(time.Now().Add(partTimeout)); err != nil {
		return fmt.Errorf("send to the client: %w", err)
	}
	if err := write(s.w); err != nil {
		return err
	}
	return s.control.Flush()
}

func (h *handler) deadLetters(r *http.Request, w Webhook) (any, error) {
	limit, err := parseLimit(r, maxList, maxList)
	if err != nil {
		return nil, err
	}
	return h.service.DeadLetters(w, Selection{Target: r.FormValue("target"), Call: r.FormValue("call"), DeadLetters: true}, limit)
}

func (h *handler) deadLetter(r *http.Request, w Webhook) (any, error) {
	return h.service.DeadLetter(w, r.PathValue("target"), r.PathValue("id"))
}
