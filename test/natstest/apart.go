package natstest

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// alone tells a process that it has a network namespace of its own.
const alone = "PBXHOOK_TEST_ALONE"

// Alone runs a test by itself, in a process with a network namespace of its own, which ends with it. It returns true
// in that process alone.
func Alone(t *testing.T) bool {
	t.Helper()
	if os.Getenv(alone) != "" {
		ip(t, "link", "set", "lo", "up")
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("to make a network namespace takes root")
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v", "-test.count", "1")
	cmd.Env = append(os.Environ(), alone+"=yes")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	t.Logf("in a network namespace of its own:\n%s", out)
	require.NoError(t, err)
	return false
}

// Apart starts servers as Start does, each in a network namespace of its own, joined by a bridge in this process's: so
// that each can be cut off. It is for a process that is Alone.
func Apart(t *testing.T, number int, extra string) []*Server {
	t.Helper()
	ip(t, "link", "add", "pbx", "type", "bridge")
	ip(t, "addr", "add", "10.77.0.1/24", "dev", "pbx")
	ip(t, "link", "set", "pbx", "up")
	places := make([]place, number)
	for i := range places {
		address := fmt.Sprintf("10.77.0.%d", 10+i)
		places[i] = place{client: address + ":4222", route: address + ":6222", link: &link{name: fmt.Sprint("server", i), address: address}}
	}
	return start(t, places, extra)
}

// link joins a server's network namespace to the bridge.
type link struct{ name, address string }

// connect makes it, for a process that has a new namespace. It goes with that.
func (l *link) connect(t testing.TB, pid int) {
	t.Helper()
	ip(t, "link", "add", l.name, "type", "veth", "peer", "name", "eth0", "netns", fmt.Sprint(pid))
	ip(t, "link", "set", l.name, "master", "pbx", "up")
	for _, args := range [][]string{{"link", "set", "lo", "up"}, {"addr", "add", l.address + "/24", "dev", "eth0"}, {"link", "set", "eth0", "up"}} {
		run(t, "nsenter", append([]string{"--target", fmt.Sprint(pid), "--net", "ip"}, args...)...)
	}
}

// listens is a line of configuration: where it listens, and what it tells others. A server of another namespace is
// started before it has its address.
func (s *Server) listens(address string) string {
	if s.link == nil {
		return fmt.Sprintf("listen: %q\n", address)
	}
	port := address[len(s.link.address)+1:]
	if port == "4222" {
		return fmt.Sprintf("listen: \"0.0.0.0:%s\"\nclient_advertise: %q\n", port, address)
	}
	return fmt.Sprintf("listen: \"0.0.0.0:%s\", advertise: %q", port, address)
}

// Cut takes the server off the network: nothing that is sent to it or by it arrives.
func (s *Server) Cut() {
	s.t.Helper()
	ip(s.t, "link", "set", s.link.name, "down")
}

// CutFromPeers keeps the server from all others of its cluster; clients reach it all the same.
func (s *Server) CutFromPeers() {
	s.t.Helper()
	s.toPeers("add")
}

// JoinPeers ends that.
func (s *Server) JoinPeers() {
	s.t.Helper()
	s.toPeers("del")
}

func (s *Server) toPeers(change string) {
	s.t.Helper()
	for _, peer := range s.peers {
		run(s.t, "nsenter", "--target", fmt.Sprint(s.cmd.Process.Pid), "--net", "ip", "route", change, "blackhole", peer+"/32")
	}
}

// Join puts it on again.
func (s *Server) Join() {
	s.t.Helper()
	ip(s.t, "link", "set", s.link.name, "up")
}

func ip(t testing.TB, args ...string) {
	t.Helper()
	run(t, "ip", args...)
}

func run(t testing.TB, command string, args ...string) {
	t.Helper()
	out, err := exec.Command(command, args...).CombinedOutput()
	require.NoError(t, err, "%s %v: %s", command, args, out)
}
