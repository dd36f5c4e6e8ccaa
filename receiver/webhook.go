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
)

// maxRemoved is how many removed targets the status shows.
const maxRemoved = 16

// webhook is one webhook at work: its journal, and a dispatcher for each of its targets.
type webhook struct {
	namespace, name string
	options         Options
	log             *slog.Logger
	journal         journal.Journal

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
func open(ctx context.Context, p *plan, options Options, log *slog.Logger) (*webhook, error) {
	m := p.manifest
	limits := journal.Options{Wait: options.LockWait}
	if e := m.Spec.Journal.Embedded; e != nil {
		limits.Retention = duration(e.Retention, 72*time.Hour)
		if e.MaxBytes != nil {
			limits.MaxBytes = e.MaxBytes.Value()
		}
	}
	j, err := journal.Open(ctx, filepath.Join(options.DataDir, m.Namespace, m.Name, "journal.db"), limits)
	if err != nil {
		return nil, err
	}
	return &webhook{
		namespace: m.Namespace, name: m.Name, options: options, journal: j,
		log: log.With("webhook", m.Namespace+"/"+m.Name), targets: map[string]*target{}, ending: map[string]*target{},
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
		outcome := t.deliverer.Deliver(ctx, r.ID, request)
		request.Release()
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

// report is how the webhook fares. In full it has what must be read from the journal, and the targets that
// were removed a short while ago.
func (w *webhook) report(full bool) statusz.Webhook {
	state := w.journal.State()
	report := statusz.Webhook{Namespace: w.namespace, Name: w.name, Events: v1alpha1.EventsStatus{
		Received: state.Received, Unparsed: state.Unparsed, Rejected: state.Rejected, LastReceivedTime: timeOf(state.LastReceived),
		OtherVersion: state.OtherVersion, LastOtherVersion: state.LastOtherVersion,
		LastRejectedTime: timeOf(state.LastRejected.At), LastRejectedReason: state.LastRejected.Reason,
	}}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(w.targets)) {
		s := w.targets[name].dispatcher.Status()
		report.Events.Pending = max(report.Events.Pending, s.Pending)
		report.Targets = append(report.Targets, v1alpha1.TargetStatus{
			Name: s.Name, Healthy: s.Healthy, Pending: s.Pending, Delivered: s.Delivered,
			DeadLettered: s.DeadLettered, LastDeliveryTime: timeOf(s.LastDelivery), LastError: s.LastError,
			ExpressionErrors: w.targets[name].unsure.Load(),
		})
		if full {
			report.Targets[len(report.Targets)-1].OldestPendingTime = w.oldest(s)
		}
	}
	if !full {
		return report
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
