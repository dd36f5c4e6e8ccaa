package ingest

import (
	"net/http"
	"strings"
	"sync"
	"time"
)

// maxRefused is how many refused requests are remembered, and maxShown how much of what one said.
const (
	maxRefused = 500
	maxShown   = 128
)

// Refused is a request that was answered with an error. It has nothing of the request that may be a secret.
type Refused struct {
	Time        time.Time
	Webhook     string // namespace/name; empty where none has the path
	Path        string // as far as it names a webhook, where none has it
	Code        int
	Reason      string // as its sender was told
	Hint        string // what else can be told of it, to people of this side
	Method      string
	Sender      string // address and port
	UserAgent   string
	ContentType string
}

// refusals are the latest refused requests.
type refusals struct {
	mu   sync.Mutex
	ring []Refused
	next int
}

func (f *refusals) add(webhook string, a answer, r *http.Request) {
	refused := Refused{
		Time: time.Now().UTC(), Webhook: webhook, Code: a.code, Reason: a.why, Hint: a.hint, Method: shown(r.Method), Sender: r.RemoteAddr,
		UserAgent: shown(r.UserAgent()), ContentType: shown(r.Header.Get("Content-Type")),
	}
	if webhook == "" { // what follows the name may be a token
		parts := strings.SplitN(r.URL.EscapedPath(), "/", 5)
		refused.Path = shown(strings.Join(parts[:min(len(parts), 4)], "/"))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.ring) < maxRefused {
		f.ring = append(f.ring, refused)
		return
	}
	f.ring[f.next] = refused
	f.next = (f.next + 1) % maxRefused
}

func shown(text string) string {
	return strings.Clone(strings.ToValidUTF8(text[:min(len(text), maxShown)], "\ufffd"))
}

// Refused are the latest requests that were answered with an error, the newest first.
func (h *Handler) Refused() []Refused {
	h.refused.mu.Lock()
	defer h.refused.mu.Unlock()
	n := len(h.refused.ring)
	all := make([]Refused, 0, n)
	for i := range n {
		all = append(all, h.refused.ring[(h.refused.next+n-1-i)%n])
	}
	return all
}
