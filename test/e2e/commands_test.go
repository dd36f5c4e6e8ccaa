package e2e

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/test/testenv"
)

// plugin builds pbxhook as kubectl finds it, and returns how kubectl runs it.
func (c *cluster) plugin() func(ctx context.Context, args ...string) *exec.Cmd {
	c.t.Helper()
	folder := c.t.TempDir()
	build := exec.CommandContext(c.t.Context(), "go", "build", "-o", filepath.Join(folder, "kubectl-pbxhook"), "./cmd/pbxhook")
	build.Dir = testenv.Root()
	out, err := build.CombinedOutput()
	require.NoError(c.t, err, "%s", out)
	return func(ctx context.Context, args ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, "kubectl", append([]string{"pbxhook"}, args...)...)
		cmd.Env = append(os.Environ(), "PATH="+folder+":"+os.Getenv("PATH"))
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		return cmd
	}
}

// TestKubectlPbxhook: status, calls, tail and the console, as kubectl's own; the console outlives the pod.
func TestKubectlPbxhook(t *testing.T) {
	c := setUp(t)
	c.wait("simotel")
	kubectl := c.plugin()
	run := func(args ...string) string {
		out, err := kubectl(t.Context(), append(args, "-n", c.namespace, "simotel")...).CombinedOutput()
		require.NoError(t, err, "%s", out)
		return string(out)
	}
	tail := kubectl(t.Context(), "tail", "-n", c.namespace, "simotel")
	told, err := tail.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, tail.Start())
	lines := make(chan string, 100)
	go func() {
		for scanner := bufio.NewScanner(told); scanner.Scan(); {
			lines <- scanner.Text()
		}
		close(lines)
	}()
	time.Sleep(3 * time.Second) // it tells what happens after it began

	code, answer := c.send("simotel", "POST", "/Cdr", "right", `{"event_name":"Cdr","unique_id":"1610782193.391","src":"+442035141598","dst":"902","disposition":"NO ANSWER","type":"incoming"}`)
	require.Equal(t, http.StatusAccepted, code, answer)
	for _, want := range []string{"call.missed", "→ echo"} {
		select {
		case line := <-lines:
			require.Contains(t, line, want)
			require.NotContains(t, line, "5141598")
		case <-time.After(patience):
			require.Fail(t, "not told: "+want)
		}
	}
	require.NoError(t, tail.Process.Signal(syscall.SIGTERM))
	require.NoError(t, tail.Wait())

	c.eventually("the call is listed as delivered", func() bool {
		out := run("calls", "--search", "0044 20 3514 1598")
		return strings.Contains(out, "1610782193.391") && strings.Contains(out, "echo=delivered")
	})
	require.Contains(t, run("calls", "show", "1610782193.391"), "pbxhook → echo")
	status := run("status")
	require.Regexp(t, `Ready +True`, status)
	require.Regexp(t, `echo +true +0 `, status)

	console := kubectl(t.Context(), "console", "-n", c.namespace, "simotel")
	out, err := console.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, console.Start())
	first, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	url := strings.Fields(first)[1]
	page := func() (string, error) {
		response, err := http.Get(url)
		if err != nil {
			return "", err
		}
		defer func() { _ = response.Body.Close() }()
		text, err := io.ReadAll(response.Body)
		return string(text), err
	}
	text, err := page()
	require.NoError(t, err)
	require.Contains(t, text, "call 1610782193.391")
	require.NotContains(t, text, "5141598")
	c.kubectl("", "-n", c.namespace, "delete", "pod", "-l", "pbxhook.io/webhook=simotel", "--wait=true", "--timeout=60s")
	c.eventually("the same URL leads to the new pod, which knows the call", func() bool {
		text, err := page()
		return err == nil && strings.Contains(text, "call 1610782193.391")
	})
	require.NoError(t, console.Process.Signal(syscall.SIGTERM))
	require.NoError(t, console.Wait())

	nobody, err := kubectl(t.Context(), "status", "-n", c.namespace, "nobody").CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(nobody), `"nobody" not found`)
}
