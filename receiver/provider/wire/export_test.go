package wire

// Sent are the fields as they were sent.
func (f Fields) Sent() map[string]any { return f.sent }
