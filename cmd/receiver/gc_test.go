package main

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestCollectorKeepsMuchMemoryInBounds: the target follows what the heap holds, after each cycle of the collector.
func TestCollectorKeepsMuchMemoryInBounds(t *testing.T) {
	before := debug.SetGCPercent(100)
	t.Cleanup(func() { debug.SetGCPercent(before) })
	percent := func() int {
		now := debug.SetGCPercent(-1)
		debug.SetGCPercent(now)
		return now
	}
	becomes := func(want int) {
		t.Helper()
		require.Eventually(t, func() bool { runtime.GC(); return percent() == want }, time.Minute, 10*time.Millisecond)
	}
	tuneCollector()
	becomes(gcPercentOfLittle)
	much := make([]byte, 2*muchMemory)
	becomes(gcPercentOfMuch)
	runtime.KeepAlive(much)
	becomes(gcPercentOfLittle)
}
