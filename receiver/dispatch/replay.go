package dispatch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pbxhook/pbxhook/receiver/journal"
)

// Bounds of replays of one target.
const (
	maxReplays = 100 // under way at once
	maxEnded   = 20  // that are remembered after their end
	// MaxReplayed is how many events one replay has at most.
	MaxReplayed = 100_000
)

// ErrTooMany says that a replay asks for more than is taken at once.
var ErrTooMany = errors.New("too many events for one replay")

// ask is something that the dispatcher's own goroutine does for another one.
type ask struct {
	do   func(w *work)
	done chan struct{}
}

// ask has the dispatcher's goroutine do something, and waits until it is done. It needs a dispatcher that runs.
func (d *Dispatcher) ask(ctx context.Context, do func(w *work)) error {
	a := &ask{do: do, done: make(chan struct{})}
	select {
	case d.asks <- a:
		<-a.done
		return nil
	case <-d.ended:
		return fmt.Errorf("ask target %s: it is not delivered to any more", d.name)
	case <-ctx.Done():
		return fmt.Errorf("ask target %s: %w", d.name, ctx.Err())
	}
}

// Replay hands events to the target again, each at the end of its lane, and returns how many when that is durable.
// Events that the target does not have yet, or that another replay is sending, are left out: they are on their way. A
// request that was taken before is not taken twice. It needs a dispatcher that runs. Errors: ErrTooMany, the
// context's, or the journal's.
func (d *Dispatcher) Replay(ctx context.Context, request journal.ReplayRequest) (n int64, err error) {
	if asked := request.Seqs.Len(); asked > MaxReplayed {
		return 0, fmt.Errorf("%w: %d, at most %d are taken: narrow it", ErrTooMany, asked, MaxReplayed)
	}
	t := &taking{ReplayRequest: request, ended: map[uint64]bool{}}
	if err := d.ask(ctx, func(w *work) { w.beginTaking(t) }); err != nil {
		return 0, err
	}
	t.err = d.lookUp(ctx, t) // not in the dispatcher's goroutine: it may take long, and live events do not wait for it
	if err := d.ask(context.WithoutCancel(ctx), func(w *work) { n, t.err = w.take(t) }); err != nil {
		return 0, err
	}
	return n, t.err
}

// taking is a request that is being taken.
type taking struct {
	journal.ReplayRequest
	entries []journal.Entry
	ended   map[uint64]bool // events that were replayed since it began
	err     error           // of looking up the entries
}

// beginTaking notes from now on which events replays are done with. The journal may not have the last ones yet.
func (w *work) beginTaking(t *taking) {
	w.taking[t] = true
	if w.saving != nil {
		w.noteEnded(w.saving.Revived, w.saving.Dead)
	}
	w.noteEnded(w.revived, w.dead)
}

func (w *work) noteEnded(revived []uint64, dead []journal.DeadLetter) {
	for t := range w.taking {
		for _, seq := range revived {
			t.ended[seq] = true
		}
		for i := range dead {
			if dead[i].Time.After(t.GivenUpTo) { // an earlier one is what is asked for: it is being written just now
				t.ended[dead[i].Record.Seq] = true
			}
		}
	}
}

// lookUp finds the lanes of the events of a request. Where dead letters are meant it leaves out what is none any more,
// and what was given up since the request was made.
func (d *Dispatcher) lookUp(ctx context.Context, t *taking) error {
	for seq := range t.Seqs.All() {
		if ctx.Err() != nil {
			return fmt.Errorf("replay to target %s: %w", d.name, ctx.Err())
		}
		record, err := d.requested(&t.ReplayRequest, seq)
		if errors.Is(err, journal.ErrNotFound) {
			continue
		}
		if err != nil {
			return fmt.Errorf("replay event %d: %w", seq, err)
		}
		t.entries = append(t.entries, journal.Entry{Seq: seq, Lane: record.Lane})
	}
	return nil
}

// requested returns an event of a request, or journal.ErrNotFound.
func (d *Dispatcher) requested(request *journal.ReplayRequest, seq uint64) (journal.Record, error) {
	if request.GivenUpTo.IsZero() {
		return d.record(seq, true)
	}
	letter, err := d.deadLetter(seq)
	if err == nil && letter.Time.After(request.GivenUpTo) {
		err = journal.ErrNotFound
	}
	return letter.Record, err
}

// take takes a request: it is written before anything goes out.
func (w *work) take(t *taking) (int64, error) {
	delete(w.taking, t)
	if t.err != nil || w.progress.replayByID(t.ID) != nil {
		return 0, t.err
	}
	entries := slices.DeleteFunc(t.entries, func(e journal.Entry) bool { return !w.mayReplay(t, e.Seq) })
	if len(entries) == 0 {
		return 0, nil
	}
	if running := w.progress.running(); running >= maxReplays {
		return 0, fmt.Errorf("%w: %d replays to target %s are running: wait for them, or cancel some", ErrTooMany, running, w.name)
	}
	if w.replayed+len(entries) > maxQueued {
		return 0, fmt.Errorf("%w: %d replayed events wait for target %s already", ErrTooMany, w.replayed, w.name)
	}
	t.Seqs = nil
	for _, entry := range entries {
		t.Seqs.Add(entry.Seq)
	}
	replay := t.Replay()
	if replay.At.IsZero() { // as a request of an earlier version
		replay.At = time.Now().UTC()
	}
	w.progress.forgetEnded()
	before := clone(w.progress.replays)
	w.progress.replays = append(w.progress.replays, replay)
	w.progress.dirty = true
	if err := w.flush(); err != nil {
		w.progress.replays = before
		return 0, err
	}
	for _, entry := range entries {
		w.enqueue(entry)
	}
	return replay.Total, nil
}

// mayReplay reports whether an event may go out again: not one that the target does not have yet, or that another
// replay is sending, and where dead letters are meant not one that another replay has just sent.
func (w *work) mayReplay(t *taking, seq uint64) bool {
	return w.progress.has(seq) && w.progress.replay(seq) == nil && (t.GivenUpTo.IsZero() || !t.ended[seq])
}

// CancelReplay ends a replay: what has not gone out does not go out any more, attempts under way are finished. It
// returns how many events were not sent when that is durable, and whether there was such a replay; one that was canceled
// before it was taken is remembered, where the request has its events. It needs a dispatcher that runs.
func (d *Dispatcher) CancelReplay(ctx context.Context, request journal.ReplayRequest) (unsent int64, found bool, err error) {
	askErr := d.ask(ctx, func(w *work) { unsent, found, err = w.cancel(&request) })
	return unsent, found, errors.Join(askErr, err)
}

func (w *work) cancel(request *journal.ReplayRequest) (unsent int64, found bool, err error) {
	replay := w.progress.replayByID(request.ID)
	switch {
	case replay == nil && len(request.Seqs) > 0:
		w.progress.forgetEnded()
		w.progress.replays = append(w.progress.replays, request.Replay())
		replay = &w.progress.replays[len(w.progress.replays)-1]
	case replay == nil || !replay.Running():
		return 0, replay != nil, nil
	}
	unsent = replay.Remaining
	w.progress.cancel(replay)
	w.dropCanceled(request.ID)
	return unsent, true, w.flush() // what cannot be written now is written with the next cursor
}

// dropCanceled takes events that were canceled out of their lanes. A head that is under way, or waits for its next
// attempt, is dropped when its turn comes.
func (w *work) dropCanceled(id string) {
	for _, l := range w.lanes {
		kept := l.seqs[:1]
		for _, seq := range l.seqs[1:] {
			if w.canceled(seq) {
				w.queued--
				w.replayed--
			} else {
				kept = append(kept, seq)
			}
		}
		l.seqs = kept
	}
	for _, one := range w.ready.replays {
		if one.id != id {
			continue
		}
		ready := one.lanes
		one.lanes = nil
		for _, l := range ready {
			w.next(l)
		}
	}
	w.ready.forget(id)
}

// Replays returns the replays to the target that are running, and the last ones that have ended, without their
// events. It needs a dispatcher that runs.
func (d *Dispatcher) Replays(ctx context.Context) (all []journal.Replay, err error) {
	err = d.ask(ctx, func(w *work) { all = slices.Clone(w.progress.replays) })
	for i := range all {
		all[i].Seqs = nil
	}
	return all, err
}

// resumeReplays goes on with those that an earlier process took. They are looked up while live events are delivered.
func (w *work) resumeReplays(ctx context.Context) {
	replays := clone(w.progress.replays)
	for i := range replays {
		w.toResume += replays[i].Seqs.Len()
	}
	if w.toResume == 0 {
		return
	}
	w.resuming.Go(func() { // Run waits for it
		for i := range replays {
			w.lookUpResumed(ctx, &replays[i])
		}
	})
}

// resumed are events of a replay that an earlier process took.
type resumed struct {
	id      string
	entries []journal.Entry
}

// lookUpResumed finds the lanes of a replay's events and hands them to the dispatcher's goroutine, until ctx ends.
func (w *work) lookUpResumed(ctx context.Context, replay *journal.Replay) {
	batch := resumed{id: replay.ID}
	give := func() {
		select {
		case w.resumed <- batch:
		case <-ctx.Done():
		}
		batch.entries = nil
	}
	for seq := range replay.Seqs.All() {
		if ctx.Err() != nil {
			return
		}
		record, err := w.record(seq, true)
		if err != nil { // gone, or damaged: once tells
			record = journal.Record{Seq: seq}
		}
		if batch.entries = append(batch.entries, journal.Entry{Seq: seq, Lane: record.Lane}); len(batch.entries) == readBatch {
			give()
		}
	}
	give()
}

// resume takes events of a replay that an earlier process took, but for those that were canceled meanwhile.
func (w *work) resume(batch resumed) {
	w.toResume -= int64(len(batch.entries))
	for _, entry := range batch.entries {
		if r := w.progress.replay(entry.Seq); r != nil && r.ID == batch.id {
			w.enqueue(entry)
		}
	}
}

// record returns a stored event. One that is replayed may be left as a dead letter alone.
func (d *Dispatcher) record(seq uint64, replayed bool) (journal.Record, error) {
	record, err := d.journal.Get(seq)
	if !replayed || !errors.Is(err, journal.ErrNotFound) {
		return record, err
	}
	letter, err := d.deadLetter(seq)
	return letter.Record, err
}

// deadLetter returns the target's dead letter of an event, or journal.ErrNotFound.
func (d *Dispatcher) deadLetter(seq uint64) (journal.DeadLetter, error) {
	letters, err := d.journal.DeadLetters(d.name, seq-1, 1)
	if err != nil {
		return journal.DeadLetter{}, err
	}
	if len(letters) == 0 || letters[0].Record.Seq != seq {
		return journal.DeadLetter{}, journal.ErrNotFound
	}
	return letters[0], nil
}
