package server_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/server"
)

// echo answers with what it was asked.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<10))
	if err != nil {
		w.Header().Set("Connection", "close")
		http.Error(w, "the body is too long or broken", http.StatusRequestEntityTooLarge)
		return
	}
	w.WriteHeader(http.StatusAccepted)
	_, _ = fmt.Fprintf(w, "%s %s %s %q %q", r.Method, r.Host, r.URL.RequestURI(), r.Header, body)
}

// bare is a net/http server with nothing around it.
func bare(t testing.TB, handler http.HandlerFunc) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute, MaxHeaderBytes: 64 << 10}
	done := make(chan error, 1)
	go func() { done <- s.Serve(listener) }()
	t.Cleanup(func() {
		require.NoError(t, s.Close())
		require.ErrorIs(t, <-done, http.ErrServerClosed)
	})
	return listener.Addr().String()
}

var date = regexp.MustCompile(`Date: [^\r]*\r\n`)

// converse sends bytes and their end, and returns all that is answered; whole is false where the connection was reset.
func converse(t testing.TB, address string, raw []byte) (answer string, whole bool) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	_, writeErr := conn.Write(raw)
	if writeErr == nil {
		writeErr = conn.(*net.TCPConn).CloseWrite()
	}
	var out bytes.Buffer
	_, err = out.ReadFrom(conn)
	return date.ReplaceAllString(out.String(), ""), err == nil && writeErr == nil
}

// FuzzRequests sends any bytes to the server and to a bare http.Server: both answer the same.
func FuzzRequests(f *testing.F) {
	for _, seed := range []string{
		"", "\r\n", "garbage", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "GET /a%zz HTTP/1.1\r\nHost: x\r\n\r\n", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\nGET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nHost : x\r\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\nExpect: x\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "\x16\x03\x01\x00", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"GET http://y/ HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\n\x00: y\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	ours := listen(f, server.Options{Handler: http.HandlerFunc(echo)}).Address()
	theirs := bare(f, echo)
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) > 32<<10 { // long headers have a bound of their own
			return
		}
		got, whole := converse(t, ours, raw)
		want, wholeToo := converse(t, theirs, raw)
		if whole && wholeToo {
			require.Equal(t, want, got)
		}
	})
}
