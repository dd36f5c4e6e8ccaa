package dispatch

import (
	"fmt"
	"time"

	"github.com/pbxhook/pbxhook/receiver/journal"
)

// note writes an attempt into the delivery log, with the next cursor.
func (w *work) note(r result, as journal.Result) {
	if !w.logged {
		return
	}
	if len(w.attempts) >= 2*maxUnlogged { // the journal cannot be written
		w.attempts = append([]journal.Attempt(nil), w.attempts[maxUnlogged:]...)
	}
	a := journal.Attempt{
		Seq: r.record.Seq, Time: r.began.UTC(), Duration: r.took, Result: as,
		Status: r.outcome.Status, Reason: r.outcome.Reason, Reply: r.outcome.Reply, Replay: r.record.Replay,
	}
	if as == journal.Retried && (!r.lane.blamed || !w.breaker.open) { // else nobody knows
		a.Next = r.lane.due.UTC()
	}
	w.attempts = append(w.attempts, a)
	w.progress.dirty = true
}

// complainPause is between two log lines about a cursor that cannot be written.
const complainPause = time.Minute

// saving is what is being written into the journal.
type saving struct {
	journal.Progress
	err  error
	done chan struct{}
}

// ended is closed when it is; nil while nothing is being written.
func (s *saving) ended() <-chan struct{} {
	if s == nil {
		return nil
	}
	return s.done
}

// due is whether something is to be written.
func (w *work) due() bool {
	since := time.Since(w.flushed)
	return w.progress.dirty && (since >= flushInterval || len(w.dead) >= maxUnflushed || len(w.attempts) >= maxUnlogged && since >= flushInterval/4)
}

// flushWhenDue has the cursor be written while deliveries go on. What comes up meanwhile waits, as far as it may.
func (w *work) flushWhenDue() {
	if w.saving != nil && len(w.dead) >= maxUnflushed {
		_ = w.saved()
	}
	if w.saving == nil && w.due() {
		w.save()
	}
}

// save begins to write the cursor and, in one go with it, dead letters.
func (w *work) save() {
	w.progress.count.Seen = time.Now().UTC()
	s := &saving{Progress: journal.Progress{Cursor: w.progress.cursor(), Dead: w.dead, Revived: w.revived, Attempts: w.attempts, Lost: w.lost}, done: make(chan struct{})}
	w.saving, w.flushed = s, time.Now() // also when it fails: not in a loop
	w.progress.dirty = false
	w.dead, w.revived, w.attempts, w.lost = nil, nil, nil, 0
	go func() { // saved waits for it
		defer close(s.done)
		s.err = w.journal.Save(w.name, s.Progress)
	}()
}

// saved takes in what came of what was being written. What could not be is written with the next one.
func (w *work) saved() error {
	s := w.saving
	if s == nil {
		return nil
	}
	<-s.done
	w.saving = nil
	if s.err == nil {
		w.lookForEvicted()
		return nil
	}
	w.progress.dirty = true
	w.dead, w.revived, w.attempts = append(s.Dead, w.dead...), append(s.Revived, w.revived...), append(s.Attempts, w.attempts...)
	w.lost += s.Lost
	w.lastErr = s.err.Error()
	if now := time.Now(); now.Sub(w.complained) >= complainPause {
		w.complained = now
		w.log.Error("cannot write the cursor; events may be delivered again after a restart", "error", s.err)
	}
	return fmt.Errorf("write the cursor of target %s: %w", w.name, s.err)
}

// flush writes what there is to write, and waits until that is done.
func (w *work) flush() error {
	_ = w.saved() // what failed is written again
	if !w.progress.dirty {
		return nil
	}
	w.save()
	return w.saved()
}

// lookForEvicted says when the journal has deleted dead letters to make room for others, or for their age.
func (w *work) lookForEvicted() {
	evicted := w.journal.Evicted(w.name)
	if evicted > w.evicted {
		w.log.Warn("dead letters were deleted, as there are too many or they are too old: they can be replayed only as long as their events are stored",
			"number", evicted-w.evicted, "since the journal was made", evicted)
	}
	w.evicted = evicted
}
