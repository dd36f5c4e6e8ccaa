package ingest

import (
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxRejected is how many rejected requests are remembered, and maxShown how much of what one said.
const (
	maxRejected = 500
	maxShown    = 128
)

// Rejected is a request that was answered with an error. It has nothing of the request that may be a secret.
type Rejected struct {
	Time        time.Time
	Webhook     string // namespace/name; empty where none has the path
	Path        string // as far as it names a webhook, where none has it
	Code        int    // 0: there was no response
	Reason      string // as its sender was told
	Hint        string // what else can be told of it, to people of this side
	Method      string // empty where the request was not read
	Sender      string // address and port
	UserAgent   string
	ContentType string
}

// rejections are the latest rejected requests.
type rejections struct {
	mu   sync.Mutex
	ring []Rejected
	next int

	unread *rate.Limiter // of those that did not reach the handler: whoever sends garbage does not hide the others
}

// How many of those are shown.
const (
	unreadPerSecond = 0.2
	unreadBurst     = 20
)

func (f *rejections) add(webhook string, a answer, r *http.Request) {
	rejected := Rejected{
		Time: time.Now().UTC(), Webhook: webhook, Code: a.code, Reason: a.why, Hint: a.hint, Method: shown(r.Method), Sender: r.RemoteAddr,
		UserAgent: shown(r.UserAgent()), ContentType: shown(r.Header.Get("Content-Type")),
	}
	if webhook == "" { // what follows the name may be a token
		parts := strings.SplitN(r.URL.EscapedPath(), "/", 5)
		rejected.Path = shown(strings.Join(parts[:min(len(parts), 4)], "/"))
	}
	f.put(rejected)
}

func (f *rejections) put(rejected Rejected) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.ring) < maxRejected {
		f.ring = append(f.ring, rejected)
		return
	}
	f.ring[f.next] = rejected
	f.next = (f.next + 1) % maxRejected
}

func shown(text string) string {
	return strings.Clone(strings.ToValidUTF8(text[:min(len(text), maxShown)], "\ufffd"))
}

// Rejected returns the latest requests that were answered with an error, the newest first.
func (h *Handler) Rejected() []Rejected {
	h.rejected.mu.Lock()
	defer h.rejected.mu.Unlock()
	n := len(h.rejected.ring)
	all := make([]Rejected, 0, n)
	for i := range n {
		all = append(all, h.rejected.ring[(h.rejected.next+n-1-i)%n])
	}
	return all
}
