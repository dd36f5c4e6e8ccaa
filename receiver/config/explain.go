package config

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// SyntaxError is what is wrong with a text as YAML, in words.
type SyntaxError struct {
	Line    int // from 1; 0: not known
	Message string
}

// Error implements error.
func (e *SyntaxError) Error() string {
	if e.Line == 0 {
		return e.Message
	}
	return fmt.Sprintf("line %d: %s", e.Line, e.Message)
}

// yamlWords are what the YAML library says, and the words for it; the first that is contained counts.
var yamlWords = []struct{ says, words string }{
	{"found a tab character", "a tab indents this line: YAML takes blanks alone"},
	{"found character that cannot start any token", "a character that cannot begin a value: YAML is indented with blanks, not tabs, and a text that begins with @, ` or % needs quotes"},
	{"mapping values are not allowed in this context", "a colon where none is expected: check the indentation, or put a text with a colon in quotes"},
	{"did not find expected ',' or ']'", "expected a comma or ]: a list in [] is not closed"},
	{"did not find expected ',' or '}'", "expected a comma or }: an object in {} is not closed"},
	{"did not find expected key", "this line does not fit what stands above it: check its indentation, and that quotes and brackets are closed"},
	{"did not find expected '-' indicator", "this line does not fit the list above it: check its indentation"},
	{"could not find expected ':'", "expected a colon after the key"},
	{"did not find expected node content", "expected a value: check brackets and quotes"},
	{"found unexpected end of stream", "the text ends inside quotes that nothing closes"},
	{"found unknown escape character", `an unknown escape after \ in double quotes: use single quotes`},
	{"found undefined tag handle", "a text that begins with ! needs quotes"},
	{"unknown anchor", "a text that begins with * needs quotes"},
	{"did not find expected alphabetic or numeric character", "a text that begins with * or & needs quotes"},
	{"control characters are not allowed", "a control character: is this a text file?"},
	{"invalid leading UTF-8 octet", "a byte that is not UTF-8: save the file as UTF-8"},
	{"invalid trailing UTF-8 octet", "a byte that is not UTF-8: save the file as UTF-8"},
	{"did not find expected <document start>", "this line does not fit what stands above it: check its indentation"},
	{"found invalid Unicode character", "a character that YAML does not allow"},
}

var (
	yamlLine     = regexp.MustCompile(`line (\d+):\s*(.*)`)
	yamlTwice    = regexp.MustCompile(`key "([^"]*)" already set in map`)
	yamlMismatch = regexp.MustCompile(`cannot unmarshal (\S+) into Go (?:value of type|struct field) (\S+)(?: of type (\S+))?`)
)

// ExplainYAML puts an error of the YAML library into words. Errors that it does not know stay as they are.
func ExplainYAML(err error) error {
	if known := (*SyntaxError)(nil); err == nil || errors.As(err, &known) {
		return err
	}
	line, message := 0, err.Error()
	if match := yamlLine.FindStringSubmatch(message); match != nil {
		line, _ = strconv.Atoi(match[1]) // digits
		message = strings.TrimSpace(match[2])
	}
	for _, known := range yamlWords {
		if strings.Contains(err.Error(), known.says) {
			return &SyntaxError{Line: line, Message: known.words}
		}
	}
	if match := yamlTwice.FindStringSubmatch(err.Error()); match != nil {
		return &SyntaxError{Line: line, Message: fmt.Sprintf("the key %s is there twice: remove one", match[1])}
	}
	if match := yamlMismatch.FindStringSubmatch(err.Error()); match != nil {
		return &SyntaxError{Line: line, Message: fmt.Sprintf("expected an object with apiVersion and kind, got a value of type %s", match[1])}
	}
	return &SyntaxError{Line: line, Message: strings.TrimPrefix(message, "yaml: ")}
}
