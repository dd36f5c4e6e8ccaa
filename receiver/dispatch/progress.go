package dispatch

import (
	"maps"
	"slices"
	"time"

	"github.com/pbxhook/pbxhook/receiver/journal"
)

// progress is a cursor that is being worked on.
type progress struct {
	floor    uint64
	above    journal.Ranges // done, above the floor
	attempts map[uint64]int32
	replays  []journal.Replay
	count    journal.Cursor // its counters alone
	dirty    bool           // there is something to write
}

func newProgress(c journal.Cursor) *progress {
	p := &progress{floor: c.Floor, above: slices.Clone(c.Done), attempts: maps.Clone(c.Attempts), replays: clone(c.Replays), count: c}
	if p.attempts == nil {
		p.attempts = map[uint64]int32{}
	}
	for i := range p.replays {
		r := &p.replays[i]
		if r.Running() {
			r.Remaining = r.Seqs.Len()
			r.Total = max(r.Total, r.Remaining)
		}
	}
	return p
}

func clone(replays []journal.Replay) []journal.Replay {
	all := slices.Clone(replays)
	for i := range all {
		all[i].Seqs = slices.Clone(all[i].Seqs)
	}
	return all
}

// cursor is a copy to be written.
func (p *progress) cursor() journal.Cursor {
	c := p.count
	c.Floor, c.Done, c.Attempts, c.Replays = p.floor, slices.Clone(p.above), maps.Clone(p.attempts), clone(p.replays)
	return c
}

func (p *progress) has(seq uint64) bool { return seq <= p.floor || p.above.Has(seq) }

// replay is the replay that an event goes out for, or nil.
func (p *progress) replay(seq uint64) *journal.Replay {
	for i := range p.replays {
		if p.replays[i].Seqs.Has(seq) {
			return &p.replays[i]
		}
	}
	return nil
}

// done takes in that the target is done with an event.
func (p *progress) done(seq uint64) {
	p.dirty = true
	delete(p.attempts, seq)
	if r := p.replay(seq); r != nil {
		r.Seqs.Remove(seq)
		if r.Remaining--; len(r.Seqs) == 0 {
			p.end(r)
		}
		return
	}
	if p.has(seq) {
		return
	}
	p.above.Add(seq)
	p.raise()
}

// raise lifts the floor over the first range when they touch.
func (p *progress) raise() {
	for len(p.above) > 0 && p.above[0].From <= p.floor+1 {
		first := p.above[0]
		p.floor = max(p.floor, first.To)
		p.above = slices.Delete(p.above, 0, 1)
	}
}

// skip takes in that the events from one number to another are not kept any more.
func (p *progress) skip(from, to uint64) {
	if from == p.floor+1 && to >= from && len(p.above) == 0 { // the usual case: the oldest ones
		p.floor, p.dirty = to, true
		return
	}
	if from <= to {
		p.above.AddAll(from, to)
		p.dirty = true
		p.raise()
	}
}

func (p *progress) attempted(seq uint64, n int32) { p.attempts[seq], p.dirty = n, true }

func (p *progress) delivered(now time.Time) {
	p.count.Delivered++
	p.count.LastDelivery = now.UTC()
}

func (p *progress) deadLettered(seq uint64) {
	p.count.DeadLettered++
	p.failed(seq)
}

// doneAfter is how many events after a sequence number are done.
func (p *progress) doneAfter(seq uint64) (n int64) {
	for _, r := range slices.Backward(p.above) {
		if r.To <= seq {
			break
		}
		n += int64(r.To - max(r.From-1, seq))
	}
	return n
}

// failed takes in that an event became a dead letter, or is no longer stored; where it was replayed its replay
// counts it.
func (p *progress) failed(seq uint64) {
	if r := p.replay(seq); r != nil {
		r.Failed++
	}
}

// end takes in that a replay has ended. The last ones are remembered.
func (p *progress) end(r *journal.Replay) {
	r.Seqs, r.Ended = nil, time.Now().UTC()
	p.dirty = true
}

// cancel ends a replay of which some events have not gone out.
func (p *progress) cancel(r *journal.Replay) {
	r.Canceled = true
	p.end(r)
}

// replayByID returns a replay that is running or remembered, or nil.
func (p *progress) replayByID(id string) *journal.Replay {
	for i := range p.replays {
		if p.replays[i].ID == id {
			return &p.replays[i]
		}
	}
	return nil
}

// running returns how many replays have not ended.
func (p *progress) running() (n int) {
	for i := range p.replays {
		if p.replays[i].Running() {
			n++
		}
	}
	return n
}

// forgetEnded forgets the replays that ended first, beyond those that are remembered.
func (p *progress) forgetEnded() {
	for surplus := len(p.replays) - p.running() - maxEnded; surplus > 0; surplus-- {
		oldest := -1
		for i := range p.replays {
			if r := &p.replays[i]; !r.Running() && (oldest < 0 || r.Ended.Before(p.replays[oldest].Ended)) {
				oldest = i
			}
		}
		p.replays = slices.Delete(p.replays, oldest, oldest+1)
	}
}
