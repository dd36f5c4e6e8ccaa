package render

import (
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	metav1ac "k8s.io/client-go/applyconfigurations/meta/v1"
	networkingv1ac "k8s.io/client-go/applyconfigurations/networking/v1"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
)

// NetworkPolicy lets everyone send events, and only the operator and the monitoring ask how the
// receiver fares. Where targets are is not restricted here: the receiver looks at each address that
// it dials.
func NetworkPolicy(w *v1alpha1.PBXWebhook, askers []string) *networkingv1ac.NetworkPolicyApplyConfiguration {
	port := func(port int32) *networkingv1ac.NetworkPolicyPortApplyConfiguration {
		return networkingv1ac.NetworkPolicyPort().WithProtocol(corev1.ProtocolTCP).WithPort(intstr.FromInt32(port))
	}
	hooks := networkingv1ac.NetworkPolicyIngressRule().WithPorts(port(webhooksPort))
	if TLS(w) {
		hooks.WithPorts(port(webhooksTLSPort))
	}
	rules := []*networkingv1ac.NetworkPolicyIngressRuleApplyConfiguration{hooks}
	if len(askers) > 0 { // a rule without peers would let everyone in
		rules = append(rules, networkingv1ac.NetworkPolicyIngressRule().
			WithPorts(port(metricsPort)).
			WithFrom(networkingv1ac.NetworkPolicyPeer().WithNamespaceSelector(metav1ac.LabelSelector().
				WithMatchExpressions(metav1ac.LabelSelectorRequirement().
					WithKey(corev1.LabelMetadataName).WithOperator("In").WithValues(askers...)))))
	}
	return networkingv1ac.NetworkPolicy(Name(w.Name), w.Namespace).
		WithLabels(Labels(w)).
		WithOwnerReferences(owner(w)).
		WithSpec(networkingv1ac.NetworkPolicySpec().
			WithPodSelector(metav1ac.LabelSelector().WithMatchLabels(Selector(w))).
			WithPolicyTypes(networkingv1.PolicyTypeIngress).
			WithIngress(rules...))
}
