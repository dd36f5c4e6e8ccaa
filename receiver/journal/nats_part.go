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
	crowdedPause = time.Second
	roomAge      = 10 * time.Second // the same, when room is needed
	glanceTime   = time.Second      // for what people and Prometheus ask
	partTimeout  = natsTimeout
	replayPrefix = "replay."
)

// natsPart is a partition that this receiver owns.
type natsPart struct {
	n      *NATS
	index  int
	lease  *lease
	wished chan struct{} // has something when there is a replay request
	// taken are the revisions of the replay requests that were taken, by key; of the goroutine of ReplayRequests.
	taken map[string]uint64

	mu      sync.Mutex
	views   map[string]*natsView
	removed []Removed // targets that are no more, as seen when it was trimmed last
}

// natsView is a partition as the dispatcher of one target reads it.
type natsView struct {
	*natsPart
	target string

	// of natsPart.mu
	appended chan struct{}
	known    uint64 // the highest sequence number that was told of
	readTo   uint64
	unread   int64      // after readTo, when that was read
	fresh    int64      // that were told of since
	revision uint64     // 0: it was not opened yet
	cursor   Cursor     // as it was opened or written last
	epoch    string     // of the stream, when it was opened
	marks    marks      // events that were read of the stream; none that was has a higher number than the newest
	read     time.Time  // when it was read last
	saving   sync.Mutex // one write of the cursor at a time; it is taken before natsPart.mu
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
	if v.crowded() {
		time.AfterFunc(crowdedPause, func() { v.wake(0) })
		return nil, nil
	}
	all, left, err := v.next(ctx, after, limit)
	if ctx.Err() == nil {
		v.n.met(reading, err)
	}
	if err != nil {
		return nil, err
	}
	v.n.mu.Lock()
	cached := v.n.cache
	v.n.mu.Unlock()
	entries := make([]Entry, 0, len(all))
	last := after
	for _, m := range all {
		r, err := v.n.record(m)
		if err != nil {
			return nil, err
		}
		cached.add(&r)
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

// crowded reports whether the cursor has become so long that it could not be written if much more was read: that is when
// events far apart are done. It waits for those before them.
func (v *natsView) crowded() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.target != Glance && v.cursor.length() > (v.n.conn().MaxPayload()-payloadReserve)/2
}

// length returns about how many bytes a cursor takes, rather more.
func (c *Cursor) length() int64 {
	const ofRange, ofAttempts = 56, 28
	ranges := len(c.Done)
	for i := range c.Replays {
		ranges += len(c.Replays[i].Seqs)
	}
	return int64(ranges*ofRange + len(c.Attempts)*ofAttempts)
}

// next reads the partition's messages after a number, and what was read last once more, where that was a while ago: the
// stream may have gone back, and have other events under the numbers of those that were read.
func (v *natsView) next(ctx context.Context, after uint64, limit int) (all []message, left int64, err error) {
	v.mu.Lock()
	last, from := v.marks.newest(), after+1
	if last.Seq == after && !last.Time.IsZero() && time.Since(v.read) > steadyTime {
		from--
	}
	v.mu.Unlock()
	asked := time.Now()
	all, left, err = v.n.batch(ctx, v.n.name(), v.n.partSubject(v.index), from, limit+int(after+1-from))
	if err != nil {
		return nil, 0, err
	}
	if len(all) > 0 && all[0].seq == after {
		if !all[0].time().Equal(last.Time) {
			v.n.noteGoneBack()
			return nil, 0, fmt.Errorf("%w: event %d is not the one that was read", ErrUnavailable, after)
		}
		all = all[1:]
	}
	if v.target == Glance {
		return all, left, nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.read = asked
	if len(all) > 0 {
		v.marks = v.marks.with(mark{Seq: all[len(all)-1].seq, Time: all[len(all)-1].time()})
	}
	return all, left, nil
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
	Owner  string    `json:"owner"`
	Cursor Cursor    `json:"cursor"`
	Stream time.Time `json:"stream,omitzero"` // by earlier versions: when the stream that it counts in was made
	Epoch  string    `json:"epoch,omitempty"` // of the stream, when it was written
	Marks  marks     `json:"marks,omitempty"` // events that the stream had then: it says nothing of later ones
}

func cursorKey(part int, target string) string {
	return "cursor." + strconv.Itoa(part) + "." + target
}

// OpenCursor implements Part. It makes the cursor this receiver's: what a former owner writes is refused from
// then on.
func (v *natsView) OpenCursor(target string) (Cursor, error) {
	c, err := v.openCursor(target)
	if v.lease.attempts.Err() == nil { // else it is another receiver's to open
		v.n.met(opening, err)
	}
	return c, err
}

func (v *natsView) openCursor(target string) (Cursor, error) {
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
		v.revision, v.cursor, v.epoch, v.marks = revision, opened.Cursor, opened.Epoch, opened.Marks
		return opened.Cursor, nil
	}
}

func (v *natsView) takeCursor(ctx context.Context, target string) (f owned, revision uint64, err error) {
	key := cursorKey(v.index, target)
	revision, err = v.n.read(ctx, key, &f)
	if damage := (*DamagedError)(nil); err == nil || errors.As(err, &damage) {
		v.n.noteDamaged(key, err)
	}
	if err != nil {
		return f, 0, err
	}
	info, err := v.n.info(ctx, v.n.name())
	if err == nil {
		err = v.n.same(info)
	}
	if err != nil {
		return f, 0, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if revision == 0 {
		f = v.n.beginning(target, info)
	} else if f, err = v.n.resume(ctx, target, f, info); err != nil {
		return f, 0, fmt.Errorf("open the cursor of target %s: %w", target, err)
	}
	most := f.skipDeleted(info.State.FirstSeq)
	f.Owner = v.lease.token
	if revision, err = v.n.write(ctx, key, f, revision); err == nil {
		v.n.noteVanished(target, 0, most)
	}
	return f, revision, err
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
	err := v.save(target, p)
	v.n.met(saving, err)
	return err
}

func (v *natsView) save(target string, p Progress) error {
	ctx, cancel := context.WithTimeout(context.Background(), partTimeout)
	defer cancel()
	if err := v.n.bury(ctx, target, p.Dead); err != nil {
		return err
	}
	if err := v.saveCursor(ctx, target, p.Cursor); err != nil {
		return err
	}
	if err := v.n.DropDeadLetters(target, p.Revived); err != nil {
		return err
	}
	v.n.noteVanished(target, p.Lost, 0)
	v.log(target, p.Attempts)
	return nil
}

func (v *natsView) saveCursor(ctx context.Context, target string, c Cursor) error {
	v.saving.Lock()
	defer v.saving.Unlock()
	return v.writeCursor(ctx, target, c)
}

// writeCursor is saveCursor; v.saving is held.
func (v *natsView) writeCursor(ctx context.Context, target string, c Cursor) error {
	v.mu.Lock()
	revision, epoch, seen := v.revision, v.epoch, v.marks
	c.RemovedAt = v.cursor.RemovedAt // it is not the dispatcher's to say
	v.mu.Unlock()
	if revision == 0 {
		return fmt.Errorf("write the cursor of target %s: it was not opened", target)
	}
	key, value := cursorKey(v.index, target), owned{Owner: v.lease.token, Cursor: c, Epoch: epoch, Marks: seen}
	next, err := v.n.write(ctx, key, value, revision)
	for outdated(err) { // by a write of ours whose answer was lost, or by another owner
		var f owned
		latest, readErr := v.n.read(ctx, key, &f)
		others := f.Owner != v.lease.token && f.Owner != "" // nobody's is one that was made after all were lost
		switch {
		case readErr != nil:
			return readErr
		case others && latest > revision:
			v.lease.lose()
			return fmt.Errorf("write the cursor of target %s: %w", target, ErrNotOwner)
		case !wait(ctx, lagPause): // what was read may lag behind
			if others {
				v.lease.lose() // the bucket was restored: it has the cursor of a former owner
			}
			return fmt.Errorf("write the cursor of target %s: %w", target, ctx.Err())
		case others:
			continue
		case latest > 0: // else it is gone, with its bucket
			c.RemovedAt = f.Cursor.RemovedAt
			value.Cursor = c
		}
		next, err = v.n.write(ctx, key, value, latest)
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
	for _, a := range attempts { // copies: the dispatcher may look at them meanwhile
		a.Target = target
		if _, err := v.n.js().PublishAsync(v.n.subject("log."+strconv.FormatUint(a.Seq, 10)), encodeAttempt(lineKey(a.Seq, 0), &a)); err != nil {
			return // it is for people alone
		}
	}
}

// Evicted implements Part: those that this receiver evicted. Those that became too old are deleted by the bucket.
func (p *natsPart) Evicted(target string) int64 {
	p.n.mu.Lock()
	defer p.n.mu.Unlock()
	return p.n.evicted[target]
}

// KeepCursors implements Part. The dispatcher of a target that has just been removed may write its cursor meanwhile.
func (v *natsView) KeepCursors(targets []string) error {
	ctx, cancel := context.WithTimeout(v.lease.attempts, partTimeout)
	defer cancel()
	for {
		err := v.markCursors(ctx, targets)
		if outdated(err) && wait(ctx, lagPause) {
			continue
		}
		return err
	}
}

// markCursors notes which cursors are of targets that are no more.
func (v *natsView) markCursors(ctx context.Context, targets []string) error {
	cursors, err := v.cursors(ctx)
	if err != nil {
		return err
	}
	for target, c := range cursors {
		kept := slices.Contains(targets, target)
		if kept == c.Cursor.RemovedAt.IsZero() {
			continue
		}
		c.Cursor.RemovedAt = time.Time{}
		if !kept {
			c.Cursor.RemovedAt = time.Now().UTC()
		}
		if _, err := v.n.write(ctx, cursorKey(v.index, target), c.owned, c.revision); err != nil {
			return fmt.Errorf("note the targets: %w", err)
		}
	}
	return nil
}

// found is a cursor as it was read.
type found struct {
	owned
	revision uint64
	stale    bool // it is of another epoch, and must not be relied on before its partition's owner has opened it
}

// cursors are those of the partition, by target.
func (p *natsPart) cursors(ctx context.Context) (map[string]found, error) {
	all := map[string]found{}
	err := p.n.eachCursor(ctx, "cursor."+strconv.Itoa(p.index)+".*", func(_ int, target string, f found) { all[target] = f })
	return all, err
}

// eachCursor calls do for each cursor whose key matches, but for damaged ones, which are in the status.
func (n *NATS) eachCursor(ctx context.Context, keys string, do func(part int, target string, f found)) error {
	if _, err := n.bucket(); err != nil {
		return err
	}
	n.mu.Lock()
	epoch := n.epoch
	n.mu.Unlock()
	return n.eachOwned(ctx, keys, func(v value, f owned, damaged error) {
		if n.noteDamaged(v.key, damaged); damaged != nil {
			return
		}
		if part, target, err := splitCursorKey(v.key); err == nil {
			do(part, target, found{f, v.revision, f.Epoch != epoch})
		}
	})
}

// noteDamaged takes in whether a cursor can be read.
func (n *NATS) noteDamaged(key string, damaged error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if damaged == nil {
		delete(n.damagedCursors, key)
		return
	}
	n.damagedCursors[key] = fmt.Sprintf("%v: its partition is not delivered until it is reset (pbxhook journal reset-cursor, or nats kv del %s %s), after which its target gets all that is stored in the partition again", damaged, n.name(), key)
}

// PartitionCursor names the cursor of a target in a partition.
type PartitionCursor struct {
	Target    string
	Partition int
}

// ResetDamagedCursors deletes the cursors of a target (empty: of all) that cannot be read, so that the owners of their
// partitions begin at the first stored event, and returns which these were. With dry it deletes none.
func (n *NATS) ResetDamagedCursors(ctx context.Context, target string, dry bool) ([]PartitionCursor, error) {
	if _, err := n.bucket(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, maxReadTime)
	defer cancel()
	var found []PartitionCursor
	err := n.eachOwned(ctx, "cursor.>", func(v value, _ owned, damaged error) {
		partition, of, err := splitCursorKey(v.key)
		if damaged != nil && err == nil && (target == "" || target == of) {
			found = append(found, PartitionCursor{of, partition})
		}
	})
	if err != nil || dry {
		return found, err
	}
	for _, c := range found {
		key := cursorKey(c.Partition, c.Target)
		if err := n.erase(ctx, n.name(), key); err != nil {
			return found, err
		}
		n.noteDamaged(key, nil)
	}
	return found, nil
}

// anyDamaged reports whether a cursor of the partition cannot be read.
func (p *natsPart) anyDamaged() bool {
	p.n.mu.Lock()
	defer p.n.mu.Unlock()
	for key := range p.n.damagedCursors {
		if part, _, err := splitCursorKey(key); err == nil && part == p.index {
			return true
		}
	}
	return false
}

// eachOwned calls do for each cursor whose key matches, as it is written, or with the reason why it cannot be read.
func (n *NATS) eachOwned(ctx context.Context, keys string, do func(v value, f owned, damaged error)) error {
	return n.eachValue(ctx, n.name(), keys, func(v value) error {
		var f owned
		err := unseal([]byte(v.key), v.data, &f)
		if err != nil {
			err = &DamagedError{File: n.name(), Err: fmt.Errorf("%s: %w", v.key, err)}
		}
		do(v, f, err)
		return nil
	})
}

func splitCursorKey(key string) (part int, target string, err error) {
	_, err = fmt.Sscanf(key, "cursor.%d.%s", &part, &target)
	return part, target, err
}

// noteRemoved takes the cursors of targets that are no more for a long time out of those given, and forgets them,
// and notes the other ones of that kind.
func (p *natsPart) noteRemoved(ctx context.Context, cursors map[string]found) error {
	var removed []Removed
	for target, c := range cursors {
		if c.Cursor.RemovedAt.IsZero() {
			continue
		}
		if until := c.Cursor.RemovedAt.Add(removedCursors); time.Now().Before(until) {
			pending, err := p.n.after(ctx, p.index, c.Cursor.Floor)
			if err != nil {
				return err
			}
			removed = append(removed, Removed{Name: target, Until: until, Pending: pending})
			continue
		}
		kv, err := p.n.bucket()
		if err == nil {
			err = kv.Purge(ctx, cursorKey(p.index, target), jetstream.LastRevision(c.revision))
		}
		if err != nil {
			return fmt.Errorf("forget target %s: %w", target, plainJetStream(err))
		}
		delete(cursors, target)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.removed = removed
	return nil
}

// Trim drops events of the partition that all targets are done with, when they are older than the retention or
// the stream is nearly full. It is the owner's to do.
func (p *natsPart) Trim(ctx context.Context) error {
	cursors, err := p.cursors(ctx)
	if err != nil {
		return err
	}
	if p.anyDamaged() {
		return nil // what its target has is not known
	}
	if p.lacks(cursors) {
		if err := p.restoreCursors(); err != nil {
			return err
		}
	}
	if err := p.noteRemoved(ctx, cursors); err != nil {
		return err
	}
	if p.index == 0 { // one of them does it for all
		if err := p.n.forgetTargets(ctx); err != nil {
			return err
		}
		if err := p.n.exhume(ctx); err != nil {
			return err
		}
	}
	if err := p.noteBacklog(ctx, cursors); err != nil {
		return err
	}
	if len(cursors) == 0 {
		return nil // the targets are not known yet
	}
	floor := ^uint64(0)
	for _, c := range cursors {
		if c.stale {
			return nil // it is opened soon, or was removed and is dropped
		}
		floor = min(floor, c.Cursor.Floor)
		for _, replay := range c.Cursor.Replays {
			for seq := range replay.Seqs.All() {
				floor = min(floor, seq-1)
				break // the first is the lowest
			}
		}
	}
	state := p.n.State()
	surplus := (state.Bytes - int64(trimAbove*float64(state.MaxBytes))) / Partitions
	oldest := time.Now().Add(-p.n.options.Retention)
	young := time.Now().Add(-trimAge)
	if surplus > 0 {
		young = time.Now().Add(-roomAge)
	}
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
