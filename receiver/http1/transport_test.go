package http1_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/http1"
)

// dials makes a transport that counts the connections it makes.
func dials() (*http1.Transport, *atomic.Int32) {
	var count atomic.Int32
	return &http1.Transport{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		count.Add(1)
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}}, &count
}

func post(t *testing.T, address, body string) *http1.Request {
	t.Helper()
	target, err := url.Parse(address)
	require.NoError(t, err)
	return &http1.Request{Method: http.MethodPost, URL: target, Header: http.Header{"X-Line": {"a\r\nInjected: b"}}, Body: []byte(body)}
}

// send sends a request, and reads the answer to its end.
func send(t *testing.T, transport *http1.Transport, address, body string) (int, string, error) {
	t.Helper()
	answer, err := transport.Do(t.Context(), post(t, address, body), time.Now().Add(20*time.Second))
	if err != nil {
		return 0, "", err
	}
	text, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	return answer.StatusCode, string(text), nil
}

func TestConnectionsAreKept(t *testing.T) {
	var seen []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		require.NoError(t, err)
		require.Empty(t, r.Header.Get("Injected"))
		seen = append(seen, r.Host+r.URL.RequestURI()+" "+string(body))
		_, _ = io.WriteString(w, strings.Repeat("answer ", 1000))
	}))
	defer server.Close()
	transport, count := dials()
	defer transport.CloseIdleConnections()
	for range 3 {
		code, text, err := send(t, transport, server.URL+"/a b?c=%20", "hello")
		require.NoError(t, err)
		require.Equal(t, 200, code)
		require.Len(t, text, 7000)
	}
	require.Equal(t, int32(1), count.Load())
	host := strings.TrimPrefix(server.URL, "http://")
	require.Equal(t, []string{host + "/a%20b?c=%20 hello", host + "/a%20b?c=%20 hello", host + "/a%20b?c=%20 hello"}, seen)
}

// TestConnectionThatTheTargetClosed: it is replaced, as long as no answer had begun.
func TestConnectionThatTheTargetClosed(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	defer server.Close()
	transport, count := dials()
	for range 2 {
		code, _, err := send(t, transport, server.URL, "x")
		require.NoError(t, err)
		require.Equal(t, 204, code)
		server.CloseClientConnections()
	}
	require.Equal(t, int32(2), count.Load())
}

// TestOddAnswers: targets that net/http's own server is not.
func TestOddAnswers(t *testing.T) {
	for name, tc := range map[string]struct {
		answer string
		code   int
		body   string
		dials  int32 // for two requests
		fails  string
	}{
		"early hints":               {"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", 204, "", 1, ""},
		"told to go on":             {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, "ok", 1, ""},
		"only hints":                {strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 9), 0, "", 0, "informational"},
		"it closes":                 {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", 200, "ok", 2, ""},
		"more than it says":         {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok!", 200, "ok", 2, ""},
		"chunks":                    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200, "ok", 1, ""},
		"a header that is too long": {"HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("x", 70<<10) + "\r\n\r\n", 0, "", 0, "longer than is taken"},
		"no HTTP":                   {"220 mail.example.com ESMTP\r\n", 0, "", 0, "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			defer func() { _ = listener.Close() }()
			go func() {
				for {
					conn, err := listener.Accept()
					if err != nil {
						return
					}
					go func() {
						defer func() { _ = conn.Close() }()
						for reader := bufio.NewReader(conn); ; {
							request, err := http.ReadRequest(reader)
							if err != nil {
								return
							}
							_, _ = io.Copy(io.Discard, request.Body)
							_, _ = io.WriteString(conn, tc.answer)
						}
					}()
				}
			}()
			transport, count := dials()
			defer transport.CloseIdleConnections()
			for range 2 {
				code, body, err := send(t, transport, "http://"+listener.Addr().String(), "x")
				if tc.fails != "" {
					require.ErrorContains(t, err, tc.fails)
					continue
				}
				require.NoError(t, err)
				require.Equal(t, tc.code, code)
				require.Equal(t, tc.body, body)
			}
			if tc.fails == "" {
				require.Equal(t, tc.dials, count.Load())
			}
		})
	}
}

// TestAnswerThatIsNotRead: it is not waited for, and its connection is not used again.
func TestAnswerThatIsNotRead(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, 1<<20))
	}))
	defer server.Close()
	transport, count := dials()
	for range 2 {
		answer, err := transport.Do(t.Context(), post(t, server.URL, ""), time.Now().Add(20*time.Second))
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
	}
	require.Equal(t, int32(2), count.Load())
}

func TestEndsInTime(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	defer server.Close()
	transport, count := dials()
	try := func(ctx context.Context, deadline time.Time) error {
		answer, err := transport.Do(ctx, post(t, server.URL, "x"), deadline)
		if err != nil {
			return err
		}
		return answer.Body.Close()
	}
	err := try(t.Context(), time.Now().Add(50*time.Millisecond))
	var timeout net.Error
	require.ErrorAs(t, err, &timeout)
	require.True(t, timeout.Timeout())
	require.Equal(t, int32(1), count.Load(), "what did not answer in time is not asked again")

	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	require.ErrorIs(t, try(ctx, time.Now().Add(20*time.Second)), context.Canceled)
}
