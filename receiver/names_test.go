package receiver

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/journal"
)

// TestByNameIsBounded: expected names stay where a sender makes up more names than the status takes.
func TestByNameIsBounded(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var counts []journal.NameCount
	for n := range journal.MaxNames {
		counts = append(counts, journal.NameCount{Name: fmt.Sprintf("made-up-%02d", n), Count: int64(n) + 1, LastReceived: at})
	}
	all := byName(counts, []string{"Cdr", "NewState"})
	require.Len(t, all, journal.MaxNames)
	require.Equal(t, "Cdr", all[0].Name)
	require.Equal(t, "NewState", all[1].Name)
	require.Equal(t, "made-up-02", all[2].Name, "the ones of which most came")
}
