package wire

import (
	"strings"
	"sync"

	"github.com/nyaruka/phonenumbers"
)

// E164 is a phone number in E.164, or empty where its country does not follow from the text, the
// region (ISO, may be empty), and whether numbers are written internationally without a plus sign.
func E164(raw, region string, international bool) string {
	if len(raw) < 5 || len(raw) > 32 || strings.Trim(raw, "+0123456789 ()./-") != "" {
		return ""
	}
	return known.get(numeral{raw, region, international})
}

// numeral is a number as a PBX writes it.
type numeral struct {
	raw, region   string
	international bool
}

// e164 asks the library, which takes as long as all the rest of an event's decoding.
func (n numeral) e164() string {
	if strings.HasPrefix(n.raw, "+") {
		number, err := phonenumbers.Parse(n.raw, "ZZ")
		if err != nil || !phonenumbers.IsPossibleNumber(number) {
			return ""
		}
		return phonenumbers.Format(number, phonenumbers.E164)
	}
	if n.international && !strings.HasPrefix(n.raw, "0") {
		if number, err := phonenumbers.Parse("+"+n.raw, "ZZ"); err == nil && phonenumbers.IsValidNumber(number) {
			return phonenumbers.Format(number, phonenumbers.E164)
		}
	}
	if n.region != "" {
		if number, err := phonenumbers.Parse(n.raw, n.region); err == nil && phonenumbers.IsValidNumber(number) {
			return phonenumbers.Format(number, phonenumbers.E164)
		}
	}
	return ""
}

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
