package render

import (
	networkingv1 "k8s.io/api/networking/v1"
	networkingv1ac "k8s.io/client-go/applyconfigurations/networking/v1"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
)

// Ingress leads a host's requests for this webhook to the receiver; nil where none is asked for.
func Ingress(w *v1alpha1.PBXWebhook) *networkingv1ac.IngressApplyConfiguration {
	if w.Spec.Expose == nil || w.Spec.Expose.Ingress == nil {
		return nil
	}
	expose := w.Spec.Expose.Ingress
	spec := networkingv1ac.IngressSpec().WithRules(networkingv1ac.IngressRule().
		WithHost(expose.Host).
		WithHTTP(networkingv1ac.HTTPIngressRuleValue().WithPaths(networkingv1ac.HTTPIngressPath().
			WithPath(Path(w)).
			WithPathType(networkingv1.PathTypePrefix).
			WithBackend(networkingv1ac.IngressBackend().WithService(networkingv1ac.IngressServiceBackend().
				WithName(Name(w.Name)).
				WithPort(networkingv1ac.ServiceBackendPort().WithName(PortWebhooks)))))))
	if expose.ClassName != "" {
		spec.WithIngressClassName(expose.ClassName)
	}
	if expose.TLSSecretName != "" {
		spec.WithTLS(networkingv1ac.IngressTLS().WithHosts(expose.Host).WithSecretName(expose.TLSSecretName))
	}
	return networkingv1ac.Ingress(Name(w.Name), w.Namespace).
		WithLabels(Labels(w)).
		WithAnnotations(annotations(expose.Annotations)).
		WithOwnerReferences(owner(w)).
		WithSpec(spec)
}
