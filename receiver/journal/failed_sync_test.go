package journal_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/journal"
	"github.com/pbxhook/pbxhook/receiver/journal/wal"
)

// disk is what is under a write-ahead log: a sync that fails drops what was written since the last one, which stays in
// the page cache alone.
type disk struct {
	wal.File
	mu     sync.Mutex
	synced []byte // what is there after a power cut
	dirty  map[int64][]byte
	fail   func() error
}

func (d *disk) WriteAt(data []byte, at int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dirty[at] = append([]byte{}, data...)
	return d.File.WriteAt(data, at)
}

func (d *disk) Sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.fail()
	if err == nil {
		for at, data := range d.dirty {
			copy(d.synced[at:], data)
		}
	}
	clear(d.dirty)
	return err
}

// TestFailedSync: syncs fail for a while, of journal.db, of the log or of both. What is answered is there after an ordered
// end, a kill and a power cut; nothing is when it was not answered; every start succeeds; and all goes on by itself when
// the disk is sound again.
func TestFailedSync(t *testing.T) {
	for name, tc := range map[string]struct{ db, log int }{
		"the journal's, once":         {db: 1},
		"and that which undoes it":    {db: 2},
		"and many more":               {db: 7},
		"the log's, once":             {log: 1},
		"the log's, again and again":  {log: 5},
		"both, once":                  {db: 1, log: 1},
		"both, again and again":       {db: 6, log: 6},
		"the journal's, and the next": {db: 3, log: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "j.db")
			j := open(t, file, journal.Options{})
			_, err := j.OpenCursor("crm")
			require.NoError(t, err)
			failing := func() (fail func() error, arm func(n int)) {
				var left atomic.Int64
				return func() error {
					if left.Add(-1) >= 0 {
						return fmt.Errorf("fdatasync: %w", syscall.EIO)
					}
					return nil
				}, func(n int) { left.Store(int64(n)) }
			}
			failDB, armDB := failing()
			failLog, armLog := failing()
			d := &disk{dirty: map[int64][]byte{}, fail: failLog}
			j.FailSyncs(t, failDB)
			j.WrapLog(t, func(f wal.File) wal.File {
				d.File = f
				d.synced, err = os.ReadFile(journal.LogFile(file))
				return d
			})
			require.NoError(t, err)

			answered := map[string]bool{}
			refused := 0
			send := func(n int) {
				id := fmt.Sprint("e", n)
				key := journal.RepeatKey{byte(n), byte(n >> 8)}
				if _, err := j.Append(context.Background(), record(id, "call"), &key); err == nil {
					answered[id] = true
				} else {
					require.ErrorIs(t, err, syscall.EIO)
					refused++
				}
			}
			save := func(floor uint64) error {
				letter := journal.DeadLetter{Record: record("e0", "call"), Reason: "400", Time: time.Now()}
				letter.Record.Seq = floor
				return j.Save("crm", journal.Progress{Cursor: journal.Cursor{Floor: floor}, Dead: []journal.DeadLetter{letter}})
			}
			for n := range 20 {
				send(n)
			}
			armDB(tc.db)
			armLog(tc.log)
			for n := 20; n < 60; n++ {
				send(n)
				if n%5 == 0 && save(uint64(n/5)) != nil {
					refused++
				}
			}
			if tc.db > 0 {
				require.NotZero(t, refused, "nothing is answered that may not be there")
			}
			require.Eventually(t, func() bool { return save(15) == nil }, patience, time.Millisecond)
			require.NoError(t, j.Problem())
			for n := 60; n < 100; n++ {
				send(n)
			}
			require.Greater(t, len(answered), 60)
			state := j.State()

			killed, cut := filepath.Join(t.TempDir(), "j.db"), filepath.Join(t.TempDir(), "j.db")
			letGo := j.Hold(t) // so that no transaction runs meanwhile
			copyJournal(t, file, killed)
			copyJournal(t, file, cut)
			d.mu.Lock()
			require.NoError(t, os.WriteFile(journal.LogFile(cut), d.synced, 0o600))
			d.mu.Unlock()
			require.NoError(t, letGo(nil))
			require.NoError(t, j.Close())
			for how, file := range map[string]string{"ended in order": file, "killed": killed, "power cut": cut} {
				report, err := journal.Check(file)
				require.NoError(t, err, how)
				require.Empty(t, report.Damage, how)
				require.Empty(t, report.Reported, how)
				j := open(t, file, journal.Options{})
				require.Equal(t, state, j.State(), how)
				there := map[string]bool{}
				for _, id := range ids(t, j) {
					require.False(t, there[id], "%s: %s is there twice", how, id)
					there[id] = true
				}
				for id := range answered {
					require.True(t, there[id], "%s: %s was answered", how, id)
				}
				c, err := j.OpenCursor("crm")
				require.NoError(t, err)
				require.EqualValues(t, 15, c.Floor, how)
				require.NoError(t, j.Close())
			}
		})
	}
}
