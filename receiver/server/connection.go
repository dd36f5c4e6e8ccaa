package server

import (
	"bytes"
	"container/list"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/pbxhook/pbxhook/receiver/socket"
)

// connection is a TCP connection within the limits.
type connection struct {
	net.Conn
	server *Server

	registered bool          // guarded by Limits.mu
	stranger   *list.Element // in Limits.strangers, guarded by Limits.mu; nil once a valid request came

	readingSince atomic.Int64 // when the first bytes of the first request, or of the TLS handshake, came; 0: none did
	seen         atomic.Bool  // a handler has run
	known        atomic.Bool  // one found its request valid
	handlers     atomic.Int32 // that run now
	handled      atomic.Bool  // HTTP/1: the request that is being read or answered has reached its handler
	headerCost   atomic.Int64 // HTTP/1: of the header that is being read or answered
}

func (c *connection) sender() string { return host(c.RemoteAddr()) }

// Read implements io.Reader.
func (c *connection) Read(data []byte) (int, error) {
	n, err := c.Conn.Read(data)
	if n > 0 && !c.seen.Load() {
		c.readingSince.CompareAndSwap(0, time.Now().UnixNano())
	}
	return n, err
}

// Close implements io.Closer.
func (c *connection) Close() error {
	c.server.limits.remove(c)
	c.releaseHeader()
	return c.Conn.Close()
}

// CloseWrite ends what is sent; net/http does so before it closes, so that the sender can read the last response.
func (c *connection) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// inUse reports whether the first request is being read within its time, or a request is being handled.
func (c *connection) inUse(now time.Time) bool {
	if c.handlers.Load() > 0 {
		return true
	}
	if !c.used() { // what came may not be read yet, where many come at once
		if input, _ := socket.Peek(c.Conn); input {
			c.readingSince.CompareAndSwap(0, now.UnixNano())
		}
	}
	since := c.readingSince.Load()
	return !c.seen.Load() && since != 0 && now.Sub(time.Unix(0, since)) < headerTimeout
}

// used reports whether anything has come.
func (c *connection) used() bool { return c.seen.Load() || c.readingSince.Load() != 0 }

// begin notes that a handler runs.
func (c *connection) begin() {
	c.seen.Store(true)
	c.handled.Store(true)
	c.handlers.Add(1)
}

// end notes that a handler has returned, and whether it found the request valid.
func (c *connection) end(valid bool) {
	if valid && !c.known.Swap(true) {
		c.server.limits.know(c)
	}
	c.handlers.Add(-1)
}

// idle notes that the next request may come.
func (c *connection) idle() {
	c.handled.Store(false)
	c.releaseHeader()
}

// chargeHeader accounts for bytes of a header, and reports whether there is room for them. Small headers always have
// room; longer ones share it.
func (c *connection) chargeHeader(data []byte) bool {
	cost := int64(len(data) + lineCost*bytes.Count(data, []byte{'\n'}))
	total := c.headerCost.Add(cost)
	if total <= smallHeader {
		return true
	}
	if beyond := min(cost, total-smallHeader); !reserve(&c.server.limits.headers, beyond, headerBytes) {
		c.headerCost.Add(-beyond)
		return false
	}
	return true
}

func (c *connection) releaseHeader() {
	if beyond := c.headerCost.Swap(0) - smallHeader; beyond > 0 {
		c.server.limits.headers.Add(-beyond)
	}
}

// observed is a connection on which net/http speaks HTTP/1, above TLS. net/http answers what is no request by itself, and
// has no hook for it: observed sees such a response being written while no handler has been reached.
type observed struct {
	net.Conn
	c     *connection
	first byte // that came
	begun bool
	ended bool // it was answered 503 here, and nothing else may follow
}

// Read implements io.Reader.
func (h *observed) Read(data []byte) (int, error) {
	n, err := h.Conn.Read(data)
	if n == 0 || h.c.handled.Load() {
		return n, err
	}
	if !h.begun {
		h.begun, h.first = true, data[0]
	}
	if !h.c.chargeHeader(data[:n]) {
		h.c.server.limits.rejected(Rejection{Reason: TooManyHeaders, Code: http.StatusServiceUnavailable, Sender: h.c.sender(), Detail: "long headers of other requests take all the room that there is"})
		h.ended = true
		_, _ = h.Conn.Write(unavailable) // whoever does not read it sees the end of the connection
		return 0, os.ErrDeadlineExceeded
	}
	return n, err
}

// recordHandshake is the first byte of a TLS handshake.
const recordHandshake = 0x16

// Write implements io.Writer.
func (h *observed) Write(data []byte) (int, error) {
	if h.ended {
		return 0, os.ErrDeadlineExceeded
	}
	if !h.c.handled.Load() {
		if code, detail := rejection(data); code != 0 {
			if h.first == recordHandshake {
				detail = "a TLS handshake came to the port of plain HTTP: the URL must begin with http, or go to the port of https"
			}
			h.c.server.limits.rejected(Rejection{Reason: Malformed, Code: code, Sender: h.c.sender(), Detail: detail})
		}
	}
	return h.Conn.Write(data)
}

// rejection reads the status line of a response with an error; code is 0 where it is none.
func rejection(response []byte) (code int, detail string) {
	line, _, _ := bytes.Cut(response, []byte("\r\n"))
	status, ok := bytes.CutPrefix(line, []byte("HTTP/1.1 "))
	if !ok || len(status) < 3 {
		return 0, ""
	}
	code, err := strconv.Atoi(string(status[:3]))
	if err != nil || code < http.StatusBadRequest || code > 599 {
		return 0, ""
	}
	return code, string(status)
}

// CloseWrite is connection's.
func (h *observed) CloseWrite() error {
	if half, ok := h.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// observedTLS is an observed that tells net/http about its TLS.
type observedTLS struct {
	*observed
	tls *tls.Conn
}

// ConnectionState is for net/http, which puts it into requests.
func (h observedTLS) ConnectionState() tls.ConnectionState { return h.tls.ConnectionState() }

// connectionOf finds the connection below what net/http was given.
func connectionOf(conn net.Conn) *connection {
	switch conn := conn.(type) {
	case *observed:
		return conn.c
	case observedTLS:
		return conn.c
	case *tls.Conn:
		return conn.NetConn().(*connection)
	}
	return conn.(*connection) // this package makes no other
}

type connectionKey struct{}

func withConnection(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, connectionOf(conn))
}

func onState(conn net.Conn, state http.ConnState) {
	if state == http.StateIdle {
		connectionOf(conn).idle()
	}
}
