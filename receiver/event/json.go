package event

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// JSON writes a value as a PBX or a target writes it: with <, > and & as they are.
func JSON(value any) ([]byte, error) {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return nil, fmt.Errorf("write JSON: %w", err)
	}
	return bytes.TrimSpace(buffer.Bytes()), nil
}
