package admin

import (
	"regexp"
	"slices"
	"strings"
)

// Numbers and recording links are shown to those who ask for them. What stands for a number keeps its last
// three digits, so that calls can be told apart.

const (
	shownDigits = 3
	longNumber  = 7 // digits from which on what looks like a number may be one
)

// MaskNumber hides a number; what is too short to be one outside the company stays.
func MaskNumber(number string) string {
	if len(Digits(number)) < longNumber {
		return number
	}
	return hide(number)
}

// hide puts a dot for each digit but the last three.
func hide(number string) string {
	left := len(Digits(number)) - shownDigits
	return strings.Map(func(r rune) rune {
		if r < '0' || r > '9' {
			return r
		}
		if left--; left >= 0 {
			return '•'
		}
		return r
	}, number)
}

// Digits are those of a text.
func Digits(text string) string {
	return strings.Map(func(r rune) rune {
		if r < '0' || r > '9' {
			return -1
		}
		return r
	}, text)
}

const (
	linkPattern = `(?:https?:(?:\\?/){2}[^"'<>\s]+|https?%3A%2F%2F[^"'<>\s&]+)`
	// what looks like a number and is a time
	timePattern   = `\d{4}-\d\d-\d\d(?:(?:[T +]|%20)\d\d(?::|%3A)\d\d(?:(?::|%3A)\d\d)?(?:\.\d+)?)?`
	numberPattern = `(?:%2B)?\+?\d[\d ().-]{5,22}\d`
)

var (
	isLink   = regexp.MustCompile(`^` + linkPattern + `$`)
	isNumber = regexp.MustCompile(`^` + numberPattern + `$`)
	isTime   = regexp.MustCompile(`^` + timePattern + `$`)
	place    = regexp.MustCompile(`^(?:https?:(?:\\?/){2}|https?%3A%2F%2F)[^/\\%?#]*`)
)

// Mask hides what may be a number or lead to a recording in texts of any shape, such as requests.
type Mask struct {
	Keep []string // stay as they are: ids of calls and events
	Hide []string // are hidden whatever they look like: names of recordings
}

// Text is a text with those hidden.
func (m Mask) Text(text string) string {
	for _, hidden := range m.Hide {
		if hidden != "" {
			text = strings.ReplaceAll(text, hidden, "•••")
		}
	}
	patterns := make([]string, 0, len(m.Keep)+3)
	for _, kept := range m.Keep {
		if kept != "" {
			patterns = append(patterns, regexp.QuoteMeta(kept))
		}
	}
	patterns = append(patterns, linkPattern, timePattern, numberPattern)
	return regexp.MustCompile(strings.Join(patterns, "|")).ReplaceAllStringFunc(text, func(found string) string {
		switch {
		case slices.Contains(m.Keep, found), isTime.MatchString(found):
			return found
		case isLink.MatchString(found):
			return place.FindString(found) + "/•••"
		case isNumber.MatchString(found):
			number, encoded := strings.CutPrefix(found, "%2B")
			if encoded {
				return "%2B" + MaskNumber(number)
			}
			return MaskNumber(number)
		}
		return found
	})
}
