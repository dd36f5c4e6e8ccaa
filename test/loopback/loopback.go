// Package loopback finds addresses on this machine for tests.
package loopback

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// Ports that systems do not give out by themselves (Linux: from 32768 on), so that between finding one and listening
// there nobody else gets it by chance.
const (
	firstPort = 10_000
	ports     = 20_000
	attempts  = 100
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
	for range attempts {
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", firstPort+rand.IntN(ports)))
		if err == nil {
			return listener.Addr().String(), listener.Close()
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return "", fmt.Errorf("find a free address: %w", err)
		}
	}
	return "", fmt.Errorf("find a free address: %d ports of %d are in use", attempts, ports)
}
