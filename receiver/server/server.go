// Package server listens for HTTP: on an address each for PBXs, for what observes the receiver, and for people.
// HTTP itself is net/http's.
//
// It must not know what the requests are about.
package server

import (
	"context"
	"errors"
	"fmt"
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
)

// Options say what is served.
type Options struct {
	Name         string // for messages
	Address      string // empty: nothing is served
	Handler      http.Handler
	Certificates *Certificates   // nil: TLS is not spoken
	Context      context.Context // requests end with it; nil: with their connection alone
	Log          *slog.Logger
}

// Server is one listening address. A nil one serves nothing.
type Server struct {
	address      string
	http         http.Server
	done         chan struct{} // Serve returned
	shuttingDown atomic.Bool
}

// Listen serves until Shutdown.
func Listen(o Options) (*Server, error) {
	if o.Address == "" {
		return nil, nil
	}
	listener, err := net.Listen("tcp", o.Address)
	if err != nil {
		return nil, fmt.Errorf("listen for %s on %s: %w", o.Name, o.Address, err)
	}
	s := &Server{address: listener.Addr().String(), done: make(chan struct{})}
	s.http = http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			o.Handler.ServeHTTP(&response{ResponseWriter: w, server: s}, r)
		}),
		ReadHeaderTimeout: headerTimeout, ReadTimeout: requestTimeout, WriteTimeout: responseTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(o.Log.With("server", o.Name).Handler(), slog.LevelWarn),
	}
	if o.Context != nil {
		s.http.BaseContext = func(net.Listener) context.Context { return o.Context }
	}
	serve := func() error { return s.http.Serve(listener) }
	if o.Certificates != nil {
		s.http.TLSConfig = o.Certificates.config()
		serve = func() error { return s.http.ServeTLS(listener, "", "") }
	}
	go func() {
		defer close(s.done)
		if err := serve(); !errors.Is(err, http.ErrServerClosed) {
			o.Log.Error("stopped listening", "for", o.Name, "error", err)
		}
	}()
	return s, nil
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
	return err
}

// response is what a handler writes to.
type response struct {
	http.ResponseWriter
	server  *Server
	started bool
}

// WriteHeader implements http.ResponseWriter.
func (w *response) WriteHeader(code int) {
	if !w.started && code >= http.StatusOK {
		w.started = true
		if w.server.shuttingDown.Load() {
			w.Header().Set("Connection", "close") // HTTP/2: no more streams on this connection
		}
	}
	w.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (w *response) Write(data []byte) (int, error) {
	if !w.started {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(data)
}

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }
