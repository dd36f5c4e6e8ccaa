package journal

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

var (
	_ Journal = (*Bolt)(nil)
	_ Part    = (*Bolt)(nil)
)

// do hands an operation to the committing goroutine and waits for its outcome.
func (b *Bolt) do(ctx context.Context, apply func(t *transaction) error) error {
	return b.submit(ctx, &operation{apply: apply, done: make(chan struct{})})
}

func (b *Bolt) submit(ctx context.Context, op *operation) error {
	b.mu.Lock()
	closed := b.closed
	if !closed {
		b.senders.Add(1) // Close waits until it is in the queue
	}
	b.mu.Unlock()
	if closed {
		return ErrClosed
	}
	select {
	case b.ops <- op:
		b.senders.Done()
	case <-ctx.Done():
		b.senders.Done()
		return ctx.Err()
	}
	<-op.done // not ctx: what is being written cannot be called back
	return op.err
}

// Append implements Journal.
func (b *Bolt) Append(ctx context.Context, r Record, key *RepeatKey) (Receipt, error) {
	e := &newEvent{record: &r, key: key}
	op := &operation{event: e, size: r.size(), done: make(chan struct{})}
	op.apply = func(t *transaction) error { return t.append(e) }
	err := b.submit(ctx, op)
	return e.receipt, errors.Join(err, e.refused)
}

// Reject implements Journal.
func (b *Bolt) Reject(reason string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.counters.Rejected++
	b.counters.LastRejected = Rejection{At: b.options.Now().UTC(), Reason: reason}
}

// CountURLCheck implements Journal.
func (b *Bolt) CountURLCheck() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.counters.URLChecks++
	b.counters.LastURLCheck = b.options.Now().UTC()
}

// Appended implements Journal.
func (b *Bolt) Appended() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.appended
}

// For implements Part: the whole journal.
func (b *Bolt) For(string) Part { return b }

// Unread implements Part.
func (b *Bolt) Unread(after uint64) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return int64(max(b.counters.LastSeq, after) - after)
}

// Entries implements Part. What is not in the file yet is remembered.
func (b *Bolt) Entries(after uint64, limit int) ([]Entry, error) {
	for {
		if entries, ok := b.recent.entries(after, limit); ok {
			return entries, nil
		}
		checkpointed, last := b.position()
		stored, err := scan(b, after, limit, func(seq uint64, data []byte) Entry { return Entry{Seq: seq, Lane: laneOf(data)} })
		if err != nil || len(stored) == limit || checkpointed == last {
			return stored, err
		}
		after := max(after, checkpointed)
		if len(stored) > 0 {
			after = max(after, stored[len(stored)-1].Seq)
		}
		if pending, ok := b.recent.entries(after, limit-len(stored)); ok {
			return append(stored, pending...), nil
		} // else they came into the file meanwhile
	}
}

// position is the last event that is in the file, and the last one.
func (b *Bolt) position() (checkpointed, last uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.checkpointed, b.counters.LastSeq
}

// checkpointNow brings what is in the write-ahead log into the file, for those who read that. Where it cannot be written
// they read what is there.
func (b *Bolt) checkpointNow() {
	if checkpointed, last := b.position(); checkpointed < last {
		_ = b.do(context.Background(), func(*transaction) error { return nil })
	}
}

// Heads implements Journal.
func (b *Bolt) Heads(after uint64, limit int) ([]Head, error) {
	b.checkpointNow()
	return scan(b, after, limit, headOf)
}

// scan reads records after a sequence number, at most limit.
func scan[T any](b *Bolt, after uint64, limit int, read func(seq uint64, data []byte) T) ([]T, error) {
	var all []T
	_, last := b.position() // a number above it is not as it was written, and would hide all below it
	err := b.view(func(tx *bbolt.Tx) error {
		cursor := tx.Bucket([]byte(bucketEvents)).Cursor()
		for key, data := cursor.Seek(keyOf(after + 1)); key != nil && seqOf(key) <= last && len(all) < limit; key, data = cursor.Next() {
			if !intact(seqOf(key), data) { // its lane and the rest may be wrong; Get says so
				b.foundDamaged(seqOf(key))
				data = nil
			}
			all = append(all, read(seqOf(key), data))
		}
		return nil
	})
	return all, err
}

// Back implements Journal.
func (b *Bolt) Back(before uint64, look func(s Stored) (more bool)) error {
	b.checkpointNow()
	return b.view(func(tx *bbolt.Tx) error {
		cursor := tx.Bucket([]byte(bucketEvents)).Cursor()
		key, data := cursor.Last()
		if before != 0 {
			if found, _ := cursor.Seek(keyOf(before)); found != nil {
				key, data = cursor.Prev()
			} else {
				key, data = cursor.Last()
			}
		}
		for more := true; key != nil && more; key, data = cursor.Prev() {
			if !intact(seqOf(key), data) {
				b.foundDamaged(seqOf(key))
				continue
			}
			more = look(Stored{Head: headOf(seqOf(key), data), Data: data})
		}
		return nil
	})
}

// Get implements Journal.
func (b *Bolt) Get(seq uint64) (Record, error) {
	if record := b.recent.get(seq); record != nil {
		return *record, nil
	}
	var record Record
	err := b.view(func(tx *bbolt.Tx) error {
		data := tx.Bucket([]byte(bucketEvents)).Get(keyOf(seq))
		if data == nil {
			return ErrNotFound
		}
		var err error
		if record, err = decode(seq, data); err != nil {
			b.foundDamaged(seq)
			return &DamagedError{File: b.file, Seq: seq, Err: err}
		}
		return nil
	})
	return record, err
}

// OpenCursor implements Journal.
func (b *Bolt) OpenCursor(target string) (Cursor, error) {
	var c Cursor
	err := b.do(context.Background(), func(t *transaction) error {
		known, ok := b.cursors[target]
		if ok {
			c = known
			return nil
		}
		c = Cursor{Floor: t.counters.LastSeq}
		return t.saveCursor(target, c)
	})
	return c, err
}

// Save implements Journal.
func (b *Bolt) Save(target string, p Progress) error {
	return b.do(context.Background(), func(t *transaction) error {
		if err := t.unbury(target, p.Revived); err != nil {
			return err
		}
		p.Cursor.Evicted = b.cursors[target].Evicted
		if len(p.Dead) > 0 {
			evicted, err := t.bury(target, p.Dead)
			if err != nil {
				return err
			}
			p.Cursor.Evicted += evicted
		}
		if err := t.log(target, p.Attempts); err != nil {
			return err
		}
		p.Cursor.RemovedAt = b.cursors[target].RemovedAt // a target that is gone may still write what it finished
		return t.saveCursor(target, p.Cursor)
	})
}

// Evicted implements Part.
func (b *Bolt) Evicted(target string) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.evicted[target]
}

// KeepCursors implements Journal.
func (b *Bolt) KeepCursors(targets []string) error {
	set := map[string]bool{}
	for _, target := range targets {
		set[target] = true
	}
	return b.do(context.Background(), func(t *transaction) error { return t.keepCursors(set) })
}

// DeadLetters implements Journal.
func (b *Bolt) DeadLetters(target string, after uint64, limit int) ([]DeadLetter, error) {
	var letters []DeadLetter
	err := b.view(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket([]byte(bucketDead)).Bucket([]byte(target))
		if bucket == nil {
			return nil
		}
		cursor := bucket.Cursor()
		for key, data := cursor.Seek(keyOf(after + 1)); key != nil && len(letters) < limit; key, data = cursor.Next() {
			d, err := decodeLetter(target, seqOf(key), data)
			if err != nil { // reported by the examination
				continue
			}
			letters = append(letters, d)
		}
		return nil
	})
	return letters, err
}

// DropDeadLetters implements Journal.
func (b *Bolt) DropDeadLetters(target string, seqs []uint64) error {
	return b.do(context.Background(), func(t *transaction) error { return t.unbury(target, seqs) })
}

// foundDamaged reports an event whose record is not as it was written, once.
func (b *Bolt) foundDamaged(seq uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.badEvents.Add(seq) {
		b.reportDamage(&b.counters, fmt.Sprintf("event %d: %v", seq, errChecksum))
	}
}

// State implements Journal.
func (b *Bolt) State() State {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := &b.counters
	return State{
		Received: c.Received, Unparsed: c.Unparsed, Rejected: c.Rejected, LastRejected: c.LastRejected, Repeated: c.Repeated,
		ByName:    c.ByName.list(),
		URLChecks: c.URLChecks, LastURLCheck: c.LastURLCheck,
		Removed: b.removed, Dropped: c.Dropped,
		OtherVersion: c.OtherVersion, LastOtherVersion: c.LastOtherVersion,
		LastReceived: c.LastReceived, LastSeq: c.LastSeq, Events: c.Events, Bytes: c.Bytes, MaxBytes: b.options.MaxBytes,
		DeadLetters: c.Dead, Logged: c.Logged, Damaged: c.Damaged, Damage: strings.Join(b.damage, "; "),
	}
}

// Problem implements Journal: as the last transaction found it.
func (b *Bolt) Problem() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.problem
}

// Close implements Journal. Requests that wait are answered first.
func (b *Bolt) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	b.mu.Unlock()
	b.senders.Wait()
	close(b.stop)
	b.done.Wait()
	b.endInOrder()
	var err error
	if b.wal != nil {
		err = b.wal.Close()
	}
	if err = errors.Join(err, b.db.Close()); err != nil {
		return fmt.Errorf("close the journal %s: %w", b.file, err)
	}
	return nil
}

// endInOrder notes that all is in the file, which the next start need not examine then. It has bbolt write the list of
// free pages, too, so that the next start need not look for them. Where that fails, the next start does as after a kill.
func (b *Bolt) endInOrder() {
	if b.failed || b.undo != nil || len(b.pending) > 0 {
		b.log.Warn("the journal could not be written at the end: the next start takes up what is in its log", "file", b.file)
		return
	}
	defer func() {
		if r := recover(); r != nil { // bbolt panics where a page is not what it should be
			b.log.Warn("the journal could not be written at the end: the next start examines it", "file", b.file, "error", r)
		}
	}()
	next := b.snapshot()
	next.Clean, next.InUse, next.Answered = true, false, next.LastSeq
	if b.wal != nil {
		next.Cycle = max(next.Cycle, b.wal.Cycle())
	}
	b.db.NoFreelistSync = false
	err := b.transact(func(tx *bbolt.Tx) error { return putCounters(tx, &next) })
	if err != nil {
		err = errors.Join(err, b.restore())
		b.log.Warn("the journal could not be written at the end: the next start examines it", "file", b.file, "error", err)
	}
}

// view reads. bbolt panics where a page is not what it should be.
func (b *Bolt) view(read func(tx *bbolt.Tx) error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &DamagedError{File: b.file, Err: fmt.Errorf("%v", r)}
		}
	}()
	b.opening.RLock()
	defer b.opening.RUnlock()
	err = b.db.View(read)
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return ErrClosed
	}
	return err
}
