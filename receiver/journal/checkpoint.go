package journal

import (
	"errors"
	"fmt"
	"maps"

	"go.etcd.io/bbolt"
)

// checkpoint is a transaction that brings what is in the write-ahead log into the file and does what waits for one, and
// what came of it.
type checkpoint struct {
	batch   []*operation
	events  []logEvent
	size    int    // of these, in bytes
	cycle   uint64 // of the log, that events it does not have are in from now on
	before  counters
	left    counters
	changes *transaction
	err     error
	done    chan struct{}
}

// ended is closed when it has; nil while there is none.
func (s *checkpoint) ended() <-chan struct{} {
	if s == nil {
		return nil
	}
	return s.done
}

// begin takes what there is to do in a transaction.
func (b *Bolt) begin(cycle uint64) *checkpoint {
	s := &checkpoint{batch: b.waiting, events: b.pending, size: b.size, cycle: cycle, before: b.snapshot(), done: make(chan struct{})}
	s.left = s.before
	b.waiting, b.pending, b.size = nil, nil, 0
	return s
}

// checkpointBeside begins a transaction while the log goes on, if one is wanted and none is under way. due is that what is
// in the log has been there for long; it returns whether that is still so. After an error nothing goes on beside it.
func (b *Bolt) checkpointBeside(due bool) (stillDue bool) {
	much := len(b.pending) >= checkpointFrom || b.size >= maxLoggedBytes/2 || b.wal != nil && b.wal.HalfFull()
	wanted := len(b.waiting) > 0 || much || due && (len(b.pending) > 0 || b.failed)
	switch {
	case b.checkpointing != nil:
		return due
	case !wanted:
		return false
	case b.wal == nil || b.Problem() != nil:
		b.checkpoint()
		return false
	}
	b.wal.Next()
	s := b.begin(b.wal.Cycle())
	b.checkpointing = s
	b.done.Go(func() {
		defer close(s.done)
		b.update(s)
	})
	return false
}

// await waits for the transaction under way, and takes in what came of it.
func (b *Bolt) await() {
	if s := b.checkpointing; s != nil {
		<-s.done
		b.checkpointing = nil
		b.finish(s)
	}
}

// checkpoint does all that there is to do in one transaction, with nothing beside it: also what may have to reject an
// event. The log takes a new cycle only when it succeeded.
func (b *Bolt) checkpoint() {
	b.await()
	var cycle uint64
	if b.wal != nil {
		cycle = b.wal.Cycle() + 1
	}
	err := b.restore()
	s := b.begin(cycle)
	b.repeats.begin()
	if s.err = err; err == nil {
		b.update(s)
	}
	b.repeats.end(s.err == nil)
	if s.err == nil && b.wal != nil {
		b.wal.Next()
	}
	b.finish(s)
}

// update does in one transaction what there is to do.
func (b *Bolt) update(s *checkpoint) {
	cursors := maps.Clone(b.cursors) // to go back to when the transaction fails
	defer func() {
		if r := recover(); r != nil {
			s.err = &DamagedError{File: b.file, Err: fmt.Errorf("%v", r)}
		}
		if s.err != nil {
			b.cursors = cursors
		}
	}()
	err := b.transact(func(tx *bbolt.Tx) error {
		work := &transaction{Tx: tx, journal: b, counters: &s.left, now: b.options.Now(), noSpace: b.freeSpace()}
		s.changes = work
		for i := range s.events {
			if err := work.put(&s.events[i]); err != nil {
				return err
			}
		}
		if err := work.trim(false); err != nil {
			return err
		}
		for _, op := range s.batch {
			op.err = nil
			if err := op.apply(work); err != nil {
				return err
			}
		}
		s.left.Cursors = int64(len(b.cursors))
		s.left.Cycle = max(s.left.Cycle, s.cycle)
		s.left.Answered = b.snapshot().LastSeq
		return putCounters(tx, &s.left)
	})
	if err != nil {
		s.err = fmt.Errorf("write the journal %s: %w", b.file, err)
	}
}

// finish takes in what came of a transaction, and answers those who waited for it. One that failed is undone; where that
// fails too the next one begins with it.
func (b *Bolt) finish(s *checkpoint) {
	if b.failed = s.err != nil; b.failed { // what is in the log is still to be brought in
		b.pending, b.size = append(s.events, b.pending...), s.size+b.size
		if err := b.restore(); err != nil {
			s.err = errors.Join(s.err, err)
		}
	}
	b.mu.Lock()
	b.problem = problemAfter(b.problem, s)
	if s.err == nil {
		b.counters = b.counters.after(&s.before, &s.left)
		b.checkpointed, b.removed, b.evicted = s.left.LastSeq, removedFrom(b.cursors, s.left.LastSeq), evictedFrom(b.cursors)
		b.latest.add(s.changes.logged, s.left.Logged)
		b.recent.drop(s.changes.gone)
		b.show(s.changes.added)
	}
	b.mu.Unlock()
	for _, op := range s.batch {
		if s.err != nil {
			op.err = s.err
		}
		close(op.done)
	}
}

// problemAfter says why no event can be kept after a transaction. That the journal is full is seen when it rejects an
// event, and stays so until one is kept, or some are dropped.
func problemAfter(before error, s *checkpoint) error {
	switch {
	case s.err != nil:
		return s.err
	case s.changes.noSpace != nil:
		return fmt.Errorf("%w: less than %d MiB are free", ErrNoSpace, minFreeBytes>>20)
	case s.changes.full != nil:
		return s.changes.full
	case errors.Is(before, ErrFull) && len(s.changes.added) == 0 && s.left.Bytes >= s.before.Bytes:
		return before
	}
	return nil
}
