package ingest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/provider/wire"
	"github.com/pbxhook/pbxhook/receiver/server"
)

// likelyBody is up to where, in bytes, a sender's word is taken for how long its body is.
const likelyBody = 16 << 10

// readBody reads a request's body, and returns either it or the answer to a body that is not accepted. All
// bounds of a body, and its decoding, are here.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, *answer) {
	if r.ContentLength > event.MaxBody {
		return nil, bodyTooLarge()
	}
	body, err := readBounded(w, r)
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, bodyTooLarge()
	}
	if errors.Is(err, server.ErrBusy) {
		return nil, busy()
	}
	if err != nil {
		rejected := reject(http.StatusBadRequest, "the body ended early or came too slowly").with("Connection", "close")
		return nil, &rejected
	}
	return decompress(w, r.Header, body)
}

// decompress returns a body without its Content-Encoding, which is not stored: what the journal, filters and targets get is
// what the PBX compressed.
func decompress(w http.ResponseWriter, header http.Header, body []byte) ([]byte, *answer) {
	plain, err := wire.Decompress(header, body, event.MaxBody, func(n int) error { return server.ReserveBody(w, n) })
	switch {
	case errors.Is(err, wire.ErrTooLarge):
		return nil, bodyTooLarge()
	case errors.Is(err, server.ErrBusy):
		return nil, busy()
	case err != nil:
		rejected := reject(http.StatusUnsupportedMediaType, "%v", err).with("Accept-Encoding", "gzip, deflate")
		return nil, &rejected
	}
	return plain, nil
}

const (
	// largeBody is from how many bytes on a body waits for a place to be decoded: JSON can take thirty times its
	// length in memory, also that of a sender whose token is still looked for in it.
	largeBody = 64 << 10
	// largeAtOnce is how many of these places there are.
	largeAtOnce = 2
)

// decoding bounds the memory that decoders take at once.
type decoding chan struct{}

func newDecoding() decoding { return make(decoding, largeAtOnce) }

// do runs what decodes a body, with not too many large ones at once.
func (d decoding) do(body []byte, decode func()) {
	if len(body) >= largeBody {
		d <- struct{}{}
		defer func() { <-d }()
	}
	decode()
}

func busy() *answer {
	rejected := reject(http.StatusServiceUnavailable, "the receiver is busy (too many bytes of bodies are in flight): send the event again").
		with("Retry-After", server.RetryAfter).with("Connection", "close")
	return &rejected
}

func bodyTooLarge() *answer {
	rejected := reject(http.StatusRequestEntityTooLarge, "expected a body of at most %d bytes", event.MaxBody).with("Connection", "close")
	return &rejected
}

func readBounded(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	reader := http.MaxBytesReader(w, r.Body, event.MaxBody)
	var err error
	body := make([]byte, max(0, min(r.ContentLength, likelyBody)))
	if r.ContentLength == int64(len(body)) {
		_, err = io.ReadFull(reader, body)
	} else {
		body, err = io.ReadAll(reader)
	}
	if err != nil {
		return nil, fmt.Errorf("read the body: %w", err)
	}
	return body, nil
}

// hasBody reports whether a request has a body. Where its header does not tell (a chunked one), the first byte is
// read, and read again with the rest.
func hasBody(r *http.Request) bool {
	if r.ContentLength >= 0 {
		return r.ContentLength > 0
	}
	var first [1]byte
	n, err := io.ReadFull(r.Body, first[:])
	if n == 0 {
		return !errors.Is(err, io.EOF) // a body that fails is not none: reading it fails again
	}
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(first[:]), r.Body), r.Body}
	return true
}
