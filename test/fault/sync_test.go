package fault

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/test/fault/faultdisk"
)

// TestFailedSyncs: the disk fails a sync of journal.db or of its log, each one in turn and several in a row, under load;
// then it is sound. While it fails nothing is answered 202 that is not there later: after an ordered end, a kill, and a
// power cut that takes what the failed sync did not write. No start is refused, and nothing is damaged.
func TestFailedSyncs(t *testing.T) {
	if err := faultdisk.New().MountOnce(t.TempDir()); err != nil {
		t.Skipf("a disk that fails cannot be mounted here, which takes root and /dev/fuse: %v", err)
	}
	ends := []string{"SIGTERM", "SIGKILL", "power cut"}
	n := 0
	for _, name := range []string{"journal.db", "journal.wal"} {
		for _, fails := range [][2]int{{1, 1}, {2, 1}, {3, 1}, {4, 1}, {1, 2}, {2, 3}, {1, 40}} { // the first one, and how many
			end := ends[n%len(ends)]
			n++
			t.Run(fmt.Sprintf("%s from %d on %d, %s", name, fails[0], fails[1], end), func(t *testing.T) {
				t.Parallel()
				failSyncs(t, func(file string, nth int) bool {
					return file == name && nth >= fails[0] && nth < fails[0]+fails[1]
				}, end)
			})
		}
	}
	for _, end := range ends {
		t.Run("all for a second, "+end, func(t *testing.T) {
			t.Parallel()
			until := time.Now().Add(3 * time.Second) // of which it takes two to start
			failSyncs(t, func(string, int) bool { return time.Now().Before(until) }, end)
		})
	}
}

func failSyncs(t *testing.T, which func(file string, nth int) bool, end string) {
	disk, at := faultdisk.New(), t.TempDir()
	require.NoError(t, disk.Mount(at))
	mounted := true
	t.Cleanup(func() {
		if mounted {
			_ = syscall.Unmount(at, syscall.MNT_DETACH) // the receiver was ended before
		}
	})
	s := newSetup(t, quick)
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) }))
	defer refusing.Close()
	s.data, s.others = at, fmt.Sprintf(", {name: refuses, url: %q}", refusing.URL) // so that there are dead letters
	s.write(quick)
	k := s.listen(nil)
	accepted, stop := &taken{}, make(chan struct{})
	s.start()
	load := s.load(4, accepted, stop)
	grown := func(by int) {
		from := accepted.count()
		require.Eventually(t, func() bool { return accepted.count() >= from+by }, patience, 5*time.Millisecond)
	}
	grown(50)
	var failed atomic.Int64
	disk.Fail(func(file string, nth int) bool {
		fails := which(file, nth)
		if fails {
			failed.Add(1)
		}
		return fails
	})
	require.Eventually(t, func() bool { return failed.Load() > 0 }, patience, time.Millisecond)
	grown(100)
	require.Eventually(t, func() bool { // it is sound again
		before := disk.Syncs("journal.db")
		grown(20)
		return disk.Syncs("journal.db") > before+2 && s.send("sound", 0) == http.StatusAccepted
	}, patience, 10*time.Millisecond)
	close(stop)
	load.Wait()
	switch end {
	case "SIGTERM":
		s.kill(syscall.SIGTERM)
		require.Equal(t, 0, s.cmd.ProcessState.ExitCode())
	default:
		s.kill(syscall.SIGKILL)
	}
	if end == "power cut" {
		require.NoError(t, disk.Unmount())
		mounted = false
		disk.PowerCut()
		require.NoError(t, disk.Mount(at))
		mounted = true
	}
	disk.Fail(nil)
	out := s.run("journal", "check", filepath.Join(at, "default", "pbx", "journal.db"))
	require.Contains(t, out, "the journal is whole")
	s.start()
	repeats, _ := k.requireAll(t, accepted)
	t.Logf("%d syncs failed; %d events answered 202, all delivered; %d came again", failed.Load(), accepted.count(), repeats)
	s.kill(syscall.SIGTERM)
}
