package dispatch_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/dispatch"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/journal"
)

const patience = time.Minute

// bench is a journal, a dispatcher over it, and a target that answers as the test says.
type bench struct {
	t       *testing.T
	journal store
	policy  dispatch.Policy
	running *dispatch.Dispatcher
	replays atomic.Int64 // that were asked for

	mu     sync.Mutex
	log    []string // ids in the order in which they were delivered
	tries  map[string]int
	answer func(id string, try int) dispatch.Outcome
}

// store is a journal with all its events in one part.
type store interface {
	journal.Journal
	journal.Part
}

var delivered = dispatch.Outcome{Result: dispatch.Delivered, Answered: true, Status: 200}

func newBench(t *testing.T) *bench {
	t.Helper()
	j, err := journal.Open(context.Background(), filepath.Join(t.TempDir(), "j.db"), journal.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, j.Close()) })
	_, err = j.OpenCursor("crm")
	require.NoError(t, err)
	return &bench{
		t: t, journal: j, tries: map[string]int{},
		policy: dispatch.Policy{PerCall: true, Concurrency: 4, MaxAge: time.Hour, InitialDelay: time.Millisecond, MaxDelay: 20 * time.Millisecond},
		answer: func(string, int) dispatch.Outcome { return delivered },
	}
}

func (b *bench) attempt(_ context.Context, r journal.Record) dispatch.Outcome {
	b.mu.Lock()
	b.tries[r.ID]++
	try, answer := b.tries[r.ID], b.answer
	b.mu.Unlock()
	outcome := answer(r.ID, try)
	if outcome.Result == dispatch.Delivered {
		b.mu.Lock()
		b.log = append(b.log, r.ID)
		b.mu.Unlock()
	}
	return outcome
}

// run starts a dispatcher; stop ends it and waits.
func (b *bench) run() (stop func()) {
	b.t.Helper()
	d := dispatch.New("crm", b.journal, slog.New(slog.DiscardHandler), b.policy, b.attempt)
	b.running = d
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx, context.Background()) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			require.NoError(b.t, <-done)
		})
	}
	b.t.Cleanup(stop)
	return stop
}

func (b *bench) add(lane string, ids ...string) {
	b.t.Helper()
	for _, id := range ids {
		_, err := b.journal.Append(context.Background(), journal.Record{ID: id, Lane: lane, Type: event.CallEnded, Request: event.Request{ReceivedAt: time.Now()}}, nil)
		require.NoError(b.t, err)
	}
}

func (b *bench) delivered() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string{}, b.log...)
}

func (b *bench) eventually(what string, check func() bool) {
	b.t.Helper()
	require.Eventually(b.t, check, patience, 2*time.Millisecond, what)
}

func (b *bench) all(n int) {
	b.t.Helper()
	b.eventually(fmt.Sprintf("%d delivered", n), func() bool { return len(b.delivered()) >= n })
}

func TestOneCallInOrderThroughRetries(t *testing.T) {
	b := newBench(t)
	b.answer = func(id string, try int) dispatch.Outcome {
		if try < 3 {
			return dispatch.Outcome{Result: dispatch.Retry, Answered: true, Status: 500, Reason: "500"}
		}
		return delivered
	}
	b.run()
	b.add("call", "1", "2", "3", "4", "5")
	b.all(5)
	require.Equal(t, []string{"1", "2", "3", "4", "5"}, b.delivered())
}

func TestAnotherCallDoesNotWait(t *testing.T) {
	b := newBench(t)
	b.answer = func(id string, _ int) dispatch.Outcome {
		if id == "poison" {
			return dispatch.Outcome{Result: dispatch.Retry, Answered: true, Status: 500, Reason: "500"}
		}
		return delivered
	}
	b.run()
	b.add("bad", "poison", "behind")
	b.add("good", "1", "2", "3")
	b.all(3)
	require.Equal(t, []string{"1", "2", "3"}, b.delivered(), "what is behind the poisoned event waits, others do not")
	require.False(t, b.running.Status().BreakerOpen, "one event's trouble does not open the breaker")
}

func TestOrderNoneWaitsForNothing(t *testing.T) {
	b := newBench(t)
	b.policy.PerCall = false
	b.answer = func(id string, _ int) dispatch.Outcome {
		if id == "poison" {
			return dispatch.Outcome{Result: dispatch.Retry, Answered: true, Status: 500, Reason: "500"}
		}
		return delivered
	}
	b.run()
	b.add("call", "poison", "behind")
	b.all(1)
	require.Equal(t, []string{"behind"}, b.delivered())
}

func TestDeadLetters(t *testing.T) {
	b := newBench(t)
	b.policy.MaxAttempts = 3
	b.answer = func(id string, _ int) dispatch.Outcome {
		switch id {
		case "refused":
			return dispatch.Outcome{Result: dispatch.Refused, Answered: true, Status: 400, Reason: "400 from the target"}
		case "hopeless":
			return dispatch.Outcome{Result: dispatch.Retry, Answered: true, Status: 500, Reason: "500 from the target"}
		}
		return delivered
	}
	stop := b.run()
	b.add("call", "refused", "hopeless", "good")
	b.all(1)
	stop()
	letters, err := b.journal.DeadLetters("crm", 0, 10)
	require.NoError(t, err)
	require.Len(t, letters, 2)
	require.Equal(t, "refused", letters[0].Record.ID)
	require.Equal(t, 400, letters[0].Status)
	require.EqualValues(t, 1, letters[0].Attempts)
	require.Equal(t, "after 3 attempts: 500 from the target", letters[1].Reason)
	require.EqualValues(t, 3, letters[1].Attempts)
	require.EqualValues(t, 2, b.running.Status().DeadLettered)
	require.Zero(t, b.running.Status().Pending)
}

// TestTooOldIsAttemptedOnce: an event that is too old when the process starts may have waited for the process alone.
func TestTooOldIsAttemptedOnce(t *testing.T) {
	b := newBench(t)
	b.policy.MaxAge = time.Minute
	b.answer = func(string, int) dispatch.Outcome {
		return dispatch.Outcome{Result: dispatch.Retry, Answered: true, Status: 500, Reason: "500 from the target"}
	}
	_, err := b.journal.Append(context.Background(), journal.Record{ID: "old", Request: event.Request{ReceivedAt: time.Now().Add(-time.Hour)}}, nil)
	require.NoError(t, err)
	b.run()
	b.eventually("a dead letter", func() bool { return b.running.Status().DeadLettered == 1 })
	require.Equal(t, 1, b.tries["old"])
}

func TestWhatGrewTooOldSaysWhatItWaitedFor(t *testing.T) {
	b := newBench(t)
	b.policy.MaxAge = 200 * time.Millisecond
	b.answer = func(string, int) dispatch.Outcome {
		return dispatch.Outcome{Result: dispatch.Retry, Answered: true, Status: 500, Reason: "500 from the target"}
	}
	stop := b.run()
	b.add("call", "1")
	b.eventually("a dead letter", func() bool { return b.running.Status().DeadLettered == 1 })
	stop()
	letters, err := b.journal.DeadLetters("crm", 0, 10)
	require.NoError(t, err)
	require.Equal(t, 500, letters[0].Status)
	require.Contains(t, letters[0].Reason, "older than retry.maxAge")
	require.Contains(t, letters[0].Reason, "500 from the target")
}

// TestADeadTargetCostsProbes: no storm while it is down, no attempt counted, and everything in order
// when it is back.
func TestADeadTargetCostsProbes(t *testing.T) {
	b := newBench(t)
	b.policy.MaxAttempts = 2
	var down sync.Map
	down.Store("down", true)
	b.answer = func(string, int) dispatch.Outcome {
		if _, is := down.Load("down"); is {
			return dispatch.Outcome{Result: dispatch.Retry, Unavailable: true, Reason: "refused"}
		}
		return delivered
	}
	b.run()
	for i := range 20 {
		b.add(fmt.Sprint("call", i%5), fmt.Sprint(i))
	}
	b.eventually("the breaker opens", func() bool { return b.running.Status().BreakerOpen })
	time.Sleep(300 * time.Millisecond)
	b.mu.Lock()
	var tries int
	for _, n := range b.tries {
		tries += n
	}
	b.mu.Unlock()
	require.LessOrEqual(t, tries, 10, "a dead target is spared")
	require.False(t, b.running.Status().Healthy)
	require.Equal(t, "refused", b.running.Status().LastError)
	down.Delete("down")
	b.all(20)
	last := map[int]int{}
	for _, id := range b.delivered() {
		var n int
		_, err := fmt.Sscan(id, &n)
		require.NoError(t, err)
		require.GreaterOrEqual(t, n, last[n%5], "order in a call")
		last[n%5] = n
	}
	require.Zero(t, b.running.Status().DeadLettered, "silence is no attempt")
	require.True(t, b.running.Status().Healthy)
}

func TestARestartGoesOnWhereItWas(t *testing.T) {
	b := newBench(t)
	b.answer = func(id string, _ int) dispatch.Outcome {
		if id == "stuck" {
			return dispatch.Outcome{Result: dispatch.Retry, Answered: true, Status: 500, Reason: "500"}
		}
		return delivered
	}
	stop := b.run()
	b.add("bad", "stuck", "behind")
	b.add("good", "1", "2")
	b.all(2)
	stop()
	b.answer = func(string, int) dispatch.Outcome { return delivered }
	b.run()
	b.all(4)
	require.Equal(t, []string{"1", "2", "stuck", "behind"}, b.delivered(), "nothing twice, nothing lost")
}

func TestUnwantedEventsAreDone(t *testing.T) {
	b := newBench(t)
	b.answer = func(string, int) dispatch.Outcome { return dispatch.Outcome{Result: dispatch.Unwanted} }
	b.run()
	b.add("call", "1", "2")
	b.eventually("nothing is pending", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.tries["2"] > 0 && b.running.Status().Pending == 0
	})
	require.Zero(t, b.running.Status().Delivered)
}

func TestATargetWithAProblemIsLeftAlone(t *testing.T) {
	b := newBench(t)
	b.policy.Problem = "Secret crm does not exist"
	b.run()
	b.add("call", "1")
	b.eventually("said", func() bool {
		s := b.running.Status()
		return s.LastError == "Secret crm does not exist" && s.Pending == 1
	})
	require.False(t, b.running.Status().Healthy)
	b.policy.Problem = ""
	b.running.Configure(b.policy, b.attempt)
	b.all(1)
}

func TestConcurrencyIsBounded(t *testing.T) {
	b := newBench(t)
	b.policy.Concurrency = 2
	var mu sync.Mutex
	var now, most int
	b.answer = func(string, int) dispatch.Outcome {
		mu.Lock()
		now++
		most = max(most, now)
		mu.Unlock()
		time.Sleep(5 * time.Millisecond)
		mu.Lock()
		now--
		mu.Unlock()
		return delivered
	}
	b.run()
	for i := range 20 {
		b.add(fmt.Sprint(i), fmt.Sprint(i))
	}
	b.all(20)
	require.Equal(t, 2, most)
}

func TestRateLimitIsKept(t *testing.T) {
	b := newBench(t)
	b.policy.RateLimit, b.policy.Burst = 20, 1
	start := time.Now()
	b.run()
	for i := range 6 {
		b.add(fmt.Sprint(i), fmt.Sprint(i))
	}
	b.all(6)
	require.GreaterOrEqual(t, time.Since(start), 240*time.Millisecond, "one at once, and five more at 20 a second")
}
