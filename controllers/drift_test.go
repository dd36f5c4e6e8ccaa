package controllers_test

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/controllers/render"
)

// rewrites has the API server's admission rewrite objects of the test's namespace, by a JSON patch, as Kyverno or a
// mesh would. It returns when the policy works, which a probe of that kind shows.
func (w *world) rewrites(name, group, resource, patch string, probe client.Object, works func() bool) {
	w.t.Helper()
	policy := fmt.Sprintf(`
apiVersion: admissionregistration.k8s.io/v1beta1
kind: MutatingAdmissionPolicy
metadata: {name: %[1]s-%[2]s}
spec:
  matchConstraints:
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: %[2]s}}
    resourceRules:
    - {apiGroups: [%[3]q], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [%[4]s]}
  failurePolicy: Fail
  reinvocationPolicy: Never
  mutations:
  - patchType: JSONPatch
    jsonPatch: {expression: %[5]q}
---
apiVersion: admissionregistration.k8s.io/v1beta1
kind: MutatingAdmissionPolicyBinding
metadata: {name: %[1]s-%[2]s}
spec: {policyName: %[1]s-%[2]s}
`, name, w.namespace, group, resource, patch)
	for _, document := range strings.Split(policy, "---\n") {
		object := &unstructured.Unstructured{}
		require.NoError(w.t, yaml.Unmarshal([]byte(document), &object.Object))
		require.NoError(w.t, w.client.Create(w.t.Context(), object))
		w.t.Cleanup(func() { _ = w.client.Delete(context.Background(), object) })
	}
	probe.SetNamespace(w.namespace)
	probe.SetName("probe")
	original := probe.DeepCopyObject()
	require.Eventually(w.t, func() bool {
		reflect.ValueOf(probe).Elem().Set(reflect.ValueOf(original.DeepCopyObject()).Elem())
		return w.client.Create(w.t.Context(), probe, client.DryRunAll) == nil && works()
	}, patience, 50*time.Millisecond, "the policy %s should work", name)
}

// probeService and probeDeployment are valid ones.
func probeService() *corev1.Service {
	return &corev1.Service{Spec: corev1.ServiceSpec{Selector: map[string]string{"a": "b"}, Ports: []corev1.ServicePort{{Port: 1, AppProtocol: ptr.To("http")}}}}
}

func probeDeployment() *appsv1.Deployment {
	labels := map[string]string{"a": "b"}
	pod := corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Image: "a", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1m")}}}}}
	return &appsv1.Deployment{Spec: appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: pod}}}
}

// told waits for a Kubernetes event of a reason whose note has all of some words.
func (w *world) told(reason string, words ...string) {
	w.t.Helper()
	require.Eventually(w.t, func() bool {
		events := &eventsv1.EventList{}
		require.NoError(w.t, w.client.List(w.t.Context(), events, client.InNamespace(w.namespace)))
		for i := range events.Items {
			has := events.Items[i].Reason == reason
			for _, word := range words {
				has = has && strings.Contains(events.Items[i].Note, word)
			}
			if has {
				return true
			}
		}
		return false
	}, patience, 50*time.Millisecond, "an event %s with %v", reason, words)
}

// edit is what a person or another controller does to a child.
func (w *world) edit(object client.Object, manager, patch string) {
	w.t.Helper()
	object.SetNamespace(w.namespace)
	object.SetName(child)
	require.NoError(w.t, w.client.Patch(w.t.Context(), object, client.RawPatch(types.StrategicMergePatchType, []byte(patch)), client.FieldOwner(manager)))
}

// TestAdmissionRewrites: what admission makes of an object is accepted, and Ready goes by what is there.
func TestAdmissionRewrites(t *testing.T) {
	w := newWorld(t)
	w.secret("pbx", map[string]string{"token": "t"})
	probeD, probeS, secret := probeDeployment(), probeService(), &corev1.Secret{Data: map[string][]byte{"a": nil}}
	w.rewrites("image", "apps", "deployments", `[JSONPatch{op: "replace", path: "/spec/template/spec/containers/0/image", value: "mirror.example.com/" + object.spec.template.spec.containers[0].image.split("/")[object.spec.template.spec.containers[0].image.split("/").size() - 1]},
		JSONPatch{op: "add", path: "/spec/template/spec/containers/0/resources/requests", value: {"cpu": "500m"}},
		JSONPatch{op: "add", path: "/spec/template/spec/tolerations", value: [{"key": "pool", "operator": "Exists"}]}]`, probeD, func() bool { return len(probeD.Spec.Template.Spec.Tolerations) > 0 })
	w.rewrites("protocol", "", "services", `[JSONPatch{op: "replace", path: "/spec/ports/0/appProtocol", value: "kubernetes.io/h2c"}, JSONPatch{op: "add", path: "/spec/selector/mesh", value: "yes"}]`, probeS, func() bool { return probeS.Spec.Selector["mesh"] != "" })
	w.rewrites("secret", "", "secrets", `[JSONPatch{op: "add", path: "/data/added", value: "eA=="}]`, secret, func() bool { return len(secret.Data["added"]) > 0 })
	w.operator()
	w.webhook("callcenter", nil)
	w.healthy("callcenter")
	deployment, service := &appsv1.Deployment{}, &corev1.Service{}
	w.get(deployment, child)
	w.get(service, child)
	require.Equal(t, "mirror.example.com/pbxhook:test", deployment.Spec.Template.Spec.Containers[0].Image)
	require.Equal(t, "kubernetes.io/h2c", *service.Spec.Ports[0].AppProtocol)
	w.quiet()
	w.written()
	w.touchAll()
	w.quiet()
	require.Empty(t, w.written(), "what admission rewrote is left")

	// a person's change beside it is taken back all the same, and a new generation is written once
	w.edit(deployment, "kubectl-edit", `{"spec":{"paused":true}}`)
	w.told(v1alpha1.ReasonRestored, "kubectl-edit", "spec.paused")
	w.deployment("it is not paused", func(d *appsv1.Deployment) bool { return !d.Spec.Paused })
	w.follow("callcenter")
	webhook := &v1alpha1.PBXWebhook{}
	w.get(webhook, "callcenter")
	webhook.Spec.Receiver.Pod = &v1alpha1.Pod{Annotations: map[string]v1alpha1.AnnotationValue{"a": "b"}}
	w.replaceSpec(webhook)
	w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)
	w.quiet()
	w.written()
	w.touchAll()
	w.quiet()
	require.Empty(t, w.written())
}

// touchAll has the operator look at every child again.
func (w *world) touchAll() {
	w.t.Helper()
	for _, object := range []client.Object{&appsv1.Deployment{}, &corev1.Service{}, &corev1.Secret{}} {
		w.edit(object, "labeller", fmt.Sprintf(`{"metadata":{"labels":{"touched":"%d"}}}`, time.Now().UnixNano()))
	}
}

// TestWhatPeopleAddIsTakenOut: where server-side apply would leave it.
func TestWhatPeopleAddIsTakenOut(t *testing.T) {
	w := withOperator(t)
	w.webhook("callcenter", nil)
	w.healthy("callcenter")
	for name, tc := range map[string]struct {
		object client.Object
		patch  string
		field  string
		whole  func(o client.Object) bool
	}{
		"a key of the Service's selector": {&corev1.Service{}, `{"spec":{"selector":{"no":"such"}}}`, "spec.selector", func(o client.Object) bool {
			return len(o.(*corev1.Service).Spec.Selector) == 2
		}},
		"paused, hostNetwork, env, a volume, a label and a container": {&appsv1.Deployment{}, `{"spec":{"paused":true,"template":{"metadata":{"labels":{"evil":"yes"}},"spec":{"hostNetwork":true,"volumes":[{"name":"more","emptyDir":{}}],"containers":[{"name":"sidecar","image":"evil"},{"name":"receiver","env":[{"name":"A","value":"b"}]}]}}}}`, "spec.paused", func(o client.Object) bool {
			d := o.(*appsv1.Deployment)
			pod := d.Spec.Template.Spec
			return !d.Spec.Paused && !pod.HostNetwork && len(pod.Volumes) == 2 && len(pod.Containers) == 1 && !slices.ContainsFunc(pod.Containers[0].Env, func(e corev1.EnvVar) bool { return e.Name == "A" }) && d.Spec.Template.Labels["evil"] == ""
		}},
		"data of the Secret": {&corev1.Secret{}, `{"data":{"more":"eA=="}}`, "data.more", func(o client.Object) bool {
			return len(o.(*corev1.Secret).Data) == 1
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w.edit(tc.object, "kubectl-edit", tc.patch)
			w.told(v1alpha1.ReasonRestored, `"kubectl-edit" had changed`, tc.field)
			require.Eventually(t, func() bool {
				w.get(tc.object, child)
				return tc.whole(tc.object)
			}, patience, 50*time.Millisecond)
		})
	}
	t.Run("template annotations of others stay", func(t *testing.T) {
		w.edit(&appsv1.Deployment{}, "kubectl-rollout", `{"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":"now"}}}}}`)
		w.quiet()
		w.deployment("it restarts", func(d *appsv1.Deployment) bool {
			return d.Spec.Template.Annotations["kubectl.kubernetes.io/restartedAt"] == "now"
		})
	})
	w.quiet()
	w.written()
	w.touchAll()
	w.quiet()
	require.Empty(t, w.written(), "then there is peace")
}

// TestNoObjectIsWrittenTooOften: admission rewrites a Service, and a controller keeps changing it and the Deployment.
func TestNoObjectIsWrittenTooOften(t *testing.T) {
	w := withOperator(t)
	probe := probeService()
	w.rewrites("fight", "", "services", `[JSONPatch{op: "replace", path: "/spec/ports/0/appProtocol", value: "kubernetes.io/ws"}]`, probe, func() bool { return *probe.Spec.Ports[0].AppProtocol == "kubernetes.io/ws" })
	w.webhook("callcenter", nil)
	w.healthy("callcenter")
	w.follow("callcenter")
	w.quiet()
	w.written()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
	defer cancel()
	var fights sync.WaitGroup
	var changes int
	fights.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: child}}
			deployment := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: child}}
			for _, err := range []error{
				w.client.Patch(ctx, service, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"selector":{"no":"such"}}}`)), client.FieldOwner("a-controller")),
				w.client.Patch(ctx, deployment, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"paused":true,"template":{"spec":{"terminationGracePeriodSeconds":7}}}}`)), client.FieldOwner("a-controller")),
			} {
				if err == nil {
					changes++
				} else if ctx.Err() == nil && !apierrors.IsConflict(err) {
					t.Errorf("the other controller: %v", err)
				}
			}
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	fights.Wait()
	perObject := map[string]int{}
	for _, write := range w.written() {
		perObject[write]++
	}
	t.Logf("%d changes by the other controller; the operator's writes: %v", changes, perObject)
	for object, n := range perObject {
		if strings.HasSuffix(object, "/"+child) {
			require.LessOrEqual(t, n, 10, object)
		}
	}
	w.told(v1alpha1.ReasonRestored, `"a-controller" had changed`)
	w.advance(10 * time.Minute) // the controller is gone: what it did is taken back
	w.touchAll()
	w.deployment("it is as it was", func(d *appsv1.Deployment) bool {
		return !d.Spec.Paused && *d.Spec.Template.Spec.TerminationGracePeriodSeconds == 30
	})
}

// TestItsOwnObjectsAreAdopted: without a label, without an owner, and after their webhook was deleted with
// --cascade=orphan and applied again.
func TestItsOwnObjectsAreAdopted(t *testing.T) {
	w := withOperator(t)
	webhook := w.webhook("callcenter", func(p *v1alpha1.PBXWebhook) {
		p.Spec.Journal = v1alpha1.Journal{Embedded: &v1alpha1.EmbeddedJournal{}, DeletionPolicy: v1alpha1.DeletionDelete}
	})
	w.healthy("callcenter")
	w.follow("callcenter")
	children := []client.Object{&corev1.Secret{}, &corev1.Service{}, &appsv1.Deployment{}, &corev1.PersistentVolumeClaim{}}
	w.get(webhook, "callcenter")
	owned := func(o client.Object) {
		t.Helper()
		require.Eventually(t, func() bool {
			w.get(o, child)
			return metav1.IsControlledBy(o, webhook) && len(o.GetOwnerReferences()) == 1 && o.GetLabels()[render.LabelWebhook] == "callcenter" && o.GetLabels()[render.LabelManagedBy] == render.ManagedBy
		}, patience, 50*time.Millisecond, "%T %v %v", o, o.GetOwnerReferences(), o.GetLabels())
	}
	uids := map[string]types.UID{}
	for _, o := range children {
		w.get(o, child)
		uids[fmt.Sprintf("%T", o)] = o.GetUID()
		patch := `[{"op":"remove","path":"/metadata/labels"},{"op":"remove","path":"/metadata/ownerReferences"}]`
		require.NoError(t, w.client.Patch(t.Context(), o, client.RawPatch(types.JSONPatchType, []byte(patch)), client.FieldOwner("kubectl-edit")))
		owned(o)
	}
	w.told(v1alpha1.ReasonAdopted, "Deployment")

	// no garbage collector runs here: orphaned, and one with the owner that is gone
	require.NoError(t, w.client.Delete(t.Context(), webhook))
	for i, o := range children {
		w.get(o, child)
		if i%2 == 0 {
			require.NoError(t, w.client.Patch(t.Context(), o, client.RawPatch(types.JSONPatchType, []byte(`[{"op":"remove","path":"/metadata/ownerReferences"}]`)), client.FieldOwner("garbage-collector")))
		}
	}
	webhook = w.webhook("callcenter", func(p *v1alpha1.PBXWebhook) { p.Spec.Journal = webhook.Spec.Journal })
	for _, o := range children {
		owned(o)
		require.Equal(t, uids[fmt.Sprintf("%T", o)], o.GetUID(), "it is the same one")
	}
	w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)
}
