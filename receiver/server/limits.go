package server

import (
	"container/list"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Reason says why a connection or request was rejected before a handler saw it.
type Reason string

// The reasons.
const (
	Malformed      Reason = "malformed"   // net/http cannot read the request
	Handshake      Reason = "handshake"   // of TLS failed
	TooMany        Reason = "connections" // as many connections as may be are open, and in use
	Evicted        Reason = "evicted"     // it had sent nothing valid, and others needed its place
	TooManyHeaders Reason = "headers"     // long headers of other requests take all the room
)

// Reasons are all of them.
var Reasons = []Reason{Malformed, Handshake, TooMany, Evicted, TooManyHeaders}

// Rejection is a connection or request that no handler saw. It holds nothing of what the sender sent.
type Rejection struct {
	Reason Reason
	Code   int    // of the response; 0: there was none
	Sender string // address and port
	Detail string // what was wrong
}

// ErrBusy is what reading a request's body returns when too many bytes of bodies are in flight.
var ErrBusy = errors.New("too many bytes of request bodies are in flight")

// RetryAfter is how long, in seconds, a sender is asked to wait after a 503.
const RetryAfter = "5"

const (
	// smallBody and smallHeader are up to where a request is read whatever the others send: who sends much cannot
	// keep out who sends a call's event.
	smallBody   = 16 << 10
	smallHeader = 8 << 10
	// headerBytes is what longer headers share.
	headerBytes = 16 << 20
	// lineCost is what a line of a header takes beside its bytes, about: an entry of a map, a slice and two texts.
	lineCost = 128
)

// Limits bound what servers that share them take of connections, descriptors and memory.
type Limits struct {
	rejected       func(Rejection)
	maxConnections int
	maxBodies      int64

	mu        sync.Mutex
	open      int
	strangers list.List // of connections that sent no valid request yet, the oldest first

	requests atomic.Int64 // whose handler runs; HTTP/2 has many on one connection
	bodies   atomic.Int64 // bytes of bodies in flight
	headers  atomic.Int64 // cost of long headers
}

// NewLimits makes limits: so many open connections, at most half of the process's descriptors, and so many bytes of
// request bodies in flight. rejected is told of every rejection and must not block; nil: nobody is.
func NewLimits(connections int, bodies int64, rejected func(Rejection)) *Limits {
	if rejected == nil {
		rejected = func(Rejection) {}
	}
	return &Limits{rejected: rejected, maxConnections: max(1, min(connections, descriptors()/2)), maxBodies: bodies}
}

// descriptors returns how many the process may have; the other half is for targets, journals, health and metrics.
func descriptors() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > 1<<30 {
		return 1 << 30
	}
	return int(limit.Cur)
}

// Connections returns how many are open, and how many may be.
func (l *Limits) Connections() (open, most int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open, l.maxConnections
}

// BodyBytes returns how many bytes of bodies are in flight, and how many may be.
func (l *Limits) BodyBytes() (inFlight, most int64) { return l.bodies.Load(), l.maxBodies }

// admit registers an accepted connection, if need be in the place of one that sent nothing valid yet. It returns false
// where all others are in use.
func (l *Limits) admit(c *connection) bool {
	victim, ok := l.register(c)
	if victim != nil {
		l.rejected(Rejection{Reason: Evicted, Sender: victim.sender(), Detail: "the connection was closed for a new one: it had sent no valid request, and as many are open as may be"})
		_ = victim.Conn.Close() // whoever serves it sees that
	}
	return ok
}

func (l *Limits) register(c *connection) (victim *connection, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= l.maxConnections {
		if victim = l.oldestUnused(time.Now()); victim == nil {
			return nil, false
		}
		l.removeLocked(victim)
	}
	l.open++
	c.registered, c.stranger = true, l.strangers.PushBack(c)
	return victim, true
}

// oldestUnused returns the connection that is closed first: the oldest one that sent no valid request, unless its first
// request is being read within its time, or a request on it is being handled. Addresses say nothing: senders behind one
// proxy share one.
func (l *Limits) oldestUnused(now time.Time) *connection {
	for e := l.strangers.Front(); e != nil; e = e.Next() {
		if c := e.Value.(*connection); !c.inUse(now) {
			return c
		}
	}
	return nil
}

func (l *Limits) remove(c *connection) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.removeLocked(c)
}

func (l *Limits) removeLocked(c *connection) {
	if !c.registered {
		return
	}
	c.registered = false
	l.open--
	l.knowLocked(c)
}

// know notes that a connection sent a valid request: it is not closed for another one.
func (l *Limits) know(c *connection) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.knowLocked(c)
}

func (l *Limits) knowLocked(c *connection) {
	if c.stranger != nil {
		l.strangers.Remove(c.stranger)
		c.stranger = nil
	}
}

// closeUnused closes a server's connections on which nothing has come yet, for its shutdown: net/http would wait for them.
func (l *Limits) closeUnused(s *Server) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for e := l.strangers.Front(); e != nil; e = e.Next() {
		if c := e.Value.(*connection); c.server == s && !c.used() {
			_ = c.Conn.Close() // whoever serves it sees that
		}
	}
}

// reserveBody takes room for n more bytes of a body of which some have room already. The first bytes of every body may
// use all there is, the rest of long ones three quarters of it.
func (l *Limits) reserveBody(have, n int64) bool {
	most := l.maxBodies
	if have+n > smallBody {
		most = most / 4 * 3
	}
	return reserve(&l.bodies, n, most)
}

// fitsBody reports whether a body that its sender says is so long may be read at all now.
func (l *Limits) fitsBody(length int64) bool {
	return length <= smallBody || l.bodies.Load()+length <= l.maxBodies/4*3
}

func (l *Limits) releaseBody(n int64) { l.bodies.Add(-n) }

func reserve(used *atomic.Int64, n, most int64) bool {
	if used.Add(n) <= most {
		return true
	}
	used.Add(-n)
	return false
}

func host(address net.Addr) string {
	if address == nil {
		return ""
	}
	return address.String()
}
