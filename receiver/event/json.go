package event

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// JSON writes a value as a PBX or a target writes it: with <, > and & as they are.
func JSON(value any) ([]byte, error) {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return nil, fmt.Errorf("write JSON: %w", err)
	}
	return bytes.TrimSpace(buffer.Bytes()), nil
}

// AppendJSON appends the event to text as JSON writes it. It knows no types but those that events are made of,
// reads nothing twice, and takes a fifth of the time.
func (e *Event) AppendJSON(text []byte) []byte {
	return appendEvent(text, reflect.ValueOf(e).Elem())
}

// appender appends a value of one type.
type appender func(text []byte, value reflect.Value) []byte

var appendEvent = appenderOf(reflect.TypeFor[Event]())

// appenderOf makes the appender of a type.
func appenderOf(t reflect.Type) appender {
	switch t {
	case reflect.TypeFor[time.Time]():
		return func(text []byte, value reflect.Value) []byte {
			text = append(text, '"')
			text = value.Addr().Interface().(*time.Time).AppendFormat(text, time.RFC3339Nano)
			return append(text, '"')
		}
	case reflect.TypeFor[json.RawMessage]():
		return func(text []byte, value reflect.Value) []byte {
			if value.Len() == 0 {
				return append(text, "null"...)
			}
			return append(text, value.Bytes()...)
		}
	}
	switch t.Kind() {
	case reflect.String:
		return func(text []byte, value reflect.Value) []byte { return AppendText(text, value.String()) }
	case reflect.Bool:
		return func(text []byte, value reflect.Value) []byte { return strconv.AppendBool(text, value.Bool()) }
	case reflect.Int64:
		return func(text []byte, value reflect.Value) []byte { return strconv.AppendInt(text, value.Int(), 10) }
	case reflect.Pointer:
		element := appenderOf(t.Elem())
		return func(text []byte, value reflect.Value) []byte {
			if value.IsNil() {
				return append(text, "null"...)
			}
			return element(text, value.Elem())
		}
	case reflect.Slice:
		return sliceAppender(appenderOf(t.Elem()))
	case reflect.Struct:
		return structAppender(t)
	}
	panic(fmt.Sprintf("event: a field of type %s", t)) // a mistake of ours, which every test shows
}

func sliceAppender(element appender) appender {
	return func(text []byte, value reflect.Value) []byte {
		if value.IsNil() {
			return append(text, "null"...)
		}
		text = append(text, '[')
		for i := range value.Len() {
			if i > 0 {
				text = append(text, ',')
			}
			text = element(text, value.Index(i))
		}
		return append(text, ']')
	}
}

func structAppender(t reflect.Type) appender {
	type field struct {
		index     int
		name      string // as it stands in JSON, with its colon
		omitEmpty bool
		append    appender
	}
	var fields []field
	for i := range t.NumField() {
		name, options, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if name != "-" {
			fields = append(fields, field{i, `"` + name + `":`, options == "omitempty", appenderOf(t.Field(i).Type)})
		}
	}
	return func(text []byte, value reflect.Value) []byte {
		separator := byte('{')
		for i := range fields {
			f := &fields[i]
			member := value.Field(f.index)
			if f.omitEmpty && member.IsZero() {
				continue
			}
			text = append(append(text, separator), f.name...)
			text = f.append(text, member)
			separator = ','
		}
		if separator == '{' {
			text = append(text, '{')
		}
		return append(text, '}')
	}
}

// AppendValue appends what JSON is read into: nil, texts, json.Number, truth values, lists, and objects, whose
// keys come out in order. What cannot be written is null.
func AppendValue(text []byte, value any) []byte {
	switch value := value.(type) {
	case nil:
		return append(text, "null"...)
	case string:
		return AppendText(text, value)
	case json.Number:
		return append(text, value...)
	case bool:
		return strconv.AppendBool(text, value)
	case []any:
		text = append(text, '[')
		for i, element := range value {
			if i > 0 {
				text = append(text, ',')
			}
			text = AppendValue(text, element)
		}
		return append(text, ']')
	case map[string]any:
		text = append(text, '{')
		for i, key := range keysOf(value) {
			if i > 0 {
				text = append(text, ',')
			}
			text = append(AppendText(text, key), ':')
			text = AppendValue(text, value[key])
		}
		return append(text, '}')
	}
	other, err := JSON(value) // of a type that reading does not give
	if err != nil {
		return append(text, "null"...)
	}
	return append(text, other...)
}

func keysOf(object map[string]any) []string {
	keys := make([]string, 0, len(object))
	for key := range object {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

const hexadecimal = "0123456789abcdef"

// AppendText appends a text in quotes, as JSON writes it. What is no UTF-8 becomes U+FFFD; U+2028 and U+2029 are escaped, as they
// end a line in JavaScript.
func AppendText(text []byte, value string) []byte {
	text = append(text, '"')
	plain := 0 // what stands between it and i is not appended yet
	for i := 0; i < len(value); {
		c := value[i]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(value[i:])
			switch {
			case r == utf8.RuneError && size == 1:
				text = append(append(text, value[plain:i]...), `\ufffd`...)
				plain = i + size
			case r == '\u2028' || r == '\u2029':
				text = append(append(text, value[plain:i]...), `\u202`...)
				text = append(text, hexadecimal[r&0xf])
				plain = i + size
			}
			i += size
			continue
		}
		if c >= 0x20 && c != '"' && c != '\\' {
			i++
			continue
		}
		text = append(text, value[plain:i]...)
		switch c {
		case '"', '\\':
			text = append(text, '\\', c)
		case '\n':
			text = append(text, '\\', 'n')
		case '\r':
			text = append(text, '\\', 'r')
		case '\t':
			text = append(text, '\\', 't')
		case '\b':
			text = append(text, '\\', 'b')
		case '\f':
			text = append(text, '\\', 'f')
		default:
			text = append(text, '\\', 'u', '0', '0', hexadecimal[c>>4], hexadecimal[c&0xf])
		}
		i++
		plain = i
	}
	return append(append(text, value[plain:]...), '"')
}
