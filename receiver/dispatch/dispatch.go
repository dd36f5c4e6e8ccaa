// Package dispatch hands each target its events: in the order received within a lane, one at a
// time, other lanes and other targets not held up. It decides on retry, circuit breaking and dead
// letters; what an attempt does is not its business.
//
// One goroutine a target owns all of the target's state; attempts run beside it and report to it.
package dispatch

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/pbxhook/pbxhook/receiver/journal"
)

// Result is what an attempt came to.
type Result int

// The results.
const (
	Delivered Result = iota
	Unwanted         // the target's filter does not want the event
	Retry            // not now, but perhaps later
	Refused          // never: the event becomes a dead letter
)

// Outcome is what came of one attempt.
type Outcome struct {
	Result Result
	// Answered is whether the target answered at all; only then the attempt counts.
	Answered bool
	// Unavailable says that the trouble is the target's as a whole, not this event's.
	Unavailable bool
	// RetryAfter is how long the target asked to be left alone, or 0.
	RetryAfter time.Duration
	Status     int    // HTTP status, or 0
	Reason     string // why it was not delivered, for people
	Reply      string // the beginning of the answer's body; only for dead letters and the delivery log

	gone   bool // the event is no longer stored
	cutOff bool // the attempt may have been ended by the process, or the loss of the partition
}

// Attempt delivers one event once. It must end when its context does.
type Attempt func(ctx context.Context, r journal.Record) Outcome

// Policy is how a target is delivered to.
type Policy struct {
	PerCall      bool          // order within a lane; else every event stands alone
	Concurrency  int           // attempts under way at once
	MaxAge       time.Duration // since it was received, after which an event is given up
	InitialDelay time.Duration
	MaxDelay     time.Duration
	MaxAttempts  int32      // answered ones; 0: no bound
	RateLimit    rate.Limit // attempts a second; 0: no bound
	Burst        int
	// Problem says why no attempt can be made, such as a missing Secret; empty when all is well.
	Problem string
	// Warning says what is wrong though attempts are made; empty when all is well.
	Warning string
	// Suspended has no attempt be made, because the user wants it so; the age of events does not run.
	Suspended bool
	// Webhook is the UID of the object that the journal serves, where it has one.
	Webhook string
	// Waits has no attempt be made for now, though nothing is wrong.
	Waits bool
}

// Share is one of several equal parts of a policy, of which each is at work for itself.
func (p Policy) Share(parts int) Policy {
	p.Concurrency = (p.Concurrency + parts - 1) / parts
	p.RateLimit /= rate.Limit(parts)
	p.Burst = (p.Burst + parts - 1) / parts
	return p
}

// With is how a target fares in two parts of a journal.
func (s Status) With(o Status) Status {
	s.Healthy = s.Healthy && o.Healthy
	s.Pending += o.Pending
	s.Delivered += o.Delivered
	s.DeadLettered += o.DeadLettered
	if o.LastDelivery.After(s.LastDelivery) {
		s.LastDelivery = o.LastDelivery
	}
	if s.LastError == "" {
		s.LastError = o.LastError
	}
	s.BreakerOpen = s.BreakerOpen || o.BreakerOpen
	s.Suspended = s.Suspended || o.Suspended
	s.Known = s.Known && o.Known
	s.Evicted = max(s.Evicted, o.Evicted)
	s.PerMinute += o.PerMinute
	return s
}

// Status is how a target fares.
type Status struct {
	Name         string    `json:"name"`
	Healthy      bool      `json:"healthy"`
	Pending      int64     `json:"pending"`
	Floor        uint64    `json:"floor"` // everything up to this sequence number is done
	Delivered    int64     `json:"delivered"`
	DeadLettered int64     `json:"deadLettered"`
	Evicted      int64     `json:"evicted"` // dead letters that were deleted for their number or age, of the journal as a whole
	LastDelivery time.Time `json:"lastDeliveryTime,omitzero"`
	LastError    string    `json:"lastError,omitempty"`
	BreakerOpen  bool      `json:"breakerOpen"`
	Suspended    bool      `json:"suspended"`
	PerMinute    int64     `json:"perMinute"` // deliveries in the last minute
	Known        bool      `json:"-"`         // the dispatcher has read the journal; else Pending and Floor say nothing
}

// Dispatcher delivers the events of one journal to one target.
type Dispatcher struct {
	name    string
	journal journal.Part
	log     *slog.Logger

	mu      sync.Mutex
	policy  Policy
	attempt Attempt
	changed chan struct{} // closed when policy or attempt is another
	status  Status        // Pending without the events after read
	read    uint64        // up to which sequence number the journal was read

	logged    bool // attempts go into the delivery log
	asks      chan *ask
	questions chan *question
	known     chan struct{} // closed when the first status was made
	ended     chan struct{} // closed when it delivers no more
}

// New makes the dispatcher of a target. Its cursor must have been opened, so that no event falls
// between a configuration and its first reading. Every attempt goes into the delivery log, unless Unlogged
// is called before Run.
func New(name string, j journal.Part, log *slog.Logger, policy Policy, attempt Attempt) *Dispatcher {
	return &Dispatcher{
		name: name, journal: j, log: log.With("target", name),
		policy: policy, attempt: attempt, changed: make(chan struct{}), asks: make(chan *ask), questions: make(chan *question), known: make(chan struct{}), ended: make(chan struct{}),
		status: Status{Name: name, Healthy: true}, logged: true,
	}
}

// Unlogged leaves the delivery log out, to measure what it costs.
func (d *Dispatcher) Unlogged() { d.logged = false }

// question asks what became of some events.
type question struct {
	seqs     []uint64
	about    map[uint64]bool // the same
	done     []bool
	unlogged []journal.Attempt
	answered chan struct{}
}

// Look says for each of some events whether the target is done with it: it has it, does not want it, or it
// is a dead letter; and gives the attempts at them that are not in the delivery log yet. It needs a
// dispatcher that runs.
func (d *Dispatcher) Look(ctx context.Context, seqs []uint64) (done []bool, unlogged []journal.Attempt, err error) {
	q := &question{seqs: seqs, about: make(map[uint64]bool, len(seqs)), done: make([]bool, len(seqs)), answered: make(chan struct{})}
	for _, seq := range seqs {
		q.about[seq] = true
	}
	select {
	case d.questions <- q:
		<-q.answered
		return q.done, q.unlogged, nil
	case <-d.ended:
		return nil, nil, fmt.Errorf("ask target %s: it is not delivered to any more", d.name)
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("ask target %s: %w", d.name, ctx.Err())
	}
}

// AwaitKnown waits until the dispatcher has read how many events wait, has ended, or ctx has.
func (d *Dispatcher) AwaitKnown(ctx context.Context) {
	select {
	case <-d.known:
	case <-d.ended:
	case <-ctx.Done():
	}
}

// Configure replaces how the target is delivered to, for the attempts that follow.
func (d *Dispatcher) Configure(policy Policy, attempt Attempt) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.policy, d.attempt = policy, attempt
	close(d.changed)
	d.changed = make(chan struct{})
}

// Status is how the target fares now. Events that were stored a moment ago count as pending.
func (d *Dispatcher) Status() Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.status
	if s.Known {
		s.Pending = max(0, s.Pending+d.journal.Unread(d.read))
	}
	return s
}

// Run delivers until ctx ends; once. Then it starts no more attempts, waits for those under way, whose
// own context is attempts, writes the cursor and returns.
func (d *Dispatcher) Run(ctx, attempts context.Context) error {
	defer close(d.ended)
	cursor, err := d.journal.OpenCursor(d.name)
	if err != nil {
		return fmt.Errorf("open the cursor of target %s: %w", d.name, err)
	}
	w := &work{
		Dispatcher: d,
		lanes:      map[string]*lane{},
		jobs:       make(chan job, maxConcurrency),
		results:    make(chan result, maxConcurrency),
		progress:   newProgress(cursor),
		resumed:    make(chan resumed),
		taking:     map[*taking]bool{},
		read:       cursor.Floor,
		evicted:    d.journal.Evicted(d.name),
	}
	w.configure()
	w.resumeAge(time.Now())
	w.resumeReplays(ctx)
	w.run(ctx, attempts)
	w.resuming.Wait()
	return w.flush()
}
