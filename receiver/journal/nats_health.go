package journal

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Whether the journal is well is told by what its users met: publishes, leases, cursors. What only looks at it may go
// another way, and be well while nothing is stored.

const (
	failingTime = 10 * time.Second // for which all but publishes must fail before it is said
	staleTime   = 5 * time.Minute  // after which a failure is not said any more, where nothing of its kind was done since
	probePause  = 5 * time.Second  // between two probes of the way that publishes go
	sayPause    = time.Minute      // between two log lines about the same
	leastEvent  = 16 << 10         // that the servers must take
)

// task is a kind of what is done with the journal.
type task string

const (
	publishing task = "events cannot be stored"
	looking    task = "the streams cannot be looked at"
	leasing    task = "partitions cannot be taken"
	opening    task = "partitions cannot be delivered"
	saving     task = "cursors cannot be written, so that events may be delivered again after a restart"
	reading    task = "events cannot be read"
	idle       task = "partitions have no receiver"
)

// failing is an task that did not succeed since.
type failing struct {
	since, last time.Time
	count       int
	err         error
}

// met takes in how an task went; nil: it succeeded.
func (n *NATS) met(o task, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err == nil {
		delete(n.failing, o)
		return
	}
	if errors.Is(err, ErrNotOwner) || errors.Is(err, ErrClosed) {
		return
	}
	f := n.failing[o]
	if f == nil {
		f = &failing{since: time.Now()}
		n.failing[o] = f
	}
	f.last, f.err = time.Now(), err
	f.count++
}

// failure says how an task fails, if it has for some time; n.mu is held.
func (n *NATS) failure(o task, least time.Duration) error {
	f := n.failing[o]
	if f == nil || time.Since(f.last) > staleTime || f.last.Sub(f.since) < least {
		return nil
	}
	err := f.err
	if n.denied != nil && time.Since(n.deniedAt) < staleTime {
		err = fmt.Errorf("%w (%w)", err, n.denied)
	}
	return fmt.Errorf("%s (%d failed since %s): %w", o, f.count, f.since.UTC().Format(time.RFC3339), err)
}

// Problem implements Journal.
func (n *NATS) Problem() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.unusable(); err != nil {
		return err
	}
	if err := n.failure(publishing, 0); err != nil {
		return err
	}
	if most := n.conn().MaxPayload(); most < payloadReserve+leastEvent {
		return tooSmall(most)
	}
	if silent := time.Since(n.heard); silent > electionTime {
		return fmt.Errorf("no answer from who leads the stream %s for %s: its servers may have no quorum", n.name(), silent.Round(time.Second))
	}
	return nil
}

func tooSmall(most int64) error {
	return fmt.Errorf("the NATS servers' max_payload is %d bytes, of which %d are for headers: expected at least %d", most, payloadReserve, payloadReserve+leastEvent)
}

// warning says what is wrong though events are accepted; empty: nothing. n.mu is held.
func (n *NATS) warning() string {
	all := append(slices.Sorted(maps.Values(n.differences)), slices.Sorted(maps.Values(n.damagedCursors))...)
	for _, o := range []task{looking, leasing, idle, opening, reading, saving} {
		if err := n.failure(o, failingTime); err != nil {
			all = append(all, err.Error())
		}
	}
	return strings.Join(all, "; ")
}

// hearError takes in what the servers say that is no answer to a request, as that something may not be done.
func (n *NATS) hearError(err error) {
	err = plainNATS(err)
	if errors.Is(err, nats.ErrPermissionViolation) {
		n.mu.Lock()
		n.denied, n.deniedAt = err, time.Now()
		n.mu.Unlock()
	}
	n.say("NATS", err)
}

// say logs an error, at most once a minute where it is the same.
func (n *NATS) say(message string, err error, more ...any) {
	key := message + ": " + err.Error()
	n.mu.Lock()
	due := time.Since(n.said[key]) >= sayPause
	if due {
		for old, at := range n.said {
			if time.Since(at) >= sayPause {
				delete(n.said, old)
			}
		}
		n.said[key] = time.Now()
	}
	n.mu.Unlock()
	if due {
		n.options.Log.Warn(message, append(slices.Clone(more), "error", err)...)
	}
}

// probe finds out whether the stream answers publishes, without one that is stored: it is for an event that cannot be the
// next one.
func (n *NATS) probe() {
	n.mu.Lock()
	due := time.Since(n.probed) >= probePause
	if due {
		n.probed = time.Now()
	}
	n.mu.Unlock()
	if !due {
		return
	}
	msg := &nats.Msg{Subject: n.partSubject(0), Header: nats.Header{}}
	_, err := n.js().PublishMsg(n.ctx, msg, jetstream.WithExpectStream(n.name()), jetstream.WithExpectLastSequence(^uint64(0)), jetstream.WithRetryAttempts(0))
	var api *jetstream.APIError
	answered := errors.As(err, &api)
	n.mu.Lock()
	full := n.failing[publishing] != nil && (errors.Is(n.failing[publishing].err, ErrFull) || errors.Is(n.failing[publishing].err, ErrNoSpace))
	n.mu.Unlock()
	switch {
	case answered && outdated(err) && !full:
		n.met(publishing, nil)
	case !answered && n.conn().IsConnected() && n.ctx.Err() == nil:
		n.met(publishing, n.refusal(err))
	}
}
