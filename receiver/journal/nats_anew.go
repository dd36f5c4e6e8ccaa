package journal

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A stream can be lost: its servers' disks with it, or somebody deletes it. What was in it cannot be had again, but what
// comes then can. It is made anew by the receiver that finds out first; it numbers its events from 1 on, so nothing that
// goes by the numbers of the one before may be used any more.

// goneTime is how long the servers must say that there is no such stream: they do so for a moment when they begin.
const goneTime = 5 * time.Second

// errAnother says that another stream has taken the place of the one that was there.
var errAnother = errors.New("the stream was made anew")

// watch looks at the streams now and then, until one is to be made anew, or was.
func (n *NATS) watch() {
	for there := time.Now(); n.ctx.Err() == nil; wait(n.ctx, natsPoll) {
		if err := n.note(); err != nil {
			n.options.Log.Warn("the targets cannot be noted", "error", err)
		}
		last, err := n.look() // who needs what it reads finds out why it cannot be read
		other := error(nil)
		if err == nil {
			other = n.lookBeside()
		}
		gone, otherGone := errors.Is(err, jetstream.ErrStreamNotFound), errors.Is(other, jetstream.ErrStreamNotFound)
		switch {
		case errors.Is(err, errAnother), gone && time.Since(there) >= goneTime:
			n.startOver()
			return
		case otherGone:
			n.lose()
			if time.Since(there) >= goneTime {
				n.options.Log.Error("a stream beside that of the events is gone, with what was in it; it is made anew", "error", other)
				return
			}
		case !gone:
			there = time.Now()
			if err == nil && other == nil {
				n.find(last)
			}
		}
	}
}

// lose notes that cursors may have been lost; events are taken all the same.
func (n *NATS) lose() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lost = true
}

// find takes in that there is all that is needed. Cursors that were lost are made before the next event is taken.
func (n *NATS) find(last uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.lost {
		n.unnoted = n.targets
		return
	}
	n.sound = last
}

// same is whether a stream is the one that was set up.
func (n *NATS) same(info *jetstream.StreamInfo) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !info.Created.Equal(n.created) {
		return errAnother
	}
	return nil
}

// startOver lets go of all that goes by the numbers of the stream before.
func (n *NATS) startOver() {
	n.options.Log.Error("the stream is gone, with all that was in it; events go into one that is made anew", "stream", n.name())
	n.cache.clear()
	n.mu.Lock()
	n.problem = errors.New("its stream is gone, with all that was in it, and is being made anew")
	n.state.LastSeq, n.notified = 0, 0
	n.heard = time.Now() // what comes meanwhile waits for it
	n.unnoted, n.lost, n.sound = n.targets, true, 0
	parts := slices.Collect(maps.Values(n.parts))
	n.mu.Unlock()
	for _, p := range parts {
		p.lease.lose()
	}
}

// beginning is the cursor of a target that has none: it gets what comes from now on, and where cursors were lost what came
// since.
func (n *NATS) beginning(info *jetstream.StreamInfo) (Cursor, error) {
	if err := n.same(info); err != nil {
		return Cursor{}, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.lost {
		return Cursor{Floor: n.sound}, nil
	}
	return Cursor{Floor: info.State.LastSeq}, nil
}

// in is a cursor as it counts in a stream that was made at a time: of one that counted in another stream, how much was
// delivered is left.
func (f owned) in(created time.Time) owned {
	if !f.Stream.IsZero() && !f.Stream.Equal(created) {
		f.Cursor.Floor, f.Cursor.Done, f.Cursor.Attempts, f.Cursor.Replays = 0, nil, nil, nil
		f.Stream = created
	}
	return f
}
