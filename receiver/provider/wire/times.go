package wire

import (
	"strconv"
	"strings"
	"time"
)

// maxTime is the longest text that is read as a time.
const maxTime = 100

// ParseTime reads a time as PBXs write it, or returns nil.
//
// A time without an offset is of the zone. When clocks change, such a time may not exist or exist
// twice: both are read with the offset from before the change. So 01:30 in the hour that
// London skips is 02:30 summer time, and 01:30 in the hour that it repeats is the first one.
//
// Where day and month cannot be told apart it is nil: see numericDate.
func ParseTime(text string, zone *time.Location) *time.Time {
	if text == "" || len(text) > maxTime {
		return nil
	}
	if t, ok := usualTime(text); ok {
		return plausible(onTheClock(t, zone))
	}
	text = strings.TrimSpace(asciiDigits(text))
	if t := epoch(text); t != nil {
		return t
	}
	return writtenTime(expandBasic(text), zone)
}

// usualTime reads a time as Simotel, VoIPstudio and Acefone write it: 2006-01-02 15:04:05, perhaps with a fraction.
func usualTime(text string) (time.Time, bool) {
	const layout = "2006-01-02 15:04:05"
	if len(text) < len(layout) || len(text) > len(layout)+len(".123456789") || len(text) == len(layout)+1 {
		return time.Time{}, false
	}
	for i := range len(text) {
		want := byte('0') // any digit
		switch {
		case i < len(layout):
			want = layout[i]
		case i == len(layout):
			want = '.'
		}
		if isDigit(want) != isDigit(text[i]) || !isDigit(want) && text[i] != want {
			return time.Time{}, false
		}
	}
	month, day := atoi(text[5:7]), atoi(text[8:10])
	hour, minute, second := atoi(text[11:13]), atoi(text[14:16]), atoi(text[17:19])
	nanos := 0
	if len(text) > len(layout) {
		nanos = atoi((text[len(layout)+1:] + "000000000")[:9])
	}
	if month < 1 || month > 12 || hour > 23 || minute > 59 || second > 59 {
		return time.Time{}, false
	}
	t := time.Date(atoi(text[:4]), time.Month(month), day, hour, minute, second, nanos, time.UTC)
	return t, t.Day() == day
}

// writtenTime reads a time with a date and, but for a date alone, a time of day, in any order, perhaps with a zone.
func writtenTime(text string, zone *time.Location) *time.Time {
	if at := strings.IndexByte(text, '('); at > 0 { // JavaScript: (India Standard Time)
		text = text[:at]
	}
	before, clock, after, ok := cutClock(text)
	if !ok {
		return nil
	}
	date, iso := before, false
	if n := len(before); n > 1 && (before[n-1] == 'T' || before[n-1] == 't') && before[n-2] >= '0' && before[n-2] <= '9' {
		date, iso = before[:n-1], true
	}
	words := append(words(date), words(after)...)
	day, words, ok := parseDate(words, clock.twelve)
	if !ok {
		return nil
	}
	t := time.Date(day.year, time.Month(day.month), day.day, clock.hour, clock.minute, clock.second, clock.nanos, time.UTC)
	if t.Day() != day.day || t.Month() != time.Month(day.month) { // the 31st of February
		return nil
	}
	t, ok = inZone(t, words, zone, iso)
	if !ok {
		return nil
	}
	return plausible(t)
}

// words are those of a text, which blanks and commas divide, without weekdays and what says nothing.
func words(text string) []string {
	all := strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == ',' || r == '\t' })
	kept := all[:0]
	for _, word := range all {
		switch lower := strings.ToLower(strings.TrimSuffix(word, ".")); lower {
		case "mon", "tue", "tues", "wed", "thu", "thur", "thurs", "fri", "sat", "sun", "at", "on",
			"monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday":
		default:
			kept = append(kept, word)
		}
	}
	return kept
}

// clockTime is a time of day.
type clockTime struct {
	hour, minute, second, nanos int
	twelve                      bool // it was written with am or pm
}

// cutClock finds the time of day in a text; one without is midnight.
func cutClock(text string) (before string, clock clockTime, after string, ok bool) {
	colon := strings.IndexByte(text, ':')
	if colon < 0 {
		return text, clock, "", true
	}
	start := colon
	for start > 0 && isDigit(text[start-1]) {
		start--
	}
	hour, rest := text[start:colon], text[colon+1:]
	minute, rest := digits(rest)
	second, fraction := "0", ""
	if tail, found := strings.CutPrefix(rest, ":"); found {
		second, rest = digits(tail)
		if len(second) != 2 {
			return "", clock, "", false
		}
		if tail := strings.TrimLeft(rest, ".,"); len(tail) == len(rest)-1 && tail != "" && isDigit(tail[0]) {
			fraction, rest = digits(tail)
		}
	}
	if len(hour) < 1 || len(hour) > 2 || len(minute) != 2 {
		return "", clock, "", false
	}
	clock.hour, clock.minute, clock.second = atoi(hour), atoi(minute), atoi(second)
	clock.nanos = atoi((fraction + "000000000")[:9])
	rest, ok = clock.cutHalf(rest)
	return text[:start], clock, rest, ok && clock.hour < 24 && clock.minute < 60 && clock.second < 60
}

// cutHalf takes am or pm off what follows a time of day, and applies it.
func (c *clockTime) cutHalf(rest string) (after string, ok bool) {
	trimmed := strings.ToLower(strings.TrimLeft(rest, " "))
	for _, half := range []string{"am", "pm", "a.m.", "p.m."} {
		tail, found := strings.CutPrefix(trimmed, half)
		if !found || tail != "" && tail[0] >= 'a' && tail[0] <= 'z' {
			continue
		}
		c.twelve = true
		switch {
		case half[0] == 'p' && c.hour < 12:
			c.hour += 12
		case half[0] == 'a' && c.hour == 12:
			c.hour = 0
		case half[0] == 'a' && c.hour > 12:
			return "", false
		}
		return rest[len(rest)-len(tail):], true
	}
	return rest, true
}

// day is a date.
type day struct{ year, month, day int }

// parseDate reads the date among words; rest are the words that are no part of it.
func parseDate(words []string, twelve bool) (date day, rest []string, ok bool) {
	for i, word := range words {
		for _, separator := range []string{"-", "/", "."} {
			parts := strings.Split(word, separator)
			if len(parts) != 3 {
				continue
			}
			if date, ok = namedDate(parts); !ok {
				date, ok = numericDate(parts, separator, twelve)
			}
			if ok {
				return date, without(words, i, 1), true
			}
		}
		if len(word) == 8 && strings.Trim(word, "0123456789") == "" { // 20260711
			return day{atoi(word[:4]), atoi(word[4:6]), atoi(word[6:])}, without(words, i, 1), true
		}
	}
	return separateDate(words)
}

// separateDate reads a date with the month's name whose parts are words of their own: Jul 11 2026, 11 July 2026, and with the
// year at the end, where UNIX has it.
func separateDate(words []string) (date day, rest []string, ok bool) {
	for i, word := range words {
		if monthOf(word) == 0 {
			continue
		}
		for from := max(0, i-1); from <= i && from+3 <= len(words); from++ {
			if date, ok = namedDate(words[from : from+3]); ok {
				return date, without(words, from, 3), true
			}
		}
		last := len(words) - 1
		if i+1 < last {
			if date, ok = namedDate([]string{word, words[i+1], words[last]}); ok {
				return date, without(words[:last], i, 2), true
			}
		}
	}
	return day{}, nil, false
}

func without(words []string, from, n int) []string {
	return append(append([]string{}, words[:from]...), words[from+n:]...)
}

// namedDate reads the three parts of a date with the name of a month.
func namedDate(parts []string) (day, bool) {
	var d day
	for _, part := range parts {
		number := strings.TrimRight(strings.ToLower(part), "stndrh.,")
		switch month := monthOf(part); {
		case month > 0 && d.month == 0:
			d.month = month
		case number == "" || strings.Trim(number, "0123456789") != "":
			return d, false
		case len(number) == 4 && d.year == 0:
			d.year = atoi(number)
		case len(number) <= 2 && d.day == 0:
			d.day = atoi(number)
		default:
			return d, false
		}
	}
	return d, d.year > 0 && d.month > 0 && d.day > 0
}

// numericDate reads the three numbers of a date. With the year in front the month follows it. With the year at the end
// one number above 12 is the day; else the day comes first with hyphens and points, the month with slashes and am or
// pm, as Acefone's dialler writes it; with slashes alone they cannot be told apart.
func numericDate(parts []string, separator string, twelve bool) (day, bool) {
	for _, part := range parts {
		if part == "" || len(part) > 4 || strings.Trim(part, "0123456789") != "" {
			return day{}, false
		}
	}
	a, b, c := atoi(parts[0]), atoi(parts[1]), atoi(parts[2])
	switch {
	case len(parts[0]) == 4 && len(parts[1]) <= 2 && len(parts[2]) <= 2:
		return day{a, b, c}, b >= 1 && b <= 12
	case len(parts[2]) != 4 || len(parts[0]) > 2 || len(parts[1]) > 2:
		return day{}, false
	case a > 12, separator != "/" && b <= 12, a == b:
		return day{c, b, a}, b >= 1 && b <= 12
	case b > 12, twelve:
		return day{c, a, b}, a >= 1
	}
	return day{}, false
}

var months = []string{"january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december"}

// monthOf is the number of a month by its English name or that one's first letters, or 0.
func monthOf(word string) int {
	word = strings.ToLower(strings.Trim(word, ".,"))
	for i, name := range months {
		if word == name || len(word) == 3 && strings.HasPrefix(name, word) {
			return i + 1
		}
	}
	if word == "sept" {
		return 9
	}
	return 0
}

// expandBasic writes a time in ISO 8601's basic form, such as 20260711T211256Z or 20260711211256, with its separators.
func expandBasic(text string) string {
	figures, rest := digits(text)
	switch {
	case len(figures) == 14 && (figures[0] == '1' || figures[0] == '2'):
		return figures[:8] + " " + figures[8:10] + ":" + figures[10:12] + ":" + figures[12:] + rest
	case len(figures) == 8 && len(rest) >= 7 && (rest[0] == 'T' || rest[0] == 't'):
		if clock, tail := digits(rest[1:]); len(clock) == 6 {
			return figures + "T" + clock[:2] + ":" + clock[2:4] + ":" + clock[4:] + tail
		}
	}
	return text
}

// epoch reads seconds since 1970, perhaps with a fraction or in scientific notation, milliseconds, and microseconds or
// nanoseconds, which count to the second.
func epoch(text string) *time.Time {
	if text == "" || !isDigit(text[0]) || strings.Trim(text, "0123456789.eE+") != "" {
		return nil
	}
	seconds, fraction, _ := strings.Cut(wholeFloat(text), ".")
	if strings.Trim(seconds+fraction, "0123456789") != "" {
		return nil
	}
	n, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return nil
	}
	switch len(seconds) {
	case 9, 10, 11:
		return plausible(time.Unix(n, int64(atoi((fraction + "000000000")[:9]))))
	case 12, 13:
		return plausible(time.UnixMilli(n))
	case 15, 16:
		return plausible(time.UnixMicro(n).Truncate(time.Second))
	case 18, 19:
		return plausible(time.Unix(0, n).Truncate(time.Second))
	}
	return nil
}

// plausible is a time in UTC, or nil where it is none that a PBX means: 0000-00-00 and the beginning of 1970 stand for
// nothing.
func plausible(t time.Time) *time.Time {
	const twoDays = 2 * 24 * 60 * 60
	if t.Unix() < twoDays || t.Year() > 9998 {
		return nil
	}
	t = t.UTC()
	return &t
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// atoi is the number of a few digits.
func atoi(figures string) int {
	n := 0
	for i := range len(figures) {
		n = n*10 + int(figures[i]-'0')
	}
	return n
}
