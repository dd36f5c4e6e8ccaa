package render

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/pbxhook/pbxhook/receiver/event"
)

// original is the PBX's own request: a service that was behind the PBX sees no difference. The
// target's URL takes the place of the webhook's.
func (s Shape) original(r *event.Request) (*Request, error) {
	target, err := url.Parse(s.URL)
	if err != nil {
		return nil, fmt.Errorf("read the target's URL: %w", err)
	}
	if err := addPath(target, r.Path); err != nil {
		return nil, err
	}
	switch {
	case target.RawQuery == "":
		target.RawQuery = r.Query
	case r.Query != "":
		target.RawQuery += "&" + r.Query
	}
	return &Request{Method: r.Method, URL: target.String(), Header: originalHeader(r.Header), Body: r.Body}, nil
}

// addPath adds what followed the webhook's path, which is decoded, to that of the target. A path that would lead out
// of the target's is an error: its sender does not choose where the target's requests go.
func addPath(target *url.URL, path string) error {
	suffix := strings.TrimPrefix(path, "/")
	if suffix == "" {
		return nil
	}
	if hasDotSegment(suffix) {
		return errors.New("the event's path has a dot segment (. or ..), and would lead out of the target's URL: it is not sent with format Original")
	}
	segments := strings.Split(suffix, "/")
	for i := range segments {
		segments[i] = url.PathEscape(segments[i])
	}
	escaped := strings.TrimSuffix(target.EscapedPath(), "/") + "/" + strings.Join(segments, "/")
	target.Path = strings.TrimSuffix(target.Path, "/") + "/" + suffix
	target.RawPath = escaped
	return nil
}

// maxDecodings is how often a path is decoded to look for dot segments: more often than servers behind one another do.
const maxDecodings = 8

// hasDotSegment reports whether a path has a segment that is "." or "..", as it is or for a server that decodes it once
// more; a backslash divides segments too, as some servers have it, and a semicolon ends one.
func hasDotSegment(path string) bool {
	for range maxDecodings {
		for _, segment := range strings.FieldsFunc(path, func(r rune) bool { return r == '/' || r == '\\' }) {
			if segment, _, _ = strings.Cut(segment, ";"); segment == "." || segment == ".." {
				return true
			}
		}
		decoded, err := url.PathUnescape(path)
		if err != nil || decoded == path {
			return false
		}
		path = decoded
	}
	return true
}

// notForwarded are headers of the sender that would tell a target something that is not the sender's to say: another
// path or method than those of the request, or something about the connection.
var notForwarded = []string{
	"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings",
	"Authorization", "Cookie", "Host", "Content-Length", "Expect", "Accept-Encoding",
	"X-Original-Url", "X-Original-Uri", "X-Original-Host", "X-Original-Method", "X-Rewrite-Url", "X-Http-Method-Override", "X-Http-Method", "X-Method-Override",
	"X-Forwarded-Uri", "X-Forwarded-Prefix", "X-Forwarded-Method", "X-Forwarded-Path", "X-Envoy-Original-Path",
}

// notForwardedPrefixes begin headers that pbxhook alone sends: those of signatures, CloudEvents, and its own.
var notForwardedPrefixes = []string{"Webhook-", "Ce-", event.HeaderPrefix}

// originalHeader returns the headers of a request that a target gets with format Original.
func originalHeader(header http.Header) http.Header {
	out := make(http.Header, len(header)+4)
	for name, values := range header {
		canonical := http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-")) // which servers take for the same
		if slices.Contains(notForwarded, canonical) || slices.ContainsFunc(notForwardedPrefixes, func(prefix string) bool { return strings.HasPrefix(canonical, prefix) }) {
			continue
		}
		if httpguts.ValidHeaderFieldName(name) && !slices.ContainsFunc(values, func(value string) bool { return !httpguts.ValidHeaderFieldValue(value) }) {
			out[name] = slices.Clone(values)
		}
	}
	return out
}
