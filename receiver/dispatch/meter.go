package dispatch

import "time"

const seconds = 60

// meter counts what happened within the last minute.
type meter struct {
	counts [seconds]int64
	last   int64 // the second that was counted last
}

// turn forgets the seconds that have passed since the last one.
func (m *meter) turn(now time.Time) {
	second := now.Unix()
	for m.last = max(m.last, second-seconds); m.last < second; {
		m.last++
		m.counts[m.last%seconds] = 0
	}
}

func (m *meter) count(now time.Time) {
	m.turn(now)
	m.counts[m.last%seconds]++
}

func (m *meter) perMinute(now time.Time) (total int64) {
	m.turn(now)
	for _, n := range m.counts {
		total += n
	}
	return total
}
