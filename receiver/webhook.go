package receiver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pbxhook/pbxhook/api/statusz"
	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/deliver"
	"github.com/pbxhook/pbxhook/receiver/dispatch"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/filter"
	"github.com/pbxhook/pbxhook/receiver/journal"
	"github.com/pbxhook/pbxhook/receiver/provider"
	"github.com/pbxhook/pbxhook/receiver/render"
	"github.com/pbxhook/pbxhook/receiver/tracing"
)

// maxRemoved is how many removed targets the status shows.
const maxRemoved = 16

// knownTime is how long the status waits for what dispatchers that have just started read from the journal.
const knownTime = time.Second

// webhook is one webhook at work: its journal, and for each part of it that this receiver delivers a dispatcher for
// each of its targets.
type webhook struct {
	namespace, name string
	options         Options
	log             *slog.Logger
	journal         journal.Journal
	journalKey      string        // tells its settings from others
	shared          *journal.NATS // the same, where receivers share it; else nil
	metrics         *metrics
	attempts        context.Context // of deliveries under way
	release         func()          // ends what it shares, and waits; nil where it does not

	applying sync.Mutex // one at a time; it is taken before mu, which is never held while something is waited for

	mu      sync.Mutex
	targets map[string]*target
	parts   map[int]*part
	plan    *plan   // in force
	former  *former // the journal before this one; nil where there is none

	retired sync.WaitGroup // of deliverers that are still used
}

// target is what all dispatchers of a target have in common.
type target struct {
	deliverer *deliver.Deliverer // nil while the target has a problem
	unsure    *atomic.Int64      // events that passed because no expression could tell
	looped    *atomic.Int64      // when it answered last that an event is in a loop, in Unix seconds; 0: never
}

// loopShown is how long a loop is said after the target's last answer that there is one.
const loopShown = time.Hour

// inLoop reports whether the target led back to pbxhook within the last hour.
func (t *target) inLoop() bool { return time.Since(time.Unix(t.looped.Load(), 0)) < loopShown }

// open opens the webhook's journal, and waits while another process has it. attempts is the context of deliveries
// under way.
func open(ctx context.Context, p *plan, options Options, m *metrics, log *slog.Logger, attempts context.Context) (*webhook, error) {
	manifest := p.manifest
	w := &webhook{
		namespace: manifest.Namespace, name: manifest.Name, options: options, metrics: m, attempts: attempts, journalKey: p.journalKey,
		log: log.With("webhook", manifest.Namespace+"/"+manifest.Name), targets: map[string]*target{}, parts: map[int]*part{},
	}
	if p.nats != nil {
		return w, w.openShared(*p.nats)
	}
	e := manifest.Spec.Journal.EmbeddedOrDefault()
	limits := journal.Options{Wait: options.LockWait, Log: w.log, Retention: e.Retention.Duration, MaxBytes: e.MaxBytes.Value()}
	if options.DataDir == "" {
		return nil, fmt.Errorf("PBXWebhook %s: journal.embedded needs a folder (--data-dir), which this receiver does not have", w.id())
	}
	j, err := journal.Open(ctx, journalFile(manifest, options), limits)
	if err != nil {
		return nil, err
	}
	w.journal = j
	w.parts[0] = newPart(j, attempts)
	return w, nil
}

// journalFile is where an embedded journal lies.
func journalFile(manifest *v1alpha1.PBXWebhook, options Options) string {
	return filepath.Join(options.DataDir, manifest.Namespace, manifest.Name, "journal.db")
}

// openShared connects to the journal that receivers share.
func (w *webhook) openShared(o journal.NATSOptions) error {
	o.Log, o.Receiver = w.log, hostname()
	shared, err := journal.OpenNATS(o)
	if err != nil {
		return fmt.Errorf("PBXWebhook %s: journal.nats: %w", w.id(), err)
	}
	w.journal, w.shared = shared, shared
	return nil
}

// share takes partitions of a journal that receivers share, as they are free. It begins with the first plan.
func (w *webhook) share() {
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.shared.Share(ctx, w.serve)
	}()
	w.release = func() {
		stop()
		<-ended
	}
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "" // it is for people
	}
	return name
}

// apply puts a plan into force: targets that are gone stop, new ones begin with the next event,
// others go on as they are told now.
func (w *webhook) apply(p *plan) error {
	w.applying.Lock()
	defer w.applying.Unlock()
	w.mu.Lock()
	p.keepLastGood(w.plan)
	parts, targets := maps.Clone(w.parts), maps.Clone(w.targets)
	w.mu.Unlock()
	for _, t := range p.targets {
		if targets[t.spec.Name] == nil {
			targets[t.spec.Name] = &target{deliverer: t.deliverer, unsure: &atomic.Int64{}, looped: &atomic.Int64{}}
		}
	}
	if w.shared != nil {
		w.shared.Targets(p.names()) // before the next event is taken
	}
	err := w.deliverAll(parts, p, targets)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.targets = targets // shown from now on: events are kept for them
	if err != nil {
		return err
	}
	w.plan = p
	if w.shared != nil && w.release == nil {
		w.share()
	}
	for name, t := range w.targets {
		if next := p.target(name); next != nil {
			w.replace(t, next.deliverer)
			continue
		}
		delete(w.targets, name)
		w.metrics.forget(w.id(), name)
		w.retire(t, parts, name)
	}
	return nil
}

// deliverAll has parts delivered as a plan says. One of a shared journal that cannot be is given back.
func (w *webhook) deliverAll(parts map[int]*part, p *plan, targets map[string]*target) error {
	for _, pt := range parts {
		if err := w.deliver(pt, p, targets); err != nil && w.shared == nil {
			return err
		} else if err != nil { // it is taken anew, by this receiver or another one
			w.log.Warn("a partition is given back", "partition", pt.index, "error", err)
			pt.giveBack()
		}
	}
	return nil
}

// replace has a target use another deliverer from now on; w.mu is held.
func (w *webhook) replace(t *target, d *deliver.Deliverer) {
	if t.deliverer != nil && t.deliverer != d {
		t.deliverer.Close()
	}
	t.deliverer = d
	t.looped.Store(0) // another URL may lead elsewhere
}

// retire closes the deliverer of a target that is no more, when nothing is delivered to it any more.
func (w *webhook) retire(t *target, parts map[int]*part, name string) {
	w.retired.Go(func() {
		for _, pt := range parts {
			pt.await(name)
		}
		if t.deliverer != nil {
			t.deliverer.Close()
		}
	})
}

// attempt is the way of one event to one target: decode, filter, render, deliver.
func (w *webhook) attempt(p *plan, t targetPlan, shared *target) dispatch.Attempt {
	shape := render.Shape{
		Format: t.spec.Format, URL: t.url, Source: render.Source(w.namespace, w.name),
		Template: t.template, Method: t.spec.Method, ContentType: contentType(&t.spec),
	}
	counts := w.metrics.target(w.id(), t.spec.Name)
	return func(ctx context.Context, r journal.Record) (outcome dispatch.Outcome) {
		step := stepDecode
		defer func() {
			if defect := recover(); defect != nil {
				outcome = w.panicked(t.spec.Name, &r, step, defect)
				counts.panics.Inc()
			}
		}()
		e := p.decode(&r)
		step = stepFilter
		wanted, err := wants(p.filter, t.filter, e)
		if !wanted {
			return dispatch.Outcome{Result: dispatch.Unwanted}
		}
		step = stepRender
		request, renderErr := render.Render(shape, &r, e)
		if renderErr != nil {
			return dispatch.Outcome{Result: dispatch.Refused, Reason: renderErr.Error()}
		}
		if ctx.Err() != nil { // the partition is another receiver's by now
			return dispatch.Outcome{Result: dispatch.Retry, Reason: "another receiver delivers this call's events"}
		}
		if r.Replay != "" {
			request.Header.Set(event.HeaderPrefix+"Replay", r.Replay)
		}
		step = stepDeliver
		span := w.span(&t, &r, request)
		began := time.Now()
		outcome = t.deliverer.Deliver(ctx, r.ID, request)
		request.Release()
		counts.attempted(&outcome, time.Since(began), time.Since(r.Request.ReceivedAt), r.Replay != "", span.Sampled())
		endSpan(span, &outcome)
		if outcome.Status == http.StatusLoopDetected {
			shared.looped.Store(time.Now().Unix())
		}
		if err != nil && outcome.Result != dispatch.Retry { // once an event; its error may show the caller's number
			level := slog.LevelDebug
			if shared.unsure.Add(1) == 1 {
				level = slog.LevelWarn // the next ones are counted
			}
			w.log.Log(ctx, level, "an expression could not be evaluated, the event passed", "target", t.spec.Name, "id", r.ID, "type", r.Type)
		}
		return outcome
	}
}

// The steps of an attempt.
const (
	stepDecode  = "decode"
	stepFilter  = "filter"
	stepRender  = "render"
	stepDeliver = "deliver"
)

// panicked returns what an attempt came to that panicked: a defect of pbxhook. Before anything was sent the event
// itself is the cause, so it becomes a dead letter, which can be replayed once the defect is fixed. The log has the
// place, but not the value, which may show what the event holds.
func (w *webhook) panicked(target string, r *journal.Record, step string, defect any) dispatch.Outcome {
	w.log.Error("an attempt panicked: this is a defect of pbxhook", "target", target, "id", r.ID, "type", r.Type, "step", step,
		"panic", fmt.Sprintf("%T", defect), "stack", string(debug.Stack()))
	result := dispatch.Refused
	if step == stepDeliver {
		result = dispatch.Retry
	}
	return dispatch.Outcome{Result: result, Reason: step + ": a defect of pbxhook (a panic, see the receiver's log)"}
}

// span begins that of an attempt, and has the request carry it: but for the PBX's own request, which stays as it was.
func (w *webhook) span(t *targetPlan, r *journal.Record, request *render.Request) *tracing.Span {
	if w.options.Tracer == nil {
		return nil
	}
	span := w.options.Tracer.Attempted(context.Background(), "deliver "+t.spec.Name, render.Parent(r),
		attribute.String("http.request.method", request.Method), attribute.String("server.address", t.host),
		attribute.String("pbxhook.webhook", w.id()), attribute.String("pbxhook.target", t.spec.Name),
		attribute.String("pbxhook.event.id", r.ID), attribute.String("pbxhook.event.type", string(r.Type)))
	if t.spec.Format != v1alpha1.FormatOriginal {
		request.Header.Set("Traceparent", span.Traceparent())
	}
	return span
}

func endSpan(span *tracing.Span, outcome *dispatch.Outcome) {
	if span == nil {
		return
	}
	attributes := []attribute.KeyValue{attribute.String("pbxhook.result", results[outcome.Result])}
	if outcome.Status != 0 {
		attributes = append(attributes, attribute.Int("http.response.status_code", outcome.Status))
	}
	span.End(outcome.Reason, attributes...)
}

// eachTarget calls do for each target that is delivered to, by name, with how it fares in all parts that this
// receiver delivers.
func (w *webhook) eachTarget(do func(s dispatch.Status, unsure int64)) {
	w.mu.Lock()
	targets := maps.Clone(w.targets)
	w.mu.Unlock()
	parts := w.withFormer()
	for _, name := range slices.Sorted(maps.Keys(targets)) {
		all := dispatch.Status{Name: name, Healthy: true, Known: len(parts) > 0 || w.shared != nil}
		for _, pt := range parts {
			if s, ok := pt.status(name); ok {
				all = all.With(s)
			} else {
				all.Known = false // its dispatcher has not been started yet
			}
		}
		if targets[name].inLoop() {
			all.Healthy, all.LastError = false, "508 from the target: its URL leads back to pbxhook, directly or by way of another webhook, and events go round in a loop: change the URL"
		}
		do(all, targets[name].unsure.Load())
	}
}

// decode is the event of a record: what it became when it arrived, if that was under this plan's settings.
func (p *plan) decode(r *journal.Record) *event.Event {
	if r.Decoded != nil && r.Decoded.Settings == p.ingest.Settings {
		return &r.Decoded.Event
	}
	e := provider.Decode(p.ingest.Provider, &r.Request, *p.ingest.Settings)
	return &e
}

// wants is whether the webhook and the target want the event. err says that an expression could not
// tell, and let it pass.
func wants(webhook *filter.Filter, target *filter.Target, e *event.Event) (bool, error) {
	wanted, err := webhook.Wants(e)
	if !wanted {
		return false, nil
	}
	wanted, targetErr := target.Wants(e)
	return wanted, errors.Join(err, targetErr)
}

// close ends all deliveries, and then the journal.
func (w *webhook) close() error {
	var formerErr error
	if former := w.unfollow(); former != nil {
		formerErr = former.close()
	}
	if w.release != nil {
		w.release()
	}
	w.mu.Lock()
	parts, targets := maps.Clone(w.parts), maps.Clone(w.targets)
	w.parts, w.targets = map[int]*part{}, map[string]*target{}
	w.mu.Unlock()
	for _, pt := range parts {
		pt.end()
	}
	w.retired.Wait()
	for _, t := range targets {
		w.replace(t, nil)
	}
	return errors.Join(formerErr, w.journal.Close())
}

// pending is how many deliveries are still owed to targets, and more than none while that is not known.
func (w *webhook) pending() (owed int64) {
	w.eachTarget(func(s dispatch.Status, _ int64) {
		if owed += s.Pending; !s.Known {
			owed++
		}
	})
	return owed
}

// awaitKnown waits until dispatchers that have just started have read how many events wait, but not for long.
func (w *webhook) awaitKnown() {
	ctx, cancel := context.WithTimeout(context.Background(), knownTime)
	defer cancel()
	for _, pt := range w.withFormer() {
		pt.awaitKnown(ctx)
	}
}

// report is how the webhook fares, with the targets that were removed a short while ago.
func (w *webhook) report() statusz.Webhook {
	state := w.journal.State()
	var expected []string
	if p := w.current(); p != nil {
		expected = provider.Expected(p.ingest.Provider, p.manifest.Spec.Events)
	}
	report := statusz.Webhook{Namespace: w.namespace, Name: w.name, JournalProblem: w.problem(), Events: v1alpha1.EventsStatus{
		Received: state.Received, Unparsed: state.Unparsed, Rejected: state.Rejected, LastReceivedTime: timeOf(state.LastReceived),
		OtherVersion: state.OtherVersion, LastOtherVersion: state.LastOtherVersion,
		LastRejectedTime: timeOf(state.LastRejected.At), LastRejectedReason: state.LastRejected.Reason,
		ByName:    byName(state.ByName, expected),
		URLChecks: state.URLChecks, LastURLCheckTime: timeOf(state.LastURLCheck),
	}}
	report.JournalDamage, report.JournalWarning = state.Damage, state.Warning
	w.awaitKnown()
	w.eachTarget(func(s dispatch.Status, unsure int64) {
		report.PendingUnknown = report.PendingUnknown || !s.Known
		report.Events.Pending = max(report.Events.Pending, s.Pending)
		report.Targets = append(report.Targets, v1alpha1.TargetStatus{
			Name: s.Name, Healthy: s.Healthy, Pending: s.Pending, Delivered: s.Delivered,
			DeadLettered: s.DeadLettered, LastDeliveryTime: timeOf(s.LastDelivery), LastError: s.LastError,
			ExpressionErrors: unsure, Evicted: s.Evicted, OldestPendingTime: w.oldest(s),
		})
	})
	if report.Draining = w.draining(); report.Draining != nil {
		report.Events.Draining = report.Draining.Pending
	}
	for _, r := range state.Removed[:min(len(state.Removed), maxRemoved)] {
		report.Targets = append(report.Targets, v1alpha1.TargetStatus{
			Name: r.Name, Pending: r.Pending, LastError: "removed: it goes on where it was if it comes back before " + r.Until.UTC().Format(time.RFC3339),
		})
	}
	return report
}

// oldest is when the oldest event that a target does not have was received.
func (w *webhook) oldest(s dispatch.Status) *metav1.Time {
	if s.Pending == 0 {
		return nil
	}
	parts := w.withFormer()
	times := make([]time.Time, len(parts))
	var asked sync.WaitGroup
	for i, pt := range parts {
		asked.Go(func() { times[i] = pt.oldest(s.Name) })
	}
	asked.Wait()
	times = slices.DeleteFunc(times, time.Time.IsZero)
	if len(times) == 0 {
		return nil
	}
	return timeOf(slices.MinFunc(times, time.Time.Compare))
}

// oldestDeadLetter returns when a target's oldest dead letter was given up; zero: there is none, or the journal cannot
// tell without reading all of them.
func (w *webhook) oldestDeadLetter(target string) time.Time {
	if w.shared != nil {
		return time.Time{}
	}
	letters, err := w.journal.DeadLetters(target, 0, 1)
	if err != nil || len(letters) == 0 {
		return time.Time{}
	}
	return letters[0].Time
}

// problem says why the journal cannot be used now; empty: it can.
func (w *webhook) problem() string {
	if err := w.journal.Problem(); err != nil {
		return err.Error()
	}
	return ""
}

func timeOf(t time.Time) *metav1.Time {
	if t.IsZero() {
		return nil
	}
	return &metav1.Time{Time: t}
}
