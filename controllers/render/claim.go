package render

import (
	corev1 "k8s.io/api/core/v1"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
)

// NeedsClaim is whether the journal lies on a claim.
func NeedsClaim(w *v1alpha1.PBXWebhook) bool {
	e := w.Spec.Journal.EmbeddedOrDefault()
	return e != nil && e.Storage.Claim != nil
}

// Volatile is whether the journal goes with the pod.
func Volatile(w *v1alpha1.PBXWebhook) bool {
	e := w.Spec.Journal.EmbeddedOrDefault()
	return e != nil && e.Storage.EmptyDir != nil
}

// Claim is the disk of an embedded journal; nil where it has none. It is the webhook's, and goes with
// it, only where deletionPolicy is Delete.
func Claim(w *v1alpha1.PBXWebhook) *corev1ac.PersistentVolumeClaimApplyConfiguration {
	if !NeedsClaim(w) {
		return nil
	}
	spec := w.Spec.Journal.EmbeddedOrDefault().Storage.Claim
	claim := corev1ac.PersistentVolumeClaim(Name(w.Name), w.Namespace).
		WithLabels(Labels(w)).
		WithSpec(corev1ac.PersistentVolumeClaimSpec().
			WithAccessModes(corev1.ReadWriteOnce).
			WithResources(corev1ac.VolumeResourceRequirements().WithRequests(corev1.ResourceList{corev1.ResourceStorage: *spec.Size})))
	if spec.StorageClassName != nil {
		claim.Spec.WithStorageClassName(*spec.StorageClassName)
	}
	if w.Spec.Journal.DeletionPolicy == v1alpha1.DeletionDelete {
		claim.WithOwnerReferences(owner(w))
	}
	return claim
}
