package controllers

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/controllers/render"
)

// Finalizer holds a webhook whose events in NATS go with it. Nothing else is held: children go by their owner
// references.
const Finalizer = "pbxhook.io/journal"

const (
	// dropTime is how long one attempt to delete a journal in NATS may take, and dropRetry how long until the next.
	dropTime  = 15 * time.Second
	dropRetry = 30 * time.Second
	// abandonTime is how long a namespace that is being deleted waits for it.
	abandonTime = 2 * time.Minute
)

// dropsJournal reports whether the webhook's events in NATS go with it.
func dropsJournal(w *v1alpha1.PBXWebhook) bool {
	return w.Spec.Journal.NATS != nil && w.Spec.Journal.DeletionPolicy == v1alpha1.DeletionDelete
}

// reconcileFinalizer puts the finalizer on, or takes it off, as the spec asks for.
func (r *Reconciler) reconcileFinalizer(ctx context.Context, w *v1alpha1.PBXWebhook, wanted bool) error {
	if slices.Contains(w.Finalizers, Finalizer) == wanted {
		return nil
	}
	before := w.DeepCopy()
	w.Finalizers = slices.DeleteFunc(w.Finalizers, func(f string) bool { return f == Finalizer })
	if wanted {
		w.Finalizers = append(w.Finalizers, Finalizer)
	}
	if err := r.Patch(ctx, w, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}), client.FieldOwner(FieldOwner)); err != nil {
		return fmt.Errorf("write the finalizer: %w", err)
	}
	return nil
}

// reconcileDelete lets a deleted webhook go: one whose events go with it, when no receiver is left and they are deleted.
func (r *Reconciler) reconcileDelete(ctx context.Context, w *v1alpha1.PBXWebhook) (reconcile.Result, error) {
	if !slices.Contains(w.Finalizers, Finalizer) {
		return reconcile.Result{}, nil // its children go with it
	}
	if !dropsJournal(w) || r.DropJournal == nil {
		return reconcile.Result{}, r.reconcileFinalizer(ctx, w, false)
	}
	namespace, err := r.terminating(ctx, w)
	if err != nil {
		return reconcile.Result{}, err
	}
	overdue := namespace != nil && r.now().Sub(w.DeletionTimestamp.Time) > abandonTime
	gone, err := r.stopReceivers(ctx, w)
	if err != nil {
		return reconcile.Result{}, err
	}
	if !gone && !overdue {
		return reconcile.Result{RequeueAfter: pollRetry / 5}, r.reportDeletion(ctx, w, "its receivers are being stopped; then its events in NATS are deleted")
	}
	manifest, lost, err := r.journalManifest(ctx, w)
	if err != nil {
		return reconcile.Result{}, err
	}
	drop, cancel := context.WithTimeout(ctx, dropTime)
	defer cancel()
	err = r.DropJournal(drop, manifest)
	switch {
	case err == nil:
		log.FromContext(ctx).Info("the journal in NATS is deleted", "streams", streams(w))
	case namespace != nil && (lost || overdue): // a namespace must not wait for what may never come
		r.announceAbandoned(ctx, w, namespace, err)
	default:
		r.Events.Eventf(w, nil, corev1.EventTypeWarning, v1alpha1.ReasonJournalUnavailable, "Delete",
			"the events in NATS are not deleted yet: %v. To leave them there, set journal.deletionPolicy to Retain", err)
		log.FromContext(ctx).Info("the journal in NATS is not deleted yet", "error", err.Error(), "next", dropRetry.String())
		return reconcile.Result{RequeueAfter: dropRetry}, r.reportDeletion(ctx, w, fmt.Sprintf("its events in NATS are not deleted yet: %v. To leave them there, set journal.deletionPolicy to Retain", err))
	}
	return reconcile.Result{}, r.reconcileFinalizer(ctx, w, false)
}

// announceAbandoned says which streams remain. Nothing can be made in a namespace that is being deleted: the event is
// about the namespace itself, and lies in the namespace default.
func (r *Reconciler) announceAbandoned(ctx context.Context, w *v1alpha1.PBXWebhook, namespace *corev1.Namespace, cause error) {
	remain := strings.Join(streams(w), ", ")
	log.FromContext(ctx).Error(cause, "the namespace is being deleted and the journal in NATS could not be: its streams remain", "streams", remain, "url", w.Spec.Journal.NATS.URL)
	r.Events.Eventf(namespace, nil, corev1.EventTypeWarning, v1alpha1.ReasonJournalAbandoned, "Delete",
		"PBXWebhook %s had deletionPolicy Delete, and its streams in NATS could not be deleted (%v). Delete them by hand: %s", w.Name, cause, remain)
}

// streams are the names of all that a webhook's journal has in NATS.
func streams(w *v1alpha1.PBXWebhook) []string {
	name := "pbxhook_" + w.Namespace + "_" + w.Name
	return []string{name, name + "_log", "KV_" + name, "KV_" + name + "_dead", "KV_" + name + "_leases"}
}

// terminating is the webhook's namespace where it is being deleted; nil where it is not, or where that is not known.
func (r *Reconciler) terminating(ctx context.Context, w *v1alpha1.PBXWebhook) (*corev1.Namespace, error) {
	namespace := &corev1.Namespace{}
	err := r.Live.Get(ctx, types.NamespacedName{Name: w.Namespace}, namespace)
	switch {
	case apierrors.IsForbidden(err), apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read the namespace: %w", err)
	case namespace.DeletionTimestamp == nil:
		return nil, nil
	}
	return namespace, nil
}

// journalManifest is the configuration by which a webhook's journal in NATS is reached: that of its receivers, or where
// it is gone one made of what is still there. It reports whether credentials that the spec refers to are lost.
func (r *Reconciler) journalManifest(ctx context.Context, w *v1alpha1.PBXWebhook) (manifest []byte, lost bool, err error) {
	secret := &corev1.Secret{}
	if err := r.Live.Get(ctx, childKey(w), secret); client.IgnoreNotFound(err) != nil {
		return nil, false, fmt.Errorf("read the receivers' configuration: %w", err)
	}
	if manifest := secret.Data[render.ManifestKey]; len(manifest) > 0 {
		return manifest, false, nil
	}
	values, c, err := r.resolve(ctx, w, secret)
	if err != nil {
		return nil, false, err
	}
	lost = slices.ContainsFunc(c.references, func(m missing) bool { return strings.HasPrefix(m.message, "spec.journal.") })
	told, err := tell(w, nil, r.cluster)
	if err != nil {
		return nil, false, err
	}
	manifest, err = render.Manifest(told, values)
	return manifest, lost, err
}

// reportDeletion has the status say what a deleted webhook waits for.
func (r *Reconciler) reportDeletion(ctx context.Context, w *v1alpha1.PBXWebhook, message string) error {
	before := w.DeepCopy()
	s := &conditions{webhook: w, now: metav1.NewTime(r.now()), held: map[string]bool{}}
	s.set(v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonDeleting, "the PBXWebhook is being deleted: %s", message)
	if last := readyOf(before); last != nil && last.Reason == v1alpha1.ReasonDeleting && last.Message == readyOf(w).Message {
		return nil
	}
	if err := r.Status().Patch(ctx, w, client.MergeFrom(before), client.FieldOwner(FieldOwner)); err != nil {
		return client.IgnoreNotFound(fmt.Errorf("patch the status: %w", err))
	}
	return nil
}

// stopReceivers ends the receivers, which would make the streams again, and reports whether none is left.
func (r *Reconciler) stopReceivers(ctx context.Context, w *v1alpha1.PBXWebhook) (bool, error) {
	deployment := &appsv1.Deployment{}
	if err := r.Get(ctx, childKey(w), deployment); client.IgnoreNotFound(err) != nil {
		return false, fmt.Errorf("read the Deployment: %w", err)
	} else if err == nil && (deployment.Spec.Replicas == nil || *deployment.Spec.Replicas != 0) {
		none := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"replicas":0}}`))
		if err := r.Patch(ctx, deployment, none, client.FieldOwner(FieldOwner)); client.IgnoreNotFound(err) != nil {
			return false, fmt.Errorf("end the receivers: %w", err)
		}
	}
	pods := &corev1.PodList{}
	if err := r.List(ctx, pods, client.InNamespace(w.Namespace), client.MatchingLabels(render.Selector(w))); err != nil {
		return false, fmt.Errorf("look for receivers: %w", err)
	}
	return !slices.ContainsFunc(pods.Items, func(p corev1.Pod) bool { return !ended(&p) }), nil
}
