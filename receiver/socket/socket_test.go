package socket_test

import (
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/socket"
)

func TestPeek(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = listener.Close() }()
	client, err := net.Dial("tcp", listener.Addr().String())
	require.NoError(t, err)
	conn, err := listener.Accept()
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	becomes := func(wantInput, wantEnded bool) {
		t.Helper()
		require.Eventually(t, func() bool {
			input, ended := socket.Peek(conn)
			return input == wantInput && ended == wantEnded
		}, 30*time.Second, time.Millisecond)
	}
	becomes(false, false)
	_, err = client.Write([]byte("x"))
	require.NoError(t, err)
	becomes(true, false)
	_, err = conn.Read(make([]byte, 1))
	require.NoError(t, err)
	becomes(false, false)
	require.NoError(t, client.Close())
	becomes(false, true)
	near, far := net.Pipe()
	defer func() { _, _ = near.Close(), far.Close() }()
	input, ended := socket.Peek(near)
	require.False(t, input || ended)
}
