package wire

import (
	"math"
	"strconv"
	"strings"
)

// maxSeconds is the longest duration that is one: beyond it is a time since 1970, or nonsense.
const maxSeconds = 1_000_000_000

// secondsOf are the units of durations.
var secondsOf = map[string]float64{
	"ms": 0.001, "msec": 0.001, "msecs": 0.001, "millisecond": 0.001, "milliseconds": 0.001,
	"s": 1, "sec": 1, "secs": 1, "second": 1, "seconds": 1,
	"m": 60, "min": 60, "mins": 60, "minute": 60, "minutes": 60,
	"h": 3600, "hr": 3600, "hrs": 3600, "hour": 3600, "hours": 3600,
}

// ParseSeconds reads a duration as PBXs write it, in whole seconds: a number of seconds, 00:01:10, 24 sec, 1 min 10 sec,
// PT1M10S. It returns nil for what is none, and for negative ones, which stand for nothing.
func ParseSeconds(text string) *int64 {
	text = asciiDigits(strings.TrimSpace(text))
	if text == "" || len(text) > 64 {
		return nil
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return wholeSeconds(float64(n))
	}
	if c := text[0]; c != '.' && c != 'P' && c != 'p' && (c < '0' || c > '9') {
		return nil
	}
	if x, err := strconv.ParseFloat(text, 64); err == nil {
		return wholeSeconds(x)
	}
	if strings.IndexByte(text, ':') > 0 {
		return clockSeconds(text)
	}
	return unitSeconds(text)
}

func wholeSeconds(x float64) *int64 {
	if math.IsNaN(x) || x < 0 || x > maxSeconds {
		return nil
	}
	n := int64(x)
	return &n
}

// clockSeconds reads 00:01:10 and 01:10, perhaps with a fraction.
func clockSeconds(text string) *int64 {
	whole, fraction, found := strings.Cut(text, ".")
	if found && strings.Trim(fraction, "0123456789") != "" {
		return nil
	}
	parts := strings.Split(whole, ":")
	if len(parts) > 3 {
		return nil
	}
	var total int64
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 10, 16)
		if err != nil || i > 0 && (n > 59 || len(part) != 2) {
			return nil
		}
		total = total*60 + int64(n)
	}
	return &total
}

// unitSeconds reads numbers with units: 1 min 10 sec, 1h2m, PT1M10S.
func unitSeconds(text string) *int64 {
	text = strings.ToLower(text)
	if rest, ok := strings.CutPrefix(text, "p"); ok { // ISO 8601
		if text, ok = strings.CutPrefix(rest, "t"); !ok {
			return nil
		}
	}
	var total float64
	for text != "" {
		end := strings.IndexFunc(text, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
		if end <= 0 {
			return nil
		}
		n, err := strconv.ParseFloat(text[:end], 64)
		if err != nil {
			return nil
		}
		text = strings.TrimLeft(text[end:], " ")
		end = strings.IndexFunc(text, func(r rune) bool { return r < 'a' || r > 'z' })
		if end < 0 {
			end = len(text)
		}
		unit, known := secondsOf[text[:end]]
		if !known {
			return nil
		}
		total += n * unit
		text = strings.TrimLeft(text[end:], " .,")
		text = strings.TrimPrefix(text, "and ")
	}
	return wholeSeconds(total)
}
