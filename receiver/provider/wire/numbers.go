package wire

import (
	"math"
	"net/url"
	"strconv"
	"strings"
	"unicode"

	"github.com/nyaruka/phonenumbers"

	"github.com/pbxhook/pbxhook/receiver/event"
)

// maxNumber is the longest text that is read as a number, with all that may stand around one.
const maxNumber = 256

// Party is one end of a call by the text that the PBX has for it. Its number is E.164 where that
// follows from the text and the settings alone, else empty.
func (s Settings) Party(raw string) event.Party {
	clean, blank := cleanNumber(raw)
	party := event.Party{Raw: strings.TrimSpace(raw)}
	if isExtension(clean) {
		party.Extension = clean
	} else {
		party.Number = e164(clean, blank, s.Region, s.International)
	}
	return party
}

// isExtension: 2 to 6 digits with no plus sign are an internal number.
func isExtension(clean string) bool {
	return len(clean) >= 2 && len(clean) <= 6 && strings.Trim(clean, "0123456789") == ""
}

// E164 is a phone number in E.164, or empty where its country does not follow from the text, the
// region (ISO, may be empty), and whether numbers are written internationally without a plus sign.
func E164(raw, region string, international bool) string {
	clean, blank := cleanNumber(raw)
	return e164(clean, blank, region, international)
}

// e164 is that of a number that was cleaned; blank says that it began with one.
func e164(clean string, blank bool, region string, international bool) string {
	if len(clean) < 5 || len(clean) > 32 || strings.Trim(clean, "+0123456789 ()./-") != "" {
		return ""
	}
	number := numeral{clean, region, international}
	if !blank {
		return known.get(number)
	}
	// a number does not begin with a blank, but for one whose plus sign became one: unless it can be another number
	number.raw = "+" + clean
	abroad := known.get(number)
	number.raw = clean
	if here := known.get(number); here != "" || abroad == "" {
		return here
	}
	return abroad
}

// TellsCountry reports whether a number says itself which country it is of: by a plus sign or by 00.
func TellsCountry(raw string) bool {
	clean, _ := cleanNumber(raw)
	return strings.HasPrefix(clean, "+") || strings.HasPrefix(clean, "00")
}

// Choose returns the party that several keys tell of, by what the request has under each: the first one that says something,
// with the number of another one where Prefer takes that.
func (s Settings) Choose(raws ...string) event.Party {
	var chosen event.Party
	for _, raw := range raws {
		if strings.TrimSpace(raw) == "" {
			continue
		}
		party := s.Party(raw)
		if chosen.Raw == "" {
			chosen = party
		} else {
			chosen = Prefer(chosen, party, false)
		}
	}
	return chosen
}

// Prefer returns a party with the number of another one where that is the same number and says its country, by itself or
// because its key is known to hold numbers with their country code (prefixed): it comes before a number that was parsed in the
// default region. So 2125550143 beside +12125550143 is not a number of India.
func Prefer(party, other event.Party, prefixed bool) event.Party {
	if (prefixed || TellsCountry(other.Raw)) && !TellsCountry(party.Raw) && sameNumber(other.Number, party.Raw) {
		party.Number, party.Extension = other.Number, ""
	}
	return party
}

// SameNumber reports whether two numbers, as they were sent, have the same digits, but for the country code of one.
func SameNumber(one, other string) bool {
	a, b := nationalDigits(one), nationalDigits(other)
	const shortest = 7
	return len(a) >= shortest && len(b) >= shortest && (strings.HasSuffix(a, b) || strings.HasSuffix(b, a))
}

func nationalDigits(raw string) string {
	clean, _ := cleanNumber(raw)
	return strings.TrimLeft(digitsOf(clean), "0")
}

// sameNumber reports whether a number in E.164 is another one with its country code.
func sameNumber(e164, other string) bool {
	national := nationalDigits(other)
	return len(national) >= 7 && strings.HasSuffix(e164, national)
}

func digitsOf(text string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, text)
}

// cleanNumber is a number without what PBXs and relays write around it: the name and the brackets of a display name, the
// scheme and the host of an address, direction marks; digits are ASCII, and a whole float is a whole number. blank says that
// it began with a blank.
func cleanNumber(raw string) (clean string, blank bool) {
	if isPlainNumber(raw) {
		return raw, false
	}
	if len(raw) > maxNumber {
		return raw, false
	}
	text := asciiDigits(raw)
	trimmed := strings.TrimSpace(text)
	blank = len(text) > 0 && text[0] == ' ' && trimmed != ""
	text = trimmed
	if open := strings.LastIndexByte(text, '<'); open >= 0 {
		if end := strings.IndexByte(text[open:], '>'); end > 0 {
			text, blank = text[open+1:open+end], false
		}
	}
	text = strings.TrimSpace(strings.Trim(text, `"'`))
	if rest, ok := cutScheme(text); ok {
		text, blank = rest, false
	}
	if user, _, address := strings.Cut(text, "@"); address {
		text, blank = user, false
	}
	return wholeFloat(strings.TrimSpace(text)), blank
}

// isPlainNumber reports whether a text needs no cleaning, as most do not.
func isPlainNumber(raw string) bool {
	for i := range len(raw) {
		if c := raw[i]; (c < '0' || c > '9') && (c != '+' || i > 0) {
			return false
		}
	}
	return true
}

// cutScheme takes the scheme off an address such as tel:+44… or sip:1001@pbx, and what follows its user part.
func cutScheme(text string) (rest string, ok bool) {
	scheme, rest, ok := strings.Cut(text, ":")
	if !ok {
		return text, false
	}
	switch strings.ToLower(scheme) {
	case "tel", "sip", "sips", "callto", "phone":
	default:
		return text, false
	}
	rest = strings.TrimPrefix(rest, "//")
	rest, _, _ = strings.Cut(rest, "@")
	rest, _, _ = strings.Cut(rest, ";")
	if plain, err := url.PathUnescape(rest); err == nil {
		rest = plain
	}
	return rest, true
}

// asciiDigits turns the digits of other scripts into ASCII ones, other blanks and plus signs into plain ones, and leaves out
// marks that show nothing, such as those of the direction of text.
func asciiDigits(text string) string {
	if isASCII(text) {
		return text
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r <= unicode.MaxASCII:
			return r
		case unicode.Is(unicode.Cf, r):
			return -1
		case unicode.Is(unicode.Zs, r):
			return ' '
		case r == '\uff0b':
			return '+'
		case r >= '\u2010' && r <= '\u2015', r == '\u2212':
			return '-'
		case unicode.Is(unicode.Nd, r):
			return digit(r)
		}
		return r
	}, text)
}

// digit is a decimal digit of any script in ASCII: each script has its ten in a row.
func digit(r rune) rune {
	for _, block := range unicode.Nd.R16 {
		if uint16(min(r, math.MaxUint16)) >= block.Lo && r <= rune(block.Hi) {
			return '0' + (r-rune(block.Lo))%10
		}
	}
	for _, block := range unicode.Nd.R32 {
		if uint32(r) >= block.Lo && uint32(r) <= block.Hi {
			return '0' + (r-rune(block.Lo))%10
		}
	}
	return r
}

func isASCII(text string) bool {
	for i := range len(text) {
		if text[i] > unicode.MaxASCII {
			return false
		}
	}
	return true
}

// wholeFloat is a whole number that was written as a float, such as 447854000947.0 or 9.876500042e9, without its point; any
// other text as it is. One whose last digits were rounded away, such as 9.88E+09, is no number any more.
func wholeFloat(text string) string {
	mantissa, exponent, scientific := strings.Cut(strings.ToLower(text), "e")
	plus := strings.HasPrefix(mantissa, "+")
	whole, fraction, point := strings.Cut(strings.TrimPrefix(mantissa, "+"), ".")
	if !point && !scientific || whole == "" || strings.Trim(whole+fraction, "0123456789") != "" {
		return text
	}
	shift := 0
	if scientific {
		n, err := strconv.Atoi(exponent)
		if err != nil || n < 0 || n > 18 {
			return text
		}
		shift = n
	}
	fraction = strings.TrimRight(fraction, "0")
	const zeros, exact = 2, 9 // zeros at the end that a number may well have, and digits that nobody rounds to
	if len(fraction) > shift || shift-len(fraction) > zeros && len(whole)+len(fraction) < exact {
		return text
	}
	digits := whole + fraction + strings.Repeat("0", shift-len(fraction))
	if scientific {
		digits = strings.TrimLeft(digits, "0")
	}
	if plus {
		digits = "+" + digits
	}
	return digits
}

// WholeNumber is a whole number that a relay wrote as a float, without its point; any other text as it is.
func WholeNumber(text string) string { return wholeFloat(text) }

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
	if abroad, ok := strings.CutPrefix(n.raw, "00"); ok {
		if e164 := valid("+"+abroad, "ZZ"); e164 != "" {
			return e164
		}
	}
	if n.international && !strings.HasPrefix(n.raw, "0") {
		if e164 := valid("+"+n.raw, "ZZ"); e164 != "" {
			return e164
		}
	}
	if n.region != "" {
		return valid(n.raw, n.region)
	}
	return ""
}

// valid is a number in E.164, or empty where no such number is given out.
func valid(raw, region string) string {
	number, err := phonenumbers.Parse(raw, region)
	if err != nil || !phonenumbers.IsValidNumber(number) {
		return ""
	}
	return phonenumbers.Format(number, phonenumbers.E164)
}
