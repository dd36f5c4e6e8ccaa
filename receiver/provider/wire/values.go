package wire

import (
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/pbxhook/pbxhook/receiver/event"
)

// offsetLayouts are the ways in which PBXs write times with an offset. Go reads a fraction of a second
// after each.
var offsetLayouts = []string{
	"2006-01-02T15:04:05Z07:00", // Acefone, ISO 8601
	"2006-01-02T15:04:05Z0700",
	"2006-01-02 15:04:05Z07:00",
	"2006-01-02 15:04:05 Z07:00",
	"2006-01-02 15:04:05 Z0700",
}

// layouts are the ways in which PBXs write times without an offset.
var layouts = []string{
	"2006-01-02 15:04:05",   // Simotel, VoIPstudio, Acefone
	"2006-01-02T15:04:05",   // Acefone, ISO 8601
	"1/2/2006, 3:04:05 PM",  // Acefone's dialler
	"15:04:05 2006-01-02",   // Simotel: table of the Cdr page, written from right to left
	"2006-01-02 3:04:05 PM", // Acefone, 12 hours
	"2006-01-02 15:04",
	"2006-01-02",
}

// Time is the field as a time in UTC, or nil where there is none. Times without an offset are of
// the settings' zone; epoch times may have a fraction or be in milliseconds.
func (f Fields) Time(settings Settings, keys ...string) *time.Time {
	for _, key := range keys {
		if t := ParseTime(f.Text(key), settings.Location); t != nil {
			return t
		}
	}
	return nil
}

// plainSpaces turns the spaces that browsers' libraries write, as in 9:12:56\u202fPM, into plain ones.
var plainSpaces = strings.NewReplacer("\u202f", " ", "\u00a0", " ")

// ParseTime reads a time as PBXs write it, or returns nil.
//
// A time without an offset is of the zone. When clocks change, such a time may not exist or exist
// twice: both are read with the offset that was in force before the change. So 01:30 in the hour that
// London skips is 02:30 summer time, and 01:30 in the hour that it repeats is the first one.
func ParseTime(text string, zone *time.Location) *time.Time {
	if text == "" || len(text) > 64 {
		return nil
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r > unicode.MaxASCII }) { // seldom
		text = plainSpaces.Replace(text)
	}
	for _, layout := range layouts {
		if t, err := time.Parse(layout, text); err == nil {
			return inUTC(onTheClock(t, zone))
		}
	}
	for _, layout := range offsetLayouts {
		if t, err := time.Parse(layout, text); err == nil {
			return inUTC(t)
		}
	}
	return epoch(text)
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

// epoch reads seconds since 1970, perhaps with a fraction, or milliseconds.
func epoch(text string) *time.Time {
	seconds, fraction, _ := strings.Cut(text, ".")
	if len(seconds) < 9 || len(seconds) > 13 {
		return nil
	}
	n, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil || n <= 0 {
		return nil
	}
	if len(seconds) >= 12 {
		return inUTC(time.UnixMilli(n))
	}
	nanos, err := strconv.ParseUint((fraction + "000000000")[:9], 10, 32)
	if err != nil {
		return nil
	}
	return inUTC(time.Unix(n, int64(nanos)))
}

func inUTC(t time.Time) *time.Time {
	if year := t.Year(); year < 1970 || year > 9998 { // 0000-00-00 and the like say nothing
		return nil
	}
	t = t.UTC()
	return &t
}

// Party is one end of a call by the text that the PBX has for it. Its number is E.164 where that
// follows from the text and the settings alone, else empty.
func (s Settings) Party(raw string) event.Party {
	raw = strings.TrimSpace(raw)
	if isExtension(raw) {
		return event.Party{Raw: raw, Extension: raw}
	}
	return event.Party{Raw: raw, Number: E164(raw, s.Region, s.International)}
}

// isExtension: 2 to 6 digits with no plus sign are an internal number.
func isExtension(raw string) bool {
	return len(raw) >= 2 && len(raw) <= 6 && strings.Trim(raw, "0123456789") == ""
}

// First is the first text that is not empty.
func First(texts ...string) string {
	for _, text := range texts {
		if text != "" {
			return text
		}
	}
	return ""
}
