package sim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/pbxhook/pbxhook/receiver/event"
)

// Field is one field of a message: a text, int, Number, bool, nil, Fields, or a list of those.
type Field struct {
	Key   string
	Value any
}

// Fields are the fields of a message, in the order in which the PBX writes them.
type Fields []Field

// Number is a number as it is written, such as 1675683148.9228208.
type Number string

// Of makes fields of keys and values in turn.
func Of(pairs ...any) Fields {
	fields := make(Fields, 0, len(pairs)/2)
	for i := 0; i+1 < len(pairs); i += 2 {
		fields = append(fields, Field{pairs[i].(string), pairs[i+1]})
	}
	return fields
}

// With replaces fields of a step's message.
func With(pairs ...any) func(*Call, *Fields) {
	more := Of(pairs...)
	return func(_ *Call, f *Fields) {
		for _, field := range more {
			f.Set(field.Key, field.Value)
		}
	}
}

// Set replaces a field where it stands, or adds it at the end.
func (f *Fields) Set(key string, value any) {
	for i := range *f {
		if (*f)[i].Key == key {
			(*f)[i].Value = value
			return
		}
	}
	*f = append(*f, Field{key, value})
}

// Delete removes fields.
func (f *Fields) Delete(keys ...string) {
	*f = slices.DeleteFunc(*f, func(field Field) bool { return slices.Contains(keys, field.Key) })
}

// Rename gives a field another key, where it stands.
func (f Fields) Rename(from, to string) {
	for i := range f {
		if f[i].Key == from {
			f[i].Key = to
		}
	}
}

// Get is the value of a field, or nil.
func (f Fields) Get(key string) any {
	for _, field := range f {
		if field.Key == key {
			return field.Value
		}
	}
	return nil
}

// Style is how fields are written.
type Style int

// The styles.
const (
	JSON       Style = iota // {"a":1}, as PHP writes it
	SpacedJSON              // {"a": 1}, as Python writes it
	BareZeros               // SpacedJSON in which numbers with leading zeros lost their quotes
	Python                  // {'a': None}, Python's own notation
	Form                    // a=1&b=2 in the body
	Query                   // a=1&b=2 in the URL
	Payload                 // payload={"a":1} in the body
)

// ContentType is the Content-Type header of a style; empty where there is no body.
func (s Style) ContentType() string {
	switch s {
	case Query:
		return ""
	case Form, Payload:
		return "application/x-www-form-urlencoded"
	default:
		return "application/json"
	}
}

// Encode writes fields in a style.
func (f Fields) Encode(s Style) string {
	if s == Form || s == Query {
		return f.parameters()
	}
	if s == Payload {
		return "payload=" + url.QueryEscape(f.Encode(JSON))
	}
	w := writer{style: s}
	w.fields(f)
	return w.String()
}

// parameters writes fields as parameters; what is nested is JSON text.
func (f Fields) parameters() string {
	pairs := make([]string, len(f))
	for i, field := range f {
		pairs[i] = url.QueryEscape(field.Key) + "=" + url.QueryEscape(parameter(field.Value))
	}
	return strings.Join(pairs, "&")
}

func parameter(value any) string {
	switch value := value.(type) {
	case nil:
		return ""
	case string:
		return value
	default:
		w := writer{style: JSON}
		w.value(value)
		return w.String()
	}
}

// writer writes JSON and what PBXs take for it.
type writer struct {
	bytes.Buffer
	style Style
}

func (w *writer) fields(f Fields) {
	w.WriteByte('{')
	for i, field := range f {
		w.separate(i)
		w.text(field.Key)
		w.WriteByte(':')
		if w.style != JSON {
			w.WriteByte(' ')
		}
		w.value(field.Value)
	}
	w.WriteByte('}')
}

func (w *writer) separate(i int) {
	if i == 0 {
		return
	}
	w.WriteByte(',')
	if w.style != JSON {
		w.WriteByte(' ')
	}
}

func (w *writer) value(value any) {
	switch value := value.(type) {
	case nil:
		w.WriteString(map[bool]string{true: "None", false: "null"}[w.style == Python])
	case bool:
		word := strconv.FormatBool(value)
		if w.style == Python {
			word = strings.ToUpper(word[:1]) + word[1:]
		}
		w.WriteString(word)
	case int:
		w.WriteString(strconv.Itoa(value))
	case Number:
		w.WriteString(string(value))
	case string:
		w.text(value)
	case Fields:
		w.fields(value)
	case []any:
		w.WriteByte('[')
		for i, item := range value {
			w.separate(i)
			w.value(item)
		}
		w.WriteByte(']')
	default: // what a person gave as JSON
		text, err := json.Marshal(value)
		if err != nil {
			panic(fmt.Sprintf("sim: %T is no value of a field", value)) // a mistake of ours, which tests show
		}
		w.Write(text)
	}
}

func (w *writer) text(text string) {
	switch {
	case w.style == Python:
		w.WriteString("'" + strings.NewReplacer(`\`, `\\`, "'", `\'`, "\n", `\n`, "\t", `\t`, "\r", `\r`).Replace(text) + "'")
	case w.style == BareZeros && len(text) > 1 && text[0] == '0' && strings.Trim(text, "0123456789") == "":
		w.WriteString(text)
	default:
		quoted, err := event.JSON(text)
		if err != nil {
			panic(fmt.Sprintf("sim: write a text: %v", err)) // a text can always be written
		}
		w.Write(quoted)
	}
}
