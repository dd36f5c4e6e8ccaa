package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/pbxhook/pbxhook/receiver/journal/wal"
)

// Report is what a look at a journal's files found.
type Report struct {
	Events int64 `json:"events"`
	// InLog are events that stand in the write-ahead log alone: the process that kept them did not end in order.
	InLog       int64    `json:"inLog"`
	Targets     []string `json:"targets"`
	DeadLetters int64    `json:"deadLetters"`
	// Damage is what is not as it was written, and refuses the start.
	Damage []string `json:"damage"`
	// Reported is damage that is reported at the start, which goes on.
	Reported []string `json:"reported"`
	// DamagedEvents are the sequence numbers of events whose records are not as they were written.
	DamagedEvents Ranges `json:"damagedEvents"`
	// Lost are the sequence numbers of events that some target does not have and that cannot be read.
	Lost Ranges `json:"lost"`
	// LostTargets says that the cursor of at least one target cannot be read: it begins with new events.
	LostTargets bool `json:"lostTargets"`
}

// contents is what can be read of a file.
type contents struct {
	Report
	counters       *counters
	cursors        map[string]Cursor
	seqs           Ranges
	lastSeq        uint64
	highest        uint64 // of the keys of events, also of those that are not as they were written
	bytes          int64  // of events
	damagedLetters int64
	transaction    uint64 // the last one
}

// maxShown is how much of each damage an error says, in bytes; pbxhook journal check says all of it.
const maxShown = 400

// examined is what the examination before a start found.
type examined struct {
	contents    *contents // nil: the journal is new, or was closed in order
	transaction uint64    // the last one that changed the file; 0: it is new
}

// examine refuses a journal whose structure is damaged: what is damaged is named before anything is built on it. One that
// was closed in order is not looked at. It waits while another process has the file, as lock does.
func examine(ctx context.Context, file string, wait time.Duration) (seen examined, err error) {
	unlock, err := await(ctx, file, wait)
	if err != nil {
		return seen, err
	}
	if unlock == nil {
		return seen, orphaned(file)
	}
	defer unlock()
	found, err := glance(file)
	if err == nil && len(found.Damage) == 0 && found.counters != nil && found.counters.Clean {
		return examined{transaction: found.transaction}, nil
	}
	c, err := read(file, nil)
	if err != nil {
		return seen, &DamagedError{File: file, Err: err}
	}
	if len(c.Damage) == 0 {
		return examined{contents: c, transaction: c.transaction}, nil
	}
	shown := c.Damage[:min(len(c.Damage), 3)]
	for i, damage := range shown { // which may hold keys of any length
		if len(damage) > maxShown {
			shown[i] = strings.ToValidUTF8(damage[:maxShown], "") + "…"
		}
	}
	return seen, &DamagedError{File: file, Err: fmt.Errorf("%s: pbxhook journal check %s says all of it, and pbxhook journal repair makes a copy of what is readable", strings.Join(shown, "; "), file)}
}

// glance reads the counters of a journal alone.
func glance(file string) (*contents, error) {
	c := &contents{cursors: map[string]Cursor{}}
	found, err := inspect(file, bucketMeta, func(bucket [][]byte, key, value []byte) {
		if problem := c.take(bucket, key, value); problem != "" {
			c.Damage = append(c.Damage, problem)
		}
	})
	c.Damage, c.transaction = append(c.Damage, found.damage...), found.transaction
	return c, err
}

// await takes the file's lock. Without a file, or with an empty one, there is nothing to look at and
// unlock is nil.
func await(ctx context.Context, name string, wait time.Duration) (unlock func(), err error) {
	file, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the journal: %w", err)
	}
	unlock = func() { _ = file.Close() } // which lets go of the lock
	for start := time.Now(); ; {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			info, err := file.Stat()
			if err != nil || info.Size() == 0 {
				unlock()
				return nil, err
			}
			return unlock, nil
		case !errors.Is(err, unix.EWOULDBLOCK):
			unlock()
			return nil, fmt.Errorf("lock the journal %s: %w", name, err)
		case wait >= 0 && time.Since(start) >= wait:
			unlock()
			return nil, lockedError(name, wait)
		}
		select {
		case <-ctx.Done():
			unlock()
			return nil, fmt.Errorf("open the journal %s, which another process has open: %w", name, ctx.Err())
		case <-time.After(lockPoll):
		}
	}
}

func lockedError(file string, wait time.Duration) error {
	return fmt.Errorf("open the journal %s: another process has had it open for %s: stop that one first, or choose another --data-dir", file, wait)
}

// Check looks at every page and value of a journal's file, and at its log. The error says that nothing can be read.
func Check(file string) (Report, error) {
	c, err := readBoth(file, nil)
	return c.Report, err
}

// readBoth looks at a journal's file and its log, and hands on what is whole.
func readBoth(file string, keep func(bucket [][]byte, key, value []byte)) (*contents, error) {
	if err := orphaned(file); err != nil {
		c := &contents{cursors: map[string]Cursor{}}
		c.Damage, c.LostTargets = []string{err.Error()}, true
		return c, c.takeOrphan(LogFile(file), keep)
	}
	c, err := read(file, keep)
	if err != nil {
		return c, err
	}
	if c.counters != nil {
		c.takeLog(file, keep)
	}
	c.missing()
	return c, nil
}

// read looks at every page and value of a journal's file, and hands on what is whole.
func read(file string, keep func(bucket [][]byte, key, value []byte)) (*contents, error) {
	c := &contents{cursors: map[string]Cursor{}}
	var bad []string
	found, err := inspect(file, "", func(bucket [][]byte, key, value []byte) {
		if problem := c.take(bucket, key, value); problem != "" {
			bad = append(bad, problem)
		} else if keep != nil && (string(bucket[0]) != bucketEvents || intact(seqOf(key), value)) {
			keep(bucket, key, value)
		}
	})
	c.Damage, c.transaction = append(found.damage, bad...), found.transaction
	if err != nil {
		return c, err
	}
	c.compare()
	return c, nil
}

// takeLog takes in what stands in the log alone.
func (c *contents) takeLog(file string, keep func(bucket [][]byte, key, value []byte)) {
	var events []logEvent
	if c.counters.Identity == "" {
		found, damage, err := readLegacyLog(file+legacySuffix, c.lastSeq)
		if events = found; damage != "" {
			c.Damage = append(c.Damage, damage)
		}
		if err != nil {
			c.Damage = append(c.Damage, err.Error())
		}
	} else {
		f, err := readLog(LogFile(file), &c.counters.logNote, c.counters.LastSeq)
		if err != nil {
			c.Damage = append(c.Damage, err.Error())
		}
		events = f.events
		c.Reported = append(c.Reported, f.damage...)
		c.lastSeq = max(c.lastSeq, c.counters.Answered)
	}
	c.takeEvents(events, keep)
}

// takeOrphan takes in what the log of a journal has whose file is gone.
func (c *contents) takeOrphan(name string, keep func(bucket [][]byte, key, value []byte)) error {
	log, err := wal.Read(name)
	if err != nil {
		return err
	}
	var f recovered
	for cycle := max(log.Newest, 1) - 1; cycle <= log.Newest; cycle++ {
		for _, batch := range log.Batches(cycle, 0) {
			f.take(&batch, 0)
		}
	}
	c.Damage = append(c.Damage, f.damage...)
	c.takeEvents(f.events, keep)
	return nil
}

func (c *contents) takeEvents(events []logEvent, keep func(bucket [][]byte, key, value []byte)) {
	for _, e := range events {
		c.InLog++
		c.seqs.Add(e.seq)
		c.lastSeq = max(c.lastSeq, e.seq)
		if keep != nil {
			keep([][]byte{[]byte(bucketEvents)}, keyOf(e.seq), e.data)
		}
	}
}

// take looks at one value, and says what is wrong with it.
func (c *contents) take(bucket [][]byte, key, value []byte) (problem string) {
	switch string(bytes.Join(bucket[:min(len(bucket), 1)], nil)) {
	case bucketEvents:
		seq := seqOf(key)
		if len(key) != 8 {
			return fmt.Sprintf("the key of an event is %x", key)
		}
		c.highest = max(c.highest, seq)
		c.bytes += keptSize(value)
		if !intact(seq, value) {
			c.Reported = append(c.Reported, fmt.Sprintf("event %d: %v", seq, errChecksum))
			c.DamagedEvents.Add(seq)
			return ""
		}
		c.Events++
		c.seqs.Add(seq)
		c.lastSeq = max(c.lastSeq, seq)
	case bucketCursors:
		var cursor Cursor
		if err := unseal(key, value, &cursor); err != nil {
			return fmt.Sprintf("the cursor of target %q: %v", key, err)
		}
		c.cursors[string(key)] = cursor
		c.Targets = append(c.Targets, string(key))
	case bucketDead:
		if len(bucket) != 2 {
			return fmt.Sprintf("a dead letter of no target, event %d", seqOf(key))
		}
		if _, err := decodeLetter(string(bucket[1]), seqOf(key), value); err != nil {
			c.Reported = append(c.Reported, fmt.Sprintf("a dead letter of target %q, event %d: %v", bucket[1], seqOf(key), err))
			c.damagedLetters++
			return ""
		}
		c.DeadLetters++
	case bucketMeta:
		var found counters
		if err := unseal(key, value, &found); err != nil || string(key) != keyCounters {
			return fmt.Sprintf("the counters: %v", err)
		}
		c.counters = &found
		c.lastSeq = max(c.lastSeq, found.LastSeq)
	case bucketRepeats, bucketLog: // worth less than the events: the one spares a target a repeat, the other is for people
	default:
		return fmt.Sprintf("an entry in a part that there is not: %q", bucket)
	}
	return ""
}

// compare holds what was found against what was counted.
func (c *contents) compare() {
	defer func() { slices.Sort(c.Damage) }()
	if c.counters == nil {
		if c.Events+c.DeadLetters+int64(len(c.cursors)) > 0 || len(c.Damage) > 0 { // else it is new
			c.Damage = append(c.Damage, "the counters are missing")
			c.LostTargets = true
		}
		return
	}
	if c.highest > c.counters.LastSeq { // a reader would take all numbers before it for done
		c.Damage = append(c.Damage, fmt.Sprintf("event %d is there, and %d was the last one", c.highest, c.counters.LastSeq))
	}
	for _, n := range []struct {
		what         string
		found, noted int64
	}{
		{"events", c.Events + c.DamagedEvents.Len(), c.counters.Events}, {"cursors", int64(len(c.cursors)), c.counters.Cursors},
		{"dead letters", c.DeadLetters + c.damagedLetters, c.counters.Dead},
	} {
		miscount := fmt.Sprintf("%d %s are there, %d were written", n.found, n.what, n.noted)
		switch {
		case n.found == n.noted:
		case len(c.Damage) > 0: // some are on pages that cannot be read
			c.Damage = append(c.Damage, miscount)
		default:
			c.Reported = append(c.Reported, miscount+": all pages and checksums are right, so it is corrected")
		}
	}
	c.LostTargets = int64(len(c.cursors)) < c.counters.Cursors
}

// missing notes which events some target does not have and that cannot be read.
func (c *contents) missing() {
	if len(c.Damage)+len(c.Reported) == 0 {
		return
	}
	for _, cursor := range c.cursors {
		c.missingFor(&cursor)
	}
}

// missingFor does so for one target. It goes by ranges: a number that is not as it was written may be any.
func (c *contents) missingFor(cursor *Cursor) {
	known := slices.Clone(c.seqs)
	for _, done := range cursor.Done {
		known.AddAll(done.From, done.To)
	}
	next := cursor.Floor + 1
	for _, one := range known {
		if one.From > next {
			c.Lost.AddAll(next, min(one.From-1, c.lastSeq))
		}
		next = max(next, one.To+1)
	}
	c.Lost.AddAll(next, c.lastSeq)
}

// Repair copies what is whole of a journal's file to another one, which must not exist, and says what is
// missing there. The first file stays as it is.
func Repair(file, to string) (report Report, err error) {
	if _, err := os.Stat(to); !errors.Is(err, os.ErrNotExist) {
		return report, fmt.Errorf("expected that %s does not exist", to)
	}
	unlock, err := await(context.Background(), file, 0)
	if err != nil {
		return report, err
	}
	if unlock != nil {
		defer unlock()
	} else if orphaned(file) == nil {
		return report, fmt.Errorf("expected a journal, got nothing in %s", file)
	}
	db, err := bbolt.Open(to, fileMode, &bbolt.Options{Timeout: lockPoll, NoSync: true, NoFreelistSync: false})
	if err != nil {
		return report, fmt.Errorf("make the copy %s: %w", to, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	copied := &copier{db: db}
	c, err := readBoth(file, copied.keep)
	if err != nil {
		return c.Report, err
	}
	if err := errors.Join(copied.err, copied.flush()); err != nil {
		return c.Report, fmt.Errorf("write the copy %s: %w", to, err)
	}
	if err := copied.finish(c); err != nil {
		return c.Report, fmt.Errorf("write the copy %s: %w", to, err)
	}
	return c.Report, db.Sync()
}

// copier writes what is whole into another file, many values in one transaction.
type copier struct {
	db    *bbolt.DB
	batch []copied
	size  int
	err   error
}

type copied struct {
	bucket     [][]byte
	key, value []byte
}

func (w *copier) keep(bucket [][]byte, key, value []byte) {
	if w.err != nil || string(bucket[0]) == bucketMeta {
		return
	}
	one := copied{key: bytes.Clone(key), value: bytes.Clone(value)}
	for _, name := range bucket {
		one.bucket = append(one.bucket, bytes.Clone(name))
	}
	w.batch, w.size = append(w.batch, one), w.size+len(key)+len(value)
	if len(w.batch) >= maxTrim || w.size >= maxBatchBytes {
		w.err = w.flush()
	}
}

func (w *copier) flush() error {
	err := w.db.Update(func(tx *bbolt.Tx) error {
		for _, one := range w.batch {
			bucket, err := tx.CreateBucketIfNotExists(one.bucket[0])
			for _, name := range one.bucket[1:] {
				if err == nil {
					bucket, err = bucket.CreateBucketIfNotExists(name)
				}
			}
			if err != nil {
				return err
			}
			if err := bucket.Put(one.key, one.value); err != nil {
				return err
			}
		}
		return nil
	})
	w.batch, w.size = nil, 0
	return err
}

// finish writes counters that say what is in the copy.
func (w *copier) finish(c *contents) error {
	after := counters{Format: formatVersion, arrivals: arrivals{Received: int64(c.lastSeq)}}
	if c.counters != nil {
		after = *c.counters
		after.Received += c.InLog
	}
	// the copy needs nothing of the log that it was made from
	after.Format, after.Cycle, after.InUse, after.Clean = formatVersion, after.Cycle+1, false, true
	if after.Identity == "" {
		after.Identity = newIdentity()
	}
	after.LastSeq, after.Events, after.Cursors, after.Dead = c.lastSeq, c.Events+c.InLog, int64(len(c.cursors)), c.DeadLetters
	return w.db.Update(func(tx *bbolt.Tx) error {
		after.Bytes = 0
		if events := tx.Bucket([]byte(bucketEvents)); events != nil {
			if err := events.ForEach(func(_, data []byte) error {
				after.Bytes += keptSize(data)
				return nil
			}); err != nil {
				return err
			}
		}
		if _, err := tx.CreateBucketIfNotExists([]byte(bucketMeta)); err != nil {
			return err
		}
		return putCounters(tx, &after)
	})
}
