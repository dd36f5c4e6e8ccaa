package sim

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"

	"golang.org/x/text/encoding/unicode"
)

// Body is a message's text as it goes over the wire, in its charset and compression, with the headers that say so.
func (m *Message) Body(text string) ([]byte, http.Header, error) {
	header := http.Header{}
	contentType := m.Style.ContentType()
	body := []byte(text)
	if m.Charset != "" && len(body) > 0 {
		encoded, err := unicode.UTF16(unicode.LittleEndian, unicode.UseBOM).NewEncoder().Bytes(body)
		if err != nil {
			return nil, nil, fmt.Errorf("write %s: %w", m.Charset, err)
		}
		body, contentType = encoded, contentType+"; charset="+m.Charset
	}
	if contentType != "" {
		header.Set("Content-Type", contentType)
	}
	if !m.Gzip || len(body) == 0 {
		return body, header, nil
	}
	var compressed bytes.Buffer
	w := gzip.NewWriter(&compressed)
	if _, err := w.Write(body); err != nil {
		return nil, nil, fmt.Errorf("compress: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, nil, fmt.Errorf("compress: %w", err)
	}
	header.Set("Content-Encoding", "gzip")
	return compressed.Bytes(), header, nil
}
