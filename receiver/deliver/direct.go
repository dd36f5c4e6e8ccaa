package deliver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	maxReplyHeader   = 64 << 10
	maxInformational = 8 // answers such as 103 before the one that counts
	idleConnection   = 90 * time.Second
)

// direct carries requests to one target over plain HTTP/1.1, on connections that it keeps. The goroutine that
// has a request writes it and reads its answer itself: http.Transport passes both to two goroutines of the
// connection, which costs several times the work. How a request is written and an answer read is net/http's.
type direct struct {
	dial func(ctx context.Context, network, address string) (net.Conn, error)

	mu     sync.Mutex
	idle   []*connection // the last used one at the end
	expiry *time.Timer   // closes those that idle for too long; nil while there is none
}

// connection is one that is kept.
type connection struct {
	net.Conn
	address string
	reader  *bufio.Reader
	writer  *bufio.Writer
	room    int64     // bytes that may still be read
	since   time.Time // when it became idle
}

// Read implements io.Reader, up to a bound.
func (c *connection) Read(data []byte) (int, error) {
	if c.room <= 0 {
		return 0, errTooLong
	}
	n, err := c.Conn.Read(data[:min(int64(len(data)), c.room)])
	c.room -= int64(n)
	return n, err
}

var errTooLong = fmt.Errorf("expected the header of an answer within %d bytes, got more", maxReplyHeader)

// RoundTrip implements http.RoundTripper. A connection that the target closed while it was idle is replaced.
func (d *direct) RoundTrip(request *http.Request) (*http.Response, error) {
	address := request.URL.Host
	if request.URL.Port() == "" {
		address = net.JoinHostPort(request.URL.Hostname(), "80")
	}
	if c := d.take(address); c != nil {
		response, err := d.exchange(c, request)
		if broken := (*brokenError)(nil); !errors.As(err, &broken) {
			return response, err
		}
		if request.Body, err = request.GetBody(); err != nil {
			return nil, fmt.Errorf("read the request once more: %w", err)
		}
	}
	conn, err := d.dial(request.Context(), "tcp", address)
	if err != nil {
		return nil, err
	}
	c := &connection{Conn: conn, address: address}
	c.reader, c.writer = bufio.NewReaderSize(c, 2<<10), bufio.NewWriterSize(conn, 4<<10)
	return d.exchange(c, request)
}

// brokenError is the end of a connection on which no answer had begun.
type brokenError struct{ error }

func (e *brokenError) Unwrap() error { return e.error }

// exchange writes a request and reads the answer's header.
func (d *direct) exchange(c *connection, request *http.Request) (*http.Response, error) {
	deadline, _ := request.Context().Deadline()
	_ = c.SetDeadline(deadline) // fails on a connection that is closed, as writing does then
	stop := context.AfterFunc(request.Context(), func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	fail := func(err error) (*http.Response, error) {
		stop()
		_ = c.Close() // it is of no use any more
		if ended := request.Context().Err(); ended != nil {
			err = ended
		}
		return nil, err
	}
	writeErr := errors.Join(request.Write(c.writer), c.writer.Flush())
	c.room = maxReplyHeader
	if _, err := c.reader.Peek(1); err != nil { // also after a failed write: it may have been refused unread
		if err = errors.Join(writeErr, err); !errors.Is(err, os.ErrDeadlineExceeded) {
			err = &brokenError{err}
		}
		return fail(err)
	}
	for range maxInformational {
		response, err := http.ReadResponse(c.reader, request)
		if err != nil {
			return fail(err)
		}
		if response.StatusCode/100 == 1 {
			continue
		}
		c.room = 1 << 62
		response.Body = &reply{ReadCloser: response.Body, direct: d, connection: c, stop: stop, reuse: writeErr == nil && !response.Close, done: response.Body == http.NoBody}
		return response, nil
	}
	return fail(fmt.Errorf("expected an answer after at most %d informational ones", maxInformational))
}

// reply is the body of an answer. Once it was read to its end the connection can be used again.
type reply struct {
	io.ReadCloser
	direct      *direct
	connection  *connection
	stop        func() bool
	reuse, done bool
}

// Read implements io.Reader.
func (r *reply) Read(data []byte) (int, error) {
	n, err := r.ReadCloser.Read(data)
	r.done = r.done || errors.Is(err, io.EOF)
	return n, err
}

// Close implements io.Closer. What was not read is not waited for.
func (r *reply) Close() error {
	if !r.stop() || !r.done || !r.reuse || r.connection.reader.Buffered() > 0 {
		return r.connection.Close()
	}
	r.direct.keep(r.connection)
	return nil
}

// take takes the connection that was used last, if it is still open.
func (d *direct) take(address string) *connection {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.idle) > 0 {
		last := len(d.idle) - 1
		c := d.idle[last]
		d.idle[last] = nil
		d.idle = d.idle[:last]
		if c.address == address && c.open() {
			return c
		}
		_ = c.Close() // it is of no use any more
	}
	return nil
}

// open is whether the target has neither closed the connection nor written to it unasked.
func (c *connection) open() bool {
	raw, ok := c.Conn.(syscall.Conn)
	if !ok {
		return true
	}
	control, err := raw.SyscallConn()
	if err != nil {
		return false
	}
	open := false
	err = control.Read(func(fd uintptr) bool {
		_, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		open = errors.Is(err, syscall.EAGAIN)
		return true
	})
	return open && err == nil
}

func (d *direct) keep(c *connection) {
	_ = c.SetDeadline(time.Time{}) // of the request that is done; the next one sets its own
	c.since = time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.idle = append(d.idle, c)
	if d.expiry == nil {
		d.expiry = time.AfterFunc(idleConnection, d.expire)
	}
}

// expire closes connections that nobody has used for long.
func (d *direct) expire() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.idle) > 0 && time.Since(d.idle[0].since) >= idleConnection {
		_ = d.idle[0].Close() // it is of no use any more
		d.idle = append(d.idle[:0], d.idle[1:]...)
	}
	d.expiry = nil
	if len(d.idle) > 0 {
		d.expiry = time.AfterFunc(idleConnection-time.Since(d.idle[0].since), d.expire)
	}
}

// CloseIdleConnections closes those that are idle. Others are closed or kept as their answers say; what is
// kept then closes when it has idled for long.
func (d *direct) CloseIdleConnections() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.idle {
		_ = c.Close() // it is of no use any more
	}
	d.idle = nil
}
