package journal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	lagPause     = 20 * time.Millisecond // after which a server that lagged behind is asked again
	trimPause    = 10 * time.Second
	trimBatch    = 1000
	trimAge      = time.Minute // under which nothing is dropped: what was read of cursors may be a moment old
	glanceTime   = time.Second // for what people and Prometheus ask
	partTimeout  = natsTimeout
	replayPrefix = "replay."
)

// natsPart is a partition that this receiver owns.
type natsPart struct {
	n     *NATS
	index int
	lease *lease

	mu    sync.Mutex
	views map[string]*natsView
}

// natsView is a partition as the dispatcher of one target reads it.
type natsView struct {
	*natsPart
	target string

	// of natsPart.mu
	appended chan struct{}
	known    uint64 // the highest sequence number that was told of
	readTo   uint64
	unread   int64  // after readTo, when that was read
	fresh    int64  // that were told of since
	revision uint64 // 0: it was not opened yet
	cursor   Cursor // as it was opened or written last
}

var _ Part = (*natsView)(nil)

// Glance is for whom a part is read that is nobody's dispatcher: it does not wait for long.
const Glance = ""

// For implements Part.
func (p *natsPart) For(target string) Part {
	p.mu.Lock()
	defer p.mu.Unlock()
	v, ok := p.views[target]
	if !ok {
		v = &natsView{natsPart: p, target: target, appended: make(chan struct{})}
		p.views[target] = v
	}
	return v
}

// wake tells the readers that an event is there (0: that there may be).
func (p *natsPart) wake(seq uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, v := range p.views {
		v.wakeOne(seq)
	}
}

// wakeOne is that for one; p.mu is held.
func (v *natsView) wakeOne(seq uint64) {
	v.known = max(v.known, seq)
	if seq > v.readTo {
		v.fresh++
	}
	close(v.appended)
	v.appended = make(chan struct{})
}

// Appended implements Part.
func (v *natsView) Appended() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.appended
}

// Entries implements Part.
func (v *natsView) Entries(after uint64, limit int) ([]Entry, error) {
	if _, err := v.n.bucket(); err != nil {
		return nil, err
	}
	ctx := v.lease.attempts
	if v.target == Glance {
		short, cancel := context.WithTimeout(ctx, glanceTime)
		defer cancel()
		ctx = short
	}
	all, left, err := v.n.batch(ctx, v.n.name(), v.n.partSubject(v.index), after+1, limit)
	if err != nil {
		return nil, err
	}
	entries := make([]Entry, 0, len(all))
	last := after
	for _, m := range all {
		r, err := v.n.record(m)
		if err != nil {
			return nil, err
		}
		v.n.cache.add(&r)
		entries = append(entries, Entry{Seq: r.Seq, Lane: r.Lane})
		last = r.Seq
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.readTo, v.unread, v.fresh = last, left, 0
	if last < v.known && len(all) < limit && left == 0 { // the server that answered lags behind, or it was trimmed
		known := v.known
		v.known = last
		time.AfterFunc(lagPause, func() { v.wake(known) })
	}
	return entries, nil
}

// Unread implements Part.
func (v *natsView) Unread(uint64) int64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.unread + v.fresh
}

// Get implements Part.
func (p *natsPart) Get(seq uint64) (Record, error) { return p.n.Get(seq) }

// DeadLetters implements Part.
func (p *natsPart) DeadLetters(target string, after uint64, limit int) ([]DeadLetter, error) {
	return p.n.DeadLetters(target, after, limit)
}

// owned is a cursor with who wrote it: the revision of whom another receiver has taken over is never written over.
type owned struct {
	Owner  string `json:"owner"`
	Cursor Cursor `json:"cursor"`
}

func cursorKey(part int, target string) string {
	return "cursor." + strconv.Itoa(part) + "." + target
}

// OpenCursor implements Part. It makes the cursor this receiver's: what a former owner writes is refused from
// then on.
func (v *natsView) OpenCursor(target string) (Cursor, error) {
	v.mu.Lock()
	known, cursor := v.revision != 0, v.cursor
	v.mu.Unlock()
	if known {
		return cursor, nil
	}
	ctx, cancel := context.WithTimeout(v.lease.attempts, partTimeout)
	defer cancel()
	for {
		opened, revision, err := v.takeCursor(ctx, target)
		if outdated(err) && wait(ctx, lagPause) { // what was read lagged behind
			continue
		}
		if err != nil {
			return Cursor{}, err
		}
		v.mu.Lock()
		defer v.mu.Unlock()
		v.revision, v.cursor = revision, opened
		return opened, nil
	}
}

func (v *natsView) takeCursor(ctx context.Context, target string) (Cursor, uint64, error) {
	var f owned
	key := cursorKey(v.index, target)
	revision, err := v.n.read(ctx, key, &f)
	if err != nil {
		return Cursor{}, 0, err
	}
	if revision == 0 {
		info, err := v.n.stream.Info(ctx)
		if err != nil {
			return Cursor{}, 0, fmt.Errorf("%w: %w", ErrUnavailable, plainJetStream(err))
		}
		f.Cursor.Floor = info.State.LastSeq
	}
	f.Owner = v.lease.token
	revision, err = v.n.write(ctx, key, f, revision)
	return f.Cursor, revision, err
}

// wait waits, and says whether it was not called off.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return ctx.Err() == nil
	}
}

// Save implements Part: dead letters first, so that none is missing when its event is done.
func (v *natsView) Save(target string, p Progress) error {
	ctx, cancel := context.WithTimeout(context.Background(), partTimeout)
	defer cancel()
	kv, err := v.n.bucket()
	if err != nil {
		return err
	}
	for i := range p.Dead {
		data, err := encodeLetter(target, &p.Dead[i])
		if err != nil {
			return fmt.Errorf("keep a dead letter of target %s: %w", target, err)
		}
		if _, err := kv.Put(ctx, deadKey(target, p.Dead[i].Record.Seq), data); err != nil {
			return fmt.Errorf("keep a dead letter of target %s: %w", target, plainJetStream(err))
		}
	}
	if err := v.saveCursor(ctx, target, p.Cursor); err != nil {
		return err
	}
	if err := v.n.DropDeadLetters(target, p.Revived); err != nil {
		return err
	}
	v.log(target, p.Attempts)
	return nil
}

func (v *natsView) saveCursor(ctx context.Context, target string, c Cursor) error {
	v.mu.Lock()
	revision := v.revision
	v.mu.Unlock()
	if revision == 0 {
		return fmt.Errorf("write the cursor of target %s: it was not opened", target)
	}
	key, value := cursorKey(v.index, target), owned{Owner: v.lease.token, Cursor: c}
	next, err := v.n.write(ctx, key, value, revision)
	for outdated(err) { // by a write of ours whose answer was lost, or by another owner
		var f owned
		latest, readErr := v.n.read(ctx, key, &f)
		switch {
		case readErr != nil:
			return readErr
		case latest <= revision: // what was read lags behind
			if !wait(ctx, lagPause) {
				return fmt.Errorf("write the cursor of target %s: %w", target, ctx.Err())
			}
		case f.Owner != v.lease.token:
			v.lease.lose()
			return fmt.Errorf("write the cursor of target %s: %w", target, ErrNotOwner)
		default:
			revision = latest
			next, err = v.n.write(ctx, key, value, latest)
		}
	}
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.revision, v.cursor = next, c
	return nil
}

// log writes attempts into the delivery log, and does not wait for it.
func (v *natsView) log(target string, attempts []Attempt) {
	for i := range attempts {
		a := &attempts[i]
		a.Target = target
		if _, err := v.n.js.PublishAsync(v.n.subject("log."+strconv.FormatUint(a.Seq, 10)), encodeAttempt(lineKey(a.Seq, 0), a)); err != nil {
			return // it is for people alone
		}
	}
}

// KeepCursors implements Part.
func (v *natsView) KeepCursors(targets []string) error {
	kv, err := v.n.bucket()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(v.lease.attempts, partTimeout)
	defer cancel()
	cursors, err := v.cursors(ctx)
	if err != nil {
		return err
	}
	for target, c := range cursors {
		key := cursorKey(v.index, target)
		switch kept := slices.Contains(targets, target); {
		case kept == c.Cursor.RemovedAt.IsZero():
			continue
		case !kept && time.Since(c.Cursor.RemovedAt) > removedCursors && !c.Cursor.RemovedAt.IsZero():
			err = kv.Purge(ctx, key)
		default:
			c.Cursor.RemovedAt = time.Time{}
			if !kept {
				c.Cursor.RemovedAt = time.Now().UTC()
			}
			_, err = v.n.write(ctx, key, c.owned, c.revision)
		}
		if err != nil {
			return fmt.Errorf("note the targets: %w", plainJetStream(err))
		}
	}
	return nil
}

// found is a cursor as it was read.
type found struct {
	owned
	revision uint64
}

// cursors are those of the partition, by target.
func (p *natsPart) cursors(ctx context.Context) (map[string]found, error) {
	all := map[string]found{}
	err := p.n.eachCursor(ctx, "cursor."+strconv.Itoa(p.index)+".*", func(_ int, target string, f found) { all[target] = f })
	return all, err
}

// eachCursor calls do for each cursor whose key matches.
func (n *NATS) eachCursor(ctx context.Context, keys string, do func(part int, target string, f found)) error {
	kv, err := n.bucket()
	if err != nil {
		return err
	}
	return eachValue(ctx, kv, keys, func(entry jetstream.KeyValueEntry) error {
		f := found{revision: entry.Revision()}
		if err := unseal([]byte(entry.Key()), entry.Value(), &f.owned); err != nil {
			return &DamagedError{File: n.name(), Err: fmt.Errorf("%s: %w", entry.Key(), err)}
		}
		if part, target, err := splitCursorKey(entry.Key()); err == nil {
			do(part, target, f)
		}
		return nil
	})
}

func splitCursorKey(key string) (part int, target string, err error) {
	_, err = fmt.Sscanf(key, "cursor.%d.%s", &part, &target)
	return part, target, err
}

// Trim drops events of the partition that all targets are done with, when they are older than the retention or
// the stream is nearly full. It is the owner's to do.
func (p *natsPart) Trim(ctx context.Context) error {
	cursors, err := p.cursors(ctx)
	if err != nil || len(cursors) == 0 {
		return err // without any the targets are not known yet
	}
	floor := ^uint64(0)
	for _, c := range cursors {
		floor = min(floor, c.Cursor.Floor)
		for _, replay := range c.Cursor.Replays {
			for seq := range replay.Seqs.All() {
				floor = min(floor, seq-1)
				break // the first is the lowest
			}
		}
	}
	state := p.n.State()
	young := time.Now().Add(-trimAge)
	surplus := (state.Bytes - int64(trimAbove*float64(state.MaxBytes))) / Partitions
	oldest := time.Now().Add(-p.n.options.Retention)
	purge, from := uint64(0), uint64(1)
	for {
		all, left, err := p.n.batch(ctx, p.n.name(), p.n.partSubject(p.index), from, trimBatch)
		if err != nil {
			return err
		}
		for _, m := range all {
			received := headOf(m.seq, m.data).ReceivedAt
			if m.seq > floor || received.After(young) || surplus <= 0 && received.After(oldest) {
				left = 0
				break
			}
			surplus -= int64(len(m.data))
			purge, from = m.seq, m.seq+1
		}
		if left == 0 || len(all) == 0 {
			break
		}
	}
	if purge == 0 {
		return nil
	}
	if err := p.n.stream.Purge(ctx, jetstream.WithPurgeSubject(p.n.partSubject(p.index)), jetstream.WithPurgeSequence(purge+1)); err != nil {
		return fmt.Errorf("drop delivered events: %w", plainJetStream(err))
	}
	return nil
}

// Wish is a replay that waits for the owner of a partition.
type Wish struct {
	Target string
	ID     string
	Seqs   Ranges
}

// Replay asks the owners of partitions, whichever receivers they are, to hand events to a target again, and
// returns how many these are.
func (n *NATS) Replay(ctx context.Context, w Wish) (int64, error) {
	kv, err := n.bucket()
	if err != nil {
		return 0, err
	}
	parts, taken := map[int]Ranges{}, int64(0)
	for seq := range w.Seqs.All() {
		r, err := n.replayed(ctx, w.Target, seq)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return 0, err
		}
		ranges := parts[partitionOf(&r)]
		ranges.Add(seq)
		parts[partitionOf(&r)] = ranges
		taken++
	}
	for part, seqs := range parts {
		key := replayPrefix + strconv.Itoa(part) + "." + w.Target + "." + w.ID
		data, err := seal([]byte(key), Wish{Target: w.Target, ID: w.ID, Seqs: seqs})
		if err != nil {
			return 0, fmt.Errorf("write the replay: %w", err)
		}
		if _, err := kv.Put(ctx, key, data); err != nil {
			return 0, fmt.Errorf("write the replay: %w", plainJetStream(err))
		}
	}
	return taken, nil
}

// replayed is an event that is to go out again; it may be left as a dead letter alone.
func (n *NATS) replayed(ctx context.Context, target string, seq uint64) (Record, error) {
	r, err := n.get(ctx, seq)
	if !errors.Is(err, ErrNotFound) {
		return r, err
	}
	letters, err := n.DeadLetters(target, seq-1, 1)
	if err != nil || len(letters) == 0 || letters[0].Record.Seq != seq {
		return Record{}, errors.Join(err, ErrNotFound)
	}
	return letters[0].Record, nil
}

// Wishes hands the partition's replays to take, as they are asked for, until ctx ends. What take refuses with an
// error is handed to it again.
func (p *natsPart) Wishes(ctx context.Context, take func(Wish) error) {
	for ctx.Err() == nil {
		kv, err := p.n.bucket()
		if err == nil {
			err = p.watchWishes(ctx, kv, take)
		}
		if err != nil && ctx.Err() == nil {
			p.n.options.Log.Warn("replays cannot be taken now", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(natsRetry):
		}
	}
}

func (p *natsPart) watchWishes(ctx context.Context, kv jetstream.KeyValue, take func(Wish) error) error {
	watcher, err := kv.Watch(ctx, replayPrefix+strconv.Itoa(p.index)+".>", jetstream.IgnoreDeletes())
	if err != nil {
		return plainJetStream(err)
	}
	defer func() { _ = watcher.Stop() }() // it ends with the context otherwise
	for {
		select {
		case entry, ok := <-watcher.Updates():
			if !ok {
				return nil
			}
			if entry == nil {
				continue // the first ones are all here
			}
			var w Wish
			if err := unseal([]byte(entry.Key()), entry.Value(), &w); err != nil {
				return fmt.Errorf("read a replay: %w", err)
			}
			if err := take(w); err != nil {
				return err
			}
			if err := kv.Purge(ctx, entry.Key()); err != nil {
				return plainJetStream(err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// Elsewhere is how a target fares in partitions of other receivers, as far as their cursors were written.
type Elsewhere struct {
	Pending      int64 // about
	Delivered    int64
	DeadLettered int64
	LastDelivery time.Time
}

// Elsewhere says how targets fare in the partitions that are not this receiver's.
func (n *NATS) Elsewhere(ctx context.Context, mine func(part int) bool) (map[string]Elsewhere, error) {
	type place struct {
		part   int
		target string
		floor  uint64
	}
	all, places := map[string]Elsewhere{}, []place{}
	if err := n.eachCursor(ctx, "cursor.>", func(part int, target string, f found) {
		if mine(part) {
			return
		}
		e := all[target]
		e.Delivered += f.Cursor.Delivered
		e.DeadLettered += f.Cursor.DeadLettered
		if f.Cursor.LastDelivery.After(e.LastDelivery) {
			e.LastDelivery = f.Cursor.LastDelivery
		}
		for _, replay := range f.Cursor.Replays {
			e.Pending += replay.Seqs.Len()
		}
		all[target] = e
		places = append(places, place{part, target, f.Cursor.Floor})
	}); err != nil {
		return nil, err
	}
	for _, p := range places {
		first, left, err := n.batch(ctx, n.name(), n.partSubject(p.part), p.floor+1, 1)
		if err != nil {
			return nil, err
		}
		e := all[p.target]
		e.Pending += int64(len(first)) + left
		all[p.target] = e
	}
	return all, nil
}

// Done says which of some events a target is done with, as far as its cursors were written.
func (n *NATS) Done(ctx context.Context, target string, heads []Head) ([]bool, error) {
	cursors := map[int]Cursor{}
	if err := n.eachCursor(ctx, "cursor.*."+target, func(part int, _ string, f found) { cursors[part] = f.Cursor }); err != nil {
		return nil, err
	}
	done := make([]bool, len(heads))
	for i, h := range heads {
		c, ok := cursors[partitionOf(&Record{ID: h.ID, Lane: h.Lane})]
		done[i] = ok && c.Has(h.Seq)
	}
	return done, nil
}
