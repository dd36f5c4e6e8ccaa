package validation

import (
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/pbxhook/pbxhook/api/spelling"
)

// Finding is one thing that is wrong with a manifest, in words for the person who wrote it.
type Finding struct {
	Field   string `json:"field,omitempty"` // path, such as spec.targets[0].url; empty: the object itself
	Message string `json:"message"`         // one line: what was expected, and what came
}

// String returns the finding as one line.
func (f Finding) String() string {
	if f.Field == "" {
		return f.Message
	}
	return f.Field + ": " + f.Message
}

// Explain puts the errors of Create or Update into words, one finding a field: what the API server says of it twice
// (by the schema, and by a rule that could not read the value) is said once. The findings are in the order of fields.
func (v *Validator) Explain(object *unstructured.Unstructured, errs field.ErrorList) []Finding {
	var findings []Finding
	explain := func(err *field.Error) {
		f := Finding{Field: err.Field, Message: v.explain(object.Object, err)}
		if f.Field == wholeObject {
			f.Field = ""
		}
		if rest, ok := strings.CutPrefix(f.Message, "metadata.name "); ok { // rules cannot give this field's path
			f.Field, f.Message = "metadata.name", rest+", got "+describeValue(object.GetName(), true)
		}
		findings = append(findings, f)
	}
	said := func(field string) bool {
		return slices.ContainsFunc(findings, func(f Finding) bool { return f.Field == field })
	}
	rules, others := splitRules(errs)
	for _, err := range rules { // written for the reader; better than a pattern's words
		explain(err)
	}
	for _, err := range others {
		if !said(err.Field) {
			explain(err)
		}
	}
	for _, err := range errs { // a rule that could not read a value: what is wrong with the value was said, mostly
		if isUnreadable(err) && !slices.ContainsFunc(findings, func(f Finding) bool { return strings.HasPrefix(f.Field, err.Field) }) {
			explain(err)
		}
	}
	slices.SortStableFunc(findings, func(a, b Finding) int { return cmp.Compare(a.Field, b.Field) })
	return findings
}

// splitRules separates what CEL rules say from what the schema does; rules that could not read a value are in neither.
func splitRules(errs field.ErrorList) (rules, others field.ErrorList) {
	for _, err := range errs {
		switch {
		case isUnreadable(err):
		case err.Type == field.ErrorTypeInvalid && bodyMessage.FindString(err.Detail) == "" && err.Detail != unknownField && !strings.Contains(err.Detail, "RFC 1123"):
			rules = append(rules, err)
		default:
			others = append(others, err)
		}
	}
	return rules, others
}

const (
	wholeObject    = "<nil>" // the path of an error about no field
	unknownField   = "unknown field"
	evaluatingRule = " evaluating rule: "
)

// isUnreadable reports whether an error is about a rule that failed on a value of a wrong form.
func isUnreadable(err *field.Error) bool { return strings.Contains(err.Detail, evaluatingRule) }

// bodyMessage is how the schema's own errors begin, after the field's path.
var bodyMessage = regexp.MustCompile(` in body (should match|must be of type|should have at (?:least|most)|should be (?:greater|less) than|should be at (?:least|most))`)

// explain returns the words for one error.
func (v *Validator) explain(content map[string]any, err *field.Error) string {
	value, there := lookup(content, err.Field)
	got := describeValue(value, there)
	switch {
	case err.Detail == unknownField:
		parent, name := splitLast(err.Field)
		return unknownField + spelling.DidYouMean(name, v.fieldsOf(parent))
	case isUnreadable(err):
		_, message, _ := strings.Cut(err.Detail, evaluatingRule)
		return message
	case err.Type == field.ErrorTypeRequired:
		return "is required" + expecting(v.schemaAt(err.Field))
	case err.Type == field.ErrorTypeNotSupported:
		return explainEnum(err, got)
	case err.Type == field.ErrorTypeDuplicate:
		return fmt.Sprintf("%s is there twice: remove or rename one", describeKey(err.BadValue))
	case err.Type == field.ErrorTypeTooLong:
		if s := v.schemaAt(err.Field); s != nil && s.ValueValidation != nil && patterns[s.ValueValidation.Pattern] != "" {
			return fmt.Sprintf("expected %s (%s), got %s", patterns[s.ValueValidation.Pattern], err.Detail, got)
		}
		return fmt.Sprintf("%s, got %d", err.Detail, len(fmt.Sprint(value)))
	case err.Type == field.ErrorTypeTooMany:
		return err.Detail
	}
	if match := bodyMessage.FindStringSubmatch(err.Detail); match != nil {
		return explainBody(match[1], err, v.schemaAt(err.Field), got)
	}
	if v.isScalar(err.Field) && there && !strings.Contains(err.Detail, fmt.Sprint(value)) && !strings.Contains(err.Detail, "got ") {
		return err.Detail + ", got " + got
	}
	return err.Detail
}

// explainBody returns the words for what a schema's constraint refuses.
func explainBody(kind string, err *field.Error, s *structuralschema.Structural, got string) string {
	detail := err.Detail[strings.Index(err.Detail, " in body ")+len(" in body "):]
	switch kind {
	case "should match":
		return "expected " + patternWords(s) + ", got " + got
	case "must be of type":
		return "expected " + typeWords(s) + ", got " + got
	default: // should have at least 1 items, should be greater than or equal to 1
		detail = strings.NewReplacer("should have ", "", "should be greater than or equal to", "at least", "should be less than or equal to", "at most",
			"should be ", "", "1 items", "1 item", "1 properties", "one of its fields").Replace(detail)
		return "expected " + detail + ", got " + got
	}
}

var quoted = regexp.MustCompile(`"[^"]*"`)

func explainEnum(err *field.Error, got string) string {
	var known []string
	for _, one := range quoted.FindAllString(err.Detail, -1) {
		known = append(known, strings.Trim(one, `"`))
	}
	return fmt.Sprintf("expected one of %s, got %s%s", strings.Join(known, ", "), got, spelling.DidYouMean(fmt.Sprint(err.BadValue), known))
}

// patterns are the words for the schema's patterns. A test holds that none is missing.
var patterns = map[string]string{
	`^([0-9]{1,5}(h|m|s|ms)){1,4}$`: "a duration in h, m, s or ms, such as 10s, 1h30m or 72h",
	`^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$`: "a quantity such as 500m, 64Mi or 1Gi",
	`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`:                                     "the name of a Kubernetes object: a-z, 0-9, hyphens and dots",
	`^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$`:                                  "the name of a Kubernetes object: a-z, 0-9, hyphens and dots",
	`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`:                                      "a name of a-z, 0-9 and hyphens, such as crm",
	`^[a-z]([-a-z0-9]*[a-z0-9])?$`:                                         "the name of a Service: a-z, 0-9 and hyphens, beginning with a letter",
	`^[-._a-zA-Z0-9]+$`:                                                    "a key of a Secret or ConfigMap: letters, digits, hyphens, underscores and dots",
	`^[A-Z]{2}$`:                                                           "an ISO 3166 country of two capital letters, such as IR",
	`^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}$`:                             "an IANA time zone such as Asia/Tehran",
	`^https?://[^/?#@\\\s]+([/?][^#\s]*)?$`:                                "an absolute http or https URL without user info (use auth instead) and fragment, such as https://crm.example.com/hooks",
	`^(nats|tls|wss?)://[^/?#@,\s]+/?(,(nats|tls|wss?)://[^/?#@,\s]+/?)*$`: "URLs of NATS servers separated by commas, such as nats://nats.nats:4222",
	`^/[^#\s]*$`:                    "a path that begins with /",
	`^\+?[0-9][0-9 ()./-]*$`:        "a phone number such as +442035141598",
	"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$": "the name of an HTTP header, such as X-API-Key",
	`^[^\x00-\x08\x0a-\x1f\x7f]*$`:  "a text of one line without control characters",
	`^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})$`:                     "a time such as 2026-01-02T03:04:05Z",
	`^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`:                                        "a host name such as pbx.example.com, without https://",
	`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`:                                               "a host name such as pbx.example.com, without https://",
	`^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$`: "the key of a Kubernetes label, such as topology.kubernetes.io/zone",
	`^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$`:                                                                        "a condition's reason in CamelCase",
}

func patternWords(s *structuralschema.Structural) string {
	if s != nil && s.ValueValidation != nil {
		if words, ok := patterns[s.ValueValidation.Pattern]; ok {
			return words
		}
		return "a text that matches " + s.ValueValidation.Pattern
	}
	return "a text of another form"
}

func typeWords(s *structuralschema.Structural) string {
	if s == nil {
		return "another type"
	}
	switch s.Type {
	case "string":
		if s.ValueValidation != nil && patterns[s.ValueValidation.Pattern] != "" {
			return "a text: " + patterns[s.ValueValidation.Pattern]
		}
		return "a text (a number or true, false, yes, no need quotes to be one)"
	case "integer":
		return "a whole number"
	case "number":
		return "a number"
	case "boolean":
		return "true or false"
	case "array":
		return "a list (each item after a hyphen, or all in [])"
	default:
		if names := names(s); len(names) > 0 && len(names) <= 8 {
			return "an object with fields (" + strings.Join(names, ", ") + ")"
		}
		return "an object with fields"
	}
}

// expecting says which values a missing field may have, where they are few.
func expecting(s *structuralschema.Structural) string {
	if s == nil || s.ValueValidation == nil || len(s.ValueValidation.Enum) == 0 {
		return ""
	}
	var known []string
	for _, one := range s.ValueValidation.Enum {
		known = append(known, fmt.Sprint(one.Object))
	}
	return ": one of " + strings.Join(known, ", ")
}

// userInfo is a URL's username and password, which no message shows.
var userInfo = regexp.MustCompile(`//[^/?#]*@`)

const maxShown = 120 // bytes of a value that a message shows

// describeValue returns what came, as it would be written.
func describeValue(value any, there bool) string {
	if !there {
		return "nothing"
	}
	switch value := value.(type) {
	case nil:
		return "nothing"
	case string:
		if value == "" {
			return "an empty text"
		}
		value = userInfo.ReplaceAllString(value, "//…@")
		return strconv.Quote(value[:min(len(value), maxShown)])
	case []any:
		if len(value) == 0 {
			return "an empty list"
		}
		return "a list"
	case map[string]any:
		if len(value) == 0 {
			return "an empty object"
		}
		return "an object"
	default:
		text, err := json.Marshal(value)
		if err != nil {
			return fmt.Sprint(value)
		}
		return string(text)
	}
}

// describeKey returns what tells an item of a list from others.
func describeKey(value any) string {
	if keys, ok := value.(map[string]any); ok {
		for name, key := range keys {
			return fmt.Sprintf("%s %v", name, key)
		}
	}
	return fmt.Sprint(value)
}

// isScalar reports whether a field's value is one that can be shown.
func (v *Validator) isScalar(path string) bool {
	s := v.schemaAt(path)
	return s != nil && s.Type != "object" && s.Type != "array"
}

func names(s *structuralschema.Structural) []string {
	var all []string
	for name := range s.Properties {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// fieldsOf returns the names of the fields of an object in the schema.
func (v *Validator) fieldsOf(path string) []string {
	if s := v.schemaAt(path); s != nil {
		return names(s)
	}
	return nil
}

// schemaAt returns the schema of a field, or nil.
func (v *Validator) schemaAt(path string) *structuralschema.Structural {
	s := v.structural
	for _, step := range Steps(path) {
		switch {
		case s.Items != nil:
			s = s.Items
		case s.AdditionalProperties != nil && s.AdditionalProperties.Structural != nil:
			s = s.AdditionalProperties.Structural
		default:
			child, ok := s.Properties[step]
			if !ok {
				return nil
			}
			s = &child
		}
	}
	return s
}

// Steps returns the keys and indexes of a field's path: spec, targets, 0, url.
func Steps(path string) []string {
	var steps []string
	for path != "" {
		if strings.HasPrefix(path, "[") {
			key, rest, _ := strings.Cut(path[1:], "]")
			steps, path = append(steps, key), strings.TrimPrefix(rest, ".")
			continue
		}
		end := strings.IndexAny(path, ".[")
		if end < 0 {
			end = len(path)
		}
		steps, path = append(steps, path[:end]), strings.TrimPrefix(path[end:], ".")
	}
	return steps
}

func splitLast(path string) (parent, name string) {
	steps := Steps(path)
	if len(steps) == 0 {
		return "", ""
	}
	name = steps[len(steps)-1]
	return strings.TrimSuffix(strings.TrimSuffix(path, name), "."), name
}

func lookup(content any, path string) (value any, there bool) {
	value = content
	for _, step := range Steps(path) {
		switch parent := value.(type) {
		case map[string]any:
			if value, there = parent[step]; !there {
				return nil, false
			}
		case []any:
			i, err := strconv.Atoi(step)
			if err != nil || i < 0 || i >= len(parent) {
				return nil, false
			}
			value = parent[i]
		default:
			return nil, false
		}
	}
	return value, true
}
