package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// connections is how many the client holds, and how many requests are under way at most.
const connections = 64

// marker stands before an event's number in its body, whatever shape a system gives it.
const marker = "bench-"

// bodyBytes is how long an event is, where nothing else is said.
const bodyBytes = 600

// body is event n: a call's record as Simotel's Rest4 sends it, five events a call.
func body(n, size int) string {
	head := fmt.Sprintf(`{"event_name":"Cdr","unique_id":"%d.1","cuid":"%s%09d","src":"9123456789","dst":"991","disposition":"ANSWERED","type":"incoming","billsec":"11","duration":"19","starttime":"2026-11-22 08:00:00","endtime":"2026-11-22 08:00:19","note":"`, n/5, marker, n)
	return head + strings.Repeat("x", size-len(head)-2) + `"}`
}

// numberIn finds an event's number in what a target got.
func numberIn(data []byte) (int, bool) {
	i := bytes.Index(data, []byte(marker))
	if i < 0 || len(data) < i+len(marker)+9 {
		return 0, false
	}
	n, err := strconv.Atoi(string(data[i+len(marker) : i+len(marker)+9]))
	return n, err == nil
}

// target is where events go, one path a target of the webhook: it notes when each one came first, and how many
// came again.
type target struct {
	url     string // of the first one is url+"/0"
	server  *http.Server
	done    chan struct{}
	start   time.Time
	events  int
	arrived []atomic.Int64 // nanoseconds since start, by path and number; 0: not yet
	count   atomic.Int64
	again   atomic.Int64
	unknown atomic.Int64
}

func startTarget(targets, events int) (*target, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen as the target: %w", err)
	}
	t := &target{url: "http://" + listener.Addr().String(), done: make(chan struct{}), start: time.Now(), events: events, arrived: make([]atomic.Int64, targets*events)}
	t.server = &http.Server{Handler: t, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		defer close(t.done)
		_ = t.server.Serve(listener) // until Close
	}()
	return t, nil
}

// address is that of one target.
func (t *target) address(i int) string { return t.url + "/" + strconv.Itoa(i) }

func (t *target) stop() {
	_ = t.server.Close() // nobody waits for its answers
	<-t.done
}

// ServeHTTP takes an event.
func (t *target) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	data, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return
	}
	n, ok := numberIn(data)
	path, err := strconv.Atoi(strings.Trim(r.URL.Path, "/"))
	at := path*t.events + n
	switch {
	case !ok || err != nil || n >= t.events || at < 0 || at >= len(t.arrived):
		t.unknown.Add(1)
	case t.arrived[at].CompareAndSwap(0, int64(time.Since(t.start))):
		t.count.Add(1)
	default:
		t.again.Add(1)
	}
	w.WriteHeader(http.StatusNoContent)
}

// last is when the last event came.
func (t *target) last() time.Duration {
	last := int64(0)
	for i := range t.arrived {
		last = max(last, t.arrived[i].Load())
	}
	return time.Duration(last)
}

// wait waits until so many events have come, or none has come for a while.
func (t *target) wait(ctx context.Context, events int) {
	const patience = 15 * time.Second
	last, since := int64(-1), time.Now()
	for int(t.count.Load()) < events && time.Since(since) < patience && ctx.Err() == nil {
		if now := t.count.Load(); now != last {
			last, since = now, time.Now()
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// client sends events over connections that it keeps.
type client struct {
	address  string
	others   []string        // of other processes of the same system, which take the same requests
	prefixes []string        // of requests, up to the body's length, in turn
	size     int             // of a body, in bytes
	sent     []time.Duration // since the target's start, by number
	answered []time.Duration // 0: not accepted
}

// newClient makes a client that sends events to addresses of one system in turn.
func newClient(to []string, events, size int) (*client, error) {
	c := &client{size: size, sent: make([]time.Duration, events), answered: make([]time.Duration, events)}
	for _, address := range to {
		u, err := url.Parse(address)
		if err != nil {
			return nil, fmt.Errorf("read the system's address: %w", err)
		}
		auth := ""
		if u.User != nil {
			password, _ := u.User.Password()
			request := http.Request{Header: http.Header{}}
			request.SetBasicAuth(u.User.Username(), password)
			auth = "Authorization: " + request.Header.Get("Authorization") + "\r\n"
		}
		c.address = u.Host
		c.prefixes = append(c.prefixes, "POST "+u.RequestURI()+" HTTP/1.1\r\nHost: "+u.Host+"\r\n"+auth+"Content-Type: application/json\r\nContent-Length: ")
	}
	return c, nil
}

// accepted is how many of events from..to-1 were.
func (c *client) accepted(from, to int) (accepted int) {
	for n := from; n < to; n++ {
		if c.answered[n] != 0 {
			accepted++
		}
	}
	return accepted
}

// send sends events from..to-1, at a rate evenly spread, or at 0 each one as soon as a connection is free.
func (c *client) send(ctx context.Context, start time.Time, from, to, perSecond int) error {
	numbers := make(chan int)
	go func() {
		defer close(numbers)
		began := time.Now()
		for n := from; n < to; n++ {
			if perSecond > 0 {
				time.Sleep(time.Until(began.Add(time.Duration(n-from) * time.Second / time.Duration(perSecond))))
			}
			select {
			case numbers <- n:
			case <-ctx.Done():
				return
			}
		}
	}()
	errs := make([]error, connections)
	var done sync.WaitGroup
	for i := range connections {
		address := append([]string{c.address}, c.others...)[i%(len(c.others)+1)]
		done.Go(func() { errs[i] = c.connection(start, address, numbers) })
	}
	done.Wait()
	return errors.Join(errs...)
}

// connection sends one event after the other.
func (c *client) connection(start time.Time, address string, numbers <-chan int) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		for range numbers { // they are not accepted
		}
		return fmt.Errorf("connect to the system: %w", err)
	}
	defer func() { _ = conn.Close() }()
	answers := bufio.NewReaderSize(conn, 4096)
	request := make([]byte, 0, 2048)
	for n := range numbers {
		text := body(n, c.size)
		request = append(request[:0], c.prefixes[n%len(c.prefixes)]...)
		request = strconv.AppendInt(request, int64(len(text)), 10)
		request = append(append(request, "\r\n\r\n"...), text...)
		c.sent[n] = time.Since(start)
		if _, err = conn.Write(request); err != nil {
			break
		}
		var status int
		if status, err = readAnswer(answers); err != nil {
			break
		}
		if status/100 == 2 {
			c.answered[n] = time.Since(start)
		}
	}
	if err != nil {
		for range numbers {
		}
		return fmt.Errorf("send to the system: %w", err)
	}
	return nil
}

// readAnswer reads an answer to its end, and is as lean as the other end deserves.
func readAnswer(r *bufio.Reader) (status int, err error) {
	length, chunked := 0, false
	for first := true; ; first = false {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		text := strings.TrimSpace(string(line))
		switch {
		case first:
			if len(text) < 12 {
				return 0, fmt.Errorf("expected a status line, got %q", text)
			}
			if status, err = strconv.Atoi(text[9:12]); err != nil {
				return 0, err
			}
		case text == "":
			if chunked {
				return status, discardChunks(r)
			}
			_, err = r.Discard(length)
			return status, err
		default:
			name, value, _ := strings.Cut(text, ":")
			switch strings.ToLower(name) {
			case "content-length":
				if length, err = strconv.Atoi(strings.TrimSpace(value)); err != nil {
					return 0, err
				}
			case "transfer-encoding":
				chunked = true
			}
		}
	}
}

func discardChunks(r *bufio.Reader) error {
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		length, err := strconv.ParseInt(strings.TrimSpace(string(line)), 16, 32)
		if err != nil {
			return err
		}
		if _, err := r.Discard(int(length) + 2); err != nil || length == 0 {
			return err
		}
	}
}

// percentile is the value that so many of a hundred are not above.
func percentile(values []time.Duration, of float64) time.Duration {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[min(len(values)-1, int(float64(len(values))*of/100))]
}
