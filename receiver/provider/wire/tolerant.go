package wire

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxDepth is how deep objects and lists may nest.
const maxDepth = 64

// tolerant reads what PBX manuals print as JSON and is not: numbers with leading zeros and no
// quotes ("number": 09331112233), Python literals (single quotes, u'…', None, True, False), times
// without quotes, trailing commas and raw control characters in texts (Simotel: pages IncomingCall,
// OutgoingFax, Survey, AutoDialerReport).
//
// exact says that the text is JSON already, with nothing in it to replace or to leave out.
func tolerant(text []byte) (value any, exact bool, err error) {
	p := &parser{text: string(text), exact: true} // once, and what it holds is cut from it
	value, err = p.value(0)
	if err != nil {
		return nil, false, err
	}
	if p.space(); p.at < len(p.text) {
		return nil, false, p.errorf("expected the end")
	}
	return value, p.exact, nil
}

// usualFields is how many fields a request has, about: a map that must grow costs more than a large one.
const usualFields = 16

type parser struct {
	text  string
	at    int
	exact bool
}

func (p *parser) errorf(format string, args ...any) error {
	return fmt.Errorf("%s at byte %d", fmt.Sprintf(format, args...), p.at)
}

func (p *parser) space() {
	for p.at < len(p.text) {
		switch p.text[p.at] {
		case ' ', '\t', '\r', '\n', 0:
			p.at++
			p.exact = false
		default:
			return
		}
	}
}

// next is the next byte that is not white space, or 0 at the end.
func (p *parser) next() byte {
	p.space()
	if p.at == len(p.text) {
		return 0
	}
	return p.text[p.at]
}

func (p *parser) value(depth int) (any, error) {
	if depth > maxDepth {
		return nil, p.errorf("nested deeper than %d", maxDepth)
	}
	switch p.next() {
	case 0:
		return nil, p.errorf("expected a value, got the end")
	case '{':
		return p.object(depth)
	case '[':
		return p.list(depth)
	case '"', '\'':
		return p.quoted()
	default:
		return p.bare(",{}[]\"'\r\n")
	}
}

func (p *parser) object(depth int) (any, error) {
	p.at++ // {
	object := map[string]any{}
	if depth == 0 {
		object = make(map[string]any, usualFields)
	}
	for {
		if p.next() == '}' {
			p.at++
			return object, nil
		}
		key, err := p.key()
		if err != nil {
			return nil, err
		}
		if p.next() != ':' {
			return nil, p.errorf("expected a colon after a key")
		}
		p.at++
		value, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		known := len(object)
		object[key] = value
		p.exact = p.exact && len(object) > known // once
		if err := p.separator('}'); err != nil {
			return nil, err
		}
	}
}

// key reads a key, which may lack its quotes but cannot be an object or list.
func (p *parser) key() (string, error) {
	if c := p.next(); c == '"' || c == '\'' {
		return p.quoted()
	}
	p.exact = false
	value, err := p.bare(",:{}[]\"'\r\n")
	return Text(value), err
}

func (p *parser) list(depth int) (any, error) {
	p.at++ // [
	list := []any{}
	for {
		if p.next() == ']' {
			p.at++
			return list, nil
		}
		value, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		list = append(list, value)
		if err := p.separator(']'); err != nil {
			return nil, err
		}
	}
}

// separator passes a comma; the closing bracket is left to the caller.
func (p *parser) separator(closing byte) error {
	switch p.next() {
	case ',':
		p.at++
		if p.next() == closing {
			p.exact = false
		}
		return nil
	case closing:
		return nil
	}
	return p.errorf("expected a comma or %q", closing)
}

func (p *parser) quoted() (string, error) {
	quote := p.text[p.at]
	p.at++
	for end := p.at; end < len(p.text); end++ { // most texts have nothing to replace
		switch c := p.text[end]; {
		case c == quote:
			start := p.at
			p.at = end + 1
			p.exact = p.exact && quote == '"'
			return p.text[start:end], nil
		case c < ' ' || c == '\\' || c >= utf8.RuneSelf:
			return p.unusual(quote)
		}
	}
	return "", p.errorf("expected a closing %q, got the end", quote)
}

// unusual reads the rest of a text with something in it to replace, or that only looks so.
func (p *parser) unusual(quote byte) (string, error) {
	p.exact = false
	var text strings.Builder
	for p.at < len(p.text) {
		c := p.text[p.at]
		p.at++
		switch c {
		case quote:
			return strings.ToValidUTF8(text.String(), string(utf8.RuneError)), nil
		case '\\':
			p.escape(&text)
		default:
			text.WriteByte(c)
		}
	}
	return "", p.errorf("expected a closing %q, got the end", quote)
}

// escape reads what follows a backslash. An escape that JSON does not know stands for itself.
func (p *parser) escape(text *strings.Builder) {
	if p.at == len(p.text) {
		return
	}
	c := p.text[p.at]
	p.at++
	switch c {
	case 'n':
		text.WriteByte('\n')
	case 't':
		text.WriteByte('\t')
	case 'r':
		text.WriteByte('\r')
	case 'b':
		text.WriteByte('\b')
	case 'f':
		text.WriteByte('\f')
	case 'u':
		p.unicode(text)
	default:
		text.WriteByte(c)
	}
}

// unicode reads the four digits after \u, and the second half of a pair of surrogates.
func (p *parser) unicode(text *strings.Builder) {
	if p.at+4 > len(p.text) {
		text.WriteByte('u')
		return
	}
	end := p.at + 4
	if end+6 <= len(p.text) && p.text[end] == '\\' && p.text[end+1] == 'u' {
		var pair string
		if json.Unmarshal([]byte(`"\u`+p.text[p.at:end+6]+`"`), &pair) == nil && utf8.RuneCountInString(pair) == 1 {
			text.WriteString(pair)
			p.at = end + 6
			return
		}
	}
	code, err := strconv.ParseUint(p.text[p.at:end], 16, 16)
	if err != nil {
		text.WriteByte('u')
		return
	}
	text.WriteRune(rune(code))
	p.at = end
}

// bare reads a word without quotes, up to one of the ends: a constant, a number, or text such as
// 09331112233.
func (p *parser) bare(ends string) (any, error) {
	start := p.at
	for p.at < len(p.text) && strings.IndexByte(ends, p.text[p.at]) < 0 {
		p.at++
	}
	word := strings.TrimSpace(p.text[start:p.at])
	p.exact = p.exact && len(word) == p.at-start
	if quote := p.next(); (quote == '"' || quote == '\'') && len(word) == 1 && strings.ContainsAny(word, "uUbBrR") {
		p.exact = false
		return p.quoted() // Python's u'…' and b'…'
	}
	switch word {
	case "":
		return nil, p.errorf("expected a value")
	case "null", "None", "undefined", "NaN":
		p.exact = p.exact && word == "null"
		return nil, nil
	case "true", "True":
		p.exact = p.exact && word == "true"
		return true, nil
	case "false", "False":
		p.exact = p.exact && word == "false"
		return false, nil
	}
	if isNumber(word) {
		return json.Number(word), nil
	}
	p.exact = false
	return strings.ToValidUTF8(word, string(utf8.RuneError)), nil
}

// isNumber is whether a word is a number as JSON has them.
func isNumber(word string) bool {
	rest := strings.TrimPrefix(word, "-")
	whole, rest := digits(rest)
	if whole == "" || len(whole) > 1 && whole[0] == '0' {
		return false
	}
	if fraction, found := strings.CutPrefix(rest, "."); found {
		var figures string
		if figures, rest = digits(fraction); figures == "" {
			return false
		}
	}
	if rest != "" && (rest[0] == 'e' || rest[0] == 'E') {
		rest = rest[1:]
		if rest != "" && (rest[0] == '+' || rest[0] == '-') {
			rest = rest[1:]
		}
		var exponent string
		if exponent, rest = digits(rest); exponent == "" {
			return false
		}
	}
	return rest == ""
}

// digits are those that a text begins with, and what follows them.
func digits(text string) (figures, rest string) {
	n := 0
	for n < len(text) && text[n] >= '0' && text[n] <= '9' {
		n++
	}
	return text[:n], text[n:]
}
