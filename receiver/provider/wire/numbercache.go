package wire

import (
	"strings"
	"sync"
)

// known are numbers of late: the events of a call carry the same ones, and each event is decoded when it
// comes and when it goes out.
var known = numbers{recent: map[numeral]string{}}

// maxRecent bounds what is remembered, in two generations: about half a MiB each.
const maxRecent = 4096

// numbers remembers what numbers are in E.164. It forgets the older half when it is full.
type numbers struct {
	mu            sync.Mutex
	recent, older map[numeral]string
}

func (k *numbers) get(n numeral) string {
	e164, ok := k.find(n)
	if ok {
		return e164
	}
	e164 = n.e164()
	n.raw, n.region = strings.Clone(n.raw), strings.Clone(n.region) // not the text that it was cut from
	k.mu.Lock()
	defer k.mu.Unlock()
	k.put(n, e164)
	return e164
}

func (k *numbers) find(n numeral) (e164 string, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if e164, ok = k.recent[n]; ok {
		return e164, true
	}
	if e164, ok = k.older[n]; ok {
		k.put(n, e164)
	}
	return e164, ok
}

// put remembers a number; k.mu is held.
func (k *numbers) put(n numeral, e164 string) {
	if len(k.recent) >= maxRecent {
		k.recent, k.older = map[numeral]string{}, k.recent
	}
	k.recent[n] = e164
}
