package wire

import (
	"strconv"
	"strings"
	"time"

	"github.com/nyaruka/phonenumbers"

	"github.com/pbxhook/pbxhook/receiver/event"
)

// layouts are the ways in which PBXs write times without an offset. Go reads a fraction of a second
// after each.
var layouts = []string{
	"2006-01-02 15:04:05",    // Simotel, VoIPstudio, Acefone
	"2006-01-02T15:04:05",    // Acefone, ISO 8601
	"1/2/2006, 3:04:05 PM",   // Acefone's dialler
	"02/01/2006 15:04:05",    // Smartflo's older text
	"2006-01-02 03:04:05 PM", // Acefone, 12 hours
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

// ParseTime reads a time as PBXs write it, or returns nil. A time that a zone does not have, or has
// twice, when clocks change, is taken as Go's time package does.
func ParseTime(text string, zone *time.Location) *time.Time {
	if text == "" || len(text) > 64 {
		return nil
	}
	if zone == nil {
		zone = time.UTC
	}
	if t, err := time.Parse(time.RFC3339Nano, strings.Replace(text, " ", "T", 1)); err == nil {
		return inUTC(t)
	}
	for _, layout := range layouts {
		if t, err := time.ParseInLocation(layout, text, zone); err == nil {
			return inUTC(t)
		}
	}
	if seconds, fraction, _ := strings.Cut(text, "."); len(seconds) >= 9 && len(seconds) <= 13 {
		if n, err := strconv.ParseInt(seconds, 10, 64); err == nil && n > 0 {
			if len(seconds) >= 12 {
				return inUTC(time.UnixMilli(n))
			}
			nanos, _ := strconv.ParseInt((fraction + "000000000")[:9], 10, 64)
			return inUTC(time.Unix(n, nanos))
		}
	}
	return nil
}

func inUTC(t time.Time) *time.Time {
	if year := t.Year(); year < 1970 || year > 9998 { // 0000-00-00 and the like say nothing
		return nil
	}
	t = t.UTC()
	return &t
}

// Party is one end of a call. Its number is E.164 where that follows from the text and the region
// alone, else empty; international says that the provider writes numbers with their country code
// and no plus sign.
func (s Settings) Party(raw, name string, international bool) event.Party {
	raw = strings.TrimSpace(raw)
	party := event.Party{Raw: raw, Name: name}
	if isExtension(raw) {
		party.Extension = raw
		return party
	}
	party.Number = E164(raw, s.Region, international)
	return party
}

// isExtension: 2 to 6 digits with no plus sign are an internal number.
func isExtension(raw string) bool {
	return len(raw) >= 2 && len(raw) <= 6 && strings.Trim(raw, "0123456789") == ""
}

// E164 is a phone number in E.164, or empty where its country does not follow from the text, the
// region (ISO, may be empty), and whether numbers are written internationally without a plus sign.
func E164(raw, region string, international bool) string {
	if len(raw) < 5 || len(raw) > 32 || strings.Trim(raw, "+0123456789 ()./-") != "" {
		return ""
	}
	if strings.HasPrefix(raw, "+") {
		number, err := phonenumbers.Parse(raw, "ZZ")
		if err != nil || !phonenumbers.IsPossibleNumber(number) {
			return ""
		}
		return phonenumbers.Format(number, phonenumbers.E164)
	}
	if international && !strings.HasPrefix(raw, "0") {
		if number, err := phonenumbers.Parse("+"+raw, "ZZ"); err == nil && phonenumbers.IsValidNumber(number) {
			return phonenumbers.Format(number, phonenumbers.E164)
		}
	}
	if region != "" {
		if number, err := phonenumbers.Parse(raw, region); err == nil && phonenumbers.IsValidNumber(number) {
			return phonenumbers.Format(number, phonenumbers.E164)
		}
	}
	return ""
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
