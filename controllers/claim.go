package controllers

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
)

// fitClaim has a claim ask for no less than it has: claims do not shrink. So the spec can return to what the claim has
// after a growth that the cluster rejected, and a claim that an admin or an autoresizer grew stays as it is. A growth
// that was accepted and not carried out can be taken back.
func (r *Reconciler) fitClaim(ctx context.Context, w *v1alpha1.PBXWebhook, desired *corev1ac.PersistentVolumeClaimApplyConfiguration, seen *observation) error {
	live := &corev1.PersistentVolumeClaim{}
	if err := r.Get(ctx, childKey(w), live); err != nil {
		return client.IgnoreNotFound(err)
	}
	asked, wanted := live.Spec.Resources.Requests[corev1.ResourceStorage], (*desired.Spec.Resources.Requests)[corev1.ResourceStorage]
	if capacity := live.Status.Capacity[corev1.ResourceStorage]; wanted.Cmp(asked) >= 0 || !capacity.IsZero() && wanted.Cmp(capacity) >= 0 {
		return nil
	}
	(*desired.Spec.Resources.Requests)[corev1.ResourceStorage] = asked
	seen.claimNote = fmt.Sprintf("; its claim has %s and stays so, since claims do not shrink (the spec says %s)", asked.String(), wanted.String())
	return nil
}

// claimRejected says both ways out of a claim that the cluster does not let grow.
func (r *Reconciler) claimRejected(ctx context.Context, w *v1alpha1.PBXWebhook, cause *blockedError) *blockedError {
	live := &corev1.PersistentVolumeClaim{}
	if cause.reason != v1alpha1.ReasonApplyFailed || r.Get(ctx, childKey(w), live) != nil {
		return cause
	}
	size := live.Spec.Resources.Requests[corev1.ResourceStorage]
	return &blockedError{reason: v1alpha1.ReasonClaimRejected, message: fmt.Sprintf(
		"the cluster does not let the claim %s grow: set journal.embedded.storage.claim.size back to %s, or have its storage class allow it (allowVolumeExpansion); all else of the spec is applied (%s)",
		live.Name, size.String(), cause.message)}
}
