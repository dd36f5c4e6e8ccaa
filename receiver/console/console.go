// Package console is what people look at when something is wrong: calls as they happen, what came from the PBX,
// what was made of it, and what each target answered; how targets fare, what was given up, and what was rejected.
//
// Pages are made here, from what the admin API's service says; a script of ours keeps them up to date, and all
// works without it. It must not know how events are kept or delivered.
package console

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pbxhook/pbxhook/receiver/admin"
	"github.com/pbxhook/pbxhook/receiver/event"
)

//go:embed templates/*.html assets/*
var files embed.FS

const (
	listedLetters  = 500
	listedUnparsed = 20
	livePause      = 250 * time.Millisecond // between two looks at whether something has happened
	liveBeat       = 20 * time.Second       // after which a client is told that the receiver is still there
	maxLive        = 64                     // pages that are kept up to date at once
	maxForm        = 16 << 10
	numbersCookie  = "pbxhook-numbers"
	numbersShown   = "shown"
)

// policy lets a page use nothing but what this server sends, and nobody frame it.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// Console serves the pages.
type Console struct {
	service admin.Service
	pages   func() map[string]*template.Template // made when they are asked for: most receivers are never looked at
	live    chan struct{}                        // a place for each page that is kept up to date
	style   func() []byte
}

// Register adds the pages to a server's paths.
func Register(mux *http.ServeMux, service admin.Service) {
	c := &Console{service: service, pages: sync.OnceValue(pages), live: make(chan struct{}, maxLive), style: sync.OnceValue(style)}
	handle := func(pattern string, do func(http.ResponseWriter, *http.Request) error) {
		mux.Handle(pattern, admin.Local(c.guard(do)))
	}
	handle("GET /{$}", c.calls)
	handle("GET /call", c.call)
	handle("GET /targets", c.targets)
	handle("GET /dead-letters", c.deadLetters)
	handle("GET /rejected", c.rejected)
	handle("GET /live", c.stream)
	handle("GET /assets/{name}", c.asset)
	handle("POST /replay", c.replay)
	handle("POST /drop", c.drop)
	handle("GET /replays", c.replays)
	handle("POST /cancel", c.cancel)
	handle("POST /numbers", c.numbers)
	handle("GET /", func(http.ResponseWriter, *http.Request) error {
		return fmt.Errorf("%w: there is no such page", admin.ErrNotFound)
	})
}

// guard sets what every answer carries, and tells errors.
func (c *Console) guard(do func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Content-Security-Policy", policy)
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "same-origin")
		header.Set("Cache-Control", "no-store")
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		err := do(w, r)
		if err == nil || r.Context().Err() != nil {
			return
		}
		p := c.page(r, "error")
		p.Error = err.Error()
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(admin.Code(err))
		_ = c.pages()["error"].ExecuteTemplate(w, "layout", p) // a client that went needs no answer
	})
}

// page is what every page has.
type page struct {
	Name     string
	Numbers  bool // are shown
	Here     string
	Webhooks []admin.Status
	Problems []problem
	Done     string
	Error    string
	Body     any
}

// problem is something that a person should look at, wherever they are.
type problem struct {
	Text, Link string
}

func (c *Console) page(r *http.Request, name string) page {
	p := page{Name: name, Here: r.URL.RequestURI(), Webhooks: c.service.Status(), Done: done(r)}
	cookie, err := r.Cookie(numbersCookie)
	p.Numbers = err == nil && cookie.Value == numbersShown
	p.Problems = problems(p.Webhooks)
	return p
}

// done says what a form has done.
func done(r *http.Request) string {
	n, err := strconv.Atoi(r.FormValue("n"))
	switch {
	case err != nil:
		return ""
	case r.FormValue("done") == "replayed":
		return fmt.Sprintf("%s on the way again", events(n))
	case r.FormValue("done") == "dropped":
		return fmt.Sprintf("%s dropped", events(n))
	case r.FormValue("done") == "canceled":
		return fmt.Sprintf("canceled; %s not sent", events(n))
	}
	return ""
}

func events(n int) string {
	if n == 1 {
		return "1 event"
	}
	return fmt.Sprintf("%d events", n)
}

const nearlyFull = 0.75

func problems(all []admin.Status) (found []problem) {
	for _, s := range all {
		if s.Journal.Warning != "" {
			found = append(found, problem{fmt.Sprintf("%s: events are accepted, but: %s", s.Webhook, s.Journal.Warning), "/targets"})
		}
		if s.Journal.Problem != "" {
			found = append(found, problem{fmt.Sprintf("%s: events are answered 503: %s", s.Webhook, s.Journal.Problem), "/targets"})
		}
		for _, t := range s.Targets {
			if !t.Healthy && !strings.HasPrefix(t.LastError, "removed") {
				found = append(found, problem{fmt.Sprintf("%s: target %s: %s; %s wait", s.Webhook, t.Name, t.LastError, events(int(t.Pending))), "/targets"})
			}
		}
		if s.Journal.DeadLetters > 0 {
			found = append(found, problem{fmt.Sprintf("%s: %s given up", s.Webhook, events(int(s.Journal.DeadLetters))), "/dead-letters?" + url.Values{"webhook": {s.Webhook}}.Encode()})
		}
		if s.Journal.MaxBytes > 0 && float64(s.Journal.Bytes) > nearlyFull*float64(s.Journal.MaxBytes) {
			found = append(found, problem{fmt.Sprintf("%s: the journal is %d %% full", s.Webhook, 100*s.Journal.Bytes/s.Journal.MaxBytes), "/targets"})
		}
	}
	return found
}

// show writes a page.
func (c *Console) show(w http.ResponseWriter, p page, body any) error {
	p.Body = body
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	return c.pages()[p.Name].ExecuteTemplate(w, "layout", p)
}

// callsBody is the list of calls.
type callsBody struct {
	Query    admin.CallQuery
	Form     url.Values // as it was sent
	Page     admin.CallPage
	Took     time.Duration
	Next     string // where older ones are
	Types    []event.Type
	Targets  []string
	Outcomes []admin.Outcome
	Numbers  bool
	Several  bool // webhooks
}

func (c *Console) calls(w http.ResponseWriter, r *http.Request) error {
	q, err := admin.ParseCallQuery(r)
	if err != nil {
		return err
	}
	start := time.Now()
	found, err := c.service.Calls(r.Context(), q)
	if err != nil {
		return err
	}
	p := c.page(r, "calls")
	body := callsBody{
		Query: q, Form: r.Form, Page: found, Took: time.Since(start).Round(time.Millisecond), Types: event.Types, Outcomes: admin.Outcomes, Numbers: p.Numbers, Several: len(p.Webhooks) > 1,
	}
	for _, s := range p.Webhooks {
		for _, t := range s.Targets {
			if !slices.Contains(body.Targets, t.Name) {
				body.Targets = append(body.Targets, t.Name)
			}
		}
	}
	if !found.Before.IsZero() {
		q.Before = found.Before
		body.Next = "/?" + q.Values().Encode()
	}
	return c.show(w, p, body)
}

func webhookOf(r *http.Request) admin.Webhook {
	namespace, name, _ := strings.Cut(r.FormValue("webhook"), "/")
	return admin.Webhook{Namespace: namespace, Name: name}
}

func (c *Console) call(w http.ResponseWriter, r *http.Request) error {
	detail, err := c.service.Call(r.Context(), webhookOf(r), r.FormValue("id"), r.FormValue("event"))
	if err != nil {
		return err
	}
	p := c.page(r, "call")
	return c.show(w, p, newLadder(&detail, p.Numbers))
}

func (c *Console) targets(w http.ResponseWriter, r *http.Request) error {
	p := c.page(r, "targets")
	return c.show(w, p, nil)
}

// lettersBody is a list of dead letters.
type lettersBody struct {
	Webhook string
	Target  string
	Letters []admin.DeadLetter
	More    bool
	Here    string
	Replay  *admin.Replay // what a replay of all of them would do; nil where it is not offered
	Drop    *admin.Drop   // the same
}

func (c *Console) deadLetters(w http.ResponseWriter, r *http.Request) error {
	body := lettersBody{Webhook: r.FormValue("webhook"), Target: r.FormValue("target"), Here: r.URL.RequestURI()}
	for _, webhook := range c.service.Webhooks() {
		if body.Webhook != "" && body.Webhook != webhook.String() {
			continue
		}
		letters, err := c.service.DeadLetters(webhook, admin.Selection{Target: body.Target}, listedLetters+1)
		if errors.Is(err, admin.ErrNotFound) {
			continue // the target is another webhook's
		}
		if err != nil {
			return err
		}
		body.Letters = append(body.Letters, letters...)
	}
	slices.SortStableFunc(body.Letters, func(a, b admin.DeadLetter) int { return b.Time.Compare(a.Time) })
	if body.More = len(body.Letters) > listedLetters; body.More {
		body.Letters = body.Letters[:listedLetters]
	}
	if body.Webhook != "" && body.Target != "" && len(body.Letters) > 0 {
		if err := c.previewAll(r, &body); err != nil {
			return err
		}
	}
	return c.show(w, c.page(r, "dead-letters"), body)
}

// previewAll says what it would do to replay, or to drop, all dead letters of a target.
func (c *Console) previewAll(r *http.Request, body *lettersBody) error {
	all := admin.Selection{Target: body.Target, DeadLetters: true}
	replay, err := c.service.Replay(r.Context(), webhookOf(r), admin.ReplayRequest{Selection: all, DryRun: true})
	switch {
	case err == nil:
		body.Replay = &replay
	case !errors.Is(err, admin.ErrInvalid): // else they are too many for one replay
		return err
	}
	drop, err := c.service.DropDeadLetters(webhookOf(r), admin.DropRequest{Selection: all, DryRun: true})
	if err == nil {
		body.Drop = &drop
	}
	return err
}

// replaysBody is a list of replays.
type replaysBody struct {
	Replays []admin.ReplayState
	Here    string
}

func (c *Console) replays(w http.ResponseWriter, r *http.Request) error {
	body := replaysBody{Here: "/replays"}
	for _, webhook := range c.service.Webhooks() {
		all, err := c.service.Replays(r.Context(), webhook)
		if err != nil {
			return err
		}
		body.Replays = append(body.Replays, all...)
	}
	slices.SortStableFunc(body.Replays, func(a, b admin.ReplayState) int { return b.Begun.Compare(a.Begun) })
	return c.show(w, c.page(r, "replays"), body)
}

func (c *Console) cancel(w http.ResponseWriter, r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return fmt.Errorf("%w: read the form: %w", admin.ErrInvalid, err)
	}
	state, err := c.service.CancelReplay(r.Context(), webhookOf(r), r.PostFormValue("replay"))
	if err != nil {
		return err
	}
	return back(w, r, "canceled", int(state.Remaining))
}

// rejectedBody is what was not taken, and what was taken and could not be decoded.
type rejectedBody struct {
	Rejected []admin.Rejected
	Unparsed []admin.Call
}

func (c *Console) rejected(w http.ResponseWriter, r *http.Request) error {
	body := rejectedBody{Rejected: c.service.Rejected()}
	unparsed, err := c.service.Calls(r.Context(), admin.CallQuery{Type: event.Unparsed, Limit: listedUnparsed})
	if err != nil {
		return err
	}
	body.Unparsed = unparsed.Calls
	return c.show(w, c.page(r, "rejected"), body)
}

// selection is what a form is about: one event, or all dead letters.
func selection(r *http.Request) (admin.Selection, error) {
	if err := r.ParseForm(); err != nil {
		return admin.Selection{}, fmt.Errorf("%w: read the form: %w", admin.ErrInvalid, err)
	}
	s := admin.Selection{Target: r.PostFormValue("target"), Event: r.PostFormValue("event"), DeadLetters: r.PostFormValue("kept") == ""}
	if text := r.PostFormValue("givenUpTo"); text != "" {
		var err error
		if s.GivenUpTo, err = time.Parse(time.RFC3339Nano, text); err != nil {
			return s, fmt.Errorf("%w: givenUpTo: expected a time such as 2026-11-22T08:00:00Z: %w", admin.ErrInvalid, err)
		}
	}
	return s, s.Check()
}

func (c *Console) replay(w http.ResponseWriter, r *http.Request) error {
	s, err := selection(r)
	if err != nil {
		return err
	}
	answer, err := c.service.Replay(r.Context(), webhookOf(r), admin.ReplayRequest{Selection: s, By: "console"})
	if err != nil {
		return err
	}
	n := 0
	for _, count := range answer.Targets {
		n += int(count)
	}
	return back(w, r, "replayed", n)
}

func (c *Console) drop(w http.ResponseWriter, r *http.Request) error {
	s, err := selection(r)
	if err != nil {
		return err
	}
	answer, err := c.service.DropDeadLetters(webhookOf(r), admin.DropRequest{Selection: s})
	if err != nil {
		return err
	}
	return back(w, r, "dropped", int(answer.Dropped))
}

// back goes to the page that a form is on.
func back(w http.ResponseWriter, r *http.Request, done string, n int) error {
	to, err := url.Parse(r.PostFormValue("back"))
	if err != nil || to.Host != "" || to.Scheme != "" || !strings.HasPrefix(to.Path, "/") || strings.HasPrefix(to.Path, "//") {
		to = &url.URL{Path: "/"}
	}
	query := to.Query()
	query.Del("done")
	query.Del("n")
	if done != "" {
		query.Set("done", done)
		query.Set("n", strconv.Itoa(n))
	}
	http.Redirect(w, r, (&url.URL{Path: to.Path, RawQuery: query.Encode()}).String(), http.StatusSeeOther)
	return nil
}

// numbers shows numbers and links to recordings, or hides them again.
func (c *Console) numbers(w http.ResponseWriter, r *http.Request) error {
	cookie := &http.Cookie{Name: numbersCookie, Value: numbersShown, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode}
	if r.PostFormValue("show") == "" {
		cookie.MaxAge = -1
	}
	http.SetCookie(w, cookie)
	return back(w, r, "", 0)
}

// stream tells a page when something has happened (server-sent events).
func (c *Console) stream(w http.ResponseWriter, r *http.Request) error {
	select {
	case c.live <- struct{}{}:
		defer func() { <-c.live }()
	default:
		return errors.New("too many pages are open")
	}
	return c.watch(r.Context(), admin.NewStream(w, "text/event-stream"))
}

func (c *Console) watch(ctx context.Context, out *admin.Stream) error {
	tick := time.NewTicker(livePause)
	defer tick.Stop()
	last, told := c.service.Pulse(), time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		pulse := c.service.Pulse()
		if pulse == last && time.Since(told) < liveBeat {
			continue
		}
		kind := "beat"
		if pulse != last {
			kind = "change"
		}
		last, told = pulse, time.Now()
		if err := out.Send(func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "event: %s\ndata: %d\n\n", kind, pulse)
			return err
		}); err != nil {
			return nil // it went
		}
	}
}

// assets are the files that pages use, with their media types.
var assets = map[string]string{"console.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml", "console.css": "text/css; charset=utf-8"}

func (c *Console) asset(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	mediaType, known := assets[name]
	if !known {
		return fmt.Errorf("%w: there is no such file", admin.ErrNotFound)
	}
	data, err := files.ReadFile("assets/" + name)
	if name == "console.css" {
		data = c.style()
	}
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", mediaType)
	_, err = w.Write(data)
	return err
}
