package render

import (
	"k8s.io/apimachinery/pkg/util/intstr"
	metav1ac "k8s.io/client-go/applyconfigurations/meta/v1"
	policyv1ac "k8s.io/client-go/applyconfigurations/policy/v1"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
)

// DisruptionBudget has the nodes of several receivers drained one after the other. A single receiver
// has none: a budget would either change nothing or block the drain for ever.
func DisruptionBudget(w *v1alpha1.PBXWebhook) *policyv1ac.PodDisruptionBudgetApplyConfiguration {
	if Replicas(w) < 2 {
		return nil
	}
	return policyv1ac.PodDisruptionBudget(Name(w.Name), w.Namespace).
		WithLabels(Labels(w)).
		WithOwnerReferences(owner(w)).
		WithSpec(policyv1ac.PodDisruptionBudgetSpec().
			WithMaxUnavailable(intstr.FromInt32(1)).
			WithSelector(metav1ac.LabelSelector().WithMatchLabels(Selector(w))))
}
