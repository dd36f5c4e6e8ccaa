package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/controllers"
	"github.com/pbxhook/pbxhook/controllers/render"
	"github.com/pbxhook/pbxhook/test/bench/proc"
	"github.com/pbxhook/pbxhook/test/loopback"
	"github.com/pbxhook/pbxhook/test/testenv"
)

// Addresses of receivers and Services are on this machine's loopback.
const (
	serviceNetwork = "127.78.0.0/16"
	maxWebhooks    = 5000
)

// auditPolicy has the API server write down what the operator changes. Leases are not counted.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted, Panic]
rules:
- {level: None, resources: [{group: coordination.k8s.io, resources: [leases]}]}
- {level: Metadata, users: [pbxhook-operator], verbs: [create, update, patch, delete, deletecollection]}
- {level: None}
`

// cluster is an API server with the controllers that make pods of Deployments.
type cluster struct {
	environment *envtest.Environment
	client      client.Client
	folder      string
	audit       string
	operator    string // kubeconfig
	manager     *proc.Process
}

func startCluster(ctx context.Context) (c *cluster, err error) {
	folder, err := os.MkdirTemp("", "pbxhook-bench-")
	if err != nil {
		return nil, fmt.Errorf("make a folder: %w", err)
	}
	c = &cluster{folder: folder, audit: filepath.Join(folder, "audit.log")}
	policy := filepath.Join(folder, "audit.yaml")
	if err := os.WriteFile(policy, []byte(auditPolicy), 0o600); err != nil {
		return nil, fmt.Errorf("write the audit policy: %w", err)
	}
	c.environment = &envtest.Environment{CRDDirectoryPaths: []string{filepath.Join(testenv.Root(), "config", "crd")}, ErrorIfCRDPathMissing: true}
	c.environment.ControlPlane.GetAPIServer().Configure().
		Set("audit-policy-file", policy).Set("audit-log-path", c.audit).Set("audit-log-mode", "blocking-strict").
		Set("service-cluster-ip-range", serviceNetwork)
	config, err := c.environment.Start()
	if err != nil {
		return nil, fmt.Errorf("start the API server: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.stop())
		}
	}()
	fast := rest.CopyConfig(config)
	fast.QPS = -1
	scheme, err := controllers.Scheme()
	if err != nil {
		return nil, err
	}
	if c.client, err = client.New(fast, client.Options{Scheme: scheme}); err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	user, err := testenv.AddOperator(c.environment)
	if err != nil {
		return nil, err
	}
	if c.operator, err = c.kubeconfig("operator", user); err != nil {
		return nil, err
	}
	return c, c.startManager(ctx)
}

// startManager starts the controllers that make ReplicaSets and pods.
func (c *cluster) startManager(ctx context.Context) error {
	user, err := c.environment.AddUser(envtest.User{Name: "controller-manager", Groups: []string{"system:masters"}}, nil)
	if err != nil {
		return fmt.Errorf("add the controller manager's user: %w", err)
	}
	path, err := c.kubeconfig("controller-manager", user)
	if err != nil {
		return err
	}
	address, err := loopback.Find()
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("find a free port: %w", err)
	}
	c.manager, err = proc.Start(ctx, filepath.Join(c.folder, "controller-manager.log"), filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kube-controller-manager"),
		"--kubeconfig="+path, "--controllers=deployment-controller,replicaset-controller", "--leader-elect=false",
		"--kube-api-qps=500", "--kube-api-burst=1000", "--bind-address=127.0.0.1", "--secure-port="+port, "--cert-dir="+c.folder)
	return err
}

func (c *cluster) kubeconfig(name string, user *envtest.AuthenticatedUser) (string, error) {
	data, err := user.KubeConfig()
	if err != nil {
		return "", fmt.Errorf("make the kubeconfig of %s: %w", name, err)
	}
	path := filepath.Join(c.folder, name+".kubeconfig")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return "", fmt.Errorf("write the kubeconfig of %s: %w", name, err)
	}
	return path, nil
}

func (c *cluster) stop() error {
	c.manager.Stop()
	return errors.Join(c.environment.Stop(), os.RemoveAll(c.folder))
}

// childKinds are what the operator makes of a webhook.
var childKinds = []string{"secrets", "persistentvolumeclaims", "services", "deployments", "networkpolicies"}

// count is how many objects of a kind the operator has made.
func (c *cluster) count(ctx context.Context, kind string) int {
	lists := map[string]client.ObjectList{
		"secrets": &corev1.SecretList{}, "persistentvolumeclaims": &corev1.PersistentVolumeClaimList{}, "services": &corev1.ServiceList{},
		"deployments": &appsv1.DeploymentList{}, "networkpolicies": &networkingv1.NetworkPolicyList{},
	}
	list := lists[kind]
	if err := c.client.List(ctx, list, client.MatchingLabels{render.LabelManagedBy: render.ManagedBy}); err != nil {
		return 0
	}
	return meta.LenList(list)
}

// ready is how many webhooks are.
func (c *cluster) ready(ctx context.Context) (n int) {
	list := &v1alpha1.PBXWebhookList{}
	if err := c.client.List(ctx, list); err != nil {
		return 0
	}
	for i := range list.Items {
		if meta.IsStatusConditionTrue(list.Items[i].Status.Conditions, v1alpha1.ConditionReady) {
			n++
		}
	}
	return n
}

// writes are the operator's, since the cluster was started.
type writes struct {
	total, conflicts int
	byKind           map[string]int
}

func (c *cluster) writes() (writes, error) {
	w := writes{byKind: map[string]int{}}
	data, err := os.ReadFile(c.audit)
	if errors.Is(err, os.ErrNotExist) {
		return w, nil
	}
	if err != nil {
		return w, fmt.Errorf("read the audit log: %w", err)
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var event struct {
			Verb           string
			ObjectRef      struct{ Resource, Subresource string }
			ResponseStatus struct{ Code int }
		}
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			return w, fmt.Errorf("read the audit log: %w", err)
		}
		w.total++
		w.byKind[strings.TrimSuffix(event.Verb+" "+event.ObjectRef.Resource+"/"+event.ObjectRef.Subresource, "/")]++
		if event.ResponseStatus.Code == http.StatusConflict {
			w.conflicts++
		}
	}
	return w, lines.Err()
}

// writesUntilQuiet waits until the operator has looked at so many webhooks, and has written nothing for a
// while.
func (c *cluster) writesUntilQuiet(ctx context.Context, o *operatorProcess, looked int) (writes, error) {
	const still = 10 * time.Second
	var last writes
	since := time.Now()
	err := until(ctx, func() (bool, error) {
		now, err := c.writes()
		if err != nil {
			return false, err
		}
		if now.total != last.total || o.reconciles() < looked {
			since = time.Now()
		}
		last = now
		return time.Since(since) > still, nil
	})
	return last, err
}

// operatorProcess is the operator under test, as it runs in a pod but for its Lease.
type operatorProcess struct {
	*proc.Process
	metrics string
}

func (c *cluster) startOperator(ctx context.Context, program string) (*operatorProcess, error) {
	metrics, err := loopback.Find()
	if err != nil {
		return nil, err
	}
	p, err := proc.Start(ctx, filepath.Join(c.folder, "operator.log"), program,
		"--kubeconfig="+c.operator, "--receiver-image=pbxhook:bench", "--metrics-bind-address="+metrics, "--metrics-secure=false", "--health-probe-bind-address=0")
	if err != nil {
		return nil, err
	}
	o := &operatorProcess{Process: p, metrics: metrics}
	return o, until(ctx, func() (bool, error) {
		select {
		case <-p.Done():
			log, _ := os.ReadFile(p.Log)
			return false, fmt.Errorf("the operator ended: %s", log)
		default:
		}
		_, err := o.metric("workqueue_depth")
		return err == nil, nil
	})
}

// reconciles is how many passes the operator has made.
func (o *operatorProcess) reconciles() int {
	n, err := o.metric("controller_runtime_reconcile_total")
	if err != nil {
		return 0
	}
	return n
}

// metric is the sum of a metric's values.
func (o *operatorProcess) metric(name string) (sum int, err error) {
	response, err := http.Get("http://" + o.metrics + "/metrics")
	if err != nil {
		return 0, err
	}
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(response.Body, 8<<20))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) == 2 && strings.HasPrefix(line, name) {
			value, err := strconv.ParseFloat(fields[1], 64)
			if err != nil {
				return 0, err
			}
			sum += int(value)
		}
	}
	return sum, nil
}

// peakMiB is the most memory that the operator held at a time.
func (o *operatorProcess) peakMiB() float64 { return o.MiB("VmHWM") }
