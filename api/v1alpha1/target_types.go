package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// EventType is a canonical event type, the part of a CloudEvent's type after "io.pbxhook.".
//
// +kubebuilder:validation:Enum=call.started;call.ringing;call.answered;call.held;call.resumed;call.dtmf;call.transferred;call.missed;call.ended;queue.completed;recording.ready;extension.state;extension.added;extension.removed;trunk.state;trunk.added;trunk.removed;queue.wrapup;queue.reserved;sms.received;fax.received;fax.sent;voicemail.received;voicemail.emailed;survey.answered;campaign.reported;ping;other;unparsed
type EventType string

// Format is the shape in which a target gets an event.
//
// +kubebuilder:validation:Enum=CloudEvents;CloudEventsBinary;CloudEventsBatch;Original;Template
type Format string

// The formats.
const (
	// FormatCloudEvents is a CloudEvent in structured mode (JSON).
	FormatCloudEvents Format = "CloudEvents"
	// FormatCloudEventsBinary is a CloudEvent in binary mode: attributes as headers, data as body.
	FormatCloudEventsBinary Format = "CloudEventsBinary"
	// FormatCloudEventsBatch is a JSON list of CloudEvents.
	FormatCloudEventsBatch Format = "CloudEventsBatch"
	// FormatOriginal is the PBX's own request: method, path suffix, query and body as it sent them.
	FormatOriginal Format = "Original"
	// FormatTemplate is what the target's template makes of the event.
	FormatTemplate Format = "Template"
)

// Order says which events of a target wait for each other.
//
// +kubebuilder:validation:Enum=PerCall;None
type Order string

// The orders.
const (
	// OrderPerCall delivers the events of one call one after the other, in the order received.
	OrderPerCall Order = "PerCall"
	// OrderNone delivers every event by itself.
	OrderNone Order = "None"
)

// Target is a service that events are forwarded to.
//
// +kubebuilder:validation:XValidation:rule="has(self.url) != has(self.service)",message="exactly one of url and service must be set",messageExpression="'exactly one of url and service must be set: got ' + (has(self.url) ? 'both' : 'neither')"
// +kubebuilder:validation:XValidation:rule="has(self.template) == (self.format == 'Template')",fieldPath=".template",message="template goes with format Template, and only with it",messageExpression="'template goes with format Template, and only with it: got format ' + self.format + (has(self.template) ? ' and a template' : ' and none')"
// +kubebuilder:validation:XValidation:rule="self.method == 'POST' || self.format == 'Template'",fieldPath=".method",message="method other than POST goes with format Template only",messageExpression="'method other than POST goes with format Template only: got ' + self.method + ' and ' + self.format"
// +kubebuilder:validation:XValidation:rule="!has(self.auth) || !has(self.headers) || !self.headers.exists(h, h.name.lowerAscii() == 'authorization')",fieldPath=".headers",message="auth and a header Authorization say the same twice: remove one"
type Target struct {
	// name of the target, unique in this webhook. A renamed target is a new one.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Name string `json:"name,omitempty"`

	// suspend keeps events from being sent to this target while it is true, as for its maintenance. They
	// wait in the journal and do not age; when it is false again they go out in order. Default false.
	// +optional
	Suspend *bool `json:"suspend,omitempty"`

	// url that events are sent to, http or https, without user info and fragment. Either it or
	// service is set.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:Pattern=`^https?://[^/?#@\\\s]+([/?][^#\s]*)?$`
	// +kubebuilder:validation:XValidation:rule="isURL(self) && (url(self).getPort() == '' || int(url(self).getPort()) <= 65535)",message="must be an absolute http or https URL with a valid host and port, without user info (use auth instead) and fragment"
	URL string `json:"url,omitempty"`

	// service in this namespace that events are sent to, over http. Either it or url is set.
	// +optional
	Service *ServiceReference `json:"service,omitempty"`

	// eventTypes are the canonical types that this target gets. When absent it gets all but
	// unparsed.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	EventTypes []EventType `json:"eventTypes,omitempty"`

	// expression is a CEL expression over the canonical event that must be true for this target.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	Expression string `json:"expression,omitempty"`

	// format is the shape in which this target gets an event.
	// Default: CloudEvents.
	// +optional
	// +kubebuilder:default=CloudEvents
	Format Format `json:"format,omitempty"`

	// template is a CEL expression that makes the body, with format Template.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=16384
	Template string `json:"template,omitempty"`

	// method that requests are sent with. GET and PUT go with format Template only.
	// Default: POST.
	// +optional
	// +kubebuilder:default=POST
	// +kubebuilder:validation:Enum=POST;PUT;GET
	Method string `json:"method,omitempty"`

	// headers that every request carries.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Headers []Header `json:"headers,omitempty"`

	// auth is how the receiver shows the target who it is.
	// +optional
	Auth *TargetAuth `json:"auth,omitempty"`

	// signing signs every request as the Standard Webhooks specification says. The key holds one
	// secret or, during rotation, several separated by spaces.
	// +optional
	Signing *SecretKeySource `json:"signing,omitempty"`

	// tls says whom to trust at the target, and as whom to appear.
	// +optional
	TLS *TargetTLS `json:"tls,omitempty"`

	// timeout of one attempt, from connecting to the end of the answer.
	// Default: 10s.
	// +optional
	// +kubebuilder:default="10s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s|ms)){1,4}$`
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s') && duration(self) <= duration('5m')",message="must be more than 0 and at most 5m",messageExpression="'must be more than 0 and at most 5m: got ' + self"
	Timeout *metav1.Duration `json:"timeout,omitempty"`

	// retry says how often and how long an event is tried again.
	// Default: maxAge 24h, initialDelay 1s, maxDelay 5m.
	// +optional
	// +kubebuilder:default:={"maxAge":"24h","initialDelay":"1s","maxDelay":"5m"}
	Retry Retry `json:"retry,omitzero"`

	// order says which events wait for each other: those of one call (PerCall), or None.
	// Default: PerCall.
	// +optional
	// +kubebuilder:default=PerCall
	Order Order `json:"order,omitempty"`

	// concurrency is how many requests to this target are under way at once.
	// Default: 16.
	// +optional
	// +kubebuilder:default=16
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=256
	Concurrency int32 `json:"concurrency,omitempty"`

	// rateLimit bounds the requests a second to this target.
	// +optional
	RateLimit *RateLimit `json:"rateLimit,omitempty"`
}

// ServiceReference names a port of a Service in the webhook's namespace.
type ServiceReference struct {
	// name of the Service.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z]([-a-z0-9]*[a-z0-9])?$`
	Name string `json:"name,omitempty"`

	// port of the Service.
	// Default: 80.
	// +optional
	// +kubebuilder:default=80
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port,omitempty"`

	// path that events are sent to.
	// Default: /.
	// +optional
	// +kubebuilder:default=/
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:Pattern=`^/[^#\s]*$`
	Path string `json:"path,omitempty"`
}

// Header is a header that every request to a target carries.
//
// +kubebuilder:validation:XValidation:rule="has(self.value) != has(self.valueFrom)",message="exactly one of value and valueFrom must be set",messageExpression="'exactly one of value and valueFrom must be set: got ' + (has(self.value) ? 'both' : 'neither')"
// +kubebuilder:validation:XValidation:rule="!(self.name.lowerAscii() in ['host', 'content-length', 'content-type', 'transfer-encoding', 'connection', 'te', 'trailer', 'upgrade', 'keep-alive', 'proxy-connection', 'expect', 'traceparent', 'tracestate']) && !self.name.lowerAscii().startsWith('webhook-') && !self.name.lowerAscii().startsWith('ce-') && !self.name.lowerAscii().startsWith('pbxhook-')",fieldPath=".name",message="this header is set by the receiver itself",messageExpression="'the header ' + self.name + ' is set by the receiver itself: remove it'"
type Header struct {
	// name of the header.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern="^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"
	Name string `json:"name,omitempty"`

	// value of the header. Either it or valueFrom is set.
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:Pattern=`^[^\x00-\x08\x0a-\x1f\x7f]*$`
	Value *string `json:"value,omitempty"`

	// valueFrom takes the value from a Secret.
	// +optional
	ValueFrom *SecretKeySource `json:"valueFrom,omitempty"`
}

// TargetAuth is how the receiver shows a target who it is.
//
// +kubebuilder:validation:XValidation:rule="has(self.basic) != has(self.bearer)",message="exactly one of basic and bearer must be set",messageExpression="'exactly one of basic and bearer must be set: got ' + (has(self.basic) ? 'both' : 'neither')"
type TargetAuth struct {
	// basic sends the keys username and password of a Secret as HTTP Basic authentication.
	// +optional
	Basic *BasicAuth `json:"basic,omitempty"`

	// bearer sends a key of a Secret as a bearer token.
	// +optional
	Bearer *SecretKeySource `json:"bearer,omitempty"`
}

// BasicAuth is HTTP Basic authentication from a Secret.
type BasicAuth struct {
	// secretRef names a Secret in this namespace with the keys username and password.
	// +required
	SecretRef SecretReference `json:"secretRef,omitzero"`
}

// TargetTLS says whom to trust at a target, and as whom to appear.
//
// +kubebuilder:validation:MinProperties=1
type TargetTLS struct {
	// ca is a PEM bundle of certificate authorities to trust instead of the system's.
	// +optional
	CA *CASource `json:"ca,omitempty"`

	// clientSecretRef names a Secret with the keys tls.crt and tls.key to appear with.
	// +optional
	ClientSecretRef *SecretReference `json:"clientSecretRef,omitempty"`
}

// CASource is where a CA bundle comes from.
//
// +kubebuilder:validation:XValidation:rule="has(self.configMapKeyRef) != has(self.secretKeyRef)",message="exactly one of configMapKeyRef and secretKeyRef must be set",messageExpression="'exactly one of configMapKeyRef and secretKeyRef must be set: got ' + (has(self.configMapKeyRef) ? 'both' : 'neither')"
type CASource struct {
	// configMapKeyRef names the key of a ConfigMap in this namespace.
	// +optional
	ConfigMapKeyRef *KeyReference `json:"configMapKeyRef,omitempty"`

	// secretKeyRef names the key of a Secret in this namespace.
	// +optional
	SecretKeyRef *KeyReference `json:"secretKeyRef,omitempty"`
}

// Retry says how often and how long an event is tried again.
//
// +kubebuilder:validation:XValidation:rule="duration(self.initialDelay) <= duration(self.maxDelay)",fieldPath=".initialDelay",message="initialDelay (1s unless set) must be at most maxDelay (5m unless set)",messageExpression="'initialDelay (1s unless set) must be at most maxDelay (5m unless set): got ' + self.initialDelay + ' and ' + self.maxDelay"
type Retry struct {
	// maxAge is how long after it was received an event is tried. Then it becomes a dead letter, once it
	// was attempted at that age, or its target is down. Time while the target is suspended, or the
	// receiver does not run, does not count.
	// Default: 24h.
	// +optional
	// +kubebuilder:default="24h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s|ms)){1,4}$`
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s')",message="must be more than 0",messageExpression="'must be more than 0: got ' + self"
	MaxAge *metav1.Duration `json:"maxAge,omitempty"`

	// initialDelay is the longest wait before the second attempt; it doubles with each one. Each
	// wait is drawn at random between 0 and that.
	// Default: 1s.
	// +optional
	// +kubebuilder:default="1s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s|ms)){1,4}$`
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s')",message="must be more than 0",messageExpression="'must be more than 0: got ' + self"
	InitialDelay *metav1.Duration `json:"initialDelay,omitempty"`

	// maxDelay is the longest wait between two attempts.
	// Default: 5m.
	// +optional
	// +kubebuilder:default="5m"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s|ms)){1,4}$`
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s') && duration(self) <= duration('24h')",message="must be more than 0 and at most 24h",messageExpression="'must be more than 0 and at most 24h: got ' + self"
	MaxDelay *metav1.Duration `json:"maxDelay,omitempty"`

	// maxAttempts is how many attempts that the target answered an event has. When absent, only
	// maxAge ends it. Attempts without an answer do not count.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	MaxAttempts int32 `json:"maxAttempts,omitempty"`
}

// RateLimit bounds the requests a second to a target.
type RateLimit struct {
	// perSecond is how many requests a second are sent on average.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100000
	PerSecond int32 `json:"perSecond,omitempty"`

	// burst is how many requests may be sent at once after a pause. When absent it is perSecond.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100000
	Burst int32 `json:"burst,omitempty"`
}
