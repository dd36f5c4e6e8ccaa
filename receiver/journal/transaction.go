package journal

import (
	"fmt"
	"time"

	"go.etcd.io/bbolt"
)

// transaction is what one commit changes: the file through Tx, and counters, which take effect when
// it succeeded.
type transaction struct {
	*bbolt.Tx
	journal  *Bolt
	counters *counters
	now      time.Time
	noSpace  error // why no event may be added
	full     error // why the last one was not
	added    []*Record
	gone     []uint64 // events that are not kept any more
	logged   []Attempt
	dead     map[string]int // by target: dead letters that it added, less those that it deleted
}

func (t *transaction) bucket(name string) *bbolt.Bucket { return t.Bucket([]byte(name)) }

// append adds an event, unless it is a repeat or there is no room: e says what became of it.
func (t *transaction) append(e *newEvent) error {
	receipt, known := t.journal.known(t.counters, e.key, t.now)
	if known {
		e.receipt = receipt
		return nil
	}
	e.receipt = Receipt{} // the write-ahead log may have had no room for it
	data := encode(t.counters.LastSeq+1, e.record)
	if t.noSpace != nil {
		e.refused = t.noSpace
		return nil
	}
	if t.counters.Bytes+keptSize(data) > t.journal.options.MaxBytes {
		t.full = fmt.Errorf("%w: %d MiB are kept, %d are allowed", ErrFull, t.counters.Bytes>>20, t.journal.options.MaxBytes>>20)
		e.refused = t.full
		return nil
	}
	taken := t.journal.take(t.counters, e, data, t.now)
	t.added = append(t.added, e.record)
	return t.put(&taken)
}

// put writes an event that was counted.
func (t *transaction) put(e *logEvent) error {
	events := t.bucket(bucketEvents)
	events.FillPercent = 0.9 // keys only grow
	if err := events.Put(keyOf(e.seq), e.data); err != nil {
		return fmt.Errorf("add an event: %w", err)
	}
	if e.key == nil {
		return nil
	}
	if err := e.first.store(t.bucket(bucketRepeats), *e.key); err != nil {
		return fmt.Errorf("remember an event: %w", err)
	}
	return nil
}

func (t *transaction) saveCursor(target string, c Cursor) error {
	data, err := seal([]byte(target), c)
	if err != nil {
		return fmt.Errorf("write the cursor of target %s: %w", target, err)
	}
	if err := t.bucket(bucketCursors).Put([]byte(target), data); err != nil {
		return fmt.Errorf("write the cursor of target %s: %w", target, err)
	}
	t.journal.cursors[target] = c
	return nil
}

// keepCursors marks the cursors of targets that are gone, and drops those gone for long.
func (t *transaction) keepCursors(targets map[string]bool) error {
	for name, c := range t.journal.cursors {
		switch {
		case targets[name] && c.RemovedAt.IsZero():
		case targets[name]:
			c.RemovedAt = time.Time{}
			if err := t.saveCursor(name, c); err != nil {
				return err
			}
		case c.RemovedAt.IsZero():
			c.RemovedAt = t.now
			if err := t.saveCursor(name, c); err != nil {
				return err
			}
		}
	}
	return t.dropCursors()
}

func (t *transaction) dropCursors() error {
	for name, c := range t.journal.cursors {
		if !c.RemovedAt.IsZero() && t.now.Sub(c.RemovedAt) > removedCursors {
			if err := t.bucket(bucketCursors).Delete([]byte(name)); err != nil {
				return fmt.Errorf("drop the cursor of removed target %s: %w", name, err)
			}
			delete(t.journal.cursors, name)
			t.counters.Dropped++
		}
	}
	return nil
}

// bury adds dead letters of a target, evicts those that are too many or too old, and returns how many these were.
func (t *transaction) bury(target string, dead []DeadLetter) (evicted int64, err error) {
	bucket, err := t.bucket(bucketDead).CreateBucketIfNotExists([]byte(target))
	if err != nil {
		return 0, fmt.Errorf("keep dead letters of target %s: %w", target, err)
	}
	for i := range dead {
		data, err := encodeLetter(target, &dead[i])
		if err != nil {
			return 0, fmt.Errorf("keep a dead letter of target %s: %w", target, err)
		}
		if bucket.Get(keyOf(dead[i].Record.Seq)) == nil {
			t.countDead(target, 1)
		}
		if err := bucket.Put(keyOf(dead[i].Record.Seq), data); err != nil {
			return 0, fmt.Errorf("keep a dead letter of target %s: %w", target, err)
		}
	}
	return t.evict(target, bucket)
}

// unbury forgets dead letters.
func (t *transaction) unbury(target string, seqs []uint64) error {
	bucket := t.bucket(bucketDead).Bucket([]byte(target))
	if bucket == nil {
		return nil
	}
	for _, seq := range seqs {
		if bucket.Get(keyOf(seq)) == nil {
			continue
		}
		if err := bucket.Delete(keyOf(seq)); err != nil {
			return fmt.Errorf("drop a dead letter of target %s: %w", target, err)
		}
		t.countDead(target, -1)
	}
	return nil
}

// countDead counts dead letters that were added, or deleted. bbolt itself counts what is in the file alone.
func (t *transaction) countDead(target string, n int) {
	if t.dead == nil {
		t.dead = map[string]int{}
	}
	t.dead[target] += n
	t.counters.Dead += int64(n)
}

// evict deletes the oldest dead letters of a target above the number that is kept, and those that are too old. Their
// events stay as long as other delivered ones.
func (t *transaction) evict(target string, bucket *bbolt.Bucket) (n int64, err error) {
	excess := bucket.Stats().KeyN + t.dead[target] - maxDeadLetters
	cursor := bucket.Cursor()
	for key, data := cursor.First(); key != nil; key, data = cursor.First() {
		var l letter
		if err := unseal(letterKey(target, seqOf(key)), data, &l); excess <= 0 && (err != nil || t.now.Sub(l.Time) < deadLetterAge) {
			return n, nil
		}
		if err := bucket.Delete(key); err != nil {
			return n, fmt.Errorf("drop a dead letter of target %s: %w", target, err)
		}
		t.countDead(target, -1)
		excess--
		n++
	}
	return n, nil
}

// trimFrom is from how many bytes on room is made.
func (b *Bolt) trimFrom() int64 { return int64(trimAbove * float64(b.options.MaxBytes)) }

// trim makes room: events that every target is done with go, when they are older than the retention
// and, from 80 % of MaxBytes on, the oldest first. all also looks for old ones, and is for times
// when nothing waits.
func (t *transaction) trim(all bool) error {
	limit := t.journal.trimFrom()
	if !all && t.counters.Bytes <= limit {
		return nil
	}
	if all {
		if err := t.dropCursors(); err != nil {
			return err
		}
		if err := t.journal.repeats.expire(t.bucket(bucketRepeats), t.now); err != nil {
			return err
		}
		if err := t.trimLog(); err != nil {
			return err
		}
	}
	oldest := t.now.Add(-t.journal.options.Retention)
	events := t.bucket(bucketEvents)
	var bytes int64
	cursor := events.Cursor()
	looked := 0
	for key, data := cursor.First(); key != nil && looked < maxTrim; key, data = cursor.Next() {
		looked++
		full := t.counters.Bytes-bytes > limit
		if !full && !all {
			break
		}
		seq := seqOf(key)
		if !t.delivered(seq) {
			continue
		}
		if !full {
			record, err := decode(seq, data)
			if err != nil { // it became a dead letter, and its time cannot be told
				t.journal.foundDamaged(seq)
			} else if record.Request.ReceivedAt.After(oldest) {
				break
			}
		}
		t.gone = append(t.gone, seq)
		bytes += keptSize(data)
	}
	for _, seq := range t.gone {
		if err := events.Delete(keyOf(seq)); err != nil {
			return fmt.Errorf("drop a delivered event: %w", err)
		}
	}
	t.counters.Events -= int64(len(t.gone))
	t.counters.Bytes -= bytes
	return nil
}

// delivered is whether all targets are done with an event. Without any cursor nothing is: the
// targets are not known yet.
func (t *transaction) delivered(seq uint64) bool {
	for _, c := range t.journal.cursors {
		if !c.Has(seq) {
			return false
		}
	}
	return len(t.journal.cursors) > 0
}
