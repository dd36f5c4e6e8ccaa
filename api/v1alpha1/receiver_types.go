package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
)

// Receiver says how the receiver runs.
type Receiver struct {
	// replicas is the number of receiver pods. More than one needs journal.nats.
	// Default: 1.
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	Replicas *int32 `json:"replicas,omitempty"`

	// resources of the receiver's container. Default: a memory limit of 512Mi (or the request, if that is more).
	// GOMEMLIMIT is 80 % of the limit.
	// +optional
	Resources *Resources `json:"resources,omitempty"`

	// tls terminates TLS in the receiver, on port 8443.
	// +optional
	TLS *ReceiverTLS `json:"tls,omitempty"`

	// pod says where and as what the receiver's pods run.
	// +optional
	Pod *Pod `json:"pod,omitempty"`
}

// ReceiverTLS terminates TLS in the receiver.
type ReceiverTLS struct {
	// secretRef names a Secret with the keys tls.crt and tls.key. It is reloaded when it changes.
	// +required
	SecretRef SecretReference `json:"secretRef,omitzero"`
}

// Resources of a container: what it asks for and what it may not exceed.
type Resources struct {
	// limits are what the container may not exceed.
	// +optional
	Limits *ResourceList `json:"limits,omitempty"`

	// requests are what the container is given.
	// +optional
	Requests *ResourceList `json:"requests,omitempty"`
}

// ResourceList is a set of resources. Unlike core/v1's map it judges each quantity: one that the
// API server takes and Go cannot read would stop the operator.
//
// +kubebuilder:validation:MinProperties=1
type ResourceList struct {
	// cpu time in cores, such as 50m.
	// +optional
	// +kubebuilder:validation:XValidation:rule="string(self).matches('^[0-9]{1,18}([.][0-9]{1,9})?([numkMGTPE]|[KMGTPE]i)?$')",message="must be a quantity, such as 50m",messageExpression="'must be a quantity, such as 50m: got ' + string(self)"
	CPU *resource.Quantity `json:"cpu,omitempty"`

	// memory in bytes, such as 64Mi.
	// +optional
	// +kubebuilder:validation:XValidation:rule="string(self).matches('^[0-9]{1,18}([.][0-9]{1,9})?([numkMGTPE]|[KMGTPE]i)?$')",message="must be a quantity, such as 64Mi",messageExpression="'must be a quantity, such as 64Mi: got ' + string(self)"
	Memory *resource.Quantity `json:"memory,omitempty"`

	// ephemeral-storage in bytes, such as 1Gi.
	// +optional
	// +kubebuilder:validation:XValidation:rule="string(self).matches('^[0-9]{1,18}([.][0-9]{1,9})?([numkMGTPE]|[KMGTPE]i)?$')",message="must be a quantity, such as 1Gi",messageExpression="'must be a quantity, such as 1Gi: got ' + string(self)"
	EphemeralStorage *resource.Quantity `json:"ephemeral-storage,omitempty"`
}

// Pod says where and as what the receiver's pods run.
type Pod struct {
	// labels added to the pods. Those of pbxhook itself cannot be replaced.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(k, size(k) <= 317 && k.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$') && size(self[k]) <= 63 && self[k].matches('^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$'))",message="keys and values must be valid labels"
	// +kubebuilder:validation:XValidation:rule="self.all(k, !k.startsWith('app.kubernetes.io/') && !k.startsWith('pbxhook.io/'))",message="labels under app.kubernetes.io/ and pbxhook.io/ are pbxhook's own"
	Labels map[string]LabelValue `json:"labels,omitempty"`

	// annotations added to the pods.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(k, size(k) <= 317 && k.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$') && !k.startsWith('pbxhook.io/'))",message="keys must be valid annotation names, and not under pbxhook.io/"
	Annotations map[string]AnnotationValue `json:"annotations,omitempty"`

	// nodeSelector that nodes must match.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(k, size(k) <= 317 && k.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$') && size(self[k]) <= 63 && self[k].matches('^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$'))",message="keys and values must be valid labels"
	NodeSelector map[string]LabelValue `json:"nodeSelector,omitempty"`

	// tolerations of the pods.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Tolerations []Toleration `json:"tolerations,omitempty"`

	// affinity of the pods.
	// +optional
	Affinity *Affinity `json:"affinity,omitempty"`

	// topologySpreadConstraints of the pods.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	TopologySpreadConstraints []TopologySpreadConstraint `json:"topologySpreadConstraints,omitempty"`

	// priorityClassName of the pods.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$`
	PriorityClassName string `json:"priorityClassName,omitempty"`

	// imagePullSecrets name Secrets in this namespace to pull the image with.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=8
	ImagePullSecrets []SecretReference `json:"imagePullSecrets,omitempty"`
}

// LabelValue is the value of a label.
//
// +kubebuilder:validation:MaxLength=63
type LabelValue string

// AnnotationValue is the value of an annotation.
//
// +kubebuilder:validation:MaxLength=4096
type AnnotationValue string
