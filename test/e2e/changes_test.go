package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// promised is how long a change takes at most from kubectl apply to its effect, on a machine that has time.
const promised = 5 * time.Second

// effect waits for a change to have its effect, and prints how long that took.
func (c *cluster) effect(what string, check func() bool) {
	c.t.Helper()
	start := time.Now()
	for !check() {
		if time.Since(start) > 10*promised {
			c.describe()
			require.Fail(c.t, "no effect: "+what)
		}
		time.Sleep(50 * time.Millisecond)
	}
	c.t.Logf("%s: %s (promised: at most %s)", what, time.Since(start).Round(10*time.Millisecond), promised)
}

// TestChangesUnderLoad: while a PBX sends 200 events a second, all that can change without a new pod does. No
// pod restarts, no event is lost, and nobody with a valid password is refused.
func TestChangesUnderLoad(t *testing.T) {
	c := setUp(t)
	const echo = "  - {name: echo, service: {name: echo, path: /busy}}\n"
	c.webhook("busy", "  targets:\n"+echo)
	c.wait("busy")
	pods := func() string {
		return c.kubectl("", "-n", c.namespace, "get", "pods", "-l", "pbxhook.io/webhook=busy",
			"-o", "jsonpath={range .items[*]}{.metadata.name} {.metadata.uid} {.status.containerStatuses[0].restartCount}{end}")
	}
	before := pods()
	l := c.startLoad("busy", "right", 200)
	ready := func() bool {
		out, _ := c.try("", "-n", c.namespace, "get", "pbx", "busy", "-o", `jsonpath={.metadata.generation} {.status.conditions[?(@.type=="Ready")].observedGeneration} {.status.conditions[?(@.type=="Ready")].status}`)
		fields := strings.Fields(out)
		return len(fields) == 3 && fields[0] == fields[1] && fields[2] == "True"
	}
	probe := func(password, queue string) (code int, id string) {
		code, answer := c.send("busy", http.MethodPost, "", password, fmt.Sprintf(`{"event_name":"CdrQueue","unique_id":"7.7","queue":%q,"billsec":"11"}`, queue))
		_, id, _ = strings.Cut(answer, `"id":"`)
		id, _, _ = strings.Cut(id, `"`)
		return code, id
	}
	has := func(path, id string) func() bool {
		return func() bool {
			for _, e := range c.received(path) {
				if e["id"] == id {
					return true
				}
			}
			return false
		}
	}

	const filter = "  filter: {expression: 'event.call.queue != \"999\"'}\n"
	c.webhook("busy", filter+"  targets:\n"+echo)
	c.effect("a changed filter", ready)
	_, dropped := probe("right", "999")
	_, passed := probe("right", "902")
	c.eventually("the other one arrives", has("/busy", passed))
	require.False(t, has("/busy", dropped)(), "the filter is in force when the webhook is Ready")
	l.noneRefused("a changed filter")

	c.kubectl("", "-n", c.namespace, "create", "secret", "generic", "second", "--from-literal=token=first-token")
	second := echo + "  - {name: second, service: {name: echo, path: /second}, auth: {bearer: {secretKeyRef: {name: second, key: token}}}}\n"
	c.webhook("busy", filter+"  targets:\n"+second)
	c.effect("a target with a Secret never used before", func() bool { return c.authorization("/second") == "Bearer first-token" })
	l.noneRefused("a new target")

	c.kubectl("", "-n", c.namespace, "patch", "secret", "second", "-p", `{"stringData":{"token":"second-token"}}`)
	c.effect("a rotated token of a target", func() bool { return c.authorization("/second") == "Bearer second-token" })
	l.noneRefused("a rotated token")

	c.kubectl("", "-n", c.namespace, "patch", "secret", "pbx", "-p", `{"stringData":{"password":"new","previousPassword":"right"}}`)
	c.effect("a new password beside the old one", func() bool { code, _ := probe("new", "1"); return code == http.StatusAccepted })
	l.noneRefused("a second password")
	l.password.Store("new")
	time.Sleep(time.Second) // requests with the old one are answered
	c.kubectl("", "-n", c.namespace, "patch", "secret", "pbx", "--type=json", "-p", `[{"op":"remove","path":"/data/previousPassword"}]`)
	c.effect("the old password removed", func() bool { code, _ := probe("right", "1"); return code == http.StatusUnauthorized })
	l.noneRefused("a removed password")
	c.eventually("the status says why it was refused", func() bool {
		return strings.HasPrefix(c.jsonpath("pbx", "busy", "{.status.events.lastRejectedReason}"), "401: ")
	})

	c.kubectl("", "-n", c.namespace, "delete", "secret", "pbx", "second")
	c.effect("a deleted Secret, in the status", func() bool { status, _ := c.condition("busy", "CredentialsResolved"); return status == "False" })
	code, _ := probe("new", "1")
	require.Equal(t, http.StatusAccepted, code, "the last good password stays in force")
	c.kubectl("", "-n", c.namespace, "create", "secret", "generic", "pbx", "--from-literal=username=pbx", "--from-literal=password=new")
	c.kubectl("", "-n", c.namespace, "create", "secret", "generic", "second", "--from-literal=token=third-token")
	c.effect("a recreated Secret", func() bool { return ready() && c.authorization("/second") == "Bearer third-token" })
	l.noneRefused("a recreated Secret")

	l.stop()
	t.Logf("%d events accepted, %d refused", len(l.accepted), len(l.refused))
	l.arrived("/busy")
	require.Equal(t, before, pods(), "no pod restarts")
}

// authorization is the last one that the target saw at a path.
func (c *cluster) authorization(path string) string {
	c.target.mu.Lock()
	defer c.target.mu.Unlock()
	return c.target.auth[path]
}

// TestRollingUpdate: a change of the pod itself, on a claim. The gap is printed; nothing that was accepted is
// lost.
func TestRollingUpdate(t *testing.T) {
	c := setUp(t)
	c.wait("simotel")
	l := c.startLoad("simotel", "right", 50)
	time.Sleep(2 * time.Second)
	c.kubectl("", "-n", c.namespace, "patch", "pbx", "simotel", "--type=merge", "-p", `{"spec":{"receiver":{"pod":{"annotations":{"rolled":"yes"}}}}}`)
	c.wait("simotel") // not before the new receiver has the journal
	require.Contains(t, c.kubectl("", "-n", c.namespace, "get", "pods", "-l", "pbxhook.io/webhook=simotel", "-o", "jsonpath={.items[*].metadata.annotations}"), "rolled")
	status, answer := c.send("simotel", http.MethodPost, "", "right", `{"event_name":"Cdr","unique_id":"9.9"}`)
	require.Equal(t, http.StatusAccepted, status, answer)
	time.Sleep(2 * time.Second)
	l.stop()
	t.Logf("the longest time between two accepted events: %s; accepted %d, refused %d: %v", l.gap().Round(10*time.Millisecond), len(l.accepted), len(l.refused), l.reasons())
	l.arrived("/simotel")
}

// TestDisabledOnEmptyDir: what waits in the emptyDir is delivered before the receiver goes.
func TestDisabledOnEmptyDir(t *testing.T) {
	c := setUp(t)
	c.webhook("volatile", "  targets: [{name: later, service: {name: later, path: /volatile}, retry: {maxDelay: 1s}}]\n")
	c.wait("volatile")
	status, answer := c.send("volatile", http.MethodPost, "", "right", `{"event_name":"Cdr","unique_id":"5.5"}`)
	require.Equal(t, http.StatusAccepted, status, answer)
	c.kubectl("", "-n", c.namespace, "patch", "pbx", "volatile", "--type=merge", "-p", `{"spec":{"enabled":false}}`)
	c.eventually("nothing new is taken", func() bool {
		status, _ := c.send("volatile", http.MethodPost, "", "right", `{"event_name":"Cdr","unique_id":"5.6"}`)
		return status == http.StatusServiceUnavailable
	})
	taken := c.jsonpath("deployment", "volatile-receiver", "{.spec.replicas}")
	require.Equal(t, "1", taken, "the receiver stays while it has something to deliver")
	// the target comes up: a Service of that name with the test's address
	endpoint := c.kubectl("", "-n", c.namespace, "get", "endpointslice", "echo", "-o", "jsonpath={.endpoints[0].addresses[0]} {.ports[0].port}")
	address, port, _ := strings.Cut(endpoint, " ")
	c.kubectl(fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: later, namespace: %[1]s}
spec: {ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: later, namespace: %[1]s, labels: {kubernetes.io/service-name: later}}
addressType: IPv4
ports: [{port: %[3]s}]
endpoints: [{addresses: [%[2]s]}]
`, c.namespace, address, port), "apply", "-f", "-")
	c.eventually("the event arrives", func() bool {
		for _, e := range c.received("/volatile") {
			if e["subject"] == "5.5" {
				return true
			}
		}
		return false
	})
	c.eventually("then the receiver goes", func() bool { return c.jsonpath("deployment", "volatile-receiver", "{.spec.replicas}") == "0" })
	disabled, _ := c.condition("volatile", "Disabled")
	require.Equal(t, "True", disabled)
}
