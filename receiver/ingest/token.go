package ingest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/provider/wire"
)

// cutParameter takes the token's parameter out of a query or form, and reports whether it held the token.
func (c *Credentials) cutParameter(query string) (rest string, ok bool) {
	var pairs []string
	for pair := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(pair, "=")
		if plain, err := url.QueryUnescape(name); err != nil || !strings.EqualFold(strings.TrimSpace(plain), c.TokenName) {
			pairs = append(pairs, pair)
			continue
		}
		if plain, err := url.QueryUnescape(value); err == nil && c.isToken(plain) {
			ok = true
		}
	}
	return strings.Join(pairs, "&"), ok
}

// inBody reports whether the body, a form or JSON, has the token under its name.
func (c *Credentials) inBody(r *http.Request, body []byte) bool {
	request := &event.Request{Header: r.Header, Body: body}
	fields, err := wire.Read(request, wire.Settings{})
	if err != nil {
		return false
	}
	return slices.ContainsFunc(fields.Named(c.TokenName), c.isToken)
}

// removeToken takes whatever is under the token's name out of a request's body, so that neither the journal nor a
// target gets it. All else of a form, of JSON and of a multipart form stays as it came; what only a tolerant decoder
// reads becomes JSON.
func (c *Credentials) removeToken(request *event.Request) {
	if c == nil || c.TokenName == "" || len(request.Body) == 0 {
		return
	}
	fields, err := wire.Read(&event.Request{Header: request.Header, Body: request.Body}, wire.Settings{})
	if err == nil && len(fields.Named(c.TokenName)) == 0 {
		return
	}
	unread := err != nil // no decoder reads it, and what is recognized goes all the same
	if body, ok := c.cutFromForm(request); ok && (unread || !c.isNamedIn(request.Header, body)) {
		request.Body = body
		return
	}
	if body, err := c.cutFromJSON(request.Body); err == nil && (unread || !c.isNamedIn(request.Header, body)) {
		request.Body = body
		return
	}
	if unread {
		return
	}
	fields, err = wire.Read(&event.Request{Header: request.Header, Body: request.Body}, wire.Settings{TokenName: c.TokenName})
	if err != nil { // it was read a moment ago
		request.Body = nil
		return
	}
	request.Body = fields.Payload()
	request.Header.Set("Content-Type", "application/json")
}

// isNamedIn reports whether a body has something under the token's name, or cannot be read any more.
func (c *Credentials) isNamedIn(header http.Header, body []byte) bool {
	fields, err := wire.Read(&event.Request{Header: header, Body: body}, wire.Settings{})
	return err != nil || len(fields.Named(c.TokenName)) > 0
}

// cutFromForm takes the token out of a form, plain or multipart; ok is false for what is none.
func (c *Credentials) cutFromForm(request *event.Request) (body []byte, ok bool) {
	media, parameters, err := mime.ParseMediaType(request.ContentType())
	if err == nil && media == "multipart/form-data" {
		body, err = c.cutFromParts(request.Body, parameters["boundary"])
		return body, err == nil
	}
	text := bytes.TrimSpace(bytes.TrimPrefix(request.Body, []byte("\ufeff")))
	if len(text) == 0 || strings.IndexByte(`{["'`, text[0]) >= 0 || !utf8.Valid(text) {
		return nil, false
	}
	rest, _ := c.cutParameter(string(text))
	if len(rest) == len(text) {
		return request.Body, true // it has no token
	}
	return []byte(rest), true
}

// cutFromParts copies a multipart form without the token's part.
func (c *Credentials) cutFromParts(body []byte, boundary string) ([]byte, error) {
	var copied bytes.Buffer
	out := multipart.NewWriter(&copied)
	if err := out.SetBoundary(boundary); err != nil {
		return nil, fmt.Errorf("write the form with its own boundary: %w", err)
	}
	for parts := multipart.NewReader(bytes.NewReader(body), boundary); ; {
		part, err := parts.NextRawPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read a part of the form: %w", err)
		}
		if strings.EqualFold(strings.TrimSpace(part.FormName()), c.TokenName) {
			continue
		}
		to, err := out.CreatePart(part.Header)
		if err != nil {
			return nil, fmt.Errorf("write a part of the form: %w", err)
		}
		if _, err := io.Copy(to, part); err != nil {
			return nil, fmt.Errorf("copy a part of the form: %w", err)
		}
	}
	if err := out.Close(); err != nil {
		return nil, fmt.Errorf("end the form: %w", err)
	}
	return copied.Bytes(), nil
}

// cutFromJSON cuts the members that have the token's name out of a JSON object, whose other bytes stay.
func (c *Credentials) cutFromJSON(body []byte) ([]byte, error) {
	if !json.Valid(body) {
		return nil, errors.New("expected valid JSON")
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	if brace, err := decoder.Token(); err != nil || brace != json.Delim('{') {
		return nil, errors.New("expected a JSON object")
	}
	end := decoder.InputOffset() // of what was looked at
	kept := slices.Clone(body[:end])
	var cut, hasMember bool // a member was cut, and one was kept
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return nil, fmt.Errorf("read a name: %w", err)
		}
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return nil, fmt.Errorf("read a value: %w", err)
		}
		member := body[end:decoder.InputOffset()] // with the comma before it, if there is one
		end = decoder.InputOffset()
		if text, _ := name.(string); strings.EqualFold(strings.TrimSpace(text), c.TokenName) {
			cut = true
			continue
		}
		if cut && !hasMember {
			member = bytes.TrimPrefix(bytes.TrimLeft(member, " \t\r\n"), []byte(","))
		}
		kept, hasMember = append(kept, member...), true
	}
	return append(kept, body[end:]...), nil
}
