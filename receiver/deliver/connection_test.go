package deliver_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/deliver"
	"github.com/pbxhook/pbxhook/receiver/dispatch"
	"github.com/pbxhook/pbxhook/receiver/render"
)

// rawTarget answers the first request on each connection with exact bytes, and each one after it with 299 and a body.
type rawTarget struct {
	address     string
	connections atomic.Int32

	response string
	later    string // sent without a request, once the first response was read
	read     chan bool
	closed   chan bool // the first connection's end, seen by the target
}

// start serves until the test ends.
func (target *rawTarget) start(t testing.TB) *rawTarget {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	target.address = "http://" + listener.Addr().String() + "/"
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { target.serve(conn, target.connections.Add(1) == 1) })
		}
	})
	t.Cleanup(func() {
		require.NoError(t, listener.Close())
		serving.Wait()
	})
	return target
}

func (target *rawTarget) serve(conn net.Conn, first bool) {
	defer func() { _ = conn.Close() }()
	response, later, read, closed := target.response, target.later, target.read, target.closed
	if !first {
		response, later, closed = own, "", nil
	}
	reader := bufio.NewReader(conn)
	for {
		request, err := http.ReadRequest(reader)
		if err == nil {
			_, err = io.Copy(io.Discard, request.Body)
		}
		if err != nil {
			if closed != nil {
				close(closed)
			}
			return
		}
		_, _ = io.WriteString(conn, response)
		response = own
		if later != "" {
			<-read
			_, _ = io.WriteString(conn, later)
			later = ""
		}
	}
}

const own = "HTTP/1.1 299 Own\r\nContent-Length: 3\r\n\r\nown"

func send(ctx context.Context, d *deliver.Deliverer, url string, header http.Header) dispatch.Outcome {
	return d.Deliver(ctx, "evt_1", &render.Request{Method: http.MethodPost, URL: url, Header: header, Body: []byte("hello")})
}

func newDeliverer(t testing.TB, o deliver.Options) *deliver.Deliverer {
	t.Helper()
	d, err := deliver.New(o)
	require.NoError(t, err)
	t.Cleanup(d.Close)
	return d
}

// TestResponses: targets that net/http's own server is not. Whatever the first response was, the second request gets
// its own.
func TestResponses(t *testing.T) {
	for name, tc := range map[string]struct {
		response    string
		status      int // 0: there was no response
		reply       string
		connections int32 // of two requests
	}{
		"early hints":               {"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", 204, "", 1},
		"told to go on":             {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, "ok", 1},
		"it closes":                 {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", 200, "ok", 2},
		"more than it says":         {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok!", 200, "ok", 2},
		"a second response":         {"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 204, "", 2},
		"a second, after a body":    {"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nnoHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 503, "no", 2},
		"a body with 204":           {"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok", 204, "", 2},
		"chunks":                    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200, "ok", 1},
		"a header that is too long": {"HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("x", 70<<10) + "\r\n\r\n", 0, "", 2},
		"not HTTP":                  {"220 mail.example.com ESMTP\r\n", 0, "", 2},
		"no status":                 {"HTTP/1.1 \r\n\r\n", 0, "", 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target := (&rawTarget{response: tc.response}).start(t)
			d := newDeliverer(t, options())
			got := send(t.Context(), d, target.address, http.Header{})
			require.Equal(t, tc.status, got.Status, got.Reason)
			require.Equal(t, tc.reply, got.Reply)
			require.Equal(t, tc.status != 0, got.Answered)
			require.NotContains(t, got.Reason, "ESMTP")
			next := send(t.Context(), d, target.address, http.Header{})
			require.Equal(t, 299, next.Status, next.Reason)
			require.Equal(t, tc.connections, target.connections.Load())
		})
	}
}

// TestUnsolicitedResponse: what comes on an idle connection is no response to the next request.
func TestUnsolicitedResponse(t *testing.T) {
	for name, unsolicited := range map[string]string{
		"a proxy's 408": "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
		"a 200":         "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"half of one":   "HTTP/1.1 2",
		"an empty line": "\r\n",
	} {
		for _, wait := range []bool{true, false} { // for the connection's end; or not at all
			t.Run(fmt.Sprintf("%s, %t", name, wait), func(t *testing.T) {
				t.Parallel()
				target := (&rawTarget{response: own, later: unsolicited, read: make(chan bool), closed: make(chan bool)}).start(t)
				d := newDeliverer(t, options())
				require.Equal(t, 299, send(t.Context(), d, target.address, http.Header{}).Status)
				target.read <- true
				if wait {
					<-target.closed
				}
				got := send(t.Context(), d, target.address, http.Header{})
				if wait || got.Status == 299 {
					require.Equal(t, 299, got.Status, got.Reason)
					return
				}
				// It came while the request was on its way: nothing can tell.
				require.Equal(t, int32(1), target.connections.Load())
			})
		}
	}
}

// TestClosedWhileIdle: a request that goes out on a connection just as the target closes it is sent again.
func TestClosedWhileIdle(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	defer server.Close()
	d := newDeliverer(t, options())
	for range 50 {
		got := send(t.Context(), d, server.URL, http.Header{})
		require.Equal(t, 204, got.Status, got.Reason)
		server.CloseClientConnections()
	}
}

// TestConnectionsAreKept: as many as are in use at a time.
func TestConnectionsAreKept(t *testing.T) {
	var count atomic.Int32
	together := make(chan bool)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-together
		_, _ = io.Copy(w, r.Body)
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			count.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	o := options()
	o.Connections = 8
	d := newDeliverer(t, o)
	for range 3 {
		var senders sync.WaitGroup
		for range 8 {
			senders.Go(func() {
				got := send(context.Background(), d, server.URL, http.Header{})
				if got.Status != 200 || got.Reply != "hello" {
					t.Errorf("expected 200 with the request's body, got %+v", got)
				}
			})
		}
		for range 8 {
			together <- true
		}
		senders.Wait()
	}
	require.Equal(t, int32(8), count.Load())
}

// TestRequestsThatCannotBeMade: they are dead letters, and say nothing of the target.
func TestRequestsThatCannotBeMade(t *testing.T) {
	target := (&rawTarget{response: own}).start(t)
	for name, tc := range map[string]struct {
		url    string
		header http.Header
		want   string
	}{
		"a line end in a value":   {target.address, http.Header{"X-A": {"hush\r\nInjected: b"}}, `header "X-A"`},
		"a control character":     {target.address, http.Header{"X-A": {"hush\x00"}}, `header "X-A"`},
		"a space before a colon":  {target.address, http.Header{"X-A ": {"hush"}}, `header "X-A "`},
		"a name that is no token": {target.address, http.Header{"X(A)": {"hush"}}, `header "X(A)"`},
		"an empty name":           {target.address, http.Header{"": {"hush"}}, `header ""`},
		"no URL":                  {"http://[hush/", http.Header{}, "URL"},
		"no host":                 {"http:///hush", http.Header{}, "host"},
		"another scheme":          {"ftp://hush/", http.Header{}, "http or https"},
		"a control in the URL":    {"http://hush/\x7f", http.Header{}, "URL"},
	} {
		t.Run(name, func(t *testing.T) {
			got := send(t.Context(), newDeliverer(t, options()), tc.url, tc.header)
			require.Equal(t, dispatch.Refused, got.Result)
			require.False(t, got.Unavailable)
			require.False(t, got.Answered)
			require.Contains(t, got.Reason, tc.want)
			require.NotContains(t, got.Reason, "hush")
		})
	}
	require.Zero(t, target.connections.Load())
}

// TestResponseThatIsNotReadToItsEnd: it is not waited for, and its connection is not used again.
func TestResponseThatIsNotReadToItsEnd(t *testing.T) {
	target := (&rawTarget{response: "HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n" + strings.Repeat("x", 100<<10)}).start(t)
	d := newDeliverer(t, options())
	got := send(t.Context(), d, target.address, http.Header{})
	require.Equal(t, 200, got.Status)
	require.Len(t, got.Reply, 1<<10)
	require.Equal(t, 299, send(t.Context(), d, target.address, http.Header{}).Status)
	require.Equal(t, int32(2), target.connections.Load())
}

// TestCancelledAttempt ends at once.
func TestCancelledAttempt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		cancel()
		<-r.Context().Done()
	}))
	defer server.Close()
	o := options()
	o.Timeout = time.Hour
	require.Equal(t, "the receiver is shutting down", send(ctx, newDeliverer(t, o), server.URL, http.Header{}).Reason)
}

// FuzzResponses sends any bytes as a target's response: the next request gets its own all the same.
func FuzzResponses(f *testing.F) {
	for _, seed := range []string{
		own, "", "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\nrest",
		"HTTP/1.0 200\r\n\r\nuntil the end", "HTTP/1.1 103 Early Hints\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nother", "\x16\x03\x01", "HTTP/1.1 408 Request Timeout\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	o := options()
	o.Timeout = 50 * time.Millisecond // for half a response
	f.Fuzz(func(t *testing.T, raw []byte) {
		target := (&rawTarget{response: string(raw)}).start(t)
		d := newDeliverer(t, o)
		got := send(t.Context(), d, target.address, http.Header{})
		require.Equal(t, got.Status != 0, got.Answered)
		if next := send(t.Context(), d, target.address, http.Header{}); next.Status != 299 {
			require.Contains(t, next.Reason, "in time", "the machine is busy; anything else was taken for the response")
		}
	})
}
