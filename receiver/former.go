package receiver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"time"

	"github.com/pbxhook/pbxhook/api/statusz"
	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/dispatch"
	"github.com/pbxhook/pbxhook/receiver/journal"
)

const (
	usableTime = 10 * time.Second       // that a journal may take until it can be used, while another one can
	drainPoll  = 200 * time.Millisecond // between two looks at how far the journal before is
	quietTime  = 3 * time.Second        // without a new event, after which a journal has all that it gets
)

// patienceTime is what targets wait for a journal before that cannot be read; less in tests.
var patienceTime = time.Minute

// former is the journal that a webhook had before the one that it has now, of another kind. It takes no events any
// more. What a target does not have of it goes first: until then the target gets nothing of the new one, so that its
// events stay in order.
type former struct {
	*webhook // with the same targets
	stop     context.CancelFunc
	done     chan struct{}
	released map[string]bool // targets that go on with the new journal; of the new webhook's mu

	// Of the goroutine of drain alone.
	last       uint64 // the newest event
	quietSince time.Time
	unreadable time.Time // since when it cannot be read, or zero
}

// formerManifest is the manifest of a webhook over the journal that it had before, as far as this receiver is told or
// finds one: nil where there is none.
func formerManifest(manifest *v1alpha1.PBXWebhook, options Options) *v1alpha1.PBXWebhook {
	journal := v1alpha1.Journal{}
	if manifest.Spec.Journal.NATS == nil {
		journal.NATS = manifest.JournalBefore()
		if journal.NATS == nil {
			return nil
		}
	} else if _, err := os.Stat(journalFile(manifest, options)); options.DataDir == "" || errors.Is(err, fs.ErrNotExist) {
		return nil // what else is wrong with it is said when it is opened
	}
	return overJournal(manifest, journal)
}

// overJournal is a webhook's manifest with another journal.
func overJournal(manifest *v1alpha1.PBXWebhook, journal v1alpha1.Journal) *v1alpha1.PBXWebhook {
	changed := manifest.DeepCopy()
	changed.Spec.Journal = journal
	return changed
}

// otherKind is whether a plan is for another kind of journal.
func (w *webhook) otherKind(p *plan) bool { return (w.shared == nil) != (p.nats == nil) }

// errOnItsWay is why a webhook does not go over to the journal that it is to have now. To go back at once would bring a
// call's events out of order: the one before has the oldest, this one newer ones, and the newest would go where the oldest
// are.
var errOnItsWay = errors.New("the journal before this one is not delivered yet, see status.events.draining: until then the webhook keeps the journal that it has; all else that has changed is in force")

// mustStay is whether a plan is for another kind of journal, while what is in the one before is still on its way.
func (w *webhook) mustStay(p *plan) bool {
	return w.before() != nil && w.current() != nil && w.otherKind(p)
}

// awaitJournal waits until the journal can be used, for a while: where the one in whose place it comes can be, it is
// better to stay with that than to refuse events.
func (w *webhook) awaitJournal(ctx context.Context, old *webhook) error {
	for end := time.Now().Add(usableTime); old.problem() == "" && w.problem() != ""; {
		if time.Now().After(end) {
			return fmt.Errorf("PBXWebhook %s: the journal that it is to have cannot be used, so that it keeps the one that it has: %s", w.id(), w.problem())
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(drainPoll / 4):
		}
	}
	return nil
}

// followFormer opens the journal that the webhook had before.
func (w *webhook) followFormer(ctx context.Context, p *plan) error {
	old, err := open(ctx, p, w.options, w.metrics, w.log, w.attempts)
	if err != nil {
		return err
	}
	if err := old.apply(p); err != nil {
		return errors.Join(err, old.close())
	}
	before := w.unfollow() // the same one, by other credentials
	w.follow(old)
	if before != nil {
		return before.close()
	}
	return nil
}

// follow has targets get what is in the journal of an old webhook first; nil: there is none.
func (w *webhook) follow(old *webhook) {
	if old == nil {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	f := &former{webhook: old, stop: stop, done: make(chan struct{}), released: map[string]bool{}}
	w.mu.Lock()
	w.former = f
	w.mu.Unlock()
	w.log.Info("the events of the journal before go first")
	go func() {
		defer close(f.done)
		w.drain(ctx, f)
	}()
}

// unfollow lets go of the webhook over the journal before, which goes on as it is; nil where there is none.
func (w *webhook) unfollow() *webhook {
	f := w.before()
	if f == nil {
		return nil
	}
	f.stop()
	<-f.done
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.former == nil { // it came to its end meanwhile
		return nil
	}
	w.former = nil
	return f.webhook
}

// before is the journal before this one, or nil.
func (w *webhook) before() *former {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.former
}

// behind is whether a target does not have all of the journal before.
func (w *webhook) behind(target string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.former != nil && !w.former.released[target]
}

// applyBefore puts a changed manifest into force for the journal before, too.
func (w *webhook) applyBefore(ctx context.Context, manifest *v1alpha1.PBXWebhook, planOf func(*v1alpha1.PBXWebhook) (*plan, error)) error {
	f := w.before()
	if f == nil {
		return nil
	}
	journal := f.current().manifest.Spec.Journal
	if told := manifest.JournalBefore(); told != nil && f.shared != nil {
		journal.NATS = told
	}
	p, err := planOf(overJournal(manifest, journal))
	if err != nil {
		return err
	}
	if p.journalKey == f.journalKey {
		return f.apply(p)
	}
	return w.followFormer(ctx, p)
}

// withFormer are the parts that this receiver delivers, those of the journal before among them.
func (w *webhook) withFormer() []*part {
	parts := w.delivering()
	if f := w.before(); f != nil {
		parts = append(parts, f.delivering()...)
	}
	return parts
}

// drain has the targets go on with the new journal, each as soon as it has all of the one before, and closes that when
// all do.
func (w *webhook) drain(ctx context.Context, f *former) {
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if f.current() == nil || w.current() == nil {
			continue
		}
		if !f.readable() && time.Since(f.unreadable) < patienceTime {
			continue
		}
		if w.goOn(ctx, f) {
			w.mu.Lock()
			w.former = nil
			w.mu.Unlock()
			w.log.Info("all of the journal before is delivered", "deadLettersThatStayThere", f.journal.State().DeadLetters)
			if err := f.close(); err != nil {
				w.log.Error("the journal before was not closed well", "error", err)
			}
			return
		}
	}
}

// readable is whether it can be read, and notes since when not.
func (f *former) readable() bool {
	if f.journal.Problem() == nil || f.shared == nil { // an embedded one that is full can be read all the same
		f.unreadable = time.Time{}
		return true
	}
	if f.unreadable.IsZero() {
		f.unreadable = time.Now()
	}
	return false
}

// goOn has the targets go on that need not wait any more, and says whether all have all of the journal before.
func (w *webhook) goOn(ctx context.Context, f *former) (all bool) {
	readable := f.unreadable.IsZero()
	quiet := readable && f.quiet(ctx)
	all = quiet
	var released []string
	for _, name := range w.current().names() {
		has := quiet && f.has(name)
		all = all && has
		if has || !readable { // what cannot be read comes when it can, out of order: better than to keep back all else
			released = append(released, name)
		}
	}
	w.mu.Lock()
	before := len(f.released)
	for _, name := range released {
		f.released[name] = true
	}
	news := len(f.released) > before
	w.mu.Unlock()
	if news {
		w.redeliver()
	}
	return all
}

// redeliver configures the deliveries anew.
func (w *webhook) redeliver() {
	w.applying.Lock()
	defer w.applying.Unlock()
	w.mu.Lock()
	p, parts, targets := w.plan, maps.Clone(w.parts), maps.Clone(w.targets)
	w.mu.Unlock()
	if err := w.deliverAll(parts, p, targets); err != nil {
		w.log.Error("deliveries could not be configured", "error", err)
	}
}

// quiet is whether nothing comes into the journal any more, and all of it is delivered here. A request may be on its
// way into it yet; into a shared one also by way of another receiver, for as long as there is one.
func (f *former) quiet(ctx context.Context) bool {
	if last := f.journal.State().LastSeq; last != f.last || f.quietSince.IsZero() {
		f.last, f.quietSince = last, time.Now()
	}
	if f.shared == nil {
		return time.Since(f.quietSince) >= quietTime
	}
	alone, err := f.shared.Alone(ctx)
	if err != nil || !alone || len(f.delivering()) < journal.Partitions {
		f.quietSince = time.Now()
		return false
	}
	return time.Since(f.quietSince) >= quietTime
}

// has is whether a target has all of the journal.
func (f *former) has(target string) bool {
	last := f.journal.State().LastSeq
	for _, pt := range f.delivering() {
		s, ok := pt.status(target)
		if !ok || !s.Known || s.Pending > 0 || f.shared == nil && s.Floor < last {
			return false
		}
	}
	return true
}

// draining is how far the journal before is; nil where there is none.
func (w *webhook) draining() *statusz.Draining {
	f := w.before()
	if f == nil {
		return nil
	}
	d := &statusz.Draining{DeadLetters: f.journal.State().DeadLetters}
	if f.shared != nil {
		d.Problem = f.problem()
	}
	f.eachTarget(func(s dispatch.Status, _ int64) { d.Pending = max(d.Pending, s.Pending) })
	return d
}
