package v1alpha1

import (
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// DeletionPolicy is what becomes of the kept events when the webhook is deleted.
//
// +kubebuilder:validation:Enum=Retain;Delete
type DeletionPolicy string

// The deletion policies.
const (
	// DeletionRetain keeps the claim or the stream; a webhook made anew under the same name resumes it.
	DeletionRetain DeletionPolicy = "Retain"
	// DeletionDelete deletes the claim or the stream with the webhook.
	DeletionDelete DeletionPolicy = "Delete"
)

// Journal is where events are kept until all targets have them: embedded, or in NATS. When neither is set it is
// embedded; that default is the operator's and the receiver's (EmbeddedOrDefault), not the schema's, so that setting
// nats is one edit.
//
// +kubebuilder:validation:XValidation:rule="!has(self.embedded) || !has(self.nats)",message="at most one of embedded and nats may be set: got both. A webhook that an earlier version gave an embedded journal by default needs `embedded: null` once beside nats"
type Journal struct {
	// embedded keeps events in a file of the receiver's own. When neither it nor nats is set, events
	// are kept so, with its defaults.
	// +optional
	Embedded *EmbeddedJournal `json:"embedded,omitempty"`

	// nats keeps events in a JetStream stream of a NATS cluster that you run.
	// +optional
	NATS *NATSJournal `json:"nats,omitempty"`

	// deletionPolicy is what becomes of the claim or the stream when the webhook is deleted.
	// Default: Retain.
	// +optional
	// +kubebuilder:default=Retain
	DeletionPolicy DeletionPolicy `json:"deletionPolicy,omitempty"`
}

// EmbeddedJournal keeps events in a file of the receiver's own.
//
// Rules on quantities begin with a match on their text, here and elsewhere: reading 1e999999999 as a
// quantity never ends, in the API server as in Go, and rules run even where a pattern refused.
//
// +kubebuilder:validation:XValidation:rule="(has(self.storage) && has(self.storage.emptyDir)) || string(self.maxBytes).matches('e|E.') || (has(self.storage) && has(self.storage.claim) && string(self.storage.claim.size).matches('e|E.')) || quantity(string(self.maxBytes)).compareTo(quantity(has(self.storage) && has(self.storage.claim) ? string(self.storage.claim.size) : '2Gi')) < 0",fieldPath=".maxBytes",message="maxBytes (1Gi unless set) must be less than the claim's size (2Gi unless set)",messageExpression="'maxBytes (1Gi unless set) must be less than the claim\\'s size (2Gi unless set): got ' + string(self.maxBytes)"
type EmbeddedJournal struct {
	// maxBytes is how much the journal holds. When it is full of undelivered events, the PBX is
	// answered 503.
	// Default: 1Gi.
	// +optional
	// +kubebuilder:default="1Gi"
	// +kubebuilder:validation:XValidation:rule="string(self).matches('^[0-9]{1,18}([.][0-9]{1,9})?([numkMGTPE]|[KMGTPE]i)?$') && quantity(string(self)).isGreaterThan(quantity('0'))",message="must be a quantity greater than 0, such as 1Gi",messageExpression="'must be a quantity greater than 0, such as 1Gi: got ' + string(self)"
	MaxBytes *resource.Quantity `json:"maxBytes,omitempty"`

	// retention is how long delivered events are kept for replay.
	// Default: 72h.
	// +optional
	// +kubebuilder:default="72h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s|ms)){1,4}$`
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s')",message="must be more than 0",messageExpression="'must be more than 0: got ' + self"
	Retention *metav1.Duration `json:"retention,omitempty"`

	// storage is where the file lies. When absent it is a claim of 2Gi.
	// +optional
	Storage EmbeddedStorage `json:"storage,omitzero"`
}

// EmbeddedStorage is where an embedded journal's file lies: on a claim, unless emptyDir is set.
//
// +kubebuilder:validation:XValidation:rule="!has(self.claim) || !has(self.emptyDir)",message="at most one of claim and emptyDir may be set: got both"
type EmbeddedStorage struct {
	// claim is a PersistentVolumeClaim of the receiver's own.
	// +optional
	Claim *Claim `json:"claim,omitempty"`

	// emptyDir lies on the node and goes with the pod: events that are not yet delivered are lost
	// when the pod is deleted.
	// +optional
	EmptyDir *EmptyDir `json:"emptyDir,omitempty"`
}

// EmptyDir is a volume that goes with the pod. It has no fields.
type EmptyDir struct{}

// EmbeddedOrDefault returns the embedded journal with its defaults, or nil where events are kept in NATS.
func (j *Journal) EmbeddedOrDefault() *EmbeddedJournal {
	if j.NATS != nil {
		return nil
	}
	e := &EmbeddedJournal{}
	if j.Embedded != nil {
		e = j.Embedded.DeepCopy()
	}
	if e.MaxBytes == nil {
		e.MaxBytes = new(resource.MustParse("1Gi"))
	}
	if e.Retention == nil {
		e.Retention = &metav1.Duration{Duration: 72 * time.Hour}
	}
	if e.Storage.EmptyDir == nil && e.Storage.Claim == nil {
		e.Storage.Claim = &Claim{}
	}
	if claim := e.Storage.Claim; claim != nil && claim.Size == nil {
		claim.Size = new(resource.MustParse("2Gi"))
	}
	return e
}

// Claim is a PersistentVolumeClaim.
//
// +kubebuilder:validation:XValidation:rule="has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)",fieldPath=".storageClassName",message="storageClassName cannot be changed: a claim stays with its class"
type Claim struct {
	// storageClassName is the class of the claim; the cluster's default when absent.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$`
	StorageClassName *string `json:"storageClassName,omitempty"`

	// size of the claim. It grows where its class can be expanded; a smaller one than the claim has is not applied, since
	// claims do not shrink.
	// Default: 2Gi.
	// +optional
	// +kubebuilder:default="2Gi"
	// +kubebuilder:validation:XValidation:rule="string(self).matches('^[0-9]{1,18}([.][0-9]{1,9})?([numkMGTPE]|[KMGTPE]i)?$') && quantity(string(self)).isGreaterThan(quantity('0'))",message="must be a quantity greater than 0, such as 2Gi",messageExpression="'must be a quantity greater than 0, such as 2Gi: got ' + string(self)"
	Size *resource.Quantity `json:"size,omitempty"`
}

// NATSJournal keeps events in a JetStream stream.
type NATSJournal struct {
	// url of one or more servers, separated by commas: nats, tls, ws or wss.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:Pattern=`^(nats|tls|wss?)://[^/?#@,\s]+/?(,(nats|tls|wss?)://[^/?#@,\s]+/?)*$`
	URL string `json:"url,omitempty"`

	// replicas of the stream in the NATS cluster.
	// Default: 3.
	// +optional
	// +kubebuilder:default=3
	// +kubebuilder:validation:Enum=1;3;5
	Replicas int32 `json:"replicas,omitempty"`

	// account whose JetStream is used, when it is another than that of the credentials.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	Account string `json:"account,omitempty"`

	// domain of JetStream.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	Domain string `json:"domain,omitempty"`

	// credentialsSecretRef names a Secret with username and password, token, nkey or creds.
	// +optional
	CredentialsSecretRef *SecretReference `json:"credentialsSecretRef,omitempty"`

	// tls says whom to trust at the servers, and as whom to appear.
	// +optional
	TLS *NATSTLS `json:"tls,omitempty"`

	// maxBytes is how much the stream holds.
	// Default: 10Gi.
	// +optional
	// +kubebuilder:default="10Gi"
	// +kubebuilder:validation:XValidation:rule="string(self).matches('^[0-9]{1,18}([.][0-9]{1,9})?([numkMGTPE]|[KMGTPE]i)?$') && quantity(string(self)).isGreaterThan(quantity('0'))",message="must be a quantity greater than 0, such as 10Gi",messageExpression="'must be a quantity greater than 0, such as 10Gi: got ' + string(self)"
	MaxBytes *resource.Quantity `json:"maxBytes,omitempty"`

	// retention is how long delivered events are kept for replay.
	// Default: 72h.
	// +optional
	// +kubebuilder:default="72h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s|ms)){1,4}$`
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s')",message="must be more than 0",messageExpression="'must be more than 0: got ' + self"
	Retention *metav1.Duration `json:"retention,omitempty"`
}

// NATSTLS says whom to trust at NATS servers, and as whom to appear.
type NATSTLS struct {
	// ca is a PEM bundle of certificate authorities to trust instead of the system's.
	// +optional
	CA *CASource `json:"ca,omitempty"`

	// clientSecretRef names a Secret with the keys tls.crt and tls.key to appear with.
	// +optional
	ClientSecretRef *SecretReference `json:"clientSecretRef,omitempty"`
}
