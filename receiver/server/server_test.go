package server_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/server"
	"github.com/pbxhook/pbxhook/test/certs"
)

// patience is how long something may take on a busy machine.
const patience = 30 * time.Second

// listen serves with a handler until the test ends.
func listen(t testing.TB, o server.Options) *server.Server {
	t.Helper()
	o.Name, o.Address = "tests", "127.0.0.1:0"
	if o.Limits == nil {
		o.Limits = server.NewLimits(1024, 64<<20, nil)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s, err := server.Listen(o)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		require.NoError(t, s.Shutdown(ctx))
	})
	return s
}

func noContent(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }

func dial(t testing.TB, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	return conn
}

func write(t testing.TB, conn net.Conn, text string) {
	t.Helper()
	_, err := io.WriteString(conn, text)
	require.NoError(t, err)
}

// get sends a request on a connection and returns its response's status, and whether it is the last one on it.
func get(t testing.TB, conn net.Conn) (code int, last bool) {
	t.Helper()
	write(t, conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	return response.StatusCode, response.Close
}

// TestAnnounceShutdown: from then on every response is the last one on its connection, and new connections are accepted.
func TestAnnounceShutdown(t *testing.T) {
	s := listen(t, server.Options{Handler: http.HandlerFunc(noContent)})
	kept := dial(t, s.Address())
	_, last := get(t, kept)
	require.False(t, last)
	s.AnnounceShutdown()
	for _, conn := range []net.Conn{kept, dial(t, s.Address())} {
		code, last := get(t, conn)
		require.Equal(t, http.StatusNoContent, code)
		require.True(t, last, "its sender is told")
		_, err := conn.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
	}
}

// TestKeptConnectionsThroughAShutdown: fifty senders on kept connections, and none loses a request.
func TestKeptConnectionsThroughAShutdown(t *testing.T) {
	s := listen(t, server.Options{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusAccepted)
	})})
	var senders, ready sync.WaitGroup
	lost := make(chan error, 50)
	for range 50 {
		conn := dial(t, s.Address())
		ready.Add(1)
		senders.Go(func() { // until it is told that it must go elsewhere
			reader := bufio.NewReader(conn)
			for i := 0; ; i++ {
				_, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
				var response *http.Response
				if err == nil {
					response, err = http.ReadResponse(reader, nil)
				}
				if i == 0 {
					ready.Done()
				}
				if err != nil {
					lost <- err
					return
				}
				_ = response.Body.Close()
				if response.Close {
					return
				}
			}
		})
	}
	ready.Wait()
	s.AnnounceShutdown()
	senders.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, s.Shutdown(ctx))
	close(lost)
	require.Empty(t, lost)
}

// TestShutdown: idle connections are closed, nobody listens, and a request in flight is answered.
func TestShutdown(t *testing.T) {
	begun, goOn := make(chan bool), make(chan bool)
	s := listen(t, server.Options{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			close(begun)
			<-goOn
		}
		w.WriteHeader(http.StatusNoContent)
	})})
	idle, busy := dial(t, s.Address()), dial(t, s.Address())
	_, last := get(t, idle)
	require.False(t, last)
	write(t, busy, "POST / HTTP/1.1\r\nHost: x\r\n\r\n")
	<-begun
	ended := make(chan error, 1)
	go func() { ended <- s.Shutdown(context.Background()) }()
	_, err := idle.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
	_, err = net.Dial("tcp", s.Address())
	require.Error(t, err, "nobody listens any more")
	require.Empty(t, ended, "a request is in flight")
	close(goOn)
	response, err := http.ReadResponse(bufio.NewReader(busy), nil)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.True(t, response.Close)
	require.NoError(t, <-ended)
}

// TestShutdownGivesUp: it waits no longer than it is told to.
func TestShutdownGivesUp(t *testing.T) {
	begun, goOn := make(chan bool), make(chan bool)
	s := listen(t, server.Options{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(begun)
		<-goOn
	})})
	write(t, dial(t, s.Address()), "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	<-begun
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, s.Shutdown(ctx), context.Canceled)
	close(goOn)
}

// certificates are self-signed for loopback, with the pool that trusts them.
func certificates(t *testing.T) (*server.Certificates, *x509.CertPool) {
	t.Helper()
	crt, key := certs.SelfSigned(t, "127.0.0.1")
	pair, err := tls.X509KeyPair([]byte(crt), []byte(key))
	require.NoError(t, err)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM([]byte(crt)))
	all := &server.Certificates{}
	all.Put([]*tls.Certificate{&pair})
	return all, pool
}

// TestHTTP2: it is spoken where TLS offers it, and an announced shutdown ends its connections too.
func TestHTTP2(t *testing.T) {
	all, pool := certificates(t)
	s := listen(t, server.Options{Handler: http.HandlerFunc(noContent), Certificates: all})
	for _, major := range []int{1, 2} {
		dials := 0
		transport := &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: major == 2,
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				dials++
				return (&net.Dialer{}).DialContext(ctx, network, address)
			},
		}
		defer transport.CloseIdleConnections()
		for range 2 {
			response, err := (&http.Client{Transport: transport}).Post("https://"+s.Address(), "text/plain", strings.NewReader("x"))
			require.NoError(t, err)
			require.NoError(t, response.Body.Close())
			require.Equal(t, http.StatusNoContent, response.StatusCode)
			require.Equal(t, major, response.ProtoMajor)
		}
		require.Equal(t, 1, dials)
		if major == 1 {
			continue
		}
		s.AnnounceShutdown()
		require.Eventually(t, func() bool { // the connection in use says so with its next response
			response, err := (&http.Client{Transport: transport}).Post("https://"+s.Address(), "text/plain", strings.NewReader("x"))
			require.NoError(t, err)
			require.NoError(t, response.Body.Close())
			require.Equal(t, http.StatusNoContent, response.StatusCode)
			return dials > 1
		}, patience, time.Millisecond)
	}
}
