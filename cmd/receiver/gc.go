package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// The collector's target: a receiver holds little, as a rule, and collecting less often saves a few percent of its time.
// Where it holds much, as under an attack that uses all of its bounds, Go's own default keeps its memory within them.
const (
	gcPercentOfLittle = 300
	gcPercentOfMuch   = 100
	muchMemory        = 24 << 20 // live bytes of the heap
)

// tuneCollector chooses the collector's target after each of its cycles, for as long as the process lives.
func tuneCollector() {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	percent := 0
	var choose func(struct{})
	choose = func(struct{}) {
		metrics.Read(live)
		wanted := gcPercentOfLittle
		if live[0].Value.Kind() == metrics.KindUint64 && live[0].Value.Uint64() > muchMemory {
			wanted = gcPercentOfMuch
		}
		if wanted != percent {
			percent = wanted
			debug.SetGCPercent(percent)
		}
		runtime.AddCleanup(new([64]byte), choose, struct{}{}) // nothing refers to it: the next cycle frees it
	}
	choose(struct{}{})
}
