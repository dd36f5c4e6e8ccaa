package render

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
)

// PodMonitorKind is Prometheus Operator's kind of what is to be scraped.
var PodMonitorKind = schema.GroupVersionKind{Group: "monitoring.coreos.com", Version: "v1", Kind: "PodMonitor"}

// PodMonitor has Prometheus Operator scrape the receiver. It is a PodMonitor and no ServiceMonitor
// because a Service that is exposed to the outside has no port for metrics.
func PodMonitor(w *v1alpha1.PBXWebhook) *unstructured.Unstructured {
	selector := map[string]any{}
	for name, value := range Selector(w) {
		selector[name] = value
	}
	monitor := &unstructured.Unstructured{Object: map[string]any{
		"spec": map[string]any{
			"selector":            map[string]any{"matchLabels": selector},
			"podMetricsEndpoints": []any{map[string]any{"port": "metrics"}},
		},
	}}
	monitor.SetGroupVersionKind(PodMonitorKind)
	monitor.SetNamespace(w.Namespace)
	monitor.SetName(Name(w.Name))
	monitor.SetLabels(Labels(w))
	monitor.SetOwnerReferences([]metav1.OwnerReference{*metav1.NewControllerRef(w, v1alpha1.GroupVersion.WithKind(v1alpha1.Kind))})
	return monitor
}
