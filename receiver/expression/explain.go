package expression

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"

	"github.com/pbxhook/pbxhook/api/spelling"
)

// errGoTemplate is about an expression that is written as a Go or Jinja template.
var errGoTemplate = errors.New(`expected a CEL expression such as {"phone": event.call.from.number}, got a template with {{ }}`)

// maxIssues is how many faults of an expression are named.
const maxIssues = 3

// explainIssues puts what CEL says of an expression on one line, in words for the person who wrote it.
func explainIssues(text string, issues *cel.Issues) error {
	if strings.Contains(text, "{{") {
		return errGoTemplate
	}
	var all []string
	for _, issue := range issues.Errors() {
		message := strings.ReplaceAll(strings.TrimSpace(issue.Message), "\n", " ")
		line, column := issue.Location.Line(), issue.Location.Column()
		all = append(all, fmt.Sprintf("%s (line %d, column %d)", explainIssue(message, around(text, line, column)), line, column+1))
		if len(all) == maxIssues || strings.HasPrefix(message, "Syntax error") { // what follows one is its consequence
			break
		}
	}
	return errors.New(strings.Join(all, "; "))
}

// translations are what CEL's parser and checker say, and the words for it; the first match counts.
var translations = []struct {
	says *regexp.Regexp
	tell func(match []string, at place) string
}{
	{regexp.MustCompile(`^Syntax error: (?:mismatched input|extraneous input|no viable alternative at input) '(.*)<EOF>'`), func([]string, place) string {
		return "the expression ends where more is expected: is a value, quote or bracket missing?"
	}},
	{regexp.MustCompile(`^Syntax error: (?:mismatched input|extraneous input) '([^']*|'.*)'(?: expecting .*)?$`), func(m []string, at place) string {
		return "unexpected " + strings.TrimSpace(m[1]) + hintFor(strings.TrimSpace(m[1]), at)
	}},
	{regexp.MustCompile(`^Syntax error: missing '?(\S+?)'? at '(.*)'$`), func(m []string, at place) string {
		return fmt.Sprintf("expected %s before %s", m[1], strings.Replace(m[2], "<EOF>", "the end", 1))
	}},
	{regexp.MustCompile(`^Syntax error: token recognition error at: '(.*)'$`), func(m []string, at place) string {
		return "unexpected " + strings.TrimSpace(m[1]) + hintFor(strings.TrimSpace(m[1]), at)
	}},
	{regexp.MustCompile(`^Syntax error: no viable alternative at input '(.*)'$`), func(m []string, at place) string {
		return "unexpected text after " + m[1]
	}},
	{regexp.MustCompile(`^undeclared reference to '([^']*)' \(in container ''\)`), func(m []string, at place) string {
		return fmt.Sprintf("unknown name %s%s", m[1], hintForName(m[1], at))
	}},
	{regexp.MustCompile(`^undefined field '([^']*)'`), func(m []string, at place) string {
		return fmt.Sprintf("undefined field '%s'%s", m[1], spelling.DidYouMean(m[1], fieldNames()))
	}},
	{regexp.MustCompile(`^found no matching overload for '([^']*)' applied to '(.*)'$`), func(m []string, at place) string {
		return explainOverload(m[1], m[2])
	}},
	{regexp.MustCompile(`^type 'list\(.*' does not support field selection`), func([]string, place) string {
		return "a list has no members: take one by its index, such as [0], or ask with exists(x, …)"
	}},
	{regexp.MustCompile(`^type '([^']*)' does not support field selection`), func(m []string, _ place) string {
		return kindWords(m[1]) + " has no members"
	}},
	{regexp.MustCompile(`^Syntax error: (.*)$`), func(m []string, at place) string { return "not a CEL expression: " + m[1] }},
}

func explainIssue(message string, at place) string {
	for _, t := range translations {
		if match := t.says.FindStringSubmatch(message); match != nil {
			return t.tell(match, at)
		}
	}
	return message
}

// place is what stands before and after the place in an expression that CEL names.
type place struct{ before, after string }

// around returns the place of a line, from 1, and a column in characters, from 0.
func around(text string, line, column int) place {
	lines := strings.Split(text, "\n")
	if line < 1 || line > len(lines) {
		return place{}
	}
	characters := []rune(lines[line-1])
	column = max(0, min(column, len(characters)))
	return place{before: string(characters[:column]), after: string(characters[column:])}
}

// hintFor says what CEL writes for what other languages do.
func hintFor(token string, at place) string {
	switch {
	case strings.HasSuffix(strings.TrimSpace(at.before), "not"):
		return ": not is !"
	case token == "=":
		return ": equality is =="
	case token == "and" || token == "AND":
		return ": and is &&"
	case token == "or" || token == "OR":
		return ": or is ||"
	case strings.HasPrefix(token, `"`) || strings.HasPrefix(token, `'`):
		return ": a quote that nothing closes"
	case strings.HasPrefix(token, "$") || strings.HasPrefix(token, "."):
		return ": fields begin with event, such as event.call.queue"
	}
	return ""
}

// functions are those of CEL's that conditions use, for what was probably meant by another name.
var functions = []string{"startsWith", "endsWith", "contains", "matches", "size", "has", "exists", "all", "filter", "map", "timestamp", "duration", "string", "int", "double"}

func hintForName(name string, at place) string {
	if strings.HasPrefix(at.after, "(") {
		return "()" + spelling.DidYouMean(name, functions)
	}
	if hint := spelling.DidYouMean(name, []string{"event"}); hint != "" {
		return hint
	}
	if slices.Contains(fieldNames(), name) {
		return ": members are reached through event, such as event.call." + name
	}
	return ": an expression knows event alone, and a text is in quotes"
}

// operatorSigns are CEL's names of operators: the sign between underscores.
var operatorSigns = regexp.MustCompile(`^@?_?([^_@a-z]+|in)_?$`)

func explainOverload(function, arguments string) string {
	arguments = strings.Trim(arguments, "()")
	var kinds []string
	for _, argument := range strings.Split(arguments, ", ") {
		kinds = append(kinds, kindWords(argument))
	}
	if match := operatorSigns.FindStringSubmatch(function); match != nil && len(kinds) == 2 {
		return fmt.Sprintf("%s does not go between %s and %s", match[1], kinds[0], kinds[1])
	}
	return fmt.Sprintf("%s does not take %s", strings.Trim(function, "_"), strings.Join(kinds, ", "))
}

// kindWords returns the words for a type of CEL's.
func kindWords(kind string) string {
	kind = strings.TrimSuffix(strings.TrimPrefix(kind, "wrapper("), ")")
	switch kind {
	case "string":
		return "a text"
	case "int", "uint", "double":
		return "a number"
	case "bool":
		return "a truth value"
	case "timestamp", "google.protobuf.Timestamp":
		return "a time"
	case "duration", "google.protobuf.Duration":
		return "a duration"
	case "null_type", "null":
		return "null"
	}
	if strings.HasPrefix(kind, "list") {
		return "a list"
	}
	return "an object (" + strings.TrimPrefix(kind, "pbxhook.") + ")"
}

// fieldNames returns the names of all members of the canonical event, at any depth.
var fieldNames = sync.OnceValue(func() []string {
	registry, err := types.NewRegistry()
	if err != nil {
		return nil // no hint then
	}
	var all []string
	for _, names := range newObjects(registry).names {
		all = append(all, names...)
	}
	slices.Sort(all)
	return slices.Compact(all)
})
