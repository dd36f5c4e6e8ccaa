package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestOperatorUpgradedUnderLoad: one webhook takes 150 events a second while the operator is upgraded, by which the
// receivers of 20 others and its own are replaced, a few at a time. The gap is printed; nothing that was accepted is lost.
func TestOperatorUpgradedUnderLoad(t *testing.T) {
	c := setUp(t)
	c.kubectl("", "-n", c.namespace, "delete", "pbx", "voipstudio", "acefone", "--timeout=60s")
	const others = 20
	var manifests []string
	for i := range others {
		manifests = append(manifests, fmt.Sprintf(`
apiVersion: pbxhook.io/v1alpha1
kind: PBXWebhook
metadata: {name: other-%[1]d, namespace: %[2]s}
spec:
  provider: Simotel
  credentials: {secretRef: {name: pbx}}
  journal: {embedded: {storage: {emptyDir: {}}}}
  targets: [{name: echo, service: {name: echo, path: /other}}]
`, i, c.namespace))
	}
	c.kubectl(strings.Join(manifests, "---"), "apply", "-f", "-")
	c.kubectl("", "-n", c.namespace, "wait", "--for=condition=Ready", "pbx", "--all", "--timeout=150s")
	upgraded := fmt.Sprintf("e2e=%d", time.Now().Unix())
	pods := func() (rolled, all int) {
		out := c.kubectl("", "-n", c.namespace, "get", "deployments", "-l", "app.kubernetes.io/managed-by=pbxhook-operator",
			"-o", `jsonpath={range .items[*]}{.spec.template.spec.containers[0].env[*].value} {.status.updatedReplicas}/{.status.availableReplicas}/{.status.replicas}{"\n"}{end}`)
		for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
			all++
			if strings.Contains(line, upgraded) && strings.HasSuffix(line, " 1/1/1") { // among other variables
				rolled++
			}
		}
		return rolled, all
	}
	l := c.startLoad("simotel", "right", 150)
	time.Sleep(2 * time.Second)
	start := time.Now()
	c.kubectl("", "-n", "pbxhook-system", "set", "env", "deployment/pbxhook-operator", "OTEL_RESOURCE_ATTRIBUTES="+upgraded)
	t.Cleanup(func() {
		_, _ = c.try("", "-n", "pbxhook-system", "set", "env", "deployment/pbxhook-operator", "OTEL_RESOURCE_ATTRIBUTES-")
	})
	c.eventually("all receivers are replaced", func() bool { rolled, all := pods(); return rolled == all && all == others+1 })
	took := time.Since(start)
	time.Sleep(2 * time.Second)
	l.stop()
	t.Logf("%d receivers replaced in %s; the longest time between two accepted events: %s; accepted %d, refused %d: %v",
		others+1, took.Round(time.Second), l.gap().Round(10*time.Millisecond), len(l.accepted), len(l.refused), l.reasons())
	l.arrived("/simotel")
	t.Logf("%d events accepted, 0 lost", len(l.accepted))
	c.kubectl("", "-n", c.namespace, "delete", "pbx", "--all", "--timeout=60s")
}

// TestItsOwnObjects: what happens to them by hand, on a real cluster with its garbage collector.
func TestItsOwnObjects(t *testing.T) {
	c := setUp(t)
	c.kubectl("", "-n", c.namespace, "delete", "pbx", "voipstudio", "acefone", "--timeout=60s")
	c.wait("simotel")
	accepted := func() {
		t.Helper()
		c.eventually("an event is accepted", func() bool {
			status, _ := c.send("simotel", http.MethodPost, "", "right", `{"event_name":"Cdr","unique_id":"9.9"}`)
			return status == http.StatusAccepted
		})
	}
	pod := func() string {
		return c.kubectl("", "-n", c.namespace, "get", "pods", "-l", "pbxhook.io/webhook=simotel,app.kubernetes.io/name=pbxhook-receiver", "-o", "jsonpath={.items[*].metadata.name}")
	}

	t.Run("orphaned and applied again", func(t *testing.T) {
		before := pod()
		manifest := c.kubectl("", "-n", c.namespace, "get", "pbx", "simotel", "-o", "jsonpath={.metadata.annotations.kubectl\\.kubernetes\\.io/last-applied-configuration}")
		c.kubectl("", "-n", c.namespace, "delete", "pbx", "simotel", "--cascade=orphan", "--timeout=60s")
		c.kubectl(manifest, "apply", "-f", "-")
		c.wait("simotel")
		time.Sleep(5 * time.Second) // what the garbage collector would have deleted is gone by then
		require.Equal(t, before, pod(), "the same receiver goes on")
		accepted()
	})
	t.Run("a selector with a key added by hand, and paused", func(t *testing.T) {
		c.kubectl("", "-n", c.namespace, "patch", "service", "simotel-receiver", "-p", `{"spec":{"selector":{"no":"such"}}}`)
		c.kubectl("", "-n", c.namespace, "rollout", "pause", "deployment/simotel-receiver")
		c.eventually("both are taken out", func() bool {
			return c.jsonpath("service", "simotel-receiver", "{.spec.selector.no}") == "" && c.jsonpath("deployment", "simotel-receiver", "{.spec.paused}") == ""
		})
		c.wait("simotel")
		accepted()
		c.eventually("the managers are named", func() bool {
			events := c.kubectl("", "-n", c.namespace, "get", "events", "--field-selector", "reason=Restored", "-o", "jsonpath={.items[*].message}")
			return strings.Contains(events, `"kubectl-patch" had changed spec.selector`) && strings.Contains(events, `"kubectl-rollout" had changed spec.paused`)
		})
		before := pod()
		c.kubectl("", "-n", c.namespace, "rollout", "restart", "deployment/simotel-receiver")
		c.eventually("kubectl rollout restart works", func() bool { now := pod(); return now != before && !strings.Contains(now, " ") })
		c.wait("simotel")
	})
	t.Run("a pod that lost a label holds the journal", func(t *testing.T) {
		orphan := pod()
		c.kubectl("", "-n", c.namespace, "label", "pod", orphan, "app.kubernetes.io/name-")
		c.eventually("the pod that holds it is named", func() bool {
			_, reason := c.condition("simotel", "Ready")
			return reason == "JournalLocked" && strings.Contains(c.jsonpath("pbx", "simotel", `{.status.conditions[?(@.type=="Ready")].message}`), orphan)
		})
		c.kubectl("", "-n", c.namespace, "delete", "pod", orphan, "--timeout=60s")
		c.wait("simotel")
		accepted()
	})
}
