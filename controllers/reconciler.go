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
	"sigs.k8s.io/controller-runtime/pkg/client"
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

// What the operator may do. Objects are made by patch (server-side apply), which needs create where there
// is none; what is not wanted any more is deleted.
//
// +kubebuilder:rbac:groups=pbxhook.io,resources=pbxwebhooks,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=pbxhook.io,resources=pbxwebhooks/status,verbs=patch
// +kubebuilder:rbac:groups="",resources=secrets;services;persistentvolumeclaims,verbs=get;list;watch;create;patch
// +kubebuilder:rbac:groups="",resources=configmaps,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=pods,verbs=list;watch;patch
// +kubebuilder:rbac:groups=apps,resources=deployments,verbs=get;list;watch;create;patch
// +kubebuilder:rbac:groups=networking.k8s.io,resources=networkpolicies,verbs=get;list;watch;create;patch
// +kubebuilder:rbac:groups=networking.k8s.io,resources=ingresses,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=policy,resources=poddisruptionbudgets,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=gateway.networking.k8s.io,resources=httproutes,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=gateway.networking.k8s.io,resources=gateways,verbs=get
// +kubebuilder:rbac:groups=monitoring.coreos.com,resources=podmonitors,verbs=get;list;watch;create;patch
// +kubebuilder:rbac:groups="",resources=namespaces,resourceNames=kube-system,verbs=get
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch
//
// blockOwnerDeletion in an owner reference needs this where OwnerReferencesPermissionEnforcement is on
// (OpenShift):
// +kubebuilder:rbac:groups=pbxhook.io,resources=pbxwebhooks/finalizers,verbs=update

// Reconciler reconciles PBXWebhooks.
type Reconciler struct {
	client.Client
	// Live reads from the API server: values of Secrets, which no cache holds.
	Live     client.Reader
	Events   recorder.EventRecorder
	Receiver render.Receiver
	// Askers are the namespaces that may ask receivers how they fare: the operator's and the
	// monitoring's.
	Askers []string
	// APIs are the optional ones that the cluster has.
	APIs APIs
	// Ask asks a receiver pod how it fares, and Reach is whether something listens at an address; nil
	// judges by the API server alone.
	Ask   Asker
	Reach func(ctx context.Context, address string) error
	// DropJournal deletes the journal in NATS that receivers with this configuration use.
	DropJournal func(ctx context.Context, manifest []byte) error
	// Now is the clock; nil: time.Now.
	Now func() time.Time

	known   memory
	cluster string // the UID of the namespace kube-system; empty: not told
	guard   writeGuard
}

// Reconcile makes what a PBXWebhook asks for, and reports: resolve what it refers to, apply what
// differs, look at what is there, patch the status once.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	webhook := &v1alpha1.PBXWebhook{}
	if err := r.Get(ctx, request.NamespacedName, webhook); err != nil {
		if apierrors.IsNotFound(err) {
			r.known.forget(request.NamespacedName)
			r.guard.forget(request.NamespacedName)
		}
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if !webhook.DeletionTimestamp.IsZero() {
		return r.finish(ctx, webhook)
	}
	if err := r.holdOn(ctx, webhook, dropsJournal(webhook) && r.DropJournal != nil); err != nil {
		return reconcile.Result{}, err
	}
	var seen observation
	seen.blocked = r.reconcile(ctx, webhook, &seen)
	statusErr := r.report(ctx, webhook, &seen)
	return reconcile.Result{RequeueAfter: seen.again()}, errors.Join(transient(seen.blocked), statusErr)
}

// observation is what one pass found out about a webhook.
type observation struct {
	configuration configuration
	written       map[string]bool    // kinds of children that this pass wrote
	deployment    *appsv1.Deployment // nil while there is none
	pods          []corev1.Pod
	receivers     receivers
	draining      bool          // disabled, and delivering what an emptyDir still holds
	moving        bool          // from a journal of one kind to one of another
	former        render.Volume // of the embedded journal before, while it is needed
	exposure      exposure
	blocked       error         // why the pass did not come to its end
	refused       *blockedError // the first child that could not be made; the others were
	claimNote     string        // how the claim is not as the spec says, for JournalDurable
	wait          time.Duration // until something is to be tried again; 0: nothing is
}

func (r *Reconciler) reconcile(ctx context.Context, w *v1alpha1.PBXWebhook, seen *observation) (err error) {
	if err = checkSpec(w); err != nil {
		return err
	}
	if seen.configuration, err = r.applyConfiguration(ctx, w, seen); err != nil {
		return err
	}
	if err = r.askReceivers(ctx, w, seen); err != nil {
		return err
	}
	if err = r.move(ctx, w, seen); err != nil {
		return err
	}
	if err = r.nudge(ctx, seen); err != nil { // a child that cannot be made holds up no password
		return err
	}
	if err = r.applyChildren(ctx, w, seen); err != nil {
		return err
	}
	return r.observe(ctx, w, seen)
}

// checkSpec finds what no rule of the schema can.
func checkSpec(webhook *v1alpha1.PBXWebhook) error {
	if zone := webhook.Spec.TimeZone; zone != "" {
		if _, err := time.LoadLocation(zone); err != nil {
			return &blockedError{reason: v1alpha1.ReasonInvalidSpec, message: fmt.Sprintf("spec.timeZone: expected an IANA time zone such as Asia/Tehran, got %q", zone)}
		}
	}
	return nil
}

// observe looks at what became of the children.
func (r *Reconciler) observe(ctx context.Context, w *v1alpha1.PBXWebhook, seen *observation) (err error) {
	deployment := &appsv1.Deployment{}
	err = r.Get(ctx, childKey(w), deployment)
	switch {
	case err == nil:
		seen.deployment = deployment
		if r.Ask == nil { // judged by the API server alone
			seen.receivers.available = int(deployment.Status.AvailableReplicas)
		}
	case !apierrors.IsNotFound(err): // the cache may not have what was just made
		return fmt.Errorf("read the receiver's Deployment: %w", err)
	}
	if seen.receivers.available > seen.receivers.unreachable && r.Reach != nil {
		seen.receivers.unrouted = r.reachService(ctx, w) != nil
	}
	seen.exposure, err = r.expose(ctx, w, seen)
	return err
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
func (o *observation) again() time.Duration {
	next := o.nextPoll()
	if o.wait > 0 && (next == 0 || o.wait < next) {
		return o.wait
	}
	return next
}

func (o *observation) nextPoll() time.Duration {
	blocked := o.refused
	switch {
	case errors.As(o.blocked, &blocked), blocked != nil:
		if blocked.heals {
			return pollRetry * 2
		}
		return pollRetry * 12 // the object in the way is not watched
	case errors.Is(o.blocked, errReplacing):
		return pollRetry / 5
	case o.blocked != nil:
		return 0 // the queue's own backoff
	case o.moving && o.receivers.drained():
		return pollSoon
	case o.receivers.unreachable > 0 || o.exposure.blocks || o.draining || o.moving, o.receivers.report != nil && o.receivers.report.JournalProblem != "":
		return pollRetry
	case o.receivers.available > 0 && (len(o.receivers.behind) > 0 || o.receivers.unrouted):
		return pollSoon
	default:
		return pollHealthy
	}
}

func (r *Reconciler) now() time.Time {
	if r.Now != nil {
		return r.Now()
	}
	return time.Now()
}
