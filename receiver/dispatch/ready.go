package dispatch

import (
	"slices"
	"time"

	"github.com/pbxhook/pbxhook/receiver/journal"
)

// catchUp is how much of its pace a replay may make up for, when its turn came late.
const catchUp = 100 * time.Millisecond

// maxInterval is between two attempts of a replay at most.
const maxInterval = 24 * time.Hour

// readyLanes holds the lanes whose head may be tried. Lanes with a live event go first, so that a replay, however
// long, gets what live events leave. The replays take turns, each at its own pace.
type readyLanes struct {
	live    queue          // whose head has not failed
	failing queue          // whose last attempt failed, and that hold a live event
	replays []*replayLanes // the one whose turn is next first
}

// replayLanes are ready lanes that hold nothing but replayed events, by the replay of their head.
type replayLanes struct {
	id       string
	lanes    queue
	interval time.Duration // between two attempts; 0: no bound
	next     time.Time     // not before
}

// of returns the lanes of a replay.
func (r *readyLanes) of(replay *journal.Replay) *replayLanes {
	for _, one := range r.replays {
		if one.id == replay.ID {
			return one
		}
	}
	one := &replayLanes{id: replay.ID}
	if replay.Rate > 0 {
		share := replay.Share
		if share <= 0 {
			share = 1
		}
		one.interval = time.Duration(min(float64(time.Second)/(replay.Rate*share), float64(maxInterval)))
	}
	r.replays = append(r.replays, one)
	return one
}

// started counts an attempt towards the replay's pace, also one that did not wait for it.
func (r *replayLanes) started(now time.Time) {
	if earliest := now.Add(-catchUp); r.next.Before(earliest) {
		r.next = earliest
	}
	r.next = r.next.Add(r.interval)
}

// remove takes a lane out, and reports whether it was there.
func (r *replayLanes) remove(l *lane) bool {
	i := slices.Index(r.lanes, l)
	if i >= 0 {
		r.lanes = slices.Delete(r.lanes, i, i+1)
	}
	return i >= 0
}

// replay returns the replayed lane whose turn it is, and from when; nil: there is none.
func (r *readyLanes) replay(now time.Time) (next *lane, at time.Time) {
	for _, one := range r.replays {
		switch {
		case len(one.lanes) == 0:
		case !one.next.After(now):
			return one.lanes[0], now
		case next == nil || one.next.Before(at):
			next, at = one.lanes[0], one.next
		}
	}
	return next, at
}

// popReplay takes out the lane that replay returns, from when it says.
func (r *readyLanes) popReplay(now time.Time) *lane {
	i := slices.IndexFunc(r.replays, func(one *replayLanes) bool { return len(one.lanes) > 0 && !one.next.After(now) })
	one := r.replays[i]
	r.replays = append(slices.Delete(r.replays, i, i+1), one)
	return one.lanes.pop()
}

// forget drops a replay that has ended.
func (r *readyLanes) forget(id string) {
	r.replays = slices.DeleteFunc(r.replays, func(one *replayLanes) bool { return one.id == id && len(one.lanes) == 0 })
}

// push makes a lane ready.
func (w *work) push(l *lane) {
	if replay := w.progress.replay(l.seqs[0]); l.live == 0 && replay != nil {
		w.ready.of(replay).lanes.push(l)
		return
	}
	w.pushLive(l) // also one whose head was canceled: it is dropped at its turn
}

func (w *work) pushLive(l *lane) {
	if l.failures > 0 {
		w.ready.failing.push(l)
		return
	}
	w.ready.live.push(l)
}

// prefer takes in that a live event has joined a lane of replayed ones, which from now on goes first.
func (w *work) prefer(l *lane) {
	if replay := w.progress.replay(l.seqs[0]); replay != nil && w.ready.of(replay).remove(l) {
		w.pushLive(l)
	}
}

// leave takes in that the target is done with an event of a lane.
func (w *work) leave(l *lane, seq uint64) {
	w.queued--
	if !w.progress.has(seq) {
		l.live--
	} else {
		w.replayed--
		for t := range w.taking {
			t.ended[seq] = true
		}
	}
	replay := w.progress.replay(seq)
	w.progress.done(seq)
	if replay != nil && !replay.Running() {
		w.ready.forget(replay.ID)
	}
}

// canceled reports whether an event in a lane was to be replayed, and is not any more.
func (w *work) canceled(seq uint64) bool { return w.progress.has(seq) && w.progress.replay(seq) == nil }
