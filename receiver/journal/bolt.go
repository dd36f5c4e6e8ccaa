package journal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
)

// Limits that DESIGN fixes.
const (
	minFreeBytes    = 64 << 20 // under which nothing is written to the disk
	maxBatch        = 1024     // requests that share one transaction
	maxBatchBytes   = 16 << 20
	manyRequests    = 8 // in a commit, from which on commits are kept apart
	commitInterval  = 3 * time.Millisecond
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
	formatVersion   = 1
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
}

// Bolt is the embedded journal: a bbolt file that one process has open, told by the file's lock. One
// goroutine commits: it takes all requests that wait, writes them in one transaction, and answers
// them when that is on the disk (fdatasync). A lone request does not wait for company.
type Bolt struct {
	file    string
	db      *bbolt.DB
	options Options
	ops     chan *operation
	stop    chan struct{}
	senders sync.WaitGroup // operations on their way into ops
	done    sync.WaitGroup // the committing goroutine
	recent  recent
	latest  latest

	// Of the committing goroutine alone.
	repeats repeats
	cursors map[string]Cursor

	mu       sync.Mutex
	counters counters
	removed  []Removed
	rejected rejections // not yet in counters
	appended chan struct{}
	closed   bool
}

// counters live in the journal itself and change with it.
type counters struct {
	Format           int       `json:"format"`
	Received         int64     `json:"received"`
	Unparsed         int64     `json:"unparsed"`
	OtherVersion     int64     `json:"otherVersion,omitempty"`
	LastOtherVersion string    `json:"lastOtherVersion,omitempty"`
	Rejected         int64     `json:"rejected"`
	LastRejected     Rejection `json:"lastRejected,omitzero"`
	Repeated         int64     `json:"repeated"`
	Events           int64     `json:"events"`
	Bytes            int64     `json:"bytes"`
	LastSeq          uint64    `json:"lastSeq"`
	LastReceived     time.Time `json:"lastReceived,omitzero"`
	Cursors          int64     `json:"cursors"` // that there are, so that a lost one is missed
	Dead             int64     `json:"dead"`    // dead letters that there are
	Dropped          int64     `json:"dropped,omitempty"`
	Logged           int64     `json:"logged,omitempty"`   // attempts ever written to the delivery log
	LogBytes         int64     `json:"logBytes,omitempty"` // that the delivery log has now
}

// rejections are requests that were refused: how many, and the last one.
type rejections struct {
	count int64
	last  Rejection
}

// add counts rejections in, the later ones being next.
func (c *counters) add(next rejections) {
	c.Rejected += next.count
	if next.count > 0 {
		c.LastRejected = next.last
	}
}

// operation is something that waits for a transaction. apply may fail alone by setting err; an
// error that it returns fails the whole transaction.
type operation struct {
	apply func(t *transaction) error
	size  int
	err   error
	done  chan struct{}
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
	if err := examine(ctx, file, options.Wait); err != nil { // before bbolt, which trusts its pages
		return nil, err
	}
	db, err := lock(ctx, file, options.Wait)
	if err != nil {
		return nil, err
	}
	b := &Bolt{
		file: file, db: db, options: options,
		ops: make(chan *operation, maxBatch), stop: make(chan struct{}),
		cursors: map[string]Cursor{}, appended: make(chan struct{}),
	}
	if err := b.load(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	b.latest.total = b.counters.Logged
	b.done.Go(b.commit)
	return b, nil
}

// lock opens the file, and waits while another process has it.
func lock(ctx context.Context, file string, wait time.Duration) (db *bbolt.DB, err error) {
	defer func() {
		if r := recover(); r != nil { // bbolt panics on some damaged files
			err = &DamagedError{File: file, Err: fmt.Errorf("%v", r)}
		}
	}()
	for start := time.Now(); ; {
		// the list of free pages is made here, and not written with every transaction: it may be long
		db, err = bbolt.Open(file, fileMode, &bbolt.Options{Timeout: lockPoll, FreelistType: bbolt.FreelistMapType, NoFreelistSync: true})
		switch {
		case err == nil:
			return db, nil
		case !errors.Is(err, bolterrors.ErrTimeout):
			return nil, fmt.Errorf("open the journal %s: %w", file, err)
		case wait >= 0 && time.Since(start) >= wait:
			return nil, lockedError(file, wait)
		case ctx.Err() != nil:
			return nil, fmt.Errorf("open the journal %s, which another process has open: %w", file, ctx.Err())
		}
	}
}

// load reads what the committing goroutine needs to know. That the file is whole was seen before.
func (b *Bolt) load() (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &DamagedError{File: b.file, Err: fmt.Errorf("%v", r)}
		}
	}()
	return b.db.Update(func(tx *bbolt.Tx) error {
		for _, name := range []string{bucketEvents, bucketCursors, bucketDead, bucketRepeats, bucketLog, bucketMeta} {
			if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
				return fmt.Errorf("make the journal's %s: %w", name, err)
			}
		}
		if data := tx.Bucket([]byte(bucketMeta)).Get([]byte(keyCounters)); data != nil {
			if err := unseal([]byte(keyCounters), data, &b.counters); err != nil {
				return &DamagedError{File: b.file, Err: fmt.Errorf("read its counters: %w", err)}
			}
		}
		if b.counters.Format > formatVersion {
			return fmt.Errorf("the journal %s was written by a later version of pbxhook (format %d, known is %d): run that version", b.file, b.counters.Format, formatVersion)
		}
		b.counters.Format = formatVersion
		if err := putCounters(tx, &b.counters); err != nil {
			return err
		}
		if err := tx.Bucket([]byte(bucketCursors)).ForEach(func(name, data []byte) error {
			var c Cursor
			if err := unseal(name, data, &c); err != nil {
				return &DamagedError{File: b.file, Err: fmt.Errorf("read the cursor of target %s: %w", name, err)}
			}
			b.cursors[string(name)] = c
			return nil
		}); err != nil {
			return err
		}
		return b.repeats.load(tx.Bucket([]byte(bucketRepeats)))
	})
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
	for {
		var batch []*operation
		select {
		case op := <-b.ops:
			batch = b.gather(op)
		case <-tick.C:
		case <-b.stop:
			for { // answer all that got in before the end
				select {
				case op := <-b.ops:
					b.write(b.gather(op))
				default:
					return
				}
			}
		}
		b.write(batch)
	}
}

// gather takes what else waits, and waits for nothing.
func (b *Bolt) gather(first *operation) []*operation {
	batch, size := []*operation{first}, first.size
	for len(batch) < maxBatch && size < maxBatchBytes {
		select {
		case op := <-b.ops:
			batch, size = append(batch, op), size+op.size
		default:
			return batch
		}
	}
	return batch
}

// write commits a batch in one transaction and answers it. An empty batch is housekeeping.
func (b *Bolt) write(batch []*operation) {
	before := b.snapshot()
	next := before
	rejected := b.takeRejected()
	next.add(rejected)
	b.repeats.begin()
	changes, err := b.update(&next, batch)
	b.repeats.end(err == nil)
	b.mu.Lock()
	if err == nil {
		b.counters, b.removed = next, removedFrom(b.cursors, next.LastSeq)
	} else {
		b.putBack(rejected)
	}
	if err == nil { // before anybody is told that they are there
		b.recent.add(changes.added)
		b.recent.drop(changes.gone)
		b.latest.add(changes.logged, next.Logged)
	}
	if next.LastSeq > before.LastSeq && err == nil {
		close(b.appended)
		b.appended = make(chan struct{})
	}
	b.mu.Unlock()
	for _, op := range batch {
		if err != nil {
			op.err = err
		}
		close(op.done)
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

// update does what a batch wants in one transaction.
func (b *Bolt) update(next *counters, batch []*operation) (work *transaction, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &DamagedError{File: b.file, Err: fmt.Errorf("%v", r)}
		}
	}()
	cursors := maps.Clone(b.cursors) // to go back to when the transaction fails
	err = b.db.Update(func(tx *bbolt.Tx) error {
		work = &transaction{Tx: tx, journal: b, counters: next, now: b.options.Now(), noSpace: b.freeSpace()}
		if err := work.trim(len(batch) == 0); err != nil {
			return err
		}
		for _, op := range batch {
			op.err = nil
			if err := op.apply(work); err != nil {
				return err
			}
		}
		next.Cursors = int64(len(b.cursors))
		return putCounters(tx, next)
	})
	if err != nil {
		b.cursors = cursors
		return nil, fmt.Errorf("write the journal %s: %w", b.file, err)
	}
	return work, nil
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

func (b *Bolt) takeRejected() rejections {
	b.mu.Lock()
	defer b.mu.Unlock()
	taken := b.rejected
	b.rejected = rejections{}
	return taken
}

// putBack counts what was taken and could not be written; b.mu is held.
func (b *Bolt) putBack(taken rejections) {
	if b.rejected.count == 0 {
		b.rejected.last = taken.last
	}
	b.rejected.count += taken.count
}

func keyOf(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

func seqOf(key []byte) uint64 {
	if len(key) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(key)
}
