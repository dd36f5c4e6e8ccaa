package e2e

import (
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/test/testenv"
)

// helm runs the pinned one.
func (c *cluster) helm(args ...string) string {
	c.t.Helper()
	cmd := exec.CommandContext(c.t.Context(), "go", append([]string{"tool", "-modfile=hack/tools/go.mod", "helm"}, args...)...)
	cmd.Dir = testenv.Root()
	out, err := cmd.CombinedOutput()
	require.NoError(c.t, err, "helm %s: %s", strings.Join(args, " "), out)
	return string(out)
}

// TestHelm: the chart by `helm template | kubectl apply`, then by install, upgrade and uninstall. Receivers go
// on through all of it.
func TestHelm(t *testing.T) {
	tool := exec.CommandContext(t.Context(), "go", "tool", "-modfile=hack/tools/go.mod", "helm", "version")
	tool.Dir = testenv.Root()
	if out, err := tool.CombinedOutput(); err != nil {
		t.Skipf("helm's modules are not on this machine and cannot be had from where this runs (run `go tool -modfile=hack/tools/go.mod helm version` before): %s", out)
	}
	c := newCluster(t)
	manifests := filepath.Join(testenv.Root(), "config", "default")
	c.kubectl("", "delete", "-k", manifests, "--ignore-not-found", "--timeout=120s")
	repository, tag, _ := strings.Cut(c.image, ":")
	values := []string{"--set=image.repository=" + repository + ",image.tag=" + tag, "--namespace=pbxhook-helm"}
	chart := func(args ...string) []string { return append(append(args, "pbxhook", "charts/pbxhook"), values...) }

	c.kubectl("", "create", "namespace", "pbxhook-helm")
	t.Cleanup(func() {
		_, _ = c.try("", "delete", "namespace", "pbxhook-helm", "--timeout=60s")
		_, _ = c.try("", "delete", "crd", "pbxwebhooks.pbxhook.io", "--timeout=60s")
	})
	rendered := c.helm(chart("template")...)
	c.kubectl(rendered, "apply", "-f", "-")
	c.kubectl("", "-n", "pbxhook-helm", "rollout", "status", "deployment/pbxhook", "--timeout=120s")
	c.world()
	accepted := func() {
		t.Helper()
		status, answer := c.send("simotel", http.MethodPost, "", "right", `{"event_name":"Cdr","unique_id":"1.1"}`)
		require.Equal(t, http.StatusAccepted, status, answer)
	}
	c.wait("simotel")
	accepted()
	c.kubectl("", "-n", "pbxhook-helm", "delete", "deployment", "pbxhook")
	accepted() // receivers need no operator

	// a release that takes over what was applied
	c.helm(append(chart("install"), "--take-ownership", "--wait", "--timeout=120s")...)
	c.wait("simotel")
	accepted()
	c.helm(append(chart("upgrade"), "--set=replicas=2", "--wait", "--timeout=120s")...)
	require.Equal(t, "2", c.kubectl("", "-n", "pbxhook-helm", "get", "deployment", "pbxhook", "-o", "jsonpath={.status.availableReplicas}"))
	c.kubectl("", "-n", c.namespace, "patch", "pbx", "simotel", "--type=merge", "-p", `{"spec":{"method":"POST"}}`)
	c.wait("simotel") // one of the two works
	accepted()
	c.helm("uninstall", "pbxhook", "--namespace=pbxhook-helm", "--wait", "--timeout=120s")
	require.Contains(t, c.kubectl("", "-n", c.namespace, "get", "pbx", "-o", "name"), "simotel", "PBXWebhooks outlive the release")
	accepted()

	// the namespace's objects go, with an operator or without
	c.kubectl("", "-n", c.namespace, "delete", "pbx", "--all", "--timeout=60s")
}
