// Package controllers turns a PBXWebhook into the Kubernetes objects that receive its events, and
// reports in its status how they fare.
//
// It must not know how events are decoded, kept or delivered.
package controllers

import (
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/recorder"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/controllers/render"
)

// FieldOwner names the operator in the managed fields of objects.
const FieldOwner = "pbxhook-operator"

// How long until a webhook is looked at again although nothing happened in the cluster.
const (
	pollSoon    = 500 * time.Millisecond // a receiver is about to take a configuration
	pollRetry   = 5 * time.Second        // receivers could not be asked, or an object is in the way
	pollHealthy = 30 * time.Second       // how targets fare
)

// +kubebuilder:rbac:groups=pbxhook.io,resources=pbxwebhooks,verbs=get;list;watch
// +kubebuilder:rbac:groups=pbxhook.io,resources=pbxwebhooks/status,verbs=patch
// +kubebuilder:rbac:groups=pbxhook.io,resources=pbxwebhooks/finalizers,verbs=update
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get;list;watch;create;patch
// +kubebuilder:rbac:groups="",resources=configmaps,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=services;persistentvolumeclaims,verbs=get;list;watch;create;patch
// +kubebuilder:rbac:groups="",resources=pods,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=apps,resources=deployments,verbs=get;list;watch;create;patch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// Reconciler reconciles PBXWebhooks.
type Reconciler struct {
	client.Client
	// Live reads from the API server: values of Secrets, which no cache holds.
	Live     client.Reader
	Events   recorder.EventRecorder
	Receiver render.Receiver
	// Ask asks a receiver pod how it fares; nil judges by the API server alone.
	Ask Asker
	// Now is the clock; nil: time.Now.
	Now func() time.Time

	known memory
}

// Reconcile makes what a PBXWebhook asks for, and reports: resolve what it refers to, apply what
// differs, look at what is there, patch the status once.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	webhook := &v1alpha1.PBXWebhook{}
	if err := r.Get(ctx, request.NamespacedName, webhook); err != nil {
		if apierrors.IsNotFound(err) {
			r.known.forget(request.NamespacedName)
		}
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if !webhook.DeletionTimestamp.IsZero() {
		return reconcile.Result{}, nil // its children go with it
	}
	seen, err := r.reconcile(ctx, webhook)
	statusErr := r.report(ctx, webhook, seen)
	return reconcile.Result{RequeueAfter: seen.again(err)}, errors.Join(transient(err), statusErr)
}

// observation is what one pass found out about a webhook.
type observation struct {
	configuration configuration
	deployment    *appsv1.Deployment // nil while there is none
	pods          []corev1.Pod
	receivers     receivers
	blocked       error // why the pass did not come to its end
}

func (r *Reconciler) reconcile(ctx context.Context, webhook *v1alpha1.PBXWebhook) (observation, error) {
	var seen observation
	if err := checkSpec(webhook); err != nil {
		seen.blocked = err
		return seen, err
	}
	var err error
	if seen.configuration, err = r.applyConfiguration(ctx, webhook); err == nil {
		err = r.applyChildren(ctx, webhook)
	}
	if err == nil {
		err = r.observe(ctx, webhook, &seen)
	}
	seen.blocked = err
	return seen, err
}

// checkSpec finds what no rule of the schema can.
func checkSpec(webhook *v1alpha1.PBXWebhook) error {
	if webhook.Spec.Journal.NATS != nil {
		return &stalledError{reason: v1alpha1.ReasonNotImplemented, message: "journal.nats is not implemented in this version: use journal.embedded"}
	}
	if zone := webhook.Spec.TimeZone; zone != "" {
		if _, err := time.LoadLocation(zone); err != nil {
			return &stalledError{reason: v1alpha1.ReasonInvalidSpec, message: fmt.Sprintf("spec.timeZone: expected an IANA time zone such as Asia/Tehran, got %q", zone)}
		}
	}
	return nil
}

// applyChildren makes the objects of a webhook what they should be.
func (r *Reconciler) applyChildren(ctx context.Context, webhook *v1alpha1.PBXWebhook) error {
	if render.NeedsClaim(webhook) {
		if err := r.applyClaim(ctx, webhook); err != nil {
			return fmt.Errorf("claim: %w", err)
		}
	}
	if err := r.applyService(ctx, webhook); err != nil {
		return fmt.Errorf("service: %w", err)
	}
	if err := r.applyDeployment(ctx, webhook); err != nil {
		return fmt.Errorf("deployment: %w", err)
	}
	return nil
}

// observe looks at what became of the children.
func (r *Reconciler) observe(ctx context.Context, webhook *v1alpha1.PBXWebhook, seen *observation) error {
	deployment := &appsv1.Deployment{}
	err := r.Get(ctx, types.NamespacedName{Namespace: webhook.Namespace, Name: render.Name(webhook.Name)}, deployment)
	switch {
	case err == nil:
		seen.deployment = deployment
	case !apierrors.IsNotFound(err): // the cache may not have what was just made
		return fmt.Errorf("read the receiver's Deployment: %w", err)
	}
	pods := &corev1.PodList{}
	if err := r.List(ctx, pods, client.InNamespace(webhook.Namespace), client.MatchingLabels(render.Selector(webhook))); err != nil {
		return fmt.Errorf("list receiver pods: %w", err)
	}
	seen.pods = pods.Items
	seen.receivers = r.ask(ctx, seen.configuration.hash, pods.Items)
	if seen.receivers.available > 0 && r.Ask != nil {
		if err := r.askService(ctx, webhook); err != nil {
			seen.receivers.unrouted = true
		}
	}
	return r.nudge(ctx, seen)
}

// nudge has the kubelet refresh the configuration of pods that run another one at once: it does so
// when a pod's metadata changes, and else within a minute or so.
func (r *Reconciler) nudge(ctx context.Context, seen *observation) error {
	for i := range seen.pods {
		pod := &seen.pods[i]
		if pod.DeletionTimestamp != nil || pod.Annotations[render.AnnotationConfig] == seen.configuration.hash {
			continue
		}
		if !seen.configuration.written && !seen.receivers.behind[pod.Name] {
			continue
		}
		changed := pod.DeepCopy()
		metav1.SetMetaDataAnnotation(&changed.ObjectMeta, render.AnnotationConfig, seen.configuration.hash)
		if err := r.Patch(ctx, changed, client.MergeFrom(pod)); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("tell pod %s of its new configuration: %w", pod.Name, err)
		}
	}
	return nil
}

// again is when to look at the webhook next.
func (o *observation) again(err error) time.Duration {
	var stalled *stalledError
	switch {
	case errors.As(err, &stalled):
		return pollRetry * 12 // the object in the way is not watched
	case errors.Is(err, errReplacing):
		return pollRetry / 5
	case err != nil:
		return 0 // the queue's own backoff
	case o.receivers.unreachable > 0:
		return pollRetry
	case o.receivers.available > 0 && (len(o.receivers.behind) > 0 || o.receivers.unrouted):
		return pollSoon
	default:
		return pollHealthy
	}
}

// stalledError is what the operator cannot go on with before somebody edits an object.
type stalledError struct{ reason, message string }

func (e *stalledError) Error() string { return e.message }

// errReplacing says that an object of the same name belongs to a webhook that is being deleted.
var errReplacing = errors.New("waiting for the objects of the deleted PBXWebhook of this name to go")

// transient is an error that the queue should try again; others wait for somebody.
func transient(err error) error {
	var stalled *stalledError
	if errors.As(err, &stalled) || errors.Is(err, errReplacing) {
		return nil
	}
	return err
}

// referencesIndex finds the webhooks that refer to a Secret or ConfigMap.
const referencesIndex = "references"

// SetupWithManager has the manager call Reconcile when a webhook, one of its children, or something
// that it refers to changes.
func (r *Reconciler) SetupWithManager(mgr manager.Manager) error {
	index := func(o client.Object) []string {
		var sources []string
		for _, ref := range o.(*v1alpha1.PBXWebhook).Spec.References() {
			sources = append(sources, render.Source(ref.Kind, ref.Name))
		}
		return sources
	}
	if err := mgr.GetFieldIndexer().IndexField(context.Background(), &v1alpha1.PBXWebhook{}, referencesIndex, index); err != nil {
		return fmt.Errorf("index references: %w", err)
	}
	return builder.ControllerManagedBy(mgr).
		Named("pbxwebhook").
		For(&v1alpha1.PBXWebhook{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Owns(&appsv1.Deployment{}).
		Owns(&corev1.Service{}).
		Watches(&corev1.PersistentVolumeClaim{}, handler.EnqueueRequestsFromMapFunc(byLabel)).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(byLabel)).
		WatchesMetadata(&corev1.Secret{}, handler.EnqueueRequestsFromMapFunc(r.byReference("Secret"))).
		WatchesMetadata(&corev1.ConfigMap{}, handler.EnqueueRequestsFromMapFunc(r.byReference("ConfigMap"))).
		WithOptions(controller.Options{MaxConcurrentReconciles: 8}).
		Complete(r)
}

// byLabel finds the webhook that an object was made for.
func byLabel(_ context.Context, o client.Object) []reconcile.Request {
	name := o.GetLabels()[render.LabelWebhook]
	if name == "" {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: name}}}
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

func (r *Reconciler) now() time.Time {
	if r.Now != nil {
		return r.Now()
	}
	return time.Now()
}

// CacheOptions bound what the operator holds: of workloads, those that it made.
func CacheOptions() cache.Options {
	ours := cache.ByObject{Label: labels.SelectorFromSet(labels.Set{render.LabelManagedBy: render.ManagedBy})}
	return cache.Options{ByObject: map[client.Object]cache.ByObject{
		&appsv1.Deployment{}:            ours,
		&corev1.Service{}:               ours,
		&corev1.PersistentVolumeClaim{}: ours,
		&corev1.Pod{}:                   ours,
	}}
}
