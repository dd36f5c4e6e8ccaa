package receiver

import (
	"errors"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/journal"
)

// troubled is a partition whose cursors cannot be written.
type troubled struct {
	journal.SharedPart
	given bool
}

func (p *troubled) KeepCursors([]string) error { return errors.New("no leader") }

func (p *troubled) GiveBack() { p.given = true }

// TestPartitionThatCannotBeDeliveredIsGivenBack: kept, nobody would deliver it.
func TestPartitionThatCannotBeDeliveredIsGivenBack(t *testing.T) {
	p := &troubled{}
	w := &webhook{shared: &journal.NATS{}, log: slog.New(slog.DiscardHandler)}
	require.NoError(t, w.deliverAll(map[int]*part{0: newPart(p, t.Context())}, &plan{}, nil))
	require.True(t, p.given)
}
