package deliver

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http/httptrace"
	"sync"

	"github.com/pbxhook/pbxhook/receiver/socket"
)

// connection is a connection to a target that is kept between requests. In HTTP/1.1 nothing but order tells which
// request a response belongs to: what a target sends while no request is out, such as a proxy's 408 before it closes
// an idle connection, must not be taken for the response to the next one. net/http discards it once it has noticed;
// connection makes sure that it notices before it sends a request.
type connection struct {
	net.Conn

	mu      sync.Mutex
	changed sync.Cond // of reading and closed
	reading bool      // net/http waits for bytes: it has used up all that came before
	closed  bool
	unused  bool // it was chosen for a request of which nothing is written yet
}

func newConnection(conn net.Conn) *connection {
	c := &connection{Conn: conn}
	c.changed.L = &c.mu
	return c
}

// errUnsolicited is what a kept connection ends with; net/http sends the request on another one.
var errUnsolicited = errors.New("the target sent something that it was not asked for")

// await is called when a kept connection was chosen for a request. It returns once net/http waits for bytes, or has
// closed the connection for what came. Under TLS, bytes need not be a response: they may be a session ticket.
func (c *connection) await(underTLS bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.reading && !c.closed {
		c.changed.Wait()
	}
	c.unused = !underTLS
}

// Read implements io.Reader.
func (c *connection) Read(data []byte) (int, error) {
	c.set(func() { c.reading = true })
	n, err := c.Conn.Read(data)
	unsolicited := false
	c.set(func() {
		c.reading = false
		unsolicited = n > 0 && c.unused
	})
	if unsolicited {
		return 0, io.EOF // as if the target had closed it
	}
	return n, err
}

func (c *connection) set(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
	c.changed.Broadcast()
}

// Write implements io.Writer.
func (c *connection) Write(data []byte) (int, error) {
	c.mu.Lock()
	first := c.unused
	c.unused = false
	c.mu.Unlock()
	if first {
		if input, ended := socket.Peek(c.Conn); input || ended {
			return 0, errUnsolicited
		}
	}
	return c.Conn.Write(data)
}

// Close implements io.Closer.
func (c *connection) Close() error {
	c.set(func() { c.closed = true })
	return c.Conn.Close()
}

// chosen is told which connection net/http chose for a request.
var chosen = &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
	if !info.Reused {
		return
	}
	switch conn := info.Conn.(type) {
	case *connection:
		conn.await(false)
	case *tls.Conn:
		if c, ok := conn.NetConn().(*connection); ok && conn.ConnectionState().NegotiatedProtocol != "h2" { // which numbers its requests
			c.await(true)
		}
	}
}}

// dialWith makes connections for net/http.
func dialWith(dialer *net.Dialer) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err // explained where the attempt ends
		}
		return newConnection(conn), nil
	}
}
