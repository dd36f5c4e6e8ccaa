package render

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
)

// Service is the address of the receiver in the cluster.
func Service(w *v1alpha1.PBXWebhook) *corev1ac.ServiceApplyConfiguration {
	port := func(name string, port, target int32) *corev1ac.ServicePortApplyConfiguration {
		return corev1ac.ServicePort().WithName(name).WithPort(port).WithTargetPort(intstr.FromInt32(target)).
			WithProtocol(corev1.ProtocolTCP).WithAppProtocol("http")
	}
	return corev1ac.Service(Name(w.Name), w.Namespace).
		WithLabels(Labels(w)).
		WithOwnerReferences(owner(w)).
		WithSpec(corev1ac.ServiceSpec().
			WithType(corev1.ServiceTypeClusterIP).
			WithSelector(Selector(w)).
			WithPorts(port("webhooks", 80, webhooksPort), port("metrics", metricsPort, metricsPort)))
}
