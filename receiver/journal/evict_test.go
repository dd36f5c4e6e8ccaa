package journal_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/journal"
)

// TestDeadLettersAreEvicted: the oldest dead letters of a target go when there are too many, or they are too old. That
// is counted, also across a restart, and their events stay.
func TestDeadLettersAreEvicted(t *testing.T) {
	const limit, events = 10_000, 7
	type store interface {
		journal.Journal
		journal.Part
	}
	file := filepath.Join(t.TempDir(), "j.db")
	for name, tc := range map[string]struct {
		open   func(t *testing.T) store
		reopen bool
	}{
		"embedded": {reopen: true, open: func(t *testing.T) store {
			j, err := journal.Open(context.Background(), file, journal.Options{})
			require.NoError(t, err)
			return j
		}},
		"memory": {open: func(*testing.T) store { return journal.NewMemory() }},
	} {
		t.Run(name, func(t *testing.T) {
			j := tc.open(t)
			_, err := j.OpenCursor("crm")
			require.NoError(t, err)
			for range events {
				_, err := j.Append(t.Context(), journal.Record{ID: "id"}, nil)
				require.NoError(t, err)
			}
			save := func(from uint64, n int, at time.Time) {
				var dead []journal.DeadLetter
				for i := range uint64(n) {
					dead = append(dead, journal.DeadLetter{Record: journal.Record{Seq: from + i, ID: "id"}, Reason: "400", Time: at})
				}
				require.NoError(t, j.Save("crm", journal.Progress{Cursor: journal.Cursor{Floor: from + uint64(n) - 1}, Dead: dead}))
			}
			now := time.Now()
			save(1, 2, now.Add(-8*24*time.Hour))
			require.EqualValues(t, 2, j.Evicted("crm"), "too old")
			save(3, limit, now)
			require.EqualValues(t, 2, j.Evicted("crm"), "as many as may be")
			save(limit+3, 3, now)
			require.EqualValues(t, 5, j.Evicted("crm"), "too many")
			require.Zero(t, j.Evicted("other"))
			letters, err := j.DeadLetters("crm", 0, 1)
			require.NoError(t, err)
			require.EqualValues(t, 6, letters[0].Record.Seq, "the oldest went")
			require.EqualValues(t, limit, j.State().DeadLetters)
			_, err = j.Get(1)
			require.NoError(t, err, "the event stays until its own retention")
			require.NoError(t, j.Close())
			if !tc.reopen {
				return
			}
			j = tc.open(t)
			c, err := j.OpenCursor("crm")
			require.NoError(t, err)
			require.EqualValues(t, 5, j.Evicted("crm"))
			require.NoError(t, j.Save("crm", journal.Progress{Cursor: journal.Cursor{Floor: c.Floor}}), "of a dispatcher that does not know")
			require.EqualValues(t, 5, j.Evicted("crm"))
			require.NoError(t, j.Close())
		})
	}
}
