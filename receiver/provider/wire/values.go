package wire

// First is the first text that is not empty.
func First(texts ...string) string {
	for _, text := range texts {
		if text != "" {
			return text
		}
	}
	return ""
}
