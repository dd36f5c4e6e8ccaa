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

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/test/loopback"
)

const patience = 30 * time.Second

// Server is one, in a process of its own.
type Server struct {
	t       testing.TB
	Address string
	program string
	conf    string
	cmd     *exec.Cmd
}

// Start starts a number of servers, a cluster when there is more than one, with JetStream on the disk. extra is more
// of their configuration. The test is skipped where there is no nats-server.
func Start(t testing.TB, number int, extra string) []*Server {
	t.Helper()
	program := os.Getenv("PBXHOOK_NATS_SERVER")
	if program == "" {
		t.Skip("no nats-server: set PBXHOOK_NATS_SERVER to one, as make test does by hack/nats-server")
	}
	routes := make([]string, number)
	for i := range routes {
		routes[i] = loopback.Free(t)
	}
	servers := make([]*Server, number)
	for i := range servers {
		folder := t.TempDir()
		s := &Server{t: t, Address: loopback.Free(t), program: program, conf: filepath.Join(folder, "nats.conf")}
		text := fmt.Sprintf("server_name: n%d\nlisten: %q\njetstream { store_dir: %q }\n%s\n", i, s.Address, filepath.Join(folder, "js"), extra)
		if number > 1 {
			text += fmt.Sprintf("cluster { name: test, listen: %q, routes: [%s] }\n", routes[i], "nats://"+strings.Join(routes, ", nats://"))
		}
		require.NoError(t, os.WriteFile(s.conf, []byte(text), 0o600))
		servers[i] = s
	}
	for _, s := range servers {
		s.Run()
		t.Cleanup(s.Kill)
	}
	return servers
}

// URL is that of all servers.
func URL(servers []*Server) string {
	var all []string
	for _, s := range servers {
		all = append(all, "nats://"+s.Address)
	}
	return strings.Join(all, ",")
}

// Run starts it, and waits until it takes connections.
func (s *Server) Run() {
	s.t.Helper()
	log, err := os.OpenFile(s.conf+".log", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	require.NoError(s.t, err)
	s.cmd = exec.Command(s.program, "-c", s.conf)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	require.NoError(s.t, s.cmd.Start())
	_ = log.Close() // it is the process's now
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

// Signal sends it one, such as SIGSTOP.
func (s *Server) Signal(signal syscall.Signal) {
	s.t.Helper()
	require.NoError(s.t, s.cmd.Process.Signal(signal))
}
