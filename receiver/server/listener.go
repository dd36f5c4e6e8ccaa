package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// maxTurnedAway is how many senders for whom there is no place are told so at a time; others see their connection end.
const maxTurnedAway = 64

// turnAwayTime is how long telling one may take.
const turnAwayTime = 2 * time.Second

// unavailable is the response where there is no place. It needs no request to have been read.
var unavailable = fmt.Appendf(nil, "HTTP/1.1 503 Service Unavailable\r\nRetry-After: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
	RetryAfter, len(busyText), busyText)

const busyText = `{"error":"the receiver is busy: send the event again"}`

// listener accepts connections within the limits, and does TLS handshakes: net/http would only print why one failed.
type listener struct {
	net.Listener
	server    *Server
	tls       *tls.Config // nil: TLS is not spoken
	accepted  chan accepted
	ctx       context.Context // ends with the listener
	stop      context.CancelFunc
	work      sync.WaitGroup // handshakes, and senders that are told that there is no place
	turnAways chan struct{}  // has an element for each of these
}

// accepted is what net/http gets.
type accepted struct {
	conn net.Conn
	err  error
}

func newListener(inner net.Listener, s *Server, secure *tls.Config) *listener {
	l := &listener{Listener: inner, server: s, tls: secure, accepted: make(chan accepted), turnAways: make(chan struct{}, maxTurnedAway)}
	l.ctx, l.stop = context.WithCancel(context.Background())
	l.work.Go(l.run)
	return l
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case a := <-l.accepted:
		return a.conn, a.err
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.stop()
	return l.Listener.Close()
}

// run accepts until the listener is closed.
func (l *listener) run() {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			if l.ctx.Err() != nil {
				return
			}
			l.hand(accepted{err: err}) // net/http waits a little and asks again, such as for want of descriptors
			continue
		}
		c := &connection{Conn: conn, server: l.server}
		switch {
		case !l.server.limits.admit(c):
			l.turnAway(c)
		case l.tls == nil:
			l.hand(accepted{conn: &observed{Conn: c, c: c}})
		default:
			l.work.Go(func() { l.handshake(c) })
		}
	}
}

// hand hands a connection to net/http, unless it has stopped to listen.
func (l *listener) hand(a accepted) {
	select {
	case l.accepted <- a:
	case <-l.ctx.Done():
		if a.conn != nil {
			_ = a.conn.Close() // it came too late
		}
	}
}

// handshake speaks TLS with a sender.
func (l *listener) handshake(c *connection) {
	ctx, cancel := context.WithTimeout(l.ctx, headerTimeout)
	defer cancel()
	conn := tls.Server(c, l.tls)
	if err := conn.HandshakeContext(ctx); err != nil {
		if c.used() && l.ctx.Err() == nil { // not one who only looked whether the port is open
			l.server.limits.rejected(explain(c, err))
		}
		_ = conn.Close() // there is nothing to end in order
		return
	}
	c.readingSince.Store(0)
	if conn.ConnectionState().NegotiatedProtocol == "h2" {
		l.hand(accepted{conn: conn})
		return
	}
	l.hand(accepted{conn: observedTLS{observed: &observed{Conn: conn, c: c}, tls: conn}})
}

// explain says why a handshake failed, and answers who speaks HTTP without TLS.
func explain(c *connection, err error) Rejection {
	r := Rejection{Reason: Handshake, Sender: c.sender(), Detail: "the TLS handshake failed: " + err.Error()}
	var header tls.RecordHeaderError
	var remote *net.OpError
	var timeout net.Error
	switch {
	case errors.As(err, &header) && header.Conn != nil && looksLikeHTTP(header.RecordHeader[:]):
		_, _ = io.WriteString(header.Conn, "HTTP/1.0 400 Bad Request\r\n\r\nThis port speaks https.\n") // who does not read it sees the end of the connection
		r.Code, r.Detail = http.StatusBadRequest, "HTTP without TLS came to the port of https: the URL must begin with https, or go to the port of http"
	case errors.As(err, &remote) && remote.Op == "remote error" && strings.Contains(remote.Err.Error(), "certificate"):
		r.Detail = "the sender does not trust this webhook's certificate (" + remote.Err.Error() + ")"
	case errors.As(err, &remote) && remote.Op == "remote error":
		r.Detail = "the sender ended the TLS handshake (" + remote.Err.Error() + ")"
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		r.Detail = "the sender ended the TLS handshake without a reason; it may not trust this webhook's certificate"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		r.Detail = "the TLS handshake took longer than " + headerTimeout.String()
	}
	return r
}

func looksLikeHTTP(header []byte) bool {
	for _, method := range []string{"GET /", "HEAD ", "POST ", "PUT /", "OPTIO"} {
		if string(header) == method {
			return true
		}
	}
	return false
}

// turnAway answers 503 at once to a sender for whom there is no place.
func (l *listener) turnAway(c *connection) {
	r := Rejection{Reason: TooMany, Sender: c.sender(), Detail: "as many connections are open as may be, and all of them are in use"}
	select {
	case l.turnAways <- struct{}{}:
		r.Code = http.StatusServiceUnavailable
		l.work.Go(func() {
			defer func() { <-l.turnAways }()
			l.sayUnavailable(c.Conn)
		})
	default:
		_ = c.Conn.Close() // nothing depends on it
	}
	l.server.limits.rejected(r)
}

func (l *listener) sayUnavailable(conn net.Conn) {
	defer func() { _ = conn.Close() }()                // nothing depends on it
	_ = conn.SetDeadline(time.Now().Add(turnAwayTime)) // fails on a connection that is closed, as writing does then
	stop := context.AfterFunc(l.ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if l.tls != nil {
		config := l.tls.Clone()
		config.NextProtos = []string{"http/1.1"}
		conn = tls.Server(conn, config)
	}
	if _, err := conn.Write(unavailable); err != nil {
		return
	}
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // nothing depends on it
	}
	_, _ = io.CopyN(io.Discard, conn, 1<<20) // closed at once, the connection would take the response with it
}
