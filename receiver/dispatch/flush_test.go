package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/dispatch"
	"github.com/pbxhook/pbxhook/receiver/journal"
)

// slow is a journal that takes its time to write progress, and then may not have.
type slow struct {
	store
	saves  chan chan error // how each is to end
	mended chan struct{}
}

func (s *slow) Save(target string, p journal.Progress) error {
	outcome := make(chan error, 1)
	select {
	case s.saves <- outcome:
	case <-s.mended:
		outcome <- nil
	}
	select {
	case err := <-outcome:
		if err != nil {
			return err
		}
	case <-s.mended:
	}
	return s.store.Save(target, p)
}

// TestDeliveriesGoOnWhileProgressIsWritten: attempts that are being written are told of, and what could not be written
// is written with the next, dead letters too.
func TestDeliveriesGoOnWhileProgressIsWritten(t *testing.T) {
	b := newBench(t)
	kept := b.journal
	s := &slow{store: kept, saves: make(chan chan error), mended: make(chan struct{})}
	mend := sync.OnceFunc(func() { close(s.mended) })
	defer mend()
	b.journal = s
	b.answer = func(id string, _ int) dispatch.Outcome {
		if id == "refused" {
			return dispatch.Outcome{Result: dispatch.Refused, Answered: true, Status: 400, Reason: "not this one"}
		}
		return delivered
	}
	stop := b.run()
	b.add("a", "a1", "refused")
	outcome := <-s.saves
	b.add("a", "a2", "a3")
	b.all(3)
	done, unlogged, err := b.running.Look(context.Background(), []uint64{1, 2, 3, 4})
	require.NoError(t, err)
	require.Equal(t, []bool{true, true, true, true}, done)
	require.Len(t, unlogged, 4)
	letters, err := kept.DeadLetters("crm", 0, 10)
	require.NoError(t, err)
	require.Empty(t, letters)

	outcome <- errors.New("the disk is broken")
	outcome = <-s.saves
	require.Empty(t, b.letters())
	outcome <- nil
	b.eventually("the dead letter is there", func() bool { return len(b.letters()) == 1 })
	require.Equal(t, []string{"refused"}, b.letters())

	mend()
	stop() // which writes what is left
	for seq := range uint64(4) {
		attempts, err := kept.Attempts(seq + 1)
		require.NoError(t, err)
		require.Len(t, attempts, 1, fmt.Sprint("event ", seq+1))
	}
	c, err := kept.OpenCursor("crm")
	require.NoError(t, err)
	require.EqualValues(t, 4, c.Floor)
	require.EqualValues(t, 3, c.Delivered)
}
