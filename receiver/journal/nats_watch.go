package journal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A stream can be lost: its servers' disks with it, or somebody deletes it. What was in it cannot be had again, but what
// comes then can. It is recreated by the receiver that finds out first; it numbers its events from 1 on, so nothing that
// goes by the numbers of the previous one may be used any more.

// goneTime is how long the servers must say that there is no such stream: they do so for a moment when they begin.
const goneTime = 5 * time.Second

var (
	// errAnother says that what is known of the stream does not hold any more.
	errAnother = errors.New("the stream is another one than it was")
	// errBehind says that the stream has fewer events than are known to be stored.
	errBehind = errors.New("the stream has fewer events than it had")
)

// watch looks at the streams now and then, until one is to be recreated, or was.
func (n *NATS) watch() {
	there, reached := time.Now(), time.Now()
	for n.ctx.Err() == nil {
		if err := n.note(); err != nil {
			n.say("the targets cannot be noted", err)
		}
		err := n.look() // who needs what it reads finds out why it cannot be read
		other := error(nil)
		if err == nil {
			other = n.lookBeside()
		}
		n.met(looking, errors.Join(err, other))
		n.reportVanished()
		n.probe()
		n.switchServer()
		gone, otherGone := errors.Is(err, jetstream.ErrStreamNotFound), errors.Is(other, jetstream.ErrStreamNotFound)
		if !errors.Is(err, errBehind) {
			reached = time.Now()
		}
		switch {
		case time.Since(reached) >= behindTime:
			n.noteGoneBack()
			return
		case gone && time.Since(there) >= goneTime:
			n.startOver("the stream is gone, with all that was in it, and is recreated")
			return
		case errors.Is(err, errAnother):
			n.startOver("the stream is another one than it was")
			return
		case otherGone && time.Since(there) >= goneTime:
			n.options.Log.Error("a stream beside that of the events is gone, with what was in it; it is recreated", "error", other)
			n.noteAgain()
			return
		case !gone && !otherGone:
			there = time.Now()
		}
		select {
		case <-n.ctx.Done():
		case <-n.doubt:
			return
		case <-time.After(natsPoll):
		}
	}
}

// look reads the stream's state, adds what was counted here to what all have counted, and wakes the readers when
// something came that nobody told of. Errors say that it cannot be read, or is not what it was.
func (n *NATS) look() error {
	ctx, cancel := context.WithTimeout(n.ctx, natsTimeout)
	defer cancel()
	n.mu.Lock()
	known := n.known // before it is asked: more may come meanwhile
	n.mu.Unlock()
	info, err := n.info(ctx, n.name())
	if err != nil {
		return err
	}
	if err := n.same(info); err != nil {
		return err
	}
	n.mu.Lock()
	newest := n.newest
	n.mu.Unlock()
	if info.State.LastSeq < known {
		return fmt.Errorf("%w: %d, %d are known", errBehind, info.State.LastSeq, known)
	}
	state, err := n.check(ctx, newest, info)
	if err != nil {
		return err
	}
	if state == broken {
		n.noteGoneBack()
		return fmt.Errorf("%w: event %d is not the one that it was", errBehind, newest.Seq)
	}
	n.mu.Lock()
	n.newest = lastMark(info)
	n.heard, n.looked = time.Now(), time.Now()
	rose := info.State.FirstSeq > n.first // by what is dropped here, or by somebody else
	n.see(info)
	missed := rose || info.State.LastSeq > n.notified
	n.notified = max(n.notified, info.State.LastSeq)
	n.mu.Unlock()
	if missed {
		n.wake(-1, 0)
	}
	n.count(ctx)
	n.hold(ctx, info)
	return nil
}

// same returns an error when a stream is not the one that was set up.
func (n *NATS) same(info *jetstream.StreamInfo) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !info.Created.Equal(n.created) || info.Config.Metadata[metaEpoch] != n.epoch {
		return errAnother
	}
	return nil
}

// startOver drops all that goes by the stream's numbers: it is to be set up again.
func (n *NATS) startOver(reason string) {
	n.options.Log.Error("partitions are given up, and the stream is looked at again", "stream", n.name(), "reason", reason)
	n.mu.Lock()
	n.cache = &cache{} // who reads for the old one adds to that
	n.problem = errors.New(reason)
	n.state.LastSeq, n.notified = 0, 0
	n.heard = time.Now() // what comes meanwhile waits for it
	n.unnoted = n.targets
	parts := slices.Collect(maps.Values(n.parts))
	n.mu.Unlock()
	for _, p := range parts {
		p.lease.lose()
	}
}

// noteAgain has cursors that are missing be made before the next event is taken.
func (n *NATS) noteAgain() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.unnoted = n.targets
}
