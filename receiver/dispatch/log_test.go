package dispatch_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/dispatch"
	"github.com/pbxhook/pbxhook/receiver/journal"
)

// lines are what the delivery log has of an event, without times.
func (b *bench) lines(seq uint64) (lines []string) {
	b.t.Helper()
	attempts, err := b.journal.Attempts(seq)
	require.NoError(b.t, err)
	for _, a := range attempts {
		lines = append(lines, fmt.Sprintf("%s %s %d %s|%s|%s next=%t", a.Target, a.Result, a.Status, a.Reason, a.Reply, a.Replay, !a.Next.IsZero()))
		require.WithinDuration(b.t, time.Now(), a.Time, patience)
	}
	return lines
}

// TestEveryAttemptIsLogged: what was tried, what came of it, and when it is tried again.
func TestEveryAttemptIsLogged(t *testing.T) {
	b := newBench(t)
	b.answer = func(id string, try int) dispatch.Outcome {
		switch {
		case id == "unwanted":
			return dispatch.Outcome{Result: dispatch.Unwanted}
		case id == "refused" && try == 1:
			return dispatch.Outcome{Result: dispatch.Refused, Answered: true, Status: 422, Reason: "422 from the target", Reply: "no such customer"}
		case id == "late" && try < 3:
			return dispatch.Outcome{Result: dispatch.Retry, Answered: true, Status: 500, Reason: "500 from the target", RetryAfter: time.Millisecond}
		}
		return dispatch.Outcome{Result: dispatch.Delivered, Answered: true, Status: 204, Reply: "ok"}
	}
	b.add("a", "plain")
	b.add("b", "refused")
	b.add("c", "late")
	b.add("d", "unwanted")
	stop := b.run()
	b.all(2)
	b.eventually("refused is a dead letter", func() bool { return len(b.letters()) == 1 })
	require.EqualValues(t, 1, b.replay(2))
	b.all(3)
	done, _, err := b.running.Look(t.Context(), []uint64{1, 2, 3, 4, 5})
	require.NoError(t, err)
	require.Equal(t, []bool{true, true, true, true, false}, done)
	stop()
	require.Equal(t, []string{"crm delivered 204 |ok| next=false"}, b.lines(1))
	require.Equal(t, []string{
		"crm deadLettered 422 422 from the target|no such customer| next=false", "crm delivered 204 |ok|r1 next=false",
	}, b.lines(2))
	require.Equal(t, []string{
		"crm retried 500 500 from the target|| next=true", "crm retried 500 500 from the target|| next=true", "crm delivered 204 |ok| next=false",
	}, b.lines(3))
	require.Empty(t, b.lines(4))
	require.EqualValues(t, 3, b.running.Status().PerMinute)
	_, _, err = b.running.Look(t.Context(), []uint64{1})
	require.ErrorContains(t, err, "not delivered to any more")
}

// TestAttemptsOfADeadTarget are logged with no time for the next one: that is the breaker's.
func TestAttemptsOfADeadTarget(t *testing.T) {
	b := newBench(t)
	b.policy.Concurrency = 1
	b.answer = func(string, int) dispatch.Outcome {
		return dispatch.Outcome{Result: dispatch.Retry, Unavailable: true, Reason: "connection refused"}
	}
	b.add("a", "one")
	b.add("b", "two")
	stop := b.run()
	b.eventually("the breaker is open", func() bool { return b.running.Status().BreakerOpen })
	stop()
	var attempts []journal.Attempt
	for seq := range uint64(2) {
		of, err := b.journal.Attempts(1 + seq)
		require.NoError(t, err)
		attempts = append(attempts, of...)
	}
	require.GreaterOrEqual(t, len(attempts), 5)
	slices.SortFunc(attempts, func(a, b journal.Attempt) int { return a.Time.Compare(b.Time) })
	last := attempts[len(attempts)-1]
	require.Equal(t, journal.Retried, last.Result)
	require.Zero(t, last.Next)
	require.NotZero(t, attempts[0].Next)
}
