package controllers_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	kstatus "sigs.k8s.io/cli-utils/pkg/kstatus/status"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/pbxhook/pbxhook/api/statusz"
	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/controllers"
	"github.com/pbxhook/pbxhook/controllers/render"
	"github.com/pbxhook/pbxhook/test/testenv"
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	testenv.Main(m)
}

const patience = time.Minute

// world is a namespace with an operator at work in it, and this test as everything else: the user,
// the kubelet, and the receivers.
type world struct {
	t         *testing.T
	client    client.Client
	namespace string

	apis       controllers.APIs
	rollingOut atomic.Bool // Deployments stay as they are

	noPolling bool
	image     string // of the receivers, for the next operator
	selector  labels.Selector

	mu        sync.Mutex
	later     time.Duration // how far the operator's clock is ahead
	writes    []string      // mutating requests of the operator
	used      map[string]bool
	following string            // the webhook whose configuration receivers take at once
	byIP      map[string]string // the webhooks of pods with an address of their own, which take each configuration at once
	report    *statusz.Report
	dropped   []string // journals in NATS, by their configuration
	dropErr   error
	askErr    error
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, used: map[string]bool{}}
	var err error
	w.client, err = client.New(testenv.Config, client.Options{Scheme: scheme(t)})
	require.NoError(t, err)
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}
	require.NoError(t, w.client.Create(t.Context(), namespace))
	w.namespace = namespace.Name
	w.deploymentController()
	return w
}

// withOperator is a world with an operator at work and the PBX's Secret there.
func withOperator(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.secret("pbx", map[string]string{"token": "t"})
	w.operator()
	return w
}

func scheme(t *testing.T) *runtime.Scheme {
	t.Helper()
	s, err := controllers.Scheme()
	require.NoError(t, err)
	return s
}

// deploymentController says of every Deployment that its last template is rolled out, as the real one
// does a moment later.
func (w *world) deploymentController() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	w.t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			time.Sleep(50 * time.Millisecond)
			list := &appsv1.DeploymentList{}
			if w.client.List(ctx, list, client.InNamespace(w.namespace)) != nil || w.rollingOut.Load() {
				continue
			}
			for i := range list.Items {
				d := &list.Items[i]
				if d.Status.ObservedGeneration != d.Generation {
					d.Status.ObservedGeneration, d.Status.Replicas, d.Status.UpdatedReplicas = d.Generation, *d.Spec.Replicas, *d.Spec.Replicas
					_ = w.client.Status().Update(ctx, d) // a conflict comes again
				}
			}
		}
	}()
}

// operator starts one; stop ends it, as a restart would. Its mutating requests are counted on the
// wire, status and events included.
func (w *world) operator() (stop func()) {
	w.t.Helper()
	restConfig := rest.CopyConfig(testenv.Operator)
	restConfig.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			w.mu.Lock()
			w.used[right(r)] = true
			if r.Method != http.MethodGet {
				w.writes = append(w.writes, r.Method+" "+r.URL.Path)
			}
			w.mu.Unlock()
			return next.RoundTrip(r)
		})
	})
	mgr, err := ctrl.NewManager(restConfig, ctrl.Options{
		Scheme: scheme(w.t), Cache: controllers.CacheOptions(w.apis, w.namespace), Metrics: server.Options{BindAddress: "0"},
		Controller: config.Controller{SkipNameValidation: ptr.To(true)},
	})
	require.NoError(w.t, err)
	reconciler := &controllers.Reconciler{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Events: mgr.GetEventRecorder("pbxhook"),
		Receiver: render.Receiver{Image: cmp.Or(w.image, "pbxhook:test")}, Askers: []string{"pbxhook-system", "monitoring"}, APIs: w.apis,
		Reach: func(context.Context, string) error { return nil },
		Ask:   w.ask, Now: w.now, DropJournal: w.drop, Namespaces: w.selector,
	}
	if w.noPolling {
		reconciler.Ask, reconciler.Reach = nil, nil
	}
	require.NoError(w.t, reconciler.SetupWithManager(mgr))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := mgr.Start(ctx); err != nil {
			w.t.Errorf("the operator ended: %v", err)
		}
	}()
	var once sync.Once
	stop = func() { once.Do(func() { cancel(); <-done }) }
	w.t.Cleanup(stop)
	return stop
}

// drop is a NATS from which journals are deleted.
func (w *world) drop(_ context.Context, manifest []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dropped = append(w.dropped, string(manifest))
	return w.dropErr
}

// ask is a receiver that says what the test wants it to say.
func (w *world) ask(ctx context.Context, ip string) (*statusz.Report, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if webhook := w.byIP[ip]; webhook != "" {
		secret := &corev1.Secret{}
		if err := w.client.Get(ctx, client.ObjectKey{Namespace: w.namespace, Name: render.Name(webhook)}, secret); err != nil {
			return nil, err
		}
		return &statusz.Report{ConfigHash: render.Hash(secret.Data[render.ManifestKey]), Webhooks: []statusz.Webhook{{}}}, nil
	}
	if w.following != "" {
		secret := &corev1.Secret{}
		if err := w.client.Get(ctx, client.ObjectKey{Namespace: w.namespace, Name: render.Name(w.following)}, secret); err != nil {
			return nil, err
		}
		w.report.ConfigHash = render.Hash(secret.Data[render.ManifestKey])
	}
	if w.report == nil && w.askErr == nil {
		return nil, errors.New("not set up")
	}
	return w.report, w.askErr
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.later)
}

// advance has time pass for the operator.
func (w *world) advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.later += d
}

// follow has receivers take every configuration at once.
func (w *world) follow(webhook string) {
	w.answer("", nil)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.following = webhook
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// written returns the operator's writes since the last call.
func (w *world) written() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	writes := w.writes
	w.writes = nil
	return writes
}

// quiet waits until the operator has written nothing for a while.
func (w *world) quiet() {
	w.t.Helper()
	w.mu.Lock()
	last := len(w.writes)
	w.mu.Unlock()
	for still := 0; still < 15; still++ {
		time.Sleep(100 * time.Millisecond)
		w.mu.Lock()
		if len(w.writes) != last {
			last, still = len(w.writes), 0
		}
		w.mu.Unlock()
	}
}

func (w *world) webhook(name string, change func(*v1alpha1.PBXWebhook)) *v1alpha1.PBXWebhook {
	w.t.Helper()
	webhook := &v1alpha1.PBXWebhook{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name},
		Spec: v1alpha1.PBXWebhookSpec{
			Provider:    v1alpha1.Simotel,
			Credentials: v1alpha1.Credentials{SecretRef: &v1alpha1.SecretReference{Name: "pbx"}},
			Targets:     []v1alpha1.Target{{Name: "crm", URL: "http://crm.example.com/hooks"}},
		},
	}
	if change != nil {
		change(webhook)
	}
	require.NoError(w.t, w.client.Create(w.t.Context(), webhook))
	return webhook
}

func (w *world) secret(name string, data map[string]string) *corev1.Secret {
	w.t.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}, StringData: data}
	require.NoError(w.t, w.client.Create(w.t.Context(), secret))
	return secret
}

// replaceSpec edits an object as it was read, whoever wrote something else of it in the meantime.
func (w *world) replaceSpec(o client.Object) {
	w.t.Helper()
	require.NoError(w.t, w.client.Patch(w.t.Context(), o, w.replacing(o, "spec")))
}

// replaceStatus does what controllers of the cluster do, likewise.
func (w *world) replaceStatus(o client.Object) {
	w.t.Helper()
	require.NoError(w.t, w.client.Status().Patch(w.t.Context(), o, w.replacing(o, "status")))
}

func (w *world) replacing(o client.Object, part string) client.Patch {
	w.t.Helper()
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	require.NoError(w.t, err)
	patch, err := json.Marshal([]map[string]any{{"op": "add", "path": "/" + part, "value": object[part]}})
	require.NoError(w.t, err)
	return client.RawPatch(types.JSONPatchType, patch)
}

// pod is the kubelet: it makes a receiver pod that is, or is not, ready.
func (w *world) pod(webhook string, status corev1.PodStatus) *corev1.Pod {
	w.t.Helper()
	deployment := &appsv1.Deployment{}
	w.get(deployment, webhook+"-receiver")
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, GenerateName: webhook + "-", Labels: deployment.Spec.Template.Labels},
		Spec:       *deployment.Spec.Template.Spec.DeepCopy(),
	}
	require.NoError(w.t, w.client.Create(w.t.Context(), pod))
	pod.Status = status
	w.replaceStatus(pod)
	return pod
}

func ready(is bool) corev1.PodStatus {
	status := corev1.ConditionFalse
	if is {
		status = corev1.ConditionTrue
	}
	return corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.0.0.7", HostIP: "192.0.2.1", Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: status}}}
}

// answer is what receivers say from now on.
func (w *world) answer(hash string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.report, w.askErr, w.following = nil, err, ""
	if err == nil {
		w.report = &statusz.Report{ConfigHash: hash, Webhooks: []statusz.Webhook{{
			Targets: []v1alpha1.TargetStatus{{Name: "crm", Healthy: true}},
		}}}
	}
}

func (w *world) get(o client.Object, name string) {
	w.t.Helper()
	require.NoError(w.t, w.client.Get(w.t.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, o))
}

// hash is that of the configuration which the operator wrote.
func (w *world) hash(webhook string) string {
	secret := &corev1.Secret{}
	w.get(secret, webhook+"-receiver")
	return render.Hash(secret.Data[render.ManifestKey])
}

// eventually waits for a condition of a webhook; an empty status means that it is absent.
func (w *world) eventually(webhook, kind string, status metav1.ConditionStatus, reason string) *v1alpha1.PBXWebhook {
	w.t.Helper()
	got := &v1alpha1.PBXWebhook{}
	require.Eventually(w.t, func() bool {
		w.get(got, webhook)
		c := meta.FindStatusCondition(got.Status.Conditions, kind)
		if status == "" {
			return c == nil && got.Status.ObservedGeneration == got.Generation
		}
		return c != nil && c.Status == status && c.Reason == reason && c.ObservedGeneration == got.Generation
	}, patience, 50*time.Millisecond, "%s should be %s %s", kind, status, reason)
	w.judge(got)
	return got
}

// judge has kstatus, by which Flux, Argo CD and kubectl tell how an object fares, tell the same of a
// webhook as its conditions do.
func (w *world) judge(webhook *v1alpha1.PBXWebhook) {
	w.t.Helper()
	is := func(kind string) bool { return meta.IsStatusConditionTrue(webhook.Status.Conditions, kind) }
	want := kstatus.InProgressStatus
	switch {
	case is(v1alpha1.ConditionStalled):
		want = kstatus.FailedStatus
	case is(v1alpha1.ConditionDisabled), is(v1alpha1.ConditionReady):
		want = kstatus.CurrentStatus
	}
	require.Equal(w.t, want, kstatusOf(w.t, webhook), "%v", webhook.Status.Conditions)
}

func kstatusOf(t *testing.T, webhook *v1alpha1.PBXWebhook) kstatus.Status {
	t.Helper()
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(webhook)
	require.NoError(t, err)
	result, err := kstatus.Compute(&unstructured.Unstructured{Object: object})
	require.NoError(t, err)
	return result.Status
}

// healthy brings a webhook to Ready.
func (w *world) healthy(name string) *corev1.Pod {
	w.t.Helper()
	w.eventually(name, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonProgressing)
	w.answer(w.hash(name), nil)
	pod := w.pod(name, ready(true))
	w.eventually(name, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)
	return pod
}

func TestFromNewToReady(t *testing.T) {
	w := newWorld(t)
	w.secret("pbx", map[string]string{"username": "u", "password": "p"})
	stop := w.operator()
	w.webhook("callcenter", nil)
	got := w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonProgressing)
	require.True(t, meta.IsStatusConditionTrue(got.Status.Conditions, v1alpha1.ConditionReconciling))
	require.True(t, meta.IsStatusConditionTrue(got.Status.Conditions, v1alpha1.ConditionCredentialsResolved))
	require.True(t, meta.IsStatusConditionTrue(got.Status.Conditions, v1alpha1.ConditionJournalDurable))
	require.Equal(t, "http://callcenter-receiver."+w.namespace+".svc/hooks/"+w.namespace+"/callcenter", got.Status.Address.URL)

	w.quiet()
	require.Len(t, w.written(), 5+1, "five children and one status")

	pod := w.pod("callcenter", ready(false))
	w.quiet()
	require.Empty(t, w.written(), "a pod that is not ready is no news")

	w.answer(w.hash("callcenter"), nil)
	pod.Status = ready(true)
	w.replaceStatus(pod)
	got = w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)
	require.Nil(t, meta.FindStatusCondition(got.Status.Conditions, v1alpha1.ConditionReconciling))
	w.quiet()
	require.Len(t, w.written(), 1, "one more status")

	t.Run("nothing is written when nothing changed", func(t *testing.T) {
		secret := &corev1.Secret{}
		w.get(secret, "pbx")
		secret.Annotations = map[string]string{"touched": "yes"}
		require.NoError(t, w.client.Update(t.Context(), secret))
		w.quiet()
		require.Empty(t, w.written())
	})
	t.Run("nor after a restart", func(t *testing.T) {
		stop()
		w.operator()
		w.quiet()
		require.Empty(t, w.written())
	})
	t.Run("what somebody adds is taken out, and what is deleted comes back", func(t *testing.T) {
		defer w.quiet()
		service := &corev1.Service{}
		w.get(service, "callcenter-receiver")
		service.Spec.Ports[0].Port = 81
		w.replaceSpec(service)
		deployment := &appsv1.Deployment{}
		w.get(deployment, "callcenter-receiver")
		deployment.Spec.Template.Spec.Containers[0].Image = "evil:latest"
		deployment.Spec.Template.Spec.Containers = append(deployment.Spec.Template.Spec.Containers, corev1.Container{Name: "sidecar", Image: "evil:latest"})
		w.replaceSpec(deployment)
		require.Eventually(t, func() bool {
			w.get(service, "callcenter-receiver")
			w.get(deployment, "callcenter-receiver")
			return service.Spec.Ports[0].Port == 80 && len(deployment.Spec.Template.Spec.Containers) == 1 &&
				deployment.Spec.Template.Spec.Containers[0].Image == "pbxhook:test"
		}, patience, 50*time.Millisecond)

		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "callcenter-receiver"}}
		uid := service.UID
		require.NoError(t, w.client.Delete(t.Context(), service))
		require.NoError(t, w.client.Delete(t.Context(), secret))
		require.Eventually(t, func() bool {
			key := client.ObjectKey{Namespace: w.namespace, Name: "callcenter-receiver"}
			return w.client.Get(t.Context(), key, service) == nil && service.UID != uid && w.client.Get(t.Context(), key, secret) == nil
		}, patience, 50*time.Millisecond)
	})
}

func TestReadyIsHonest(t *testing.T) {
	w := withOperator(t)
	w.webhook("callcenter", nil)
	pod := w.healthy("callcenter")
	hash := w.hash("callcenter")

	w.answer("another", nil)
	w.touch(pod)
	w.quiet() // a rotated Secret is on its way: that is no news
	w.advance(time.Minute)
	got := w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonConfigurationPending)
	require.True(t, meta.IsStatusConditionTrue(got.Status.Conditions, v1alpha1.ConditionReconciling))
	w.get(pod, pod.Name)
	require.Equal(t, hash, pod.Annotations[render.AnnotationConfig], "the kubelet is told")

	w.answer("", errors.New("no route"))
	w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionUnknown, v1alpha1.ReasonReceiversUnreachable)
	w.answer(hash, nil)
	w.touch(pod)
	w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)

	require.NoError(t, w.client.Delete(t.Context(), pod, client.GracePeriodSeconds(0)))
	w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonProgressing)
}

// touch makes the operator look again.
func (w *world) touch(pod *corev1.Pod) {
	w.t.Helper()
	w.get(pod, pod.Name)
	before := pod.DeepCopy()
	pod.Labels["touched"] = fmt.Sprint(time.Now().UnixNano())
	require.NoError(w.t, w.client.Patch(w.t.Context(), pod, client.MergeFrom(before)))
}

func TestWhyNoReceiverIsAvailable(t *testing.T) {
	waiting := func(reason string) corev1.PodStatus {
		return corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{{
			Name: "receiver", Image: "pbxhook:test", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}},
		}}}
	}
	for name, tc := range map[string]struct {
		status corev1.PodStatus
		want   string
	}{
		"image":      {waiting("ImagePullBackOff"), v1alpha1.ReasonImagePullFailed},
		"never":      {waiting("ErrImageNeverPull"), v1alpha1.ReasonImagePullFailed},
		"crash":      {waiting("CrashLoopBackOff"), v1alpha1.ReasonCrashLoop},
		"container":  {waiting("CreateContainerConfigError"), v1alpha1.ReasonContainerConfigError},
		"scheduling": {corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "0/1 nodes"}}}, v1alpha1.ReasonUnschedulable},
	} {
		t.Run(name, func(t *testing.T) {
			w := withOperator(t)
			w.webhook("callcenter", nil)
			w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonProgressing)
			w.pod("callcenter", tc.status)
			w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionFalse, tc.want)
		})
	}
}

func TestCredentials(t *testing.T) {
	w := newWorld(t)
	w.operator()
	w.webhook("callcenter", nil)
	got := w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonSecretNotFound)
	require.Contains(t, meta.FindStatusCondition(got.Status.Conditions, v1alpha1.ConditionReady).Message, "Secret pbx does not exist")
	require.Nil(t, meta.FindStatusCondition(got.Status.Conditions, v1alpha1.ConditionStalled), "it heals by itself")

	secret := w.secret("pbx", map[string]string{"username": "u"})
	w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonKeyNotFound)
	secret.StringData = map[string]string{"password": "first"}
	require.NoError(t, w.client.Update(t.Context(), secret))
	w.eventually("callcenter", v1alpha1.ConditionCredentialsResolved, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)
	require.Contains(t, w.values("callcenter"), "first")
	got = w.eventually("callcenter", v1alpha1.ConditionCredentialsResolved, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)
	require.Contains(t, meta.FindStatusCondition(got.Status.Conditions, v1alpha1.ConditionCredentialsResolved).Message, "password: shorter than 12 characters")
	w.get(secret, "pbx")
	secret.StringData = map[string]string{"password": "twelve chars"}
	require.NoError(t, w.client.Update(t.Context(), secret))
	require.Eventually(t, func() bool {
		got = w.eventually("callcenter", v1alpha1.ConditionCredentialsResolved, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)
		return meta.FindStatusCondition(got.Status.Conditions, v1alpha1.ConditionCredentialsResolved).Message == "the PBX's credentials are known"
	}, patience, 50*time.Millisecond)

	pod := w.healthy("callcenter")
	w.get(secret, "pbx")
	secret.StringData = map[string]string{"password": "second"}
	require.NoError(t, w.client.Update(t.Context(), secret))
	require.Eventually(t, func() bool { return strings.Contains(w.values("callcenter"), "second") }, patience, 50*time.Millisecond)
	require.Eventually(t, func() bool {
		w.get(pod, pod.Name)
		return pod.Annotations[render.AnnotationConfig] == w.hash("callcenter")
	}, patience, 50*time.Millisecond, "running receivers are told")

	require.NoError(t, w.client.Delete(t.Context(), secret))
	got = w.eventually("callcenter", v1alpha1.ConditionCredentialsResolved, metav1.ConditionFalse, v1alpha1.ReasonSecretNotFound)
	require.Contains(t, meta.FindStatusCondition(got.Status.Conditions, v1alpha1.ConditionCredentialsResolved).Message, "last good credentials stay in force")
	require.Contains(t, w.values("callcenter"), "second", "the last good credentials stay")
	for _, c := range got.Status.Conditions {
		require.NotContains(t, c.Message, "second")
	}
}

// values are those of the receiver's configuration, as text.
func (w *world) values(webhook string) string {
	secret := &corev1.Secret{}
	w.get(secret, webhook+"-receiver")
	values, err := render.ReadValues(secret.Data[render.ManifestKey])
	require.NoError(w.t, err)
	var all []string
	for _, data := range values {
		for _, value := range data {
			all = append(all, string(value))
		}
	}
	return strings.Join(all, " ")
}

func TestForeignObjectsAreRefused(t *testing.T) {
	for _, object := range []client.Object{
		&corev1.Service{Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 1}}}},
		&corev1.Secret{StringData: map[string]string{"a": "b"}},
	} {
		t.Run(fmt.Sprintf("%T", object), func(t *testing.T) {
			w := newWorld(t)
			w.secret("pbx", map[string]string{"token": "t"})
			object.SetNamespace(w.namespace)
			object.SetName("callcenter-receiver")
			require.NoError(t, w.client.Create(t.Context(), object))
			version := object.GetResourceVersion()
			w.operator()
			w.webhook("callcenter", nil)
			got := w.eventually("callcenter", v1alpha1.ConditionStalled, metav1.ConditionTrue, v1alpha1.ReasonForeignObject)
			require.False(t, meta.IsStatusConditionTrue(got.Status.Conditions, v1alpha1.ConditionReady))
			w.get(object, "callcenter-receiver")
			require.Equal(t, version, object.GetResourceVersion(), "it was not touched")
		})
	}
}

// TestDrift: every child that is edited or deleted by hand is what it should be a moment later.
func TestDrift(t *testing.T) {
	w := withOperator(t)
	w.webhook("callcenter", func(p *v1alpha1.PBXWebhook) {
		p.Spec.Expose = &v1alpha1.Expose{Ingress: &v1alpha1.ExposeIngress{Host: "pbx.example.com", Annotations: map[string]v1alpha1.AnnotationValue{"a": "b"}}}
	})
	w.healthy("callcenter")
	key := client.ObjectKey{Namespace: w.namespace, Name: "callcenter-receiver"}
	for kind, tc := range map[string]struct {
		object client.Object
		patch  string
		whole  func(o client.Object) bool
	}{
		"Secret": {&corev1.Secret{}, `{"data":{"manifest.yaml":"eA=="}}`, func(o client.Object) bool {
			return len(o.(*corev1.Secret).Data[render.ManifestKey]) > 100
		}},
		"label": {&corev1.Secret{}, `{"metadata":{"labels":{"pbxhook.io/webhook":"another"}}}`, func(o client.Object) bool {
			return o.GetLabels()[render.LabelWebhook] == "callcenter"
		}},
		"Service": {&corev1.Service{}, `{"spec":{"selector":{"pbxhook.io/webhook":"another"}}}`, func(o client.Object) bool {
			return o.(*corev1.Service).Spec.Selector[render.LabelWebhook] == "callcenter"
		}},
		"Deployment": {&appsv1.Deployment{}, `{"spec":{"replicas":3,"template":{"spec":{"automountServiceAccountToken":true}}}}`, func(o client.Object) bool {
			d := o.(*appsv1.Deployment)
			return *d.Spec.Replicas == 1 && !*d.Spec.Template.Spec.AutomountServiceAccountToken
		}},
		"NetworkPolicy": {&networkingv1.NetworkPolicy{}, `{"spec":{"ingress":[{}]}}`, func(o client.Object) bool {
			rules := o.(*networkingv1.NetworkPolicy).Spec.Ingress
			return len(rules) == 2 && len(rules[0].Ports) == 1
		}},
		"Ingress": {&networkingv1.Ingress{}, `{"metadata":{"annotations":{"a":"c"}},"spec":{"rules":[{"host":"evil.example.com"}]}}`, func(o client.Object) bool {
			return o.GetAnnotations()["a"] == "b" && o.(*networkingv1.Ingress).Spec.Rules[0].Host == "pbx.example.com"
		}},
		"Ingress of two rules": {&networkingv1.Ingress{}, `{"spec":{"tls":[{"hosts":["pbx.example.com"]}],"rules":[{"host":"pbx.example.com"},{"host":"evil.example.com"}]}}`, func(o client.Object) bool {
			return len(o.(*networkingv1.Ingress).Spec.Rules) == 1
		}},
	} {
		t.Run(kind+" edited", func(t *testing.T) {
			require.NoError(t, w.client.Get(t.Context(), key, tc.object))
			require.NoError(t, w.client.Patch(t.Context(), tc.object, client.RawPatch(types.MergePatchType, []byte(tc.patch)), client.FieldOwner("somebody")))
			require.Eventually(t, func() bool {
				return w.client.Get(t.Context(), key, tc.object) == nil && tc.whole(tc.object)
			}, patience, 50*time.Millisecond)
		})
		t.Run(kind+" deleted", func(t *testing.T) {
			require.NoError(t, w.client.Get(t.Context(), key, tc.object))
			uid := tc.object.GetUID()
			require.NoError(t, w.client.Delete(t.Context(), tc.object))
			require.Eventually(t, func() bool {
				return w.client.Get(t.Context(), key, tc.object) == nil && tc.object.GetUID() != uid && tc.whole(tc.object)
			}, patience, 50*time.Millisecond)
		})
	}
	w.quiet()
	w.written()
	w.quiet()
	require.Empty(t, w.written(), "then there is peace")
}

// TestRollout: while a receiver of an earlier template is still there, it is about to go.
func TestRollout(t *testing.T) {
	w := withOperator(t)
	webhook := w.webhook("callcenter", nil)
	w.healthy("callcenter")
	w.follow("callcenter")
	w.rollingOut.Store(true)
	w.get(webhook, "callcenter")
	webhook.Spec.Receiver.Pod = &v1alpha1.Pod{Annotations: map[string]v1alpha1.AnnotationValue{"a": "b"}}
	w.replaceSpec(webhook)
	got := w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonProgressing)
	require.Contains(t, meta.FindStatusCondition(got.Status.Conditions, v1alpha1.ConditionReady).Message, "of this generation is being started")

	deployment := &appsv1.Deployment{}
	w.get(deployment, "callcenter-receiver")
	deployment.Status.ObservedGeneration, deployment.Status.Replicas, deployment.Status.UpdatedReplicas = deployment.Generation, 2, 1
	w.replaceStatus(deployment)
	w.quiet()
	w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonProgressing)
	w.rollingOut.Store(false)
	w.get(deployment, "callcenter-receiver")
	deployment.Status.Replicas = 1
	w.replaceStatus(deployment)
	w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)
}

// TestNewWebhookIsNotCurrent: before the operator has seen it, nobody may take it for ready.
func TestNewWebhookIsNotCurrent(t *testing.T) {
	w := newWorld(t)
	webhook := w.webhook("callcenter", nil)
	require.Equal(t, int64(-1), webhook.Status.ObservedGeneration)
	require.Equal(t, kstatus.InProgressStatus, kstatusOf(t, webhook))
	w.operator()
	w.secret("pbx", map[string]string{"token": "t"})
	w.healthy("callcenter")
	w.get(webhook, "callcenter")
	require.Equal(t, kstatus.CurrentStatus, kstatusOf(t, webhook))
	webhook.Generation++ // as in the moment after an edit
	require.Equal(t, kstatus.InProgressStatus, kstatusOf(t, webhook))
}

// TestDisabledOnEmptyDirDrainsFirst: what lies in the emptyDir would go with the pod.
func TestDisabledOnEmptyDirDrainsFirst(t *testing.T) {
	w := newWorld(t)
	w.secret("pbx", map[string]string{"token": "t"})
	stop := w.operator()
	webhook := w.webhook("callcenter", func(p *v1alpha1.PBXWebhook) {
		p.Spec.Journal = v1alpha1.Journal{Embedded: &v1alpha1.EmbeddedJournal{Storage: v1alpha1.EmbeddedStorage{EmptyDir: &v1alpha1.EmptyDir{}}}}
	})
	pod := w.healthy("callcenter")
	pending := func(n int64) {
		w.follow("callcenter")
		w.mu.Lock()
		w.report.Webhooks[0].Events.Pending = n
		w.mu.Unlock()
	}
	pending(7)
	w.get(webhook, "callcenter")
	webhook.Spec.Enabled = ptr.To(false)
	w.replaceSpec(webhook)
	got := w.eventually("callcenter", v1alpha1.ConditionDisabled, metav1.ConditionTrue, v1alpha1.ReasonDisabled)
	require.Contains(t, meta.FindStatusCondition(got.Status.Conditions, v1alpha1.ConditionDisabled).Message, "has delivered")
	w.quiet()
	deployment := &appsv1.Deployment{}
	w.get(deployment, "callcenter-receiver")
	require.Equal(t, int32(1), *deployment.Spec.Replicas)
	require.Contains(t, w.manifest("callcenter"), "enabled: false", "the receiver takes nothing new")

	stop() // what it knows is all in the cluster
	w.operator()
	w.touch(pod)
	w.quiet()
	w.get(deployment, "callcenter-receiver")
	require.Equal(t, int32(1), *deployment.Spec.Replicas)

	pending(0)
	w.touch(pod)
	require.Eventually(t, func() bool {
		w.get(deployment, "callcenter-receiver")
		return *deployment.Spec.Replicas == 0
	}, patience, 50*time.Millisecond)
	require.Eventually(t, func() bool {
		w.get(got, "callcenter")
		return !strings.Contains(meta.FindStatusCondition(got.Status.Conditions, v1alpha1.ConditionDisabled).Message, "has delivered")
	}, patience, 50*time.Millisecond)
}

// manifest is the receiver's configuration as written.
func (w *world) manifest(webhook string) string {
	secret := &corev1.Secret{}
	w.get(secret, webhook+"-receiver")
	return string(secret.Data[render.ManifestKey])
}

// TestEventsAreAboutTransitions: one when it gets worse, one when it is well again, none in between, and
// none for a webhook that comes up.
func TestEventsAreAboutTransitions(t *testing.T) {
	w := newWorld(t)
	secret := w.secret("pbx", map[string]string{"token": "s3cret"})
	w.operator()
	w.webhook("callcenter", nil)
	pod := w.healthy("callcenter")
	w.follow("callcenter")
	events := func() (said []string) {
		list := &eventsv1.EventList{}
		require.NoError(t, w.client.List(t.Context(), list, client.InNamespace(w.namespace)))
		for i := range list.Items {
			require.NotContains(t, list.Items[i].Note, "s3cret")
			if list.Items[i].Regarding.Kind != v1alpha1.Kind { // the API server's own
				continue
			}
			said = append(said, list.Items[i].Type+" "+list.Items[i].Reason)
		}
		return said
	}
	w.quiet()
	require.Empty(t, events())
	require.NoError(t, w.client.Delete(t.Context(), secret))
	w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonSecretNotFound)
	for range 3 {
		w.touch(pod)
		w.quiet()
	}
	require.Equal(t, []string{"Warning SecretNotFound"}, events())
	w.secret("pbx", map[string]string{"token": "s3cret"})
	w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)
	require.Eventually(t, func() bool { return slices.Contains(events(), "Normal Ready") }, patience, 50*time.Millisecond)

	w.mu.Lock()
	w.report.Webhooks[0].Targets[0] = v1alpha1.TargetStatus{Name: "crm", LastError: "508 from the target: its URL leads back to pbxhook", Pending: 3}
	w.mu.Unlock()
	w.touch(pod)
	got := w.eventually("callcenter", v1alpha1.ConditionTargetsHealthy, metav1.ConditionFalse, v1alpha1.ReasonTargetsFailing)
	require.True(t, meta.IsStatusConditionTrue(got.Status.Conditions, v1alpha1.ConditionReady), "targets do not count")
	require.Contains(t, meta.FindStatusCondition(got.Status.Conditions, v1alpha1.ConditionTargetsHealthy).Message, "crm: 508 from the target: its URL leads back", "a loop is named")
	require.Eventually(t, func() bool { return slices.Contains(events(), "Warning TargetsFailing") }, patience, 50*time.Millisecond)
}

// TestCountsAreWrittenNowAndThen: the first event is news, those that follow are counts.
func TestCountsAreWrittenNowAndThen(t *testing.T) {
	w := withOperator(t)
	w.webhook("callcenter", nil)
	pod := w.healthy("callcenter")
	w.follow("callcenter")
	count := func(n int64) {
		w.mu.Lock()
		w.report.Webhooks[0].Events = v1alpha1.EventsStatus{Received: n, LastReceivedTime: &metav1.Time{Time: time.Now()}}
		w.mu.Unlock()
		w.touch(pod)
		w.quiet()
	}
	count(1)
	got := &v1alpha1.PBXWebhook{}
	w.get(got, "callcenter")
	require.EqualValues(t, 1, got.Status.Events.Received)
	w.written()
	for n := range int64(3) {
		count(2 + n)
	}
	require.Empty(t, w.written())
	w.advance(7 * time.Minute) // five, and up to one more
	count(9)
	w.get(got, "callcenter")
	require.EqualValues(t, 9, got.Status.Events.Received)
	require.Len(t, w.written(), 1)
}

// TestNothingSecretIsCached: kubectl apply writes a whole Secret into an annotation.
func TestNothingSecretIsCached(t *testing.T) {
	for object, options := range controllers.CacheOptions(controllers.APIs{}).ByObject {
		if _, secret := object.(*corev1.Secret); !secret {
			continue
		}
		kept, err := options.Transform(&metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
			Name: "pbx", ResourceVersion: "7", Labels: map[string]string{"a": "b"}, ManagedFields: []metav1.ManagedFieldsEntry{{}},
			Annotations: map[string]string{corev1.LastAppliedConfigAnnotation: "s3cret"},
		}})
		require.NoError(t, err)
		require.Equal(t, &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: "pbx", ResourceVersion: "7", Labels: map[string]string{"a": "b"}}}, kept)
		return
	}
	require.Fail(t, "Secrets are not trimmed")
}

// TestNoFinalizer: nothing outside the cluster is to be cleaned up, and a namespace can go at any time.
func TestNoFinalizer(t *testing.T) {
	w := withOperator(t)
	webhook := w.webhook("callcenter", nil)
	w.healthy("callcenter")
	w.get(webhook, "callcenter")
	require.Empty(t, webhook.Finalizers)
	for _, object := range []client.Object{&corev1.Secret{}, &corev1.Service{}, &appsv1.Deployment{}, &networkingv1.NetworkPolicy{}} {
		w.get(object, "callcenter-receiver")
		require.True(t, metav1.IsControlledBy(object, webhook), "%T", object)
	}
}

// TestJudgedByTheAPIServerAlone: an operator that cannot reach pods says so, and goes by the Deployment.
func TestJudgedByTheAPIServerAlone(t *testing.T) {
	w := newWorld(t)
	w.noPolling = true
	w.secret("pbx", map[string]string{"token": "t"})
	w.operator()
	w.webhook("callcenter", nil)
	w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonProgressing)
	w.rollingOut.Store(true)
	deployment := &appsv1.Deployment{}
	w.get(deployment, "callcenter-receiver")
	deployment.Status = appsv1.DeploymentStatus{ObservedGeneration: deployment.Generation, Replicas: 1, UpdatedReplicas: 1, ReadyReplicas: 1, AvailableReplicas: 1}
	w.replaceStatus(deployment)
	got := w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)
	require.Contains(t, meta.FindStatusCondition(got.Status.Conditions, v1alpha1.ConditionReady).Message, "--poll-receivers=false")
	require.Equal(t, v1alpha1.ReasonNotPolled, meta.FindStatusCondition(got.Status.Conditions, v1alpha1.ConditionConfigurationApplied).Reason)
	require.EqualValues(t, 1, got.Status.Receiver.ReadyReplicas)
}

// TestScale: an HPA, KEDA and `kubectl scale` find what they need; an embedded journal has one writer.
func TestScale(t *testing.T) {
	w := withOperator(t)
	webhook := w.webhook("callcenter", nil)
	w.healthy("callcenter")
	require.Eventually(t, func() bool {
		scale := &autoscalingv1.Scale{}
		require.NoError(t, w.client.SubResource("scale").Get(t.Context(), webhook, scale))
		return scale.Spec.Replicas == 1 && scale.Status.Replicas == 1 && scale.Status.Selector == "app.kubernetes.io/name=pbxhook-receiver,pbxhook.io/webhook=callcenter"
	}, patience, 50*time.Millisecond)
	scale := &autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: 2}}
	err := w.client.SubResource("scale").Update(t.Context(), webhook, client.WithSubResourceBody(scale))
	require.ErrorContains(t, err, "more than one replica needs journal.nats")
}

// TestNATSJournal: whether events are safe is what the receivers say of NATS; what this version does not do is said.
func TestNATSJournal(t *testing.T) {
	w := withOperator(t)
	w.webhook("callcenter", func(webhook *v1alpha1.PBXWebhook) {
		webhook.Spec.Journal = v1alpha1.Journal{NATS: &v1alpha1.NATSJournal{URL: "nats://nats:4222"}, DeletionPolicy: v1alpha1.DeletionDelete}
	})
	w.eventually("callcenter", v1alpha1.ConditionJournalDurable, metav1.ConditionUnknown, v1alpha1.ReasonReceiversUnreachable)
	pod := w.pod("callcenter", ready(true))
	w.answer(w.hash("callcenter"), nil)
	w.mu.Lock()
	w.report.Webhooks[0].JournalProblem = "NATS is not reached"
	w.mu.Unlock()
	got := w.eventually("callcenter", v1alpha1.ConditionJournalDurable, metav1.ConditionFalse, v1alpha1.ReasonJournalUnavailable)
	require.Contains(t, meta.FindStatusCondition(got.Status.Conditions, v1alpha1.ConditionJournalDurable).Message, "NATS is not reached")
	w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonJournalUnavailable)
	w.answer(w.hash("callcenter"), nil)
	w.advance(time.Hour)
	got = w.eventually("callcenter", v1alpha1.ConditionJournalDurable, metav1.ConditionTrue, v1alpha1.ReasonStream)
	require.Contains(t, meta.FindStatusCondition(got.Status.Conditions, v1alpha1.ConditionJournalDurable).Message, "1 of 3 NATS servers")
	claims := &corev1.PersistentVolumeClaimList{}
	require.NoError(t, w.client.List(t.Context(), claims, client.InNamespace(w.namespace)))
	require.Empty(t, claims.Items)

	// its events go with it: not before no receiver is left that would make the streams anew
	webhook := &v1alpha1.PBXWebhook{}
	w.get(webhook, "callcenter")
	require.Equal(t, []string{controllers.Finalizer}, webhook.Finalizers)
	w.mu.Lock()
	w.dropErr = errors.New("NATS is not reached")
	w.mu.Unlock()
	require.NoError(t, w.client.Delete(t.Context(), webhook))
	require.Eventually(t, func() bool {
		deployment := &appsv1.Deployment{}
		w.get(deployment, "callcenter-receiver")
		return *deployment.Spec.Replicas == 0
	}, patience, 50*time.Millisecond)
	w.mu.Lock()
	require.Empty(t, w.dropped)
	w.mu.Unlock()
	require.NoError(t, w.client.Delete(t.Context(), pod, client.GracePeriodSeconds(0)))
	require.Eventually(t, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.dropped) > 0
	}, patience, 50*time.Millisecond)
	w.get(webhook, "callcenter")
	w.mu.Lock()
	require.Contains(t, w.dropped[0], "nats://nats:4222")
	w.dropErr = nil
	w.mu.Unlock()
	require.Eventually(t, func() bool {
		return apierrors.IsNotFound(w.client.Get(t.Context(), client.ObjectKeyFromObject(webhook), webhook))
	}, patience, 50*time.Millisecond)
}

// TestPodMonitor: where Prometheus Operator is installed, receivers are scraped.
func TestPodMonitor(t *testing.T) {
	install(t, filepath.Join("testdata", "podmonitors.yaml"))
	w := newWorld(t)
	w.apis = discover(t)
	require.True(t, w.apis.PodMonitor)
	w.secret("pbx", map[string]string{"token": "t"})
	w.operator()
	w.webhook("callcenter", nil)
	w.healthy("callcenter")
	monitor := &unstructured.Unstructured{}
	monitor.SetGroupVersionKind(render.PodMonitorKind)
	w.get(monitor, "callcenter-receiver")
	uid := monitor.GetUID()
	require.NoError(t, w.client.Delete(t.Context(), monitor))
	require.Eventually(t, func() bool {
		return w.client.Get(t.Context(), client.ObjectKey{Namespace: w.namespace, Name: "callcenter-receiver"}, monitor) == nil && monitor.GetUID() != uid
	}, patience, 50*time.Millisecond)
	w.quiet()
	w.written()
	w.quiet()
	require.Empty(t, w.written())
}

func TestDisabled(t *testing.T) {
	w := withOperator(t)
	webhook := w.webhook("callcenter", nil)
	w.healthy("callcenter")
	w.get(webhook, "callcenter")
	webhook.Spec.Enabled = ptr.To(false)
	w.replaceSpec(webhook)
	got := w.eventually("callcenter", v1alpha1.ConditionDisabled, metav1.ConditionTrue, v1alpha1.ReasonDisabled)
	require.Nil(t, meta.FindStatusCondition(got.Status.Conditions, v1alpha1.ConditionReady))
	require.Nil(t, meta.FindStatusCondition(got.Status.Conditions, v1alpha1.ConditionReconciling))
	require.Equal(t, v1alpha1.ReasonDisabled, meta.FindStatusCondition(got.Status.Conditions, v1alpha1.ConditionReceiverAvailable).Reason)
	deployment := &appsv1.Deployment{}
	w.get(deployment, "callcenter-receiver")
	require.Zero(t, *deployment.Spec.Replicas)
	claim := &corev1.PersistentVolumeClaim{}
	w.get(claim, "callcenter-receiver")
}

func TestWrongTimeZoneStalls(t *testing.T) {
	w := withOperator(t)
	w.webhook("callcenter", func(p *v1alpha1.PBXWebhook) { p.Spec.TimeZone = "Asia/Nowhere" })
	w.eventually("callcenter", v1alpha1.ConditionStalled, metav1.ConditionTrue, v1alpha1.ReasonInvalidSpec)
}

// TestRetainedClaimIsResumed: the claim has no owner, and a webhook made anew takes it.
func TestRetainedClaimIsResumed(t *testing.T) {
	w := withOperator(t)
	webhook := w.webhook("callcenter", nil)
	w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonProgressing)
	claim := &corev1.PersistentVolumeClaim{}
	w.get(claim, "callcenter-receiver")
	require.Empty(t, claim.OwnerReferences)
	uid := claim.UID

	require.NoError(t, w.client.Delete(t.Context(), webhook))
	for _, child := range []client.Object{&corev1.Service{}, &corev1.Secret{}, &appsv1.Deployment{}} { // no garbage collector runs here
		w.get(child, "callcenter-receiver")
		require.NoError(t, w.client.Delete(t.Context(), child))
	}
	w.webhook("callcenter", nil)
	w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonProgressing)
	w.get(claim, "callcenter-receiver")
	require.Equal(t, uid, claim.UID)
}

func TestDeletedClaimGoesWithTheWebhook(t *testing.T) {
	w := withOperator(t)
	w.webhook("callcenter", func(p *v1alpha1.PBXWebhook) {
		p.Spec.Journal = v1alpha1.Journal{Embedded: &v1alpha1.EmbeddedJournal{}, DeletionPolicy: v1alpha1.DeletionDelete}
	})
	w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonProgressing)
	claim := &corev1.PersistentVolumeClaim{}
	w.get(claim, "callcenter-receiver")
	require.Len(t, claim.OwnerReferences, 1)
}

// TestDeletionPolicyChanges: what was to go with the webhook stays, and the other way round.
func TestDeletionPolicyChanges(t *testing.T) {
	w := withOperator(t)
	webhook := w.webhook("callcenter", nil)
	w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonProgressing)
	claim := &corev1.PersistentVolumeClaim{}
	for _, tc := range []struct {
		policy v1alpha1.DeletionPolicy
		owners int
	}{{v1alpha1.DeletionDelete, 1}, {v1alpha1.DeletionRetain, 0}, {v1alpha1.DeletionDelete, 1}} {
		w.get(webhook, "callcenter")
		webhook.Spec.Journal.DeletionPolicy = tc.policy
		w.replaceSpec(webhook)
		require.Eventually(t, func() bool {
			w.get(claim, "callcenter-receiver")
			return len(claim.OwnerReferences) == tc.owners
		}, patience, 50*time.Millisecond, "%s", tc.policy)
	}
}

func TestEmptyDirHasNoClaim(t *testing.T) {
	w := withOperator(t)
	w.webhook("callcenter", func(p *v1alpha1.PBXWebhook) {
		p.Spec.Journal = v1alpha1.Journal{Embedded: &v1alpha1.EmbeddedJournal{Storage: v1alpha1.EmbeddedStorage{EmptyDir: &v1alpha1.EmptyDir{}}}}
	})
	w.eventually("callcenter", v1alpha1.ConditionJournalDurable, metav1.ConditionFalse, v1alpha1.ReasonEmptyDir)
	err := w.client.Get(t.Context(), client.ObjectKey{Namespace: w.namespace, Name: "callcenter-receiver"}, &corev1.PersistentVolumeClaim{})
	require.True(t, apierrors.IsNotFound(err))
}

// TestNamespacesBySelector: a namespace is served when it has the labels, from then on.
func TestNamespacesBySelector(t *testing.T) {
	w := newWorld(t)
	w.selector = labels.SelectorFromSet(labels.Set{"team": "voice"})
	w.secret("pbx", map[string]string{"token": "t"})
	w.operator()
	webhook := w.webhook("callcenter", nil)
	w.quiet()
	require.Empty(t, w.written())
	w.get(webhook, "callcenter")
	require.EqualValues(t, -1, webhook.Status.ObservedGeneration, "it is not seen")
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}}
	require.NoError(t, w.client.Patch(t.Context(), namespace, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"team":"voice"}}}`))))
	w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonProgressing)
}

// TestCredentialsWithWhiteSpace: they are taken as they are, and the condition says so without telling them.
func TestCredentialsWithWhiteSpace(t *testing.T) {
	w := newWorld(t)
	w.secret("pbx", map[string]string{"username": "u", "password": "s3cret\n"})
	w.operator()
	w.webhook("callcenter", nil)
	got := w.eventually("callcenter", v1alpha1.ConditionCredentialsResolved, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)
	message := meta.FindStatusCondition(got.Status.Conditions, v1alpha1.ConditionCredentialsResolved).Message
	require.Contains(t, message, "the key password of Secret pbx begins or ends with white space")
	require.NotContains(t, message, "s3cret")
}

// TestAllTroublesOfTargetsAreNamed: not the first kind alone.
func TestAllTroublesOfTargetsAreNamed(t *testing.T) {
	w := withOperator(t)
	w.webhook("callcenter", func(p *v1alpha1.PBXWebhook) {
		p.Spec.Targets = append(p.Spec.Targets, v1alpha1.Target{Name: "lab", URL: "http://lab.example.com", Auth: &v1alpha1.TargetAuth{Bearer: &v1alpha1.SecretKeySource{SecretKeyRef: v1alpha1.KeyReference{Name: "nowhere", Key: "token"}}}})
	})
	w.healthy("callcenter")
	w.follow("callcenter")
	w.mu.Lock()
	w.report.Webhooks[0].Targets[0] = v1alpha1.TargetStatus{Name: "crm", LastError: "503 from the target", Pending: 3}
	w.mu.Unlock()
	got := &v1alpha1.PBXWebhook{}
	require.Eventually(t, func() bool {
		w.get(got, "callcenter")
		message := meta.FindStatusCondition(got.Status.Conditions, v1alpha1.ConditionTargetsHealthy).Message
		return strings.Contains(message, "nowhere") && strings.Contains(message, "crm: 503 from the target") && got.Status.Targets[0].UnhealthySince != nil
	}, patience, 50*time.Millisecond)
	since := got.Status.Targets[0].UnhealthySince
	w.mu.Lock()
	w.report.Webhooks[0].Targets[0].LastError = "timeout"
	w.mu.Unlock()
	require.Eventually(t, func() bool {
		w.get(got, "callcenter")
		return got.Status.Targets[0].LastError == "timeout"
	}, patience, 50*time.Millisecond)
	require.True(t, since.Equal(got.Status.Targets[0].UnhealthySince), "since when it began")
	w.answer(w.hash("callcenter"), nil)
	require.Eventually(t, func() bool {
		w.get(got, "callcenter")
		return got.Status.Targets[0].Healthy && got.Status.Targets[0].UnhealthySince == nil
	}, patience, 50*time.Millisecond)
}
