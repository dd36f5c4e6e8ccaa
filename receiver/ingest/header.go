package ingest

import (
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/pbxhook/pbxhook/receiver/event"
)

// maxHops is how often a request may pass pbxhook. One more is a loop.
const maxHops = 5

// hops returns how often a request has passed pbxhook, as it says itself.
func hops(header http.Header) int {
	passed := 0
	for _, value := range header.Values(event.HopsHeader) {
		if n, err := strconv.Atoi(strings.TrimSpace(value)); err == nil {
			passed = max(passed, n)
		}
	}
	return passed
}

// dropped are headers that are about the connection or show who the sender is, not about the event.
var dropped = map[string]bool{
	"Authorization": true, "Proxy-Authorization": true, "Cookie": true,
	"Connection": true, "Content-Length": true, "Expect": true, "Keep-Alive": true, "Proxy-Connection": true,
	"Te": true, "Trailer": true, "Transfer-Encoding": true, "Upgrade": true, "Accept-Encoding": true,
}

// kept returns the headers that are stored with the request; the others are removed from header. What Connection
// names is about the connection too (RFC 9110, 7.6.1). Of Pbxhook's own headers only the hops are a sender's to say.
func kept(header http.Header, tokenName string) http.Header {
	passed := hops(header)
	for _, names := range header.Values("Connection") {
		for name := range strings.SplitSeq(names, ",") {
			header.Del(strings.TrimSpace(name))
		}
	}
	for name, values := range header {
		if dropped[name] || strings.HasPrefix(name, event.HeaderPrefix) || tokenName != "" && strings.EqualFold(name, tokenName) || !isValid(name, values) {
			delete(header, name)
		}
	}
	if passed > 0 {
		header[event.HopsHeader] = []string{strconv.Itoa(passed)}
	}
	return header
}

// isValid reports whether a header is one by RFC 9110, so that it can be sent on.
func isValid(name string, values []string) bool {
	if !httpguts.ValidHeaderFieldName(name) {
		return false
	}
	for _, value := range values {
		if !httpguts.ValidHeaderFieldValue(value) {
			return false
		}
	}
	return true
}
