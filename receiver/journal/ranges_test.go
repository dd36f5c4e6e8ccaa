package journal_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/journal"
)

// TestRanges compares them with a plain set.
func TestRanges(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 0))
		set, ranges := map[uint64]bool{}, journal.Ranges{}
		for range 200 {
			seq := random.Uint64N(40) + 1
			if random.IntN(2) == 0 {
				require.Equal(t, !set[seq], ranges.Add(seq))
				set[seq] = true
			} else {
				require.Equal(t, set[seq], ranges.Remove(seq))
				delete(set, seq)
			}
		}
		require.EqualValues(t, len(set), ranges.Len())
		all := slices.Collect(ranges.All())
		require.Len(t, all, len(set))
		require.True(t, slices.IsSorted(all))
		for seq := range uint64(42) {
			require.Equal(t, set[seq], ranges.Has(seq), "seed %d", seed)
		}
		for i := 1; i < len(ranges); i++ {
			require.Greater(t, ranges[i].From, ranges[i-1].To+1, "ranges that touch are one")
		}
	}
}
