// Package wire reads what PBXs put on the wire into fields that decoders can ask for by name:
// parameters, forms, JSON, and text that its own manual calls JSON. It also turns their numbers and
// times into canonical ones.
//
// It must not know any one provider: a decoder names the keys.
package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/event"
)

// maxParameters is how many query parameters or form fields of one request are read.
const maxParameters = 10_000

// Settings are what a webhook's spec says about how its PBX writes.
type Settings struct {
	Version  v1alpha1.Version // Simotel's; empty: told from the request
	Location *time.Location   // of times without an offset; nil is UTC
	Region   string           // ISO country of numbers that are not international, or empty
	// International says that the provider writes numbers with their country code and no plus sign.
	International bool
	Fields        map[string]string // Acefone: canonical field to the customer's own key
	// TokenName is the key that may carry the token; it is removed from the payload.
	TokenName string
}

// Fields are the fields of one request, by key.
type Fields struct {
	sent  map[string]any // as sent, for the payload
	named map[string]any // by trimmed key, for decoders; may be sent itself
	size  int            // bytes that they came in
	exact []byte         // JSON that is sent already, or nil
}

// Read reads the fields of a request: its query parameters, and its body as JSON or as a form. A
// key that stands in both has the body's value.
func Read(r *event.Request, settings Settings) (Fields, error) {
	fields := Fields{sent: map[string]any{}, size: len(r.Query) + len(r.Body)}
	if err := fields.addParameters(r.Query); err != nil {
		return fields.index(settings), fmt.Errorf("read the query: %w", err)
	}
	if err := fields.addBody(r); err != nil {
		return fields.index(settings), fmt.Errorf("read the body: %w", err)
	}
	return fields.index(settings), nil
}

func (f *Fields) addBody(r *event.Request) error {
	body := bytes.TrimSpace(bytes.TrimPrefix(r.Body, []byte("\ufeff")))
	if len(body) == 0 {
		return nil
	}
	if kind := r.ContentType(); strings.Contains(kind, "boundary") {
		if media, parameters, err := mime.ParseMediaType(kind); err == nil && media == "multipart/form-data" {
			return f.addParts(multipart.NewReader(bytes.NewReader(r.Body), parameters["boundary"]))
		}
	}
	// told by its first byte: some PBXs send JSON and call it a form, or a form and call it nothing
	if strings.IndexByte(`{["'`, body[0]) < 0 && bytes.IndexByte(body, '=') > 0 {
		return f.addParameters(string(body))
	}
	value, exact, err := parseJSON(body)
	if err != nil {
		return err
	}
	if text, ok := value.(string); ok { // JSON inside a JSON text
		value = nested(text)
	}
	if list, ok := value.([]any); ok && len(list) == 1 {
		value = list[0]
	}
	object, ok := value.(map[string]any)
	if !ok {
		return fmt.Errorf("expected a JSON object with the event's fields, got %s", describe(value))
	}
	if len(f.sent) == 0 {
		f.sent = object
		if exact && body[0] == '{' {
			f.exact = body
		}
		return nil
	}
	maps.Copy(f.sent, object)
	return nil
}

// addParts reads a form that came as multipart/form-data. Files are no fields.
func (f *Fields) addParts(parts *multipart.Reader) error {
	for n := 0; ; n++ {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read part %d of the form: %w", n+1, err)
		}
		if n == maxParameters {
			return fmt.Errorf("expected at most %d parameters", maxParameters)
		}
		value, err := io.ReadAll(part) // within the body, which is bounded
		if err != nil {
			return fmt.Errorf("read part %d of the form: %w", n+1, err)
		}
		if name := part.FormName(); name != "" && part.FileName() == "" {
			f.sent[name] = nested(string(value))
		}
	}
}

func describe(value any) string {
	switch value.(type) {
	case nil:
		return "null"
	case []any:
		return "a list"
	case string:
		return "a text"
	case json.Number:
		return "a number"
	default:
		return "a boolean"
	}
}

// addParameters reads parameters as PBXs write them: "+" is a space, a broken escape stands for
// itself, and the first of several values counts.
func (f *Fields) addParameters(text string) error {
	for n := 0; text != ""; n++ {
		if n == maxParameters {
			return fmt.Errorf("expected at most %d parameters", maxParameters)
		}
		var pair string
		pair, text, _ = strings.Cut(text, "&")
		key, value, _ := strings.Cut(pair, "=")
		key = unescape(key)
		if _, seen := f.sent[key]; key == "" || seen {
			continue
		}
		f.sent[key] = nested(unescape(value))
	}
	return nil
}

func unescape(text string) string {
	if plain, err := url.QueryUnescape(text); err == nil {
		return plain
	}
	return text
}

// nested reads a parameter's value that is an object or list in JSON; others stay text.
func nested(value string) any {
	trimmed := strings.TrimSpace(value)
	if strings.HasPrefix(trimmed, "{") || strings.HasPrefix(trimmed, "[") {
		if parsed, err := ParseJSON([]byte(trimmed)); err == nil {
			return parsed
		}
	}
	return value
}

func (f Fields) index(settings Settings) Fields {
	if settings.TokenName != "" {
		maps.DeleteFunc(f.sent, func(key string, _ any) bool { return isNamed(key, settings.TokenName) })
		f.exact = nil
	}
	var odd []string // that are not the name of their field
	for key := range f.sent {
		if strings.TrimSpace(key) != key || strings.HasSuffix(key, "]") {
			odd = append(odd, key)
		}
	}
	f.named = f.sent
	if len(odd) == 0 {
		return f
	}
	f.named = maps.Clone(f.sent)
	slices.Sort(odd) // so that it comes out the same each time
	for _, key := range odd {
		if strings.TrimSpace(key) != key {
			delete(f.named, key)
		}
	}
	objects := map[string]any{}
	for _, key := range odd {
		if trimmed := strings.TrimSpace(key); strings.HasSuffix(trimmed, "]") && strings.IndexByte(trimmed, '[') > 0 {
			nest(objects, trimmed, f.sent[key])
		} else if f.named[trimmed] == nil {
			f.named[trimmed] = f.sent[key]
		}
	}
	addMissing(f.named, objects)
	return f
}

// nest puts the value of a key such as detail[0][dst] where it would be in JSON, as PHP reads forms.
func nest(objects map[string]any, key string, value any) {
	name, rest, _ := strings.Cut(strings.TrimSuffix(key, "]"), "[")
	steps := append([]string{name}, strings.Split(rest, "][")...)
	if len(steps) > maxDepth {
		return
	}
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

func addMissing(fields, more map[string]any) {
	for name, value := range more {
		if _, known := fields[name]; !known {
			fields[name] = value
		}
	}
}

// Unfold adds the fields of the objects under keys to those beside them, which come first.
func (f *Fields) Unfold(keys ...string) {
	for _, key := range keys {
		if f.Has(key) {
			f.named = maps.Clone(f.named) // the payload stays as it was sent
			addMissing(f.named, f.Object(key).named)
		}
	}
}

// isNamed compares a key as it was sent with a name, in any case.
func isNamed(key, name string) bool { return strings.EqualFold(strings.TrimSpace(key), name) }

// Named are the values, as text, of the fields that have a name in any case.
func (f Fields) Named(name string) []string {
	var values []string
	for key, value := range f.sent {
		if isNamed(key, name) {
			values = append(values, Text(value))
		}
	}
	return values
}

// LastPart is the last part of a path, whatever slashes are around it.
func LastPart(path string) string {
	path = strings.Trim(path, "/")
	return path[strings.LastIndexByte(path, '/')+1:]
}

// Has is whether any of the keys was sent, with whatever value.
func (f Fields) Has(keys ...string) bool {
	for _, key := range keys {
		if _, ok := f.named[key]; ok {
			return true
		}
	}
	return false
}

// Payload is the PBX's own fields as JSON.
func (f Fields) Payload() json.RawMessage {
	if f.exact != nil {
		return f.exact
	}
	return event.AppendValue(make([]byte, 0, f.size+f.size/16), f.sent)
}

// Drop forgets the fields for which drop returns true; the payload keeps them.
func (f *Fields) Drop(drop func(value string) bool) {
	f.named = maps.Clone(f.named)
	maps.DeleteFunc(f.named, func(_ string, value any) bool {
		text, ok := value.(string)
		return ok && drop(text)
	})
}

// Value is the field as it was read, by the first of the keys that has one. A key such as
// description.FAXPAGES is that of a field inside another one.
func (f Fields) Value(keys ...string) any {
	for _, key := range keys {
		if value := f.lookup(key); value != nil && value != "" {
			return value
		}
	}
	return nil
}

func (f Fields) lookup(key string) any {
	if value, ok := f.named[key]; ok {
		return value
	}
	if outer, inner, dotted := strings.Cut(key, "."); dotted && f.named[outer] != nil {
		return AsFields(f.named[outer]).lookup(inner)
	}
	return nil
}

// Text is the field as text, by the first of the keys that is not empty. Objects and lists are no text.
func (f Fields) Text(keys ...string) string {
	for _, key := range keys {
		switch value := f.lookup(key).(type) {
		case map[string]any, []any:
		default:
			if text := Text(value); text != "" {
				return text
			}
		}
	}
	return ""
}

// Int is the field as a whole number, or nil where there is none.
func (f Fields) Int(keys ...string) *int64 {
	text := f.Text(keys...)
	if text == "" {
		return nil
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return &n
	}
	if x, err := strconv.ParseFloat(text, 64); err == nil && x > -1e15 && x < 1e15 {
		n := int64(x)
		return &n
	}
	return nil
}

// Bool is the field as a truth value, or nil where there is none.
func (f Fields) Bool(keys ...string) *bool {
	text := f.Text(keys...)
	if text == "" {
		return nil
	}
	if b, err := strconv.ParseBool(strings.ToLower(text)); err == nil {
		return &b
	}
	return nil
}

// Object is the field's own fields; JSON inside a text is read.
func (f Fields) Object(keys ...string) Fields {
	return AsFields(f.Value(keys...))
}

// AsFields are the fields of a value that is an object, or text that holds one; none otherwise.
func AsFields(value any) Fields {
	if text, ok := value.(string); ok {
		value = nested(text)
	}
	object, _ := value.(map[string]any)
	return Fields{sent: object}.index(Settings{})
}

// List is the field as a list; an object is a list of one, and JSON inside a text is read.
func (f Fields) List(keys ...string) []any { return AsList(f.Value(keys...)) }

// AsList is a value as a list; an object is a list of one, and JSON inside a text is read.
func AsList(value any) []any {
	if text, ok := value.(string); ok {
		value = nested(text)
	}
	switch value := value.(type) {
	case []any:
		return value
	case map[string]any:
		if list := numbered(value); list != nil {
			return list
		}
		return []any{value}
	}
	return nil
}

// numbered is the list that an object with the keys 0, 1, 2… stands for, or nil.
func numbered(object map[string]any) []any {
	list := make([]any, 0, len(object))
	for i := range len(object) {
		value, ok := object[strconv.Itoa(i)]
		if !ok {
			return nil
		}
		list = append(list, value)
	}
	if len(list) == 0 {
		return nil
	}
	return list
}

// Text is a JSON value as text: null is empty, objects and lists are JSON.
func Text(value any) string {
	switch value := value.(type) {
	case nil:
		return ""
	case string:
		return strings.TrimSpace(value)
	case json.Number:
		return value.String()
	case bool:
		return strconv.FormatBool(value)
	default:
		return string(Marshal(value))
	}
}

// Marshal is a value, as ParseJSON reads them, as JSON in which &, < and > stand for themselves.
func Marshal(value any) json.RawMessage { return event.AppendValue(nil, value) }

// ParseJSON reads JSON, or text that its author took for JSON (see tolerant). Numbers keep their
// text. What is JSON is read as encoding/json reads it.
func ParseJSON(text []byte) (any, error) {
	value, _, err := parseJSON(text)
	return value, err
}

// parseJSON is that; exact as tolerant says it.
func parseJSON(text []byte) (value any, exact bool, err error) {
	value, exact, err = tolerant(text)
	if err == nil {
		return value, exact, nil
	}
	decoder := json.NewDecoder(bytes.NewReader(text)) // for its depth, and for what it says
	decoder.UseNumber()
	strict := decoder.Decode(&value)
	if strict == nil && !decoder.More() {
		return value, false, nil
	}
	if strict == nil {
		strict = errors.New("more text follows the first value")
	}
	return nil, false, fmt.Errorf("not JSON (%w), nor anything that reads like it: %w", strict, err)
}
