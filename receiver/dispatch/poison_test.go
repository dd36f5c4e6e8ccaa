package dispatch_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/dispatch"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/journal"
)

// TestPoisonedCalls: calls whose events the target does not take, whatever it does instead, keep those of other calls
// waiting for a few seconds at most. In virtual time.
func TestPoisonedCalls(t *testing.T) {
	unavailable := func(status int, after time.Duration) poison {
		return poison{takes: after, outcome: dispatch.Outcome{
			Result: dispatch.Retry, Answered: status != 0, Unavailable: status != 500, Status: status, Reason: "poisoned",
		}}
	}
	told := unavailable(429, 0)
	told.outcome.RetryAfter = time.Hour
	kinds := map[string]poison{
		"reset": unavailable(0, 0), "time-out": unavailable(0, timeout), "429": unavailable(429, 0), "429 with Retry-After": told,
		"500": unavailable(500, 0), "500 after a while": unavailable(500, timeout-1), "502": unavailable(502, 0),
		"503": unavailable(503, 0), "504": unavailable(504, timeout-1),
	}
	for _, tc := range []struct {
		name        string
		poisoned    int
		every       time.Duration // a good event comes
		concurrency int
		noOrder     bool
		p95, worst  time.Duration
	}{
		{name: "defaults", poisoned: 20, every: 250 * time.Millisecond, concurrency: 16, p95: 5 * time.Second, worst: timeout},
		{name: "no order", poisoned: 20, every: 250 * time.Millisecond, concurrency: 16, noOrder: true, p95: 5 * time.Second, worst: timeout},
		{name: "a good event now and then", poisoned: 20, every: 20 * time.Second, concurrency: 16, p95: 16 * time.Second, worst: 16 * time.Second},
		{name: "more poisoned calls than slots can take at once", poisoned: 100, every: 250 * time.Millisecond, concurrency: 16, p95: 2 * timeout, worst: 2 * timeout},
		{name: "three slots", poisoned: 20, every: 250 * time.Millisecond, concurrency: 3, p95: 4 * timeout, worst: 4 * timeout},
		{name: "one slot, one poisoned call", poisoned: 1, every: 250 * time.Millisecond, concurrency: 1, p95: timeout + time.Second, worst: timeout + time.Second},
	} {
		for kind, p := range kinds {
			t.Run(tc.name+"/"+kind, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					waits := playPoisoned(t, tc.poisoned, tc.every, p, dispatch.Policy{
						PerCall: !tc.noOrder, Concurrency: tc.concurrency, MaxAge: 24 * time.Hour, InitialDelay: time.Second, MaxDelay: 5 * time.Minute,
					})
					p95, worst := waits[len(waits)*95/100], waits[len(waits)-1]
					t.Logf("p95 %s, worst %s", p95, worst)
					require.LessOrEqual(t, p95, tc.p95)
					require.LessOrEqual(t, worst, tc.worst)
				})
			})
		}
	}
}

// playPoisoned has poisoned calls come first and 240 good ones after them, and returns how long those waited, sorted.
func playPoisoned(t *testing.T, poisoned int, every time.Duration, p poison, policy dispatch.Policy) (waits []time.Duration) {
	const good = 240
	j := journal.NewMemory()
	_, err := j.OpenCursor("crm")
	require.NoError(t, err)
	var mu sync.Mutex
	attempt := func(ctx context.Context, r journal.Record) dispatch.Outcome {
		if r.Lane[0] == 'p' {
			select {
			case <-time.After(p.takes):
			case <-ctx.Done():
			}
			return p.outcome
		}
		time.Sleep(5 * time.Millisecond)
		mu.Lock()
		defer mu.Unlock()
		waits = append(waits, time.Since(r.Request.ReceivedAt))
		return delivered
	}
	add := func(lane string) {
		_, err := j.Append(t.Context(), journal.Record{ID: lane, Lane: lane, Type: event.CallEnded, Request: event.Request{ReceivedAt: time.Now()}}, nil)
		require.NoError(t, err)
	}
	for i := range poisoned {
		add(fmt.Sprint("poisoned", i))
	}
	ctx, stop := context.WithCancel(t.Context())
	d, done := dispatch.New("crm", j, slog.New(slog.DiscardHandler), policy, attempt), make(chan error)
	go func() { done <- d.Run(ctx, ctx) }()
	for i := range good {
		time.Sleep(every)
		add(fmt.Sprint("good", i))
	}
	time.Sleep(5 * time.Minute)
	synctest.Wait()
	stop()
	require.NoError(t, <-done)
	require.Len(t, waits, good, "every good event arrives")
	slices.Sort(waits)
	return waits
}
