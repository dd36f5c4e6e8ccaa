package wire

import (
	"bytes"
	"fmt"
	"mime"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/ianaindex"
	"golang.org/x/text/encoding/unicode"
)

// decodeText is a body in UTF-8, and the charset that its percent-encoded bytes are in; nil for UTF-8. UTF-16 is told by its
// byte order mark or its zeros, whatever was declared, any other charset by the Content-Type.
//
// A charset makes a body three times as long at most, of which an event's bound is counted before.
func decodeText(body []byte, contentType string) (text []byte, charset encoding.Encoding, err error) {
	if order, ok := utf16Order(body); ok {
		text, err = unicode.UTF16(order, unicode.UseBOM).NewDecoder().Bytes(body)
		if err != nil {
			return nil, nil, fmt.Errorf("read it as UTF-16: %w", err)
		}
		return text, nil, nil
	}
	body = bytes.TrimPrefix(body, []byte("\ufeff"))
	charset, err = charsetOf(contentType)
	if charset == nil || err != nil {
		if err != nil && utf8.Valid(body) { // whatever it is called
			return body, nil, nil
		}
		return body, nil, err
	}
	text, err = charset.NewDecoder().Bytes(body)
	if err != nil {
		return nil, nil, fmt.Errorf("read it in its declared charset: %w", err)
	}
	return text, charset, nil
}

// utf16Order tells the byte order of UTF-16. Without a mark it is told by its first two characters, one of which
// is ASCII in every form of JSON and of parameters.
func utf16Order(body []byte) (unicode.Endianness, bool) {
	switch {
	case len(body) < 2:
	case body[0] == 0xff && body[1] == 0xfe, body[0] != 0 && body[0] < utf8.RuneSelf && body[1] == 0:
		return unicode.LittleEndian, true
	case body[0] == 0xfe && body[1] == 0xff, body[0] == 0 && body[1] != 0 && body[1] < utf8.RuneSelf:
		return unicode.BigEndian, true
	}
	return unicode.BigEndian, false
}

// charsetOf is the charset that a Content-Type declares; nil where it declares none, or UTF-8.
func charsetOf(contentType string) (encoding.Encoding, error) {
	if !strings.Contains(contentType, "=") { // without parameters, as most are
		return nil, nil //nolint:nilnil // UTF-8 needs no decoder
	}
	name := charsetName(contentType)
	switch strings.ToLower(name) {
	case "", "utf-8", "utf8", "us-ascii", "ascii":
		return nil, nil //nolint:nilnil // UTF-8 needs no decoder
	}
	charset, err := ianaindex.MIME.Encoding(name)
	if err != nil || charset == nil { // names that senders use and that nobody registered, such as cp1256
		charset, err = htmlindex.Get(name)
	}
	if err != nil {
		return nil, fmt.Errorf("expected a body in UTF-8 or in a charset that is known, got the charset %.40q", name)
	}
	if canonical, err := ianaindex.MIME.Name(charset); err == nil && strings.EqualFold(canonical, "utf-8") {
		return nil, nil //nolint:nilnil // UTF-8 needs no decoder
	}
	return charset, nil
}

func charsetName(contentType string) string {
	if _, parameters, err := mime.ParseMediaType(contentType); err == nil {
		return parameters["charset"]
	}
	_, rest, found := strings.Cut(strings.ToLower(contentType), "charset=") // with something before it that is wrong
	if !found {
		return ""
	}
	rest, _, _ = strings.Cut(rest, ";")
	return strings.Trim(rest, ` "'`)
}

// decodeValue is a parameter's value in UTF-8: its bytes were percent-encoded in the body's charset.
func decodeValue(value string, charset encoding.Encoding) string {
	if charset == nil || isASCII(value) || utf8.ValidString(value) {
		return value
	}
	if text, err := charset.NewDecoder().String(value); err == nil {
		return text
	}
	return value
}
