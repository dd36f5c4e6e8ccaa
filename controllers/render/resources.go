package render

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
)

var (
	defaultRequests = corev1.ResourceList{
		corev1.ResourceCPU:    resource.MustParse("10m"),
		corev1.ResourceMemory: resource.MustParse("32Mi"),
	}
	// defaultMemory is a receiver's limit: what it needs under an attack, or with a million waiting events, and as much
	// again (test/fault).
	defaultMemory = resource.MustParse("512Mi")
)

// resources returns what a receiver's container asks for and may not exceed. Without a limit of memory it gets the
// default one, or as much as it asks for.
func resources(r *v1alpha1.Resources) *corev1ac.ResourceRequirementsApplyConfiguration {
	requests, limits := defaultRequests.DeepCopy(), corev1.ResourceList{}
	if r != nil && r.Requests != nil {
		for name, quantity := range quantities(r.Requests) {
			requests[name] = quantity
		}
	}
	if r != nil && r.Limits != nil {
		limits = quantities(r.Limits)
		for name, limit := range limits { // a request above its limit is invalid: the default one is lowered
			if request, ok := defaultRequests[name]; ok && request.Cmp(limit) > 0 && request.Equal(requests[name]) {
				requests[name] = limit
			}
		}
	}
	if _, given := limits[corev1.ResourceMemory]; !given {
		limits[corev1.ResourceMemory] = defaultMemory
		if requested := requests[corev1.ResourceMemory]; requested.Cmp(defaultMemory) > 0 {
			limits[corev1.ResourceMemory] = requested
		}
	}
	return corev1ac.ResourceRequirements().WithRequests(requests).WithLimits(limits)
}

// memoryLimit returns the variable that has Go's collector work harder before the limit: at 80 % of it, since stacks,
// the program and the journal's mapped pages are not Go's to count.
func memoryLimit(r *corev1ac.ResourceRequirementsApplyConfiguration) []string {
	limit := (*r.Limits)[corev1.ResourceMemory]
	return []string{fmt.Sprintf("GOMEMLIMIT=%d", limit.Value()/5*4)}
}

func quantities(l *v1alpha1.ResourceList) corev1.ResourceList {
	list := corev1.ResourceList{}
	for name, quantity := range map[corev1.ResourceName]*resource.Quantity{
		corev1.ResourceCPU: l.CPU, corev1.ResourceMemory: l.Memory, corev1.ResourceEphemeralStorage: l.EphemeralStorage,
	} {
		if quantity != nil {
			list[name] = *quantity
		}
	}
	return list
}
