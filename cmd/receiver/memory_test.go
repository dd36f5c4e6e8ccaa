package main

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// resident is how much of files the process has in memory, in KiB.
func resident(t *testing.T) (kib int) {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	_, rest, ok := strings.Cut(string(status), "RssFile:")
	require.True(t, ok)
	_, err = fmt.Sscan(rest, &kib)
	require.NoError(t, err)
	return kib
}

// TestLetGo: what the start needed is given back, and all works on.
func TestLetGo(t *testing.T) {
	require.NoError(t, command().Help()) // touches some
	before := resident(t)
	letGo(slog.New(slog.DiscardHandler))
	require.Less(t, resident(t), before)
	require.NoError(t, command().Help())
	require.Positive(t, resident(t))
}
