package render

import (
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1ac "sigs.k8s.io/gateway-api/applyconfiguration/apis/v1"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
)

// HTTPRoute leads requests for this webhook from Gateways to the receiver; nil where none is asked for.
func HTTPRoute(w *v1alpha1.PBXWebhook) *gatewayv1ac.HTTPRouteApplyConfiguration {
	if w.Spec.Expose == nil || w.Spec.Expose.Gateway == nil {
		return nil
	}
	expose := w.Spec.Expose.Gateway
	spec := gatewayv1ac.HTTPRouteSpec().WithRules(gatewayv1ac.HTTPRouteRule().
		WithMatches(gatewayv1ac.HTTPRouteMatch().WithPath(gatewayv1ac.HTTPPathMatch().
			WithType(gatewayv1.PathMatchPathPrefix).WithValue(Path(w)))).
		WithBackendRefs(gatewayv1ac.HTTPBackendRef().
			WithName(gatewayv1.ObjectName(Name(w.Name))).WithPort(servicePort)))
	for _, parent := range expose.ParentRefs {
		ref := gatewayv1ac.ParentReference().WithName(gatewayv1.ObjectName(parent.Name))
		if parent.Namespace != "" {
			ref.WithNamespace(gatewayv1.Namespace(parent.Namespace))
		}
		if parent.SectionName != "" {
			ref.WithSectionName(gatewayv1.SectionName(parent.SectionName))
		}
		spec.WithParentRefs(ref)
	}
	for _, host := range expose.Hostnames {
		spec.WithHostnames(gatewayv1.Hostname(host))
	}
	return gatewayv1ac.HTTPRoute(Name(w.Name), w.Namespace).
		WithLabels(Labels(w)).
		WithOwnerReferences(owner(w)).
		WithSpec(spec)
}
