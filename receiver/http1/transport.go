package http1

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/net/idna"
)

const (
	maxReplyHeader   = 64 << 10
	maxInformational = 8 // answers such as 103 before the one that counts
	idleConnection   = 90 * time.Second
)

// Transport carries requests to one target over plain HTTP/1.1, on connections that it keeps.
type Transport struct {
	// Dial makes a connection.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	mu     sync.Mutex
	idle   []*route    // the last used one at the end
	expiry *time.Timer // closes those that idle for too long; nil while there is none
}

// route is a connection to the target.
type route struct {
	*connection
	address string
	out     []byte
	since   time.Time // when it became idle
}

// Request is a request to a target.
type Request struct {
	Method string
	URL    *url.URL // of http
	Header http.Header
	Body   []byte
}

// Do sends a request, and returns its answer once the header is there; the body ends with the deadline and with
// the context too. A connection that the target closed while it was idle is replaced.
func (t *Transport) Do(ctx context.Context, request *Request, deadline time.Time) (*http.Response, error) {
	address, err := addressOf(request.URL)
	if err != nil {
		return nil, err
	}
	if r := t.take(address); r != nil {
		response, err := t.exchange(ctx, r, request, deadline)
		if broken := (*brokenError)(nil); !errors.As(err, &broken) {
			return response, err
		}
	}
	limited, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	conn, err := t.Dial(limited, "tcp", address)
	if err != nil {
		return nil, err
	}
	return t.exchange(ctx, &route{connection: newConnection(conn), address: address}, request, deadline)
}

// addressOf is where a request goes: a host's name in ASCII, as DNS has it, and a port.
func addressOf(target *url.URL) (string, error) {
	host := target.Hostname()
	if target.Scheme != "http" || host == "" {
		return "", fmt.Errorf("expected a URL of http with a host, got one of scheme %q", target.Scheme)
	}
	if strings.ContainsFunc(host, func(r rune) bool { return r > unicode.MaxASCII }) {
		plain, err := idna.Lookup.ToASCII(host)
		if err != nil {
			return "", fmt.Errorf("read the host's name: %w", err)
		}
		host = plain
	}
	port := target.Port()
	if port == "" {
		port = "80"
	}
	return net.JoinHostPort(host, port), nil
}

// brokenError is the end of a connection on which no answer had begun.
type brokenError struct{ error }

func (e *brokenError) Unwrap() error { return e.error }

// exchange writes a request and reads the answer's header.
func (t *Transport) exchange(ctx context.Context, r *route, request *Request, deadline time.Time) (*http.Response, error) {
	_ = r.SetDeadline(deadline) // fails on a connection that is closed, as writing does then
	stop := context.AfterFunc(ctx, func() { _ = r.SetDeadline(time.Unix(1, 0)) })
	fail := func(err error) (*http.Response, error) {
		stop()
		_ = r.Close() // it is of no use any more
		if ended := ctx.Err(); ended != nil {
			err = ended
		}
		return nil, err
	}
	writeErr := r.write(request)
	r.room = maxReplyHeader
	if _, err := r.reader.Peek(1); err != nil { // also after a failed write: it may have been refused unread
		if err = errors.Join(writeErr, err); !errors.Is(err, os.ErrDeadlineExceeded) {
			err = &brokenError{err}
		}
		return fail(err)
	}
	for range maxInformational {
		response, err := http.ReadResponse(r.reader, nil)
		if err != nil {
			return fail(err)
		}
		if response.StatusCode/100 == 1 {
			continue
		}
		r.room = unbounded
		response.Body = &reply{ReadCloser: response.Body, transport: t, route: r, stop: stop, reuse: writeErr == nil && !response.Close, done: response.Body == http.NoBody}
		return response, nil
	}
	return fail(fmt.Errorf("expected an answer after at most %d informational ones", maxInformational))
}

// maxKept is how large a buffer is kept for the next request.
const maxKept = 64 << 10

// write sends a request in one piece.
func (r *route) write(request *Request) error {
	host := r.address
	if request.URL.Port() == "" {
		host = strings.TrimSuffix(host, ":80")
	}
	out := append(r.out[:0], request.Method...)
	out = append(append(append(out, ' '), request.URL.RequestURI()...), " HTTP/1.1"...)
	out = appendField(out, "Host", host)
	for name, values := range request.Header {
		for _, value := range values {
			out = appendField(out, name, value)
		}
	}
	if len(request.Body) > 0 || request.Method != http.MethodGet {
		out = append(out, "\r\nContent-Length: "...)
		out = strconv.AppendInt(out, int64(len(request.Body)), 10)
	}
	out = append(append(out, "\r\n\r\n"...), request.Body...)
	r.out = nil
	if cap(out) <= maxKept {
		r.out = out
	}
	_, err := r.Write(out)
	return err
}

// reply is the body of an answer. Once it was read to its end the connection can be used again.
type reply struct {
	io.ReadCloser
	transport   *Transport
	route       *route
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
	if !r.stop() || !r.done || !r.reuse || r.route.reader.Buffered() > 0 {
		return r.route.Close()
	}
	r.transport.keep(r.route)
	return nil
}

// take takes the connection that was used last, if there is one.
func (t *Transport) take(address string) *route {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.idle) > 0 {
		last := len(t.idle) - 1
		r := t.idle[last]
		t.idle[last] = nil
		t.idle = t.idle[:last]
		if r.address == address {
			return r
		}
		_ = r.Close() // it is of no use any more
	}
	return nil
}

func (t *Transport) keep(r *route) {
	r.since = time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.idle = append(t.idle, r)
	if t.expiry == nil {
		t.expiry = time.AfterFunc(idleConnection, t.expire)
	}
}

// expire closes connections that nobody has used for long.
func (t *Transport) expire() {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := 0
	for old < len(t.idle) && time.Since(t.idle[old].since) >= idleConnection {
		_ = t.idle[old].Close() // it is of no use any more
		old++
	}
	t.idle = append([]*route(nil), t.idle[old:]...)
	t.expiry = nil
	if len(t.idle) > 0 {
		t.expiry = time.AfterFunc(idleConnection-time.Since(t.idle[0].since), t.expire)
	}
}

// CloseIdleConnections closes those that are idle. Others are closed or kept as their answers say; what is
// kept then closes when it has idled for long.
func (t *Transport) CloseIdleConnections() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.idle {
		_ = r.Close() // it is of no use any more
	}
	t.idle = nil
}
