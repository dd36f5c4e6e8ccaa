package wire

import (
	"slices"
	"strings"
	"time"
)

// zoneMinutes are the offsets, in minutes, of zones' names that mean one zone alone (RFC 5322 for those of the United States). IST,
// BST, CST outside of it, and the like mean several: they count only where the webhook's own zone has that name.
var zoneMinutes = map[string]int{
	"z": 0, "utc": 0, "gmt": 0, "ut": 0,
	"est": -5 * 60, "edt": -4 * 60, "cdt": -5 * 60, "mst": -7 * 60, "mdt": -6 * 60, "pst": -8 * 60, "pdt": -7 * 60,
	"wet": 0, "west": 60, "cet": 60, "cest": 2 * 60, "eet": 2 * 60, "eest": 3 * 60, "msk": 3 * 60,
	"irst": 3*60 + 30, "irdt": 4*60 + 30, "pkt": 5 * 60, "jst": 9 * 60, "kst": 9 * 60, "hkt": 8 * 60,
	"aest": 10 * 60, "aedt": 11 * 60, "awst": 8 * 60, "acst": 9*60 + 30, "acdt": 10*60 + 30, "nzst": 12 * 60, "nzdt": 13 * 60,
}

// inZone is when the clocks showed what t shows in UTC: in the zone that words name or, without any, the zone of the
// settings. ok is false where they name something else.
func inZone(t time.Time, words []string, zone *time.Location, iso bool) (in time.Time, ok bool) {
	switch len(words) {
	case 0:
		return onTheClock(t, zone), true
	case 1:
	case 2: // UTC +05:30
		if minutes, known := zoneMinutes[strings.ToLower(words[0])]; !known || minutes != 0 {
			return t, false
		}
		words = words[1:]
	default:
		return t, false
	}
	word := words[0]
	if zone != nil {
		if at := onTheClock(t, zone); namesZone(at.In(zone), word) {
			return at, true
		}
	}
	if minutes, known := zoneMinutes[strings.ToLower(word)]; known {
		return t.Add(-time.Duration(minutes) * time.Minute), true
	}
	for _, name := range []string{"utc", "gmt"} {
		if len(word) > len(name) && strings.EqualFold(word[:len(name)], name) {
			word = word[len(name):]
			break
		}
	}
	if offset, ok := parseOffset(word, iso); ok {
		return t.Add(-offset), true
	}
	if strings.Contains(word, "/") && strings.Trim(word, letters+"/_-+0123456789") == "" {
		if named, err := time.LoadLocation(word); err == nil {
			return onTheClock(t, named), true
		}
	}
	return t, false
}

const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

// namesZone reports whether a zone calls its time at a moment by a name.
func namesZone(at time.Time, name string) bool {
	abbreviation, _ := at.Zone()
	return strings.EqualFold(abbreviation, name)
}

// parseOffset reads an offset from UTC: +05:30, +0530, +5:30, +05. In ISO 8601 its plus sign may have become a blank on the
// way.
func parseOffset(text string, iso bool) (offset time.Duration, ok bool) {
	if text == "" {
		return 0, false
	}
	sign := time.Duration(1)
	switch {
	case text[0] == '-':
		sign, text = -1, text[1:]
	case text[0] == '+':
		text = text[1:]
	case !iso || len(text) < 4:
		return 0, false
	}
	hours, minutes, colon := strings.Cut(text, ":")
	if !colon && len(text) == 4 {
		hours, minutes = text[:2], text[2:]
	}
	if !slices.Contains([]int{1, 2}, len(hours)) || len(minutes) != 0 && len(minutes) != 2 || strings.Trim(hours+minutes, "0123456789") != "" {
		return 0, false
	}
	h, m := atoi(hours), atoi(minutes)
	if h > 14 || m > 59 {
		return 0, false
	}
	return sign * (time.Duration(h)*time.Hour + time.Duration(m)*time.Minute), true
}

// onTheClock is when the clocks of a zone showed what t shows in UTC.
func onTheClock(t time.Time, zone *time.Location) time.Time {
	if zone == nil || zone == time.UTC {
		return t
	}
	offset := func(at time.Time) time.Duration {
		_, seconds := at.In(zone).Zone()
		return time.Duration(seconds) * time.Second
	}
	before, after := offset(t.Add(-24*time.Hour)), offset(t.Add(24*time.Hour))
	if first := t.Add(-before); offset(first) == before {
		return first
	}
	if second := t.Add(-after); offset(second) == after {
		return second
	}
	return t.Add(-before)
}
