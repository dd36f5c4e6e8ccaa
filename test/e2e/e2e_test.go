// Package e2e tries pbxhook as its user would, on a real cluster: the one that KUBECONFIG names, with
// the image $IMG loaded.
package e2e

import (
	"context"
	"crypto/tls"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/test/testenv"
)

//go:embed manifests.yaml
var manifests string

const patience = 2 * time.Minute

// cluster is a namespace of its own in the cluster, and kubectl.
type cluster struct {
	t         *testing.T
	namespace string
	image     string
	target    *target
	tls       *tls.Config // whom to trust; nil: the system's authorities
}

// kubectl runs it, and fails the test when it fails.
func (c *cluster) kubectl(stdin string, args ...string) string {
	c.t.Helper()
	out, err := c.try(stdin, args...)
	require.NoError(c.t, err, "kubectl %s: %s", strings.Join(args, " "), out)
	return out
}

func (c *cluster) try(stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(context.Background(), "kubectl", args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// jsonpath reads a part of an object.
func (c *cluster) jsonpath(kind, name, path string) string {
	c.t.Helper()
	return c.kubectl("", "-n", c.namespace, "get", kind, name, "-o", "jsonpath="+path)
}

func (c *cluster) condition(webhook, kind string) (status, reason string) {
	c.t.Helper()
	condition := c.jsonpath("pbx", webhook, fmt.Sprintf(`{range .status.conditions[?(@.type=="%s")]}{.status} {.reason}{end}`, kind))
	status, reason, _ = strings.Cut(condition, " ")
	return status, reason
}

func (c *cluster) eventually(what string, check func() bool) {
	c.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		if check() {
			return
		}
	}
	c.describe()
	require.Fail(c.t, "not in time: "+what)
}

// describe prints what a person would look at.
func (c *cluster) describe() {
	for _, args := range [][]string{
		{"-n", c.namespace, "get", "pbx,deploy,pods,svc,pvc", "-o", "wide"},
		{"-n", c.namespace, "describe", "pbx"},
		{"-n", c.namespace, "describe", "pods"},
		{"-n", c.namespace, "logs", "-l", "app.kubernetes.io/name=pbxhook-receiver", "--tail=20"},
		{"-n", "pbxhook-system", "logs", "deployment/pbxhook-operator", "--tail=50"},
	} {
		out, _ := c.try("", args...)
		c.t.Logf("kubectl %s\n%s", strings.Join(args, " "), out)
	}
}

// service is the address of a Service's port, reachable where the test runs.
func (c *cluster) service(name string, port int) string {
	c.t.Helper()
	return fmt.Sprintf("http://%s:%d", c.jsonpath("service", name, "{.spec.clusterIP}"), port)
}

// send sends a request to a webhook's Service, and returns the status and the answer.
func (c *cluster) send(webhook, method, path, password, body string) (int, string) {
	c.t.Helper()
	return c.sendTo(c.service(webhook+"-receiver", 80)+"/hooks/"+c.namespace+"/"+webhook, method, path, password, body)
}

func (c *cluster) sendTo(url, method, path, password, body string) (int, string) {
	c.t.Helper()
	request, err := http.NewRequestWithContext(c.t.Context(), method, url+path, strings.NewReader(body))
	require.NoError(c.t, err)
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	if password != "" {
		request.SetBasicAuth("pbx", password)
	}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: c.tls}}
	response, err := client.Do(request)
	require.NoError(c.t, err)
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	require.NoError(c.t, err)
	return response.StatusCode, string(answer)
}

// target is a service that remembers the CloudEvents that it was sent.
type target struct {
	mu     sync.Mutex
	events map[string][]map[string]any // by path
	auth   map[string]string           // the last Authorization, by path
}

func (s *target) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var e map[string]any
	if err := json.NewDecoder(io.LimitReader(r.Body, 2<<20)).Decode(&e); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if r.URL.Path == "/refuses" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events[r.URL.Path] = append(s.events[r.URL.Path], e)
	s.auth[r.URL.Path] = r.Header.Get("Authorization")
}

// received are the CloudEvents that the target got at a path.
func (c *cluster) received(path string) []map[string]any {
	c.target.mu.Lock()
	defer c.target.mu.Unlock()
	return slices.Clone(c.target.events[path])
}

// listen starts the target, at an address that pods reach.
func (c *cluster) listen() (address string, port string) {
	c.t.Helper()
	host := c.kubectl("", "-n", "default", "get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}")
	route, err := net.Dial("udp", net.JoinHostPort(host, "443")) // sends nothing: it asks for the way there
	require.NoError(c.t, err)
	address, _, err = net.SplitHostPort(route.LocalAddr().String())
	require.NoError(c.t, err)
	require.NoError(c.t, route.Close())

	listener, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	require.NoError(c.t, err)
	_, port, err = net.SplitHostPort(listener.Addr().String())
	require.NoError(c.t, err)
	server := &http.Server{Handler: c.target, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener) // until Close
	}()
	c.t.Cleanup(func() { _ = server.Close(); <-done })
	return address, port
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t, namespace: fmt.Sprintf("e2e-%d", time.Now().Unix()), image: os.Getenv("IMG"), target: &target{events: map[string][]map[string]any{}, auth: map[string]string{}}}
	require.NotEmpty(t, c.image, "set IMG to the image that is loaded")
	out, err := c.try("", "version")
	require.NoError(t, err, "kubectl reaches no cluster: %s", out)
	return c
}

// setUp installs pbxhook by its manifests.
func setUp(t *testing.T) *cluster {
	t.Helper()
	c := newCluster(t)
	install := c.kubectl("", "kustomize", filepath.Join(testenv.Root(), "config", "default"))
	c.kubectl(strings.ReplaceAll(install, "pbxhook:dev", c.image), "apply", "-f", "-")
	c.kubectl("", "-n", "pbxhook-system", "rollout", "status", "deployment/pbxhook-operator", "--timeout=120s")
	c.world()
	return c
}

// world makes a namespace with a disk, a target and the webhooks of manifests.yaml.
func (c *cluster) world() {
	c.t.Helper()
	node := c.kubectl("", "get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
	folder := c.t.TempDir()
	require.NoError(c.t, os.Chmod(folder, 0o777))
	c.kubectl(fmt.Sprintf(`
apiVersion: v1
kind: PersistentVolume
metadata: {name: %[1]s}
spec:
  storageClassName: e2e-%[1]s
  capacity: {storage: 128Mi}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  local: {path: %[2]s}
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [%[3]s]}]}]}}
`, c.namespace, folder, node), "apply", "-f", "-")
	c.t.Cleanup(func() {
		_, _ = c.try("", "delete", "namespace", c.namespace, "--wait=false")
		_, _ = c.try("", "delete", "pv", c.namespace, "--wait=false")
	})
	address, port := c.listen()
	c.kubectl(strings.NewReplacer("NAMESPACE", c.namespace, "ADDRESS", address, "PORT", port).Replace(manifests), "apply", "-f", "-")
}

// webhook applies one on an emptyDir whose target is the test's, at the path of its name; more is more of its
// spec.
func (c *cluster) webhook(name, more string) {
	c.t.Helper()
	c.kubectl(fmt.Sprintf(`
apiVersion: pbxhook.io/v1alpha1
kind: PBXWebhook
metadata: {name: %[1]s, namespace: %[2]s}
spec:
  provider: Simotel
  credentials: {secretRef: {name: pbx}}
  journal: {embedded: {storage: {emptyDir: {}}}}
%[3]s`, name, c.namespace, strings.ReplaceAll(more, "NAME", name)), "apply", "-f", "-")
}

// wait is what people and pipelines do.
func (c *cluster) wait(name string) {
	c.t.Helper()
	if out, err := c.try("", "-n", c.namespace, "wait", "--for=condition=Ready", "pbx/"+name, "--timeout=120s"); err != nil {
		c.describe()
		require.NoError(c.t, err, out)
	}
}

// toEcho is a target at the test.
const toEcho = "  targets: [{name: echo, service: {name: echo, path: /NAME}}]\n"

// TestTheMainJob is what the README promises: three providers, real samples, a target.
func TestTheMainJob(t *testing.T) {
	c := setUp(t)
	for _, webhook := range []string{"simotel", "voipstudio", "acefone"} {
		c.eventually(webhook+" is Ready", func() bool {
			status, _ := c.condition(webhook, "Ready")
			return status == "True"
		})
	}
	t.Log("\n" + c.kubectl("", "-n", c.namespace, "get", "pbx"))

	t.Run("samples reach the target", func(t *testing.T) {
		for _, sample := range []struct{ webhook, method, path, body, want, call string }{
			{"simotel", "GET", "/NewState?event_name=NewState&exten=991&state=Unavailable", "", "io.pbxhook.extension.state", ""},
			{"simotel", "POST", "/Cdr", `{"event_name":"Cdr","unique_id":"1610778618.378","type":"local","disposition":"ANSWERED","src":"991","dst":"993"}`, "io.pbxhook.call.ended", "1610778618.378"},
			{"voipstudio", "POST", "", `{"id":"uk003.1","event_time":"2021-04-28 08:46:13","event_name":"call.hangup","call_id":139543232,"destination":"in","src":"447854740947","dst":"441183211001"}`, "io.pbxhook.call.ended", "139543232"},
			{"acefone", "POST", "/call-missed", `{"call_id":"1783784632.231961","call_status":"missed","direction":"inbound","start_stamp":"2026-07-11 21:13:52"}`, "io.pbxhook.call.missed", "1783784632.231961"},
		} {
			status, answer := c.send(sample.webhook, sample.method, sample.path, "wrong", sample.body)
			require.Equal(t, http.StatusUnauthorized, status, answer)
			status, answer = c.send(sample.webhook, sample.method, sample.path, "right", sample.body)
			require.Equal(t, http.StatusAccepted, status, answer)
			var accepted struct{ ID string }
			require.NoError(t, json.Unmarshal([]byte(answer), &accepted))
			c.eventually("the target has "+sample.want, func() bool {
				for _, e := range c.received("/" + sample.webhook) {
					subject, _ := e["subject"].(string)
					if e["id"] == accepted.ID && e["type"] == sample.want && subject == sample.call {
						return true
					}
				}
				return false
			})
		}
	})

	t.Run("a token in the path opens", func(t *testing.T) {
		status, answer := c.send("acefone", "POST", "/t0ken/call-hangup", "", `{"call_id":"7.7","call_status":"answered"}`)
		require.Equal(t, http.StatusAccepted, status, answer)
		status, _ = c.send("acefone", "POST", "/wr0ng/call-hangup", "", `{"call_id":"7.7","call_status":"answered"}`)
		require.Equal(t, http.StatusUnauthorized, status)
	})

	t.Run("conditions say what is the case", func(t *testing.T) {
		for _, want := range []struct{ webhook, condition, status, reason string }{
			{"simotel", "JournalDurable", "True", "PersistentVolume"},
			{"voipstudio", "JournalDurable", "False", "EmptyDir"},
			{"simotel", "CredentialsResolved", "True", "Succeeded"},
			{"simotel", "ConfigurationApplied", "True", "Succeeded"},
		} {
			status, reason := c.condition(want.webhook, want.condition)
			require.Equal(t, want.status, status, want)
			require.Equal(t, want.reason, reason, want)
		}
		c.eventually("the target's health is known", func() bool {
			status, _ := c.condition("simotel", "TargetsHealthy")
			return status == "True"
		})
	})

	t.Run("a receiver has no API token and no rights", func(t *testing.T) {
		pod := c.kubectl("", "-n", c.namespace, "get", "pods", "-l", "pbxhook.io/webhook=simotel", "-o", "json")
		require.NotContains(t, pod, "serviceaccount")
		require.Contains(t, pod, `"readOnlyRootFilesystem": true`)
	})

	t.Run("a changed password reaches the running receiver", func(t *testing.T) {
		before := c.kubectl("", "-n", c.namespace, "get", "pods", "-l", "pbxhook.io/webhook=simotel", "-o", "name")
		c.kubectl("", "-n", c.namespace, "patch", "secret", "pbx", "-p", `{"stringData":{"password":"new"}}`)
		start := time.Now()
		c.eventually("the new password is taken", func() bool {
			status, _ := c.send("simotel", "GET", "/Cdr?cuid=1", "new", "")
			return status == http.StatusAccepted
		})
		t.Logf("from the Secret to effect: %s", time.Since(start).Round(10*time.Millisecond))
		status, _ := c.send("simotel", "GET", "/Cdr?cuid=1", "right", "")
		require.Equal(t, http.StatusUnauthorized, status)
		require.Equal(t, before, c.kubectl("", "-n", c.namespace, "get", "pods", "-l", "pbxhook.io/webhook=simotel", "-o", "name"), "no pod restarts")
	})

	t.Run("a Secret that goes leaves the last good one in force", func(t *testing.T) {
		c.kubectl("", "-n", c.namespace, "delete", "secret", "pbx")
		c.eventually("the status says so", func() bool {
			status, reason := c.condition("simotel", "CredentialsResolved")
			return status == "False" && reason == "SecretNotFound"
		})
		status, answer := c.send("simotel", "GET", "/Cdr?cuid=2", "new", "")
		require.Equal(t, http.StatusAccepted, status, answer)
	})

	t.Run("deleting a webhook leaves nothing but a retained claim", func(t *testing.T) {
		c.kubectl("", "-n", c.namespace, "delete", "pbx", "--all", "--timeout=60s")
		left := func() string {
			return c.kubectl("", "-n", c.namespace, "get", "deploy,rs,pods,svc,secrets,pvc", "-l", "app.kubernetes.io/managed-by=pbxhook-operator", "-o", "name")
		}
		c.eventually("all else is gone", func() bool { return left() == "persistentvolumeclaim/simotel-receiver" })
	})
}

// TestWhatGoesWrongIsSaid: a missing Secret and an image that cannot be pulled.
func TestWhatGoesWrongIsSaid(t *testing.T) {
	c := setUp(t)
	c.kubectl("", "-n", c.namespace, "delete", "pbx", "--all", "--timeout=60s")
	webhook := fmt.Sprintf(`
apiVersion: pbxhook.io/v1alpha1
kind: PBXWebhook
metadata: {name: broken, namespace: %s}
spec:
  provider: Simotel
  credentials: {secretRef: {name: nowhere}}
  targets: [{name: echo, service: {name: echo}}]
  journal: {embedded: {storage: {emptyDir: {}}}}
`, c.namespace)
	c.kubectl(webhook, "apply", "-f", "-")
	c.eventually("the missing Secret is named", func() bool {
		status, reason := c.condition("broken", "Ready")
		return status == "False" && reason == "SecretNotFound"
	})
	c.eventually("the receiver runs", func() bool {
		status, _ := c.condition("broken", "ReceiverAvailable")
		return status == "True"
	})
	status, answer := c.send("broken", "GET", "/Cdr?cuid=1", "any", "")
	require.Equal(t, http.StatusServiceUnavailable, status, "never open: %s", answer)
	t.Log("\n" + c.kubectl("", "-n", c.namespace, "get", "pbx"))
	t.Log("\n" + c.kubectl("", "-n", c.namespace, "describe", "pbx", "broken"))

	setImage := func(image string) {
		c.kubectl("", "-n", "pbxhook-system", "set", "env", "deployment/pbxhook-operator", "RECEIVER_IMAGE="+image)
		c.kubectl("", "-n", "pbxhook-system", "rollout", "status", "deployment/pbxhook-operator", "--timeout=120s")
	}
	t.Cleanup(func() { setImage(c.image) })
	c.kubectl("", "-n", c.namespace, "create", "secret", "generic", "nowhere", "--from-literal=token=x")
	c.eventually("it becomes Ready", func() bool {
		status, _ := c.condition("broken", "Ready")
		return status == "True"
	})
	setImage("registry.invalid/no/such:image")
	c.eventually("the wrong image is named", func() bool {
		status, reason := c.condition("broken", "Ready")
		return status == "False" && reason == "ImagePullFailed"
	})
	t.Log("\n" + c.kubectl("", "-n", c.namespace, "get", "pbx"))
	events := c.kubectl("", "-n", c.namespace, "get", "events", "--field-selector", "involvedObject.kind=PBXWebhook")
	require.Contains(t, events, "ImagePullFailed")
}

// TestExpressionsAndVersions: an expression decides what goes out; a bad one is named while the last good
// one stays in force; an event in another version is taken, and the status says so.
func TestExpressionsAndVersions(t *testing.T) {
	c := setUp(t)
	c.kubectl("", "-n", c.namespace, "delete", "pbx", "--all", "--timeout=60s")
	apply := func(expression string) {
		c.kubectl(fmt.Sprintf(`
apiVersion: pbxhook.io/v1alpha1
kind: PBXWebhook
metadata: {name: filtered, namespace: %s}
spec:
  provider: Simotel
  version: Rest4
  filter: {expression: %q}
  credentials: {secretRef: {name: pbx}}
  targets:
  - {name: echo, service: {name: echo, path: /filtered}, expression: event.call.talkSeconds > 10}
  - {name: refuses, service: {name: echo, path: /refuses}, expression: event.call.talkSeconds > 12}
  journal: {embedded: {storage: {emptyDir: {}}}}
`, c.namespace, expression), "apply", "-f", "-")
	}
	cdr := func(id, queue string, talk int) string {
		return fmt.Sprintf(`{"event_name":"CdrQueue","unique_id":%q,"queue":%q,"billsec":"%d"}`, id, queue, talk)
	}
	apply(`event.call.queue == "902"`)
	c.eventually("Ready", func() bool {
		status, _ := c.condition("filtered", "Ready")
		return status == "True"
	})
	arrived := func() (calls []any) {
		for _, e := range c.received("/filtered") {
			calls = append(calls, e["subject"])
		}
		return calls
	}
	for _, body := range []string{cdr("1.1", "902", 11), cdr("1.2", "903", 11), cdr("1.3", "902", 9), cdr("1.4", "902", 12)} {
		status, answer := c.send("filtered", "POST", "", "right", body) // G4, not Rest4
		require.Equal(t, http.StatusAccepted, status, answer)
	}
	c.eventually("two arrive", func() bool { return len(arrived()) == 2 })
	require.Equal(t, []any{"1.1", "1.4"}, arrived())
	c.eventually("the other version is said", func() bool {
		count, version, _ := strings.Cut(c.jsonpath("pbx", "filtered", "{.status.events.otherVersion} {.status.events.lastOtherVersion}"), " ")
		return count != "0" && version == "G4" // the first one is said at once, counts every five minutes
	})

	apply(`event.call.que == "902"`)
	c.eventually("the bad expression is named", func() bool {
		status, _ := c.condition("filtered", "TargetsHealthy")
		message := c.jsonpath("pbx", "filtered", `{.status.conditions[?(@.type=="TargetsHealthy")].message}`)
		return status == "False" && strings.Contains(message, "filter.expression: undefined field 'que'") && strings.Contains(message, "the last good one stays in force")
	})
	for _, body := range []string{cdr("1.5", "903", 11), cdr("1.6", "902", 13)} {
		status, answer := c.send("filtered", "POST", "/CdrQueue", "right", body)
		require.Equal(t, http.StatusAccepted, status, answer)
	}
	c.eventually("the last good one filters", func() bool { return len(arrived()) == 3 })
	require.Equal(t, "1.6", arrived()[2])
	status, _ := c.condition("filtered", "Ready")
	require.Equal(t, "True", status, "events are still received and kept")

	// the one that was refused is asked for by forwarding a port of the pod
	binary := filepath.Join(t.TempDir(), "pbxhook")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./cmd/pbxhook")
	build.Dir = testenv.Root()
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	pbxhook := func(args ...string) string {
		out, err := exec.CommandContext(t.Context(), binary, append(args, "-n", c.namespace, "filtered")...).CombinedOutput()
		require.NoError(t, err, "%s", out)
		return string(out)
	}
	c.eventually("the dead letter is listed", func() bool {
		letters := pbxhook("dead-letters", "-o", "json")
		return strings.Contains(letters, `"callId": "1.6"`) && strings.Contains(letters, "400 from the target")
	})
	require.Contains(t, pbxhook("replay", "--call", "1.4", "--target", "echo"), "1 event to echo")
	c.eventually("it comes again", func() bool { return len(arrived()) == 4 })
	require.Equal(t, "1.4", arrived()[3])
}

// TestKubectlExplains: what `kubectl explain` and the printer columns show.
func TestKubectlExplains(t *testing.T) {
	c := &cluster{t: t}
	out := c.kubectl("", "explain", "pbx.spec.targets")
	require.Contains(t, out, "services that events are forwarded to")
	require.Contains(t, c.kubectl("", "explain", "pbx.spec.provider"), "make of the PBX")
}
