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
)

// Report is what a look at a journal's file found.
type Report struct {
	Events int64 `json:"events"`
	// Ahead are events that stand in the log ahead alone: the process that kept them was killed.
	Ahead       int64    `json:"ahead"`
	Targets     []string `json:"targets"`
	DeadLetters int64    `json:"deadLetters"`
	// Damage is what is not as it was written; empty: the file is whole.
	Damage []string `json:"damage"`
	// Lost are the sequence numbers of events that some target does not have and that cannot be read.
	Lost Ranges `json:"lost"`
	// LostTargets says that the cursor of at least one target cannot be read: it begins with new events.
	LostTargets bool `json:"lostTargets"`
}

// contents is what can be read of a file.
type contents struct {
	Report
	counters *counters
	cursors  map[string]Cursor
	seqs     Ranges
	lastSeq  uint64
}

// examine refuses a file that is not whole: what is damaged is named before anything is built on it. It
// waits while another process has the file, as lock does.
func examine(ctx context.Context, file string, wait time.Duration) error {
	unlock, err := await(ctx, file, wait)
	if err != nil || unlock == nil {
		return err
	}
	defer unlock()
	report, err := Check(file)
	if err != nil {
		return &DamagedError{File: file, Err: err}
	}
	if len(report.Damage) == 0 {
		return nil
	}
	shown := report.Damage[:min(len(report.Damage), 3)]
	return &DamagedError{File: file, Err: fmt.Errorf("%s: pbxhook journal check %s says all of it, and pbxhook journal repair makes a copy of what is readable", strings.Join(shown, "; "), file)}
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

// Check looks at every page and value of a journal's file. The error says that nothing can be read.
func Check(file string) (Report, error) {
	c, err := read(file, nil)
	return c.Report, err
}

// read looks at a file, and hands on what is whole.
func read(file string, keep func(bucket [][]byte, key, value []byte)) (*contents, error) {
	c := &contents{cursors: map[string]Cursor{}}
	var bad []string
	damage, err := inspect(file, func(bucket [][]byte, key, value []byte) {
		if problem := c.take(bucket, key, value); problem != "" {
			bad = append(bad, problem)
		} else if keep != nil {
			keep(bucket, key, value)
		}
	})
	c.Damage = append(damage, bad...)
	if err != nil {
		return c, err
	}
	if c.counters != nil || c.Events > 0 { // else the journal is new, and the log is another one's
		if err := c.readAhead(file+aheadSuffix, keep); err != nil {
			return c, err
		}
	}
	c.compare()
	return c, nil
}

// readAhead takes in what stands in the log ahead alone.
func (c *contents) readAhead(name string, keep func(bucket [][]byte, key, value []byte)) error {
	events, damage, err := readAhead(name, c.lastSeq)
	if damage != "" {
		c.Damage = append(c.Damage, damage)
	}
	for _, e := range events {
		c.Ahead++
		c.seqs.Add(e.seq)
		c.lastSeq = e.seq
		if keep != nil {
			keep([][]byte{[]byte(bucketEvents)}, keyOf(e.seq), e.data)
		}
	}
	return err
}

// take looks at one value, and says what is wrong with it.
func (c *contents) take(bucket [][]byte, key, value []byte) (problem string) {
	switch string(bytes.Join(bucket[:min(len(bucket), 1)], nil)) {
	case bucketEvents:
		seq := seqOf(key)
		if len(key) != 8 || !intact(seq, value) {
			return fmt.Sprintf("event %d: its checksum does not match", seq)
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
			return fmt.Sprintf("a dead letter of target %q, event %d: %v", bucket[1], seqOf(key), err)
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

// compare holds what was found against what was counted: what is missing without a trace is damage too.
func (c *contents) compare() {
	switch {
	case c.counters == nil && c.Events+c.DeadLetters+int64(len(c.cursors)) == 0 && len(c.Damage) == 0:
		return // new
	case c.counters == nil:
		c.Damage = append(c.Damage, "the counters are missing")
		c.LostTargets = true
	default:
		for what, n := range map[string][2]int64{
			"events": {c.Events, c.counters.Events}, "cursors": {int64(len(c.cursors)), c.counters.Cursors}, "dead letters": {c.DeadLetters, c.counters.Dead},
		} {
			if n[0] != n[1] {
				c.Damage = append(c.Damage, fmt.Sprintf("%d %s are there, %d were written", n[0], what, n[1]))
			}
		}
		c.LostTargets = int64(len(c.cursors)) < c.counters.Cursors
	}
	slices.Sort(c.Damage)
	if len(c.Damage) == 0 {
		return
	}
	for _, cursor := range c.cursors {
		for seq := cursor.Floor + 1; seq <= c.lastSeq; seq++ {
			if !cursor.Has(seq) && !c.seqs.Has(seq) {
				c.Lost.Add(seq)
			}
		}
	}
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
	if unlock == nil {
		return report, fmt.Errorf("expected a journal, got nothing in %s", file)
	}
	defer unlock()
	db, err := bbolt.Open(to, fileMode, &bbolt.Options{Timeout: lockPoll, NoSync: true, NoFreelistSync: false})
	if err != nil {
		return report, fmt.Errorf("make the copy %s: %w", to, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	copied := &copier{db: db}
	c, err := read(file, copied.keep)
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
		after.Received += c.Ahead
	}
	after.LastSeq, after.Events, after.Cursors, after.Dead = c.lastSeq, c.Events+c.Ahead, int64(len(c.cursors)), c.DeadLetters
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
