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
	"strings"

	"golang.org/x/text/encoding"

	"github.com/pbxhook/pbxhook/receiver/event"
)

// wrappers are keys of which the one that is a body's only field holds the event's fields.
var wrappers = map[string]bool{"payload": true, "data": true, "json": true, "body": true, "event": true, "message": true, "request": true, "params": true, "content": true, "api_data": true}

// addBody reads a body as JSON, a form or multipart. It is told by its first bytes: some PBXs send JSON and call it a form,
// or a form and call it nothing.
func (f *Fields) addBody(r *event.Request) error {
	contentType := r.ContentType()
	text, charset, err := decodeText(r.Body, contentType)
	if err != nil {
		return err
	}
	body := bytes.TrimSpace(text)
	if len(body) == 0 {
		return nil
	}
	if boundary := boundaryOf(body, contentType); boundary != "" {
		return f.addParts(multipart.NewReader(bytes.NewReader(text), boundary))
	}
	if isEscapedJSON(body) {
		body = []byte(strings.TrimSuffix(unescape(string(body)), "="))
	}
	if strings.IndexByte(`{["'`, body[0]) < 0 && bytes.IndexByte(body, '=') > 0 {
		return f.addForm(string(body), charset)
	}
	value, exact, err := parseJSON(body)
	if err != nil && body[len(body)-1] == '=' { // JSON as the only key of a form, which it is not encoded for
		value, _, err = parseJSON(body[:len(body)-1])
	}
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
	if exact && body[0] == '{' && len(f.sent) == 0 {
		f.exact = body
	}
	f.addObject(object)
	return nil
}

// addObject adds the fields of a body, or of the object that is its only field.
func (f *Fields) addObject(object map[string]any) {
	if inner := unwrap(object); inner != nil {
		object, f.exact = inner, nil
	}
	if len(f.sent) == 0 {
		f.sent = object
		return
	}
	f.exact = nil
	maps.Copy(f.sent, object)
}

// unwrap is the object with the event's fields where it is the only field of another one: the value of payload and the like,
// or the key itself where a client sent JSON as a form; nil otherwise.
func unwrap(object map[string]any) map[string]any {
	if len(object) != 1 {
		return nil
	}
	for key, value := range object {
		if text, ok := value.(string); ok && wrappers[strings.ToLower(strings.TrimSpace(key))] {
			value = nested(text)
		}
		if inner, ok := value.(map[string]any); ok && wrappers[strings.ToLower(strings.TrimSpace(key))] {
			return inner
		}
		if value == "" {
			inner, _ := nested(key).(map[string]any)
			return inner
		}
	}
	return nil
}

// addForm adds the fields of a form.
func (f *Fields) addForm(text string, charset encoding.Encoding) error {
	form := Fields{sent: map[string]any{}}
	if err := form.addParameters(text, charset); err != nil {
		return err
	}
	for key := range form.repeated {
		f.noteRepeated(key)
	}
	f.addObject(form.sent)
	return nil
}

// isEscapedJSON reports whether a body is an object or list in JSON that was percent-encoded as a whole.
func isEscapedJSON(body []byte) bool {
	if body[0] != '%' || len(body) < 3 || bytes.ContainsRune(bytes.TrimRight(body, "="), '=') {
		return false
	}
	first := strings.ToLower(string(body[:3]))
	return first == "%7b" || first == "%5b"
}

// boundaryOf is what divides the parts of a form that came as multipart/form-data, or empty where it did not. Where the header
// does not name what the body has, the body's first line counts.
func boundaryOf(body []byte, contentType string) string {
	multi := len(contentType) >= 10 && strings.EqualFold(contentType[:10], "multipart/")
	if !multi && !bytes.HasPrefix(body, []byte("--")) {
		return ""
	}
	declared := ""
	if media, parameters, err := mime.ParseMediaType(contentType); err == nil && media == "multipart/form-data" {
		declared = parameters["boundary"]
	}
	if declared != "" && bytes.Contains(body, []byte("--"+declared)) {
		return declared
	}
	line, rest, found := bytes.Cut(body, []byte("\n"))
	line = bytes.TrimSpace(line)
	const maxBoundary = 70 // RFC 2046
	if found && bytes.HasPrefix(line, []byte("--")) && len(line) > 2 && len(line) <= maxBoundary+2 && bytes.Contains(bytes.ToLower(rest), []byte("form-data")) {
		return string(line[2:])
	}
	return declared
}

// addParts reads a form that came as multipart/form-data. Files are no fields.
func (f *Fields) addParts(parts *multipart.Reader) error {
	form := map[string]any{}
	for n := 0; ; n++ {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			break
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
		name := part.FormName()
		if name == "" || part.FileName() != "" {
			continue
		}
		charset, _ := charsetOf(part.Header.Get("Content-Type"))
		form[name] = nested(decodeValue(string(value), charset))
	}
	f.addObject(form)
	return nil
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

// nested reads a parameter's value that is an object or list in JSON; others stay text.
func nested(value string) any {
	trimmed := strings.TrimSpace(value)
	if strings.HasPrefix(trimmed, "{") || strings.HasPrefix(trimmed, "[") {
		if IsPlaceholder(trimmed) {
			return value
		}
		if parsed, err := ParseJSON([]byte(trimmed)); err == nil {
			return parsed
		}
	}
	return value
}
