// Package controllers turns a PBXWebhook into the Kubernetes objects that receive its events, and
// reports in its status how they fare.
//
// It must not know how events are decoded, kept or delivered.
package controllers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/recorder"

	"github.com/pbxhook/pbxhook/api/statusz"
	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/controllers/render"
)

// FieldOwner names the operator in the managed fields of objects.
const FieldOwner = "pbxhook-operator"

// How long until a webhook is looked at again although nothing happened in the cluster.
const (
	pollSoon    = 500 * time.Millisecond // a receiver is about to take a configuration
	pollRetry   = 5 * time.Second        // receivers could not be asked, or an object is in the way
	pollHealthy = 30 * time.Second       // the health of targets, unless Reconciler.PollInterval says otherwise
	pollNew     = 2 * time.Second        // a newcomer waits for the first event
	pollUnused  = 5 * time.Second        // nothing has come yet
)

// What the operator may do. Objects are made by patch (server-side apply), which needs create where there
// is none; what is not wanted any more is deleted.
//
// +kubebuilder:rbac:groups=pbxhook.io,resources=pbxwebhooks,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=pbxhook.io,resources=pbxwebhooks/status,verbs=patch
// +kubebuilder:rbac:groups="",resources=secrets;services;persistentvolumeclaims,verbs=get;list;watch;create;patch
// +kubebuilder:rbac:groups="",resources=namespaces,verbs=get;list;watch
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
	// Namespaces are those that are served, by their labels; nil: all that the cache has.
	Namespaces labels.Selector
	// RollPercent is the share of the webhooks whose receivers are replaced at a time by a change that concerns all of
	// them, and at least one; 0: 10.
	RollPercent int
	// PollInterval is how often receivers are asked while nothing happens; 0: 30 s.
	PollInterval time.Duration
	// Now is the clock; nil: time.Now.
	Now func() time.Time

	known   memory
	cluster string // the UID of the namespace kube-system; empty: not told
	guard   writeGuard
	rolls   rolls
}

// Reconcile makes what a PBXWebhook asks for, and reports: resolve what it refers to, apply what
// differs, look at what is there, patch the status once.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	webhook := &v1alpha1.PBXWebhook{}
	if err := r.Get(ctx, request.NamespacedName, webhook); err != nil {
		if apierrors.IsNotFound(err) {
			r.known.forget(request.NamespacedName)
			r.guard.forget(request.NamespacedName)
			r.rolls.end(request.NamespacedName)
		}
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if served, err := r.serves(ctx, webhook.Namespace); err != nil || !served {
		return reconcile.Result{}, err
	}
	if !webhook.DeletionTimestamp.IsZero() {
		return r.reconcileDelete(ctx, webhook)
	}
	if err := r.reconcileFinalizer(ctx, webhook, dropsJournal(webhook) && r.DropJournal != nil); err != nil {
		return reconcile.Result{}, err
	}
	var seen observation
	if c := readyOf(webhook); c != nil && c.Status == metav1.ConditionTrue {
		seen.readyBefore = c.ObservedGeneration
	}
	seen.blocked = r.reconcile(ctx, webhook, &seen)
	statusErr := r.report(ctx, webhook, &seen)
	r.noteRolled(webhook, &seen)
	return reconcile.Result{RequeueAfter: seen.again()}, errors.Join(transient(seen.blocked), statusErr)
}

// serves reports whether a namespace has the labels of those that are served. What was made in one that has them no
// more stays as it is.
func (r *Reconciler) serves(ctx context.Context, name string) (bool, error) {
	if r.Namespaces == nil {
		return true, nil
	}
	namespace := &metav1.PartialObjectMetadata{}
	namespace.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	if err := r.Get(ctx, types.NamespacedName{Name: name}, namespace); err != nil {
		return false, client.IgnoreNotFound(err)
	}
	return r.Namespaces.Matches(labels.Set(namespace.Labels)), nil
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
	blocked       error             // why the pass did not come to its end
	refused       *blockedError     // the first child that could not be made; the others were
	readyBefore   int64             // the generation that was Ready at the beginning; 0: none
	rollWaits     bool              // the Deployment is left until fewer others roll
	behindFor     time.Duration     // how long a receiver has run another configuration
	lockHolder    string            // a pod that holds the journal's lock and is none of the receivers
	selector      map[string]string // of the receivers
	claimNote     string            // how the claim is not as the spec says, for JournalDurable
	poll          time.Duration     // how often receivers are asked while all is well
	wait          time.Duration     // until something is to be tried again; 0: nothing is
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
	r.noteBehind(w, seen)
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
	if err := r.findLockHolder(ctx, w, seen); err != nil {
		return err
	}
	seen.exposure, err = r.expose(ctx, w, seen)
	return err
}

// noteBehind finds out for how long a receiver has run another configuration, and how often to ask.
func (r *Reconciler) noteBehind(w *v1alpha1.PBXWebhook, seen *observation) {
	seen.poll = r.pollEvery(w, seen.receivers.report)
	known := r.known.get(w)
	switch {
	case len(seen.receivers.behind) == 0 && known.behindSince.IsZero():
		return
	case len(seen.receivers.behind) == 0:
		known.behindSince = time.Time{}
	case known.behindSince.IsZero():
		known.behindSince = r.now()
	}
	if !known.behindSince.IsZero() {
		seen.behindFor = r.now().Sub(known.behindSince)
	}
	r.known.put(w, known)
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
		return o.poll
	}
}

// pollEvery is how often receivers are asked while all is well: often while somebody waits to see a first event,
// rejection or dead letter.
func (r *Reconciler) pollEvery(w *v1alpha1.PBXWebhook, report *statusz.Webhook) time.Duration {
	every := cmp.Or(r.PollInterval, pollHealthy)
	age := r.now().Sub(w.CreationTimestamp.Time)
	if report == nil || r.Ask == nil {
		return every
	}
	dead := slices.ContainsFunc(report.Targets, func(t v1alpha1.TargetStatus) bool { return t.DeadLettered > 0 })
	switch all := report.Events.Received > 0 && report.Events.Rejected > 0 && dead; {
	case !all && age < 10*time.Minute:
		return min(every, pollNew)
	case report.Events.Received == 0 && age < time.Hour:
		return min(every, pollUnused)
	}
	return every
}

func (r *Reconciler) now() time.Time {
	if r.Now != nil {
		return r.Now()
	}
	return time.Now()
}
