package journal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A sequence number means one event only as long as the stream does not go back: a restored backup, or servers that lost
// power before they wrote to their disks, number other events as they numbered those that are lost. So a stream has an
// epoch, in its metadata and in each event's header, and another one begins when it is found to have gone back: then all
// receivers give their partitions up, and open the cursors again. A cursor says which events the stream had when it was
// written (its marks), and counts up to the last one that is still there.
const (
	epochHeader = "Pbxhook-Epoch" // of each event
	metaEpoch   = "pbxhook-epoch"
	epochKey    = "epoch" // in the bucket of the cursors: whoever writes it may change the one in the metadata

	maxMarks  = 8                // of a cursor
	markPause = 30 * time.Second // between two marks of a cursor
	// behindTime is how long a stream must have fewer events than are known to be stored: a server that has just become
	// the leader may not have caught up yet.
	behindTime = 3 * time.Second
	// steadyTime is in which no stream goes back and is written again.
	steadyTime = 100 * time.Millisecond
)

// mark is an event by its number and the time at which the servers stored it. No other event ever has both.
type mark struct {
	Seq  uint64    `json:"seq"`
	Time time.Time `json:"time,omitzero"` // zero where it is not known
}

// marks are events that the stream had, the newest last.
type marks []mark

func lastMark(info *jetstream.StreamInfo) mark {
	m := mark{Seq: info.State.LastSeq}
	if info.State.Msgs > 0 {
		m.Time = info.State.LastTime
	}
	return m
}

func (m marks) newest() mark {
	if len(m) == 0 {
		return mark{}
	}
	return m[len(m)-1]
}

// with returns marks with a newer one. It takes the place of the newest, unless that is much older. Where there are too
// many, every second one of the older half goes.
func (m marks) with(one mark) marks {
	last := len(m) - 1
	if last >= 0 && m[last].Seq >= one.Seq {
		return m
	}
	if last > 0 && one.Time.Sub(m[last-1].Time) < markPause {
		return append(slices.Clone(m[:last]), one)
	}
	var thinned marks
	for i, old := range m {
		if len(m) < maxMarks || i >= maxMarks/2 || i%2 == 0 {
			thinned = append(thinned, old)
		}
	}
	return append(thinned, one)
}

// history says whether a mark is in the stream as it is now.
type history int

const (
	holds    history = iota
	broken           // another event has its number
	beyond           // the stream has fewer events
	unproven         // it was deleted, or is not fully known
)

// check looks a mark up, at the server that leads the stream.
func (n *NATS) check(ctx context.Context, m mark, info *jetstream.StreamInfo) (history, error) {
	switch {
	case m.Seq == 0:
		return holds, nil
	case m.Seq > info.State.LastSeq:
		return beyond, nil
	case m.Time.IsZero() || m.Seq < info.State.FirstSeq:
		return unproven, nil
	}
	found, ok, err := n.messageOfLeader(ctx, m.Seq)
	switch {
	case err != nil:
		return unproven, err
	case !ok:
		return unproven, nil
	case !found.time.Equal(m.Time):
		return broken, nil
	}
	return holds, nil
}

// identify finds out which epoch the stream has, and begins another one where it has gone back.
func (n *NATS) identify(ctx context.Context, recreated bool) error {
	take, err := n.takeTurn(ctx)
	if err != nil {
		return err
	}
	info, err := n.info(ctx, n.name())
	if err != nil {
		return err
	}
	has := info.Config.Metadata[metaEpoch]
	n.mu.Lock()
	back, known := n.wentBack && (has == n.epoch || slices.Contains(n.epochs, has)), n.known
	lost := recreated && !n.created.IsZero()
	n.mu.Unlock()
	next := has
	if has == "" || back { // has is empty in a stream of an earlier version
		next = newOwner()
		if err := take(next); err != nil {
			return err
		}
		if err := n.setMetadata(ctx, metaEpoch, has, next); err != nil {
			return err
		}
	}
	switch {
	case lost:
		n.report("the stream %s was gone, with all events that were in it, and was recreated", n.name())
	case back:
		n.report("the stream %s has gone back, as after a restored backup or a loss of power on all servers: up to %d events were known, it has %d; targets may get some events again", n.name(), known, info.State.LastSeq)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.epoch != next && n.epoch != "" {
		n.epochs = append(n.epochs, n.epoch)
	}
	n.epoch, n.created, n.wentBack, n.known, n.newest = next, info.Created, false, info.State.LastSeq, mark{}
	return nil
}

// takeTurn lets one receiver at a time change the epoch: the function that it returns fails where another one was faster.
func (n *NATS) takeTurn(ctx context.Context) (take func(epoch string) error, err error) {
	kv, err := n.js().KeyValue(ctx, n.name())
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", epochKey, plainJetStream(err))
	}
	revision := uint64(0)
	switch entry, err := kv.Get(ctx, epochKey); {
	case err == nil:
		revision = entry.Revision()
	case !errors.Is(err, jetstream.ErrKeyNotFound):
		return nil, fmt.Errorf("read %s: %w", epochKey, plainJetStream(err))
	}
	return func(epoch string) error {
		if revision == 0 {
			_, err = kv.Create(ctx, epochKey, []byte(epoch))
		} else {
			_, err = kv.Update(ctx, epochKey, []byte(epoch), revision)
		}
		if err != nil {
			return fmt.Errorf("write %s: %w", epochKey, plainJetStream(err))
		}
		return nil
	}, nil
}

// setMetadata changes a value of the stream's metadata, if it is still what it was.
func (n *NATS) setMetadata(ctx context.Context, key, was, value string) error {
	info, err := n.info(ctx, n.name())
	if err != nil {
		return err
	}
	if now := info.Config.Metadata[key]; now != was {
		return fmt.Errorf("write %s into the metadata of the stream %s: another receiver has just changed it", key, n.name())
	}
	config := info.Config
	if config.Metadata = maps.Clone(config.Metadata); config.Metadata == nil {
		config.Metadata = map[string]string{}
	}
	config.Metadata[key] = value
	if _, err := n.js().UpdateStream(ctx, config); err != nil {
		return fmt.Errorf("write %s into the metadata of the stream %s: %w", key, n.name(), plainJetStream(err))
	}
	return nil
}

// noteGoneBack takes in a proof that the stream has gone back.
func (n *NATS) noteGoneBack() {
	n.mu.Lock()
	again := n.wentBack
	n.wentBack = true
	n.mu.Unlock()
	if again {
		return
	}
	n.startOver("the stream has gone back")
	n.signal()
}

// resume returns a cursor as it counts in the stream as it is now.
func (n *NATS) resume(ctx context.Context, target string, f owned, info *jetstream.StreamInfo) (owned, error) {
	epoch := info.Config.Metadata[metaEpoch]
	switch f.Epoch {
	case epoch:
		return f, n.trust(ctx, f.Marks.newest(), info)
	case "": // an earlier version wrote it
		if !f.Stream.IsZero() && !f.Stream.Equal(info.Created) || f.Cursor.highest() > info.State.LastSeq {
			n.report("the stream %s has not all events of which a cursor of target %s says something: it gets all that is stored again", n.name(), target)
			f.Cursor = f.Cursor.upTo(0)
		}
		f.Marks = marks{{Seq: f.Cursor.highest()}}
	default:
		limit, kept, err := n.common(ctx, f.Marks, info)
		if err != nil {
			return f, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		f.Cursor, f.Marks = f.Cursor.upTo(limit), kept
	}
	f.Epoch, f.Stream = epoch, time.Time{}
	return f, nil
}

// common returns up to which number a cursor counts: to the last of its marks before the first that is not in the stream.
func (n *NATS) common(ctx context.Context, all marks, info *jetstream.StreamInfo) (limit uint64, kept marks, err error) {
	for _, m := range all {
		state, err := n.check(ctx, m, info)
		switch {
		case err != nil:
			return 0, nil, err
		case state == broken, state == beyond:
			return limit, kept, nil
		case state == holds:
			limit, kept = m.Seq, append(kept, m)
		}
	}
	if limit == all.newest().Seq {
		limit = math.MaxUint64 // no cursor says more
	}
	return limit, kept, nil
}

// trust returns an error when the stream does not have an event that it had in this epoch.
func (n *NATS) trust(ctx context.Context, m mark, info *jetstream.StreamInfo) error {
	state, err := n.check(ctx, m, info)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	case state == broken:
		n.noteGoneBack()
		return fmt.Errorf("%w: event %d is not the one that it was", ErrUnavailable, m.Seq)
	case state == beyond: // its leader may lag behind, or it has gone back: the next looks tell
		n.mu.Lock()
		n.known = max(n.known, m.Seq)
		n.mu.Unlock()
		return fmt.Errorf("%w: the stream has %d events, %d are known to be stored", ErrUnavailable, info.State.LastSeq, m.Seq)
	}
	return nil
}

// highest returns the highest number of which a cursor says something.
func (c *Cursor) highest() uint64 {
	highest := c.Floor
	if len(c.Done) > 0 {
		highest = max(highest, c.Done[len(c.Done)-1].To)
	}
	for seq := range c.Attempts {
		highest = max(highest, seq)
	}
	return highest
}

// upTo returns a cursor without what it says of events after a number.
func (c Cursor) upTo(limit uint64) Cursor {
	if limit == math.MaxUint64 {
		return c
	}
	c.Floor, c.Done = min(c.Floor, limit), c.Done.upTo(limit)
	c.Attempts = maps.Clone(c.Attempts)
	maps.DeleteFunc(c.Attempts, func(seq uint64, _ int32) bool { return seq > limit })
	var replays []Replay
	for _, r := range c.Replays {
		if r.Seqs = r.Seqs.upTo(limit); len(r.Seqs) > 0 {
			replays = append(replays, r)
		}
	}
	c.Replays = replays
	return c
}

// upTo returns the numbers that are not above a limit.
func (r Ranges) upTo(limit uint64) Ranges {
	var all Ranges
	for _, one := range r {
		if one.From <= limit {
			all = append(all, Range{one.From, min(one.To, limit)})
		}
	}
	return all
}
