package ingest

import (
	"net/http"
	"net/url"
	"strings"
	"unicode"
)

// location is where a request's path and query lead within its webhook, once the token is taken out of both.
type location struct {
	segments []string // that follow the webhook's name and the token, decoded
	query    string   // raw
	hasToken bool     // the path or the query had the right token
}

// locate reads what follows the webhook's name, and the query.
func (c *Credentials) locate(rest []string, query string) location {
	l := location{segments: rest, query: query}
	if c == nil {
		return l
	}
	if len(rest) > 0 && c.isToken(rest[0]) {
		l.segments, l.hasToken = rest[1:], true
	}
	if c.TokenName != "" {
		var inQuery bool
		l.query, inQuery = c.cutParameter(query)
		l.hasToken = l.hasToken || inQuery
	}
	return l
}

// isBare reports whether nothing but the token follows the webhook's name: no event, and no parameter.
// A parameter that has the token's name and a wrong value is something.
func (l *location) isBare(r *http.Request) bool {
	return len(l.segments) == 0 && strings.Trim(l.query, "&") == "" && (l.hasToken || strings.Trim(r.URL.RawQuery, "&") == "")
}

// path is the part of the path that belongs to the event, such as "/NewState"; empty where there is none.
func (l *location) path() string {
	if len(l.segments) == 0 {
		return ""
	}
	return "/" + strings.Join(l.segments, "/")
}

// segmentsOf returns the segments of an escaped path, each percent-decoded by itself, so that an escaped slash
// divides nothing. Empty segments are left out, and white space at the end of the path, which comes of pasting.
func segmentsOf(escaped string) []string {
	segments := make([]string, 0, 8)
	for segment := range strings.SplitSeq(escaped, "/") {
		if plain, err := url.PathUnescape(segment); err == nil {
			segment = plain
		}
		if segment != "" {
			segments = append(segments, segment)
		}
	}
	for len(segments) > 0 {
		last := len(segments) - 1
		if segments[last] = strings.TrimRightFunc(segments[last], unicode.IsSpace); segments[last] != "" {
			break
		}
		segments = segments[:last]
	}
	return segments
}
