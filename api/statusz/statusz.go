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
	// PendingUnknown says that the receiver has not read yet how many events wait: the pending counts of the
	// webhook and its targets say nothing.
	PendingUnknown bool `json:"pendingUnknown,omitempty"`
	// JournalProblem says why no event can be kept now; empty: they can.
	JournalProblem string `json:"journalProblem,omitempty"`
	// JournalWarning says what is wrong with the journal though events are accepted; empty: nothing.
	JournalWarning string `json:"journalWarning,omitempty"`
	// JournalDamage says what of the journal was found not to be as it was written since the receiver started, which it did
	// all the same; empty: nothing.
	JournalDamage string `json:"journalDamage,omitempty"`
	// Draining is the journal that the webhook had before, for as long as a target does not have all of it.
	Draining *Draining `json:"draining,omitempty"`
}

// Draining is how far a journal is whose events go out before those of the one that took its place.
type Draining struct {
	// Pending events, of the target that has the most.
	Pending int64 `json:"pending"`
	// DeadLetters that stay there.
	DeadLetters int64 `json:"deadLetters"`
	// Problem says why it cannot be read now; empty: it can.
	Problem string `json:"problem,omitempty"`
}
