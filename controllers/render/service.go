package render

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
)

// The names of the Service's ports.
const (
	PortWebhooks    = "webhooks"
	PortWebhooksTLS = "webhooks-tls"
	PortMetrics     = "metrics"
)

// Ports of the Service.
const (
	servicePort    = 80
	serviceTLSPort = 443
)

// Service is the address of the receiver: in the cluster, or outside where spec.expose.service says so.
// To the outside it shows no metrics, and where the receiver has TLS nothing but that: passwords do not
// cross a network in the clear because somebody pasted http instead of https.
func Service(w *v1alpha1.PBXWebhook) *corev1ac.ServiceApplyConfiguration {
	port := func(name string, port, target int32) *corev1ac.ServicePortApplyConfiguration {
		protocol := "http"
		if name == PortWebhooksTLS {
			protocol = "https"
		}
		return corev1ac.ServicePort().WithName(name).WithPort(port).WithTargetPort(intstr.FromInt32(target)).
			WithProtocol(corev1.ProtocolTCP).WithAppProtocol(protocol)
	}
	outside := exposedService(w)
	spec := corev1ac.ServiceSpec().WithType(corev1.ServiceTypeClusterIP).WithSelector(Selector(w))
	if outside == nil || !TLS(w) {
		spec.WithPorts(port(PortWebhooks, servicePort, webhooksPort))
	}
	if TLS(w) {
		spec.WithPorts(port(PortWebhooksTLS, serviceTLSPort, webhooksTLSPort))
	}
	service := corev1ac.Service(Name(w.Name), w.Namespace).
		WithLabels(Labels(w)).
		WithOwnerReferences(owner(w)).
		WithSpec(spec)
	if outside == nil {
		spec.WithPorts(port(PortMetrics, metricsPort, metricsPort))
		return service
	}
	spec.WithType(corev1.ServiceType(outside.Type))
	if outside.ExternalTrafficPolicy != "" {
		spec.WithExternalTrafficPolicy(corev1.ServiceExternalTrafficPolicy(outside.ExternalTrafficPolicy))
	}
	if outside.LoadBalancerClass != "" {
		spec.WithLoadBalancerClass(outside.LoadBalancerClass)
	}
	return service.WithAnnotations(annotations(outside.Annotations))
}

func exposedService(w *v1alpha1.PBXWebhook) *v1alpha1.ExposeService {
	if w.Spec.Expose == nil {
		return nil
	}
	return w.Spec.Expose.Service
}

// annotations are those that people give, as for other tools: external-dns, cert-manager, clouds.
func annotations(given map[string]v1alpha1.AnnotationValue) map[string]string {
	plain := make(map[string]string, len(given))
	for name, value := range given {
		plain[name] = string(value)
	}
	return plain
}
