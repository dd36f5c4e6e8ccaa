package dispatch

import (
	"maps"
	"slices"
	"time"

	"github.com/pbxhook/pbxhook/receiver/journal"
)

// progress is a cursor that is being worked on: everything up to floor is done, and the ranges
// above it.
type progress struct {
	floor    uint64
	ranges   []journal.Range
	above    int64 // events in ranges
	attempts map[uint64]int32
	count    journal.Cursor // its counters alone
	dirty    bool           // there is something to write
}

func newProgress(c journal.Cursor) *progress {
	p := &progress{floor: c.Floor, ranges: slices.Clone(c.Done), attempts: maps.Clone(c.Attempts), count: c}
	if p.attempts == nil {
		p.attempts = map[uint64]int32{}
	}
	for _, r := range p.ranges {
		p.above += int64(r.To - r.From + 1)
	}
	return p
}

// cursor is a copy to be written.
func (p *progress) cursor() journal.Cursor {
	c := p.count
	c.Floor, c.Done, c.Attempts = p.floor, slices.Clone(p.ranges), maps.Clone(p.attempts)
	return c
}

// find is the index of the first range that does not end before seq.
func (p *progress) find(seq uint64) int {
	i, _ := slices.BinarySearchFunc(p.ranges, seq, func(r journal.Range, seq uint64) int {
		switch {
		case r.To < seq:
			return -1
		case r.To > seq:
			return 1
		}
		return 0
	})
	return i
}

func (p *progress) has(seq uint64) bool {
	if seq <= p.floor {
		return true
	}
	i := p.find(seq)
	return i < len(p.ranges) && p.ranges[i].From <= seq
}

// done takes in that the target is done with an event.
func (p *progress) done(seq uint64) {
	p.dirty = true
	delete(p.attempts, seq)
	if p.has(seq) {
		return
	}
	p.above++
	i := p.find(seq)
	joinsLeft := i > 0 && p.ranges[i-1].To+1 == seq
	joinsRight := i < len(p.ranges) && p.ranges[i].From == seq+1
	switch {
	case joinsLeft && joinsRight:
		p.ranges[i-1].To = p.ranges[i].To
		p.ranges = slices.Delete(p.ranges, i, i+1)
	case joinsLeft:
		p.ranges[i-1].To = seq
	case joinsRight:
		p.ranges[i].From = seq
	default:
		p.ranges = slices.Insert(p.ranges, i, journal.Range{From: seq, To: seq})
	}
	p.raise()
}

// raise lifts the floor over the first range when they touch.
func (p *progress) raise() {
	for len(p.ranges) > 0 && p.ranges[0].From <= p.floor+1 {
		first := p.ranges[0]
		p.above -= int64(first.To - first.From + 1)
		p.floor = max(p.floor, first.To)
		p.ranges = slices.Delete(p.ranges, 0, 1)
	}
}

// skip takes in that the events from one number to another are not kept any more.
func (p *progress) skip(from, to uint64) {
	if from == p.floor+1 && to >= from && len(p.ranges) == 0 { // the usual case: the oldest ones
		p.floor, p.dirty = to, true
		return
	}
	for seq := from; seq <= to; seq++ {
		p.done(seq)
	}
}

func (p *progress) attempted(seq uint64, n int32) { p.attempts[seq], p.dirty = n, true }

func (p *progress) delivered(now time.Time) {
	p.count.Delivered++
	p.count.LastDelivery = now.UTC()
}

func (p *progress) deadLettered() { p.count.DeadLettered++ }

// pending is how many events up to last the target is not done with.
func (p *progress) pending(last uint64) int64 {
	if last <= p.floor {
		return 0
	}
	return int64(last-p.floor) - p.above
}
