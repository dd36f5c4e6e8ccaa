package controllers

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// How often one object is written, whatever happens to it.
const (
	guardWindow     = time.Minute
	sameWrites      = 10 // of the same content within the window
	allWrites       = 30 // of any content within the window
	restoreFirst    = 5 * time.Second
	restoreLast     = 5 * time.Minute
	restoreForgiven = 10 * time.Minute // without a restore, after which the backoff begins again
)

// writeGuard bounds how often the operator writes an object: somebody else may rewrite it as often as the operator
// does. It is safe for concurrent use.
type writeGuard struct {
	mu       sync.Mutex
	webhooks map[types.NamespacedName]map[string]*guarded
}

// guarded is what is remembered of one object.
type guarded struct {
	writes    []guardedWrite // within the window
	restores  int            // in a row
	restoreAt time.Time      // of the last one
}

type guardedWrite struct {
	at      time.Time
	content string
}

func (g *writeGuard) object(webhook types.NamespacedName, object string) *guarded {
	if g.webhooks == nil {
		g.webhooks = map[types.NamespacedName]map[string]*guarded{}
	}
	if g.webhooks[webhook] == nil {
		g.webhooks[webhook] = map[string]*guarded{}
	}
	if g.webhooks[webhook][object] == nil {
		g.webhooks[webhook][object] = &guarded{}
	}
	return g.webhooks[webhook][object]
}

// write notes that a webhook's object is about to be written. It returns how long to wait instead; 0: write now.
func (g *writeGuard) write(webhook types.NamespacedName, object, content string, now time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	o := g.object(webhook, object)
	recent := o.writes[:0]
	var same []time.Time
	for _, w := range o.writes {
		if now.Sub(w.at) < guardWindow {
			recent = append(recent, w)
			if w.content == content {
				same = append(same, w.at)
			}
		}
	}
	o.writes = recent
	switch {
	case len(same) >= sameWrites:
		return guardWindow - now.Sub(same[0])
	case len(recent) >= allWrites:
		return guardWindow - now.Sub(recent[0].at)
	}
	o.writes = append(o.writes, guardedWrite{now, content})
	return 0
}

// restore notes that an object which somebody changed is about to be restored. It returns how long to wait instead;
// 0: restore now. The wait doubles each time that the change comes back.
func (g *writeGuard) restore(webhook types.NamespacedName, object string, now time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	o := g.object(webhook, object)
	delay := min(restoreLast, restoreFirst<<min(max(o.restores-1, 0), 10))
	switch since := now.Sub(o.restoreAt); {
	case o.restores == 0 || since > restoreForgiven+delay:
		o.restores = 0
	case since < delay:
		return delay - since
	}
	o.restores++
	o.restoreAt = now
	return 0
}

// forget drops what is remembered of a webhook's objects.
func (g *writeGuard) forget(webhook types.NamespacedName) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.webhooks, webhook)
}
