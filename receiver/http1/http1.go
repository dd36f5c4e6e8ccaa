// Package http1 speaks HTTP/1.1 with one goroutine a connection, to PBXs and to targets. net/http takes two or
// three, and for messages as small as a call's event passing them between goroutines is most of its work:
// docs/performance.md has the numbers. How messages are read and what they mean is net/http's all the same.
//
// It must not know what the messages are about.
package http1

import (
	"bufio"
	"errors"
	"net"
	"strings"
)

// bufferSize of readers and writers: an event and its header, mostly.
const bufferSize = 4 << 10

// errTooLong says that a message's header is over its bound.
var errTooLong = errors.New("the header is longer than is taken")

// connection bounds what is read from a connection.
type connection struct {
	net.Conn
	reader *bufio.Reader
	room   int64 // bytes that may still be read
}

// unbounded is room for a body, whose reader has a bound of its own.
const unbounded = 1 << 62

func newConnection(conn net.Conn) *connection {
	c := &connection{Conn: conn}
	c.reader = bufio.NewReaderSize(c, bufferSize)
	return c
}

// Read implements io.Reader, up to the bound.
func (c *connection) Read(data []byte) (int, error) {
	if c.room <= 0 {
		return 0, errTooLong
	}
	n, err := c.Conn.Read(data[:min(int64(len(data)), c.room)])
	c.room -= int64(n)
	return n, err
}

// oneLine keeps a value from ending its line.
var oneLine = strings.NewReplacer("\r", " ", "\n", " ")

// appendField appends a field of a header, after what ended without its line's end.
func appendField(out []byte, name, value string) []byte {
	out = append(append(append(out, "\r\n"...), name...), ": "...)
	if strings.ContainsAny(value, "\r\n") {
		value = oneLine.Replace(value)
	}
	return append(out, value...)
}
