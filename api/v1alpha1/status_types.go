package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The conditions of a PBXWebhook. Ready is the summary; Disabled, Reconciling and Stalled are present
// only while they hold.
const (
	// ConditionReady: an event can be accepted and journalled under this generation.
	ConditionReady = "Ready"
	// ConditionCredentialsResolved: the PBX's credentials were found and are complete.
	ConditionCredentialsResolved = "CredentialsResolved"
	// ConditionReceiverAvailable: at least one receiver pod is available.
	ConditionReceiverAvailable = "ReceiverAvailable"
	// ConditionConfigurationApplied: every available receiver runs this generation's configuration.
	ConditionConfigurationApplied = "ConfigurationApplied"
	// ConditionJournalDurable: an accepted event survives the loss of its pod.
	ConditionJournalDurable = "JournalDurable"
	// ConditionTargetsHealthy: every target takes its events.
	ConditionTargetsHealthy = "TargetsHealthy"
	// ConditionExposed: a PBX reaches the receiver at status.address.
	ConditionExposed = "Exposed"
	// ConditionDisabled: spec.enabled is false and nothing is received.
	ConditionDisabled = "Disabled"
	// ConditionReconciling: the operator is working towards this generation (kstatus).
	ConditionReconciling = "Reconciling"
	// ConditionStalled: the operator cannot go on before somebody edits an object (kstatus).
	ConditionStalled = "Stalled"
)

// The reasons of conditions.
const (
	// ReasonSucceeded: what the condition states holds.
	ReasonSucceeded = "Succeeded"
	// ReasonAnonymous: credentials.anonymous takes requests from anyone.
	ReasonAnonymous = "Anonymous"
	// ReasonSecretNotFound: a Secret that is referred to does not exist.
	ReasonSecretNotFound = "SecretNotFound"
	// ReasonKeyNotFound: a Secret lacks a key that is needed.
	ReasonKeyNotFound = "KeyNotFound"
	// ReasonInvalidValue: a Secret's value cannot be used.
	ReasonInvalidValue = "InvalidValue"
	// ReasonReferencesNotFound: a target refers to a Secret, ConfigMap or key that does not exist.
	ReasonReferencesNotFound = "ReferencesNotFound"
	// ReasonProgressing: a receiver is being started.
	ReasonProgressing = "Progressing"
	// ReasonImagePullFailed: the receiver's image cannot be pulled.
	ReasonImagePullFailed = "ImagePullFailed"
	// ReasonCrashLoop: the receiver ends again and again.
	ReasonCrashLoop = "CrashLoop"
	// ReasonUnschedulable: no node takes the receiver.
	ReasonUnschedulable = "Unschedulable"
	// ReasonContainerConfigError: the receiver's container cannot be made.
	ReasonContainerConfigError = "ContainerConfigError"
	// ReasonPodsRefused: the API server refuses to make the receiver's pods.
	ReasonPodsRefused = "PodsRefused"
	// ReasonPaused: somebody pauses the receiver's Deployment.
	ReasonPaused = "Paused"
	// ReasonEvicted: the node evicts the receiver's pods.
	ReasonEvicted = "Evicted"
	// ReasonJournalLocked: a pod that is none of the receivers any more holds the journal's lock.
	ReasonJournalLocked = "JournalLocked"
	// ReasonReceiverNotReady: the receiver runs and does not become ready.
	ReasonReceiverNotReady = "ReceiverNotReady"
	// ReasonJournalAbandoned: a namespace was deleted and streams in NATS remain (an event of the namespace).
	ReasonJournalAbandoned = "JournalAbandoned"
	// ReasonDeleting: the webhook is being deleted, and its events with it.
	ReasonDeleting = "Deleting"
	// ReasonNoReceiver: no receiver pod is available.
	ReasonNoReceiver = "NoReceiver"
	// ReasonConfigurationPending: an available receiver still runs an older configuration.
	ReasonConfigurationPending = "ConfigurationPending"
	// ReasonConfigurationRefused: a receiver cannot use this configuration and runs the last good one.
	ReasonConfigurationRefused = "ConfigurationRefused"
	// ReasonReceiversUnreachable: the operator cannot ask the receivers.
	ReasonReceiversUnreachable = "ReceiversUnreachable"
	// ReasonNotPolled: the operator runs with --poll-receivers=false and does not ask receivers.
	ReasonNotPolled = "NotPolled"
	// ReasonPersistentVolume: the journal lies on a claim.
	ReasonPersistentVolume = "PersistentVolume"
	// ReasonEmptyDir: the journal goes with the pod.
	ReasonEmptyDir = "EmptyDir"
	// ReasonForeignObject: an object of a needed name exists that the operator did not make.
	ReasonForeignObject = "ForeignObject"
	// ReasonInvalidSpec: the spec has a value that only the operator could find wrong.
	ReasonInvalidSpec = "InvalidSpec"
	// ReasonQuotaExceeded: the namespace's quota has no room for the receiver's claim, pod or another object.
	ReasonQuotaExceeded = "QuotaExceeded"
	// ReasonMissingRights: the operator lacks a right that it needs for an object of the webhook.
	ReasonMissingRights = "MissingRights"
	// ReasonClaimRejected: the cluster does not let the journal's claim grow.
	ReasonClaimRejected = "ClaimRejected"
	// ReasonRestored: somebody changed an object of the operator's, and it was restored (an event).
	ReasonRestored = "Restored"
	// ReasonAdopted: an object of the operator's had lost its owner, and has it again (an event).
	ReasonAdopted = "Adopted"
	// ReasonApplyFailed: the API server rejected an object of the webhook.
	ReasonApplyFailed = "ApplyFailed"
	// ReasonTargetsSuspended: nothing is sent to some targets, as suspend says, and the others are healthy.
	ReasonTargetsSuspended = "TargetsSuspended"
	// ReasonTargetsFailing: at least one target does not take its events.
	ReasonTargetsFailing = "TargetsFailing"
	// ReasonNotRequested: spec.expose is not set, and only the cluster reaches the receiver.
	ReasonNotRequested = "NotRequested"
	// ReasonAddressPending: what gives the address has not given one yet.
	ReasonAddressPending = "AddressPending"
	// ReasonAPINotInstalled: the cluster does not have the API that spec.expose needs.
	ReasonAPINotInstalled = "APINotInstalled"
	// ReasonGatewayNotReady: a Gateway is missing, or does not take the route.
	ReasonGatewayNotReady = "GatewayNotReady"
	// ReasonStream: events are kept in a JetStream stream.
	ReasonStream = "Stream"
	// ReasonJournalDegraded: events are accepted, and something of the journal is not as it must be: it may keep them less
	// safely than asked for, or they are not delivered.
	ReasonJournalDegraded = "JournalDegraded"
	// ReasonJournalDamaged: the receiver found that something in its journal is not as it was written, and goes on.
	ReasonJournalDamaged = "JournalDamaged"
	// ReasonJournalUnavailable: no event can be kept now: NATS cannot be reached or refuses, or the journal or its disk is full.
	ReasonJournalUnavailable = "JournalUnavailable"
	// ReasonJournalMoving: the events of a journal of another kind go to the targets first.
	ReasonJournalMoving = "JournalMoving"
	// ReasonJournalMoved: all of them were delivered, or given up.
	ReasonJournalMoved = "JournalMoved"
	// ReasonHTTPSRequired: the address is http and the PBX sends to https alone.
	ReasonHTTPSRequired = "HTTPSRequired"
	// ReasonDisabled: spec.enabled is false.
	ReasonDisabled = "Disabled"
)

// PBXWebhookStatus is what the operator and the receivers report.
type PBXWebhookStatus struct {
	// observedGeneration is the generation that this status speaks of; -1 until it was first seen.
	// +optional
	// +kubebuilder:validation:Minimum=-1
	// +kubebuilder:validation:Maximum=9007199254740991
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions say what holds: Ready, CredentialsResolved, ReceiverAvailable,
	// ConfigurationApplied, Exposed, JournalDurable, TargetsHealthy; Disabled, Reconciling and
	// Stalled only while they hold.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// address to paste into the PBX.
	// +optional
	Address *Address `json:"address,omitempty"`

	// endpoints are the addresses per event, where the provider has one webhook for each (Acefone).
	// +optional
	// +listType=map
	// +listMapKey=event
	// +kubebuilder:validation:MaxItems=32
	Endpoints []Endpoint `json:"endpoints,omitempty"`

	// receiver is the state of the receiver's pods.
	// +optional
	Receiver *ReceiverStatus `json:"receiver,omitempty"`

	// events counts what the PBX sent since the journal was made.
	// +optional
	Events *EventsStatus `json:"events,omitempty"`

	// targets is the state of each target.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	Targets []TargetStatus `json:"targets,omitempty"`
}

// Address is where the PBX sends to.
type Address struct {
	// url to paste into the PBX.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	URL string `json:"url,omitempty"`
}

// Endpoint is the address of one event.
type Endpoint struct {
	// event is the provider's own name of the event.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Event string `json:"event,omitempty"`

	// url to paste into the PBX for it.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	URL string `json:"url,omitempty"`
}

// ReceiverStatus is the state of the receiver's pods.
type ReceiverStatus struct {
	// replicas is the number of receiver pods.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000000
	Replicas int32 `json:"replicas"`

	// readyReplicas is the number of receiver pods that are ready.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000000
	ReadyReplicas int32 `json:"readyReplicas"`

	// selector of the receiver pods, for the scale subresource.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Selector string `json:"selector,omitempty"`
}

// EventsStatus counts what the PBX sent since the journal was made.
type EventsStatus struct {
	// received is the number of requests that were accepted and kept.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=9007199254740991
	Received int64 `json:"received"`

	// unparsed is how many of those could not be decoded.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=9007199254740991
	Unparsed int64 `json:"unparsed"`

	// otherVersion is how many of those came in another version than spec.version. They were decoded
	// all the same.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=9007199254740991
	OtherVersion int64 `json:"otherVersion"`

	// lastOtherVersion is the version in which the last of those came, as far as it shows.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	LastOtherVersion string `json:"lastOtherVersion,omitempty"`

	// draining is how many events a journal of another kind, which the webhook had before, has for the target that
	// has fewest of them. They go first.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=9007199254740991
	Draining int64 `json:"draining,omitempty"`

	// rejected is the number of requests that were refused: wrong credentials, method, size.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=9007199254740991
	Rejected int64 `json:"rejected"`

	// lastRejectedTime is when the last of those came.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})$`
	LastRejectedTime *metav1.Time `json:"lastRejectedTime,omitempty"`

	// lastRejectedReason is why, as its sender was told.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	LastRejectedReason string `json:"lastRejectedReason,omitempty"`

	// urlChecks is the number of requests that only asked whether the URL is there: HEAD, or no event, parameter and
	// body. Where these grow and received does not, something between PBX and receiver (a redirect) may strip the
	// PBX's requests.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=9007199254740991
	URLChecks int64 `json:"urlChecks"`

	// lastURLCheckTime is when the last of those came.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})$`
	LastURLCheckTime *metav1.Time `json:"lastURLCheckTime,omitempty"`

	// pending is the number of events that some target does not have yet.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=9007199254740991
	Pending int64 `json:"pending"`

	// lastReceivedTime is when the last event was accepted.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})$`
	LastReceivedTime *metav1.Time `json:"lastReceivedTime,omitempty"`

	// byName counts the events by the provider's own names, those included that the webhook expects and that never
	// came. What could not be decoded is not among them. Beyond 64 names the rest is counted as other.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	ByName []EventCount `json:"byName,omitempty"`
}

// EventCount is how many events came under one of the provider's own names.
type EventCount struct {
	// name is the provider's own name of the event, such as CallMissed.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Name string `json:"name,omitempty"`

	// count is how many came since the journal was made.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=9007199254740991
	Count int64 `json:"count"`

	// lastReceivedTime is when the last one came; absent where none did.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})$`
	LastReceivedTime *metav1.Time `json:"lastReceivedTime,omitempty"`
}

// TargetStatus is the state of one target.
type TargetStatus struct {
	// name of the target.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`

	// healthy is whether the target takes its events. One that is suspended does not.
	// +optional
	Healthy bool `json:"healthy"`

	// pending is the number of events that the target does not have yet.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=9007199254740991
	Pending int64 `json:"pending"`

	// oldestPendingTime is when the oldest of those was received.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})$`
	OldestPendingTime *metav1.Time `json:"oldestPendingTime,omitempty"`

	// delivered is the number of events that the target took.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=9007199254740991
	Delivered int64 `json:"delivered"`

	// deadLettered is the number of events that were given up for this target.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=9007199254740991
	DeadLettered int64 `json:"deadLettered"`

	// evicted is the number of dead letters of this target that were deleted because there were more
	// than 10,000 of them, or they were older than 7 days.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=9007199254740991
	Evicted int64 `json:"evicted"`

	// expressionErrors is the number of events that the target got because an expression could not be
	// evaluated, since the receiver started.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=9007199254740991
	ExpressionErrors int64 `json:"expressionErrors"`

	// unhealthySince is since when the target is not healthy, as far as the operator saw.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})$`
	UnhealthySince *metav1.Time `json:"unhealthySince,omitempty"`

	// lastDeliveryTime is when the target last took an event.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})$`
	LastDeliveryTime *metav1.Time `json:"lastDeliveryTime,omitempty"`

	// lastError is what went wrong last, while the target is not healthy.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	LastError string `json:"lastError,omitempty"`
}
