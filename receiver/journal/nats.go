package journal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Partitions is how many parts the events of a shared journal have, by their lane: fixed for ever.
const Partitions = 16

const (
	natsTimeout    = 4 * time.Second // for an answer
	natsRetry      = 500 * time.Millisecond
	natsPoll       = time.Second // between two looks at the stream
	repeatWindow   = 10 * time.Minute
	payloadReserve = 64 << 10       // of the server's max_payload, for headers
	damageTime     = 24 * time.Hour // for which what was found is in the status
	oldestServer   = "2.11.0"       // that gives several messages for one request
	maxCached      = 2048
	maxCachedBytes = 2 << 20
)

// ErrUnavailable says that NATS cannot be used now. It heals by itself.
var ErrUnavailable = errors.New("the NATS journal is not available")

// ErrTooLarge says that an event is longer than the NATS servers take (max_payload).
var ErrTooLarge = errors.New("the event is longer than the NATS servers take")

// ErrNotOwner says that a partition belongs to another receiver by now.
var ErrNotOwner = errors.New("another receiver has this partition")

// NATS is a journal in a JetStream stream, which several receivers share. Events are published one by one, and
// kept when a quorum of the servers has them. They are read by sequence number, without consumers, so that a
// server that is lost takes no position with it; cursors, dead letters and leases are in key-value buckets.
//
// While NATS cannot be reached, events are refused, and soon at once; all goes on by itself when it is back. A stream that
// is gone, as after the loss of the servers' disks, is recreated, and one that has gone back, as after a restored backup,
// has another epoch.
type NATS struct {
	options NATSOptions
	link    atomic.Pointer[link] // nil where something lacks
	api     string               // prefix of JetStream's API
	id      string               // of this receiver
	sent    atomic.Uint64
	doubt   chan struct{} // has something when the stream was found to have gone back
	done    sync.WaitGroup
	cut     atomic.Bool           // by a test: it cannot connect
	dialled atomic.Pointer[error] // what the last attempt to reach a server came to; nil within: it was reached
	ctx     context.Context
	stop    context.CancelFunc

	mu             sync.Mutex
	kv             jetstream.KeyValue // nil until all is set up
	leases         jetstream.KeyValue
	letters        jetstream.KeyValue
	stream         jetstream.Stream
	created        time.Time            // the stream
	epoch          string               // of the stream
	epochs         []string             // that it had before
	first          uint64               // of the stream's events, as its leader said last
	vanished       map[string]*vanished // by target, not yet reported
	known          uint64               // the highest sequence number that the stream is known to have had
	wentBack       bool                 // the stream has another history than it had
	newest         mark                 // of the stream's events, when it was looked at last
	cache          *cache
	problem        error     // why it cannot be used
	heard          time.Time // when the stream's leader answered last; at first, when the journal was opened
	looked         time.Time // when the stream was looked at last, which is by way of its leader
	switched       time.Time // when another server was tried last
	probed         time.Time
	failing        map[task]*failing
	differences    map[string]string    // by stream: what is not as it must be
	missing        map[string]time.Time // by stream: since when it has too few copies
	elsewhere      bool                 // receivers with another configuration have set the stream up
	denied         error                // the last thing that the credentials may not do
	deniedAt       time.Time
	said           map[string]time.Time // log lines that repeat
	state          State
	damagedCursors map[string]string // by key: what is to be done
	damage         Rejection         // the last that all receivers know of
	counted        natsCounts        // not yet written
	byName         nameCounts        // of all receivers, as last read
	targets        []string          // that there are
	unnoted        []string          // targets whose cursors may not be there yet: until then no event is taken
	notified       uint64            // the highest sequence number that was told of
	evicted        map[string]int64  // dead letters that this receiver evicted, by target
	parts          map[int]*natsPart
}

// natsCounts are what no stream counts; all receivers add to one value.
type natsCounts struct {
	Unparsed, OtherVersion, Rejected, Repeated int64
	LastOtherVersion                           string
	LastRejected                               Rejection
	ByName                                     nameCounts
	URLChecks                                  int64
	LastURLCheck                               time.Time
	Damaged                                    int64
	LastDamage                                 Rejection
}

func (c *natsCounts) empty() bool { return *c == natsCounts{} }

func (c *natsCounts) add(o natsCounts) {
	c.Unparsed += o.Unparsed
	c.OtherVersion += o.OtherVersion
	c.Rejected += o.Rejected
	c.Repeated += o.Repeated
	if o.LastOtherVersion != "" {
		c.LastOtherVersion = o.LastOtherVersion
	}
	if o.LastRejected.At.After(c.LastRejected.At) {
		c.LastRejected = o.LastRejected
	}
	c.ByName.addAll(&o.ByName)
	c.URLChecks += o.URLChecks
	c.LastURLCheck = later(c.LastURLCheck, o.LastURLCheck)
	c.Damaged += o.Damaged
	if o.LastDamage.At.After(c.LastDamage.At) {
		c.LastDamage = o.LastDamage
	}
}

var _ Journal = (*NATS)(nil)

// see takes in what the stream has; n.mu is held.
func (n *NATS) see(info *jetstream.StreamInfo) {
	n.first = info.State.FirstSeq
	n.state.LastSeq, n.known = max(n.state.LastSeq, info.State.LastSeq), max(n.known, info.State.LastSeq)
	n.state.Received, n.state.Events, n.state.Bytes, n.state.MaxBytes = int64(info.State.LastSeq), int64(info.State.Msgs), int64(info.State.Bytes), info.Config.MaxBytes
	if info.State.LastTime.After(n.state.LastReceived) {
		n.state.LastReceived = info.State.LastTime
	}
}

// info is what a stream has, as the server says that leads it. A handle that others use must not be asked: it remembers
// the answer, and is not made for several at a time.
func (n *NATS) info(ctx context.Context, stream string) (*jetstream.StreamInfo, error) {
	own, err := n.js().Stream(ctx, stream)
	if err != nil {
		return nil, fmt.Errorf("look at the stream %s: %w", stream, plainJetStream(err))
	}
	info := own.CachedInfo()
	if info.Cluster != nil && info.Cluster.Leader == "" {
		return nil, fmt.Errorf("look at the stream %s: it has no leader", stream)
	}
	return info, nil
}

// lookBeside reads how many dead letters there are, and attempts there were, and whether all else is there. Who cannot be
// told keeps the last ones.
func (n *NATS) lookBeside() error {
	ctx, cancel := context.WithTimeout(n.ctx, natsTimeout)
	defer cancel()
	has := map[string]*jetstream.StreamInfo{}
	for _, stream := range n.streams() {
		if stream == n.name() {
			continue
		}
		info, err := n.info(ctx, stream)
		if err != nil {
			return err
		}
		has[stream] = info
		n.hold(ctx, info)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.state.DeadLetters = int64(has[streamOf(n.letterBucket())].State.Msgs)
	n.state.Logged = int64(has[n.logStream()].State.LastSeq)
	return nil
}

const countsKey = "counts"

// count adds what was counted here to the value that all receivers share.
func (n *NATS) count(ctx context.Context) {
	n.mu.Lock()
	mine := n.counted
	n.counted = natsCounts{}
	n.mu.Unlock()
	var all natsCounts
	revision, err := n.read(ctx, countsKey, &all)
	if err == nil && !mine.empty() {
		all.add(mine)
		_, err = n.write(ctx, countsKey, all, revision)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil {
		n.counted.add(mine) // once more, next time
		return
	}
	n.state.Unparsed, n.state.OtherVersion, n.state.Rejected, n.state.Repeated = all.Unparsed, all.OtherVersion, all.Rejected, all.Repeated
	n.state.LastOtherVersion, n.state.LastRejected, n.byName = all.LastOtherVersion, all.LastRejected, all.ByName
	n.state.URLChecks, n.state.LastURLCheck = all.URLChecks, all.LastURLCheck
	n.state.Damaged, n.damage = all.Damaged, all.LastDamage
}

// unusable is why nothing can be asked of it now; n.mu is held.
func (n *NATS) unusable() error {
	switch {
	case n.problem != nil:
		return n.problem
	case n.link.Load() == nil || !n.conn().IsConnected():
		return n.notReached()
	case len(n.unnoted) > 0:
		return errors.New("the cursors of its targets are not made yet")
	}
	return nil
}

// report logs and counts that something was lost, or is not as it was left.
func (n *NATS) report(format string, args ...any) { n.reportPlaces(1, format, args...) }

// reportPlaces is report for damage in several places.
func (n *NATS) reportPlaces(places int64, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	n.options.Log.Error("the NATS journal is not as it was left", "reason", text)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.counted.Damaged += places
	n.counted.LastDamage = Rejection{At: time.Now().UTC(), Reason: text}
}

// Reject implements Journal.
func (n *NATS) Reject(reason string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.counted.Rejected++
	n.counted.LastRejected = Rejection{At: time.Now().UTC(), Reason: reason}
}

// CountURLCheck implements Journal.
func (n *NATS) CountURLCheck() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.counted.URLChecks++
	n.counted.LastURLCheck = time.Now().UTC()
}

// later returns the later one of two times.
func later(one, other time.Time) time.Time {
	if other.After(one) {
		return other
	}
	return one
}

// State implements Journal.
func (n *NATS) State() State {
	n.mu.Lock()
	s := n.state
	s.Unparsed += n.counted.Unparsed
	s.OtherVersion += n.counted.OtherVersion
	s.Rejected += n.counted.Rejected
	s.Repeated += n.counted.Repeated
	s.URLChecks += n.counted.URLChecks
	s.LastURLCheck = later(s.LastURLCheck, n.counted.LastURLCheck)
	s.MaxBytes = n.options.MaxBytes
	s.Damaged += n.counted.Damaged
	damage := n.damage
	if n.counted.LastDamage.At.After(damage.At) {
		damage = n.counted.LastDamage
	}
	s.Warning = n.warning()
	if time.Since(damage.At) < damageTime {
		s.Damage = damage.Reason + " (found at " + damage.At.Format(time.RFC3339) + ")"
	}
	if n.counted.LastRejected.At.After(s.LastRejected.At) {
		s.LastRejected = n.counted.LastRejected
	}
	byName := n.byName
	byName.addAll(&n.counted.ByName)
	s.ByName = byName.list()
	parts := slices.Collect(maps.Values(n.parts))
	n.mu.Unlock()
	s.Removed = removedOf(parts)
	return s
}

// removedOf are the targets that are no more, as the partitions of this receiver know them.
func removedOf(parts []*natsPart) []Removed {
	all := map[string]Removed{}
	for _, p := range parts {
		p.mu.Lock()
		for _, r := range p.removed {
			known, ok := all[r.Name]
			if !ok || r.Until.Before(known.Until) {
				known.Until = r.Until
			}
			all[r.Name] = Removed{Name: r.Name, Until: known.Until, Pending: known.Pending + r.Pending}
		}
		p.mu.Unlock()
	}
	return slices.SortedFunc(maps.Values(all), func(a, b Removed) int { return strings.Compare(a.Name, b.Name) })
}

// hear takes in that a receiver has kept an event of a partition that this one has.
func (n *NATS) hear(msg *nats.Msg) {
	part, err := partOf(msg)
	seq, seqErr := strconv.ParseUint(string(msg.Data), 10, 64)
	if err != nil || seqErr != nil {
		return // not ours
	}
	n.told(part, seq)
}

// told takes in that an event is there.
func (n *NATS) told(part int, seq uint64) {
	n.mu.Lock()
	n.notified, n.state.LastSeq = max(n.notified, seq), max(n.state.LastSeq, seq)
	n.mu.Unlock()
	n.wake(part, seq)
}

// partOf is the partition that a message between receivers is about.
func partOf(msg *nats.Msg) (int, error) {
	part, err := strconv.ParseUint(msg.Subject[strings.LastIndexByte(msg.Subject, '.')+1:], 10, 8)
	return int(part), err
}

// wake tells the readers of a partition (-1: of all) that there is something to read.
func (n *NATS) wake(part int, seq uint64) {
	n.mu.Lock()
	var woken []*natsPart
	for index, p := range n.parts {
		if part < 0 || index == part {
			woken = append(woken, p)
		}
	}
	n.mu.Unlock()
	for _, p := range woken {
		p.wake(seq)
	}
}

// Close implements Journal.
func (n *NATS) Close() error {
	if n.ctx.Err() != nil {
		return nil
	}
	if n.link.Load() == nil { // it lacked something
		n.stop()
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), natsTimeout)
	defer cancel()
	if n.Problem() == nil {
		n.count(ctx)
		select { // what is on its way into the delivery log
		case <-n.js().PublishAsyncComplete():
		case <-ctx.Done():
		}
	}
	n.stop()
	n.done.Wait()
	n.conn().Close()
	return nil
}

// cache are the latest events, decoded.
type cache struct {
	mu      sync.Mutex
	records map[uint64]*Record
	order   []uint64
	bytes   int
}

func (c *cache) add(r *Record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.records == nil {
		c.records = map[uint64]*Record{}
	}
	if known := c.records[r.Seq]; known == nil {
		c.order = append(c.order, r.Seq)
	} else if known.ID == r.ID {
		return // the one that is there may be decoded
	} else {
		c.bytes -= known.size() // the stream has gone back
	}
	c.records[r.Seq] = r
	c.bytes += r.size()
	for len(c.order) > 1 && (len(c.order) > maxCached || c.bytes > maxCachedBytes) {
		c.bytes -= c.records[c.order[0]].size()
		delete(c.records, c.order[0])
		c.order = c.order[1:]
	}
}

func (c *cache) get(seq uint64) *Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.records[seq]
}
