package e2e

import (
	"fmt"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// setUpWithNATS is setUp with NATS servers, and no webhook.
func setUpWithNATS(t *testing.T) *cluster {
	t.Helper()
	image := os.Getenv("NATS_IMG")
	if image == "" {
		t.Skip("no image of NATS: load one and name it in NATS_IMG, as .ci/run does")
	}
	c := setUp(t)
	c.kubectl("", "-n", c.namespace, "delete", "pbx", "--all", "--timeout=60s")
	c.natsServers(image)
	return c
}

// natsServers makes three NATS servers with JetStream in the namespace, as a Service nats.
func (c *cluster) natsServers(image string) {
	c.t.Helper()
	c.kubectl(fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: nats, namespace: %[1]s}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector: {app: nats}
  ports: [{name: client, port: 4222}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: nats, namespace: %[1]s}
spec:
  serviceName: nats
  replicas: 3
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: nats}}
  template:
    metadata: {labels: {app: nats}}
    spec:
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 5
      securityContext: {runAsNonRoot: true, runAsUser: 1000, fsGroup: 1000, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: nats
        image: %[2]s
        imagePullPolicy: Never
        args: [--jetstream, --store_dir=/data, --name=$(NAME), --cluster_name=e2e, "--cluster=nats://0.0.0.0:6222",
          "--routes=nats://nats-0.nats:6222,nats://nats-1.nats:6222,nats://nats-2.nats:6222"]
        env: [{name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
        readinessProbe: {tcpSocket: {port: 4222}, periodSeconds: 1}
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}, readOnlyRootFilesystem: true}
        volumeMounts: [{name: data, mountPath: /data}]
      volumes: [{name: data, emptyDir: {}}]
`, c.namespace, image), "apply", "-f", "-")
	c.kubectl("", "-n", c.namespace, "rollout", "status", "statefulset/nats", "--timeout=120s")
}

// TestReceiversOnNATS: three receivers share a journal; while all of them are replaced under load no request is
// refused, and none lost; a lost NATS server changes nothing.
func TestReceiversOnNATS(t *testing.T) {
	c := setUpWithNATS(t)
	c.kubectl(fmt.Sprintf(`
apiVersion: pbxhook.io/v1alpha1
kind: PBXWebhook
metadata: {name: many, namespace: %[1]s}
spec:
  provider: Simotel
  credentials: {secretRef: {name: pbx}}
  journal: {nats: {url: "nats://nats.%[1]s.svc:4222", replicas: 3, maxBytes: 64Mi}, deletionPolicy: Delete}
  receiver: {replicas: 3}
  targets: [{name: echo, service: {name: echo, path: /many}}]
`, c.namespace), "apply", "-f", "-")
	c.wait("many")
	c.eventually("the journal is durable", func() bool {
		status, reason := c.condition("many", "JournalDurable")
		return status == "True" && reason == "Stream"
	})
	c.eventually("events are taken", func() bool {
		status, _ := c.send("many", http.MethodPost, "", "right", `{"event_name":"Cdr","unique_id":"9.9"}`)
		return status == http.StatusAccepted
	})
	l := c.startLoad("many", "right", 50)
	time.Sleep(3 * time.Second)
	c.kubectl("", "-n", c.namespace, "patch", "pbx", "many", "--type=merge", "-p", `{"spec":{"receiver":{"pod":{"annotations":{"rolled":"yes"}}}}}`)
	c.eventually("all are replaced", func() bool {
		return c.kubectl("", "-n", c.namespace, "get", "pods", "-l", "pbxhook.io/webhook=many", "-o", `jsonpath={range .items[*]}{.metadata.annotations.rolled}{" "}{end}`) == "yes yes yes"
	})
	c.wait("many")
	c.kubectl("", "-n", c.namespace, "delete", "pod", "nats-1", "--wait=false", "--grace-period=0", "--force")
	time.Sleep(5 * time.Second)
	c.kubectl("", "-n", c.namespace, "scale", "pbx", "many", "--replicas=2")
	time.Sleep(5 * time.Second)
	l.stop()
	t.Logf("accepted %d, refused %d: %v, the longest time between two accepted events: %s", len(l.accepted), len(l.refused), l.reasons(), l.gap().Round(10*time.Millisecond))
	l.arrived("/many")
	require.Empty(t, l.refused)
	c.kubectl("", "-n", c.namespace, "scale", "pbx", "many", "--replicas=3") // which the status says, with counts as they are then
	c.eventually("the status has the whole", func() bool {
		return c.jsonpath("pbx", "many", "{.status.receiver.readyReplicas} {.status.targets[0].pending}") == "3 0"
	})
	require.Contains(t, c.jsonpath("pbx", "many", "{.metadata.finalizers}"), "pbxhook.io/journal")
	c.kubectl("", "-n", c.namespace, "delete", "pbx", "many", "--timeout=90s") // the operator deletes the streams first
}

// TestJournalMoves: a webhook gets a journal in NATS and two receivers, and goes back, under load: no request is refused,
// and none lost.
func TestJournalMoves(t *testing.T) {
	c := setUpWithNATS(t)
	c.webhook("moves", toEcho)
	c.wait("moves")
	l := c.startLoad("moves", "right", 30)
	time.Sleep(2 * time.Second)
	change := func(spec, reason, ready string) {
		t.Helper()
		c.kubectl("", "-n", c.namespace, "patch", "pbx", "moves", "--type=merge", "-p", `{"spec":`+spec+`}`)
		c.eventually("it has moved", func() bool {
			_, is := c.condition("moves", "JournalDurable")
			observed := c.jsonpath("pbx", "moves", "{.metadata.generation}") == c.jsonpath("pbx", "moves", "{.status.observedGeneration}")
			return observed && is == reason && c.jsonpath("deployment", "moves-receiver", "{.status.readyReplicas} {.status.replicas}") == ready
		})
		c.wait("moves")
		time.Sleep(3 * time.Second)
	}
	change(fmt.Sprintf(`{"journal":{"embedded":null,"nats":{"url":"nats://nats.%s.svc:4222","replicas":3,"maxBytes":"64Mi"}},"receiver":{"replicas":2}}`, c.namespace), "Stream", "2 2")
	change(`{"journal":{"nats":null,"embedded":{"storage":{"emptyDir":{}}}},"receiver":{"replicas":1}}`, "EmptyDir", "1 1")
	l.stop()
	t.Logf("accepted %d, refused %d: %v, the longest time between two accepted events: %s", len(l.accepted), len(l.refused), l.reasons(), l.gap().Round(10*time.Millisecond))
	l.arrived("/moves")
	require.Empty(t, l.refused)
}

// TestNamespaceWithJournalIsDeleted: a namespace whose webhook's events in NATS go with it is not held, whatever goes
// first, and no stream remains unsaid.
func TestNamespaceWithJournalIsDeleted(t *testing.T) {
	c := setUpWithNATS(t)
	namespace := c.namespace + "-gone"
	c.kubectl("", "create", "namespace", namespace)
	c.kubectl("", "-n", namespace, "create", "secret", "generic", "pbx", "--from-literal=token=t0ken")
	c.kubectl(fmt.Sprintf(`
apiVersion: pbxhook.io/v1alpha1
kind: PBXWebhook
metadata: {name: many, namespace: %[1]s}
spec:
  provider: Simotel
  credentials: {secretRef: {name: pbx}}
  journal: {nats: {url: "nats://nats.%[2]s.svc:4222", replicas: 3, maxBytes: 64Mi}, deletionPolicy: Delete}
  targets: [{name: echo, url: "http://echo.%[2]s.svc/"}]
`, namespace, c.namespace), "apply", "-f", "-")
	c.kubectl("", "-n", namespace, "wait", "--for=condition=Ready", "pbx/many", "--timeout=120s")
	start := time.Now()
	c.kubectl("", "delete", "namespace", namespace, "--timeout=150s")
	t.Logf("the namespace was gone after %s", time.Since(start).Round(time.Second))
	require.Contains(t, c.kubectl("", "-n", "pbxhook-system", "logs", "deployment/pbxhook-operator", "--tail=400"), "pbxhook_"+namespace+"_many", "what was deleted, or remains, is in the log")
}
