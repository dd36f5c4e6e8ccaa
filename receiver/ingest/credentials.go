package ingest

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/pbxhook/pbxhook/receiver/provider/wire"
)

// Credentials are what shows that a sender is the PBX. Nil credentials accept anyone; empty ones were never seen,
// and accept nobody.
type Credentials struct {
	Username  string
	Passwords []string // the active one, and during rotation the previous one
	Tokens    []string // the same of tokens
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

// inHead reports whether a request shows outside of its body that it is the PBX's.
func (c *Credentials) inHead(r *http.Request, at location) bool {
	if c == nil || at.hasToken {
		return true
	}
	if username, password, given := basicAuth(r.Header.Get("Authorization")); given && len(c.Passwords) > 0 &&
		oneOf(username, []string{c.Username}) && oneOf(password, c.Passwords) {
		return true
	}
	return c.TokenName != "" && slices.ContainsFunc(r.Header.Values(c.TokenName), c.isHeaderToken)
}

// mayBeInBody reports whether the token of a request may be in its body, which must be read to tell.
func (c *Credentials) mayBeInBody() bool { return c != nil && c.TokenName != "" && len(c.Tokens) > 0 }

// isHeaderToken compares a header's value, with and without a scheme before it.
func (c *Credentials) isHeaderToken(value string) bool {
	scheme, rest := cutScheme(value)
	return c.isToken(strings.TrimSpace(value)) || tokenSchemes[strings.ToLower(scheme)] && c.isToken(rest)
}

// tokenSchemes may stand before a token, in any case.
var tokenSchemes = map[string]bool{"bearer": true, "token": true}

// cutScheme cuts a credential's scheme off, and the blanks after it.
func cutScheme(value string) (scheme, rest string) {
	value = strings.TrimSpace(value)
	end := strings.IndexAny(value, " \t")
	if end < 0 {
		return value, ""
	}
	return value[:end], strings.TrimSpace(value[end:])
}

// basicAuth reads an Authorization header of the scheme Basic, in any case and with any number of blanks after it.
func basicAuth(value string) (username, password string, ok bool) {
	scheme, rest := cutScheme(value)
	if !strings.EqualFold(scheme, "Basic") {
		return "", "", false
	}
	return (&http.Request{Header: http.Header{"Authorization": {"Basic " + rest}}}).BasicAuth()
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

// explain says, to operators alone, what a request without the right credentials had instead.
func (c *Credentials) explain(r *http.Request) string {
	username, password, basic := basicAuth(r.Header.Get("Authorization"))
	token, inQuery := parameter(r, c.TokenName)
	switch {
	case basic && len(c.Passwords) == 0:
		return "a username and password came, but the webhook's Secret has none: only a token is accepted"
	case basic && password == "":
		return "a username came without a password"
	case basic && !oneOf(username, []string{c.Username}):
		return "a username and password came, and the username is not the webhook's" + nearly(username, []string{c.Username})
	case basic:
		return "the username is right, the password is wrong" + nearly(password, c.Passwords)
	case c.TokenName != "" && r.Header.Get(c.TokenName) != "":
		_, rest := cutScheme(r.Header.Get(c.TokenName))
		return "a token came as " + c.TokenName + ", and it is wrong" + wire.First(nearly(r.Header.Get(c.TokenName), c.Tokens), nearly(rest, c.Tokens))
	case inQuery:
		return "a token came as " + c.TokenName + ", and it is wrong" + nearly(token, c.Tokens)
	case r.Header.Get("Authorization") != "":
		return "an Authorization header came that is not Basic"
	case len(c.Passwords) == 0:
		return "no token came, or a wrong one"
	}
	return "no username and password came, and no right token"
}

// nearly says by what a value that was sent misses one that is expected; empty: by more than that.
func nearly(value string, expected []string) string {
	trimmed := make([]string, len(expected))
	for i := range expected {
		trimmed[i] = strings.TrimSpace(expected[i])
	}
	if oneOf(strings.TrimSpace(value), trimmed) {
		return ": it would match without white space at its ends, at the PBX or in the Secret"
	}
	for _, unescape := range []func(string) (string, error){url.PathUnescape, url.QueryUnescape} {
		if plain, err := unescape(value); err == nil && plain != value && oneOf(plain, expected) {
			return ": it would match after percent-decoding: the PBX sends it escaped, so enter it there as it is in the Secret, or take one without special characters"
		}
	}
	return ""
}

// parameter returns the first query parameter that has a name, in any case, and whether there is one.
func parameter(r *http.Request, name string) (value string, ok bool) {
	if name == "" {
		return "", false
	}
	for key, values := range r.URL.Query() {
		if strings.EqualFold(strings.TrimSpace(key), name) {
			return values[0], true
		}
	}
	return "", false
}
