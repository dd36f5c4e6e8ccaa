package controllers

import (
	"context"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/controllers/render"
)

// concurrency is how many webhooks are looked at at a time. Mostly they wait: for the API server, and
// for receivers to answer.
const concurrency = 16

// Scheme has the kinds that the operator reads and writes.
func Scheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, gatewayv1.Install, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("make the scheme: %w", err)
		}
	}
	return scheme, nil
}

// referencesIndex finds the webhooks that refer to a Secret or ConfigMap.
const referencesIndex = "references"

// SetupWithManager has the manager call Reconcile when a webhook, one of its children, or something
// that it refers to changes.
func (r *Reconciler) SetupWithManager(mgr manager.Manager) error {
	var err error
	if r.cluster, err = clusterOf(context.Background(), r.Live); err != nil {
		return err
	}
	if err := mgr.GetFieldIndexer().IndexField(context.Background(), &v1alpha1.PBXWebhook{}, referencesIndex, references); err != nil {
		return fmt.Errorf("index references: %w", err)
	}
	b := builder.ControllerManagedBy(mgr).
		Named("pbxwebhook").
		For(&v1alpha1.PBXWebhook{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Owns(&appsv1.Deployment{}).
		Owns(&corev1.Service{}).
		Owns(&networkingv1.NetworkPolicy{}).
		Owns(&networkingv1.Ingress{}).
		Owns(&policyv1.PodDisruptionBudget{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&corev1.PersistentVolumeClaim{}, handler.EnqueueRequestsFromMapFunc(byLabel)).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(byLabel)).
		WatchesMetadata(&corev1.Secret{}, handler.EnqueueRequestsFromMapFunc(r.byReference("Secret"))).
		WatchesMetadata(&corev1.ConfigMap{}, handler.EnqueueRequestsFromMapFunc(r.byReference("ConfigMap"))).
		WithOptions(controller.Options{MaxConcurrentReconciles: concurrency})
	if r.Namespaces != nil {
		b = b.WatchesMetadata(&corev1.Namespace{}, handler.EnqueueRequestsFromMapFunc(r.byNamespace), builder.WithPredicates(predicate.LabelChangedPredicate{}))
	}
	if r.APIs.Gateway {
		b = b.Owns(&gatewayv1.HTTPRoute{})
	}
	if r.APIs.PodMonitor {
		b = b.Owns(podMonitor())
	}
	return b.Complete(r)
}

// references are the Secrets and ConfigMaps that a webhook's state depends on.
func references(o client.Object) []string {
	w := o.(*v1alpha1.PBXWebhook)
	var sources []string
	for _, ref := range w.Spec.References() {
		sources = append(sources, render.Source(ref.Kind, ref.Name))
	}
	if e := w.Spec.Expose; e != nil && e.Ingress != nil && e.Ingress.TLSSecretName != "" {
		sources = append(sources, render.Source("Secret", e.Ingress.TLSSecretName))
	}
	return sources
}

// byLabel finds the webhook that an object was made for.
func byLabel(_ context.Context, o client.Object) []reconcile.Request {
	name := o.GetLabels()[render.LabelWebhook]
	if name == "" {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: name}}}
}

// byNamespace finds the webhooks of a namespace.
func (r *Reconciler) byNamespace(ctx context.Context, o client.Object) (requests []reconcile.Request) {
	webhooks := &v1alpha1.PBXWebhookList{}
	if err := r.List(ctx, webhooks, client.InNamespace(o.GetName())); err != nil {
		return nil // from the cache: it cannot fail once started
	}
	for i := range webhooks.Items {
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&webhooks.Items[i])})
	}
	return requests
}

// byReference finds the webhooks that refer to an object, and the one that it was made for.
func (r *Reconciler) byReference(kind string) handler.MapFunc {
	return func(ctx context.Context, o client.Object) []reconcile.Request {
		requests := byLabel(ctx, o)
		webhooks := &v1alpha1.PBXWebhookList{}
		if err := r.List(ctx, webhooks, client.InNamespace(o.GetNamespace()),
			client.MatchingFields{referencesIndex: render.Source(kind, o.GetName())}); err != nil {
			return requests // from the cache: it cannot fail once started
		}
		for i := range webhooks.Items {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&webhooks.Items[i])})
		}
		return requests
	}
}

// CacheOptions bound what the operator holds: of workloads, those that it made; of Secrets and
// ConfigMaps no more than names, labels and versions. Annotations go, because kubectl apply writes the
// whole Secret into one. No namespaces are all namespaces.
func CacheOptions(apis APIs, namespaces ...string) cache.Options {
	made := cache.ByObject{Label: labels.SelectorFromSet(labels.Set{render.LabelManagedBy: render.ManagedBy}), Transform: trimManagedFields}
	pods, named := made, cache.ByObject{Transform: trimMetadata}
	pods.Transform = trimPod
	options := cache.Options{ByObject: map[client.Object]cache.ByObject{
		&appsv1.Deployment{}:            made,
		&corev1.Service{}:               made,
		&corev1.PersistentVolumeClaim{}: made,
		&networkingv1.NetworkPolicy{}:   made,
		&networkingv1.Ingress{}:         made,
		&policyv1.PodDisruptionBudget{}: made,
		&corev1.Pod{}:                   pods,
		&corev1.Secret{}:                named,
		&corev1.ConfigMap{}:             named,
		&corev1.Namespace{}:             named,
		&v1alpha1.PBXWebhook{}:          {Transform: cache.TransformStripManagedFields()},
	}}
	if apis.Gateway {
		options.ByObject[&gatewayv1.HTTPRoute{}] = made
	}
	if apis.PodMonitor {
		options.ByObject[podMonitor()] = made
	}
	for _, namespace := range namespaces {
		if options.DefaultNamespaces == nil {
			options.DefaultNamespaces = map[string]cache.Config{}
		}
		options.DefaultNamespaces[namespace] = cache.Config{}
	}
	return options
}

// trimManagedFields keeps what tells that somebody else wrote an object: all of them are read from the API server when
// that shows.
func trimManagedFields(o any) (any, error) {
	object, ok := o.(metav1.Object)
	if !ok {
		return o, nil
	}
	object.SetManagedFields(slices.DeleteFunc(object.GetManagedFields(), func(m metav1.ManagedFieldsEntry) bool {
		return m.Subresource == "status" || m.Manager == FieldOwner && m.Operation == metav1.ManagedFieldsOperationApply
	}))
	return o, nil
}

func trimMetadata(o any) (any, error) {
	if object, ok := o.(metav1.Object); ok {
		object.SetManagedFields(nil)
		object.SetAnnotations(nil)
		object.SetOwnerReferences(nil)
	}
	return o, nil
}

// trimPod keeps what tells whether a receiver takes requests.
func trimPod(o any) (any, error) {
	pod, ok := o.(*corev1.Pod)
	if !ok {
		return o, nil
	}
	pod.ManagedFields, pod.Spec = nil, corev1.PodSpec{}
	pod.Status = corev1.PodStatus{
		Phase: pod.Status.Phase, Reason: pod.Status.Reason, Message: pod.Status.Message,
		PodIP: pod.Status.PodIP, HostIP: pod.Status.HostIP,
		Conditions: pod.Status.Conditions, ContainerStatuses: pod.Status.ContainerStatuses,
	}
	return pod, nil
}
