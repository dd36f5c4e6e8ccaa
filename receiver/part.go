package receiver

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/pbxhook/pbxhook/receiver/dispatch"
	"github.com/pbxhook/pbxhook/receiver/journal"
)

// part is what this receiver delivers of a webhook's journal: all of an embedded one, or a partition of one that is
// shared, with a dispatcher for each target.
type part struct {
	index    int
	journal  journal.Part
	attempts context.Context // of deliveries under way

	mu       sync.Mutex
	running  map[string]*delivery
	ending   map[string]*delivery // of targets that were removed, with attempts that may still be under way
	finished bool                 // none is begun any more
}

// delivery is a dispatcher at work.
type delivery struct {
	dispatcher *dispatch.Dispatcher
	stop       context.CancelFunc
	done       chan struct{}
}

func newPart(j journal.Part, attempts context.Context) *part {
	return &part{journal: j, attempts: attempts, running: map[string]*delivery{}, ending: map[string]*delivery{}}
}

// serve delivers a partition for as long as it is this receiver's.
func (w *webhook) serve(stopped, owned context.Context, shared journal.SharedPart) {
	attempts, cancel := bothOf(owned, w.attempts)
	defer cancel()
	pt := newPart(shared, attempts)
	pt.index = shared.Index()
	if !w.begin(pt) {
		return
	}
	w.log.Debug("partition taken", "partition", pt.index)
	var requests sync.WaitGroup
	requests.Go(func() {
		shared.ReplayRequests(stopped, func(request journal.ReplayRequest) error { return pt.replay(stopped, request) })
	})
	<-stopped.Done()
	w.mu.Lock()
	delete(w.parts, pt.index)
	w.mu.Unlock()
	pt.end()
	requests.Wait()
	w.log.Debug("partition given back", "partition", pt.index)
}

// begin has a partition delivered as the plan in force says, and says whether that can be done. Before there is a
// plan it cannot.
func (w *webhook) begin(pt *part) bool {
	w.applying.Lock()
	defer w.applying.Unlock()
	w.mu.Lock()
	p, targets := w.plan, maps.Clone(w.targets)
	w.mu.Unlock()
	if p == nil {
		return false
	}
	if err := w.deliver(pt, p, targets); err != nil {
		w.log.Warn("a partition cannot be delivered now", "partition", pt.index, "error", err)
		pt.end()
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.parts[pt.index] = pt
	return true
}

// both is a context that ends with either of two; Err also asks the first one, which may know by the clock.
type both struct {
	context.Context
	first context.Context
}

// Err implements context.Context.
func (c both) Err() error {
	if err := c.Context.Err(); err != nil {
		return err
	}
	return c.first.Err()
}

func bothOf(first, second context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(first)
	stop := context.AfterFunc(second, cancel)
	return both{ctx, first}, func() {
		stop()
		cancel()
	}
}

// deliver has a part delivered as a plan says: to targets that are new from the next event on, to those that are
// gone not any more.
func (w *webhook) deliver(pt *part, p *plan, targets map[string]*target) error {
	names := p.names()
	pt.remove(names)
	if err := pt.journal.KeepCursors(names); err != nil {
		return fmt.Errorf("note the targets in the journal: %w", err)
	}
	for _, t := range p.targets {
		policy := t.policy
		policy.Waits = w.behind(t.spec.Name)
		if w.shared != nil {
			policy = policy.Share(journal.Partitions)
		}
		attempt := w.attempt(p, t, targets[t.spec.Name])
		if d := pt.dispatcher(t.spec.Name); d != nil {
			d.Configure(policy, attempt)
			continue
		}
		view := pt.journal.For(t.spec.Name)
		if _, err := view.OpenCursor(t.spec.Name); err != nil { // before the next event is taken
			return fmt.Errorf("open the cursor of target %s: %w", t.spec.Name, err)
		}
		d := dispatch.New(t.spec.Name, view, w.log, policy, attempt)
		if w.options.Unlogged {
			d.Unlogged()
		}
		pt.start(t.spec.Name, d, func(err error) {
			w.log.Error("delivery ended", "target", t.spec.Name, "partition", pt.index, "error", err)
			pt.giveBack()
		})
	}
	return nil
}

// giveBack leaves a partition to whoever can deliver it, be it this receiver again: serve ends it.
func (pt *part) giveBack() {
	if shared, ok := pt.journal.(journal.SharedPart); ok {
		shared.GiveBack()
	}
}

// remove ends the deliveries to targets that are not among those named. Attempts under way hold up nothing.
func (pt *part) remove(names []string) {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	for name, d := range pt.running {
		if !slices.Contains(names, name) {
			d.stop()
			pt.ending[name] = d
			delete(pt.running, name)
		}
	}
}

// start has a dispatcher run, once an earlier one of the same target has ended.
func (pt *part) start(name string, d *dispatch.Dispatcher, failed func(error)) {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	if pt.finished {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	running := &delivery{dispatcher: d, stop: stop, done: make(chan struct{})}
	before := pt.ending[name]
	delete(pt.ending, name)
	pt.running[name] = running
	go func() {
		defer close(running.done)
		if before != nil {
			<-before.done
		}
		if err := d.Run(ctx, pt.attempts); err != nil {
			failed(err)
		}
	}()
}

// dispatcher is that of a target, or nil.
func (pt *part) dispatcher(name string) *dispatch.Dispatcher {
	pt.mu.Lock()
	defer pt.mu.Unlock()
	if d, ok := pt.running[name]; ok {
		return d.dispatcher
	}
	return nil
}

// status is how a target fares in this part.
func (pt *part) status(name string) (dispatch.Status, bool) {
	d := pt.dispatcher(name)
	if d == nil {
		return dispatch.Status{}, false
	}
	return d.Status(), true
}

// awaitKnown waits until all dispatchers have read how many events wait, or ctx ends.
func (pt *part) awaitKnown(ctx context.Context) {
	pt.mu.Lock()
	all := slices.Collect(maps.Values(pt.running))
	pt.mu.Unlock()
	for _, d := range all {
		d.dispatcher.AwaitKnown(ctx)
	}
}

// oldest is when the oldest event was received that a target does not have; zero where it has all.
func (pt *part) oldest(name string) time.Time {
	s, ok := pt.status(name)
	if !ok || s.Pending == 0 {
		return time.Time{}
	}
	entries, err := pt.journal.For(journal.Glance).Entries(s.Floor, 1)
	if err != nil || len(entries) == 0 {
		return time.Time{} // it was delivered a moment ago
	}
	record, err := pt.journal.Get(entries[0].Seq)
	if err != nil {
		return time.Time{} // likewise
	}
	return record.Request.ReceivedAt
}

// replay hands events to a target again that are in this part, or cancels that.
func (pt *part) replay(ctx context.Context, request journal.ReplayRequest) error {
	d := pt.dispatcher(request.Target)
	if d == nil {
		return nil // the target was removed
	}
	if request.Cancel {
		_, _, err := d.CancelReplay(ctx, request)
		return err
	}
	_, err := d.Replay(ctx, request)
	return err
}

// await waits until nothing is delivered to a target any more.
func (pt *part) await(name string) {
	pt.mu.Lock()
	d := pt.ending[name]
	pt.mu.Unlock()
	if d != nil {
		<-d.done
	}
}

// end lets the attempts under way finish, and writes the cursors.
func (pt *part) end() {
	pt.mu.Lock()
	pt.finished = true
	all := slices.Concat(slices.Collect(maps.Values(pt.running)), slices.Collect(maps.Values(pt.ending)))
	pt.mu.Unlock()
	for _, d := range all {
		d.stop()
	}
	for _, d := range all {
		<-d.done
	}
}
