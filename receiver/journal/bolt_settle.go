package journal

import (
	"errors"
	"fmt"
	"maps"

	"go.etcd.io/bbolt"
)

// settling is a transaction that brings what is in the log ahead into the file and does what waits for one, and what
// came of it.
type settling struct {
	batch   []*operation
	events  []aheadEvent
	size    int // of these, in bytes
	before  counters
	left    counters
	changes *transaction
	err     error
	done    chan struct{}
}

// ended is closed when it has; nil while there is none.
func (s *settling) ended() <-chan struct{} {
	if s == nil {
		return nil
	}
	return s.done
}

// begin takes what there is to do in a transaction.
func (b *Bolt) begin() *settling {
	s := &settling{batch: b.waiting, events: b.pending, size: b.size, before: b.snapshot(), done: make(chan struct{})}
	s.left = s.before
	b.waiting, b.pending, b.size = nil, nil, 0
	return s
}

// settleBeside begins a transaction while the log ahead goes on, if one is wanted and none is under way. due is that
// what is in the log has been there for long. After trouble nothing goes on beside it.
func (b *Bolt) settleBeside(due bool) {
	much := len(b.pending) >= settleFrom || b.size >= maxAheadBytes/2 || b.ahead != nil && b.ahead.halfFull()
	wanted := len(b.waiting) > 0 || much || due && len(b.pending) > 0
	switch {
	case !wanted || b.settling != nil:
		return
	case b.ahead == nil || b.Problem() != nil:
		b.transact()
		return
	}
	b.ahead.turn()
	s := b.begin()
	b.settling = s
	b.done.Go(func() {
		defer close(s.done)
		b.update(s)
	})
}

// await waits for the transaction under way, and takes in what came of it.
func (b *Bolt) await() {
	if s := b.settling; s != nil {
		<-s.done
		b.settling = nil
		b.finish(s)
	}
}

// transact does all that there is to do in one transaction, with nothing beside it: also what may have to refuse an
// event.
func (b *Bolt) transact() {
	b.await()
	s := b.begin()
	b.repeats.begin()
	b.update(s)
	b.repeats.end(s.err == nil)
	if s.err == nil && b.ahead != nil {
		b.ahead.turn()
	}
	b.finish(s)
}

// update does in one transaction what there is to do.
func (b *Bolt) update(s *settling) {
	cursors := maps.Clone(b.cursors) // to go back to when the transaction fails
	defer func() {
		if r := recover(); r != nil {
			s.err = &DamagedError{File: b.file, Err: fmt.Errorf("%v", r)}
		}
		if s.err != nil {
			b.cursors = cursors
		}
	}()
	err := b.db.Update(func(tx *bbolt.Tx) error {
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
		return putCounters(tx, &s.left)
	})
	if err != nil {
		s.err = fmt.Errorf("write the journal %s: %w", b.file, err)
	}
}

// finish takes in what came of a transaction, and answers those who waited for it.
func (b *Bolt) finish(s *settling) {
	if s.err != nil { // what is in the log ahead is still to be brought in
		b.pending, b.size = append(s.events, b.pending...), s.size+b.size
	}
	b.mu.Lock()
	b.problem = problemAfter(b.problem, s)
	if s.err == nil {
		b.counters = b.counters.after(&s.before, &s.left)
		b.settled, b.removed = s.left.LastSeq, removedFrom(b.cursors, s.left.LastSeq)
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

// problemAfter says why no event can be kept after a transaction. That the journal is full is seen when it refuses an
// event, and stays so until one is kept, or some are dropped.
func problemAfter(before error, s *settling) error {
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
