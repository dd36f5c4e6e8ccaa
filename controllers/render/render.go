// Package render says which Kubernetes objects a PBXWebhook needs: pure functions, one file a kind.
// What they return is all that the operator owns of an object (server-side apply).
//
// It must not know a cluster: what was found there is passed in.
package render

import (
	metav1ac "k8s.io/client-go/applyconfigurations/meta/v1"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
)

// Labels and annotations that pbxhook puts on objects.
const (
	// LabelManagedBy and ManagedBy mark every object that the operator made.
	LabelManagedBy = "app.kubernetes.io/managed-by"
	ManagedBy      = "pbxhook-operator"
	// LabelName and ReceiverName mark what belongs to receivers.
	LabelName    = "app.kubernetes.io/name"
	ReceiverName = "pbxhook-receiver"
	// LabelWebhook names the PBXWebhook that an object belongs to.
	LabelWebhook = "pbxhook.io/webhook"
	// AnnotationConfig is the hash of the configuration in a Secret, and the one that a pod was
	// told of.
	AnnotationConfig = "pbxhook.io/config"
)

// Ports of a receiver pod.
const (
	webhooksPort    = 8080
	webhooksTLSPort = 8443
	metricsPort     = 9090
)

// MetricsPort is where a receiver pod says how it fares.
const MetricsPort = metricsPort

// Name is that of every child of a webhook.
func Name(webhook string) string { return webhook + "-receiver" }

// Path is where the receiver takes the webhook's requests.
func Path(w *v1alpha1.PBXWebhook) string { return "/hooks/" + w.Namespace + "/" + w.Name }

// Enabled is whether the webhook is to receive events.
func Enabled(w *v1alpha1.PBXWebhook) bool { return w.Spec.Enabled == nil || *w.Spec.Enabled }

// Replicas is how many receivers are wanted.
func Replicas(w *v1alpha1.PBXWebhook) int32 {
	switch {
	case !Enabled(w):
		return 0
	case w.Spec.Receiver.Replicas != nil:
		return *w.Spec.Receiver.Replicas
	default:
		return 1
	}
}

// TLS is whether the receiver terminates TLS.
func TLS(w *v1alpha1.PBXWebhook) bool { return w.Spec.Receiver.TLS != nil }

// Labels are those of every child of a webhook.
func Labels(w *v1alpha1.PBXWebhook) map[string]string {
	return map[string]string{
		LabelManagedBy:               ManagedBy,
		LabelName:                    ReceiverName,
		"app.kubernetes.io/instance": w.Name,
		LabelWebhook:                 w.Name,
	}
}

// Selector are the labels that tell a webhook's receiver pods. They never change.
func Selector(w *v1alpha1.PBXWebhook) map[string]string {
	return map[string]string{LabelName: ReceiverName, LabelWebhook: w.Name}
}

// owner makes the webhook the controller of a child, which then goes with it.
func owner(w *v1alpha1.PBXWebhook) *metav1ac.OwnerReferenceApplyConfiguration {
	return metav1ac.OwnerReference().
		WithAPIVersion(v1alpha1.GroupVersion.String()).WithKind(v1alpha1.Kind).
		WithName(w.Name).WithUID(w.UID).
		WithController(true).WithBlockOwnerDeletion(true)
}
