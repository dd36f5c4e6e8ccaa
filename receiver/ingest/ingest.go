// Package ingest accepts requests from PBXs: it finds the webhook by path, authenticates the sender, bounds
// the body, has the request decoded and stored, and answers. Nothing is answered 202 that is not
// durable.
//
// It must not know what becomes of an event after it is stored.
package ingest

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/attribute"
	"golang.org/x/time/rate"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/journal"
	"github.com/pbxhook/pbxhook/receiver/provider"
	"github.com/pbxhook/pbxhook/receiver/provider/wire"
	"github.com/pbxhook/pbxhook/receiver/server"
	"github.com/pbxhook/pbxhook/receiver/tracing"
)

// Prefix is what the path of every webhook begins with.
const Prefix = "/hooks/"

// Webhook is what ingest knows of a webhook.
type Webhook struct {
	Namespace string
	Name      string
	Provider  v1alpha1.Provider
	// Settings are how requests are decoded. What was decoded under them is told by their address.
	Settings    *wire.Settings
	Methods     []string // that are taken
	Credentials *Credentials
	// Closed takes no events: the webhook is disabled and delivers what it has.
	Closed  bool
	Journal journal.Journal
}

// ID tells a webhook from others.
func (w *Webhook) ID() string { return w.Namespace + "/" + w.Name }

// Handler answers the requests of PBXs.
type Handler struct {
	log      *slog.Logger
	count    Answered
	webhooks atomic.Pointer[map[string]*Webhook]
	rejected rejections
	sampled  sampledLog
	guesses  guesses
	decoding decoding
	tracer   *tracing.Tracer
}

// Answered is told of every answer: the webhook's id, empty where there is none, the status, how long it took, and
// the id of the request's trace, where there is one that is kept.
type Answered func(webhook string, code int, took time.Duration, trace string)

// NewHandler makes a handler that knows no webhook yet.
func NewHandler(log *slog.Logger, tracer *tracing.Tracer, count Answered) *Handler {
	h := &Handler{log: log, tracer: tracer, count: count, decoding: newDecoding()}
	h.sampled = sampledLog{log: log, kinds: map[logKind]*logged{}}
	h.rejected.unread = rate.NewLimiter(unreadPerSecond, unreadBurst)
	h.guesses = guesses{seed: maphash.MakeSeed(), webhooks: map[string]*wrongCredentials{}}
	h.Serve(nil)
	return h
}

// Serve replaces the webhooks that are known, for the requests that follow.
func (h *Handler) Serve(webhooks []*Webhook) {
	byID := map[string]*Webhook{}
	for _, w := range webhooks {
		byID[w.ID()] = w
	}
	h.webhooks.Store(&byID)
	h.sampled.keep(byID)
	h.guesses.keep(byID)
}

// answer is what a PBX is told.
type answer struct {
	code     int
	header   map[string]string
	body     []byte // JSON
	why      string // it was rejected
	hint     string // more of that, which is not for its sender
	id       string // of the event that was stored
	kind     event.Type
	rejected bool // it is counted as rejected
	urlCheck bool // it asked whether the URL is there, and is counted as that
}

// accept answers an event that is kept.
func accept(receipt journal.Receipt, reason string) answer {
	body := append(make([]byte, 0, 128), `{"id":`...)
	body = append(event.AppendText(body, receipt.ID), `,"type":`...)
	body = event.AppendText(body, string(receipt.Type))
	if reason != "" {
		body = event.AppendText(append(body, `,"reason":`...), reason)
	}
	return answer{code: http.StatusAccepted, body: append(body, '}'), id: receipt.ID, kind: receipt.Type}
}

func reject(code int, format string, args ...any) answer {
	why := fmt.Sprintf(format, args...)
	return answer{code: code, body: append(event.AppendText([]byte(`{"error":`), why), '}'), why: why, rejected: true}
}

// reason is why a request was rejected, as its sender is told.
func (a answer) reason() string { return fmt.Sprintf("%d: %s", a.code, a.why) }

func (a answer) with(name, value string) answer {
	if a.header == nil {
		a.header = map[string]string{}
	}
	a.header[name] = value
	return a
}

// ServeHTTP answers a request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	webhook, rest := h.find(r.URL.EscapedPath())
	if webhook == nil {
		a := reject(http.StatusNotFound, "no webhook has this path: expected /hooks/<namespace>/<name>, as in the webhook's status")
		h.noteRejected("", a, r)
		h.write(w, "", a)
		h.count("", a.code, time.Since(began), "")
		return
	}
	span := h.begin(webhook, r)
	a := h.answer(w, r, webhook, rest, span)
	switch {
	case a.rejected:
		webhook.Journal.Reject(a.reason())
		h.noteRejected(webhook.ID(), a, r)
	case a.urlCheck:
		webhook.Journal.CountURLCheck()
		h.noteURLCheck(webhook.ID(), r)
	}
	h.write(w, webhook.ID(), a)
	h.end(span, a)
	h.count(webhook.ID(), a.code, time.Since(began), span.Sampled())
}

// noteRejected shows a rejected request to operators: on the console, and in the log.
func (h *Handler) noteRejected(webhook string, a answer, r *http.Request) {
	h.rejected.add(webhook, a, r)
	h.sampled.add(logKind{webhook, "requests rejected", a.code}, "reason", a.why)
}

// NoteUnread shows operators a request or connection that was rejected before it reached the handler. code is that of
// the response, 0 where there was none; kind is a fixed text for the log, detail says what was wrong.
func (h *Handler) NoteUnread(code int, sender, kind, detail string) {
	if h.rejected.unread.Allow() {
		h.rejected.put(Rejected{Time: time.Now().UTC(), Code: code, Reason: detail, Sender: sender})
	}
	h.sampled.add(logKind{"", kind, code}, "reason", detail, "sender", sender)
}

// noteURLCheck shows in the log that somebody asked whether the URL is there. Where an ingress turns the PBX's POST
// into a GET without a body, it is the only sign of its events.
func (h *Handler) noteURLCheck(webhook string, r *http.Request) {
	h.sampled.add(logKind{webhook, "URL checked", http.StatusOK}, "method", r.Method)
}

// begin begins a request's span. It has nothing of the request that may be a secret, nor of the call.
func (h *Handler) begin(webhook *Webhook, r *http.Request) *tracing.Span {
	if h.tracer == nil {
		return nil
	}
	const route = Prefix + "{namespace}/{name}"
	return h.tracer.Received(r.Context(), r.Method+" "+route, r.Header.Get("Traceparent"), r.Header.Get("Tracestate"),
		attribute.String("http.request.method", r.Method), attribute.String("http.route", route),
		attribute.String("pbxhook.webhook", webhook.ID()), attribute.String("pbxhook.provider", string(webhook.Provider)))
}

func (h *Handler) end(span *tracing.Span, a answer) {
	if span == nil {
		return
	}
	failure := ""
	if a.code >= http.StatusInternalServerError {
		failure = a.why
	}
	span.End(failure, attribute.Int("http.response.status_code", a.code), attribute.String("pbxhook.event.id", a.id), attribute.String("pbxhook.event.type", string(a.kind)))
}

// find resolves the webhook by path; rest is what follows its name.
func (h *Handler) find(path string) (webhook *Webhook, rest []string) {
	segments := segmentsOf(path)
	if len(segments) < 3 || segments[0] != strings.Trim(Prefix, "/") {
		return nil, nil
	}
	return (*h.webhooks.Load())[segments[1]+"/"+segments[2]], segments[3:]
}

// answer answers a request to a webhook. It reads as the table of answers in docs/operations.md: one early return a
// row, and the first that matches counts. What the server itself answers (malformed HTTP, too many connections) and
// the unknown webhook come before.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request, webhook *Webhook, rest []string, span *tracing.Span) answer {
	received := time.Now().UTC()
	credentials := webhook.Credentials
	at := credentials.locate(rest, wire.RepairQuery(r.URL.RawQuery))

	if r.Method == http.MethodHead || at.isBare(r) && !hasBody(r) {
		return answer{code: http.StatusOK, body: []byte("{}"), urlCheck: true}
	}
	if !webhook.takes(r.Method) {
		allowed := strings.Join(webhook.Methods, ", ")
		return reject(http.StatusMethodNotAllowed, "expected %s, got another method: set the PBX or spec.method accordingly", allowed).with("Allow", allowed)
	}
	if webhook.Closed {
		return reject(http.StatusServiceUnavailable, "this webhook is disabled: set spec.enabled to true").with("Retry-After", server.RetryAfter)
	}
	if credentials.unknown() {
		return reject(http.StatusServiceUnavailable, "this webhook's credentials are not known yet: see the condition CredentialsResolved").with("Retry-After", server.RetryAfter)
	}
	authenticated := credentials.inHead(r, at)
	if !authenticated && !credentials.mayBeInBody() {
		return h.rejectSender(webhook, r, at, nil)
	}
	body, rejected := readBody(w, r) // too large, in an encoding that is not known, or broken
	if rejected != nil {
		return *rejected
	}
	h.decoding.do(body, func() { authenticated = authenticated || credentials.inBody(r, body) })
	if !authenticated {
		return h.rejectSender(webhook, r, at, body)
	}
	if hops(r.Header) >= maxHops {
		return reject(http.StatusLoopDetected, "this request passed pbxhook %d times: a target of this webhook leads back to it, directly or by way of another one", maxHops)
	}
	request := &event.Request{
		Method: r.Method, Path: at.path(), Query: at.query,
		Header: kept(r.Header, credentials.tokenName()), Body: body, ReceivedAt: received,
	}
	decoded := &event.Decoded{Settings: webhook.Settings}
	h.decoding.do(body, func() {
		credentials.removeToken(request)
		decoded.Event = provider.Decode(webhook.Provider, request, *webhook.Settings)
	})
	if why := decoded.Event.NeedsAnswer; why != "" {
		return reject(http.StatusUnprocessableEntity, "%s", why)
	}
	return h.keep(r, webhook, request, decoded, span) // a duplicate, a full journal, unparsed, or decoded
}

// rejectSender answers a request without the right credentials, and counts it where it may be a guess.
func (h *Handler) rejectSender(webhook *Webhook, r *http.Request, at location, body []byte) answer {
	h.guesses.count(webhook.ID(), webhook.Credentials.presented(r, at, body))
	rejected := reject(http.StatusUnauthorized, "expected the webhook's username and password, or its token; got neither").
		with("WWW-Authenticate", `Basic realm="pbxhook", charset="UTF-8"`)
	rejected.hint = webhook.Credentials.explain(r)
	return rejected
}

// keep stores the event and answers when it is durable.
func (h *Handler) keep(r *http.Request, webhook *Webhook, request *event.Request, decoded *event.Decoded, span *tracing.Span) answer {
	e := &decoded.Event
	record := journal.Record{ID: strings.Clone(e.ID), Type: e.Type, Lane: bounded(e.Lane()), Request: *request, Decoded: decoded, OtherVersion: e.OtherVersion, Trace: span.Traceparent()}
	if e.Type != event.Unparsed {
		record.Name = strings.Clone(e.Name[:min(len(e.Name), maxID)])
	}
	if record.ID == "" || len(record.ID) > maxID {
		record.ID = newID()
	}
	var repeat *journal.RepeatKey
	if key, ok := provider.RepeatKey(e, request); ok {
		repeat = (*journal.RepeatKey)(&key)
	}
	receipt, err := webhook.Journal.Append(context.WithoutCancel(r.Context()), record, repeat) // it is stored, whether or not its sender waits
	if err != nil {
		h.log.Error("event not kept, answered 503", "webhook", webhook.ID(), "error", err)
		if errors.Is(err, journal.ErrTooLarge) {
			return reject(http.StatusRequestEntityTooLarge, "the event is longer than the journal's NATS servers take (max_payload)")
		}
		reason := "the journal cannot be written"
		if errors.Is(err, journal.ErrFull) || errors.Is(err, journal.ErrNoSpace) {
			reason = "the journal is full"
		}
		return reject(http.StatusServiceUnavailable, "%s: the event was not kept, send it again", reason).with("Retry-After", server.RetryAfter)
	}
	if e.Defect != "" {
		h.log.Error("the decoder failed, event kept as unparsed: please report this", "webhook", webhook.ID(), "id", receipt.ID, "at", e.Defect)
	} else if receipt.Type == event.Unparsed && !receipt.Repeat {
		h.log.Warn("event could not be decoded, kept as unparsed", "webhook", webhook.ID(), "id", receipt.ID)
	}
	return accept(receipt, e.Reason)
}

const (
	maxID   = 256 // of a PBX's own event id
	maxLane = 512
)

// bounded keeps a lane's name, which is memory for as long as its events wait, within a bound: a copy, since
// the name may be a part of the whole request's text.
func bounded(lane string) string { return strings.Clone(lane[:min(len(lane), maxLane)]) }

func newID() string {
	id, err := uuid.NewV7()
	if err != nil { // no randomness: the machine is beyond help, but the event need not be
		return uuid.NewString()
	}
	return id.String()
}

func (w *Webhook) takes(method string) bool {
	for _, taken := range w.Methods {
		if method == taken {
			return true
		}
	}
	return false
}

var typeJSON = []string{"application/json"}

func (h *Handler) write(w http.ResponseWriter, webhook string, a answer) {
	for name, value := range a.header {
		w.Header().Set(name, value)
	}
	w.Header()["Content-Type"] = typeJSON
	w.WriteHeader(a.code)
	if _, err := w.Write(append(a.body, '\n')); err != nil {
		h.log.Debug("the PBX did not wait for its answer", "webhook", webhook)
	}
}
