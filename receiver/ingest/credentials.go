package ingest

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/provider/wire"
)

// Credentials are what shows that a sender is the PBX. Nil credentials take anyone; empty ones were
// never seen, and take no one.
type Credentials struct {
	Username  string
	Passwords []string // in force: the one, and during rotation the previous one
	Tokens    []string // likewise
	TokenName string   // of a header, query parameter or body key that may carry the token
}

func (c *Credentials) unknown() bool {
	return c != nil && len(c.Passwords) == 0 && len(c.Tokens) == 0
}

func (c *Credentials) tokenName() string {
	if c == nil {
		return ""
	}
	return c.TokenName
}

// takePathToken cuts the token off the path that follows the webhook's own, if it begins with it.
func (c *Credentials) takePathToken(rest string) (path string, ok bool) {
	if c == nil {
		return rest, false
	}
	first, after, _ := strings.Cut(rest, "/")
	if plain, err := url.PathUnescape(first); err == nil && c.isToken(plain) {
		return after, true
	}
	return rest, false
}

// check is whether the request is the PBX's. It returns the query without the token.
func (c *Credentials) check(r *http.Request, body []byte, byPath bool) (query string, ok bool) {
	query = r.URL.RawQuery
	if c == nil {
		return query, true
	}
	ok = byPath
	if username, password, given := r.BasicAuth(); given && len(c.Passwords) > 0 {
		ok = oneOf(username, []string{c.Username}) && oneOf(password, c.Passwords) || ok
	}
	if c.TokenName == "" {
		return query, ok
	}
	for _, value := range r.Header.Values(c.TokenName) {
		ok = c.isToken(strings.TrimSpace(strings.TrimPrefix(value, "Bearer "))) || ok
	}
	query, inQuery := c.cutParameter(query)
	ok = inQuery || ok
	if !ok && len(body) > 0 {
		ok = c.inBody(r, body)
	}
	return query, ok
}

// cutParameter takes the token's parameter out of a query, and says whether it held the token.
func (c *Credentials) cutParameter(query string) (rest string, ok bool) {
	var pairs []string
	for pair := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(pair, "=")
		if plain, err := url.QueryUnescape(name); err != nil || !strings.EqualFold(plain, c.TokenName) {
			pairs = append(pairs, pair)
			continue
		}
		if plain, err := url.QueryUnescape(value); err == nil && c.isToken(plain) {
			ok = true
		}
	}
	return strings.Join(pairs, "&"), ok
}

// inBody is whether the body, a form or JSON, has the token under its name.
func (c *Credentials) inBody(r *http.Request, body []byte) bool {
	request := &event.Request{Header: r.Header, Body: body}
	fields, err := wire.Read(request, wire.Settings{})
	if err != nil {
		return false
	}
	return slices.ContainsFunc(fields.Named(c.TokenName), c.isToken)
}

func (c *Credentials) isToken(value string) bool { return value != "" && oneOf(value, c.Tokens) }

// oneOf compares with every candidate, in a time that tells nothing of them.
func oneOf(value string, candidates []string) bool {
	given := sha256.Sum256([]byte(value))
	found := 0
	for _, candidate := range candidates {
		wanted := sha256.Sum256([]byte(candidate))
		found |= subtle.ConstantTimeCompare(given[:], wanted[:])
	}
	return found == 1
}

// explain says, to people of this side alone, what a request without the right credentials had instead.
func (c *Credentials) explain(r *http.Request) string {
	username, password, basic := r.BasicAuth()
	switch {
	case basic && len(c.Passwords) == 0:
		return "a username and password came, but the webhook's Secret has none: only a token is taken"
	case basic && password == "":
		return "a username came without a password"
	case basic && !oneOf(username, []string{c.Username}):
		return "a username and password came, and the username is not the webhook's"
	case basic:
		return "the username is right, the password is wrong"
	case r.Header.Get("Authorization") != "":
		return "an Authorization header came that is not Basic"
	case c.TokenName != "" && (r.Header.Get(c.TokenName) != "" || hasParameter(r, c.TokenName)):
		return "a token came as " + c.TokenName + ", and it is wrong"
	case len(c.Passwords) == 0:
		return "no token came, or a wrong one"
	}
	return "no username and password came, and no right token"
}

func hasParameter(r *http.Request, name string) bool {
	for parameter := range r.URL.Query() {
		if strings.EqualFold(parameter, name) {
			return true
		}
	}
	return false
}
