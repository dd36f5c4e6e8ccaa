// Package v1alpha1 is the kind PBXWebhook: what a team declares about one phone
// system (PBX) whose webhooks it wants to receive, and what the operator answers
// about it.
//
// The package holds types, bounds, defaults and CEL rules, and the names of
// conditions and reasons. It must not know how a webhook is reconciled, received
// or delivered: controllers and receiver depend on it, never the other way.
//
// Every value that the API server accepts must decode into these types, because
// one object that does not would stop the operator's watch for all namespaces.
// That is why durations and quantities carry patterns and rules of their own.
//
// +kubebuilder:object:generate=true
// +groupName=pbxhook.io
package v1alpha1
