package dispatch

import "time"

// Bounds of slots. slowAfter is how long an attempt is under way until it counts as slow, and how long a slot of the
// upper half stays closed where no attempt was answered.
const (
	slowAfter = time.Second
	slowFor   = time.Minute // after a slow delivery, while which a target counts as slow
	stuckFor  = 10 * time.Second
)

// slots are the attempts that may be under way at once, and who may have them: lanes whose last attempt failed must
// not hold them all while a target lets them time out.
//
//   - At most size attempts are under way.
//   - Lanes that failed hold at most half of the slots. With one slot they have half of its time: after an attempt
//     that failed as much time is left to others. Of two lanes that may begin, one that failed and one that did
//     not, each gets every other turn. After the breaker closed lanes that failed begin with one slot, and get one more
//     with each attempt of theirs that ended: they are released one after another.
//   - The upper half of the slots opens by answers that come soon: an attempt that begins there takes what an answer
//     gave, or waits until slowAfter has passed since the one before. So lanes that are about to time out for the first
//     time do not take all slots at once. While the slots are stuck an answer gives one, else two, so that a target
//     that answers has all of its slots at once.
//   - The slots are stuck while half of them or more are held by slow attempts, of a target that does not deliver
//     slowly. Then, and for a while after it, the newest lanes are tried first: those that wait longest may be those
//     that time out. Once in stuckFor it is the turn of the lane that has waited longest all the same.
//
// The zero value has no slots; resize gives it some.
type slots struct {
	size    int
	busy    map[*lane]time.Time // when their attempts began
	failing int                 // of them, of lanes that failed before
	share   int                 // how many of those there may be; 0: half
	extra   int                 // attempts that may begin in the upper half
	lapse   time.Time           // when extra is void
	paced   time.Time           // when one more may begin there without an answer
	rest    time.Time           // until when the only slot is for lanes that have not failed
	turn    bool                // the last attempt to begin was of a lane that failed
	slow    time.Time           // when an event was last delivered by a slow attempt
	stuck   time.Time           // when the slots were last found stuck
	oldest  time.Time           // when it was last the turn of the lane that has waited longest
}

func (s *slots) resize(size int) {
	s.size = size
	if s.busy == nil {
		s.busy = map[*lane]time.Time{}
	}
}

// half is where the upper half of the slots begins.
func (s *slots) half() int { return (s.size + 1) / 2 }

// failingMax is how many slots lanes that failed may hold.
func (s *slots) failingMax() int {
	most := max(1, s.size/2)
	if s.share > 0 {
		return min(s.share, most)
	}
	return most
}

// freeAt is when an attempt may begin; not before another one ended, if ok is false.
func (s *slots) freeAt(now time.Time) (at time.Time, ok bool) {
	switch {
	case len(s.busy) >= s.size:
		return time.Time{}, false
	case len(s.busy) < s.half(), s.extra > 0 && now.Before(s.lapse), !now.Before(s.paced):
		return now, true
	default:
		return s.paced, true
	}
}

// full reports whether all slots are held.
func (s *slots) full() bool { return len(s.busy) >= s.size }

// isStuck reports whether the slots are stuck, and remembers when they were.
func (s *slots) isStuck(now time.Time) bool {
	if len(s.busy) < s.half() || !s.slow.IsZero() && now.Sub(s.slow) < slowFor {
		return false
	}
	slow := 0
	for _, began := range s.busy {
		if now.Sub(began) >= slowAfter {
			slow++
		}
	}
	if slow < s.half() {
		return false
	}
	s.stuck = now
	return true
}

// newestFirst reports whether the newest lane is tried next, rather than the one that has waited longest.
func (s *slots) newestFirst(now time.Time) bool {
	if !s.isStuck(now) && (s.stuck.IsZero() || now.Sub(s.stuck) >= stuckFor) {
		return false
	}
	return now.Sub(s.oldest) < stuckFor
}

// failingMayBegin reports whether an attempt of a lane that failed may begin, where freeAt allows one; others says
// whether lanes that have not failed are waiting.
func (s *slots) failingMayBegin(now time.Time, others bool) bool {
	if s.failing >= s.failingMax() {
		return false
	}
	return !others || !s.turn && !now.Before(s.rest)
}

// restart has lanes that failed begin with one slot.
func (s *slots) restart() { s.share = 1 }

// began takes that an attempt of a lane began.
func (s *slots) began(now time.Time, l *lane) {
	switch {
	case len(s.busy) < s.half():
	case s.extra > 0 && now.Before(s.lapse):
		s.extra--
	default:
		s.paced = now.Add(slowAfter)
	}
	s.busy[l] = now
	s.turn = l.failures > 0
	if s.turn {
		s.failing++
	}
}

// ended takes that the attempt of a lane ended, before its failure is counted.
func (s *slots) ended(now time.Time, l *lane, o Outcome) {
	began, held := s.busy[l], len(s.busy)
	slow := now.Sub(began) >= slowAfter
	if slow && o.Result == Delivered {
		s.slow = now
	}
	if held >= s.half() && o.Answered && !o.Unavailable && (!slow || o.Result == Delivered) {
		if !now.Before(s.lapse) {
			s.extra = 0
		}
		s.extra, s.lapse = min(s.extra+s.gain(now), s.size-s.half()), now.Add(slowAfter)
	}
	delete(s.busy, l)
	if s.size == 1 && o.Result == Retry {
		s.rest = now.Add(now.Sub(began))
	}
	if l.failures == 0 {
		return
	}
	s.failing--
	if s.share > 0 {
		s.share++
	}
}

// gain is how many attempts may begin in the upper half for one that was answered.
func (s *slots) gain(now time.Time) int {
	if s.isStuck(now) {
		return 1
	}
	return 2
}
