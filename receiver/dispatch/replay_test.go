package dispatch_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/dispatch"
	"github.com/pbxhook/pbxhook/receiver/journal"
)

func refuse(string, int) dispatch.Outcome {
	return dispatch.Outcome{Result: dispatch.Refused, Answered: true, Status: 400, Reason: "400 from the target"}
}

func (b *bench) replay(seqs ...uint64) int64 {
	b.t.Helper()
	var all journal.Ranges
	for _, seq := range seqs {
		all.Add(seq)
	}
	n, err := b.running.Replay(b.t.Context(), journal.ReplayRequest{ID: fmt.Sprint("r", b.replays.Add(1)), Seqs: all})
	require.NoError(b.t, err)
	return n
}

func (b *bench) letters() (ids []string) {
	b.t.Helper()
	letters, err := b.journal.DeadLetters("crm", 0, 100)
	require.NoError(b.t, err)
	for _, letter := range letters {
		ids = append(ids, letter.Record.ID)
	}
	return ids
}

func TestReplayJoinsTheEndOfTheLane(t *testing.T) {
	b := newBench(t)
	b.policy.InitialDelay, b.policy.MaxDelay = 50*time.Millisecond, 50*time.Millisecond
	hold := make(chan struct{})
	let := sync.OnceFunc(func() { close(hold) })
	defer let()
	b.answer = func(id string, try int) dispatch.Outcome {
		if id == "a3" && try == 1 {
			<-hold
		}
		return delivered
	}
	b.run()
	b.add("a", "a1", "a2")
	b.add("b", "b1")
	b.all(3)
	b.add("a", "a3", "a4")
	b.eventually("a3 is under way", func() bool { b.mu.Lock(); defer b.mu.Unlock(); return b.tries["a3"] == 1 })
	require.EqualValues(t, 3, b.replay(1, 2, 3, 4, 5, 99), "a3 and a4 are on their way, 99 is none")
	b.eventually("b1 again, at once", func() bool { return slices.Equal(b.delivered()[3:], []string{"b1"}) })
	let()
	b.all(8)
	require.Equal(t, []string{"a3", "a4", "a1", "a2"}, b.delivered()[4:])
	b.eventually("nothing is owed", func() bool { return b.running.Status().Pending == 0 })
	require.EqualValues(t, 8, b.running.Status().Delivered)
	require.Zero(t, b.replay(99))
}

func TestReplayOfDeadLetters(t *testing.T) {
	b := newBench(t)
	b.answer = refuse
	b.run()
	b.add("a", "a1", "a2", "a3")
	b.eventually("given up", func() bool { return len(b.letters()) == 3 })
	b.mu.Lock()
	b.answer = func(id string, try int) dispatch.Outcome {
		if id == "a2" {
			return refuse(id, try)
		}
		return delivered
	}
	b.mu.Unlock()
	require.EqualValues(t, 3, b.replay(1, 2, 3))
	b.eventually("what was delivered is no dead letter any more", func() bool { return slices.Equal(b.letters(), []string{"a2"}) })
	require.Equal(t, []string{"a1", "a3"}, b.delivered())
}

// TestReplayOutlivesTheProcess, and an event that only a dead letter holds.
func TestReplayOutlivesTheProcess(t *testing.T) {
	b := newBench(t)
	b.answer = refuse
	stop := b.run()
	b.add("a", "a1", "a2")
	b.eventually("given up", func() bool { return len(b.letters()) == 2 })
	down := dispatch.Outcome{Result: dispatch.Retry, Unavailable: true, Reason: "down"}
	b.mu.Lock()
	b.answer = func(string, int) dispatch.Outcome { return down }
	b.mu.Unlock()
	require.EqualValues(t, 2, b.replay(1, 2))
	stop()
	b.answer = func(string, int) dispatch.Outcome { return delivered }
	b.run()
	b.all(2)
	require.Equal(t, []string{"a1", "a2"}, b.delivered())
	b.eventually("no dead letters", func() bool { return len(b.letters()) == 0 })
}

// TestReplayIsAsOldAsTheWish: what was given up for its age can be replayed.
func TestReplayIsAsOldAsTheWish(t *testing.T) {
	b := newBench(t)
	b.policy.MaxAge = time.Nanosecond
	b.answer = func(string, int) dispatch.Outcome {
		return dispatch.Outcome{Result: dispatch.Retry, Answered: true, Status: 500, Reason: "500"}
	}
	stop := b.run()
	b.add("a", "a1")
	b.eventually("given up", func() bool { return len(b.letters()) == 1 })
	stop()
	b.policy.MaxAge = time.Hour
	b.answer = func(string, int) dispatch.Outcome { return delivered }
	b.run()
	require.EqualValues(t, 1, b.replay(1))
	b.all(1)
}

func TestReplayIsBounded(t *testing.T) {
	b := newBench(t)
	b.run()
	_, err := b.running.Replay(t.Context(), journal.ReplayRequest{ID: "r", Seqs: journal.Ranges{{From: 1, To: 100_001}}})
	require.ErrorIs(t, err, dispatch.ErrTooMany)
	stopped := dispatch.New("crm", b.journal, slog.New(slog.DiscardHandler), b.policy, b.attempt)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err = stopped.Replay(ctx, journal.ReplayRequest{ID: "r", Seqs: journal.Ranges{{From: 1, To: 1}}})
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// TestReplayWaitsForNobodyWhoEnded: an end must not wait for somebody who asks.
func TestReplayWaitsForNobodyWhoEnded(t *testing.T) {
	b := newBench(t)
	b.run()()
	_, err := b.running.Replay(t.Context(), journal.ReplayRequest{ID: "r", Seqs: journal.Ranges{{From: 1, To: 1}}})
	require.ErrorContains(t, err, "not delivered to any more")
}

func TestReplaysAreMarked(t *testing.T) {
	b := newBench(t)
	marks := make(chan string, 10)
	attempt := b.attempt
	d := dispatch.New("crm", b.journal, slog.New(slog.DiscardHandler), b.policy, func(ctx context.Context, r journal.Record) dispatch.Outcome {
		marks <- fmt.Sprintf("%s %s", r.ID, r.Replay)
		return attempt(ctx, r)
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx, context.Background()) }()
	b.add("", "x")
	require.Equal(t, "x ", <-marks)
	b.running = d
	b.eventually("done", func() bool { return d.Status().Pending == 0 })
	require.EqualValues(t, 1, b.replay(1))
	require.Equal(t, "x r1", <-marks)
	cancel()
	require.NoError(t, <-done)
}
