package journal_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/journal"
)

// TestStartTimes prints how long a start takes after an ordered end and after a kill, for a journal of START_MIB. It is
// asked for by that alone: it writes as much.
func TestStartTimes(t *testing.T) {
	mib, err := strconv.Atoi(os.Getenv("START_MIB"))
	if err != nil {
		t.Skip("set START_MIB to the size of the journal, such as 1024")
	}
	file := filepath.Join(t.TempDir(), "j.db")
	options := journal.Options{MaxBytes: 8 << 30}
	j := open(t, file, options)
	_, err = j.OpenCursor("crm")
	require.NoError(t, err)
	body := bytes.Repeat([]byte("x"), 16<<10)
	for n := range mib << 10 / 16 {
		r := record(fmt.Sprint(n), "call")
		r.Request.Body = body
		_, err := j.Append(context.Background(), r, nil)
		require.NoError(t, err)
	}
	ids(t, j)
	killed := filepath.Join(t.TempDir(), "j.db")
	copyJournal(t, file, killed)
	require.NoError(t, j.Close())
	info, err := os.Stat(file)
	require.NoError(t, err)
	for _, tc := range []struct{ how, file string }{{"an ordered end", file}, {"a kill", killed}} {
		began := time.Now()
		j := open(t, tc.file, options)
		t.Logf("%d MiB: opened %s after %s", info.Size()>>20, time.Since(began).Round(time.Millisecond), tc.how)
		require.NoError(t, j.Close())
	}
}
