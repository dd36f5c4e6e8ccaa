package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Provider is a make of PBX whose webhooks can be received.
//
// +kubebuilder:validation:Enum=Simotel;VoIPstudio;Acefone
type Provider string

// The providers.
const (
	// Simotel is Simotel on premises ("Simotel Event Webhooks").
	Simotel Provider = "Simotel"
	// VoIPstudio is VoIPstudio as a service.
	VoIPstudio Provider = "VoIPstudio"
	// Acefone is Acefone as a service, and its siblings Smartflo and Servetel.
	Acefone Provider = "Acefone"
)

// Version is a version of Simotel's event webhooks (Simotel: "Event Webhooks Version").
//
// +kubebuilder:validation:Enum=G2;G3;G4;Rest2;Rest3;Rest4
type Version string

// The versions of Simotel's event webhooks.
const (
	G2    Version = "G2"
	G3    Version = "G3"
	G4    Version = "G4"
	Rest2 Version = "Rest2"
	Rest3 Version = "Rest3"
	Rest4 Version = "Rest4"
)

// Method is the HTTP method that the PBX is set to send with.
//
// +kubebuilder:validation:Enum=GET;POST
type Method string

// The methods that PBXs send with.
const (
	MethodGet  Method = "GET"
	MethodPost Method = "POST"
)

// PBXWebhook receives the webhooks of one phone system (PBX), keeps them, and
// forwards them in order to the services that need them.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:subresource:scale:specpath=.spec.receiver.replicas,statuspath=.status.receiver.replicas,selectorpath=.status.receiver.selector
// +kubebuilder:storageversion
// +kubebuilder:resource:shortName=pbx,categories=pbxhook
// +kubebuilder:printcolumn:name="Provider",type=string,JSONPath=`.spec.provider`
// +kubebuilder:printcolumn:name="Version",type=string,priority=1,JSONPath=`.spec.version`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Targets",type=string,JSONPath=`.status.conditions[?(@.type=="TargetsHealthy")].status`
// +kubebuilder:printcolumn:name="Received",type=integer,JSONPath=`.status.events.received`
// +kubebuilder:printcolumn:name="Pending",type=integer,JSONPath=`.status.events.pending`
// +kubebuilder:printcolumn:name="URL",type=string,priority=1,JSONPath=`.status.address.url`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 52",message="metadata.name must start with a letter, contain only a-z, 0-9 and -, and have at most 52 characters, because the receiver's Service is named after it"
type PBXWebhook struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the standard object's metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is wanted: the PBX, how it sends, and who gets its events.
	// +required
	Spec PBXWebhookSpec `json:"spec,omitzero"`

	// status is what the operator and the receivers report.
	// +optional
	// +kubebuilder:default:={"observedGeneration":-1}
	Status PBXWebhookStatus `json:"status,omitzero"`
}

// PBXWebhookList is a list of PBXWebhooks.
//
// +kubebuilder:object:root=true
type PBXWebhookList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []PBXWebhook `json:"items"`
}

// PBXWebhookSpec is what is wanted of a webhook.
//
// +kubebuilder:validation:XValidation:rule="!has(self.version) || self.provider == 'Simotel'",fieldPath=".version",message="version is Simotel's alone: remove it, other providers have one format",messageExpression="'version is Simotel\\'s alone: remove it, other providers have one format; got ' + self.version + ' of ' + self.provider"
// +kubebuilder:validation:XValidation:rule="!has(self.method) || self.provider != 'VoIPstudio' || self.method == 'POST'",fieldPath=".method",message="VoIPstudio sends POST alone: set POST or remove method",messageExpression="'VoIPstudio sends POST alone: set POST or remove method; got ' + self.method"
// +kubebuilder:validation:XValidation:rule="has(self.timeZone) || self.provider != 'Acefone'",message="timeZone is required for Acefone, whose times carry no offset: set the zone chosen in its panel, such as Asia/Kolkata"
// +kubebuilder:validation:XValidation:rule="!has(self.fields) || self.provider == 'Acefone'",fieldPath=".fields",message="fields is Acefone's alone, whose body is a template that the customer edits"
// +kubebuilder:validation:XValidation:rule="!has(self.filter) || !has(self.filter.contexts) || self.provider == 'VoIPstudio'",fieldPath=".filter.contexts",message="contexts is VoIPstudio's alone: other providers send none"
// +kubebuilder:validation:XValidation:rule="!has(self.events) || self.provider != 'Simotel' || self.events.all(e, e in ['Cdr', 'NewState', 'IncomingCall', 'OutgoingCall', 'Transfer', 'ExtenAdded', 'ExtenRemoved', 'IncomingFax', 'OutgoingFax', 'CdrQueue', 'VoiceMail', 'VoiceMailEmail', 'Survey', 'Ping', 'TrunkNewState', 'TrunkAdded', 'TrunkRemoved', 'AutoDialerReport', 'ReservedCallInFront'])",fieldPath=".events",message="events of Simotel are Cdr, NewState, IncomingCall, OutgoingCall, Transfer, ExtenAdded, ExtenRemoved, IncomingFax, OutgoingFax, CdrQueue, VoiceMail, VoiceMailEmail, Survey, Ping, TrunkNewState, TrunkAdded, TrunkRemoved, AutoDialerReport, ReservedCallInFront",messageExpression="'events of Simotel are Cdr, NewState, IncomingCall, OutgoingCall, Transfer, ExtenAdded, ExtenRemoved, IncomingFax, OutgoingFax, CdrQueue, VoiceMail, VoiceMailEmail, Survey, Ping, TrunkNewState, TrunkAdded, TrunkRemoved, AutoDialerReport, ReservedCallInFront: got ' + self.events.filter(e, !(e in ['Cdr', 'NewState', 'IncomingCall', 'OutgoingCall', 'Transfer', 'ExtenAdded', 'ExtenRemoved', 'IncomingFax', 'OutgoingFax', 'CdrQueue', 'VoiceMail', 'VoiceMailEmail', 'Survey', 'Ping', 'TrunkNewState', 'TrunkAdded', 'TrunkRemoved', 'AutoDialerReport', 'ReservedCallInFront']))[0]"
// +kubebuilder:validation:XValidation:rule="!has(self.events) || self.provider != 'VoIPstudio' || self.events.all(e, e in ['call.initial', 'call.ringing', 'call.connected', 'call.hold', 'call.unhold', 'call.missed', 'call.hangup', 'call.dtmf', 'sms.received', 'queue.wrapup', 'monitor.audio_ready', 'CallStateChange', 'CallRinging', 'CallConnected', 'CallEnded', 'CallMissed', 'CallDTMF', 'SMSReceived', 'QueueWrapUp'])",fieldPath=".events",message="events of VoIPstudio are call.initial, call.ringing, call.connected, call.hold, call.unhold, call.missed, call.hangup, call.dtmf, sms.received, queue.wrapup, monitor.audio_ready, or its panel's categories CallStateChange, CallRinging, CallConnected, CallEnded, CallMissed, CallDTMF, SMSReceived, QueueWrapUp",messageExpression="'events of VoIPstudio are call.initial, call.ringing, call.connected, call.hold, call.unhold, call.missed, call.hangup, call.dtmf, sms.received, queue.wrapup, monitor.audio_ready, or its panel\\'s categories CallStateChange, CallRinging, CallConnected, CallEnded, CallMissed, CallDTMF, SMSReceived, QueueWrapUp: got ' + self.events.filter(e, !(e in ['call.initial', 'call.ringing', 'call.connected', 'call.hold', 'call.unhold', 'call.missed', 'call.hangup', 'call.dtmf', 'sms.received', 'queue.wrapup', 'monitor.audio_ready', 'CallStateChange', 'CallRinging', 'CallConnected', 'CallEnded', 'CallMissed', 'CallDTMF', 'SMSReceived', 'QueueWrapUp']))[0]"
// +kubebuilder:validation:XValidation:rule="!has(self.events) || self.provider != 'Acefone' || self.events.all(e, e in ['CallReceivedOnServer', 'CallAnsweredOnIVR', 'CallAnsweredOnRingGroup', 'CallAnsweredOnCallQueue', 'CallAnsweredByExtension', 'CallAnsweredByCustomer', 'CallMissed', 'CallHangup', 'CallMissedOrAnswered', 'DTMFOption', 'DialedOnExtensions'])",fieldPath=".events",message="events of Acefone are its triggers CallReceivedOnServer, CallAnsweredOnIVR, CallAnsweredOnRingGroup, CallAnsweredOnCallQueue, CallAnsweredByExtension, CallAnsweredByCustomer, CallMissed, CallHangup, CallMissedOrAnswered, DTMFOption, DialedOnExtensions",messageExpression="'events of Acefone are its triggers CallReceivedOnServer, CallAnsweredOnIVR, CallAnsweredOnRingGroup, CallAnsweredOnCallQueue, CallAnsweredByExtension, CallAnsweredByCustomer, CallMissed, CallHangup, CallMissedOrAnswered, DTMFOption, DialedOnExtensions: got ' + self.events.filter(e, !(e in ['CallReceivedOnServer', 'CallAnsweredOnIVR', 'CallAnsweredOnRingGroup', 'CallAnsweredOnCallQueue', 'CallAnsweredByExtension', 'CallAnsweredByCustomer', 'CallMissed', 'CallHangup', 'CallMissedOrAnswered', 'DTMFOption', 'DialedOnExtensions']))[0]"
// +kubebuilder:validation:XValidation:rule="self.receiver.replicas <= 1 || (has(self.journal) && has(self.journal.nats))",fieldPath=".receiver.replicas",message="more than one replica needs journal.nats: an embedded journal has one writer"
// +kubebuilder:validation:XValidation:rule="(has(self.journal) && has(self.journal.nats)) || self.targets.all(t, duration(t.retry.maxAge) <= duration(has(self.journal) && has(self.journal.embedded) ? self.journal.embedded.retention : '72h'))",fieldPath=".targets",message="retry.maxAge of every target (24h unless set) must be within journal.embedded.retention (72h unless set)"
// +kubebuilder:validation:XValidation:rule="!has(self.journal) || !has(self.journal.nats) || self.targets.all(t, duration(t.retry.maxAge) <= duration(self.journal.nats.retention))",fieldPath=".targets",message="retry.maxAge of every target (24h unless set) must be within journal.nats.retention (72h unless set)"
// +kubebuilder:validation:XValidation:rule="(has(self.journal) && has(self.journal.nats)) || (has(oldSelf.journal) && has(oldSelf.journal.nats)) || (has(self.journal) && has(self.journal.embedded) && has(self.journal.embedded.storage) && has(self.journal.embedded.storage.emptyDir)) == (has(oldSelf.journal) && has(oldSelf.journal.embedded) && has(oldSelf.journal.embedded.storage) && has(oldSelf.journal.embedded.storage.emptyDir))",fieldPath=".journal.embedded.storage",message="storage cannot change between claim and emptyDir, because the events kept in the old one would not be delivered: make another PBXWebhook"
type PBXWebhookSpec struct {
	// provider is the make of the PBX. It cannot be changed: make another PBXWebhook instead.
	// +required
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="provider cannot be changed: make another PBXWebhook",messageExpression="'provider cannot be changed from ' + oldSelf + ' to ' + self + ': make another PBXWebhook'"
	Provider Provider `json:"provider,omitempty"`

	// enabled is whether events are received. When false the receiver is scaled to zero and its
	// journal is kept.
	// Default: true.
	// +optional
	// +kubebuilder:default=true
	Enabled *bool `json:"enabled,omitempty"`

	// version is the version of Simotel's event webhooks that the PBX is set to. When absent it is
	// told from each request.
	// +optional
	Version Version `json:"version,omitempty"`

	// method is the one HTTP method that the PBX is set to. Requests with another are answered 405.
	// When absent, GET and POST are taken (VoIPstudio: POST alone).
	// +optional
	Method Method `json:"method,omitempty"`

	// events are the provider's own names of the events to forward, or categories of its panel
	// (VoIPstudio: CallStateChange and so on). When absent, all are forwarded.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=64
	Events []string `json:"events,omitempty"`

	// filter says which events are forwarded: all that is set in it must hold.
	// +optional
	Filter *Filter `json:"filter,omitempty"`

	// fields maps a canonical field to the key that the customer's own body template uses for it
	// (Acefone's templates are edited by the customer).
	// +optional
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(k, k in ['call.id', 'call.legId', 'call.direction', 'call.from.number', 'call.to.number', 'call.did', 'call.queue', 'call.agents', 'call.startTime', 'call.answerTime', 'call.endTime', 'call.durationSeconds', 'call.talkSeconds', 'call.waitSeconds', 'call.disposition', 'call.hangupCause', 'call.recording', 'call.digits'])",message="keys are the canonical fields call.id, call.legId, call.direction, call.from.number, call.to.number, call.did, call.queue, call.agents, call.startTime, call.answerTime, call.endTime, call.durationSeconds, call.talkSeconds, call.waitSeconds, call.disposition, call.hangupCause, call.recording, call.digits",messageExpression="'keys are the canonical fields, such as call.id, call.from.number and call.queue; got ' + self.filter(k, !(k in ['call.id', 'call.legId', 'call.direction', 'call.from.number', 'call.to.number', 'call.did', 'call.queue', 'call.agents', 'call.startTime', 'call.answerTime', 'call.endTime', 'call.durationSeconds', 'call.talkSeconds', 'call.waitSeconds', 'call.disposition', 'call.hangupCause', 'call.recording', 'call.digits']))[0]"
	// +kubebuilder:validation:XValidation:rule="self.all(k, size(self[k]) > 0)",message="each value names a key of the body template and cannot be empty"
	Fields map[string]FieldKey `json:"fields,omitempty"`

	// timeZone is the IANA time zone of times that carry no offset, such as Asia/Tehran. When
	// absent they are taken as UTC. Acefone requires it.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}$`
	TimeZone string `json:"timeZone,omitempty"`

	// defaultRegion is the ISO 3166 country of numbers that are not written internationally, such
	// as IR. When absent, only numbers that are unambiguous get an E.164 form.
	// +optional
	// +kubebuilder:validation:MinLength=2
	// +kubebuilder:validation:MaxLength=2
	// +kubebuilder:validation:Pattern=`^[A-Z]{2}$`
	DefaultRegion string `json:"defaultRegion,omitempty"`

	// credentials say how the PBX shows that it is the PBX.
	// +required
	Credentials Credentials `json:"credentials,omitzero"`

	// targets are the services that events are forwarded to.
	// +required
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	Targets []Target `json:"targets,omitempty"`

	// journal is where events are kept until all targets have them.
	// When absent: embedded, with a claim of 2Gi, of which 1Gi is used and which keeps delivered events for 72h.
	// +optional
	Journal Journal `json:"journal,omitzero"`

	// receiver says how the receiver runs.
	// Default: {}.
	// +optional
	// +kubebuilder:default={}
	Receiver Receiver `json:"receiver,omitzero"`

	// expose gives the receiver an address outside the cluster. When absent, only its Service is made.
	// +optional
	Expose *Expose `json:"expose,omitempty"`
}

// FieldKey is a key of the customer's own body template.
//
// +kubebuilder:validation:MaxLength=128
type FieldKey string

// Filter says which events are forwarded.
//
// +kubebuilder:validation:MinProperties=1
type Filter struct {
	// callTypes are the types of call whose events are forwarded.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=4
	CallTypes []CallType `json:"callTypes,omitempty"`

	// numbers are the PBX's own numbers (DID, "My Numbers") whose calls are forwarded, compared in E.164.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=128
	// +kubebuilder:validation:items:MinLength=2
	// +kubebuilder:validation:items:MaxLength=32
	// +kubebuilder:validation:items:Pattern=`^\+?[0-9][0-9 ()./-]*$`
	Numbers []string `json:"numbers,omitempty"`

	// contexts are VoIPstudio's call contexts, in any case; RG matches RG-83502.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=64
	Contexts []string `json:"contexts,omitempty"`

	// expression is a CEL expression over the canonical event that must be true, such as
	// event.call.talkSeconds > 10.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	Expression string `json:"expression,omitempty"`
}

// CallType is the kind of a call, seen from the PBX.
//
// +kubebuilder:validation:Enum=Inbound;Outbound;ClickToCall;Internal
type CallType string

// The call types.
const (
	CallTypeInbound     CallType = "Inbound"
	CallTypeOutbound    CallType = "Outbound"
	CallTypeClickToCall CallType = "ClickToCall"
	CallTypeInternal    CallType = "Internal"
)

// Credentials say how the PBX shows that it is the PBX.
//
// +kubebuilder:validation:MinProperties=1
// +kubebuilder:validation:XValidation:rule="has(self.secretRef) != has(self.anonymous)",message="exactly one of secretRef and anonymous must be set",messageExpression="'exactly one of secretRef and anonymous must be set: got ' + (has(self.secretRef) ? 'both' : 'neither')"
// +kubebuilder:validation:XValidation:rule="!has(self.tokenName) || has(self.secretRef)",fieldPath=".tokenName",message="tokenName needs secretRef: the token is read from that Secret"
type Credentials struct {
	// secretRef names a Secret in this namespace with the keys username and password, or token, or
	// all three; previousPassword and previousToken are accepted too, for rotation.
	// +optional
	SecretRef *SecretReference `json:"secretRef,omitempty"`

	// tokenName is the name of a header, query parameter or body key that may carry the token too
	// (Acefone's "Add header"). It is removed from the payload.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern="^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"
	TokenName string `json:"tokenName,omitempty"`

	// anonymous takes requests from anyone who can reach the receiver.
	// +optional
	Anonymous *Anonymous `json:"anonymous,omitempty"`
}

// Anonymous takes requests from anyone. It has no fields.
type Anonymous struct{}

// SecretReference names a Secret in the webhook's namespace.
type SecretReference struct {
	// name of the Secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	Name string `json:"name,omitempty"`
}

// KeyReference names a key of a Secret or ConfigMap in the webhook's namespace.
type KeyReference struct {
	// name of the Secret or ConfigMap.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	Name string `json:"name,omitempty"`

	// key within it.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[-._a-zA-Z0-9]+$`
	Key string `json:"key,omitempty"`
}

// SecretKeySource names a key of a Secret.
type SecretKeySource struct {
	// secretKeyRef names the key of a Secret in this namespace.
	// +required
	SecretKeyRef KeyReference `json:"secretKeyRef,omitzero"`
}
