package receiver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
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

// webhook is one webhook at work: its journal, and a dispatcher for each of its targets.
type webhook struct {
	namespace, name string
	options         Options
	log             *slog.Logger
	journal         journal.Journal
	metrics         *metrics

	mu      sync.Mutex
	targets map[string]*target
	ending  map[string]*target // removed, with attempts that may still be under way
	plan    *plan              // in force
}

// target is one running dispatcher.
type target struct {
	dispatcher *dispatch.Dispatcher
	stop       context.CancelFunc
	done       chan struct{}
	deliverer  *deliver.Deliverer // nil while the target has a problem
	unsure     *atomic.Int64      // events that passed because no expression could tell
}

// open opens the webhook's journal, and waits while another process has it.
func open(ctx context.Context, p *plan, options Options, m *metrics, log *slog.Logger) (*webhook, error) {
	manifest := p.manifest
	limits := journal.Options{Wait: options.LockWait}
	if e := manifest.Spec.Journal.Embedded; e != nil {
		limits.Retention = duration(e.Retention, 72*time.Hour)
		if e.MaxBytes != nil {
			limits.MaxBytes = e.MaxBytes.Value()
		}
	}
	j, err := journal.Open(ctx, filepath.Join(options.DataDir, manifest.Namespace, manifest.Name, "journal.db"), limits)
	if err != nil {
		return nil, err
	}
	return &webhook{
		namespace: manifest.Namespace, name: manifest.Name, options: options, journal: j, metrics: m,
		log: log.With("webhook", manifest.Namespace+"/"+manifest.Name), targets: map[string]*target{}, ending: map[string]*target{},
	}, nil
}

// apply puts a plan into force: targets that are gone stop, new ones begin with the next event,
// others go on as they are told now. attempts is the context of deliveries under way.
func (w *webhook) apply(p *plan, attempts context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	names := make([]string, 0, len(p.targets))
	for _, t := range p.targets {
		names = append(names, t.spec.Name)
	}
	for name, running := range w.targets {
		if !slices.Contains(names, name) {
			running.stop() // its attempts under way hold up neither this change nor the status
			w.ending[name] = running
			delete(w.targets, name)
			w.metrics.forget(w.id(), name)
		}
	}
	if err := w.journal.KeepCursors(names); err != nil {
		return fmt.Errorf("note the targets in the journal: %w", err)
	}
	p.keepLastGood(w.plan)
	w.plan = p
	for _, t := range p.targets {
		if running, ok := w.targets[t.spec.Name]; ok {
			running.dispatcher.Configure(t.policy, w.attempt(p, t, running.unsure))
			running.replace(t.deliverer)
			continue
		}
		if _, err := w.journal.OpenCursor(t.spec.Name); err != nil { // before the next event is taken
			return fmt.Errorf("open the cursor of target %s: %w", t.spec.Name, err)
		}
		w.targets[t.spec.Name] = w.start(p, t, attempts)
	}
	return nil
}

func (w *webhook) start(p *plan, t targetPlan, attempts context.Context) *target {
	ctx, stop := context.WithCancel(context.Background())
	unsure := &atomic.Int64{}
	running := &target{
		dispatcher: dispatch.New(t.spec.Name, w.journal, w.log, t.policy, w.attempt(p, t, unsure)),
		stop:       stop, done: make(chan struct{}), deliverer: t.deliverer, unsure: unsure,
	}
	if w.options.Unlogged {
		running.dispatcher.Unlogged()
	}
	before := w.ending[t.spec.Name] // the same target, removed a moment ago
	delete(w.ending, t.spec.Name)
	go func() {
		defer close(running.done)
		if before != nil {
			before.end()
		}
		if err := running.dispatcher.Run(ctx, attempts); err != nil {
			w.log.Error("delivery ended", "target", t.spec.Name, "error", err)
		}
	}()
	return running
}

// attempt is the way of one event to one target: decode, filter, render, deliver.
func (w *webhook) attempt(p *plan, t targetPlan, unsure *atomic.Int64) dispatch.Attempt {
	shape := render.Shape{
		Format: t.spec.Format, URL: t.url, Source: render.Source(w.namespace, w.name),
		Template: t.template, Method: t.spec.Method, ContentType: contentType(&t.spec),
	}
	counts := w.metrics.target(w.id(), t.spec.Name)
	return func(ctx context.Context, r journal.Record) dispatch.Outcome {
		e := p.decode(&r)
		wanted, err := wants(p.filter, t.filter, e)
		if !wanted {
			return dispatch.Outcome{Result: dispatch.Unwanted}
		}
		request, renderErr := render.Render(shape, &r, e)
		if renderErr != nil {
			return dispatch.Outcome{Result: dispatch.Refused, Reason: renderErr.Error()}
		}
		if r.Replay != "" {
			request.Header.Set("Pbxhook-Replay", r.Replay)
		}
		span := w.span(&t, &r, request)
		began := time.Now()
		outcome := t.deliverer.Deliver(ctx, r.ID, request)
		request.Release()
		counts.attempted(&outcome, time.Since(began), time.Since(r.Request.ReceivedAt), r.Replay != "", span.Sampled())
		endSpan(span, &outcome)
		if err != nil && outcome.Result != dispatch.Retry { // once an event; its error may show the caller's number
			level := slog.LevelDebug
			if unsure.Add(1) == 1 {
				level = slog.LevelWarn // the next ones are counted
			}
			w.log.Log(ctx, level, "an expression could not be evaluated, the event passed", "target", t.spec.Name, "id", r.ID, "type", r.Type)
		}
		return outcome
	}
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

// eachTarget calls do for each target that is delivered to, by name.
func (w *webhook) eachTarget(do func(s dispatch.Status, unsure int64)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(w.targets)) {
		do(w.targets[name].dispatcher.Status(), w.targets[name].unsure.Load())
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

func (t *target) replace(d *deliver.Deliverer) {
	if t.deliverer != nil && t.deliverer != d {
		t.deliverer.Close()
	}
	t.deliverer = d
}

// end lets the attempts under way finish, and writes the cursor.
func (t *target) end() {
	t.stop()
	<-t.done
	t.replace(nil)
}

// close ends all deliveries, and then the journal.
func (w *webhook) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := slices.Concat(slices.Collect(maps.Values(w.targets)), slices.Collect(maps.Values(w.ending)))
	for _, t := range all {
		t.stop()
	}
	for _, t := range all {
		t.end()
	}
	w.targets, w.ending = map[string]*target{}, map[string]*target{}
	return w.journal.Close()
}

// pending is how many deliveries are still owed to targets.
func (w *webhook) pending() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	var owed int64
	for _, t := range w.targets {
		owed += t.dispatcher.Status().Pending
	}
	return owed
}

// report is how the webhook fares, with the targets that were removed a short while ago.
func (w *webhook) report() statusz.Webhook {
	state := w.journal.State()
	report := statusz.Webhook{Namespace: w.namespace, Name: w.name, Events: v1alpha1.EventsStatus{
		Received: state.Received, Unparsed: state.Unparsed, Rejected: state.Rejected, LastReceivedTime: timeOf(state.LastReceived),
		OtherVersion: state.OtherVersion, LastOtherVersion: state.LastOtherVersion,
		LastRejectedTime: timeOf(state.LastRejected.At), LastRejectedReason: state.LastRejected.Reason,
	}}
	w.eachTarget(func(s dispatch.Status, unsure int64) {
		report.Events.Pending = max(report.Events.Pending, s.Pending)
		report.Targets = append(report.Targets, v1alpha1.TargetStatus{
			Name: s.Name, Healthy: s.Healthy, Pending: s.Pending, Delivered: s.Delivered,
			DeadLettered: s.DeadLettered, LastDeliveryTime: timeOf(s.LastDelivery), LastError: s.LastError,
			ExpressionErrors: unsure, OldestPendingTime: w.oldest(s),
		})
	})
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
	heads, err := w.journal.Heads(s.Floor, 1)
	if err != nil || len(heads) == 0 {
		return nil // it was delivered a moment ago
	}
	return timeOf(heads[0].ReceivedAt)
}

func timeOf(t time.Time) *metav1.Time {
	if t.IsZero() {
		return nil
	}
	return &metav1.Time{Time: t}
}
