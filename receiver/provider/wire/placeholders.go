package wire

import "strings"

// IsPlaceholder reports whether a text stands for nothing: a word such as None or null, a variable of a template that
// was not resolved ($name, {name}, {{name}}, %name%), or what remains of one whose first part was (_number).
func IsPlaceholder(text string) bool {
	if text == "" {
		return false
	}
	switch text[0] { // most texts are told by their first byte
	case 'n', 'N', 'u', 'U', '(', '<', '#', '$', '{', '%', '_', '+', ' ', '\t':
	default:
		return false
	}
	text = strings.TrimSpace(text)
	switch {
	case text == "":
		return false
	case len(text) <= len("undefined") && isNothing(text):
		return true
	case text[0] == '_':
		return isRemainder(text)
	case strings.IndexByte(text, '$') >= 0, text[0] == '{', text[0] == '%':
		return isVariable(text)
	}
	return false
}

// isNothing reports whether a text is a programming language's word for nothing. NaN and nil are names of people in
// another case.
func isNothing(text string) bool {
	switch strings.ToLower(text) {
	case "none", "null", "undefined", "n/a", "#n/a", "(null)", "<null>", "(none)", "<none>":
		return true
	}
	return text == "NaN" || text == "nil" || text == "<nil>"
}

// remainders are the words that the names of known variables end with: where $answered_agent is replaced inside
// $answered_agent_number, _number remains.
var remainders = map[string]bool{
	"number": true, "name": true, "key": true, "cause": true, "code": true, "description": true, "id": true, "url": true, "no": true,
	"status": true, "stamp": true, "time": true, "flow": true, "dialed": true, "agent": true, "sec": true, "circle": true, "to": true,
	"connected": true, "identifier": true, "with": true, "prefix": true, "lead": true, "fields": true, "pressed": true, "ring": true, "email": true,
}

func isRemainder(text string) bool {
	for word := range strings.SplitSeq(text[1:], "_") {
		if !remainders[word] {
			return false
		}
	}
	return true
}

// isVariable reports whether a text is nothing but variables of a template.
func isVariable(text string) bool {
	switch {
	case strings.HasPrefix(text, "{{") && strings.HasSuffix(text, "}}"):
		return len(text) > 4 && !strings.ContainsAny(text[2:len(text)-2], "{}\n")
	case text[0] == '{' && strings.HasSuffix(text, "}"):
		return isIdentifier(text[1 : len(text)-1])
	case text[0] == '%' && strings.HasSuffix(text, "%"):
		return len(text) > 2 && isIdentifier(text[1:len(text)-1])
	}
	for text != "" {
		var word string
		word, text, _ = strings.Cut(text, " ")
		name, ok := strings.CutPrefix(strings.TrimPrefix(word, "+"), "$")
		if !ok {
			return false
		}
		if inner, braced := strings.CutPrefix(name, "{"); braced {
			name = strings.TrimSuffix(inner, "}")
		}
		if !isIdentifier(name) {
			return false
		}
	}
	return true
}

// isIdentifier reports whether a text is the name of a variable: letters, digits, and what joins them.
func isIdentifier(text string) bool {
	letters := false
	for i := range len(text) {
		switch c := text[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '_':
			letters = true
		case c >= '0' && c <= '9', c == '.', c == '-', c == '$', c == ' ':
		default:
			return false
		}
	}
	return letters
}

// present returns a value as it was read, or nil where it says nothing.
func present(value any) any {
	if text, ok := value.(string); ok && (text == "" || IsPlaceholder(text)) {
		return nil
	}
	return value
}
