package v1alpha1

import "fmt"

// NotImplemented names the fields that are set and that this version accepts but does not act on.
func (s *PBXWebhookSpec) NotImplemented() []string {
	var fields []string
	add := func(set bool, format string, args ...any) {
		if set {
			fields = append(fields, fmt.Sprintf(format, args...))
		}
	}
	for _, t := range s.Targets {
		add(t.Format == FormatTemplate, "targets[%s].format: Template", t.Name)
	}
	add(s.Journal.NATS != nil, "journal.nats")
	add(s.Receiver.TLS != nil, "receiver.tls")
	add(s.Expose != nil, "expose")
	return fields
}
