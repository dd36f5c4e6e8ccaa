package v1alpha1

// NotImplemented names the fields that are set and that this version accepts but does not act on.
func (s *PBXWebhookSpec) NotImplemented() []string {
	var fields []string
	add := func(set bool, field string) {
		if set {
			fields = append(fields, field)
		}
	}
	add(s.Journal.NATS != nil && s.Journal.DeletionPolicy == DeletionDelete, "journal.deletionPolicy") // the stream stays
	return fields
}
