package ingest_test

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/event"
)

func compressed(t *testing.T, make func(w io.Writer) io.WriteCloser, text string) string {
	t.Helper()
	var out bytes.Buffer
	w := make(&out)
	_, err := io.WriteString(w, text)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return out.String()
}

func gzipped(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }
func zlibbed(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) }
func deflated(w io.Writer) io.WriteCloser {
	raw, err := flate.NewWriter(w, flate.BestSpeed)
	if err != nil {
		panic(err) // a level that is not known
	}
	return raw
}

// TestContentEncoding: bodies are decompressed within their bound, and stored without their encoding.
func TestContentEncoding(t *testing.T) {
	const cdr = `{"event_name":"Cdr","cuid":"1.1"}`
	bomb := strings.Repeat(" ", event.MaxBody+1)
	for name, tc := range map[string]struct {
		encoding, body string
		code           int
		kind           string
	}{
		"gzip":                          {"gzip", compressed(t, gzipped, cdr), 202, "call.ended"},
		"gzip by its other name":        {"X-GZip", compressed(t, gzipped, cdr), 202, "call.ended"},
		"deflate":                       {"deflate", compressed(t, zlibbed, cdr), 202, "call.ended"},
		"deflate without its header":    {"deflate", compressed(t, deflated, cdr), 202, "call.ended"},
		"identity":                      {"identity", cdr, 202, "call.ended"},
		"empty":                         {"", cdr, 202, "call.ended"},
		"one over the other":            {"deflate, identity , gzip", compressed(t, gzipped, compressed(t, zlibbed, cdr)), 202, "call.ended"},
		"a proxy that left the header":  {"gzip", cdr, 202, "call.ended"},
		"cut off":                       {"gzip", compressed(t, gzipped, cdr)[:20], 202, "unparsed"},
		"another one":                   {"br", cdr, 415, ""},
		"another one over a known one":  {"gzip, zstd", cdr, 415, ""},
		"too many":                      {"gzip,gzip,gzip,gzip,gzip", cdr, 415, ""},
		"a bomb":                        {"gzip", compressed(t, gzipped, bomb), 413, ""},
		"a bomb in deflate":             {"deflate", compressed(t, deflated, bomb), 413, ""},
		"a bomb in a bomb":              {"gzip, gzip", compressed(t, gzipped, compressed(t, gzipped, bomb)), 413, ""},
		"as long as a body may be":      {"gzip", compressed(t, gzipped, cdr+strings.Repeat(" ", event.MaxBody-len(cdr))), 202, "call.ended"},
		"too long before decompression": {"br", bomb, 413, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			got := r.do("POST", "/hooks/crm/simotel", "password", tc.body, "Content-Encoding", tc.encoding)
			require.Equal(t, tc.code, got.code, got.Error)
			require.Equal(t, tc.kind, got.Type)
			if tc.kind != "call.ended" {
				return
			}
			record, err := r.simotel.Journal.Get(1)
			require.NoError(t, err)
			require.Equal(t, cdr, strings.TrimSpace(string(record.Request.Body)))
			if tc.encoding != "" && tc.body != cdr {
				require.Empty(t, record.Request.Header["Content-Encoding"])
			}
		})
	}
}

// TestTokenInAWrappedBody: the token is found, and taken out, in whatever a body is wrapped.
func TestTokenInAWrappedBody(t *testing.T) {
	utf16 := "\xff\xfe"
	for _, c := range `{"event_name":"Cdr","cuid":"1.1","X-API-Key":"t0ken/=+"}` {
		utf16 += string([]byte{byte(c), 0})
	}
	for name, tc := range map[string]struct{ contentType, body string }{
		"JSON under payload": {"application/x-www-form-urlencoded", `payload={"event_name":"Cdr","cuid":"1.1","X-API-Key":"t0ken/=%2B"}`},
		"JSON as a key":      {"application/x-www-form-urlencoded", `%7B%22event_name%22%3A%22Cdr%22%2C%22cuid%22%3A%221.1%22%2C%22X-API-Key%22%3A%22t0ken%2F%3D%2B%22%7D=`},
		"UTF-16":             {"application/json", utf16},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			got := r.do("POST", "/hooks/crm/simotel", "", tc.body, "Content-Type", tc.contentType)
			require.Equal(t, 202, got.code, got.Error)
			require.Equal(t, "call.ended", got.Type)
			record, err := r.simotel.Journal.Get(1)
			require.NoError(t, err)
			require.NotContains(t, strings.ReplaceAll(string(record.Request.Body), "\x00", ""), "t0ken")
		})
	}
}

// TestAddressWithItsOwnQuery: the parameters of an event are appended with another question mark, also to a token.
func TestAddressWithItsOwnQuery(t *testing.T) {
	r := newRig(t)
	got := r.do("GET", "/hooks/crm/simotel?x-api-key=t0ken/%3D%2B?event_name=Cdr&cuid=1.1", "", "")
	require.Equal(t, 202, got.code, got.Error)
	require.Equal(t, "call.ended", got.Type)
}
