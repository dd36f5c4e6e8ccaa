package http1

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds are those of each connection of a server.
type Bounds struct {
	Header    time.Duration // from a request's first byte to the end of its header
	Request   time.Duration // to the end of its body
	Answer    time.Duration // for writing one
	Idle      time.Duration // between requests
	MaxHeader int           // bytes
}

// Server answers requests. What a handler writes goes out when it returns, so answers are to be short; a
// request's context does not end when its sender goes.
type Server struct {
	Handler http.Handler
	Bounds  Bounds
	Log     *slog.Logger

	mu          sync.Mutex
	listener    net.Listener
	connections map[*session]bool
	closing     bool
	ended       sync.WaitGroup // connections

	retired atomic.Bool
}

// ErrServerClosed is what Serve returns after Shutdown or Close.
var ErrServerClosed = http.ErrServerClosed

// acceptPause is how long a server waits when it cannot take a connection, such as for want of descriptors.
const acceptPause = 50 * time.Millisecond

// Serve takes connections until Shutdown or Close; once.
func (s *Server) Serve(listener net.Listener) error {
	s.mu.Lock()
	s.listener, s.connections = listener, map[*session]bool{}
	closing := s.closing
	s.mu.Unlock()
	if closing {
		return errors.Join(ErrServerClosed, listener.Close())
	}
	for {
		conn, err := listener.Accept()
		switch {
		case err == nil:
			if !s.take(conn) {
				_ = conn.Close() // it came too late
				return ErrServerClosed
			}
		case s.isClosing():
			return ErrServerClosed
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("take a connection: %w", err)
		default:
			s.Log.Warn("cannot take a connection", "error", err)
			time.Sleep(acceptPause)
		}
	}
}

// take serves a connection, unless the server is closing.
func (s *Server) take(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	c := &session{connection: newConnection(conn), server: s}
	s.connections[c] = true
	s.ended.Go(func() {
		c.serve()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.connections, c)
	})
	return true
}

func (s *Server) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// Retire has every answer say that it is the last one on its connection; connections and requests are taken as before.
// Called a while before Shutdown, it has those who send now and then go elsewhere by themselves: a request that comes
// on an idle connection just as that is closed gets no answer, and its sender cannot know whether it was taken.
func (s *Server) Retire() { s.retired.Store(true) }

// Shutdown takes no more connections, ends those that are idle, and waits for the requests under way.
func (s *Server) Shutdown(ctx context.Context) error {
	s.Retire()
	s.close(func(c *session) bool { return c.state.CompareAndSwap(idle, over) })
	ended := make(chan struct{})
	go func() {
		s.ended.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for requests under way: %w", ctx.Err())
	}
}

// Close ends all connections, and waits for their handlers.
func (s *Server) Close() error {
	s.close(func(*session) bool { return true })
	s.ended.Wait()
	return nil
}

// close takes no more connections, and ends some of those that there are.
func (s *Server) close(which func(c *session) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	if s.listener != nil {
		_ = s.listener.Close() // nothing depends on it
	}
	for c := range s.connections {
		if which(c) {
			_ = c.Close() // its goroutine sees that
		}
	}
}

// The states of a session.
const (
	idle int32 = iota // no request is under way
	busy
	over // none may come any more
)

// session is a connection and the requests on it, one after the other.
type session struct {
	*connection
	server   *Server
	remote   string // its address
	state    atomic.Int32
	deadline time.Time // of reading and writing
	out      []byte
}

// patience sets by when the peer must have done its part.
func (c *session) patience(d time.Duration) {
	c.deadline = time.Now().Add(d)
	_ = c.SetDeadline(c.deadline) // fails on a connection that is closed, as reading does then
}

// serve answers requests until there are no more.
func (c *session) serve() {
	defer func() {
		if trouble := recover(); trouble != nil {
			c.server.Log.Error("a request could not be handled", "panic", trouble, "stack", string(debug.Stack()))
		}
		_ = c.Close() // nothing depends on it
	}()
	c.patience(c.server.Bounds.Header)
	if secure, ok := c.Conn.(*tls.Conn); ok && secure.Handshake() != nil {
		return
	}
	for c.begun() && c.next() {
		c.state.Store(idle)
		if c.server.isClosing() { // and did not see it as idle
			return
		}
		c.patience(c.server.Bounds.Idle)
	}
}

// begun waits for a request to begin to come, as long as it may take.
func (c *session) begun() bool {
	c.room = int64(c.server.Bounds.MaxHeader)
	_, err := c.reader.Peek(1)
	return err == nil && c.state.CompareAndSwap(idle, busy)
}

// next answers a request that has begun to come, and says whether another one may follow.
func (c *session) next() (again bool) {
	if buffered, _ := c.reader.Peek(c.reader.Buffered()); !bytes.Contains(buffered, []byte("\r\n\r\n")) {
		c.patience(c.server.Bounds.Header)
	}
	request, err := http.ReadRequest(c.reader)
	if err == nil && request.ProtoMajor != 1 {
		err = errVersion
	}
	if err != nil {
		c.refuse(err)
		return false
	}
	if request.ContentLength < 0 || request.ContentLength > int64(c.reader.Buffered()) {
		c.patience(c.server.Bounds.Request)
	}
	if c.remote == "" {
		c.remote = c.RemoteAddr().String()
	}
	request.RemoteAddr = c.remote
	c.room = unbounded
	body := &incoming{ReadCloser: request.Body, session: c, expected: request.ContentLength != 0}
	body.proceed = expectsContinue(request)
	request.Body = body
	a := &answer{header: http.Header{}}
	c.server.Handler.ServeHTTP(a, request)
	again = !request.Close && request.ProtoAtLeast(1, 1) && body.done() && a.header.Get("Connection") != "close" && !c.server.retired.Load()
	if !c.write(request.Method, a, again) {
		return false
	}
	if !body.done() {
		c.linger()
	}
	return again
}

var errVersion = errors.New("expected HTTP/1.1 or 1.0")

// refuse answers what is no request.
func (c *session) refuse(err error) {
	if timeout := net.Error(nil); errors.As(err, &timeout) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return // nobody is there, or nobody would read it
	}
	a := &answer{header: http.Header{}, code: http.StatusBadRequest}
	switch {
	case errors.Is(err, errTooLong):
		a.code = http.StatusRequestHeaderFieldsTooLarge
	case errors.Is(err, errVersion):
		a.code = http.StatusHTTPVersionNotSupported
	}
	if c.write(http.MethodGet, a, false) {
		c.linger()
	}
}

// write sends an answer, and says whether that went well.
func (c *session) write(method string, a *answer, again bool) bool {
	if a.code == 0 {
		a.code = http.StatusOK
	}
	if !again {
		a.header.Set("Connection", "close")
	}
	c.out = append(c.out[:0], "HTTP/1.1 "...)
	c.out = strconv.AppendInt(c.out, int64(a.code), 10)
	c.out = append(append(append(c.out, ' '), http.StatusText(a.code)...), "\r\nDate: "...)
	c.out = time.Now().UTC().AppendFormat(c.out, http.TimeFormat)
	c.out = append(c.out, "\r\nContent-Length: "...)
	c.out = strconv.AppendInt(c.out, int64(len(a.body)), 10)
	for name, values := range a.header {
		for _, value := range values {
			c.out = appendField(c.out, name, value)
		}
	}
	c.out = append(c.out, "\r\n\r\n"...)
	if method != http.MethodHead {
		c.out = append(c.out, a.body...)
	}
	if time.Until(c.deadline) < c.server.Bounds.Answer {
		c.patience(c.server.Bounds.Answer)
	}
	_, err := c.Write(c.out)
	return err == nil
}

// lingerTime and lingerBytes are what a sender gets to read its answer, while it still sends a body that nobody
// wants: a connection that is closed at once takes the answer with it.
const (
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 4 << 20
)

func (c *session) linger() {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // the answer is out
	}
	c.patience(lingerTime)
	_, _ = io.CopyN(io.Discard, c.Conn, lingerBytes) // or until its time is over
}

// incoming is the body of a request.
type incoming struct {
	io.ReadCloser
	session  *session
	expected bool // there is one
	proceed  bool // its sender waits to hear that it is wanted
	ended    bool // it was read to its end
}

func (b *incoming) done() bool { return b.ended || !b.expected }

// Read implements io.Reader.
func (b *incoming) Read(data []byte) (int, error) {
	if b.proceed {
		b.proceed = false
		if _, err := io.WriteString(b.session.Conn, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
			return 0, fmt.Errorf("ask for the body: %w", err)
		}
	}
	n, err := b.ReadCloser.Read(data)
	b.ended = b.ended || errors.Is(err, io.EOF)
	return n, err
}

// Close implements io.Closer. What was not read stays where it is.
func (b *incoming) Close() error { return nil }

func expectsContinue(r *http.Request) bool {
	return r.ProtoAtLeast(1, 1) && strings.EqualFold(r.Header.Get("Expect"), "100-continue")
}

// answer is what a handler writes.
type answer struct {
	header http.Header
	code   int
	body   []byte
}

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter; the first one counts.
func (a *answer) WriteHeader(code int) {
	if a.code == 0 {
		a.code = code
	}
}

// Write implements http.ResponseWriter.
func (a *answer) Write(data []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	a.body = append(a.body, data...)
	return len(data), nil
}
