package wire

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/text/encoding"
)

// maxParameters is how many query parameters or form fields of one request are read.
const maxParameters = 10_000

// addParameters reads parameters as PBXs write them: "+" is a space, a broken escape stands for
// itself, and the first of several values counts, but for keys such as detail[][dst], which have all of them.
func (f *Fields) addParameters(text string, charset encoding.Encoding) error {
	doubly := isDoublyEncoded(text)
	for n := 0; text != ""; n++ {
		if n == maxParameters {
			return fmt.Errorf("expected at most %d parameters", maxParameters)
		}
		var pair string
		pair, text, _ = strings.Cut(text, "&")
		key, value, _ := strings.Cut(pair, "=")
		key, value = decodeValue(unescape(key), charset), decodeValue(unescapeValue(value), charset)
		if doubly {
			value = unescape(value)
		}
		if key == "" {
			continue
		}
		read := nested(value)
		if seen, ok := f.sent[key]; !ok {
			f.sent[key] = read
		} else if strings.Contains(key, "[]") {
			f.repeat(key, seen, read)
		}
	}
	return nil
}

// repeat adds one more value of a key such as detail[][dst].
func (f *Fields) repeat(key string, seen, value any) {
	list, ok := seen.([]any)
	if !f.repeated[key] || !ok {
		list = []any{seen}
		f.noteRepeated(key)
	}
	f.sent[key] = append(list, value)
}

// noteRepeated notes that a key came more than once, so that its value is the list of them.
func (f *Fields) noteRepeated(key string) {
	if f.repeated == nil {
		f.repeated = map[string]bool{}
	}
	f.repeated[key] = true
}

// unescapeValue unescapes a value. A literal plus sign in front of a number is one: no value of a PBX begins with a blank.
func unescapeValue(value string) string {
	plain := unescape(value)
	const shortest = 7
	if len(value) > shortest && value[0] == '+' && strings.Trim(plain, "0123456789 ()-") == "" && isAbroad(plain) {
		return "+" + plain[1:]
	}
	return plain
}

// isAbroad reports whether digits are a number with its country code.
func isAbroad(text string) bool { return known.get(numeral{raw: "00" + digitsOf(text)}) != "" }

func unescape(text string) string {
	if strings.IndexByte(text, '%') < 0 && strings.IndexByte(text, '+') < 0 {
		return text
	}
	if plain, err := url.QueryUnescape(text); err == nil {
		return plain
	}
	return text
}

// isDoublyEncoded reports whether all parameters with an escape have it escaped again, as a relay does that encodes what is
// encoded: %252B in place of %2B.
func isDoublyEncoded(text string) bool {
	if !strings.Contains(text, "%25") {
		return false
	}
	for at := strings.IndexByte(text, '%'); at >= 0; {
		rest := text[at+1:]
		if !strings.HasPrefix(rest, "25") || len(rest) < 4 || !isHex(rest[2]) || !isHex(rest[3]) {
			return false
		}
		next := strings.IndexByte(rest, '%')
		if next < 0 {
			return true
		}
		at += 1 + next
	}
	return true
}

func isHex(c byte) bool {
	return isDigit(c) || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

// RepairQuery is a query whose parameters were appended to an address that had a query of its own with another question
// mark, such as api_key=x?event_name=Cdr, with an ampersand in its place.
func RepairQuery(query string) string {
	if strings.IndexByte(query, '?') < 0 {
		return query
	}
	query = strings.TrimLeft(query, "?&")
	const most = 8 // question marks that are looked at
	for n, from := 0, 0; n < most; n++ {
		at := strings.IndexByte(query[from:], '?')
		if at < 0 {
			break
		}
		at += from
		pair := strings.ToLower(query[strings.LastIndexByte(query[:at], '&')+1 : at])
		key, _, parameter := strings.Cut(query[at+1:], "=")
		isURL := strings.Contains(pair, "://") || strings.Contains(pair, "%3a%2f%2f") // which has a query of its own
		if parameter && !isURL && isIdentifier(key) && !strings.Contains(key, " ") {
			query = query[:at] + "&" + strings.TrimLeft(query[at+1:], "?&")
		}
		from = at + 1
	}
	return query
}

// nest puts the value of a key such as detail[0][dst] where it would be in JSON, as PHP reads forms. An empty step adds to a
// list: the values of repeated keys are those of its elements in turn.
func nest(objects map[string]any, key string, value any, repeated bool) {
	name, rest, _ := strings.Cut(strings.TrimSuffix(key, "]"), "[")
	steps := append([]string{name}, strings.Split(rest, "][")...)
	if len(steps) > maxDepth {
		return
	}
	empty := slices.Index(steps, "")
	if empty <= 0 {
		nestAt(objects, steps, value)
		return
	}
	values := []any{value}
	if list, ok := value.([]any); ok && repeated {
		values = list
	}
	for i, one := range values {
		at := slices.Clone(steps)
		at[empty] = fmt.Sprint(i)
		nestAt(objects, at, one)
	}
}

func nestAt(objects map[string]any, steps []string, value any) {
	last := len(steps) - 1
	for _, step := range steps[:last] {
		inner, ok := objects[step].(map[string]any)
		if !ok {
			inner = map[string]any{}
			objects[step] = inner
		}
		objects = inner
	}
	objects[steps[last]] = value
}
