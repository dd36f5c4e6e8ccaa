package v1alpha1

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"slices"
)

// The fields of references that are not a target's.
const (
	FieldCredentials = "spec.credentials.secretRef"
	FieldTLS         = "spec.receiver.tls.secretRef"
)

// The keys of a Secret with a certificate (type kubernetes.io/tls).
const (
	KeyCertificate = "tls.crt"
	KeyPrivateKey  = "tls.key"
)

// Reference is a Secret or ConfigMap that a webhook's spec refers to, and which keys of it.
type Reference struct {
	Field string // where in the spec
	Kind  string // Secret or ConfigMap
	Name  string
	Keys  []string // that are needed
	// Optional keys are taken where they are there.
	Optional []string
	// Target is the target whose reference it is; empty for the webhook's own.
	Target string
	// TokenName is spec.credentials.tokenName, for the credentials.
	TokenName string
}

// Credentials is whether the reference is the PBX's credentials.
func (r *Reference) Credentials() bool { return r.Field == FieldCredentials }

// TLS is whether the reference is the receiver's certificate.
func (r *Reference) TLS() bool { return r.Field == FieldTLS }

// All are the keys that may be taken.
func (r *Reference) All() []string { return append(slices.Clone(r.Keys), r.Optional...) }

// MissingKeyError says which key is not there.
type MissingKeyError struct{ message string }

// Error implements error.
func (e *MissingKeyError) Error() string { return e.message }

// Check says what is missing among values, or cannot be used, naming no value.
func (r *Reference) Check(values map[string][]byte) error {
	for _, key := range r.Keys {
		if len(values[key]) == 0 {
			return &MissingKeyError{fmt.Sprintf("%s %s has no key %s", r.Kind, r.Name, key)}
		}
	}
	if slices.Contains(r.Keys, KeyPrivateKey) {
		if _, err := tls.X509KeyPair(values[KeyCertificate], values[KeyPrivateKey]); err != nil { // it shows neither
			return fmt.Errorf("%s %s has no certificate in PEM in %s with its private key in %s: %w", r.Kind, r.Name, KeyCertificate, KeyPrivateKey, err)
		}
	}
	if !r.Credentials() {
		return nil
	}
	has := func(key string) bool { return len(values[key]) > 0 }
	switch {
	case r.TokenName != "" && !has("token"):
		return &MissingKeyError{fmt.Sprintf("%s %s has no key token, which tokenName needs", r.Kind, r.Name)}
	case has("username") && !has("password"):
		return &MissingKeyError{fmt.Sprintf("%s %s has a username and no password", r.Kind, r.Name)}
	case has("password") && !has("username"):
		return &MissingKeyError{fmt.Sprintf("%s %s has a password and no username", r.Kind, r.Name)}
	case !has("password") && !has("token"):
		return &MissingKeyError{fmt.Sprintf("%s %s has neither the keys username and password nor the key token", r.Kind, r.Name)}
	}
	return nil
}

// references are those of journal.nats.
func (j *Journal) references() (refs []Reference) {
	if j.NATS == nil {
		return nil
	}
	const field = "spec.journal.nats."
	if ref := j.NATS.CredentialsSecretRef; ref != nil {
		refs = append(refs, Reference{Field: field + "credentialsSecretRef", Kind: "Secret", Name: ref.Name, Optional: []string{"username", "password", "token", "nkey", "creds"}})
	}
	if j.NATS.TLS == nil {
		return refs
	}
	if ca := j.NATS.TLS.CA; ca != nil && ca.ConfigMapKeyRef != nil {
		refs = append(refs, Reference{Field: field + "tls.ca", Kind: "ConfigMap", Name: ca.ConfigMapKeyRef.Name, Keys: []string{ca.ConfigMapKeyRef.Key}})
	}
	if ca := j.NATS.TLS.CA; ca != nil && ca.SecretKeyRef != nil {
		refs = append(refs, Reference{Field: field + "tls.ca", Kind: "Secret", Name: ca.SecretKeyRef.Name, Keys: []string{ca.SecretKeyRef.Key}})
	}
	if client := j.NATS.TLS.ClientSecretRef; client != nil {
		refs = append(refs, Reference{Field: field + "tls.clientSecretRef", Kind: "Secret", Name: client.Name, Keys: []string{KeyCertificate, KeyPrivateKey}})
	}
	return refs
}

// AnnotationCluster says in which cluster a webhook is whose journal is in NATS, so that two clusters do not share one by
// accident. The operator sets it in the configuration of receivers alone, to the UID of the namespace kube-system; with
// `pbxhook run` whoever writes the manifest may.
const AnnotationCluster = "pbxhook.io/cluster"

// AnnotationJournalBefore is set in the configuration of receivers alone: the spec.journal.nats that the webhook had
// before it got an embedded journal, as JSON. What is still in there goes to the targets first.
const AnnotationJournalBefore = "pbxhook.io/journal-before"

// JournalBefore is what AnnotationJournalBefore says; nil where it says nothing that can be read.
func (w *PBXWebhook) JournalBefore() *NATSJournal {
	before := &NATSJournal{}
	if err := json.Unmarshal([]byte(w.Annotations[AnnotationJournalBefore]), before); err != nil || before.URL == "" {
		return nil
	}
	return before
}

// References are all Secrets and ConfigMaps that a receiver needs: of the spec, and of the journal before.
func (w *PBXWebhook) References() []Reference {
	before := Journal{NATS: w.JournalBefore()}
	return append(w.Spec.References(), before.references()...)
}

// References are all Secrets and ConfigMaps that a receiver of this spec needs.
func (s *PBXWebhookSpec) References() []Reference {
	var refs []Reference
	if ref := s.Credentials.SecretRef; ref != nil {
		refs = append(refs, Reference{
			Field: FieldCredentials, Kind: "Secret", Name: ref.Name, TokenName: s.Credentials.TokenName,
			Optional: []string{"username", "password", "token", "previousPassword", "previousToken"},
		})
	}
	if s.Receiver.TLS != nil {
		refs = append(refs, Reference{Field: FieldTLS, Kind: "Secret", Name: s.Receiver.TLS.SecretRef.Name, Keys: []string{KeyCertificate, KeyPrivateKey}})
	}
	refs = append(refs, s.Journal.references()...)
	for _, t := range s.Targets {
		add := func(field, kind, name string, keys ...string) {
			refs = append(refs, Reference{Field: fmt.Sprintf("spec.targets[%s].%s", t.Name, field), Kind: kind, Name: name, Keys: keys, Target: t.Name})
		}
		for _, h := range t.Headers {
			if h.ValueFrom != nil {
				add("headers", "Secret", h.ValueFrom.SecretKeyRef.Name, h.ValueFrom.SecretKeyRef.Key)
			}
		}
		if t.Auth != nil && t.Auth.Basic != nil {
			add("auth.basic", "Secret", t.Auth.Basic.SecretRef.Name, "username", "password")
		}
		if t.Auth != nil && t.Auth.Bearer != nil {
			add("auth.bearer", "Secret", t.Auth.Bearer.SecretKeyRef.Name, t.Auth.Bearer.SecretKeyRef.Key)
		}
		if t.Signing != nil {
			add("signing", "Secret", t.Signing.SecretKeyRef.Name, t.Signing.SecretKeyRef.Key)
		}
		if t.TLS == nil {
			continue
		}
		if ca := t.TLS.CA; ca != nil && ca.ConfigMapKeyRef != nil {
			add("tls.ca", "ConfigMap", ca.ConfigMapKeyRef.Name, ca.ConfigMapKeyRef.Key)
		}
		if ca := t.TLS.CA; ca != nil && ca.SecretKeyRef != nil {
			add("tls.ca", "Secret", ca.SecretKeyRef.Name, ca.SecretKeyRef.Key)
		}
		if client := t.TLS.ClientSecretRef; client != nil {
			add("tls.clientSecretRef", "Secret", client.Name, KeyCertificate, KeyPrivateKey)
		}
	}
	return refs
}
