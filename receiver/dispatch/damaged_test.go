package dispatch_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/journal"
)

// TestDamagedRecordIsGivenUp: an event that is not as it was written becomes a dead letter that says so, and holds up
// none of its call's or another's.
func TestDamagedRecordIsGivenUp(t *testing.T) {
	file := filepath.Join(t.TempDir(), "j.db")
	written, err := journal.Open(context.Background(), file, journal.Options{})
	require.NoError(t, err)
	_, err = written.OpenCursor("crm")
	require.NoError(t, err)
	b := newBench(t)
	b.journal = written
	b.add("call", "before", "damaged-event", "after")
	b.add("other", "beside")
	require.NoError(t, written.Close())
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, bytes.ReplaceAll(data, []byte("damaged-event"), []byte("damaged-evenT")), 0o600))

	j, err := journal.Open(context.Background(), file, journal.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, j.Close()) })
	b.journal = j
	stop := b.run()
	b.all(3)
	b.eventually("given up", func() bool { return b.running.Status().DeadLettered == 1 })
	stop()
	require.ElementsMatch(t, []string{"before", "after", "beside"}, b.delivered())
	letters, err := j.DeadLetters("crm", 0, 10)
	require.NoError(t, err)
	require.Len(t, letters, 1)
	require.EqualValues(t, 2, letters[0].Record.Seq)
	require.Contains(t, letters[0].Reason, "damaged at event 2: its checksum does not match")
	require.Zero(t, b.running.Status().Pending)
}
