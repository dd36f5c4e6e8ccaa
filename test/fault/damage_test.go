package fault

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/test/loopback"
)

// TestDamagedFiles: kill -9 under load, then something happens to journal.db or journal.wal. The next start is refused
// and says what is damaged, or the receiver reports damage, or every event that was answered 202 is delivered.
func TestDamagedFiles(t *testing.T) {
	var refused, reported, whole atomic.Int64
	t.Run("rounds", func(t *testing.T) {
		for n := range 24 {
			t.Run(fmt.Sprint(n), func(t *testing.T) {
				t.Parallel()
				switch damageFiles(t, rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), uint64(n)))) {
				case "refused":
					refused.Add(1)
				case "reported":
					reported.Add(1)
				default:
					whole.Add(1)
				}
			})
		}
	})
	t.Logf("24 kills with damage: %d starts refused, %d reported, %d whole", refused.Load(), reported.Load(), whole.Load())
}

func damageFiles(t *testing.T, random *rand.Rand) (outcome string) {
	s := newSetup(t, quick) // its target is away at first
	accepted, stop := &taken{}, make(chan struct{})
	s.start()
	load := s.load(4, accepted, stop)
	require.Eventually(t, func() bool { return accepted.count() > 50 }, patience, time.Millisecond)
	folder := filepath.Join(s.data, "default", "pbx")
	name := filepath.Join(folder, []string{"journal.db", "journal.wal"}[random.IntN(2)])
	time.Sleep(time.Duration(random.IntN(300)) * time.Millisecond) // the kill is at any moment
	s.kill(syscall.SIGKILL)
	close(stop)
	load.Wait()
	data, err := os.ReadFile(name)
	require.NoError(t, err)
	data, how := damage(random, name, data)
	if data == nil {
		require.NoError(t, os.Remove(name))
	} else {
		require.NoError(t, os.WriteFile(name, data, 0o600))
	}
	what := fmt.Sprintf("%s: %s", filepath.Base(name), how)

	k := s.listen(nil)
	if out := s.startOrSay(); out != "" {
		require.Contains(t, out, "is damaged", what)
		return "refused"
	}
	var damaged string
	require.Eventually(t, func() bool {
		damaged = s.journalDamage()
		return damaged != "" || k.missing(accepted) == 0
	}, patience, 20*time.Millisecond, "%s: events that were answered 202 do not come, and nobody says why", what)
	require.NoError(t, s.cmd.Process.Signal(syscall.SIGTERM))
	if damaged != "" {
		return "reported"
	}
	return "whole"
}

// damage changes the content of a file; nil: it is gone.
func damage(random *rand.Rand, name string, data []byte) (after []byte, how string) {
	at := random.IntN(len(data))
	if filepath.Ext(name) == ".wal" && random.IntN(4) > 0 { // where it has events
		at = (1+random.IntN(2)*512)<<12 + random.IntN(20<<12)
	}
	length := min(1<<random.IntN(16), len(data)-at)
	switch random.IntN(10) {
	case 0:
		return nil, "removed"
	case 1:
		return []byte{}, "emptied"
	case 2:
		return data[:at], fmt.Sprint("cut off at ", at)
	case 3:
		clear(data)
		return data, "zeroed"
	case 4:
		clear(data[at : at+length])
		return data, fmt.Sprintf("%d zeros at %d", length, at)
	case 5:
		for i := range length {
			data[at+i] = byte(random.Uint32())
		}
		return data, fmt.Sprintf("%d random bytes at %d", length, at)
	}
	data[at] ^= 1 << random.IntN(8)
	return data, fmt.Sprintf("a bit of byte %d", at)
}

// startOrSay starts a receiver and waits until it takes requests, or returns what it said when it ended.
func (s *setup) startOrSay() (said string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	out, err := os.Create(filepath.Join(s.t.TempDir(), "out"))
	require.NoError(s.t, err)
	s.hooks, s.admin = loopback.Free(s.t), loopback.Free(s.t)
	cmd := exec.Command(binary, "run", "-f", s.manifest, "--data-dir", s.data, "--listen", s.hooks, "--admin", s.admin, "--metrics", "")
	cmd.Stdout, cmd.Stderr = out, out
	require.NoError(s.t, cmd.Start())
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }() // how it ended is in what it said
	s.t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	s.cmd = cmd
	for {
		select {
		case <-ended:
			text, err := os.ReadFile(out.Name())
			require.NoError(s.t, err)
			require.NotEmpty(s.t, text)
			return string(text)
		case <-ctx.Done():
			require.Fail(s.t, "the receiver neither starts nor ends")
		case <-time.After(10 * time.Millisecond):
		}
		if response, err := http.Get("http://" + s.hooks + "/"); err == nil {
			_ = response.Body.Close()
			return ""
		}
	}
}

// journalDamage is what the receiver reports.
func (s *setup) journalDamage() string {
	report, err := s.statusz()
	require.NoError(s.t, err)
	require.Len(s.t, report.Webhooks, 1)
	return report.Webhooks[0].JournalDamage
}
