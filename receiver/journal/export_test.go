package journal

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/journal/wal"
)

// Housekeep does what is done once a minute.
func (b *Bolt) Housekeep() error {
	return b.submit(context.Background(), housekeep())
}

// Hold has a transaction stand still until it is let go, with its outcome; letGo gives what its caller got.
func (b *Bolt) Hold(t *testing.T) (letGo func(outcome error) error) {
	t.Helper()
	held, outcome, got := make(chan struct{}), make(chan error, 1), make(chan error, 1)
	go func() {
		got <- b.do(context.Background(), func(*transaction) error {
			close(held)
			return <-outcome
		})
	}()
	<-held
	var once sync.Once
	t.Cleanup(func() { once.Do(func() { outcome <- nil }) }) // a test that fails holds up nothing
	return func(with error) error {
		once.Do(func() { outcome <- with })
		return <-got
	}
}

// FailSyncs has every sync of journal.db that ends a transaction, or undoes one, come to what fault says. The transaction
// is in the file then, as it is after an fdatasync that failed.
func (b *Bolt) FailSyncs(t *testing.T, fault func() error) {
	t.Helper()
	require.NoError(t, b.do(context.Background(), func(*transaction) error {
		b.syncFault = fault
		return nil
	}))
}

// WrapLog puts a file between the write-ahead log and its own one.
func (b *Bolt) WrapLog(t *testing.T, wrap func(wal.File) wal.File) {
	t.Helper()
	require.NoError(t, b.submit(context.Background(), &operation{alone: true, done: make(chan struct{}), apply: func(*transaction) error {
		b.wal.Wrap(wrap)
		return nil
	}}))
}

// URL is where it is connected to.
func (n *NATS) URL() string { return n.options.URL }

// Disconnect cuts it off, until Reconnect.
func (n *NATS) Disconnect() {
	n.cut.Store(true)
	_ = n.conn().ForceReconnect() // which fails while it is cut off
}

// EndConnection ends the connection for good.
func (n *NATS) EndConnection() { n.conn().Close() }

// Reconnect lets it connect again.
func (n *NATS) Reconnect() { n.cut.Store(false) }

// Age has a target be removed for some time already, and what is kept be older than anything is held for.
func (n *NATS) Age(t *testing.T, part SharedPart, target string, d time.Duration) {
	t.Helper()
	key := cursorKey(part.Index(), target)
	var f owned
	revision, err := n.read(t.Context(), key, &f)
	require.NoError(t, err)
	f.Cursor.RemovedAt = f.Cursor.RemovedAt.Add(-d)
	_, err = n.write(t.Context(), key, f, revision)
	require.NoError(t, err)
}

// Replicas is how many each of its streams has.
func (n *NATS) Replicas(t *testing.T) int {
	t.Helper()
	all := map[int]bool{}
	for _, stream := range n.streams() {
		require.Eventually(t, func() bool { // it may have no leader for a moment
			info, err := n.info(t.Context(), stream)
			if err == nil {
				all[info.Config.Replicas] = true
			}
			return err == nil
		}, time.Minute, 50*time.Millisecond)
	}
	require.Len(t, all, 1)
	for replicas := range all {
		return replicas
	}
	return 0
}

// Older is whether a version of a NATS server comes before another one.
var Older = older
