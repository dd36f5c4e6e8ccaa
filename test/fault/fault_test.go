// Package fault breaks real processes in real ways, and holds what comes out against what was answered
// 202. Every test ends by itself, in a bounded time, on loopback alone.
package fault

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/api/statusz"
	"github.com/pbxhook/pbxhook/test/bench/proc"
	"github.com/pbxhook/pbxhook/test/loopback"
	"github.com/pbxhook/pbxhook/test/testenv"
)

const patience = 2 * time.Minute

var binary string

func TestMain(m *testing.M) {
	folder, err := os.MkdirTemp("", "pbxhook-fault-")
	if err == nil {
		binary = filepath.Join(folder, "pbxhook")
		build := exec.Command("go", "build", "-o", binary, "./cmd/pbxhook")
		build.Dir, build.Stderr = testenv.Root(), os.Stderr
		err = build.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "build pbxhook:", err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(folder) // a folder in the temporary ones
	os.Exit(code)
}

// setup is a webhook, a folder for its journal, and addresses.
type setup struct {
	t                     *testing.T
	hooks, admin, targets string
	data, manifest        string
	others                string // targets beside crm, as a list in YAML
	cmd                   *exec.Cmd
}

func newSetup(t *testing.T, retry string) *setup {
	t.Helper()
	s := &setup{t: t, hooks: loopback.Free(t), admin: loopback.Free(t), targets: loopback.Free(t), data: t.TempDir()}
	s.manifest = filepath.Join(t.TempDir(), "webhook.yaml")
	s.write(retry)
	return s
}

func (s *setup) write(retry string) {
	require.NoError(s.t, os.WriteFile(s.manifest, fmt.Appendf(nil, `
apiVersion: pbxhook.io/v1alpha1
kind: PBXWebhook
metadata: {name: pbx}
spec:
  provider: Simotel
  credentials: {anonymous: {}}
  targets: [{name: crm, url: "http://%s/", timeout: 2s, retry: %s}%s]
`, s.targets, retry, s.others), 0o600))
}

// start starts a receiver and waits until it takes requests.
func (s *setup) start() {
	s.t.Helper()
	s.cmd = exec.Command(binary, "run", "-f", s.manifest, "--data-dir", s.data, "--listen", s.hooks, "--admin", s.admin, "--metrics", "")
	require.NoError(s.t, s.cmd.Start())
	cmd := s.cmd
	s.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }) // when it was not ended before
	require.Eventually(s.t, func() bool {
		response, err := http.Get("http://" + s.hooks + "/")
		if err == nil {
			_ = response.Body.Close()
		}
		return err == nil
	}, patience, 10*time.Millisecond)
}

func (s *setup) kill(signal syscall.Signal) {
	s.t.Helper()
	require.NoError(s.t, s.cmd.Process.Signal(signal))
	_ = s.cmd.Wait() // killed, or ended as it was told
}

// pbxhook runs a command.
func (s *setup) pbxhook(args ...string) string {
	s.t.Helper()
	out, err := exec.Command(binary, append(args, "--admin", "http://"+s.admin)...).CombinedOutput()
	require.NoError(s.t, err, "%s", out)
	return string(out)
}

// run runs a command that needs no receiver.
func (s *setup) run(args ...string) string {
	s.t.Helper()
	out, err := exec.Command(binary, args...).CombinedOutput()
	require.NoError(s.t, err, "%s", out)
	return string(out)
}

// memory is the process's resident memory, in MiB.
func (s *setup) memory() int {
	s.t.Helper()
	mib := proc.MiB(s.cmd.Process.Pid, "VmRSS")
	require.NotZero(s.t, mib, "the process runs")
	return int(mib)
}

var client = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}}

// send sends the n-th event of a call, and is the status of the answer; 0 where there was none.
func (s *setup) send(call string, n int) int {
	body := fmt.Sprintf(`{"event_name":"Cdr","unique_id":%q,"n":%d}`, call, n)
	response, err := client.Post("http://"+s.hooks+"/hooks/default/pbx", "application/json", strings.NewReader(body))
	if err != nil {
		return 0
	}
	_, _ = io.Copy(io.Discard, response.Body) // the status says it all
	_ = response.Body.Close()
	return response.StatusCode
}

// taken is what was answered 202: the numbers of each call's events, in order.
type taken struct {
	mu    sync.Mutex
	calls map[string][]int
	total int
}

func (a *taken) add(call string, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.calls == nil {
		a.calls = map[string][]int{}
	}
	a.calls[call] = append(a.calls[call], n)
	a.total++
}

func (a *taken) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.total
}

// statusz is what the receiver says of itself.
func (s *setup) statusz() (report statusz.Report, err error) {
	response, err := (&http.Client{Timeout: 5 * time.Second}).Get("http://" + s.admin + "/statusz")
	if err != nil {
		return report, err
	}
	defer func() { _ = response.Body.Close() }()
	err = json.NewDecoder(response.Body).Decode(&report)
	return report, err
}

// load sends events of several calls side by side, those of one call one after the other, until stop.
func (s *setup) load(calls int, accepted *taken, stop <-chan struct{}) *sync.WaitGroup {
	var wg sync.WaitGroup
	for call := range calls {
		wg.Go(func() {
			id := fmt.Sprint("call", call)
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				if s.send(id, n) == http.StatusAccepted {
					accepted.add(id, n)
				} else {
					time.Sleep(5 * time.Millisecond)
				}
			}
		})
	}
	return &wg
}

// sink is a target that remembers what came.
type sink struct {
	server *http.Server
	answer func(call string, n int) int // status
	mu     sync.Mutex
	calls  map[string][]int // numbers of each call's events that were taken, in order of arrival
	total  int
}

func (s *setup) listen(answer func(call string, n int) int) *sink {
	s.t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", s.targets)
	require.NoError(s.t, err)
	k := &sink{answer: answer, calls: map[string][]int{}}
	k.server = &http.Server{Handler: k, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = k.server.Serve(listener) }() // ends with Close
	s.t.Cleanup(k.close)
	return k
}

func (k *sink) close() { _ = k.server.Close() }

func (k *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var ce struct {
		Subject string
		Data    struct{ Payload struct{ N int } }
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || json.Unmarshal(body, &ce) != nil {
		return // the receiver was killed while it sent
	}
	k.mu.Lock()
	answer := k.answer
	k.mu.Unlock()
	if answer != nil {
		if status := answer(ce.Subject, ce.Data.Payload.N); status != http.StatusOK {
			w.WriteHeader(status)
			return
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls[ce.Subject] = append(k.calls[ce.Subject], ce.Data.Payload.N)
	k.total++
}

func (k *sink) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.total
}

// missing is how many events that were answered 202 did not come.
func (k *sink) missing(accepted *taken) int {
	accepted.mu.Lock()
	defer accepted.mu.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	missing := 0
	for call, numbers := range accepted.calls {
		came := map[int]bool{}
		for _, n := range k.calls[call] {
			came[n] = true
		}
		for _, n := range numbers {
			if !came[n] {
				missing++
			}
		}
	}
	return missing
}

// requireAll shows that everything that was answered 202 came, each call's events in order the first time, and
// returns how many came again, and how many came after later ones of their call that were not answered 202.
func (k *sink) requireAll(t *testing.T, accepted *taken) (repeats, late int) {
	t.Helper()
	require.Eventually(t, func() bool { return k.missing(accepted) == 0 }, patience, 50*time.Millisecond, "events that were answered 202 do not come")
	k.mu.Lock()
	defer k.mu.Unlock()
	for call, numbers := range k.calls {
		last, seen := -1, map[int]bool{}
		for _, n := range numbers {
			switch {
			case seen[n]:
				repeats++
			case n < last && !slices.Contains(accepted.calls[call], n):
				late++
			default:
				require.Greater(t, n, last, "%s out of order", call)
				last = n
			}
			seen[n] = true
		}
	}
	return repeats, late
}

// requireInOrder is that where what was not answered 202 is in order, too.
func (k *sink) requireInOrder(t *testing.T, accepted *taken) (repeats int) {
	t.Helper()
	repeats, late := k.requireAll(t, accepted)
	require.Zero(t, late, "out of order, of those that were not answered 202")
	return repeats
}

const quick = "{initialDelay: 10ms, maxDelay: 200ms}"

// TestKilledFortyTimes: kill -9 under load, at random moments.
func TestKilledFortyTimes(t *testing.T) {
	s := newSetup(t, quick)
	k := s.listen(nil)
	accepted, stop := &taken{}, make(chan struct{})
	s.start()
	load := s.load(16, accepted, stop)
	for range 40 {
		time.Sleep(time.Duration(50+rand.IntN(400)) * time.Millisecond)
		s.kill(syscall.SIGKILL)
		s.start()
	}
	close(stop)
	load.Wait()
	repeats := k.requireInOrder(t, accepted)
	t.Logf("%d events answered 202 through 40 kills, all delivered in order; %d came again", accepted.total, repeats)
	require.Greater(t, accepted.total, 100)
}

// TestEndedUnderLoad: SIGTERM, as a rollout does, five times. Nothing comes twice.
func TestEndedUnderLoad(t *testing.T) {
	s := newSetup(t, quick)
	k := s.listen(nil)
	accepted, stop := &taken{}, make(chan struct{})
	s.start()
	load := s.load(8, accepted, stop)
	for range 5 {
		time.Sleep(300 * time.Millisecond)
		s.kill(syscall.SIGTERM)
		require.Equal(t, 0, s.cmd.ProcessState.ExitCode())
		s.start()
	}
	close(stop)
	load.Wait()
	require.Zero(t, k.requireInOrder(t, accepted), "an ordered end repeats nothing")
	t.Logf("%d events through 5 ordered ends", accepted.total)
}

// TestManyWaitForATarget: 100,000 events while the target is down.
func TestManyWaitForATarget(t *testing.T) {
	const calls, each = 200, 500
	s := newSetup(t, quick)
	s.start()
	before := s.memory()
	accepted := &taken{}
	var wg sync.WaitGroup
	for call := range calls {
		wg.Go(func() {
			id := fmt.Sprint("call", call)
			for n := range each {
				if s.send(id, n) != http.StatusAccepted {
					t.Errorf("event %d of %s was not taken", n, id)
					return
				}
				accepted.add(id, n)
			}
		})
	}
	wg.Wait()
	waiting := s.memory()
	require.Less(t, waiting-before, 200, "MiB more while 100,000 events wait")
	k := s.listen(nil)
	require.Zero(t, k.requireInOrder(t, accepted))
	t.Logf("memory: %d MiB at first, %d with %d events waiting, %d when all had come", before, waiting, calls*each, s.memory())
}

// TestPoisonedCall: one call is answered 500 for ever, beside healthy ones. It costs them nothing, becomes
// dead letters once its attempts are bounded, and is replayed in order when the target is mended.
func TestPoisonedCall(t *testing.T) {
	const poisoned, healthy = 1_500, 1_000
	run := func(poison int) (*setup, *sink, time.Duration) {
		s := newSetup(t, "{initialDelay: 10ms, maxDelay: 50ms}")
		k := s.listen(func(call string, _ int) int {
			if call == "poisoned" {
				return http.StatusInternalServerError
			}
			return http.StatusOK
		})
		s.start()
		for n := range poison {
			require.Equal(t, http.StatusAccepted, s.send("poisoned", n))
		}
		begin := time.Now()
		for n := range healthy {
			require.Equal(t, http.StatusAccepted, s.send(fmt.Sprint("healthy", n), n))
		}
		require.Eventually(t, func() bool { return k.count() == healthy }, patience, time.Millisecond)
		return s, k, time.Since(begin)
	}
	_, other, alone := run(0)
	other.close()
	s, k, beside := run(poisoned)
	t.Logf("%d healthy events beside a poisoned call took %.2f times as long as alone", healthy, float64(beside)/float64(alone))

	letters := func() (all []struct{ Reason, CallID string }) {
		require.NoError(t, json.Unmarshal([]byte(s.pbxhook("dead-letters", "-o", "json", "--limit", "10000")), &all))
		return all
	}
	require.Empty(t, letters())
	s.write("{initialDelay: 10ms, maxDelay: 50ms, maxAttempts: 2}") // in force without a restart
	require.Eventually(t, func() bool { return len(letters()) == poisoned }, patience, 200*time.Millisecond)
	require.Equal(t, "after 2 attempts: 500 from the target", letters()[poisoned-1].Reason)
	require.Equal(t, "poisoned", letters()[0].CallID)
	k.mu.Lock()
	k.answer = nil
	k.mu.Unlock()
	s.pbxhook("replay", "--dead-letters", "--yes")
	require.Eventually(t, func() bool { return k.count() == healthy+poisoned }, patience, 10*time.Millisecond)
	k.mu.Lock()
	for n, got := range k.calls["poisoned"] {
		require.Equal(t, n, got, "in order")
	}
	k.mu.Unlock()
	require.Eventually(t, func() bool { return len(letters()) == 0 }, patience, 100*time.Millisecond)
}

// TestDiskFull: every request is answered 503 while the disk is full, and everything answered 202 is there
// when it is not any more.
func TestDiskFull(t *testing.T) {
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=160m"); err != nil {
		t.Skipf("a small file system cannot be mounted here, which takes root: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(disk, syscall.MNT_DETACH) })
	s := newSetup(t, quick)
	s.data = filepath.Join(disk, "data")
	s.start()
	t.Cleanup(func() { _ = s.cmd.Process.Kill(); _ = s.cmd.Wait() })
	accepted := &taken{}
	send := func(from, to, want int) {
		for n := from; n < to; n++ {
			require.Equal(t, want, s.send("call", n), "event %d", n)
			if want == http.StatusAccepted {
				accepted.add("call", n)
			}
		}
	}
	send(0, 50, http.StatusAccepted)
	ballast := filepath.Join(disk, "ballast")
	require.NoError(t, os.WriteFile(ballast, bytes.Repeat([]byte{1}, 120<<20), 0o600))
	send(50, 100, http.StatusServiceUnavailable)
	require.NoError(t, os.Remove(ballast))
	send(100, 150, http.StatusAccepted)
	k := s.listen(nil)
	require.Zero(t, k.requireInOrder(t, accepted))
	require.Equal(t, 100, k.count(), "what was answered 503 was not kept")
}

// TestTheJournalHasOneOwner: a second receiver on one folder says so and ends.
func TestTheJournalHasOneOwner(t *testing.T) {
	s := newSetup(t, quick)
	s.start()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, binary, "run", "-f", s.manifest, "--data-dir", s.data, "--listen", loopback.Free(t), "--admin", "", "--metrics", "").CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "another process has had it open")
	require.Equal(t, http.StatusAccepted, s.send("call", 1), "the first one goes on")
}

// TestSlowSenders: slow, endless and idle senders do not keep others out, nor stay for ever.
func TestSlowSenders(t *testing.T) {
	s := newSetup(t, quick)
	k := s.listen(nil)
	s.start()
	var open []net.Conn
	defer func() {
		for _, c := range open {
			_ = c.Close() // they did their part
		}
	}()
	dial := func(text string) net.Conn {
		c, err := net.Dial("tcp", s.hooks)
		require.NoError(t, err)
		_, err = io.WriteString(c, text)
		require.NoError(t, err)
		open = append(open, c)
		return c
	}
	var limit syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	idle := int(min(limit.Cur, 11_000) - 1_000)
	for range idle {
		dial("")
	}
	for range 50 {
		dial("POST /hooks/default/pbx HTTP/1.1\r\nHost: a\r\n")                             // a header that never ends
		dial("POST /hooks/default/pbx HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{") // a body that never comes
	}
	endless := dial("POST /hooks/default/pbx HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
	var sent atomic.Int64
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		chunk := fmt.Sprintf("%x\r\n%s\r\n", 64<<10, strings.Repeat("x", 64<<10))
		for range 1_000 { // 64 MiB, if it may
			if _, err := io.WriteString(endless, chunk); err != nil {
				return
			}
			sent.Add(64 << 10)
		}
	}()
	accepted := &taken{}
	for n := range 500 {
		require.Equal(t, http.StatusAccepted, s.send("good", n))
		accepted.add("good", n)
	}
	require.Zero(t, k.requireInOrder(t, accepted))
	<-ended
	t.Logf("%d idle and 100 slow connections: 500 good events taken; %d MiB of an endless body, %d MiB of memory", idle, sent.Load()>>20, s.memory())
	require.Less(t, sent.Load(), int64(32<<20), "an endless body is cut off")
	require.Less(t, s.memory(), 500)
}

// TestATargetThatTalksNonsense: garbage, silence, and connections that end early are no answers; when the
// target is mended everything comes, in order.
func TestATargetThatTalksNonsense(t *testing.T) {
	s := newSetup(t, quick)
	s.start()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", s.targets)
	require.NoError(t, err)
	var met atomic.Int64
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			switch met.Add(1) % 4 {
			case 0:
				_, _ = io.WriteString(c, "SSH-2.0-what?\r\n\r\n")
			case 1:
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort")
			case 2:
				_, _ = io.WriteString(c, "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n")
			}
			_ = c.Close() // early
		}
	}()
	accepted := &taken{}
	for n := range 100 {
		require.Equal(t, http.StatusAccepted, s.send(fmt.Sprint("call", n%5), n))
		accepted.add(fmt.Sprint("call", n%5), n)
	}
	require.Eventually(t, func() bool { return met.Load() > 8 }, patience, 10*time.Millisecond)
	require.NoError(t, listener.Close())
	<-served
	k := s.listen(nil)
	// a 200 whose body broke off was an answer: those events are not sent again
	require.Eventually(t, func() bool { return k.missing(accepted) <= int(met.Load()) }, patience, 50*time.Millisecond)
	k.mu.Lock()
	defer k.mu.Unlock()
	for call, numbers := range k.calls {
		for i := 1; i < len(numbers); i++ {
			require.Greater(t, numbers[i], numbers[i-1], call)
		}
	}
}

// TestASlowTarget holds the connection of one call open and never answers it; the others come, and the one
// too when the target is mended.
func TestASlowTarget(t *testing.T) {
	s := newSetup(t, quick)
	mended := make(chan struct{})
	mend := sync.OnceFunc(func() { close(mended) })
	defer mend()
	k := s.listen(func(call string, _ int) int {
		if call == "slow" {
			<-mended
		}
		return http.StatusOK
	})
	s.start()
	accepted := &taken{}
	for n := range 200 {
		for _, call := range []string{"slow", fmt.Sprint("call", n%10)} {
			require.Equal(t, http.StatusAccepted, s.send(call, n))
			accepted.add(call, n)
		}
	}
	require.Eventually(t, func() bool { return k.missing(accepted) == 200 }, patience, 10*time.Millisecond, "all but the slow call come")
	mend()
	repeats := k.requireInOrder(t, accepted)
	t.Logf("%d requests of the slow call were answered after the receiver had given them up, and came again", repeats)
}
