package receiver_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// answers sends bytes and returns the statuses of what is answered, without the informational ones, and whether the
// connection was closed then.
func answers(t *testing.T, address, raw string, n int) (statuses []int, closed bool) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	_, _ = io.WriteString(conn, raw) // it may be rejected before its end
	reader := bufio.NewReader(conn)
	for len(statuses) < n {
		response, err := http.ReadResponse(reader, nil)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, response.Body)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		if response.StatusCode >= 200 {
			statuses = append(statuses, response.StatusCode)
			closed = response.Close
		}
	}
	return statuses, closed
}

// TestRawRequests: what net/http rejects, the receiver rejects, and nothing else but by the table of docs/operations.md.
func TestRawRequests(t *testing.T) {
	r := start(t, manifest("first", at("a", "http://127.0.0.1:1/")))
	bare := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(299)
	}))
	defer bare.Close()
	const ok = 299
	const path = "/hooks/crm/callcenter/Cdr"
	const basic = "Authorization: Basic cGJ4OmZpcnN0\r\n"
	const event = "Content-Length: 19\r\n\r\n" + `{"unique_id":"1.2"}`
	for name, tc := range map[string]struct {
		raw  string
		bare []int
		want []int // of the receiver, where it differs
	}{
		"an event":                      {"POST " + path + " HTTP/1.1\r\nHost: x\r\n" + basic + event, []int{ok}, []int{202}},
		"in HTTP/1.0":                   {"POST " + path + " HTTP/1.0\r\n" + basic + event, []int{ok}, []int{202}},
		"in chunks":                     {"POST " + path + " HTTP/1.1\r\nHost: x\r\n" + basic + "Transfer-Encoding: chunked\r\n\r\n13\r\n" + `{"unique_id":"1.2"}` + "\r\n0\r\n\r\n", []int{ok}, []int{202}},
		"two in one piece":              {strings.Repeat("POST "+path+" HTTP/1.1\r\nHost: x\r\n"+basic+event, 2), []int{ok, ok}, []int{202, 202}},
		"an empty line after the body":  {strings.Repeat("POST "+path+" HTTP/1.1\r\nHost: x\r\n"+basic+event+"\r\n", 2), []int{ok, ok}, []int{202, 202}},
		"asks whether to go on":         {"POST " + path + " HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n" + basic + event, []int{ok}, []int{202}},
		"an absolute URL":               {"POST http://x" + path + " HTTP/1.1\r\nHost: x\r\n" + basic + event, []int{ok}, []int{202}},
		"line ends without CR":          {"POST " + path + " HTTP/1.1\nHost: x\n" + strings.ReplaceAll(basic+event, "\r", ""), []int{ok}, []int{202}},
		"an unknown webhook":            {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", []int{ok}, []int{404}},
		"a method of its own":           {"BREW " + path + " HTTP/1.1\r\nHost: x\r\n" + basic + event, []int{ok}, []int{405}},
		"no credentials":                {"POST " + path + " HTTP/1.1\r\nHost: x\r\n" + event, []int{ok}, []int{401}},
		"a bad escape in the path":      {"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", []int{400}, nil},
		"no Host":                       {"POST " + path + " HTTP/1.1\r\n" + basic + event, []int{400}, nil},
		"two Hosts":                     {"POST " + path + " HTTP/1.1\r\nHost: x\r\nHost: y\r\n" + basic + event, []int{400}, nil},
		"a malformed Host":              {"POST " + path + " HTTP/1.1\r\nHost: x y\r\n" + basic + event, []int{400}, nil},
		"an unknown Expect":             {"POST " + path + " HTTP/1.1\r\nHost: x\r\nExpect: more\r\n" + basic + event, []int{417}, nil},
		"a space before a colon":        {"POST " + path + " HTTP/1.1\r\nHost: x\r\nX-A : b\r\n" + basic + event, []int{400}, nil},
		"a control in a value":          {"POST " + path + " HTTP/1.1\r\nHost: x\r\nX-A: a\x00b\r\n" + basic + event, []int{400}, nil},
		"a name that is no token":       {"POST " + path + " HTTP/1.1\r\nHost: x\r\nX(A): b\r\n" + basic + event, []int{400}, nil},
		"a line without a colon":        {"POST " + path + " HTTP/1.1\r\nHost: x\r\nX-A\r\n" + basic + event, []int{400}, nil},
		"two lengths":                   {"POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n" + basic + event, []int{400}, nil},
		"a negative length":             {"POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", []int{400}, nil},
		"a length with a sign":          {"POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\nx", []int{400}, nil},
		"an unknown transfer encoding":  {"POST " + path + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", []int{501}, nil},
		"two transfer encodings":        {"POST " + path + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", []int{501}, nil},
		"no HTTP":                       {"hello\r\n\r\n", []int{400}, nil},
		"a version that is none":        {"GET / HTTP/9.9\r\nHost: x\r\n\r\n", []int{505}, nil},
		"TLS":                           {"\x16\x03\x01\x00\x05hello\r\n\r\n", []int{400}, nil},
		"a method with a slash":         {"GE/T / HTTP/1.1\r\nHost: x\r\n\r\n", []int{400}, nil},
		"a header of 80 KiB":            {"GET / HTTP/1.1\r\nHost: x\r\nX-A: " + strings.Repeat("x", 80<<10), []int{431}, nil},
		"a request after a malformed":   {"GET / HTTP/1.1\r\n\r\nPOST " + path + " HTTP/1.1\r\nHost: x\r\n" + basic + event, []int{400}, nil},
		"a malformed one after another": {"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\n\r\n", []int{ok, 400}, []int{404, 400}},
	} {
		t.Run(name, func(t *testing.T) {
			want := tc.want
			if want == nil {
				want = tc.bare
			}
			if name != "a header of 80 KiB" { // the bare one takes 1 MiB
				got, closed := answers(t, strings.TrimPrefix(bare.URL, "http://"), tc.raw, len(tc.bare))
				require.Equal(t, tc.bare, got)
				ours, closedToo := answers(t, r.hooks, tc.raw, len(want))
				require.Equal(t, want, ours)
				require.Equal(t, closed, closedToo, "whether the connection goes on")
				return
			}
			got, closed := answers(t, r.hooks, tc.raw, 1)
			require.Equal(t, fmt.Sprint(want), fmt.Sprint(got))
			require.True(t, closed)
		})
	}
}
