package ingest

import (
	"log/slog"
	"maps"
	"sync"
	"time"
)

// logInterval is how often, at most, a webhook's requests of one kind have a line in the log.
const logInterval = time.Minute

// logKind is what requests have in common that share a line.
type logKind struct {
	webhook, message string
	code             int
}

// sampledLog writes one line a minute for each kind of request, which says how many came since the line before: a
// sender that is rejected a thousand times a second does not fill the log. It is safe for concurrent use.
type sampledLog struct {
	log   *slog.Logger
	mu    sync.Mutex
	kinds map[logKind]*logged
}

type logged struct {
	count int64 // since the last line
	at    time.Time
}

// add counts a request, and writes a line where one is due. attributes have no secret.
func (l *sampledLog) add(kind logKind, attributes ...any) {
	now := time.Now()
	l.mu.Lock()
	k := l.kinds[kind]
	if k == nil {
		k = &logged{}
		l.kinds[kind] = k
	}
	k.count++
	count, due := k.count, now.Sub(k.at) >= logInterval
	if due {
		k.count, k.at = 0, now
	}
	l.mu.Unlock()
	if due {
		l.log.Info(kind.message, append([]any{"webhook", kind.webhook, "code", kind.code, "count", count}, attributes...)...)
	}
}

// keep forgets the webhooks that are gone.
func (l *sampledLog) keep(webhooks map[string]*Webhook) {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.kinds, func(k logKind, _ *logged) bool { return k.webhook != "" && webhooks[k.webhook] == nil })
}
