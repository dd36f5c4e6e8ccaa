package controllers

import (
	"context"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/controllers/render"
)

// Finalizer holds a webhook whose events in NATS go with it. Nothing else is held: children go by their owner
// references.
const Finalizer = "pbxhook.io/journal"

// dropTime is how long the deletion of a journal in NATS may take.
const dropTime = 15 * time.Second

// dropsJournal is whether the webhook's events in NATS go with it.
func dropsJournal(w *v1alpha1.PBXWebhook) bool {
	return w.Spec.Journal.NATS != nil && w.Spec.Journal.DeletionPolicy == v1alpha1.DeletionDelete
}

// holdOn puts the finalizer on, or takes it off, as the spec asks for.
func (r *Reconciler) holdOn(ctx context.Context, w *v1alpha1.PBXWebhook, wanted bool) error {
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

// finish lets a deleted webhook go: one whose events go with it, when no receiver is left and they are deleted.
func (r *Reconciler) finish(ctx context.Context, w *v1alpha1.PBXWebhook) (reconcile.Result, error) {
	if !slices.Contains(w.Finalizers, Finalizer) {
		return reconcile.Result{}, nil // its children go with it
	}
	if dropsJournal(w) && r.DropJournal != nil {
		gone, err := r.stopReceivers(ctx, w)
		if err != nil || !gone {
			return reconcile.Result{RequeueAfter: pollRetry / 5}, err
		}
		secret := &corev1.Secret{}
		if err := client.IgnoreNotFound(r.Live.Get(ctx, childKey(w), secret)); err != nil {
			return reconcile.Result{}, fmt.Errorf("read the receivers' configuration: %w", err)
		}
		drop, cancel := context.WithTimeout(ctx, dropTime)
		defer cancel()
		if err := r.DropJournal(drop, secret.Data[render.ManifestKey]); err != nil {
			r.Events.Eventf(w, nil, corev1.EventTypeWarning, v1alpha1.ReasonJournalUnavailable, "Delete",
				"the events in NATS are not deleted yet: %v. To leave them there, set journal.deletionPolicy to Retain", err)
			return reconcile.Result{}, fmt.Errorf("delete the journal: %w", err)
		}
	}
	return reconcile.Result{}, r.holdOn(ctx, w, false)
}

// stopReceivers ends the receivers, which would make the streams anew, and says whether none is left.
func (r *Reconciler) stopReceivers(ctx context.Context, w *v1alpha1.PBXWebhook) (bool, error) {
	deployment := &appsv1.Deployment{}
	if err := r.Get(ctx, childKey(w), deployment); client.IgnoreNotFound(err) != nil {
		return false, fmt.Errorf("read the Deployment: %w", err)
	} else if err == nil && (deployment.Spec.Replicas == nil || *deployment.Spec.Replicas != 0) {
		none := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"replicas":0}}`))
		if err := r.Patch(ctx, deployment, none, client.FieldOwner(FieldOwner)); err != nil {
			return false, fmt.Errorf("end the receivers: %w", err)
		}
	}
	pods := &corev1.PodList{}
	if err := r.List(ctx, pods, client.InNamespace(w.Namespace), client.MatchingLabels(render.Selector(w))); err != nil {
		return false, fmt.Errorf("look for receivers: %w", err)
	}
	return len(pods.Items) == 0, nil
}
