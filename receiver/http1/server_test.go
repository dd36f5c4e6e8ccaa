package http1_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/http1"
	"github.com/pbxhook/pbxhook/test/certs"
)

var bounds = http1.Bounds{Header: 300 * time.Millisecond, Request: 500 * time.Millisecond, Answer: time.Second, Idle: time.Second, MaxHeader: 4 << 10}

// serve serves with a handler, and ends with the test.
func serve(t *testing.T, handler http.HandlerFunc) (*http1.Server, string) {
	t.Helper()
	server := &http1.Server{Handler: handler, Bounds: bounds, Log: slog.New(slog.DiscardHandler)}
	return server, serveOn(t, server, nil)
}

func serveOn(t *testing.T, server *http1.Server, secure *tls.Config) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address = listener.Addr().String()
	if secure != nil {
		listener = tls.NewListener(listener, secure)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		require.NoError(t, server.Close())
		require.ErrorIs(t, <-done, http1.ErrServerClosed)
	})
	return address
}

// echo answers with what it was asked.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<10))
	if err != nil {
		w.Header().Set("Connection", "close")
		http.Error(w, "too long or broken", http.StatusRequestEntityTooLarge)
		return
	}
	w.Header().Set("X-Line", "a\r\nInjected: b")
	w.WriteHeader(http.StatusAccepted)
	_, _ = fmt.Fprintf(w, "%s %s %s", r.Method, r.URL.RequestURI(), body)
}

func TestAnswers(t *testing.T) {
	long := strings.Repeat("x", 8<<10)
	for name, tc := range map[string]struct {
		request string
		want    []int
		body    string // of the last answer
		closed  bool   // the connection, after it
	}{
		"a request":                 {"POST /a?b=c HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi", []int{202}, "POST /a?b=c hi", false},
		"two in one piece":          {"GET /1 HTTP/1.1\r\nHost: x\r\n\r\nPOST /2 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nz", []int{202, 202}, "POST /2 z", false},
		"in chunks":                 {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n1\r\n!\r\n0\r\n\r\n", []int{202}, "POST / hi!", false},
		"a body with GET":           {"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi", []int{202}, "GET / hi", false},
		"the sender closes":         {"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", []int{202}, "GET / ", true},
		"HTTP/1.0":                  {"GET / HTTP/1.0\r\n\r\n", []int{202}, "GET / ", true},
		"no Host":                   {"GET / HTTP/1.1\r\n\r\n", []int{202}, "GET / ", false},
		"asks whether to go on":     {"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi", []int{100, 202}, "POST / hi", false},
		"a body that is too long":   {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8192\r\n\r\n" + long, []int{413}, "too long or broken\n", true},
		"a header that is too long": {"GET / HTTP/1.1\r\nHost: x\r\nX-A: " + long + "\r\n\r\n", []int{431}, "", true},
		"no HTTP":                   {"hello\r\n\r\n", []int{400}, "", true},
		"HTTP/2":                    {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", []int{505}, "", true},
		"two lengths":               {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi!", []int{400}, "", true},
		"an unknown coding":         {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", []int{400}, "", true},
		"a handler that panics":     {"GET /panic HTTP/1.1\r\nHost: x\r\n\r\n", nil, "", true},
		"a header that ends early":  {"GET / HTTP/1.1\r\nHos", []int{400}, "", true},
		"a body that ends early":    {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhi", []int{413}, "too long or broken\n", true},
		"nothing":                   {"", nil, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, address := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/panic" {
					panic("on purpose")
				}
				echo(w, r)
			})
			conn, err := net.Dial("tcp", address)
			require.NoError(t, err)
			defer func() { _ = conn.Close() }()
			require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
			_, err = io.WriteString(conn, tc.request)
			require.NoError(t, err)
			reader := bufio.NewReader(conn)
			body := ""
			for _, want := range tc.want {
				answer, err := http.ReadResponse(reader, nil)
				require.NoError(t, err)
				require.Equal(t, want, answer.StatusCode)
				text, err := io.ReadAll(answer.Body)
				require.NoError(t, errors.Join(err, answer.Body.Close()))
				body = string(text)
				require.Empty(t, answer.Header.Get("Injected"))
				if want != http.StatusContinue {
					require.NotEmpty(t, answer.Header.Get("Date"))
					require.Equal(t, tc.closed, answer.Close)
				}
			}
			require.Equal(t, tc.body, body)
			if tc.closed {
				_, err = reader.ReadByte()
				require.Error(t, err, "the connection is closed")
				require.NotErrorIs(t, err, context.DeadlineExceeded)
			}
		})
	}
}

func TestHeadHasNoBody(t *testing.T) {
	_, address := serve(t, echo)
	for range 3 { // on one connection
		answer, err := http.Head("http://" + address + "/x")
		require.NoError(t, err)
		require.Equal(t, int64(len("HEAD /x ")), answer.ContentLength)
		require.NoError(t, answer.Body.Close())
	}
}

func TestOverTLS(t *testing.T) {
	crt, key := certs.SelfSigned(t, "127.0.0.1")
	certificate, err := tls.X509KeyPair([]byte(crt), []byte(key))
	require.NoError(t, err)
	server := &http1.Server{Handler: http.HandlerFunc(echo), Bounds: bounds, Log: slog.New(slog.DiscardHandler)}
	address := serveOn(t, server, &tls.Config{Certificates: []tls.Certificate{certificate}})
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}}
	defer client.CloseIdleConnections()
	answer, err := client.Post("https://"+address+"/x", "text/plain", strings.NewReader("hi"))
	require.NoError(t, err)
	require.Equal(t, http.StatusAccepted, answer.StatusCode)
	require.NoError(t, answer.Body.Close())
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = io.WriteString(conn, "GET / HTTP/1.1\r\n\r\n") // not TLS
	require.NoError(t, err)
	text, _ := io.ReadAll(conn) // its end may come with an error
	require.NotContains(t, string(text), "HTTP/1.1 2")
}

// TestRetire: from then on every connection ends with its next answer, and new ones are taken.
func TestRetire(t *testing.T) {
	server, address := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	last := func(conn net.Conn) bool {
		t.Helper()
		_, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		require.NoError(t, err)
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		require.Equal(t, http.StatusNoContent, answer.StatusCode)
		return answer.Close
	}
	dial := func() net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", address)
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
		return conn
	}
	kept := dial()
	require.False(t, last(kept))
	server.Retire()
	for _, conn := range []net.Conn{kept, dial()} {
		require.True(t, last(conn), "its sender is told")
		_, err := conn.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
	}
}

// TestShutdown: idle connections end at once, a request under way is answered.
func TestShutdown(t *testing.T) {
	begun, goOn := make(chan bool), make(chan bool)
	server, address := serve(t, func(w http.ResponseWriter, r *http.Request) {
		begun <- true
		<-goOn
		w.WriteHeader(http.StatusNoContent)
	})
	idle, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer func() { _ = idle.Close() }()
	answered := make(chan error, 1)
	go func() {
		answer, err := http.Post("http://"+address, "text/plain", strings.NewReader("x"))
		if err == nil && !answer.Close {
			err = errors.New("expected that the connection ends with the answer")
		}
		if err == nil {
			err = answer.Body.Close()
		}
		answered <- err
	}()
	<-begun
	ended := make(chan error, 1)
	go func() { ended <- server.Shutdown(context.Background()) }()
	require.NoError(t, idle.SetReadDeadline(time.Now().Add(20*time.Second)))
	_, err = idle.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
	_, err = net.Dial("tcp", address)
	require.Error(t, err, "nobody listens any more")
	select {
	case <-ended:
		t.Fatal("a request was under way")
	case <-time.After(50 * time.Millisecond):
	}
	close(goOn)
	require.NoError(t, <-answered)
	require.NoError(t, <-ended)
}

// TestShutdownGivesUp: it waits no longer than it is told to.
func TestShutdownGivesUp(t *testing.T) {
	begun, goOn := make(chan bool), make(chan bool)
	server, address := serve(t, func(http.ResponseWriter, *http.Request) {
		close(begun)
		<-goOn
	})
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	require.NoError(t, err)
	<-begun
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, server.Shutdown(ctx), context.DeadlineExceeded)
	close(goOn)
}
