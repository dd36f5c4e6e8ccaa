package server

import "time"

// InUse returns on how many connections without a valid request something is being read or handled.
func (l *Limits) InUse() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for e := l.strangers.Front(); e != nil; e = e.Next() {
		if e.Value.(*connection).inUse(time.Now()) {
			n++
		}
	}
	return n
}
