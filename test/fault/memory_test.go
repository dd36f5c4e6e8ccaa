package fault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/journal"
	"github.com/pbxhook/pbxhook/test/bench/proc"
	"github.com/pbxhook/pbxhook/test/loopback"
	"github.com/pbxhook/pbxhook/test/testenv"
)

// memoryLimit is that of a receiver's container, in bytes.
const memoryLimit = 512 << 20

// confined is a receiver in a cgroup with a container's memory limit.
type confined struct {
	t              *testing.T
	hooks, metrics string
	data, manifest string
	receiver       string
	cmd            *exec.Cmd
}

// newConfined builds the receiver, and skips the test where no cgroup can be made.
func newConfined(t *testing.T, targets string) *confined {
	t.Helper()
	c := &confined{t: t, hooks: loopback.Free(t), metrics: loopback.Free(t), data: t.TempDir()}
	folder := t.TempDir()
	c.receiver, c.manifest = filepath.Join(folder, "receiver"), filepath.Join(folder, "manifest.yaml")
	build := exec.Command("go", "build", "-o", c.receiver, "./cmd/receiver")
	build.Dir, build.Stderr = testenv.Root(), os.Stderr
	require.NoError(t, build.Run())
	require.NoError(t, os.WriteFile(c.manifest, fmt.Appendf(nil, `
apiVersion: pbxhook.io/v1alpha1
kind: PBXWebhook
metadata: {name: pbx, namespace: crm, uid: "1"}
spec:
  provider: Simotel
  credentials: {secretRef: {name: pbx}, tokenName: X-Key}
  journal: {embedded: {maxBytes: 4Gi, retention: 72h}}
  targets: [{name: crm, url: %q, timeout: 10s, concurrency: 16}]
---
apiVersion: v1
kind: Secret
metadata: {name: pbx, namespace: crm}
stringData: {username: pbx, password: a-long-password, token: a-long-token}
`, targets), 0o600))
	return c
}

// start starts the receiver in a cgroup of its own, and waits until it is ready.
func (c *confined) start() {
	c.t.Helper()
	join := memoryGroup(c.t, memoryLimit)
	c.cmd = exec.Command("sh", "-c", `echo $$ > "$0" && exec "$@"`, join, c.receiver, "--config", c.manifest, "--data-dir", c.data,
		"--listen", c.hooks, "--listen-tls", "", "--metrics", c.metrics, "--admin", "", "--allow-networks", "127.0.0.0/8", "--linger", "0s")
	c.cmd.Env = append(os.Environ(), fmt.Sprintf("GOMEMLIMIT=%d", memoryLimit/5*4))
	c.cmd.Stderr = os.Stderr
	require.NoError(c.t, c.cmd.Start())
	cmd := c.cmd
	c.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }) // when it was not ended before
	require.Eventually(c.t, func() bool { _, err := c.get("/readyz"); return err == nil }, patience, 20*time.Millisecond)
}

func (c *confined) stop() {
	c.t.Helper()
	require.NoError(c.t, c.cmd.Process.Signal(os.Interrupt))
	require.NoError(c.t, c.cmd.Wait())
}

func (c *confined) get(path string) (string, error) {
	response, err := http.Get("http://" + c.metrics + path)
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = errors.New(response.Status)
	}
	return string(text), errors.Join(err, response.Body.Close())
}

// value returns a metric's value; -1 where it has none.
func (c *confined) value(series string) float64 {
	c.t.Helper()
	text, err := c.get("/metrics")
	require.NoError(c.t, err, "the receiver lives, and can be asked")
	match := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(series) + ` (\S+)$`).FindStringSubmatch(text)
	if match == nil {
		return -1
	}
	value, err := strconv.ParseFloat(match[1], 64)
	require.NoError(c.t, err)
	return value
}

// peak is the most memory that the process had resident, in MiB.
func (c *confined) peak() int {
	c.t.Helper()
	mib := proc.MiB(c.cmd.Process.Pid, "VmHWM")
	require.NotZero(c.t, mib, "the process runs")
	return int(mib)
}

// memoryGroup makes a cgroup that may use so many bytes of memory, and returns the file that takes a process into it.
func memoryGroup(t *testing.T, limit int64) string {
	t.Helper()
	root, limitFile := "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		root, limitFile = "/sys/fs/cgroup", "memory.max"
		_ = os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+memory"), 0) // if not, the limit's file is missing
	} else if own, err := os.ReadFile("/proc/self/cgroup"); err == nil { // version 1: below this process's own
		if match := regexp.MustCompile(`(?m)^\d+:(?:[^:]*,)?memory(?:,[^:]*)?:(/.*)$`).FindSubmatch(own); match != nil {
			if _, err := os.Stat(filepath.Join(root, string(match[1]))); err == nil {
				root = filepath.Join(root, string(match[1]))
			}
		}
	}
	group, err := os.MkdirTemp(root, "pbxhook-fault-")
	if err != nil {
		t.Skipf("no cgroup can be made (%v): run this as root, where /sys/fs/cgroup can be written", err)
	}
	t.Cleanup(func() {
		require.Eventually(t, func() bool { // once its processes are gone
			err := os.Remove(group)
			return err == nil || errors.Is(err, os.ErrNotExist)
		}, patience, 20*time.Millisecond)
	})
	if err := os.WriteFile(filepath.Join(group, limitFile), []byte(strconv.FormatInt(limit, 10)), 0); err != nil {
		t.Skipf("a cgroup's memory cannot be limited (%v)", err)
	}
	return filepath.Join(group, "cgroup.procs")
}

// attackers open connections and write on them, and again when one is closed, until ctx ends.
func (c *confined) attackers(ctx context.Context, wg *sync.WaitGroup, n int, write func(net.Conn) error) {
	for range n {
		wg.Go(func() {
			for ctx.Err() == nil {
				conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", c.hooks)
				if err != nil {
					time.Sleep(50 * time.Millisecond) // the queue of the port is full
					continue
				}
				stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
				if write(conn) == nil {
					_, _ = io.Copy(io.Discard, conn) // until it is closed
				}
				stop()
				_ = conn.Close()
				select {
				case <-ctx.Done():
				case <-time.After(3 * time.Second): // it is about memory, not about how fast connections come
				}
			}
		})
	}
}

// TestAttackedWithoutCredentials: 2,000 unfinished headers, 600 bodies of 1 MiB, and bodies that are costly to read,
// all without credentials. Senders with kept connections get 202 for every event, health is answered, and the
// resident memory stays under half of the limit.
func TestAttackedWithoutCredentials(t *testing.T) {
	target := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }), ReadHeaderTimeout: time.Minute}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = target.Serve(listener) }() // ends with Close
	t.Cleanup(func() { _ = target.Close() })
	c := newConfined(t, "http://"+listener.Addr().String()+"/")
	c.start()

	const senders = 8
	var sent, wrong atomic.Int64
	var good, bad sync.WaitGroup
	attack, end := context.WithCancel(t.Context())
	defer end()
	stop := make(chan struct{})
	connected := make(chan struct{}, senders)
	for i := range senders {
		good.Go(func() {
			transport := &http.Transport{MaxIdleConnsPerHost: 1}
			defer transport.CloseIdleConnections()
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				request, err := http.NewRequest(http.MethodPost, "http://"+c.hooks+"/hooks/crm/pbx/Cdr", strings.NewReader(fmt.Sprintf(`{"unique_id":"%d.%d"}`, i, n)))
				if err == nil {
					request.SetBasicAuth("pbx", "a-long-password")
					var response *http.Response
					if response, err = transport.RoundTrip(request); err == nil {
						_, _ = io.Copy(io.Discard, response.Body)
						err = response.Body.Close()
						if response.StatusCode != http.StatusAccepted {
							err = errors.New(response.Status)
						}
					}
				}
				if err != nil && wrong.Add(1) < 5 {
					t.Log(err)
				}
				sent.Add(1)
				if n == 0 {
					connected <- struct{}{}
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	for range senders {
		<-connected
	}

	header := []byte("POST /hooks/crm/pbx/Cdr HTTP/1.1\r\nHost: x\r\n")
	for i := range 6000 {
		header = fmt.Appendf(header, "x%d: y\r\n", i)
	}
	short := fmt.Appendf(nil, "POST /hooks/crm/pbx/Cdr HTTP/1.1\r\nHost: x\r\nx: %s", strings.Repeat("y", 4<<10)) // one line: it is no long header, and stays
	const length = 1 << 20
	head := fmt.Appendf(nil, "POST /hooks/crm/pbx/Cdr HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", length)
	costly := []byte(strings.Repeat("[],", length/3) + "[]")[:length-1] // a bracket before it makes it JSON
	write := func(parts ...[]byte) func(net.Conn) error {
		return func(conn net.Conn) error {
			buffers := net.Buffers(slices.Clone(parts)) // which WriteTo uses up
			_, err := buffers.WriteTo(conn)
			return err
		}
	}
	reached := func(series string, more float64) {
		t.Helper()
		require.Eventually(t, func() bool { return c.value(series) > more }, patience, 100*time.Millisecond, series)
	}
	begun := time.Now()
	c.attackers(attack, &bad, 600, write(head, make([]byte, length-1)))
	c.attackers(attack, &bad, 50, write(head, []byte("["), costly))
	reached(`pbxhook_requests_total{code="503",webhook="crm/pbx"}`, 100)
	c.attackers(attack, &bad, 300, write(header))
	reached(`pbxhook_connections_rejected_total{reason="headers"}`, 100)
	c.attackers(attack, &bad, 1700, write(short))
	require.Eventually(t, func() bool {
		return c.value(`pbxhook_connections_rejected_total{reason="connections"}`)+c.value(`pbxhook_connections_rejected_total{reason="evicted"}`) > 100
	}, patience, 100*time.Millisecond)
	before := sent.Load()
	require.Eventually(t, func() bool {
		_, err := c.get("/healthz")
		require.NoError(t, err)
		return sent.Load() > before+1000 && time.Since(begun) > 5*time.Second
	}, patience, 100*time.Millisecond, "good senders go on")
	end()
	close(stop)
	good.Wait()
	bad.Wait()
	t.Logf("%d events sent meanwhile; %d MiB resident at most; %v bodies and %v connections answered 503, %v evicted, %v long headers", sent.Load(), c.peak(),
		c.value(`pbxhook_requests_total{code="503",webhook="crm/pbx"}`), c.value(`pbxhook_connections_rejected_total{reason="connections"}`),
		c.value(`pbxhook_connections_rejected_total{reason="evicted"}`), c.value(`pbxhook_connections_rejected_total{reason="headers"}`))
	require.Zero(t, wrong.Load(), "every event of the good senders was accepted")
	require.Less(t, c.peak(), 256)
	c.stop()
}

// TestStartWithAMillionWaiting: a receiver starts within its limit, accepts, and delivers.
func TestStartWithAMillionWaiting(t *testing.T) {
	const events, calls = 1_000_000, 500_000
	var delivered atomic.Int64
	var up atomic.Bool
	target := http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !up.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		delivered.Add(1)
		w.WriteHeader(http.StatusNoContent)
	})}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = target.Serve(listener) }() // ends with Close
	t.Cleanup(func() { _ = target.Close() })
	c := newConfined(t, "http://"+listener.Addr().String()+"/")
	c.start() // the target's cursor begins here
	c.stop()

	file := filepath.Join(c.data, "crm", "pbx", "journal.db")
	_, err = os.Stat(file)
	require.NoError(t, err)
	j, err := journal.Open(t.Context(), file, journal.Options{MaxBytes: 4 << 30})
	require.NoError(t, err)
	var writers sync.WaitGroup
	const writing = 256
	for w := range writing {
		writers.Go(func() {
			for n := w; n < events; n += writing {
				call := fmt.Sprint(n % calls)
				_, err := j.Append(context.Background(), journal.Record{
					ID: fmt.Sprintf("evt_%d", n), Type: event.CallEnded, Lane: call,
					Request: event.Request{
						Method: http.MethodPost, Path: "/Cdr", ReceivedAt: time.Now().UTC(), Header: http.Header{"Content-Type": {"application/json"}},
						Body: fmt.Appendf(nil, `{"event_name":"Cdr","unique_id":%q,"n":%d,"src":"09121234567","dst":"02188776655","disposition":"ANSWERED","billsec":"12"}`, call, n),
					},
				}, nil)
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	writers.Wait()
	require.NoError(t, j.Close())

	c.start()
	require.Eventually(t, func() bool { return c.value(`pbxhook_target_pending_events{target="crm",webhook="crm/pbx"}`) >= events }, patience, 100*time.Millisecond)
	response, err := http.Post("http://"+c.hooks+"/hooks/crm/pbx/Cdr", "application/json", strings.NewReader(`{"unique_id":"1","X-Key":"a-long-token"}`))
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusAccepted, response.StatusCode)
	up.Store(true)
	require.Eventually(t, func() bool { return delivered.Load() > 20_000 }, patience, 20*time.Millisecond)
	t.Logf("%d MiB resident at most", c.peak())
	c.stop()
}
