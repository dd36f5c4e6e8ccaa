// Package server listens for HTTP: on an address each for PBXs, for what observes the receiver, and for people.
//
// It must not know what the requests are about.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/pbxhook/pbxhook/receiver/http1"
)

// Server is one listening address. A nil one serves nothing.
type Server struct {
	address string
	serving Serving
	done    chan struct{}
}

// Serving is a server of either kind: net/http's, and ours for PBXs.
type Serving interface {
	Serve(listener net.Listener) error
	Shutdown(ctx context.Context) error
	Close() error
}

// Bounds of every connection.
const (
	headerTimeout  = 10 * time.Second
	requestTimeout = 30 * time.Second
	answerTimeout  = 60 * time.Second
	idleTimeout    = 2 * time.Minute
	maxHeader      = 64 << 10
)

// ForPeople serves those who ask now and then: Prometheus, the kubelet, the operator, and people. Requests end with ctx.
func ForPeople(ctx context.Context, handler http.Handler, log *slog.Logger) Serving {
	return &http.Server{
		Handler: handler, ReadHeaderTimeout: headerTimeout, ReadTimeout: requestTimeout,
		WriteTimeout: answerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(log.Handler(), slog.LevelDebug), // of clients that break off
	}
}

// ForPBXs serves those who send events.
func ForPBXs(handler http.Handler, log *slog.Logger) Serving {
	return &http1.Server{Handler: handler, Log: log, Bounds: http1.Bounds{
		Header: headerTimeout, Request: requestTimeout, Answer: answerTimeout, Idle: idleTimeout, MaxHeader: maxHeader,
	}}
}

// Listen serves on an address, over TLS where there is a configuration for it; an empty address is not served.
func Listen(what, address string, serving Serving, secure *tls.Config, log *slog.Logger) (*Server, error) {
	s := &Server{done: make(chan struct{})}
	if address == "" {
		close(s.done)
		return s, nil
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for %s on %s: %w", what, address, err)
	}
	s.address, s.serving = listener.Addr().String(), serving
	if secure != nil {
		listener = tls.NewListener(listener, secure)
	}
	go func() {
		defer close(s.done)
		if err := serving.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("stopped listening", "for", what, "error", err)
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

// Retire has those who send on kept connections go elsewhere, before it closes.
func (s *Server) Retire() {
	if s == nil {
		return
	}
	if one, ok := s.serving.(*http1.Server); ok {
		one.Retire()
	}
}

// Close waits for the requests under way.
func (s *Server) Close(ctx context.Context) error {
	if s == nil || s.serving == nil {
		return nil
	}
	err := s.serving.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.serving.Close())
	}
	<-s.done
	return err
}
