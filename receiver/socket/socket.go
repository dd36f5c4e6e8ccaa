// Package socket looks at what waits in a connection's socket, without reading it.
package socket

import (
	"errors"
	"net"
	"syscall"
)

// Peek reports whether bytes wait to be read, and whether the other side has ended or broken the connection. Of a
// connection that is no socket it reports neither.
func Peek(conn net.Conn) (input, ended bool) {
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return false, false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false, true
	}
	var n int
	var peeked error
	err = raw.Control(func(fd uintptr) {
		n, _, peeked = syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	})
	if errors.Is(peeked, syscall.EAGAIN) {
		return false, false
	}
	input = err == nil && peeked == nil && n > 0
	return input, !input
}
