package journal

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"go.etcd.io/bbolt"

	"github.com/pbxhook/pbxhook/receiver/journal/wal"
)

// An embedded journal is two files that know each other. journal.db, a bbolt file, has all but the latest events;
// journal.wal, the write-ahead log, has those that were answered and are not in journal.db yet. Package wal describes the
// log's format.
//
// # What journal.db notes
//
// Every transaction of journal.db writes a logNote:
//
//   - the identity of the journal, 16 random bytes, which the log has in every block;
//   - the cycle of the log that took events when the transaction began. All events of earlier cycles are in journal.db
//     when it is committed; so the log is needed for this cycle and the next one, which the next transaction begins;
//   - the highest sequence number that was answered by then. Transactions follow each other within 200 ms while events
//     come, so a log that lacks an event that is older is found: the event is in journal.db, or noted there;
//   - whether the log is in use, and whether the journal was closed in order. Both are noted before the first event is
//     written into the log, and taken back by the last transaction of an ordered end.
//
// # What is found at a start
//
//	journal.db closed in order            neither file is examined: records are checked when they are read
//	journal.db not closed in order        every page and every record of it is examined, and the log is read
//
//	of journal.db
//	  missing or empty, no log            a new journal
//	  missing or empty, log with events   refused
//	  a page, cursor or the counters      refused
//	  the record of an event              reported; a dead letter for each target
//	  a dead letter                       reported; left out
//	  counts that do not match            reported; corrected
//	  an older copy (the log is newer)    refused
//	of the log, while it is in use
//	  missing, other size, no header      refused
//	  of another journal                  refused
//	  answered events missing, and no
//	  block is wrong (an older copy)      refused
//	  blocks that are wrong               reported, with the events that are lost; the log is made again
//	  a last batch with blocks that were
//	  never written                       normal: it was not answered
//	  a batch with wrong blocks whose
//	  entries are all whole               taken
//	of the log, while it is not in use
//	  missing, other size, no header      made again: nothing of it is needed
//	  of another journal, with events     refused
//
// "Refused" is that the journal does not open, and the error says what is wrong; pbxhook journal repair copies what can
// be read. "Reported" is a line in the program's log, State.Damaged and State.Damage, and that the start goes on.
type logNote struct {
	Identity string `json:"identity,omitempty"` // in hex; empty: the file is of an earlier version
	Cycle    uint64 `json:"cycle,omitempty"`    // only grows
	Answered uint64 `json:"answered,omitempty"`
	InUse    bool   `json:"inUse,omitempty"`
	Clean    bool   `json:"clean,omitempty"`
}

// walSuffix is that of the log, in place of the journal's.
const walSuffix = ".wal"

// LogFile is where the write-ahead log of an embedded journal is.
func LogFile(file string) string { return strings.TrimSuffix(file, ".db") + walSuffix }

func newIdentity() string {
	var id wal.ID
	_, _ = rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}

// id is the identity as the log has it.
func (n *logNote) id() (id wal.ID) {
	_, _ = hex.Decode(id[:], []byte(n.Identity)) // its checksum matched
	return id
}

// recovered is what a log has that its journal lacks.
type recovered struct {
	events []logEvent
	damage []string // reported
	lost   Ranges   // answered events that cannot be read
	newest uint64   // cycle
	remake bool     // the log cannot be used as it is
}

// maxReported is how many places of damage are reported one by one.
const maxReported = 20

func (f *recovered) report(format string, args ...any) {
	if f.damage = append(f.damage, fmt.Sprintf(format, args...)); len(f.damage) > maxReported {
		f.damage = append(f.damage[:maxReported], "and more")
	}
}

// missing notes events that are not where they should be.
func (f *recovered) missing(from, to uint64) {
	if from <= to {
		f.lost.AddAll(from, to)
	}
}

// readLog holds a log against what its journal notes, and returns what the journal lacks. The error says that they do not
// fit each other; what can be read is returned all the same. last is the last event of the journal.
func readLog(name string, note *logNote, last uint64) (f recovered, err error) {
	misfit := func(format string, args ...any) error {
		return &DamagedError{File: name, Err: fmt.Errorf(format, args...)}
	}
	contents, err := wal.Read(name)
	switch {
	case err != nil && note.InUse:
		return f, misfit("events that were answered may be in it alone, since the journal was not closed in order: %w", err)
	case err != nil:
		return recovered{remake: true}, nil
	case contents.ID == note.id():
	case note.InUse || contents.Newest > 0:
		return f, misfit("expected the log of journal %s, got that of journal %x", note.Identity, contents.ID)
	default:
		return recovered{remake: true}, nil
	}
	newest := note.Cycle
	if note.InUse {
		newest++
	}
	if f.newest = contents.Newest; f.newest > newest {
		err = misfit("expected a log up to cycle %d, got one up to %d: the journal beside it is an older copy", newest, f.newest)
	}
	if err == nil && !note.InUse {
		return f, nil
	}
	next := last + 1
	for cycle := note.Cycle; cycle <= max(newest, f.newest); cycle++ {
		for _, batch := range contents.Batches(cycle, next) {
			next = f.take(&batch, next)
		}
	}
	f.missing(next, note.Answered)
	if len(f.lost) == 0 {
		f.remake = len(f.damage) > 0
		return f, err
	}
	lost := describe(f.lost)
	if len(f.damage) == 0 && err == nil {
		return f, misfit("expected %s in it, which were answered, and it was never written to where they should be: it is an older copy, or another disk's", lost)
	}
	f.report("%s were answered, and cannot be read", lost)
	f.remake = true
	return f, err
}

// take takes in a batch; next is the sequence number that is expected.
func (f *recovered) take(batch *wal.Batch, next uint64) uint64 {
	if batch.Damage != "" {
		f.report("the write-ahead log: %s", batch.Damage)
	}
	for _, e := range batch.Entries {
		if e.Seq < next {
			continue
		}
		f.missing(next, e.Seq-1)
		one := logEvent{seq: e.Seq, data: e.Data}
		if len(e.Key) == len(RepeatKey{}) {
			one.key = (*RepeatKey)(e.Key)
		}
		f.events, next = append(f.events, one), e.Seq+1
	}
	return next
}

func describe(seqs Ranges) string {
	var all []string
	for _, one := range seqs[:min(len(seqs), 3)] {
		all = append(all, fmt.Sprintf("events %d to %d", one.From, one.To))
	}
	if len(seqs) > 3 {
		all = append(all, "more")
	}
	return strings.Join(all, ", ")
}

// orphaned reports a log with events whose journal is gone: to begin a new journal there would lose them.
func orphaned(file string) error {
	info, err := os.Stat(file)
	if err == nil && info.Size() > 0 || err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	name := LogFile(file)
	contents, err := wal.Read(name)
	orphan := err != nil || contents.Newest > 0
	if errors.Is(err, os.ErrNotExist) {
		name = file + legacySuffix
		events, damage, err := readLegacyLog(name, 0)
		if err != nil {
			return err
		}
		orphan = len(events) > 0 || damage != ""
	}
	if !orphan {
		return nil
	}
	return &DamagedError{File: file, Err: fmt.Errorf("it is missing or empty, and %s beside it had events: restore it, or run pbxhook journal repair; to begin with an empty journal remove both", name)}
}

// recover brings into journal.db what a process that did not end in order left in the log, and then begins a new cycle
// of the log. seen is what the file's examination found; nil: it was closed in order.
func (b *Bolt) recover(seen *contents) error {
	f, err := b.readLog()
	if err != nil {
		return err
	}
	next := b.counters
	if next.Identity == "" {
		next.Identity = newIdentity()
	}
	next.Cycle, next.Clean, next.InUse = max(next.Cycle+1, f.newest), false, false
	if seen != nil {
		b.correct(&next, seen)
	}
	err = b.db.Update(func(tx *bbolt.Tx) error {
		for _, name := range []string{bucketEvents, bucketCursors, bucketDead, bucketRepeats, bucketLog, bucketMeta} {
			if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
				return fmt.Errorf("make the journal's %s: %w", name, err)
			}
		}
		t := &transaction{Tx: tx, journal: b, counters: &next}
		for _, e := range f.events {
			if err := t.recover(e); err != nil {
				return err
			}
		}
		next.LastSeq = max(next.LastSeq, next.Answered) // no number is used again
		for _, reason := range f.damage {
			b.reportDamage(&next, reason)
		}
		return putCounters(tx, &next)
	})
	if err != nil {
		return fmt.Errorf("write the journal %s: %w", b.file, err)
	}
	b.counters = next
	if err := os.Remove(b.file + legacySuffix); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the log of an earlier version, which is in the journal now: %w", err)
	}
	return b.startLog(f.remake)
}

func (b *Bolt) readLog() (f recovered, err error) {
	if b.counters.Identity != "" {
		return readLog(LogFile(b.file), &b.counters.logNote, b.counters.LastSeq)
	}
	name := b.file + legacySuffix
	events, damage, err := readLegacyLog(name, b.counters.LastSeq)
	if damage != "" {
		err = errors.New(damage)
	}
	if err != nil {
		return f, &DamagedError{File: name, Err: err}
	}
	return recovered{events: events, remake: true}, nil
}

// startLog begins a new cycle of the log, when journal.db has all that was in it. A log that cannot be used as it is is
// made again; where that fails every event takes a transaction.
func (b *Bolt) startLog(remake bool) error {
	name, next := LogFile(b.file), b.counters
	err := error(nil)
	if remake {
		if keepErr := os.Rename(name, name+".damaged"); keepErr != nil && !errors.Is(keepErr, os.ErrNotExist) {
			err = keepErr
		} else {
			err = wal.Create(name, next.id())
		}
	}
	next.Cycle++
	var log *wal.Log
	if err == nil {
		log, err = wal.Open(name, next.id(), next.Cycle)
	}
	if err != nil {
		b.log.Error("there is no write-ahead log: every event takes a transaction", "error", err)
	}
	next.InUse = log != nil
	if err := b.db.Update(func(tx *bbolt.Tx) error { return putCounters(tx, &next) }); err != nil {
		return fmt.Errorf("write the journal %s: %w", b.file, err)
	}
	b.wal, b.counters, b.checkpointed = log, next, next.LastSeq
	return nil
}

// correct has the counters say what is in the file, every page and record of which was examined.
func (b *Bolt) correct(c *counters, seen *contents) {
	for _, reason := range seen.Reported {
		b.reportDamage(c, reason)
	}
	for _, one := range seen.DamagedEvents {
		b.badEvents.AddAll(one.From, one.To)
	}
	c.Events, c.Bytes, c.Cursors, c.Dead = seen.Events+seen.DamagedEvents.Len(), seen.bytes, int64(len(seen.cursors)), seen.DeadLetters+seen.damagedLetters
}

// reportDamage says that something is not as it was written, and counts it.
func (b *Bolt) reportDamage(c *counters, reason string) {
	c.Damaged++
	b.damage = append(b.damage[max(0, len(b.damage)-2):], reason)
	b.log.Error("the journal is damaged", "file", b.file, "damage", reason)
}

func (t *transaction) recover(e logEvent) error {
	r, err := decode(e.seq, e.data)
	if err != nil {
		return fmt.Errorf("read event %d of the write-ahead log: %w", e.seq, err)
	}
	if e.key != nil {
		e.first = repeat{seq: e.seq, id: r.ID, kind: r.Type, at: r.Request.ReceivedAt}
		t.journal.repeats.add(*e.key, e.first)
	}
	t.counters.count(&r, keptSize(e.data))
	return t.put(&e)
}
