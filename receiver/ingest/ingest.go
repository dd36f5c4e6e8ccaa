// Package ingest takes requests from PBXs: it finds the webhook by path, checks the sender, bounds
// the body, has the request decoded and kept, and answers. Nothing is answered 202 that is not
// durable.
//
// It must not know what becomes of an event after it is kept.
package ingest

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/attribute"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/journal"
	"github.com/pbxhook/pbxhook/receiver/provider"
	"github.com/pbxhook/pbxhook/receiver/provider/wire"
	"github.com/pbxhook/pbxhook/receiver/tracing"
)

// Prefix is what the path of every webhook begins with.
const Prefix = "/hooks/"

// retryAfter is how long, in seconds, a PBX is asked to wait after a 503.
const retryAfter = "5"

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
	refused  refusals
	tracer   *tracing.Tracer
}

// Answered is told of every answer: the webhook's id, empty where there is none, the status, how long it took, and
// the id of the request's trace, where there is one that is kept.
type Answered func(webhook string, code int, took time.Duration, trace string)

// NewHandler makes a handler that knows no webhook yet.
func NewHandler(log *slog.Logger, tracer *tracing.Tracer, count Answered) *Handler {
	h := &Handler{log: log, tracer: tracer, count: count}
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
}

// answer is what a PBX is told.
type answer struct {
	code   int
	header map[string]string
	body   []byte // JSON
	why    string // it was refused
	hint   string // more of that, which is not for its sender
	id     string // of the event that was kept
	kind   event.Type
	// rejected says that the request was refused and is counted as such.
	rejected bool
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

// reason is why a request was refused, as its sender is told.
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
		h.refused.add("", a, r)
		h.write(w, "", a)
		h.count("", a.code, time.Since(began), "")
		return
	}
	span := h.begin(webhook, r)
	a := h.take(webhook, rest, w, r, span)
	if a.rejected {
		webhook.Journal.Reject(a.reason())
		h.refused.add(webhook.ID(), a, r)
		h.log.Info("request rejected", "webhook", webhook.ID(), "code", a.code)
	}
	h.write(w, webhook.ID(), a)
	h.end(span, a)
	h.count(webhook.ID(), a.code, time.Since(began), span.Sampled())
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

// find resolves the webhook by path; rest is what follows it.
func (h *Handler) find(path string) (webhook *Webhook, rest string) {
	path, ok := strings.CutPrefix(path, Prefix)
	if !ok {
		return nil, ""
	}
	namespace, path, _ := strings.Cut(path, "/")
	name, rest, _ := strings.Cut(path, "/")
	return (*h.webhooks.Load())[namespace+"/"+name], rest
}

// take is the way of a request through ingest, one early return an answer.
func (h *Handler) take(webhook *Webhook, rest string, w http.ResponseWriter, r *http.Request, span *tracing.Span) answer {
	received := time.Now().UTC()
	path, byPath := webhook.Credentials.takePathToken(rest)
	body, err := readBody(w, r)

	if r.Method == http.MethodHead || (err == nil && len(body) == 0 && r.URL.RawQuery == "" && strings.Trim(path, "/") == "") {
		return answer{code: http.StatusOK, body: []byte("{}")} // a PBX checking the URL
	}
	if !webhook.takes(r.Method) {
		allowed := strings.Join(webhook.Methods, ", ")
		return reject(http.StatusMethodNotAllowed, "expected %s, got another method: set the PBX or spec.method accordingly", allowed).with("Allow", allowed)
	}
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return reject(http.StatusRequestEntityTooLarge, "expected a body of at most %d bytes", event.MaxBody).with("Connection", "close")
	}
	if err != nil {
		return reject(http.StatusBadRequest, "the body ended early or came too slowly").with("Connection", "close")
	}
	if webhook.Closed {
		return reject(http.StatusServiceUnavailable, "this webhook is disabled: set spec.enabled to true").with("Retry-After", retryAfter)
	}
	if webhook.Credentials.unknown() {
		return reject(http.StatusServiceUnavailable, "this webhook's credentials are not known yet: see the condition CredentialsResolved").with("Retry-After", retryAfter)
	}
	query, ok := webhook.Credentials.check(r, body, byPath)
	if !ok {
		refused := reject(http.StatusUnauthorized, "expected the webhook's username and password, or its token; got neither").
			with("WWW-Authenticate", `Basic realm="pbxhook", charset="UTF-8"`)
		refused.hint = webhook.Credentials.explain(r)
		return refused
	}

	request := &event.Request{
		Method: r.Method, Path: unescape(path), Query: query,
		Header: kept(r.Header, webhook.Credentials.tokenName()), Body: body, ReceivedAt: received,
	}
	decoded := &event.Decoded{Event: provider.Decode(webhook.Provider, request, *webhook.Settings), Settings: webhook.Settings}
	if why := decoded.Event.NeedsAnswer; why != "" {
		return reject(http.StatusUnprocessableEntity, "%s", why)
	}
	return h.keep(r, webhook, request, decoded, span)
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
	receipt, err := webhook.Journal.Append(r.Context(), record, repeat)
	if err != nil {
		h.log.Error("event not kept, answered 503", "webhook", webhook.ID(), "error", err)
		if errors.Is(err, journal.ErrTooLarge) {
			return reject(http.StatusRequestEntityTooLarge, "the event is longer than the journal's NATS servers take (max_payload)")
		}
		reason := "the journal cannot be written"
		if errors.Is(err, journal.ErrFull) || errors.Is(err, journal.ErrNoSpace) {
			reason = "the journal is full"
		}
		return reject(http.StatusServiceUnavailable, "%s: the event was not kept, send it again", reason).with("Retry-After", retryAfter)
	}
	if receipt.Type == event.Unparsed && !receipt.Repeat {
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

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	reader := http.MaxBytesReader(w, r.Body, event.MaxBody)
	var err error
	body := make([]byte, max(0, min(r.ContentLength, likelyBody)))
	if r.ContentLength == int64(len(body)) {
		_, err = io.ReadFull(reader, body)
	} else {
		body, err = io.ReadAll(reader)
	}
	if err != nil {
		return nil, fmt.Errorf("read the body: %w", err)
	}
	return body, nil
}

// likelyBody is up to where a PBX's word is taken for how long its body is.
const likelyBody = 16 << 10

func unescape(path string) string {
	if path == "" {
		return ""
	}
	if plain, err := url.PathUnescape(path); err == nil {
		path = plain
	}
	return "/" + path
}

// dropped are headers that are about the connection or show who the sender is, not about the event.
var dropped = map[string]bool{
	"Authorization": true, "Proxy-Authorization": true, "Cookie": true,
	"Connection": true, "Content-Length": true, "Expect": true, "Keep-Alive": true, "Proxy-Connection": true,
	"Te": true, "Trailer": true, "Transfer-Encoding": true, "Upgrade": true, "Accept-Encoding": true,
}

// kept are the headers that are kept with the request: the others are taken out.
func kept(header http.Header, tokenName string) http.Header {
	maps.DeleteFunc(header, func(name string, _ []string) bool {
		return dropped[name] || tokenName != "" && strings.EqualFold(name, tokenName)
	})
	return header
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
