package wire_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/provider/wire"
)

func gzipOf(t testing.TB, text string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := io.WriteString(w, text)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return out.Bytes()
}

// TestDecompressReserves room for what comes out, as it does: a body that finds none is not taken for one that was never
// compressed.
func TestDecompressReserves(t *testing.T) {
	body := gzipOf(t, strings.Repeat("x", 100_000))
	header := func() http.Header { return http.Header{"Content-Encoding": {"gzip"}} }
	reserved := 0
	plain, err := wire.Decompress(header(), body, 1<<20, func(n int) error { reserved += n; return nil })
	require.NoError(t, err)
	require.Len(t, plain, 100_000)
	require.Equal(t, 100_000, reserved)

	busy := errors.New("busy")
	_, err = wire.Decompress(header(), body, 1<<20, func(int) error { return busy })
	require.ErrorIs(t, err, busy)
	_, err = wire.Decompress(header(), body, 99_999, nil)
	require.ErrorIs(t, err, wire.ErrTooLarge)
}

func FuzzDecompress(f *testing.F) {
	f.Add("gzip", gzipOf(f, `{"a":1}`))
	f.Add("gzip, deflate", []byte("x\x9c\x03\x00\x00\x00\x00\x01"))
	f.Add("deflate", []byte("\x03\x00"))
	f.Add("identity,,br", []byte("x"))
	f.Fuzz(func(t *testing.T, encoding string, body []byte) {
		const limit = 1 << 16
		plain, err := wire.Decompress(http.Header{"Content-Encoding": {encoding}}, body, limit, nil)
		if err == nil && len(plain) > max(limit, len(body)) {
			t.Fatalf("%d bytes", len(plain))
		}
	})
}

// FuzzRead tries bodies in charsets and wrappings.
func FuzzRead(f *testing.F) {
	for _, seed := range []struct{ contentType, query, body string }{
		{"application/json; charset=utf-16", "", "\xff\xfe{\x00}\x00"},
		{"application/x-www-form-urlencoded; charset=windows-1256", "a=1?b=2", "a=%DD&b[]=1&b[]=2&c[][d]=3"},
		{"multipart/form-data", "", "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--x--"},
		{"text/plain; charset=iso-2022-jp", "", "\x1b$B{}"},
		{"", "", "%7B%22a%22%3A1%7D="},
		{"", "", "payload=%257B%2522a%2522%253A1%257D"},
	} {
		f.Add(seed.contentType, seed.query, []byte(seed.body))
	}
	f.Fuzz(func(t *testing.T, contentType, query string, body []byte) {
		fields, err := wire.Read(request(contentType, query, body), wire.Settings{TokenName: "token"})
		if err != nil {
			return
		}
		fields.Keys()
		if payload := fields.Payload(); len(payload) > 8*(len(body)+len(query))+64 {
			t.Fatalf("%d bytes of payload", len(payload))
		}
	})
}

func request(contentType, query string, body []byte) *event.Request {
	return &event.Request{Method: "POST", Query: query, Body: body, Header: http.Header{"Content-Type": {contentType}}}
}
