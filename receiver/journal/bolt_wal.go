package journal

import (
	"slices"
	"time"

	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/journal/wal"
)

// Bounds of what only the write-ahead log has.
const (
	maxLogged       = maxRecent * 3 / 4 // events: readers have them from what is remembered
	maxLoggedBytes  = 1 << 20           // of them
	checkpointAfter = 200 * time.Millisecond
	checkpointFrom  = maxLogged / 2
)

// logEvent is an event on its way into the log, and from there into the file.
type logEvent struct {
	seq   uint64
	data  []byte     // its record
	key   *RepeatKey // nil: it has no repeats
	first repeat     // that they are told by; the log has it in the record
}

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
func (b *Bolt) take(c *counters, e *newEvent, data []byte, now time.Time) logEvent {
	r := e.record
	r.Seq = c.LastSeq + 1
	taken := logEvent{seq: r.Seq, data: data, key: e.key}
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

// writeLog keeps the events of a batch in the write-ahead log, and answers them; rest is what needs a transaction. Where it is
// not ok these are among them: a transaction does all that may have to refuse an event or to make room for it, and the
// log takes only what there is room for.
func (b *Bolt) writeLog(batch []*operation) (rest []*operation, ok bool) {
	if b.wal == nil || b.Problem() != nil || b.freeSpace() != nil {
		return batch, !slices.ContainsFunc(batch, (*operation).isEvent)
	}
	next := b.snapshot()
	w := logBatch{journal: b, counters: &next}
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

// inLog is how much is in the write-ahead log alone.
func (b *Bolt) inLog() (events, size int) {
	if s := b.checkpointing; s != nil {
		events, size = len(s.events), s.size
	}
	return events + len(b.pending), size + b.size
}

// logBatch is what one write into the write-ahead log has.
type logBatch struct {
	journal  *Bolt
	counters *counters
	events   []logEvent
	records  []*Record
	size     int
}

// add takes an event in, and says whether there is room for it.
func (w *logBatch) add(e *newEvent) bool {
	b := w.journal
	now := b.options.Now()
	if receipt, known := b.known(w.counters, e.key, now); known {
		e.receipt = receipt
		return true
	}
	data := encode(w.counters.LastSeq+1, e.record)
	w.size += len(data)
	events, size := b.inLog()
	if events+len(w.events) == maxLogged || size+w.size > maxLoggedBytes || w.counters.Bytes+keptSize(data) > b.trimFrom() {
		return false
	}
	w.events, w.records = append(w.events, b.take(w.counters, e, data, now)), append(w.records, e.record)
	return true
}

// write writes the batch into the log, and reports whether it is on the disk. After a write that failed the log takes
// nothing before a transaction has all that it had: that one says what is wrong with the disk, or shows that nothing is.
func (w *logBatch) write() bool {
	if len(w.events) == 0 {
		return true
	}
	b := w.journal
	entries := make([]wal.Entry, len(w.events))
	for i := range w.events {
		e := &w.events[i]
		entries[i] = wal.Entry{Seq: e.seq, Data: e.data}
		if e.key != nil {
			entries[i].Key = e.key[:]
		}
	}
	full, err := b.wal.Append(entries)
	if err != nil && !b.logFailed {
		b.log.Warn("the write-ahead log could not be written: a transaction takes its place", "file", b.file, "error", err)
	}
	b.logFailed = err != nil
	return err == nil && !full
}

// retryLog makes the log that could not be made before.
func (b *Bolt) retryLog() {
	if b.wal != nil || b.failed || len(b.pending) > 0 {
		return
	}
	if err := b.startLog(true); err != nil {
		b.log.Warn("the write-ahead log cannot be made", "file", b.file, "error", err)
	}
}
