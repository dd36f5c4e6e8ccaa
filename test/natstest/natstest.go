// Package natstest runs real NATS servers for tests.
package natstest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pbxhook/pbxhook/test/loopback"
)

const patience = time.Minute

// Server is one, in a process of its own.
type Server struct {
	t       testing.TB
	Address string
	program string
	conf    string
	base    string // of its configuration, before what a test adds
	peers   []string
	cmd     *exec.Cmd
	link    *link // nil where it is on loopback
}

// Start starts a number of servers, a cluster when there is more than one, with JetStream on the disk. extra is more
// of their configuration. The test is skipped where there is no nats-server.
func Start(t testing.TB, number int, extra string) []*Server {
	t.Helper()
	places := make([]place, number)
	for i := range places {
		places[i] = place{client: loopback.Free(t), route: loopback.Free(t)}
	}
	return start(t, places, extra)
}

// place is where a server is: addresses for clients and for other servers.
type place struct {
	client, route string
	link          *link
}

func start(t testing.TB, places []place, extra string) []*Server {
	t.Helper()
	program := os.Getenv("PBXHOOK_NATS_SERVER")
	if program == "" {
		t.Skip("no nats-server: set PBXHOOK_NATS_SERVER to one, as make test does by hack/nats-server")
	}
	var routes []string
	for _, p := range places {
		routes = append(routes, "nats://"+p.route)
	}
	servers := make([]*Server, len(places))
	for i, p := range places {
		folder := t.TempDir()
		s := &Server{t: t, Address: p.client, program: program, conf: filepath.Join(folder, "nats.conf"), link: p.link}
		s.base = fmt.Sprintf("server_name: n%d\n%sjetstream { store_dir: %q }\n", i, s.listens(p.client), s.store())
		if len(places) > 1 {
			s.base += fmt.Sprintf("cluster { name: test, %s, routes: [%s] }\n", strings.ReplaceAll(s.listens(p.route), "\n", ""), strings.Join(routes, ", "))
		}
		for _, other := range places {
			if other.link != nil && other.link.address != p.link.address {
				s.peers = append(s.peers, other.link.address)
			}
		}
		s.Configure(extra)
		servers[i] = s
	}
	for _, s := range servers {
		s.Run()
		t.Cleanup(s.end)
	}
	return servers
}

// Configure writes the configuration with which the server runs next. extra is what is added to the usual one.
func (s *Server) Configure(extra string) {
	s.t.Helper()
	require.NoError(s.t, os.WriteFile(s.conf, []byte(s.base+extra+"\n"), 0o600))
}

// Restart kills the server and runs it with another configuration.
func (s *Server) Restart(extra string) {
	s.t.Helper()
	s.Kill()
	s.Configure(extra)
	s.Run()
}

// URL is that of all servers.
func URL(servers []*Server) string {
	var all []string
	for _, s := range servers {
		all = append(all, "nats://"+s.Address)
	}
	return strings.Join(all, ",")
}

// Leader is the server that leads a stream.
func Leader(t testing.TB, servers []*Server, stream string) int {
	t.Helper()
	conn, err := nats.Connect(URL(servers))
	require.NoError(t, err)
	defer conn.Close()
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	found, err := js.Stream(t.Context(), stream)
	require.NoError(t, err)
	var n int
	_, err = fmt.Sscanf(found.CachedInfo().Cluster.Leader, "n%d", &n)
	require.NoError(t, err)
	return n
}

// Run starts it, and waits until it takes connections.
func (s *Server) Run() {
	s.t.Helper()
	log, err := os.OpenFile(s.conf+".log", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	require.NoError(s.t, err)
	s.cmd = exec.Command(s.program, "-c", s.conf)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if s.link != nil {
		s.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	}
	require.NoError(s.t, s.cmd.Start())
	_ = log.Close() // it is the process's now
	if s.link != nil {
		s.link.connect(s.t, s.cmd.Process.Pid)
	}
	require.Eventually(s.t, func() bool {
		c, err := net.Dial("tcp", s.Address)
		if err != nil {
			return false
		}
		return c.Close() == nil
	}, patience, 20*time.Millisecond, "nats-server does not listen: see %s.log", s.conf)
}

// Kill ends it without a warning.
func (s *Server) Kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill() // it may have ended
		_ = s.cmd.Wait()         // by the signal
		s.cmd = nil
	}
}

// end kills it at the end of a test. One that failed has its last lines.
func (s *Server) end() {
	s.Kill()
	if !s.t.Failed() {
		return
	}
	log, err := os.ReadFile(s.conf + ".log")
	if err != nil {
		s.t.Log(err)
		return
	}
	const lines = 30
	all := strings.Split(strings.TrimSpace(string(log)), "\n")
	s.t.Logf("%s ended with:\n%s", s.Address, strings.Join(all[max(0, len(all)-lines):], "\n"))
}

// Signal sends it one, such as SIGSTOP, after which it stands still: on a busy machine that takes a moment.
func (s *Server) Signal(signal syscall.Signal) {
	s.t.Helper()
	require.NoError(s.t, s.cmd.Process.Signal(signal))
	if signal == syscall.SIGSTOP {
		require.NoError(s.t, unix.Waitid(unix.P_PID, s.cmd.Process.Pid, nil, unix.WSTOPPED, nil))
	}
}
