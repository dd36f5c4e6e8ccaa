package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The types of this file have the fields of their namesakes in core/v1, and bounds: the schema of
// those lets numbers through that Go cannot decode. They convert by way of JSON.

// Toleration lets the receiver's pods run on nodes with a matching taint (core/v1 Toleration).
type Toleration struct {
	// key of the taint; all keys when absent.
	// +optional
	// +kubebuilder:validation:MaxLength=317
	Key string `json:"key,omitempty"`

	// operator compares the value: Equal (default) or Exists.
	// +optional
	// +kubebuilder:validation:Enum=Equal;Exists
	Operator string `json:"operator,omitempty"`

	// value of the taint.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Value string `json:"value,omitempty"`

	// effect of the taint; all effects when absent.
	// +optional
	// +kubebuilder:validation:Enum=NoSchedule;PreferNoSchedule;NoExecute
	Effect string `json:"effect,omitempty"`

	// tolerationSeconds is how long a taint with effect NoExecute is tolerated; for ever when absent.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=31536000
	TolerationSeconds *int64 `json:"tolerationSeconds,omitempty"`
}

// Affinity says near what the receiver's pods run (core/v1 Affinity).
type Affinity struct {
	// nodeAffinity is about nodes.
	// +optional
	NodeAffinity *NodeAffinity `json:"nodeAffinity,omitempty"`

	// podAffinity draws to other pods.
	// +optional
	PodAffinity *PodAffinity `json:"podAffinity,omitempty"`

	// podAntiAffinity keeps away from other pods.
	// +optional
	PodAntiAffinity *PodAffinity `json:"podAntiAffinity,omitempty"`
}

// NodeAffinity says on which nodes the receiver's pods run (core/v1 NodeAffinity).
type NodeAffinity struct {
	// requiredDuringSchedulingIgnoredDuringExecution must hold of a node.
	// +optional
	RequiredDuringSchedulingIgnoredDuringExecution *corev1.NodeSelector `json:"requiredDuringSchedulingIgnoredDuringExecution,omitempty"`

	// preferredDuringSchedulingIgnoredDuringExecution should hold of a node.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	PreferredDuringSchedulingIgnoredDuringExecution []PreferredSchedulingTerm `json:"preferredDuringSchedulingIgnoredDuringExecution,omitempty"`
}

// PreferredSchedulingTerm is a preference among nodes (core/v1 PreferredSchedulingTerm).
type PreferredSchedulingTerm struct {
	// weight of the preference.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	Weight int32 `json:"weight,omitempty"`

	// preference that a node may match.
	// +required
	Preference corev1.NodeSelectorTerm `json:"preference"`
}

// PodAffinity says near which pods, or away from which, the receiver's pods run (core/v1
// PodAffinity and PodAntiAffinity).
type PodAffinity struct {
	// requiredDuringSchedulingIgnoredDuringExecution must hold.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	RequiredDuringSchedulingIgnoredDuringExecution []corev1.PodAffinityTerm `json:"requiredDuringSchedulingIgnoredDuringExecution,omitempty"`

	// preferredDuringSchedulingIgnoredDuringExecution should hold.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	PreferredDuringSchedulingIgnoredDuringExecution []WeightedPodAffinityTerm `json:"preferredDuringSchedulingIgnoredDuringExecution,omitempty"`
}

// WeightedPodAffinityTerm is a preference among pods (core/v1 WeightedPodAffinityTerm).
type WeightedPodAffinityTerm struct {
	// weight of the preference.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	Weight int32 `json:"weight,omitempty"`

	// podAffinityTerm that pods may match.
	// +required
	PodAffinityTerm corev1.PodAffinityTerm `json:"podAffinityTerm"`
}

// TopologySpreadConstraint spreads the receiver's pods (core/v1 TopologySpreadConstraint).
type TopologySpreadConstraint struct {
	// maxSkew is by how many pods two domains may differ.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	MaxSkew int32 `json:"maxSkew,omitempty"`

	// topologyKey is the node label that tells domains apart.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=317
	TopologyKey string `json:"topologyKey,omitempty"`

	// whenUnsatisfiable says what to do with a pod that does not fit.
	// +required
	// +kubebuilder:validation:Enum=DoNotSchedule;ScheduleAnyway
	WhenUnsatisfiable string `json:"whenUnsatisfiable,omitempty"`

	// labelSelector says which pods are counted; the receiver's own when absent.
	// +optional
	LabelSelector *metav1.LabelSelector `json:"labelSelector,omitempty"`

	// minDomains is the least number of domains.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	MinDomains *int32 `json:"minDomains,omitempty"`

	// nodeAffinityPolicy says whether the pods' node affinity bounds the domains.
	// +optional
	// +kubebuilder:validation:Enum=Honor;Ignore
	NodeAffinityPolicy *string `json:"nodeAffinityPolicy,omitempty"`

	// nodeTaintsPolicy says whether taints bound the domains.
	// +optional
	// +kubebuilder:validation:Enum=Honor;Ignore
	NodeTaintsPolicy *string `json:"nodeTaintsPolicy,omitempty"`

	// matchLabelKeys are pod labels whose values tell revisions apart.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MaxLength=317
	MatchLabelKeys []string `json:"matchLabelKeys,omitempty"`
}
