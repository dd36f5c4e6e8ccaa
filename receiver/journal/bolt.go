package journal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"github.com/pbxhook/pbxhook/receiver/journal/wal"
)

// Limits that DESIGN fixes.
const (
	minFreeBytes    = 64 << 20 // under which nothing is written to the disk
	maxBatch        = 1024     // requests that share one transaction
	maxBatchBytes   = 16 << 20
	maxTrim         = 10_000 // events looked at for room in one transaction
	removedCursors  = 24 * time.Hour
	maxDeadLetters  = 10_000 // a target
	deadLetterAge   = 7 * 24 * time.Hour
	trimAbove       = 0.8 // of MaxBytes
	housekeeping    = time.Minute
	lockPoll        = 250 * time.Millisecond
	recordOverhead  = 64 // bytes that bbolt adds to a record, about
	bucketEvents    = "events"
	bucketCursors   = "cursors"
	bucketDead      = "dead-letters"
	bucketRepeats   = "repeats"
	bucketLog       = "log"
	bucketMeta      = "meta"
	keyCounters     = "counters"
	formatVersion   = 2
	fileMode        = 0o600
	directoryMode   = 0o700
	defaultMaxBytes = 1 << 30
)

// Options of an embedded journal.
type Options struct {
	MaxBytes  int64         // 0: 1 GiB
	Retention time.Duration // of delivered events; 0: 72 h
	// Wait is how long to wait for another process to let go of the file; negative: until ctx ends.
	Wait time.Duration
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	// Log gets what is found damaged, and what went wrong on the disk; nil: nobody does.
	Log *slog.Logger
}

// Bolt is the embedded journal: a bbolt file that one process has open, told by the file's lock, and a write-ahead log.
// One goroutine commits: it takes all events that wait, writes them into the log, and answers them when that is on the
// disk (fdatasync). A lone one does not wait for company. A checkpoint brings them into the file with the next
// transaction, which all else needs: progress, dead letters, and room for more. No event waits for that: it runs beside
// the log. What is in which file, and what is done when they do not fit, says logNote.
type Bolt struct {
	file    string
	options Options
	log     *slog.Logger
	ops     chan *operation
	stop    chan struct{}
	senders sync.WaitGroup // operations on their way into ops
	done    sync.WaitGroup // the committing goroutine, and a checkpoint beside it
	recent  recent
	latest  latest

	opening sync.RWMutex // held by readers, and for writing while the file is opened again
	db      *bbolt.DB
	dbFile  *os.File // that db has

	// Of the committing goroutine alone, or of the transaction that it has under way.
	repeats       repeats
	cursors       map[string]Cursor
	wal           *wal.Log     // nil where it cannot be used
	pending       []logEvent   // that are in the log, and that no transaction has taken yet
	size          int          // of these, in bytes
	waiting       []*operation // that need a transaction
	checkpointing *checkpoint  // the transaction under way beside the log, or nil
	undo          *undo        // what is to be undone before the next transaction, or nil
	failed        bool         // the last transaction did
	logFailed     bool         // the last write of the log did
	syncFault     func() error // of tests: what a sync of journal.db comes to

	mu           sync.Mutex
	counters     counters
	checkpointed uint64 // the last event that is in the file
	removed      []Removed
	evicted      map[string]int64 // dead letters, by target
	damage       []string         // found since it was opened, the latest
	badEvents    Ranges           // found when they were read
	problem      error            // why no event can be kept now
	appended     chan struct{}
	closed       bool
}

// counters live in the journal itself and change with it.
type counters struct {
	Format int `json:"format"`
	logNote
	arrivals
	rejections
	Events   int64 `json:"events"`
	Bytes    int64 `json:"bytes"`
	Cursors  int64 `json:"cursors"` // that there are, so that a lost one is missed
	Dead     int64 `json:"dead"`    // dead letters that there are
	Dropped  int64 `json:"dropped,omitempty"`
	Logged   int64 `json:"logged,omitempty"`   // attempts ever written to the delivery log
	LogBytes int64 `json:"logBytes,omitempty"` // that the delivery log has now
}

// arrivals are events that ever came.
type arrivals struct {
	Received         int64      `json:"received"`
	Unparsed         int64      `json:"unparsed"`
	OtherVersion     int64      `json:"otherVersion,omitempty"`
	LastOtherVersion string     `json:"lastOtherVersion,omitempty"`
	Repeated         int64      `json:"repeated"`
	LastSeq          uint64     `json:"lastSeq"`
	LastReceived     time.Time  `json:"lastReceived,omitzero"`
	ByName           nameCounts `json:"byName"`
}

// rejections are requests that became no event, rejected ones and URL checks, and places of damage that did not keep the
// journal from being opened. They are counted at any time.
type rejections struct {
	Rejected     int64     `json:"rejected"`
	LastRejected Rejection `json:"lastRejected,omitzero"`
	URLChecks    int64     `json:"urlChecks,omitempty"`
	LastURLCheck time.Time `json:"lastURLCheck,omitzero"`
	Damaged      int64     `json:"damaged,omitempty"`
}

// after is what counts after a transaction that found before and left left, while more may have come. Such a
// transaction adds no events.
func (c *counters) after(before, left *counters) counters {
	now := *left
	now.rejections = c.rejections
	if c.arrivals != before.arrivals {
		now.arrivals = c.arrivals
		now.Events += c.Events - before.Events
		now.Bytes += c.Bytes - before.Bytes
	}
	return now
}

// operation is something that waits for a transaction or, where it adds an event, for the write-ahead log. apply may fail
// alone by setting err; an error that it returns fails the whole transaction.
type operation struct {
	apply func(t *transaction) error
	event *newEvent // nil: it is something else
	alone bool      // nothing may go on beside its transaction
	size  int
	err   error
	done  chan struct{}
}

func (op *operation) isEvent() bool { return op.event != nil }

// housekeep drops what is too old. Repeats are among that, which events are looked up in.
func housekeep() *operation {
	return &operation{apply: func(t *transaction) error { return t.trim(true) }, alone: true, done: make(chan struct{})}
}

// Open opens the journal in file, and makes it if there is none. It waits for the process that has
// it open, as Options.Wait says.
func Open(ctx context.Context, file string, options Options) (*Bolt, error) {
	if options.MaxBytes == 0 {
		options.MaxBytes = defaultMaxBytes
	}
	if options.Retention == 0 {
		options.Retention = 72 * time.Hour
	}
	if options.Now == nil {
		options.Now = time.Now
	}
	if err := os.MkdirAll(filepath.Dir(file), directoryMode); err != nil {
		return nil, fmt.Errorf("make the journal's folder: %w", err)
	}
	if options.Log == nil {
		options.Log = slog.New(slog.DiscardHandler)
	}
	b := &Bolt{
		file: file, options: options, log: options.Log,
		ops: make(chan *operation, maxBatch), stop: make(chan struct{}),
		cursors: map[string]Cursor{}, appended: make(chan struct{}),
	}
	if err := b.open(ctx); err != nil {
		return nil, err
	}
	b.latest.total = b.counters.Logged
	b.done.Go(b.commit)
	return b, nil
}

// open examines the files, opens them, and brings what only the log has into journal.db. Where another process had the
// file in between it begins again.
func (b *Bolt) open(ctx context.Context) error {
	for {
		seen, err := examine(ctx, b.file, b.options.Wait) // before bbolt, which trusts its pages
		if err != nil {
			return err
		}
		if b.db, b.dbFile, err = lock(ctx, b.file, b.options.Wait); err != nil {
			return err
		}
		read, err := b.load()
		if err == nil && seen.transaction != 0 && b.lastTransaction() != seen.transaction {
			if err := b.db.Close(); err != nil {
				return fmt.Errorf("close the journal %s to examine it again: %w", b.file, err)
			}
			continue
		}
		if b.counters = read; err == nil {
			err = b.recover(seen.contents)
		}
		if err != nil {
			return errors.Join(err, b.db.Close())
		}
		return nil
	}
}

// lastTransaction is the number of the last one that changed the file.
func (b *Bolt) lastTransaction() (number uint64) {
	_ = b.db.View(func(tx *bbolt.Tx) error { // which was opened just now
		number = uint64(tx.ID())
		return nil
	})
	return number
}

// lock opens the file, and waits while another process has it.
func lock(ctx context.Context, file string, wait time.Duration) (db *bbolt.DB, opened *os.File, err error) {
	for start := time.Now(); ; {
		db, opened, err = openDB(file)
		switch {
		case err == nil:
			return db, opened, nil
		case !errors.Is(err, bolterrors.ErrTimeout):
			return nil, nil, fmt.Errorf("open the journal %s: %w", file, err)
		case wait >= 0 && time.Since(start) >= wait:
			return nil, nil, lockedError(file, wait)
		case ctx.Err() != nil:
			return nil, nil, fmt.Errorf("open the journal %s, which another process has open: %w", file, ctx.Err())
		}
	}
}

// load reads the counters, and what else the committing goroutine needs to know.
func (b *Bolt) load() (read counters, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &DamagedError{File: b.file, Err: fmt.Errorf("%v", r)}
		}
	}()
	b.cursors, b.repeats = map[string]Cursor{}, repeats{byKey: map[RepeatKey]repeat{}}
	err = b.db.View(func(tx *bbolt.Tx) error {
		if first, _ := tx.Cursor().First(); first == nil {
			return nil // a new one
		}
		var data []byte
		if meta := tx.Bucket([]byte(bucketMeta)); meta != nil {
			data = meta.Get([]byte(keyCounters))
		}
		if err := unseal([]byte(keyCounters), data, &read); err != nil {
			return &DamagedError{File: b.file, Err: fmt.Errorf("read its counters: %w", err)}
		}
		if read.Format > formatVersion {
			return fmt.Errorf("the journal %s was written by a later version of pbxhook (format %d, known is %d): run that version", b.file, read.Format, formatVersion)
		}
		if repeats := tx.Bucket([]byte(bucketRepeats)); repeats != nil {
			if err := b.repeats.load(repeats); err != nil {
				return err
			}
		}
		cursors := tx.Bucket([]byte(bucketCursors))
		if cursors == nil {
			return nil
		}
		return cursors.ForEach(func(name, data []byte) error {
			var c Cursor
			if err := unseal(name, data, &c); err != nil {
				return &DamagedError{File: b.file, Err: fmt.Errorf("read the cursor of target %s: %w", name, err)}
			}
			b.cursors[string(name)] = c
			return nil
		})
	})
	read.Format = formatVersion
	return read, err
}

func putCounters(tx *bbolt.Tx, c *counters) error {
	data, err := seal([]byte(keyCounters), c)
	if err != nil {
		return err
	}
	return tx.Bucket([]byte(bucketMeta)).Put([]byte(keyCounters), data)
}

// commit is the committing goroutine.
func (b *Bolt) commit() {
	tick := time.NewTicker(housekeeping)
	defer tick.Stop()
	timer := time.NewTimer(checkpointAfter)
	defer timer.Stop()
	for timed, due := true, false; ; {
		select {
		case op := <-b.ops:
			b.write(b.gather(op))
		case <-b.checkpointing.ended():
			b.await()
		case <-timer.C:
			timed, due = false, true
		case <-tick.C:
			b.write([]*operation{housekeep()})
			b.retryLog()
		case <-b.stop:
			b.writeRest()
			return
		}
		due = b.checkpointBeside(due)
		if !timed && (len(b.pending) > 0 || b.failed) {
			timed = true
			timer.Reset(checkpointAfter)
		}
	}
}

// writeRest answers all that got in before the end.
func (b *Bolt) writeRest() {
	for {
		select {
		case op := <-b.ops:
			b.write(b.gather(op))
		default:
			b.checkpoint()
			return
		}
	}
}

// gather takes what else waits. It waits for nothing, but lets those go first who are about to hand something in: when
// there is much to do, one write to the disk keeps two or three times as much.
func (b *Bolt) gather(first *operation) []*operation {
	batch, size := []*operation{first}, first.size
	for before := 0; len(batch) < maxBatch && size < maxBatchBytes; {
		select {
		case op := <-b.ops:
			batch, size = append(batch, op), size+op.size
		default:
			if len(batch) == before {
				return batch
			}
			before = len(batch)
			runtime.Gosched()
		}
	}
	return batch
}

// write keeps the events of a batch, and answers them: by the write-ahead log, as long as nothing speaks against it. All
// else waits for a transaction.
func (b *Bolt) write(batch []*operation) {
	rest, ok := b.writeLog(batch)
	b.waiting = append(b.waiting, rest...)
	if !ok || slices.ContainsFunc(rest, func(op *operation) bool { return op.alone }) {
		b.checkpoint()
	}
}

// removedFrom are the targets that are no more, by name.
func removedFrom(cursors map[string]Cursor, last uint64) []Removed {
	var all []Removed
	for name, c := range cursors {
		if !c.RemovedAt.IsZero() {
			all = append(all, Removed{Name: name, Until: c.RemovedAt.Add(removedCursors), Pending: int64(last-min(c.Floor, last)) - c.Done.Len()})
		}
	}
	slices.SortFunc(all, func(a, b Removed) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// evictedFrom returns how many dead letters of each target were evicted.
func evictedFrom(cursors map[string]Cursor) map[string]int64 {
	all := make(map[string]int64, len(cursors))
	for name, c := range cursors {
		all[name] = c.Evicted
	}
	return all
}

// freeSpace says when the disk is all but full, before it is. Only new events are refused then:
// cursors are still written, into the room that trimmed events leave in the file.
func (b *Bolt) freeSpace() error {
	var stat unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(b.file), &stat); err != nil {
		return fmt.Errorf("ask for the free space of the journal's disk: %w", err)
	}
	if free := stat.Bavail * uint64(stat.Bsize); free < minFreeBytes {
		return fmt.Errorf("%w: %d MiB are free, %d are needed", ErrNoSpace, free>>20, minFreeBytes>>20)
	}
	return nil
}

func (b *Bolt) snapshot() counters {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.counters
}

func keyOf(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

func seqOf(key []byte) uint64 {
	if len(key) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(key)
}
