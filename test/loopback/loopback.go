// Package loopback finds addresses on this machine for tests.
package loopback

import (
	"fmt"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// Free is an address that nothing listens at.
func Free(t testing.TB) string {
	t.Helper()
	address, err := Find()
	require.NoError(t, err)
	return address
}

// Find is Free for programs.
func Find() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free address: %w", err)
	}
	return listener.Addr().String(), listener.Close()
}
