package v1alpha1

// Expose gives the receiver an address outside the cluster.
//
// +kubebuilder:validation:XValidation:rule="[has(self.service), has(self.gateway), has(self.ingress)].filter(x, x).size() <= 1",message="at most one of service, gateway and ingress may be set"
type Expose struct {
	// service makes the receiver's Service reachable from outside.
	// +optional
	Service *ExposeService `json:"service,omitempty"`

	// gateway makes an HTTPRoute to the receiver.
	// +optional
	Gateway *ExposeGateway `json:"gateway,omitempty"`

	// ingress makes an Ingress to the receiver.
	// +optional
	Ingress *ExposeIngress `json:"ingress,omitempty"`
}

// ExposeService makes the receiver's Service reachable from outside.
//
// +kubebuilder:validation:XValidation:rule="!has(self.loadBalancerClass) || self.type == 'LoadBalancer'",fieldPath=".loadBalancerClass",message="loadBalancerClass goes with type LoadBalancer"
// +kubebuilder:validation:XValidation:rule="has(self.loadBalancerClass) == has(oldSelf.loadBalancerClass) && (!has(self.loadBalancerClass) || self.loadBalancerClass == oldSelf.loadBalancerClass)",fieldPath=".loadBalancerClass",message="loadBalancerClass cannot be changed: remove expose.service first"
type ExposeService struct {
	// type of the Service.
	// Default: LoadBalancer.
	// +optional
	// +kubebuilder:default=LoadBalancer
	// +kubebuilder:validation:Enum=LoadBalancer;NodePort
	Type string `json:"type,omitempty"`

	// loadBalancerClass is the implementation of the load balancer; the cluster's default when absent.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	LoadBalancerClass string `json:"loadBalancerClass,omitempty"`

	// externalTrafficPolicy Local keeps the sender's address; Cluster lets every node answer.
	// Default: Local.
	// +optional
	// +kubebuilder:default=Local
	// +kubebuilder:validation:Enum=Local;Cluster
	ExternalTrafficPolicy string `json:"externalTrafficPolicy,omitempty"`

	// annotations of the Service.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	Annotations map[string]AnnotationValue `json:"annotations,omitempty"`
}

// ExposeGateway makes an HTTPRoute to the receiver.
type ExposeGateway struct {
	// parentRefs are the Gateways that the route is attached to.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	ParentRefs []ParentReference `json:"parentRefs,omitempty"`

	// hostnames of the route. The first is used in the address.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:items:Pattern=`^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
	Hostnames []string `json:"hostnames,omitempty"`
}

// ParentReference names a Gateway.
type ParentReference struct {
	// name of the Gateway.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`

	// namespace of the Gateway; that of the webhook when absent.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`

	// sectionName is the listener of the Gateway; all when absent.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	SectionName string `json:"sectionName,omitempty"`
}

// ExposeIngress makes an Ingress to the receiver.
type ExposeIngress struct {
	// className of the Ingress; the cluster's default when absent.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	ClassName string `json:"className,omitempty"`

	// host of the Ingress.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
	Host string `json:"host,omitempty"`

	// tlsSecretName names the Secret with the host's certificate; plain http when absent.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	TLSSecretName string `json:"tlsSecretName,omitempty"`

	// annotations of the Ingress.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	Annotations map[string]AnnotationValue `json:"annotations,omitempty"`
}
