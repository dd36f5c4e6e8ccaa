package dispatch

import (
	"slices"
	"time"
)

// turn is whose attempt begins next.
type turn int

// The turns.
const (
	noTurn      turn = iota
	liveTurn         // the lane that has waited longest, of those with live events that have not failed
	newestTurn       // the newest of them: while the breaker is open, or slots are held by slow attempts
	failingTurn      // the lane that has waited longest, of those that failed
	replayTurn       // a lane of replayed events, where no live one may be tried
	probeTurn        // a lane that failed is tried while the breaker is open, as no other waits
)

// nextTurn returns whose attempt may begin, and from when; noTurn: nobody's before something happens.
func (w *work) nextTurn(now time.Time) (turn, time.Time) {
	if w.now.Problem != "" || w.now.Waits || w.now.Suspended || w.slots.full() {
		return noTurn, time.Time{}
	}
	whose, at := w.laneTurn(now)
	if whose == noTurn || w.limiter == nil {
		return whose, at
	}
	reservation := w.limiter.ReserveN(now, 1)
	defer reservation.CancelAt(now)
	if free := now.Add(reservation.DelayFrom(now)); free.After(at) {
		at = free
	}
	return whose, at
}

// laneTurn is nextTurn as far as slots and breaker decide.
func (w *work) laneTurn(now time.Time) (turn, time.Time) {
	if w.breaker.open {
		return w.probeTurn(now)
	}
	live := len(w.ready.live) > 0
	at, ok := w.slots.freeAt(now)
	replay, paced := w.ready.replay(now)
	switch {
	case !ok:
		return noTurn, time.Time{}
	case len(w.ready.failing) > 0 && w.slots.failingMayBegin(now, live):
		return failingTurn, at
	case live && w.slots.newestFirst(now):
		return newestTurn, at
	case live:
		return liveTurn, at
	case replay != nil && (replay.failures == 0 || w.slots.failingMayBegin(now, false)):
		return replayTurn, later(at, paced)
	default:
		return noTurn, time.Time{}
	}
}

// probeTurn is laneTurn while the breaker is open. One probe is made at a time, but a lane that has not failed does
// not wait for the probe of one that has.
func (w *work) probeTurn(now time.Time) (turn, time.Time) {
	switch {
	case len(w.ready.live) > 0 && !w.probing.fresh:
		return newestTurn, later(now, w.breaker.next)
	case w.probing.fresh || w.probing.failed:
		return noTurn, time.Time{}
	case now.Before(w.breaker.next):
		return probeTurn, w.breaker.next // which lane it is made with is decided then
	}
	replay, paced := w.ready.replay(now)
	if replay != nil && replay.failures == 0 && !paced.After(now) {
		return replayTurn, now
	}
	l, at := w.probeLane(now)
	switch {
	case l != nil && (replay == nil || !at.After(paced)):
		return probeTurn, at
	case replay != nil:
		return replayTurn, paced
	default:
		return noTurn, time.Time{}
	}
}

// takeLane takes the lane whose turn it is out of those that are ready or wait.
func (w *work) takeLane(whose turn, now time.Time) *lane {
	switch whose {
	case newestTurn:
		return w.ready.live.popNewest()
	case failingTurn:
		return w.ready.failing.pop()
	case replayTurn:
		return w.ready.popReplay(now)
	case probeTurn:
		l, _ := w.probeLane(now)
		if i := slices.Index(w.ready.failing, l); i >= 0 {
			w.ready.failing = slices.Delete(w.ready.failing, i, i+1)
		} else {
			w.waiting.remove(l)
		}
		return l
	default:
		w.slots.oldest = now
		return w.ready.live.pop()
	}
}

// probeLane returns the lane that is the best probe of those that failed, and from when it may be tried: the one that
// failed the fewest times, of these the newest. A lane that the target told to wait does wait; nil: there is none.
func (w *work) probeLane(now time.Time) (best *lane, at time.Time) {
	for _, lanes := range [][]*lane{w.ready.failing, w.waiting} {
		for _, l := range lanes {
			may := later(now, l.notBefore)
			switch {
			case best == nil, may.Before(at):
			case may.After(at), l.failures > best.failures:
				continue
			case l.failures == best.failures && l.seqs[0] < best.seqs[0]:
				continue
			}
			best, at = l, may
		}
	}
	return best, at
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
