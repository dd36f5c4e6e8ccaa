package dispatch

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// step is something that the breaker is told, some time after the step before.
type step struct {
	after time.Duration
	lane  string // that failed; empty: an answer came
	probe bool
	times int // 0: once; of several each is of a lane of its own
}

func TestBreaker(t *testing.T) {
	fail := func(lanes ...string) (steps []step) {
		for _, lane := range lanes {
			steps = append(steps, step{lane: lane})
		}
		return steps
	}
	opened := fail("a", "b", "a", "b", "a")
	probe := func(after time.Duration) step { return step{after: after, lane: "p", probe: true} }
	for name, tc := range map[string]struct {
		steps    []step
		wantOpen bool
		wantNext time.Duration // from the last step to the next probe
	}{
		"nothing happened":                             {},
		"one lane fails for an hour":                   {steps: []step{{lane: "a"}, {after: time.Hour, lane: "a"}, {lane: "a"}, {lane: "a"}, {lane: "a"}, {lane: "a"}, {lane: "a"}}},
		"two lanes fail, too few times":                {steps: fail("a", "b", "a", "b")},
		"two lanes fail":                               {steps: opened, wantOpen: true, wantNext: firstProbe},
		"one lane fails, then another one":             {steps: fail("a", "a", "a", "a", "a", "a", "b"), wantOpen: true, wantNext: firstProbe},
		"lanes fail beside an answer":                  {steps: append([]step{{}}, step{lane: "lane", times: 20})},
		"lanes fail, answers between":                  {steps: []step{{lane: "a"}, {lane: "b"}, {after: time.Minute}, {after: time.Minute, lane: "a"}, {lane: "b"}, {lane: "a"}, {lane: "b"}}},
		"the answer is long ago":                       {steps: append([]step{{}, {after: lately, lane: "a"}}, opened...), wantOpen: true, wantNext: firstProbe},
		"the answer is not so long ago":                {steps: append([]step{{}, {after: lately - 1, lane: "a"}}, opened...)},
		"many lanes fail, though an answer just came":  {steps: []step{{}, {lane: "lane", times: manyLanes}}, wantOpen: true, wantNext: firstProbe},
		"an answer closes it":                          {steps: append(opened[:5:5], step{after: time.Second})},
		"it opens again":                               {steps: append(append(opened[:5:5], step{}, step{after: lately, lane: "c"}), opened...), wantOpen: true, wantNext: firstProbe},
		"a failure from before it opened is no probe":  {steps: append(opened[:5:5], step{after: 900 * time.Millisecond, lane: "c"}), wantOpen: true, wantNext: 100 * time.Millisecond},
		"the second probe":                             {steps: append(opened[:5:5], probe(time.Second)), wantOpen: true, wantNext: 2 * time.Second},
		"the fifth probe":                              {steps: append(opened[:5:5], probe(1), probe(1), probe(1), probe(1)), wantOpen: true, wantNext: maxProbe},
		"the hundredth probe":                          {steps: append(opened[:5:5], step{lane: "p", probe: true, times: 99}), wantOpen: true, wantNext: maxProbe},
		"probes begin again when it was closed once":   {steps: append(append(opened[:5:5], probe(1), probe(1), step{}, step{after: lately, lane: "c"}), opened...), wantOpen: true, wantNext: firstProbe},
		"what failed before an answer is not counted":  {steps: append(fail("a", "b", "c", "d"), step{}, step{after: time.Hour, lane: "e"})},
		"it does not remember more lanes than it must": {steps: []step{{lane: "lane", times: 10 * manyLanes}}, wantOpen: true, wantNext: firstProbe},
	} {
		t.Run(name, func(t *testing.T) {
			var b breaker
			now := time.Now()
			for _, s := range tc.steps {
				now = now.Add(s.after)
				for i := range max(1, s.times) {
					wasOpen := b.open
					lane := s.lane
					if s.times > 1 {
						lane = fmt.Sprint(s.lane, i)
					}
					if s.lane == "" {
						require.Equal(t, wasOpen, b.answered(now), "it says that it was closed")
					} else {
						opened := b.failed(now, lane, s.probe)
						require.Equal(t, !wasOpen && b.open, opened, "it says that it was opened")
					}
					require.LessOrEqual(t, len(b.lanes), manyLanes)
				}
			}
			require.Equal(t, tc.wantOpen, b.open)
			if tc.wantOpen {
				require.Equal(t, tc.wantNext, b.next.Sub(now))
			}
		})
	}
}
