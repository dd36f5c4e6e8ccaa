package ingest

import (
	"hash/maphash"
	"maps"
	"net/http"
	"sync"

	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/provider/wire"
)

// maxWrong is how many different wrong credentials of a webhook are remembered. Beyond it all are forgotten.
const maxWrong = 1024

// guesses count, by webhook, wrong credentials that were not seen before. A PBX with an old password sends the same
// one again and again, and counts once; whoever guesses sends others. Nobody is locked out by it: an attacker and the
// PBX may share an address. It is safe for concurrent use.
type guesses struct {
	seed     maphash.Seed // so that what is remembered tells nothing of the credentials
	mu       sync.Mutex
	webhooks map[string]*wrongCredentials
}

type wrongCredentials struct {
	guessed int64
	seen    map[uint64]bool
}

// keep begins to count for webhooks that are new, and ends it for those that are gone.
func (g *guesses) keep(webhooks map[string]*Webhook) {
	g.mu.Lock()
	defer g.mu.Unlock()
	maps.DeleteFunc(g.webhooks, func(id string, _ *wrongCredentials) bool { return webhooks[id] == nil })
	for id := range webhooks {
		if g.webhooks[id] == nil {
			g.webhooks[id] = &wrongCredentials{seen: map[uint64]bool{}}
		}
	}
}

// count counts credentials that are wrong; empty ones are none.
func (g *guesses) count(webhook, presented string) {
	if presented == "" {
		return
	}
	hash := maphash.String(g.seed, presented)
	g.mu.Lock()
	defer g.mu.Unlock()
	w := g.webhooks[webhook]
	if w == nil || w.seen[hash] {
		return
	}
	if len(w.seen) == maxWrong {
		clear(w.seen)
	}
	w.seen[hash] = true
	w.guessed++
}

// Guessed returns how many different wrong credentials came for a webhook since the receiver started.
func (h *Handler) Guessed(webhook string) int64 {
	h.guesses.mu.Lock()
	defer h.guesses.mu.Unlock()
	if w := h.guesses.webhooks[webhook]; w != nil {
		return w.guessed
	}
	return 0
}

// presented is all of a request that may be meant as credentials; empty where there is nothing.
func (c *Credentials) presented(r *http.Request, at location, body []byte) string {
	shown := r.Header.Get("Authorization")
	if c.TokenName != "" {
		for _, value := range r.Header.Values(c.TokenName) {
			shown += "\x00" + value
		}
		if value, ok := parameter(r, c.TokenName); ok {
			shown += "\x00" + value
		}
		if fields, err := wire.Read(&event.Request{Header: r.Header, Body: body}, wire.Settings{}); err == nil {
			for _, value := range fields.Named(c.TokenName) {
				shown += "\x00" + value
			}
		}
	}
	if shown == "" && len(c.Tokens) > 0 && len(at.segments) > 0 {
		shown = "/" + at.segments[0] // which may be the name of an event as well: there are few of these
	}
	return shown
}
