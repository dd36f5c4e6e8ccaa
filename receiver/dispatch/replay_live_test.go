package dispatch_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/dispatch"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/journal"
)

// slowTarget takes as long for each answer as it is told, in virtual time.
type slowTarget struct {
	t       *testing.T
	journal *journal.Memory
	policy  dispatch.Policy
	took    time.Duration
	answer  dispatch.Outcome

	running *dispatch.Dispatcher
	stop    func()

	mu   sync.Mutex
	sent []sent
}

type sent struct {
	id, replay string
	at         time.Time
}

// newSlowTarget has stored events, each of a call of its own, that the target is done with.
func newSlowTarget(t *testing.T, stored int, took time.Duration) *slowTarget {
	s := &slowTarget{
		t: t, journal: journal.NewMemory(), took: took, answer: delivered,
		policy: dispatch.Policy{PerCall: true, Concurrency: 8, MaxAge: 24 * time.Hour, InitialDelay: time.Second, MaxDelay: time.Minute},
	}
	for i := range stored {
		s.add(fmt.Sprint("call", i), fmt.Sprint(i))
	}
	_, err := s.journal.OpenCursor("crm")
	require.NoError(t, err)
	s.start()
	return s
}

func (s *slowTarget) start() {
	s.running = dispatch.New("crm", s.journal, slog.New(slog.DiscardHandler), s.policy, s.attempt)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.running.Run(ctx, context.Background()) }()
	s.stop = func() {
		cancel()
		require.NoError(s.t, <-done)
	}
}

func (s *slowTarget) attempt(_ context.Context, r journal.Record) dispatch.Outcome {
	s.mu.Lock()
	s.sent = append(s.sent, sent{r.ID, r.Replay, time.Now()})
	s.mu.Unlock()
	time.Sleep(s.took)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.answer
}

func (s *slowTarget) answerWith(o dispatch.Outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = o
}

func (s *slowTarget) add(lane, id string) {
	_, err := s.journal.Append(s.t.Context(), journal.Record{ID: id, Lane: lane, Type: event.CallEnded, Request: event.Request{ReceivedAt: time.Now()}}, nil)
	require.NoError(s.t, err)
}

func (s *slowTarget) replay(id string, n int, rate float64) {
	taken, err := s.running.Replay(s.t.Context(), journal.ReplayRequest{ID: id, Seqs: journal.Ranges{{From: 1, To: uint64(n)}}, Rate: rate})
	require.NoError(s.t, err)
	require.EqualValues(s.t, n, taken)
}

// started returns when the first attempt at an event that is not replayed began, or zero.
func (s *slowTarget) started(id string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.sent {
		if one.id == id && one.replay == "" {
			return one.at
		}
	}
	return time.Time{}
}

func (s *slowTarget) attempts() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sent)
}

func (s *slowTarget) state(id string) journal.Replay {
	all, err := s.running.Replays(s.t.Context())
	require.NoError(s.t, err)
	for _, one := range all {
		if one.ID == id {
			return one
		}
	}
	require.Fail(s.t, "no such replay", id)
	return journal.Replay{}
}

// TestLiveEventsGoBeforeReplayedOnes: however many events are replayed to a slow target, a live event of another call
// waits for one attempt at most, also while the target restarts in between, and one of a call that is being replayed
// for those of its own call alone.
func TestLiveEventsGoBeforeReplayedOnes(t *testing.T) {
	const took = 300 * time.Millisecond
	for _, stored := range []int{1_445, 50_000} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d replayed, restarted: %t", stored, restart), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s := newSlowTarget(t, stored, took)
					s.replay("r1", stored, 0)
					if restart {
						s.stop()
						s.start()
					}
					time.Sleep(10*took + took/3)
					for i := range 20 {
						live, own := fmt.Sprint("live", i), fmt.Sprint("own", i)
						began := time.Now()
						s.add("another call "+live, live)
						s.add(fmt.Sprint("call", stored-1-i), own)
						time.Sleep(3*took + took/7)
						require.WithinRange(t, s.started(live), began, began.Add(took), live)
						require.WithinRange(t, s.started(own), began, began.Add(2*took), own)
					}
					require.Positive(t, s.state("r1").Remaining)
					s.stop()
				})
			})
		}
	}
}

// TestReplayKeepsItsRate: also beside another replay that has none, and live events go at once.
func TestReplayKeepsItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlowTarget(t, 300, time.Millisecond)
		began := time.Now()
		defer s.stop()
		s.replay("paced", 200, 4)
		for range 20 {
			time.Sleep(time.Second)
			elapsed := time.Since(began)
			require.InDelta(t, 4*elapsed.Seconds(), s.attempts(), 2)
		}
		_, err := s.running.Replay(t.Context(), journal.ReplayRequest{ID: "fast", Seqs: journal.Ranges{{From: 201, To: 300}}})
		require.NoError(t, err)
		time.Sleep(time.Second)
		require.False(t, s.state("fast").Ended.IsZero())
		began, id := time.Now(), "live"
		s.add("call0", id)
		synctest.Wait()
		require.Equal(t, began, s.started(id))
		time.Sleep(5 * time.Second)
		require.InDelta(t, 4*26+101, s.attempts(), 3)
	})
}

// TestReplayIsCanceled: nothing more goes out, the replay is remembered, a live event behind it goes.
func TestReplayIsCanceled(t *testing.T) {
	for name, answer := range map[string]dispatch.Outcome{
		"target answers": delivered, "target fails": {Result: dispatch.Retry, Answered: true, Status: 500, Reason: "500 from the target"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSlowTarget(t, 1_000, 300*time.Millisecond)
				s.answerWith(answer)
				s.replay("r1", 1_000, 0)
				time.Sleep(time.Second)
				s.add("call999", "behind")
				unsent, found, err := s.running.CancelReplay(t.Context(), journal.ReplayRequest{ID: "r1"})
				require.NoError(t, err)
				require.True(t, found)
				time.Sleep(time.Second)
				sent := s.attempts()
				s.answerWith(delivered)
				time.Sleep(time.Hour)
				require.Zero(t, s.running.Status().Pending)
				require.LessOrEqual(t, s.attempts(), sent+1)
				require.NotZero(t, s.started("behind"))
				r := s.state("r1")
				require.True(t, r.Canceled)
				require.False(t, r.Ended.IsZero())
				require.Equal(t, unsent, r.Remaining)
				require.EqualValues(t, 1_000, r.Total)
				_, found, err = s.running.CancelReplay(t.Context(), journal.ReplayRequest{ID: "none"})
				require.NoError(t, err)
				require.False(t, found)
				s.stop()
				s.start()
				require.True(t, s.state("r1").Canceled, "it is remembered")
				time.Sleep(time.Hour)
				require.LessOrEqual(t, s.attempts(), sent+1)
				s.stop()
			})
		})
	}
}

// TestReplaysAreRememberedBounded: the last ones, with how they ended.
func TestReplaysAreRememberedBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlowTarget(t, 10, time.Millisecond)
		for i := range 200 {
			if i == 199 {
				s.answerWith(refuse("", 0))
			}
			s.replay(fmt.Sprint("r", i), 10, 0)
			time.Sleep(time.Second)
		}
		all, err := s.running.Replays(t.Context())
		require.NoError(t, err)
		require.LessOrEqual(t, len(all), 21)
		last := s.state("r199")
		require.Zero(t, last.Remaining)
		require.EqualValues(t, 10, last.Failed)
		require.False(t, last.Ended.IsZero())
		s.stop()
	})
}

// TestDeadLettersAreReplayedOnce: however many ask for it at the same time, also when they are given up again.
func TestDeadLettersAreReplayedOnce(t *testing.T) {
	for name, again := range map[string]dispatch.Outcome{"delivered": delivered, "given up again": refuse("", 0)} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.answer = refuse
			b.run()
			for i := range 100 {
				b.add(fmt.Sprint("call", i), fmt.Sprint("e", i))
			}
			b.eventually("given up", func() bool { return len(b.letters()) == 100 })
			b.mu.Lock()
			b.answer = func(string, int) dispatch.Outcome { return again }
			b.mu.Unlock()
			asked := time.Now().UTC()
			var all sync.WaitGroup
			for i := range 3 {
				all.Go(func() {
					_, err := b.running.Replay(context.Background(), journal.ReplayRequest{
						ID: fmt.Sprint("r", i), Seqs: journal.Ranges{{From: 1, To: 100}}, GivenUpTo: asked,
					})
					require.NoError(t, err)
				})
			}
			all.Wait()
			b.eventually("all have gone out", func() bool { return b.running.Status().Pending == 0 })
			b.mu.Lock()
			defer b.mu.Unlock()
			for id, tries := range b.tries {
				require.Equal(t, 2, tries, id)
			}
		})
	}
}
