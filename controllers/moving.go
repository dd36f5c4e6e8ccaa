package controllers

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/controllers/render"
)

// A journal that changes its kind is moved by the receiver: what is in the one before goes to the targets first. The
// operator lets it have both meanwhile, which it tells from what is there:
//
//   - embedded before: the Deployment stays as it is, with its volume and one receiver, until that has nothing to
//     deliver from it any more;
//   - NATS before: the receivers' configuration, which has it still, names it until the same is so.

// tell has a webhook say which journal in NATS its receiver had before (nil: none), and, where it has one, in which cluster
// it is. Nobody else's word counts.
func tell(w *v1alpha1.PBXWebhook, before *v1alpha1.NATSJournal, cluster string) (*v1alpha1.PBXWebhook, error) {
	told := w.DeepCopy()
	delete(told.Annotations, v1alpha1.AnnotationJournalBefore)
	delete(told.Annotations, v1alpha1.AnnotationCluster)
	if cluster != "" && (before != nil || w.Spec.Journal.NATS != nil) {
		metav1.SetMetaDataAnnotation(&told.ObjectMeta, v1alpha1.AnnotationCluster, cluster)
	}
	if before == nil {
		return told, nil
	}
	text, err := json.Marshal(before)
	if err != nil {
		return nil, fmt.Errorf("write the journal before: %w", err)
	}
	metav1.SetMetaDataAnnotation(&told.ObjectMeta, v1alpha1.AnnotationJournalBefore, string(text))
	return told, nil
}

// journalBefore is the journal in NATS that a webhook with an embedded one had before, as its receivers' configuration
// tells; nil where there was none, or where all of it was delivered under that configuration.
func journalBefore(w *v1alpha1.PBXWebhook, manifest []byte, drained string) *v1alpha1.NATSJournal {
	last := render.ReadWebhook(manifest)
	switch {
	case w.Spec.Journal.NATS != nil || last == nil:
		return nil
	case last.Spec.Journal.NATS != nil:
		return last.Spec.Journal.NATS
	case drained == render.Hash(manifest):
		return nil
	}
	return last.JournalBefore()
}

// drained is whether all receivers have said, under the configuration of now, that nothing is left in a journal before.
func (a *receivers) drained() bool {
	return a.polled && a.available > 0 && a.unreachable == 0 && len(a.behind) == 0 && a.refused == "" && a.report != nil && a.report.Draining == nil
}

// move finds out whether the journal is on its way from one kind to another.
func (r *Reconciler) move(ctx context.Context, w *v1alpha1.PBXWebhook, seen *observation) error {
	known := r.known.get(w)
	if report := seen.receivers.report; report != nil && report.Draining != nil {
		known.left = report.Draining.DeadLetters
		r.known.put(w, known)
	}
	drained := seen.receivers.drained()
	if w.Spec.Journal.NATS == nil {
		if seen.moving = seen.configuration.before != nil; seen.moving && drained {
			known.drained = seen.configuration.hash
			r.known.put(w, known)
			r.announceMoved(w, known.left, "the stream in NATS")
		}
		return nil
	}
	deployment := &appsv1.Deployment{}
	if err := r.Get(ctx, childKey(w), deployment); err != nil {
		return client.IgnoreNotFound(err)
	}
	volume := render.JournalVolume(deployment)
	holds, err := r.mayHoldEvents(ctx, w, volume, seen.pods)
	if err != nil || !holds {
		return err
	}
	if !drained {
		seen.moving, seen.former = true, volume
		return nil
	}
	if known.drained != seen.configuration.hash { // until its volume is gone
		known.drained = seen.configuration.hash
		r.known.put(w, known)
		r.announceMoved(w, known.left, "the claim "+render.Name(w.Name))
	}
	return nil
}

// mayHoldEvents is whether there may be events on the volume of an embedded journal: not where no receiver has ever had
// it.
func (r *Reconciler) mayHoldEvents(ctx context.Context, w *v1alpha1.PBXWebhook, volume render.Volume, pods []corev1.Pod) (bool, error) {
	switch volume {
	case render.ClaimVolume:
		claim := &corev1.PersistentVolumeClaim{}
		if err := r.Get(ctx, childKey(w), claim); err != nil {
			return false, client.IgnoreNotFound(err)
		}
		return claim.Status.Phase != corev1.ClaimPending, nil
	case render.EmptyDirVolume:
		return slices.ContainsFunc(pods, func(p corev1.Pod) bool { return hasRun(&p) }), nil
	}
	return false, nil
}

func (r *Reconciler) announceMoved(w *v1alpha1.PBXWebhook, left int64, where string) {
	if left > 0 {
		r.Events.Eventf(w, nil, corev1.EventTypeWarning, v1alpha1.ReasonJournalMoved, "Reconcile",
			"all events of the journal before were delivered or given up; %d that were given up stay in %s and are not shown any more", left, where)
		return
	}
	r.Events.Eventf(w, nil, corev1.EventTypeNormal, v1alpha1.ReasonJournalMoved, "Reconcile", "all events of the journal before were delivered")
}

// movingMessage says how far it is; the number is in the counters.
func movingMessage(seen *observation) string {
	const first = "what waits in the journal before goes to the targets first"
	switch report := seen.receivers.report; {
	case !seen.receivers.polled:
		return first + "; the operator does not ask receivers (--poll-receivers=false), and cannot know when that is done"
	case report != nil && report.Draining != nil && report.Draining.Problem != "":
		return "the journal before cannot be read: " + report.Draining.Problem
	}
	return first + ": see status.events.draining"
}
