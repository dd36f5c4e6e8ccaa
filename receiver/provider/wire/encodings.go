package wire

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// ErrTooLarge says that a body is longer than its bound once it is decompressed.
var ErrTooLarge = errors.New("the decompressed body is too large")

// UnknownEncodingError says that a body has a Content-Encoding that is not known.
type UnknownEncodingError struct{ Encoding string }

// Error implements error.
func (e *UnknownEncodingError) Error() string {
	return fmt.Sprintf("expected Content-Encoding gzip, deflate or identity, got %.40q", e.Encoding)
}

// maxEncodings is how many times a body may be compressed, one over the other.
const maxEncodings = 4

// Decompress is a body without its Content-Encodings (RFC 9110: gzip, deflate, identity, also several in a list), of at most
// limit bytes; its header loses them. A body that is not what its header says, as behind a proxy that decompresses it and
// leaves the header, stays as it is. Errors: ErrTooLarge, UnknownEncodingError.
func Decompress(header http.Header, body []byte, limit int) ([]byte, error) {
	values := header["Content-Encoding"]
	if len(values) == 0 {
		return body, nil
	}
	var encodings []string
	for value := range strings.SplitSeq(strings.Join(values, ","), ",") {
		if value = strings.ToLower(strings.TrimSpace(value)); value != "" && value != "identity" {
			encodings = append(encodings, value)
		}
	}
	if len(encodings) > maxEncodings {
		return nil, &UnknownEncodingError{strings.Join(encodings, ", ")}
	}
	plain := body
	for i := len(encodings) - 1; i >= 0; i-- { // the last one was applied last
		decompressed, err := decompress(encodings[i], plain, limit)
		if unknown := (*UnknownEncodingError)(nil); errors.Is(err, ErrTooLarge) || errors.As(err, &unknown) {
			return nil, err
		}
		if err != nil {
			return body, nil
		}
		plain = decompressed
	}
	header.Del("Content-Encoding")
	return plain, nil
}

func decompress(encoding string, body []byte, limit int) ([]byte, error) {
	switch encoding {
	case "gzip", "x-gzip":
		reader, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			return nil, fmt.Errorf("read gzip: %w", err)
		}
		return readUpTo(reader, limit)
	case "deflate": // zlib's format, which some clients leave out
		if reader, err := zlib.NewReader(bytes.NewReader(body)); err == nil {
			if plain, err := readUpTo(reader, limit); err == nil || errors.Is(err, ErrTooLarge) {
				return plain, err
			}
		}
		return readUpTo(flate.NewReader(bytes.NewReader(body)), limit)
	}
	return nil, &UnknownEncodingError{encoding}
}

func readUpTo(reader io.Reader, limit int) ([]byte, error) {
	plain, err := io.ReadAll(io.LimitReader(reader, int64(limit)+1))
	if len(plain) > limit {
		return nil, ErrTooLarge
	}
	if err != nil {
		return nil, fmt.Errorf("decompress the body: %w", err)
	}
	return plain, nil
}
