package ingest

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestLargeBodiesAreDecodedInTurns: JSON takes many times its length in memory, so not more than two of them at once.
func TestLargeBodiesAreDecodedInTurns(t *testing.T) {
	d := newDecoding()
	var running, most atomic.Int64
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			d.do(make([]byte, largeBody), func() {
				most.Store(max(most.Load(), running.Add(1)))
				runtime.Gosched()
				running.Add(-1)
			})
		})
	}
	all.Wait()
	require.LessOrEqual(t, most.Load(), int64(largeAtOnce))
	d.do(make([]byte, largeBody), func() { // a small one waits for no large one
		d.do(make([]byte, largeBody), func() { d.do(make([]byte, largeBody-1), func() { running.Add(1) }) })
	})
	require.EqualValues(t, 1, running.Load())
	require.Panics(t, func() { d.do(make([]byte, largeBody), func() { panic("a decoder") }) })
	require.Empty(t, d, "its place is free again")
}
