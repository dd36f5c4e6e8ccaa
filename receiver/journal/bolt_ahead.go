package journal

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/pbxhook/pbxhook/receiver/event"
)

// newEvent is an event that waits to be kept, and what becomes of it.
type newEvent struct {
	record  *Record
	key     *RepeatKey
	receipt Receipt
	refused error
}

// count counts an event in.
func (c *counters) count(r *Record, size int64) {
	c.LastSeq, c.LastReceived = r.Seq, r.Request.ReceivedAt
	c.Received++
	c.Events++
	c.Bytes += size
	if r.Type == event.Unparsed {
		c.Unparsed++
	}
	c.ByName.add(r.Name, 1, r.Request.ReceivedAt)
	if r.OtherVersion != "" {
		c.OtherVersion++
		c.LastOtherVersion = r.OtherVersion
	}
}

// known is the receipt of an event that was kept before.
func (b *Bolt) known(c *counters, key *RepeatKey, now time.Time) (receipt Receipt, known bool) {
	if key == nil {
		return Receipt{}, false
	}
	first, known := b.repeats.find(*key, now)
	if known {
		c.Repeated++
	}
	return Receipt{Seq: first.seq, ID: first.id, Type: first.kind, Repeat: true}, known
}

// take numbers an event, counts it in, and remembers it by its key.
func (b *Bolt) take(c *counters, e *newEvent, data []byte, now time.Time) aheadEvent {
	r := e.record
	r.Seq = c.LastSeq + 1
	taken := aheadEvent{seq: r.Seq, data: data, key: e.key}
	if e.key != nil {
		taken.first = repeat{seq: r.Seq, id: r.ID, kind: r.Type, at: now}
		b.repeats.add(*e.key, taken.first)
	}
	c.count(r, keptSize(data))
	e.receipt = Receipt{Seq: r.Seq, ID: r.ID, Type: r.Type}
	return taken
}

// keptSize is how many bytes a record takes in the file, about.
func keptSize(data []byte) int64 { return int64(len(data) + recordOverhead) }

// show has readers find events that were kept, before anybody is told that they are there; b.mu is held.
func (b *Bolt) show(records []*Record) {
	if len(records) == 0 {
		return
	}
	b.recent.add(records)
	close(b.appended)
	b.appended = make(chan struct{})
}

// writeAhead keeps the events of a batch in the log ahead, and answers them; rest is what needs a transaction. Where it is
// not ok these are among them: a transaction does all that may have to refuse an event or to make room for it, and the
// log takes only what there is room for.
func (b *Bolt) writeAhead(batch []*operation) (rest []*operation, ok bool) {
	if b.ahead == nil || b.Problem() != nil || b.freeSpace() != nil {
		return batch, !slices.ContainsFunc(batch, (*operation).isEvent)
	}
	next := b.snapshot()
	w := aheadBatch{journal: b, counters: &next}
	b.repeats.begin()
	fits := true
	for _, op := range batch {
		if op.isEvent() {
			fits = fits && w.add(op.event)
		} else {
			rest = append(rest, op)
		}
	}
	if fits = fits && w.write(); !fits {
		b.repeats.end(false)
		return batch, false
	}
	b.repeats.end(true)
	b.pending, b.size = append(b.pending, w.events...), b.size+w.size
	b.mu.Lock()
	next.rejections = b.counters.rejections
	b.counters = next
	b.show(w.records)
	b.mu.Unlock()
	for _, op := range batch {
		if op.isEvent() {
			close(op.done)
		}
	}
	return rest, true
}

// inLog is how much is in the log ahead alone.
func (b *Bolt) inLog() (events, size int) {
	if s := b.settling; s != nil {
		events, size = len(s.events), s.size
	}
	return events + len(b.pending), size + b.size
}

// aheadBatch is what one write into the log ahead has.
type aheadBatch struct {
	journal  *Bolt
	counters *counters
	events   []aheadEvent
	records  []*Record
	size     int
}

// add takes an event in, and says whether there is room for it.
func (w *aheadBatch) add(e *newEvent) bool {
	b := w.journal
	now := b.options.Now()
	if receipt, known := b.known(w.counters, e.key, now); known {
		e.receipt = receipt
		return true
	}
	data := encode(w.counters.LastSeq+1, e.record)
	w.size += len(data)
	events, size := b.inLog()
	if events+len(w.events) == maxAhead || size+w.size > maxAheadBytes || w.counters.Bytes+keptSize(data) > b.trimFrom() {
		return false
	}
	w.events, w.records = append(w.events, b.take(w.counters, e, data, now)), append(w.records, e.record)
	return true
}

// write has the log keep the batch, and says whether it did. A log that cannot be written is not used any more: a
// transaction says what is wrong with the disk, or shows that nothing is.
func (w *aheadBatch) write() bool {
	if len(w.events) == 0 {
		return true
	}
	full, err := w.journal.ahead.write(w.events)
	if err != nil {
		_ = w.journal.ahead.file.Close() // what it has is in pending, too
		w.journal.ahead = nil
	}
	return err == nil && !full
}

// recover brings what a process that was killed left in the log ahead into the file, and begins the log anew. Without a
// log every event takes a transaction.
func (b *Bolt) recover() error {
	name := b.file + aheadSuffix
	events, damage, err := readAhead(name, b.counters.LastSeq)
	if damage != "" {
		err = errors.New(damage)
	}
	if err != nil {
		return &DamagedError{File: name, Err: err}
	}
	next := b.counters
	if len(events) > 0 {
		err = b.db.Update(func(tx *bbolt.Tx) error {
			t := &transaction{Tx: tx, journal: b, counters: &next}
			for _, e := range events {
				if err := t.recover(e); err != nil {
					return err
				}
			}
			return putCounters(tx, &next)
		})
	}
	if err != nil {
		return fmt.Errorf("write the journal %s: %w", b.file, err)
	}
	b.counters, b.settled = next, next.LastSeq
	if b.ahead, err = openAhead(name); err != nil {
		b.ahead = nil
	}
	return nil
}

func (t *transaction) recover(e aheadEvent) error {
	r, err := decode(e.seq, e.data)
	if err != nil {
		return fmt.Errorf("read event %d of the log ahead: %w", e.seq, err)
	}
	if e.key != nil {
		e.first = repeat{seq: e.seq, id: r.ID, kind: r.Type, at: r.Request.ReceivedAt}
		t.journal.repeats.add(*e.key, e.first)
	}
	t.counters.count(&r, keptSize(e.data))
	return t.put(&e)
}
