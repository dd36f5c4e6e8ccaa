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

// ageBench is a journal in memory and a target that is up or down, in virtual time.
type ageBench struct {
	t       *testing.T
	journal *journal.Memory
	policy  dispatch.Policy
	running *dispatch.Dispatcher
	stop    func()

	mu        sync.Mutex
	down      bool
	tries     map[string][]time.Time
	failed    time.Time // when an attempt last failed
	delivered []string
}

func newAgeBench(t *testing.T) *ageBench {
	b := &ageBench{t: t, journal: journal.NewMemory(), tries: map[string][]time.Time{}, policy: dispatch.Policy{
		PerCall: true, Concurrency: 16, MaxAge: 24 * time.Hour, InitialDelay: time.Second, MaxDelay: 5 * time.Minute, Webhook: "a",
	}}
	_, err := b.journal.OpenCursor("crm")
	require.NoError(t, err)
	return b
}

func (b *ageBench) add(calls int, age time.Duration) {
	b.t.Helper()
	for i := range 2 * calls {
		_, err := b.journal.Append(b.t.Context(), journal.Record{
			ID: fmt.Sprint(i), Lane: fmt.Sprint("call", i%calls), Type: event.CallEnded, Request: event.Request{ReceivedAt: time.Now().Add(-age)},
		}, nil)
		require.NoError(b.t, err)
	}
}

func (b *ageBench) attempt(_ context.Context, r journal.Record) dispatch.Outcome {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tries[r.ID] = append(b.tries[r.ID], time.Now())
	if b.down {
		b.failed = time.Now()
		return dispatch.Outcome{Result: dispatch.Retry, Unavailable: true, Reason: "connection refused"}
	}
	b.delivered = append(b.delivered, r.ID)
	return delivered
}

func (b *ageBench) setDown(is bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down = is
}

func (b *ageBench) start() {
	ctx, cancel := context.WithCancel(context.Background())
	d, done := dispatch.New("crm", b.journal, slog.New(slog.DiscardHandler), b.policy, b.attempt), make(chan error)
	go func() { done <- d.Run(ctx, context.Background()) }()
	b.running = d
	b.stop = func() {
		cancel()
		require.NoError(b.t, <-done)
	}
}

func (b *ageBench) suspend(is bool) {
	b.policy.Suspended = is
	b.running.Configure(b.policy, b.attempt)
	synctest.Wait()
}

func (b *ageBench) letters() []journal.DeadLetter {
	b.t.Helper()
	letters, err := b.journal.DeadLetters("crm", 0, 1000)
	require.NoError(b.t, err)
	return letters
}

// requireAll requires that all events were delivered, in order within their calls.
func (b *ageBench) requireAll(calls int) {
	b.t.Helper()
	require.Empty(b.t, b.letters())
	require.Len(b.t, b.delivered, 2*calls)
	for i := range calls {
		require.Less(b.t, slices.Index(b.delivered, fmt.Sprint(i)), slices.Index(b.delivered, fmt.Sprint(calls+i)))
	}
}

func TestAge(t *testing.T) {
	const calls = 20
	for name, play := range map[string]func(t *testing.T, b *ageBench){
		"the clock jumped by 25 hours: what waits is attempted": func(t *testing.T, b *ageBench) {
			b.add(calls, 25*time.Hour)
			b.start()
			time.Sleep(time.Minute)
			b.stop()
			b.requireAll(calls)
		},
		"the clock jumped by 8 days: what waits is attempted": func(t *testing.T, b *ageBench) {
			b.add(calls, 8*24*time.Hour)
			b.start()
			time.Sleep(time.Minute)
			b.stop()
			b.requireAll(calls)
		},
		"too old, and the target is down: given up after an attempt or a probe": func(t *testing.T, b *ageBench) {
			b.down = true
			b.add(calls, 25*time.Hour)
			b.start()
			time.Sleep(time.Hour)
			b.stop()
			letters := b.letters()
			require.Len(t, letters, 2*calls)
			attempts := 0
			for _, tries := range b.tries {
				attempts += len(tries)
			}
			require.LessOrEqual(t, attempts, 2*calls)
			require.Positive(t, attempts)
			for _, letter := range letters {
				require.Contains(t, letter.Reason, "older than retry.maxAge (24h0m0s); the last attempt: connection refused")
				require.False(t, letter.Time.Before(b.tries["0"][0]))
			}
		},
		"the node is down for two days": func(t *testing.T, b *ageBench) {
			b.down = true
			b.start()
			b.add(calls, 0)
			time.Sleep(time.Minute)
			b.stop()
			time.Sleep(48 * time.Hour)
			b.start()
			time.Sleep(20 * time.Hour) // the target is still down
			require.Empty(t, b.letters())
			b.setDown(false)
			time.Sleep(time.Minute)
			b.stop()
			b.requireAll(calls)
		},
		"suspended for a week": func(t *testing.T, b *ageBench) {
			b.policy.Suspended = true
			b.start()
			b.add(calls, 0)
			time.Sleep(3 * 24 * time.Hour)
			b.stop()
			b.start()
			time.Sleep(4 * 24 * time.Hour)
			require.Empty(t, b.tries)
			require.EqualValues(t, 2*calls, b.running.Status().Pending)
			require.Contains(t, b.running.Status().LastError, "suspended")
			b.setDown(true)
			b.suspend(false)
			time.Sleep(20 * time.Hour)
			require.Empty(t, b.letters())
			b.setDown(false)
			time.Sleep(time.Minute)
			b.stop()
			b.requireAll(calls)
		},
		"suspended while it is down": func(t *testing.T, b *ageBench) {
			b.down = true
			b.start()
			b.add(calls, 0)
			time.Sleep(12 * time.Hour)
			b.suspend(true)
			tried := len(b.tries)
			time.Sleep(48 * time.Hour)
			require.Len(t, b.tries, tried)
			b.suspend(false)
			time.Sleep(11 * time.Hour)
			require.Empty(t, b.letters())
			time.Sleep(2 * time.Hour)
			b.stop()
			require.Len(t, b.letters(), 2*calls)
		},
		"a target that is down for longer than maxAge": func(t *testing.T, b *ageBench) {
			b.down = true
			b.start()
			b.add(calls, 0)
			time.Sleep(24*time.Hour - time.Second)
			require.Empty(t, b.letters())
			time.Sleep(10 * time.Minute)
			require.Len(t, b.letters(), 2*calls, "soon after")
			require.Zero(t, b.running.Status().Pending)
			b.stop()
		},
		"an old journal under another webhook of that name": func(t *testing.T, b *ageBench) {
			b.policy.Suspended = true // nothing is attempted for the first one
			b.start()
			b.add(calls, 0)
			time.Sleep(time.Minute)
			b.stop()
			time.Sleep(48 * time.Hour)
			b.policy.Suspended, b.policy.Webhook = false, "b"
			b.add(1, 0)
			b.start()
			time.Sleep(time.Minute)
			b.stop()
			letters := b.letters()
			require.Len(t, letters, 2*calls)
			require.Contains(t, letters[0].Reason, "received for an earlier webhook of this name")
			require.Equal(t, []string{"0", "1"}, b.delivered)
		},
		"a young journal under another webhook of that name": func(t *testing.T, b *ageBench) {
			b.policy.Suspended = true
			b.start()
			b.add(calls, 0)
			time.Sleep(time.Minute)
			b.stop()
			b.policy.Suspended, b.policy.Webhook = false, "b"
			b.start()
			time.Sleep(time.Minute)
			b.stop()
			b.requireAll(calls)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { play(t, newAgeBench(t)) })
		})
	}
}

// TestPendingIsKnown: what waits is not said to be nothing before the journal was read, nor a moment after an event
// was stored.
func TestPendingIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newAgeBench(t)
		b.down = true
		b.add(3, 0)
		d := dispatch.New("crm", b.journal, slog.New(slog.DiscardHandler), b.policy, b.attempt)
		require.False(t, d.Status().Known)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		d.AwaitKnown(ctx) // it does not run
		require.False(t, d.Status().Known)
		run, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- d.Run(run, t.Context()) }()
		d.AwaitKnown(t.Context())
		require.True(t, d.Status().Known)
		require.EqualValues(t, 6, d.Status().Pending)
		b.add(1, 0)
		require.EqualValues(t, 8, d.Status().Pending, "before the dispatcher has seen them")
		synctest.Wait()
		require.EqualValues(t, 8, d.Status().Pending)
		stop()
		require.NoError(t, <-done)
	})
}
