package journal

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"
)

// A partition belongs to the receiver that has its key in the bucket of leases. A key goes by itself when it is
// not renewed; the owner counts from before it asked, on its own clock, and so stops before anybody else begins.
const (
	leaseTime   = 5 * time.Second
	leaseBeat   = 1250 * time.Millisecond
	leaseMargin = 20 // of the lease, a part: for clocks that run differently
	memberKey   = "member."
	partKey     = "part."
)

// leaseBucket has the leases, and the receivers that there are.
func (n *NATS) leaseBucket() string { return n.name() + "_leases" }

func newOwner() string { return strings.ReplaceAll(uuid.NewString(), "-", "")[:16] }

// lease is a partition that is this receiver's for a while.
type lease struct {
	part     int
	token    string // of this time of ownership
	revision uint64
	stop     context.CancelFunc // no more attempts are begun
	stopped  context.Context
	attempts context.Context // of those under way
	abandon  context.CancelFunc
	ended    chan struct{} // nothing of it is done any more

	mu       sync.Mutex
	deadline time.Time
	timer    *time.Timer
}

// owning is a context that ends with the lease: by the clock, also where the process was stopped meanwhile and
// no timer has run yet.
type owning struct {
	context.Context
	lease *lease
}

// Err implements context.Context.
func (c owning) Err() error {
	if err := c.Context.Err(); err != nil {
		return err
	}
	if c.lease.lapsed() {
		return context.DeadlineExceeded
	}
	return nil
}

func newLease(part int, token string, revision uint64, until time.Time) *lease {
	l := &lease{part: part, token: token, revision: revision, deadline: until, ended: make(chan struct{})}
	stopped, stop := context.WithCancel(context.Background())
	attempts, abandon := context.WithCancel(context.Background())
	l.stopped, l.stop, l.abandon = owning{stopped, l}, stop, abandon
	l.attempts = owning{attempts, l}
	l.timer = time.AfterFunc(time.Until(until), l.lose)
	return l
}

func (l *lease) lapsed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !time.Now().Before(l.deadline)
}

// extend takes in that the lease was renewed.
func (l *lease) extend(revision uint64, until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.revision = revision
	if time.Now().Before(l.deadline) { // else it is lost, whatever the answer says
		l.deadline = until
		l.timer.Reset(time.Until(until))
	}
}

// lose ends it at once: attempts under way are cut off.
func (l *lease) lose() {
	l.mu.Lock()
	l.deadline = time.Time{}
	l.mu.Unlock()
	l.stop()
	l.abandon()
}

// Share takes partitions as they are free, as many as are fair among the receivers, until ctx ends. serve is
// called for each, and delivers the part's events: it begins no attempt after stopped has ended, ends those under
// way when attempts does, and then returns. When ctx ends partitions are handed over at once.
func (n *NATS) Share(ctx context.Context, serve func(stopped, attempts context.Context, part SharedPart)) {
	s := &sharing{n: n, serve: serve, held: map[int]*lease{}}
	tick := time.NewTicker(n.options.LeaseBeat)
	defer tick.Stop()
	for {
		s.beat(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			s.end()
			return
		}
	}
}

// SharedPart is a partition that this receiver owns for a while.
type SharedPart interface {
	Part
	// Index is its number.
	Index() int
	// GiveBack gives the partition up: it cannot be delivered here.
	GiveBack()
	// Trim drops events that all targets are done with, as far as there is a reason to.
	Trim(ctx context.Context) error
	// ReplayRequests hands over the replay requests as they are made, until ctx ends.
	ReplayRequests(ctx context.Context, take func(ReplayRequest) error)
}

// sharing is this receiver's share of a journal.
type sharing struct {
	n      *NATS
	serve  func(stopped, attempts context.Context, part SharedPart)
	served sync.WaitGroup
	held   map[int]*lease
}

// beat tells others that this receiver lives, gives up what is more than its share, and takes what is free.
func (s *sharing) beat(ctx context.Context) {
	for part, l := range s.held {
		select {
		case <-l.ended:
			delete(s.held, part)
		default:
		}
	}
	s.n.mu.Lock()
	leases := s.n.leases
	s.n.mu.Unlock()
	if leases == nil || ctx.Err() != nil {
		return
	}
	within, cancel := context.WithTimeout(ctx, s.n.options.LeaseTime/2)
	defer cancel()
	_, err := leases.Put(within, memberKey+s.n.id, nil)
	members, taken := 0, map[int]bool(nil)
	if err == nil {
		members, taken, err = s.n.census(within)
	}
	if s.n.met(leasing, err); err != nil {
		return
	}
	s.n.noteIdle(taken)
	fair := (Partitions + members - 1) / members
	surplus := len(s.held) - fair
	for _, l := range s.held {
		if l.stopped.Err() != nil {
			surplus-- // it is on its way out
		}
	}
	for _, l := range s.held {
		if surplus > 0 && l.stopped.Err() == nil {
			l.stop() // what is under way may end
			surplus--
		}
	}
	for _, part := range rand.Perm(Partitions) {
		if len(s.held) >= fair {
			return
		}
		if s.held[part] == nil && !taken[part] {
			s.take(within, leases, part)
		}
	}
}

// noteIdle takes in which partitions have a receiver.
func (n *NATS) noteIdle(taken map[int]bool) {
	if free := Partitions - len(taken); free > 0 {
		n.met(idle, fmt.Errorf("%d of %d are free", free, Partitions))
		return
	}
	n.met(idle, nil)
}

// census counts the receivers, and says which partitions are taken.
func (n *NATS) census(ctx context.Context) (members int, taken map[int]bool, err error) {
	taken = map[int]bool{}
	err = n.eachValue(ctx, n.leaseBucket(), ">", func(v value) error {
		if strings.HasPrefix(v.key, memberKey) {
			members++
		}
		if number, ok := strings.CutPrefix(v.key, partKey); ok {
			if part, err := strconv.Atoi(number); err == nil {
				taken[part] = true
			}
		}
		return nil
	})
	return max(members, 1), taken, err
}

// Alone is whether no other receiver shares the journal.
func (n *NATS) Alone(ctx context.Context) (bool, error) {
	if _, err := n.bucket(); err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, glanceTime)
	defer cancel()
	members, _, err := n.census(ctx)
	return members == 1, err
}

// take makes a partition this receiver's, if nobody else does.
func (s *sharing) take(ctx context.Context, leases jetstream.KeyValue, part int) {
	asked, token := time.Now(), newOwner()
	revision, err := leases.Create(ctx, partKey+strconv.Itoa(part), []byte(s.n.id))
	if err != nil {
		return // another one was faster, or NATS is not there
	}
	l := newLease(part, token, revision, asked.Add(s.n.term()))
	s.held[part] = l
	p := &natsPart{n: s.n, index: part, lease: l, wished: make(chan struct{}, 1), taken: map[string]uint64{}, views: map[string]*natsView{}}
	s.n.mu.Lock()
	s.n.parts[part] = p
	s.n.mu.Unlock()
	news, err := s.n.conn().Subscribe(s.n.newSubject(part), s.n.hear)
	s.served.Go(func() {
		if err == nil { // else it looks now and then
			defer func() { _ = news.Unsubscribe() }() // it ends with the connection otherwise
		}
		s.hold(leases, l, p)
	})
}

// term is how long a lease is good for after it was asked for.
func (n *NATS) term() time.Duration { return n.options.LeaseTime - n.options.LeaseTime/leaseMargin }

// hold serves a partition while it is this receiver's, and gives it back.
func (s *sharing) hold(leases jetstream.KeyValue, l *lease, p *natsPart) {
	defer close(l.ended)
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.serve(l.stopped, l.attempts, &natsView{natsPart: p, appended: make(chan struct{})})
	}()
	s.renew(leases, l, p, served)
	<-served
	p.noteLast()
	s.n.mu.Lock()
	if s.n.parts[l.part] == p {
		delete(s.n.parts, l.part)
	}
	s.n.mu.Unlock()
	l.timer.Stop()
	lapsed := l.lapsed()
	l.lose()
	if lapsed {
		return // it is somebody else's by now
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.n.options.LeaseTime/2)
	defer cancel()
	_ = leases.Purge(ctx, partKey+strconv.Itoa(l.part), jetstream.LastRevision(l.revision)) // else it goes by itself
}

// renew renews a lease until nothing is served any more, or it is lost.
func (s *sharing) renew(leases jetstream.KeyValue, l *lease, p *natsPart, served <-chan struct{}) {
	tick := time.NewTicker(s.n.options.LeaseBeat)
	defer tick.Stop()
	trimmed := time.Now()
	for {
		select {
		case <-served:
			return
		case <-l.attempts.Done():
			return
		case <-tick.C:
		}
		asked := time.Now()
		ctx, cancel := context.WithTimeout(l.attempts, s.n.options.LeaseTime/2)
		revision, err := leases.Update(ctx, partKey+strconv.Itoa(l.part), []byte(s.n.id), l.revision)
		cancel()
		switch {
		case err == nil:
			l.extend(revision, asked.Add(s.n.term()))
		case outdated(err):
			s.n.options.Log.Warn("a partition was lost to another receiver", "partition", l.part)
			l.lose()
			return
		}
		if time.Since(trimmed) >= trimPause {
			trimmed = time.Now()
			ctx, cancel := context.WithTimeout(l.attempts, s.n.options.LeaseTime/2)
			if err := p.Trim(ctx); err != nil && ctx.Err() == nil {
				s.n.options.Log.Warn("delivered events were not dropped", "partition", l.part, "error", err)
			}
			cancel()
		}
	}
}

// end hands all partitions over.
func (s *sharing) end() {
	for _, l := range s.held {
		l.stop()
	}
	s.served.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), s.n.options.LeaseBeat)
	defer cancel()
	s.n.mu.Lock()
	leases := s.n.leases
	s.n.mu.Unlock()
	if leases != nil && s.n.conn().IsConnected() {
		_ = leases.Purge(ctx, memberKey+s.n.id) // else it goes by itself
	}
}

// GiveBack implements SharedPart.
func (p *natsPart) GiveBack() { p.lease.stop() }

// Index implements SharedPart.
func (p *natsPart) Index() int { return p.index }
