// Package statusz is what a receiver says of itself at /statusz, and what the operator reads there.
package statusz

import "github.com/pbxhook/pbxhook/api/v1alpha1"

// Report is a receiver's answer.
type Report struct {
	// ConfigHash is that of the configuration in force (SHA-256 of the manifest, in hex).
	ConfigHash string `json:"configHash"`
	// RefusedHash is that of a newer configuration that could not be used, if there is one.
	RefusedHash string `json:"refusedHash,omitempty"`
	// RefusedReason says why not.
	RefusedReason string `json:"refusedReason,omitempty"`
	// Webhooks are the webhooks that it serves.
	Webhooks []Webhook `json:"webhooks"`
}

// Webhook is what a receiver says of one webhook.
type Webhook struct {
	Namespace string                  `json:"namespace"`
	Name      string                  `json:"name"`
	Events    v1alpha1.EventsStatus   `json:"events"`
	Targets   []v1alpha1.TargetStatus `json:"targets"`
	// JournalProblem says why the journal cannot be used now; empty: it can.
	JournalProblem string `json:"journalProblem,omitempty"`
}
