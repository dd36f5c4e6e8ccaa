package dispatch

import "time"

// Bounds of the breaker.
const (
	openAfter    = 5               // failures without an answer in between that it takes to open it
	severalLanes = 2               // that they must come from
	manyLanes    = 32              // that open it however lately the target answered
	lately       = 2 * time.Second // since an answer, while which fewer lanes do not open it
	firstProbe   = time.Second     // from its opening to the first probe
	maxProbe     = 15 * time.Second
)

// breaker decides whether the target as a whole is down. Then it is open, and the target gets probes alone.
//
// A failure is an attempt that found the target unavailable: no answer, or 429, 502, 503, 504. An answer is any other
// one, 500 and 400 too: somebody is there. What holds:
//
//   - Failures of one lane never open it, however many: that lane backs off alone.
//   - It is opened by openAfter failures in a row of severalLanes or more, when there was no answer within lately, or
//     by failures in a row of manyLanes. So a few lanes that fail beside others that succeed do not open it, and a
//     target that goes down while it is busy costs a bounded number of attempts.
//   - Any answer closes it, of a probe or of an attempt that began before it opened.
//   - The first probe goes firstProbe after it opened. From a probe that failed to the next one it takes twice as long
//     as before, maxProbe at most. A Retry-After does not change that: it holds the lane that was told, as it may
//     concern that one alone, and a lane that was not told may be tried.
//
// Which lane a probe is made with is not its business. The zero value is closed and ready for use.
type breaker struct {
	open   bool
	next   time.Time // when the next probe may go
	delay  time.Duration
	inRow  int                 // failures since the last answer
	lanes  map[string]struct{} // that they came from, at most manyLanes
	answer time.Time           // the last one
}

// failed takes a failure of a lane, and reports whether that opened the breaker.
func (b *breaker) failed(now time.Time, lane string, probe bool) (opened bool) {
	if b.open {
		if probe {
			b.delay = min(2*b.delay, maxProbe)
			b.next = now.Add(b.delay)
		}
		return false
	}
	b.inRow++
	if b.lanes == nil {
		b.lanes = map[string]struct{}{}
	}
	if len(b.lanes) < manyLanes {
		b.lanes[lane] = struct{}{}
	}
	if b.inRow < openAfter || len(b.lanes) < severalLanes || len(b.lanes) < manyLanes && now.Sub(b.answer) < lately {
		return false
	}
	b.open, b.delay, b.next = true, firstProbe, now.Add(firstProbe)
	return true
}

// answered takes an answer, and reports whether that closed the breaker.
func (b *breaker) answered(now time.Time) (closed bool) {
	closed = b.open
	if b.inRow > 0 || b.open {
		*b = breaker{}
	}
	b.answer = now
	return closed
}
