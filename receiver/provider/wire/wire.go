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
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/event"
)

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
	sent     map[string]any  // as sent, for the payload
	named    map[string]any  // by key, for decoders; may be sent itself
	odd      map[string]any  // those whose keys are written in another way than usual, by plain key; may be nil
	repeated map[string]bool // keys that came more than once, whose values are lists; may be nil
	size     int             // bytes that they came in
	exact    []byte          // JSON that is sent already, or nil
}

// Read reads the fields of a request: its query parameters, and its body as JSON or as a form. A
// key that stands in both has the body's value.
func Read(r *event.Request, settings Settings) (Fields, error) {
	fields := Fields{sent: map[string]any{}, size: len(r.Query) + len(r.Body)}
	if r.Query != "" {
		charset, _ := charsetOf(r.ContentType()) // of what is not UTF-8; one that is not known is the body's to report
		if err := fields.addParameters(RepairQuery(r.Query), charset); err != nil {
			return fields.index(settings), fmt.Errorf("read the query: %w", err)
		}
	}
	if err := fields.addBody(r); err != nil {
		return fields.index(settings), fmt.Errorf("read the body: %w", err)
	}
	fields = fields.index(settings)
	fields.Unfold("payload", "json") // beside other fields, such as one of the relay's own
	return fields, nil
}

func (f Fields) index(settings Settings) Fields {
	if settings.TokenName != "" {
		before := len(f.sent)
		maps.DeleteFunc(f.sent, func(key string, _ any) bool { return isNamed(key, settings.TokenName) })
		if len(f.sent) != before {
			f.exact = nil
		}
	}
	f.named = f.sent
	var nested, odd []string
	for key := range f.sent {
		if last := len(key) - 1; last > 0 && (key[last] == ']' || key[last] == ' ') && isNested(key) {
			nested = append(nested, key)
		}
		if isOdd(key) {
			odd = append(odd, key)
		}
	}
	if len(nested) > 0 {
		f.addNested(nested)
	}
	f.addOdd(odd)
	return f
}

// isNested reports whether a key is one such as detail[0][dst].
func isNested(key string) bool {
	key = strings.TrimSpace(key)
	return strings.HasSuffix(key, "]") && strings.IndexByte(key, '[') > 0
}

// addNested adds the objects that keys such as detail[0][dst] stand for.
func (f *Fields) addNested(keys []string) {
	slices.Sort(keys) // so that it comes out the same each time
	objects := map[string]any{}
	for _, key := range keys {
		nest(objects, strings.TrimSpace(key), f.sent[key], f.repeated[key])
	}
	f.named = maps.Clone(f.sent)
	addMissing(f.named, objects)
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
			f.addOdd(slices.DeleteFunc(slices.Collect(maps.Keys(f.named)), func(key string) bool { return !isOdd(key) }))
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
		if _, ok := f.odd[plainKey(key)]; ok {
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

// Says reports whether a key was sent with anything but null and an empty text, be it a placeholder.
func (f Fields) Says(key string) bool {
	value, ok := f.named[key]
	if !ok {
		value = f.odd[plainKey(key)]
	}
	return value != nil && value != ""
}

// Value is the field as it was read, by the first of the keys that has one; placeholders are none. A key such as
// description.FAXPAGES is that of a field inside another one.
func (f Fields) Value(keys ...string) any {
	for _, key := range keys {
		if value := f.lookup(key); value != nil {
			return value
		}
	}
	return nil
}

// lookup is the value of a key, however it is written, or nil.
func (f Fields) lookup(key string) any {
	if value := present(f.named[key]); value != nil {
		return value
	}
	if f.odd != nil {
		if value := present(f.odd[plainKey(key)]); value != nil {
			return value
		}
	}
	if at := strings.IndexByte(key, '.'); at > 0 {
		if outer := f.lookup(key[:at]); outer != nil {
			return AsFields(outer).lookup(key[at+1:])
		}
	}
	return nil
}

// Text is the field as text, by the first of the keys that is not empty. Objects and lists are no text.
func (f Fields) Text(keys ...string) string { return strings.TrimSpace(f.rawText(keys...)) }

// rawText is Text with the white space around it.
func (f Fields) rawText(keys ...string) string {
	for _, key := range keys {
		switch value := f.lookup(key).(type) {
		case nil, map[string]any, []any:
		case string:
			if strings.TrimSpace(value) != "" {
				return value
			}
		default:
			return Text(value)
		}
	}
	return ""
}

// Int is the field as a whole number, or nil where there is none.
func (f Fields) Int(keys ...string) *int64 {
	text := asciiDigits(f.Text(keys...))
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

// Seconds is the field as a duration in whole seconds, by the first of the keys that has one, or nil.
func (f Fields) Seconds(keys ...string) *int64 {
	for _, key := range keys {
		if n := ParseSeconds(f.Text(key)); n != nil {
			return n
		}
	}
	return nil
}

// Time is the field as a time in UTC, or nil where there is none. Times without an offset are of
// the settings' zone.
func (f Fields) Time(settings Settings, keys ...string) *time.Time {
	for _, key := range keys {
		if t := ParseTime(f.Text(key), settings.Location); t != nil {
			return t
		}
	}
	return nil
}

// Party is the party whose number the keys have, as Choose takes it.
func (f Fields) Party(settings Settings, keys ...string) event.Party {
	if len(keys) == 1 {
		return settings.Party(f.rawText(keys[0]))
	}
	raws := make([]string, len(keys))
	for i, key := range keys {
		raws[i] = f.rawText(key)
	}
	return settings.Choose(raws...)
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
