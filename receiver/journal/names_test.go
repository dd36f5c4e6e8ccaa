package journal_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/journal"
)

// TestCountsByName: events are counted by the provider's own names since the journal was made, also over a restart and
// over a process that was killed.
func TestCountsByName(t *testing.T) {
	file := filepath.Join(t.TempDir(), "journal.db")
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	put := func(j journal.Journal, name string, later time.Duration) {
		record := journal.Record{ID: "x", Type: event.Other, Name: name, Request: event.Request{Method: "POST", ReceivedAt: at.Add(later)}}
		_, err := j.Append(t.Context(), record, nil)
		require.NoError(t, err)
	}
	j := open(t, file, journal.Options{MaxBytes: 64 << 20})
	put(j, "Cdr", 0)
	put(j, "NewState", time.Second)
	put(j, "Cdr", 2*time.Second)
	put(j, "", 3*time.Second) // unparsed
	want := []journal.NameCount{
		{Name: "Cdr", Count: 2, LastReceived: at.Add(2 * time.Second)},
		{Name: "NewState", Count: 1, LastReceived: at.Add(time.Second)},
	}
	require.Equal(t, want, j.State().ByName)

	killed := filepath.Join(t.TempDir(), "journal.db")
	copyJournal(t, file, killed)
	require.Equal(t, want, open(t, killed, journal.Options{MaxBytes: 64 << 20}).State().ByName, "after a kill")
	require.NoError(t, j.Close())
	j = open(t, file, journal.Options{MaxBytes: 64 << 20})
	require.Equal(t, want, j.State().ByName, "after a restart")

	for n := range 2 * journal.MaxNames {
		put(j, fmt.Sprintf("name-%03d", n), time.Minute)
	}
	all := j.State().ByName
	require.Len(t, all, journal.MaxNames)
	var sum int64
	for _, one := range all {
		sum += one.Count
	}
	require.EqualValues(t, 3+2*journal.MaxNames, sum, "none is lost: the rest is counted as other")
}
