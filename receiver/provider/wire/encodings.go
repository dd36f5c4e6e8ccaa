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
// limit bytes; its header loses them. Room for what comes out is reserved as it does (nil: there is no bound but limit), and
// an error of reserve is returned. A body that is not what its header says, as behind a proxy that decompresses it and leaves
// the header, stays as it is. Errors: ErrTooLarge, UnknownEncodingError, that of reserve.
func Decompress(header http.Header, body []byte, limit int, reserve func(n int) error) ([]byte, error) {
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
		d := decompressor{limit: limit, reserve: reserve}
		decompressed, err := d.decompress(encodings[i], plain)
		switch unknown := (*UnknownEncodingError)(nil); {
		case d.refused != nil:
			return nil, d.refused
		case errors.As(err, &unknown), errors.Is(err, ErrTooLarge):
			return nil, err
		case err != nil:
			return body, nil
		}
		plain = decompressed
	}
	header.Del("Content-Encoding")
	return plain, nil
}

// decompressor undoes one encoding.
type decompressor struct {
	limit   int
	reserve func(n int) error
	refused error // of reserve
}

func (d *decompressor) decompress(encoding string, body []byte) ([]byte, error) {
	switch encoding {
	case "gzip", "x-gzip":
		reader, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			return nil, fmt.Errorf("read gzip: %w", err)
		}
		return d.read(reader)
	case "deflate": // zlib's format, which some clients leave out
		if reader, err := zlib.NewReader(bytes.NewReader(body)); err == nil {
			if plain, err := d.read(reader); err == nil || errors.Is(err, ErrTooLarge) || d.refused != nil {
				return plain, err
			}
		}
		return d.read(flate.NewReader(bytes.NewReader(body)))
	}
	return nil, &UnknownEncodingError{encoding}
}

func (d *decompressor) read(reader io.Reader) ([]byte, error) {
	plain, err := io.ReadAll(io.LimitReader(metered{reader, d}, int64(d.limit)+1))
	if len(plain) > d.limit {
		return nil, ErrTooLarge
	}
	if err != nil {
		return nil, fmt.Errorf("decompress the body: %w", err)
	}
	return plain, nil
}

// metered reserves room for what is read.
type metered struct {
	io.Reader
	decompressor *decompressor
}

// Read implements io.Reader.
func (m metered) Read(data []byte) (int, error) {
	n, err := m.Reader.Read(data)
	if n > 0 && m.decompressor.reserve != nil {
		if m.decompressor.refused = m.decompressor.reserve(n); m.decompressor.refused != nil {
			return 0, m.decompressor.refused
		}
	}
	return n, err //nolint:wrapcheck // io.EOF must stay itself
}
