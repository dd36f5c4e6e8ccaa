package dispatch

import "time"

const (
	breakerThreshold = 5 // attempts in a row that find the target unavailable
	firstProbe       = time.Second
	maxProbe         = 15 * time.Second
)

// breaker spares a dead target a storm: it opens after five attempts in a row that found the target
// unavailable, and then lets one probe through at a time.
type breaker struct {
	open  bool
	probe time.Time // when the next probe may go
	inRow int
	delay time.Duration
}

// failed takes in an attempt that found the target unavailable, and says whether that opened the
// breaker.
func (b *breaker) failed(now time.Time, retryAfter time.Duration) (opened bool) {
	b.inRow++
	if b.inRow < breakerThreshold {
		return false
	}
	opened = !b.open
	switch {
	case opened:
		b.open, b.delay = true, firstProbe
	case !now.Before(b.probe): // a probe, not one that was under way when it opened
		b.delay = min(2*b.delay, maxProbe)
	default:
		return false
	}
	b.probe = now.Add(max(b.delay, retryAfter))
	return opened
}

// answered takes in an attempt that the target answered, and says whether that closed the breaker.
func (b *breaker) answered() (closed bool) {
	closed = b.open
	*b = breaker{}
	return closed
}
