// Package server listens for HTTP: on an address each for PBXs, for what observes the receiver, and for people.
// HTTP itself is net/http's.
//
// It must not know what the requests are about.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// The bounds of every connection.
const (
	headerTimeout   = 10 * time.Second // from a request's first byte to the end of its header
	requestTimeout  = 30 * time.Second // to the end of its body
	responseTimeout = 60 * time.Second
	idleTimeout     = 2 * time.Minute // between requests
	maxHeader       = 64 << 10        // bytes
	maxStreams      = 32              // of an HTTP/2 connection
	streamBuffer    = 64 << 10        // bytes that such a connection may send before somebody reads them
	pingTimeout     = 30 * time.Second
)

// Options say what is served.
type Options struct {
	Name         string // for messages
	Address      string // empty: nothing is served
	Handler      http.Handler
	Certificates *Certificates   // nil: TLS is not spoken
	Limits       *Limits         // may be shared
	Context      context.Context // requests end with it; nil: with their connection alone
	Log          *slog.Logger
}

// Server is one listening address. A nil one serves nothing.
type Server struct {
	address      string
	handler      http.Handler
	limits       *Limits
	http         http.Server
	listener     *listener
	done         chan struct{} // Serve returned
	shuttingDown atomic.Bool
}

// Listen serves until Shutdown.
func Listen(o Options) (*Server, error) {
	if o.Address == "" {
		return nil, nil
	}
	inner, err := net.Listen("tcp", o.Address)
	if err != nil {
		return nil, fmt.Errorf("listen for %s on %s: %w", o.Name, o.Address, err)
	}
	s := &Server{address: inner.Addr().String(), handler: o.Handler, limits: o.Limits, done: make(chan struct{})}
	s.http = http.Server{
		Handler:           http.HandlerFunc(s.serve),
		ReadHeaderTimeout: headerTimeout, ReadTimeout: requestTimeout, WriteTimeout: responseTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams, MaxReceiveBufferPerConnection: streamBuffer, MaxReceiveBufferPerStream: streamBuffer,
			SendPingTimeout: pingTimeout, PingTimeout: pingTimeout,
		},
		ConnContext: withConnection, ConnState: onState,
		ErrorLog: slog.NewLogLogger(o.Log.With("server", o.Name).Handler(), slog.LevelWarn),
	}
	if o.Context != nil {
		s.http.BaseContext = func(net.Listener) context.Context { return o.Context }
	}
	s.http.RegisterOnShutdown(func() { s.limits.closeUnused(s) })
	var secure *tls.Config
	if o.Certificates != nil {
		secure = o.Certificates.config()
	}
	s.listener = newListener(inner, s, secure)
	go func() {
		defer close(s.done)
		if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			o.Log.Error("stopped listening", "for", o.Name, "error", err)
		}
	}()
	return s, nil
}

// serve has a request handled within the limits.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	c := r.Context().Value(connectionKey{}).(*connection)
	out := &response{ResponseWriter: w, server: s}
	b := &body{ReadCloser: r.Body, limits: s.limits, length: r.ContentLength}
	out.body = b
	returned := false // and did not panic
	c.begin()
	s.limits.requests.Add(1)
	defer func() {
		s.limits.releaseBody(b.reserved)
		s.limits.requests.Add(-1)
		c.end(returned && out.code < http.StatusBadRequest)
	}()
	request := *r // net/http looks at its own one's body when it decides whether the connection can be used again
	if r.ContentLength != 0 {
		request.Body = b
	}
	if s.limits.requests.Load() > int64(s.limits.maxConnections) {
		s.limits.rejected(Rejection{Reason: TooMany, Code: http.StatusServiceUnavailable, Sender: r.RemoteAddr, Detail: "as many requests are being handled as may be"})
		out.Header().Set("Retry-After", RetryAfter)
		http.Error(out, "the receiver is busy: send the event again", http.StatusServiceUnavailable)
		return
	}
	s.handler.ServeHTTP(out, &request)
	returned = true
}

// Address returns where the server listens; empty where it does not.
func (s *Server) Address() string {
	if s == nil {
		return ""
	}
	return s.address
}

// AnnounceShutdown has every response from now on say that it is the last one on its connection, so that senders
// leave by themselves; connections and requests are accepted as before. net/http's SetKeepAlivesEnabled(false) says
// the same, but closes idle connections at once: a request that was just sent on one would be lost.
func (s *Server) AnnounceShutdown() {
	if s != nil {
		s.shuttingDown.Store(true)
	}
}

// Shutdown accepts no more connections, closes the idle ones, and waits for the requests in flight until ctx ends;
// then it closes their connections.
func (s *Server) Shutdown(ctx context.Context) error {
	if s == nil {
		return nil
	}
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(fmt.Errorf("wait for requests in flight: %w", err), s.http.Close())
	}
	<-s.done
	s.listener.work.Wait()
	return err
}

// response is what a handler writes to.
type response struct {
	http.ResponseWriter
	server *Server
	body   *body // of the request
	code   int   // 0: not written yet; net/http writes 200 where a handler writes nothing
}

// WriteHeader implements http.ResponseWriter.
func (w *response) WriteHeader(code int) {
	if w.code == 0 && code >= http.StatusOK {
		w.code = code
		if w.server.shuttingDown.Load() {
			w.Header().Set("Connection", "close") // HTTP/2: no more streams on this connection
		}
	}
	w.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (w *response) Write(data []byte) (int, error) {
	if w.code == 0 {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(data)
}

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// body is a request's body that takes room as it is read, until the request was answered.
type body struct {
	io.ReadCloser
	limits   *Limits
	length   int64 // as its sender says; negative: it does not
	reserved int64
}

// Read implements io.Reader. It returns ErrBusy where there is no room.
func (b *body) Read(data []byte) (int, error) {
	if b.reserved == 0 && !b.limits.fitsBody(b.length) {
		return 0, ErrBusy
	}
	n, err := b.ReadCloser.Read(data)
	if n > 0 && !b.limits.reserveBody(b.reserved, int64(n)) {
		return 0, ErrBusy
	}
	b.reserved += int64(n)
	return n, err
}

// ReserveBody takes room for n more bytes that a handler makes of its request's body, such as by decompression, until the
// request was answered. It returns ErrBusy where there is none; a writer of another server has no bound.
func ReserveBody(w http.ResponseWriter, n int) error {
	out, ok := w.(*response)
	if !ok {
		return nil
	}
	if !out.body.limits.reserveBody(out.body.reserved, int64(n)) {
		return ErrBusy
	}
	out.body.reserved += int64(n)
	return nil
}
