package server_test

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/server"
)

// rejections collects what a server rejects before a handler.
type rejections struct {
	mu  sync.Mutex
	all []server.Rejection
}

func (r *rejections) add(one server.Rejection) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, one)
}

func (r *rejections) count(reason server.Reason) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range r.all {
		if one.Reason == reason {
			n++
		}
	}
	return n
}

func (r *rejections) last() server.Rejection {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.all) == 0 {
		return server.Rejection{}
	}
	return r.all[len(r.all)-1]
}

// picky answers 200 to GET, and 401 to all else.
func picky(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	if r.Method != http.MethodGet {
		w.WriteHeader(http.StatusUnauthorized)
	}
}

const wrong = "DELETE / HTTP/1.1\r\nHost: x\r\n\r\n"

// exchange sends a request on a connection and returns the status of its response; 0 where there is none.
func exchange(t testing.TB, conn net.Conn, request string) int {
	t.Helper()
	write(t, conn, request)
	return status(t, conn)
}

func status(t testing.TB, conn net.Conn) int {
	t.Helper()
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		require.NotErrorIs(t, err, errTimeout(err), "the connection is neither answered nor closed")
		return 0
	}
	_, _ = io.Copy(io.Discard, response.Body)
	require.NoError(t, response.Body.Close())
	return response.StatusCode
}

// errTimeout returns err where it is a time-out.
func errTimeout(err error) error {
	if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
		return err
	}
	return io.ErrNoProgress // which no connection returns
}

func closed(t testing.TB, conn net.Conn) {
	t.Helper()
	_, err := conn.Read(make([]byte, 1))
	require.Error(t, err)
	require.NotErrorIs(t, err, errTimeout(err))
}

// TestConnectionsBeyondTheBound: those that sent nothing valid are closed first, the oldest first; not one whose first
// request is being read. When all are in use, the next one gets 503 at once.
func TestConnectionsBeyondTheBound(t *testing.T) {
	seen := &rejections{}
	limits := server.NewLimits(6, 1<<20, seen.add)
	s := listen(t, server.Options{Handler: http.HandlerFunc(picky), Limits: limits})
	opened := 0
	open := func() net.Conn {
		t.Helper()
		conn := dial(t, s.Address())
		opened++
		require.Eventually(t, func() bool { now, _ := limits.Connections(); return now == min(opened, 6) }, patience, time.Millisecond)
		return conn
	}
	valid, silent, half, rejected, late, begun := open(), open(), open(), open(), open(), open()
	require.Equal(t, 200, exchange(t, valid, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	require.Equal(t, 401, exchange(t, rejected, wrong))
	write(t, half, "GET / HTTP/1.1\r\n")
	write(t, begun, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhel")
	require.Eventually(t, func() bool { return limits.InUse() == 2 }, patience, time.Millisecond)

	// silent, then rejected, then late make room for these, which send at once.
	require.Equal(t, 200, exchange(t, dial(t, s.Address()), "GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	closed(t, silent)
	require.Equal(t, 200, exchange(t, dial(t, s.Address()), "GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	closed(t, rejected)
	require.Equal(t, 200, exchange(t, dial(t, s.Address()), "GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	closed(t, late)
	require.Equal(t, 3, seen.count(server.Evicted))

	turnedAway := dial(t, s.Address())
	response, err := http.ReadResponse(bufio.NewReader(turnedAway), nil) // it need not send anything
	require.NoError(t, err)
	require.Equal(t, http.StatusServiceUnavailable, response.StatusCode)
	require.Equal(t, "5", response.Header.Get("Retry-After"))
	require.True(t, response.Close)
	var text struct{ Error string }
	require.NoError(t, json.NewDecoder(response.Body).Decode(&text))
	require.NoError(t, response.Body.Close())
	require.Contains(t, text.Error, "busy")
	require.Equal(t, 503, exchange(t, dial(t, s.Address()), "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n"+strings.Repeat("x", 300000)), "with a body on its way too")
	require.Equal(t, 2, seen.count(server.TooMany))
	require.Equal(t, server.Rejection{Reason: server.TooMany, Code: 503, Sender: seen.last().Sender, Detail: seen.last().Detail}, seen.last())

	require.Equal(t, 200, exchange(t, half, "Host: x\r\n\r\n"), "what was being read is answered")
	require.Equal(t, 401, exchange(t, begun, "lo"))
	require.Equal(t, 200, exchange(t, valid, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
}

// TestTurnedAwayOverTLS: they hear it too.
func TestTurnedAwayOverTLS(t *testing.T) {
	all, pool := certificates(t)
	s := listen(t, server.Options{Handler: http.HandlerFunc(picky), Certificates: all, Limits: server.NewLimits(1, 1<<20, nil)})
	first := tls.Client(dial(t, s.Address()), &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"})
	require.Equal(t, 200, exchange(t, first, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	for _, protocols := range [][]string{nil, {"h2", "http/1.1"}} {
		second := tls.Client(dial(t, s.Address()), &tls.Config{RootCAs: pool, ServerName: "127.0.0.1", NextProtos: protocols})
		require.Equal(t, 503, exchange(t, second, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	}
	require.Equal(t, 200, exchange(t, first, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
}

// TestBodiesInFlight: beyond the bound reading one fails, but small ones are read as long as any room is left.
func TestBodiesInFlight(t *testing.T) {
	limits := server.NewLimits(100, 256<<10, nil)
	s := listen(t, server.Options{Limits: limits, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); errors.Is(err, server.ErrBusy) {
			w.Header().Set("Connection", "close")
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})})
	inFlight := func(want int64) {
		t.Helper()
		require.Eventually(t, func() bool { now, _ := limits.BodyBytes(); return now == want }, patience, time.Millisecond)
	}
	request := func(length int) string {
		return fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", length)
	}
	slow := dial(t, s.Address())
	write(t, slow, request(190<<10)+strings.Repeat("x", 189<<10))
	inFlight(189 << 10)

	require.Equal(t, 503, exchange(t, dial(t, s.Address()), request(20<<10)), "before its body was sent")
	chunked := dial(t, s.Address())
	require.Equal(t, 503, exchange(t, chunked, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5000\r\n"+strings.Repeat("x", 0x5000)), "as it is read")
	inFlight(189 << 10)
	require.Equal(t, 200, exchange(t, dial(t, s.Address()), request(16<<10)+strings.Repeat("x", 16<<10)), "a small one")

	small := make([]net.Conn, 4) // these take the rest
	for i := range small {
		small[i] = dial(t, s.Address())
		write(t, small[i], request(16<<10)+strings.Repeat("x", 16<<10-1))
	}
	inFlight(189<<10 + 4*(16<<10-1))
	require.Equal(t, 503, exchange(t, dial(t, s.Address()), request(10<<10)+strings.Repeat("x", 10<<10)))
	for _, conn := range small {
		require.Equal(t, 200, exchange(t, conn, "x"))
	}
	require.Equal(t, 200, exchange(t, slow, strings.Repeat("x", 1<<10)))
	inFlight(0)
	require.Equal(t, 200, exchange(t, dial(t, s.Address()), request(190<<10)+strings.Repeat("x", 190<<10)))
}

// TestReservedBodies: what a handler makes of a body, such as by decompression, counts like the body until the answer.
func TestReservedBodies(t *testing.T) {
	limits := server.NewLimits(100, 256<<10, nil)
	reserved := make(chan error, 2)
	s := listen(t, server.Options{Limits: limits, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		reserved <- server.ReserveBody(w, 100<<10)
		reserved <- server.ReserveBody(w, 100<<10)
	})})
	require.Equal(t, 200, exchange(t, dial(t, s.Address()), "GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	require.NoError(t, <-reserved)
	require.ErrorIs(t, <-reserved, server.ErrBusy)
	require.Eventually(t, func() bool { now, _ := limits.BodyBytes(); return now == 0 }, patience, time.Millisecond)
}

// TestLongHeaders: those who send much of a header share a bound, and small headers are read all the same.
func TestLongHeaders(t *testing.T) {
	seen := &rejections{}
	s := listen(t, server.Options{Handler: http.HandlerFunc(picky), Limits: server.NewLimits(1024, 1<<20, seen.add)})
	lines := "GET / HTTP/1.1\r\nHost: x\r\n"
	for i := range 3500 { // of few bytes each: in memory a line takes much more
		lines += fmt.Sprintf("x%d:\r\n", i)
	}
	for range 60 {
		write(t, dial(t, s.Address()), lines)
	}
	require.Eventually(t, func() bool { return seen.count(server.TooManyHeaders) > 0 }, patience, time.Millisecond)
	require.Equal(t, 503, seen.last().Code)
	require.Equal(t, 200, exchange(t, dial(t, s.Address()), "GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: a PBX\r\nAccept: */*\r\n\r\n"))
}

// TestWhatNetHTTPRejects is told, with the sender and the reason; what a handler answers is not.
func TestWhatNetHTTPRejects(t *testing.T) {
	all, pool := certificates(t)
	for _, secure := range []bool{false, true} {
		seen := &rejections{}
		o := server.Options{Handler: http.HandlerFunc(picky), Limits: server.NewLimits(10, 1<<20, seen.add)}
		if secure {
			o.Certificates = all
		}
		s := listen(t, o)
		connect := func() net.Conn {
			conn := dial(t, s.Address())
			if secure {
				return tls.Client(conn, &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"})
			}
			return conn
		}
		for _, tc := range []struct {
			request, detail string
			code            int
		}{
			{"GET / HTTP/1.1\r\n\r\n", "missing required Host header", 400},
			{"GET / HTTP/1.1\r\nHost: x\r\nX-A : b\r\n\r\n", "invalid header name", 400},
			{"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", "Not Implemented", 501},
			{"GET / HTTP/9.0\r\nHost: x\r\n\r\n", "unsupported protocol version", 505},
			{"GET / HTTP/1.1\r\nHost: x\r\nExpect: a miracle\r\n\r\n", "Expectation Failed", 417},
			{"garbage\r\n\r\n", "Bad Request", 400},
			{"GET / HTTP/1.1\r\nHost: x\r\nX-A: " + strings.Repeat("x", 80<<10) + "\r\n\r\n", "Too Large", 431},
			{wrong + "GET / HTTP/1.1\r\n\r\n", "missing required Host header", 400}, // the second one
		} {
			before := seen.count(server.Malformed)
			conn := connect()
			if strings.HasPrefix(tc.request, wrong) {
				require.Equal(t, 401, exchange(t, conn, wrong))
				tc.request = strings.TrimPrefix(tc.request, wrong)
			}
			require.Equal(t, tc.code, exchange(t, conn, tc.request), tc.detail)
			require.Equal(t, before+1, seen.count(server.Malformed))
			require.Equal(t, tc.code, seen.last().Code)
			require.Contains(t, seen.last().Detail, tc.detail)
			require.Equal(t, conn.LocalAddr().String(), seen.last().Sender)
		}
		require.Equal(t, 401, exchange(t, connect(), wrong))
		require.Equal(t, 8, seen.count(server.Malformed))
	}
}

// TestHandshakesThatFail: why is told, such as that the sender does not trust the certificate.
func TestHandshakesThatFail(t *testing.T) {
	all, _ := certificates(t)
	seen := &rejections{}
	s := listen(t, server.Options{Handler: http.HandlerFunc(picky), Certificates: all, Limits: server.NewLimits(10, 1<<20, seen.add)})
	for _, tc := range []struct {
		name, want string
		code       int
		send       func(conn net.Conn)
	}{
		{"untrusted", "does not trust this webhook's certificate", 0, func(conn net.Conn) { _ = tls.Client(conn, &tls.Config{ServerName: "127.0.0.1"}).Handshake() }},
		{"untrusted, TLS 1.2", "does not trust this webhook's certificate", 0, func(conn net.Conn) {
			_ = tls.Client(conn, &tls.Config{ServerName: "127.0.0.1", MaxVersion: tls.VersionTLS12}).Handshake()
		}},
		{"too old", "unsupported versions", 0, func(conn net.Conn) {
			_ = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}).Handshake()
		}},
		{"HTTP", "HTTP without TLS", 400, func(conn net.Conn) { require.Equal(t, 400, exchange(t, conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")) }},
		{"garbage", "the TLS handshake failed", 0, func(conn net.Conn) { write(t, conn, "garbage\r\n\r\n") }},
		{"half a record", "may not trust", 0, func(conn net.Conn) {
			write(t, conn, "\x16\x03\x01")
			require.NoError(t, conn.(*net.TCPConn).CloseWrite())
		}},
	} {
		before := seen.count(server.Handshake)
		conn := dial(t, s.Address())
		tc.send(conn)
		require.Eventually(t, func() bool { return seen.count(server.Handshake) == before+1 }, patience, time.Millisecond, tc.name)
		require.Contains(t, seen.last().Detail, tc.want, tc.name)
		require.Equal(t, tc.code, seen.last().Code)
		require.Equal(t, conn.LocalAddr().String(), seen.last().Sender)
	}
	before := len(seen.all)
	require.NoError(t, dial(t, s.Address()).Close()) // somebody looks whether the port is open
	s2 := listen(t, server.Options{Handler: http.HandlerFunc(picky), Limits: server.NewLimits(10, 1<<20, seen.add)})
	require.Equal(t, 400, exchange(t, dial(t, s2.Address()), "\x16\x03\x01\x00\x05hello\r\n\r\n"))
	require.Len(t, seen.all, before+1)
	require.Contains(t, seen.last().Detail, "a TLS handshake came to the port of plain HTTP")
}

// TestShutdownDoesNotWaitForTheSilent: connections on which nothing came are closed at once.
func TestShutdownDoesNotWaitForTheSilent(t *testing.T) {
	all, _ := certificates(t)
	for _, o := range []server.Options{{}, {Certificates: all}} {
		o.Handler, o.Limits = http.HandlerFunc(picky), server.NewLimits(10, 1<<20, nil)
		s := listen(t, o)
		conn := dial(t, s.Address())
		require.Eventually(t, func() bool { open, _ := o.Limits.Connections(); return open == 1 }, patience, time.Millisecond)
		require.NoError(t, s.Shutdown(t.Context()))
		closed(t, conn)
		open, _ := o.Limits.Connections()
		require.Zero(t, open)
	}
}
