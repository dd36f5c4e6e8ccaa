package fault

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/pbxhook/pbxhook/test/loopback"
	"github.com/pbxhook/pbxhook/test/natstest"
)

// several are three NATS servers, some receivers that share a journal there, and their target.
type several struct {
	t         *testing.T
	servers   []*natstest.Server
	receivers []*setup
	sink      *sink
}

func newSeveral(t *testing.T, receivers int) *several {
	t.Helper()
	return newSeveralOn(t, natstest.Start(t, 3, ""), receivers)
}

func newSeveralOn(t *testing.T, servers []*natstest.Server, receivers int) *several {
	t.Helper()
	return newSeveralBy(t, natstest.URL(servers), servers, receivers)
}

// newSeveralBy is newSeveralOn with the URL by which receivers connect.
func newSeveralBy(t *testing.T, url string, servers []*natstest.Server, receivers int) *several {
	t.Helper()
	s := &several{t: t, servers: servers}
	target := loopback.Free(t)
	for range receivers {
		r := newSetup(t, quick)
		r.targets = target
		require.NoError(t, os.WriteFile(r.manifest, fmt.Appendf(nil, `
apiVersion: pbxhook.io/v1alpha1
kind: PBXWebhook
metadata: {name: pbx}
spec:
  provider: Simotel
  credentials: {anonymous: {}}
  journal: {nats: {url: %q, replicas: 3, maxBytes: 256Mi}}
  targets: [{name: crm, url: "http://%s/", timeout: 2s, retry: %s, concurrency: 64}]
`, url, target, quick), 0o600))
		s.receivers = append(s.receivers, r)
	}
	s.sink = s.receivers[0].listen(nil)
	for _, r := range s.receivers {
		r.start()
	}
	for _, r := range s.receivers {
		require.Eventually(t, func() bool { return r.send("warm-up", 0) == http.StatusAccepted }, patience, 100*time.Millisecond)
	}
	return s
}

// load sends events of many calls at a rate, those of one call one after the other, each to a receiver of chance,
// until stop is called. What one does not take goes to another one, as a load balancer would have it.
func (s *several) load(perSecond int) (accepted *taken, stop func() (refused int64)) {
	accepted = &taken{}
	limit := rate.NewLimiter(rate.Limit(perSecond), 10)
	ctx, cancel := context.WithCancel(context.Background())
	var refused atomic.Int64
	var wg sync.WaitGroup
	for call := range 50 {
		wg.Go(func() {
			id := fmt.Sprint("call", call)
			for n := 0; limit.Wait(ctx) == nil; n++ {
				first, took := rand.IntN(len(s.receivers)), false
				for i := range s.receivers {
					if took = s.receivers[(first+i)%len(s.receivers)].send(id, n) == http.StatusAccepted; took {
						break
					}
				}
				if took {
					accepted.add(id, n)
				} else {
					refused.Add(1)
				}
			}
		})
	}
	wg.Go(func() { s.watch(ctx, accepted) })
	return accepted, func() int64 {
		cancel()
		wg.Wait()
		return refused.Load()
	}
}

const unnamedTime = 20 * time.Second // for which a status may be silent about events that are not accepted, or not delivered

// watch holds the receivers to what every fault test holds them to: where events are not accepted, or not delivered, for
// some time, a status that can be had names a problem.
func (s *several) watch(ctx context.Context, accepted *taken) {
	took, came := time.Now(), time.Now()
	lastTook, lastCame := 0, 0
	for ctx.Err() == nil {
		now, delivered := accepted.count(), s.sink.count()
		if now > lastTook {
			took, lastTook = time.Now(), now
		}
		if delivered > lastCame || s.sink.missing(accepted) == 0 {
			came, lastCame = time.Now(), delivered
		}
		if silent := max(time.Since(took), time.Since(came)); silent > unnamedTime {
			if !s.named() {
				s.t.Errorf("for %s events are not accepted or not delivered (%d accepted, %d delivered), and no status names a problem", silent.Round(time.Second), now, delivered)
				return
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// named reports whether a receiver names a problem of the journal or of the target.
func (s *several) named() bool {
	answered := false
	for _, r := range s.receivers {
		report, err := r.statusz()
		if err != nil {
			continue // it is killed, or stands still
		}
		answered = true
		for _, w := range report.Webhooks {
			if w.JournalProblem != "" || w.JournalWarning != "" {
				return true
			}
			for _, target := range w.Targets {
				if !target.Healthy {
					return true
				}
			}
		}
	}
	return !answered
}

func (s *several) requireAll(accepted *taken, refused int64) {
	s.t.Helper()
	repeats, late := s.sink.requireAll(s.t, accepted)
	s.t.Logf("%d accepted, 0 lost, 0 out of order, %d repeated, %d refused, %d of these came late", accepted.total, repeats, refused, late)
	require.Greater(s.t, accepted.total, 1000)
}

// TestNATSOneOfEverythingLost: a NATS server killed and restarted, a receiver killed, another one replaced, all under
// load.
func TestNATSOneOfEverythingLost(t *testing.T) {
	s := newSeveral(t, 3)
	accepted, stop := s.load(300)
	time.Sleep(8 * time.Second)
	s.servers[1].Kill()
	time.Sleep(10 * time.Second)
	s.servers[1].Run()
	time.Sleep(6 * time.Second)
	s.receivers[0].kill(syscall.SIGKILL)
	time.Sleep(8 * time.Second)
	s.receivers[0].start()
	time.Sleep(8 * time.Second)
	s.receivers[1].kill(syscall.SIGTERM)
	s.receivers[1].start()
	time.Sleep(20 * time.Second)
	s.requireAll(accepted, stop())
}

// leader is the server that leads the stream.
func (s *several) leader() int {
	s.t.Helper()
	return natstest.Leader(s.t, s.servers, "pbxhook_default_pbx")
}

// TestNATSLeaderPaused for 20 s: others take over, and all goes on.
func TestNATSLeaderPaused(t *testing.T) {
	s := newSeveral(t, 2)
	accepted, stop := s.load(200)
	time.Sleep(3 * time.Second)
	leader := s.leader()
	s.servers[leader].Signal(syscall.SIGSTOP)
	time.Sleep(20 * time.Second)
	s.servers[leader].Signal(syscall.SIGCONT)
	time.Sleep(5 * time.Second)
	s.requireAll(accepted, stop())
}

// TestNATSServerCutOff from all others for 20 s, with its connections open: first the one that leads the stream, then
// another one. It comes back with less than the others have.
func TestNATSServerCutOff(t *testing.T) {
	if !natstest.Alone(t) {
		return
	}
	s := newSeveralOn(t, natstest.Apart(t, 3, ""), 3)
	accepted, stop := s.load(200)
	time.Sleep(3 * time.Second)
	leader := s.leader()
	for _, cut := range []*natstest.Server{s.servers[leader], s.servers[(leader+1)%3]} {
		cut.Cut()
		time.Sleep(20 * time.Second)
		cut.Join()
		time.Sleep(8 * time.Second)
	}
	s.requireAll(accepted, stop())
}

// TestNATSServerCutFromPeers: the server that all receivers are connected to does not reach the others of its cluster, and
// clients reach it all the same. The receivers go to another one, and accept events again while it lasts.
func TestNATSServerCutFromPeers(t *testing.T) {
	if !natstest.Alone(t) {
		return
	}
	servers := natstest.Apart(t, 3, "")
	s := newSeveralBy(t, "nats://"+servers[0].Address, servers, 2)
	accepted, stop := s.load(100)
	require.Eventually(t, func() bool { return accepted.count() > 300 }, patience, 100*time.Millisecond)
	servers[0].CutFromPeers()
	before := 0
	require.Eventually(t, func() bool { // what was accepted before it was noticed counts for nothing
		time.Sleep(15 * time.Second)
		last := before
		before = accepted.count()
		return last > 0 && before > last+200
	}, patience, time.Millisecond, "events are accepted while the server is cut off")
	servers[0].JoinPeers()
	time.Sleep(5 * time.Second)
	s.requireAll(accepted, stop())
}

// TestNATSRestartedOneAfterTheOther under load, as an upgrade does.
func TestNATSRestartedOneAfterTheOther(t *testing.T) {
	s := newSeveral(t, 2)
	accepted, stop := s.load(200)
	for _, server := range s.servers {
		time.Sleep(3 * time.Second)
		server.Kill()
		time.Sleep(time.Second)
		server.Run()
		time.Sleep(4 * time.Second)
	}
	s.requireAll(accepted, stop())
}

// TestReceiverPausedPastItsLease: it is woken when its partitions are another's, and delivers nothing more of them.
func TestReceiverPausedPastItsLease(t *testing.T) {
	s := newSeveral(t, 2)
	accepted, stop := s.load(200)
	for range 2 {
		time.Sleep(3 * time.Second)
		require.NoError(t, s.receivers[0].cmd.Process.Signal(syscall.SIGSTOP))
		time.Sleep(9 * time.Second)
		require.NoError(t, s.receivers[0].cmd.Process.Signal(syscall.SIGCONT))
	}
	time.Sleep(3 * time.Second)
	s.requireAll(accepted, stop())
}
