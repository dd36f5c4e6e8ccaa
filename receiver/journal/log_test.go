package journal_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/journal"
)

func attemptsOf(t *testing.T, j journal.Journal, seq uint64) []journal.Attempt {
	t.Helper()
	attempts, err := j.Attempts(seq)
	require.NoError(t, err)
	return attempts
}

// TestDeliveryLog: what was logged comes back whole, by event, in order, also after a restart.
func TestDeliveryLog(t *testing.T) {
	file := filepath.Join(t.TempDir(), "j.db")
	j := open(t, file, journal.Options{})
	appendAll(t, j, 3)
	now := time.Now().UTC().Round(0)
	first := journal.Attempt{
		Seq: 2, Target: "crm", Time: now, Duration: 31 * time.Millisecond, Result: journal.Retried, Status: 503,
		Reason: "503 from the target", Reply: "<b>busy</b>\x00", Next: now.Add(time.Second), Replay: "abc",
	}
	second := journal.Attempt{Seq: 2, Target: "lab", Time: now.Add(-time.Hour), Result: journal.DeadLettered, Reason: "too old"}
	other := journal.Attempt{Seq: 1, Target: "crm", Time: now, Result: journal.Delivered, Status: 204}
	require.NoError(t, j.Save("crm", journal.Progress{Attempts: []journal.Attempt{first, other}}))
	require.NoError(t, j.Save("lab", journal.Progress{Attempts: []journal.Attempt{second}}))
	require.Equal(t, []journal.Attempt{first, second}, attemptsOf(t, j, 2))
	require.Equal(t, []journal.Attempt{other}, attemptsOf(t, j, 1))
	require.Empty(t, attemptsOf(t, j, 3))
	require.EqualValues(t, 3, j.State().Logged)
	all, logged := j.Latest(0)
	require.Len(t, all, 3)
	require.EqualValues(t, 3, logged)
	newest, _ := j.Latest(2)
	require.Equal(t, []journal.Attempt{second}, newest)
	require.NoError(t, j.Close())

	j = open(t, file, journal.Options{})
	require.Equal(t, []journal.Attempt{first, second}, attemptsOf(t, j, 2))
	require.EqualValues(t, 3, j.State().Logged)
	newest, logged = j.Latest(0)
	require.Empty(t, newest, "it remembers what it wrote itself")
	require.EqualValues(t, 3, logged)
	require.NoError(t, j.Close())
	report, err := journal.Check(file)
	require.NoError(t, err)
	require.Empty(t, report.Damage)
}

// TestDeliveryLogIsBounded in size, the oldest events' lines going first, and in age.
func TestDeliveryLogIsBounded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "j.db")
	now := time.Now()
	clock := func() time.Time { return now }
	j := open(t, file, journal.Options{MaxBytes: 8 << 20, Now: clock})
	for seq := uint64(1); seq <= 3_000; seq += 100 {
		var attempts []journal.Attempt
		for n := range uint64(100) {
			attempts = append(attempts, journal.Attempt{Seq: seq + n, Time: now, Result: journal.Delivered, Reply: strings.Repeat("x", 1_000)})
		}
		require.NoError(t, j.Save("crm", journal.Progress{Attempts: attempts}))
	}
	kept := 0
	for seq := uint64(1); seq <= 3_000; seq++ {
		kept += len(attemptsOf(t, j, seq))
	}
	require.Empty(t, attemptsOf(t, j, 1))
	require.NotEmpty(t, attemptsOf(t, j, 3_000))
	require.Less(t, kept, 1_050, "an eighth of 8 MiB, a KiB each")
	require.Greater(t, kept, 800)
	require.NoError(t, j.Close())

	now = now.Add(8 * 24 * time.Hour)
	j = open(t, file, journal.Options{MaxBytes: 8 << 20, Now: clock})
	require.NoError(t, j.Housekeep())
	require.Empty(t, attemptsOf(t, j, 3_000))
	_, err := j.Append(context.Background(), record("e", "c"), nil)
	require.NoError(t, err)
	require.NoError(t, j.Close())
}

// TestBack looks at events from the newest to the oldest, for as long as is asked.
func TestBack(t *testing.T) {
	bolt := open(t, filepath.Join(t.TempDir(), "j.db"), journal.Options{})
	for name, j := range map[string]journal.Journal{"embedded": bolt, "memory": journal.NewMemory()} {
		t.Run(name, func(t *testing.T) {
			appendAll(t, j, 10)
			back := func(before uint64, limit int) (seqs []uint64) {
				require.NoError(t, j.Back(before, func(s journal.Stored) bool {
					r, err := s.Record()
					require.NoError(t, err)
					require.Contains(t, string(s.Data), string(r.Request.Body))
					require.Equal(t, s.Seq, r.Seq)
					seqs = append(seqs, r.Seq)
					return len(seqs) < limit
				}))
				return seqs
			}
			require.Equal(t, []uint64{10, 9, 8}, back(0, 3))
			require.Equal(t, []uint64{5, 4}, back(6, 2))
			require.Equal(t, []uint64{10}, back(99, 1))
			require.Equal(t, []uint64{3, 2, 1}, back(4, 50))
			require.Empty(t, back(1, 50))
		})
	}
}
