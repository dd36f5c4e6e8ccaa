package journal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/journal"
)

func open(t *testing.T, file string, options journal.Options) *journal.Bolt {
	t.Helper()
	j, err := journal.Open(context.Background(), file, options)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, j.Close()) })
	return j
}

func record(id, lane string) journal.Record {
	return journal.Record{ID: id, Type: event.CallEnded, Lane: lane, Request: event.Request{
		Method: "POST", Path: "/Cdr", Query: "a=b", Header: http.Header{"Content-Type": {"application/json"}, "X-A": {"1", "2:3"}},
		Body: []byte("{\"id\":\"" + id + "\"}"), ReceivedAt: time.Date(2026, 11, 22, 8, 0, 0, 123, time.UTC),
	}}
}

func appendAll(t *testing.T, j journal.Journal, n int) {
	t.Helper()
	for i := range n {
		_, err := j.Append(context.Background(), record(fmt.Sprint(i), fmt.Sprint(i%3)), nil)
		require.NoError(t, err)
	}
}

func TestWhatIsKeptComesBackAsItWas(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a", "journal.db")
	j := open(t, file, journal.Options{})
	want := record("e1", "call1")
	receipt, err := j.Append(context.Background(), want, nil)
	require.NoError(t, err)
	require.Equal(t, journal.Receipt{Seq: 1, ID: "e1", Type: event.CallEnded}, receipt)
	j.Reject("401: no")
	j.CountURLCheck()
	require.NoError(t, j.Close())

	j = open(t, file, journal.Options{})
	got, err := j.Get(1)
	require.NoError(t, err)
	want.Seq = 1
	require.Equal(t, want, got)
	entries, err := j.Entries(0, 10)
	require.NoError(t, err)
	require.Equal(t, []journal.Entry{{Seq: 1, Lane: "call1"}}, entries)
	state := j.State()
	require.EqualValues(t, 1, state.Received)
	require.EqualValues(t, 1, state.Rejected, "a rejected request is counted for ever")
	require.Equal(t, "401: no", state.LastRejected.Reason)
	require.False(t, state.LastRejected.At.IsZero())
	require.EqualValues(t, 1, state.URLChecks, "a URL check too, though no event followed")
	require.False(t, state.LastURLCheck.IsZero())
	_, err = j.Get(2)
	require.ErrorIs(t, err, journal.ErrNotFound)
}

func TestRequestsThatWaitAreAllKept(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "j.db"), journal.Options{})
	var wg sync.WaitGroup
	for i := range 500 {
		wg.Go(func() {
			_, err := j.Append(context.Background(), record(fmt.Sprint(i), ""), nil)
			require.NoError(t, err)
		})
	}
	wg.Wait()
	entries, err := j.Entries(0, 1000)
	require.NoError(t, err)
	require.Len(t, entries, 500)
}

func TestRepeats(t *testing.T) {
	file := filepath.Join(t.TempDir(), "j.db")
	now := time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)
	options := journal.Options{Now: func() time.Time { return now }}
	j := open(t, file, options)
	key := &journal.RepeatKey{1}
	first, err := j.Append(context.Background(), record("e1", ""), key)
	require.NoError(t, err)
	again, err := j.Append(context.Background(), record("e2", ""), key)
	require.NoError(t, err)
	require.Equal(t, journal.Receipt{Seq: first.Seq, ID: "e1", Type: event.CallEnded, Repeat: true}, again)

	require.NoError(t, j.Close())
	j = open(t, file, options)
	again, err = j.Append(context.Background(), record("e3", ""), key)
	require.NoError(t, err)
	require.True(t, again.Repeat, "a restart does not forget")

	now = now.Add(10 * time.Minute)
	later, err := j.Append(context.Background(), record("e4", ""), key)
	require.NoError(t, err)
	require.False(t, later.Repeat, "after ten minutes it is another event")
	require.EqualValues(t, 2, j.State().Repeated)
}

func TestRepeatsThatArriveTogetherAreOne(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "j.db"), journal.Options{})
	var wg sync.WaitGroup
	ids := make([]string, 50)
	for i := range ids {
		wg.Go(func() {
			receipt, err := j.Append(context.Background(), record(fmt.Sprint(i), ""), &journal.RepeatKey{7})
			require.NoError(t, err)
			ids[i] = receipt.ID
		})
	}
	wg.Wait()
	for _, id := range ids {
		require.Equal(t, ids[0], id)
	}
	require.EqualValues(t, 1, j.State().Events)
}

func TestRoom(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "j.db"), journal.Options{MaxBytes: 20_000})
	_, err := j.OpenCursor("crm")
	require.NoError(t, err)
	var kept int
	for ; ; kept++ {
		if _, err = j.Append(context.Background(), record(fmt.Sprint(kept), ""), nil); err != nil {
			break
		}
		require.Less(t, kept, 1000)
	}
	require.ErrorIs(t, err, journal.ErrFull)
	require.EqualValues(t, kept, j.State().Events, "undelivered events are not dropped")
	require.ErrorIs(t, j.Problem(), journal.ErrFull)
	_, err = j.OpenCursor("crm") // another transaction
	require.NoError(t, err)
	require.NoError(t, j.DropDeadLetters("crm", nil))
	require.ErrorIs(t, j.Problem(), journal.ErrFull, "until there is room")

	require.NoError(t, j.Save("crm", journal.Progress{Cursor: journal.Cursor{Floor: 10, Done: []journal.Range{{From: 12, To: 40}}}}))
	_, err = j.Append(context.Background(), record("again", ""), nil)
	require.NoError(t, err, "delivered events make room")
	require.NoError(t, j.Problem())
	_, err = j.Get(11)
	require.NoError(t, err, "the one that was not delivered is still there")
	_, err = j.Get(1)
	require.ErrorIs(t, err, journal.ErrNotFound)
}

// TestThreeTimesTheRoom sends three times what the journal holds while a target keeps up.
func TestThreeTimesTheRoom(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "j.db"), journal.Options{MaxBytes: 20_000})
	_, err := j.OpenCursor("crm")
	require.NoError(t, err)
	var sent int64
	for i := range 300 {
		receipt, err := j.Append(context.Background(), record(fmt.Sprint(i), ""), nil)
		require.NoError(t, err)
		sent += 200
		require.NoError(t, j.Save("crm", journal.Progress{Cursor: journal.Cursor{Floor: receipt.Seq}}))
	}
	require.Greater(t, sent, 3*j.State().MaxBytes-1)
	require.EqualValues(t, 300, j.State().Received)
}

func TestCursors(t *testing.T) {
	file := filepath.Join(t.TempDir(), "j.db")
	now := time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)
	options := journal.Options{Now: func() time.Time { return now }}
	j := open(t, file, options)
	appendAll(t, j, 5)
	c, err := j.OpenCursor("crm")
	require.NoError(t, err)
	require.Equal(t, journal.Cursor{Floor: 5}, c, "a new target gets what comes after it was named")
	want := journal.Cursor{Floor: 6, Done: []journal.Range{{From: 8, To: 9}, {From: 12, To: 12}}, Attempts: map[uint64]int32{7: 3}, Delivered: 4}
	require.NoError(t, j.Save("crm", journal.Progress{Cursor: want}))
	for seq, done := range map[uint64]bool{1: true, 6: true, 7: false, 8: true, 9: true, 10: false, 12: true, 13: false} {
		require.Equal(t, done, want.Has(seq), seq)
	}
	require.NoError(t, j.KeepCursors(nil))
	require.NoError(t, j.Close())

	j = open(t, file, options)
	require.NoError(t, j.KeepCursors([]string{"crm"}))
	c, err = j.OpenCursor("crm")
	require.NoError(t, err)
	require.Equal(t, want, c, "a target that comes back within a day goes on")

	require.NoError(t, j.KeepCursors(nil))
	require.NoError(t, j.Save("crm", journal.Progress{Cursor: want}), "what was under way when it was removed")
	now = now.Add(25 * time.Hour)
	require.NoError(t, j.KeepCursors(nil))
	c, err = j.OpenCursor("crm")
	require.NoError(t, err)
	require.Equal(t, journal.Cursor{Floor: 5}, c, "after a day it is a new one")
}

func TestDeadLettersOutliveTheirEvent(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "j.db"), journal.Options{})
	appendAll(t, j, 3)
	r, err := j.Get(2)
	require.NoError(t, err)
	dead := journal.DeadLetter{Record: r, Reason: "400", Attempts: 1, Status: 400, Time: time.Now().UTC().Truncate(0)}
	require.NoError(t, j.Save("crm", journal.Progress{Cursor: journal.Cursor{Floor: 2}, Dead: []journal.DeadLetter{dead}}))
	letters, err := j.DeadLetters("crm", 0, 10)
	require.NoError(t, err)
	require.Len(t, letters, 1)
	require.Equal(t, dead.Record, letters[0].Record)
	require.Equal(t, 400, letters[0].Status)
	none, err := j.DeadLetters("other", 0, 10)
	require.NoError(t, err)
	require.Empty(t, none)
}

func TestTheFileHasOneOwner(t *testing.T) {
	file := filepath.Join(t.TempDir(), "j.db")
	first, err := journal.Open(context.Background(), file, journal.Options{})
	require.NoError(t, err)
	_, err = journal.Open(context.Background(), file, journal.Options{Wait: time.Millisecond})
	require.ErrorContains(t, err, "another process has had it open")
	opened := make(chan *journal.Bolt)
	go func() {
		second, err := journal.Open(context.Background(), file, journal.Options{Wait: -1})
		require.NoError(t, err)
		opened <- second
	}()
	require.NoError(t, first.Close())
	require.NoError(t, (<-opened).Close())
}

func TestClosedJournalRefuses(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "j.db"), journal.Options{})
	require.NoError(t, j.Close())
	_, err := j.Append(context.Background(), record("e", ""), nil)
	require.ErrorIs(t, err, journal.ErrClosed)
	_, err = j.Get(1)
	require.ErrorIs(t, err, journal.ErrClosed)
}

// TestDamageIsNamed flips one byte in the middle of a record. After a kill that is found at the start, after an ordered
// end when the record is read; the rest can be read, and events are taken.
func TestDamageIsNamed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "j.db")
	j := open(t, file, journal.Options{})
	marked := record("e", "")
	marked.Request.Body = []byte("find-this-body")
	_, err := j.Append(context.Background(), marked, nil)
	require.NoError(t, err)
	require.Len(t, ids(t, j), 1)
	killed := filepath.Join(t.TempDir(), "j.db")
	copyJournal(t, file, killed)
	require.NoError(t, j.Close())

	for name, file := range map[string]string{"killed": killed, "ended in order": file} {
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(file)
			require.NoError(t, err)
			require.True(t, bytes.Contains(data, []byte("find-this-body")))
			require.NoError(t, os.WriteFile(file, bytes.ReplaceAll(data, []byte("find-this-body"), []byte("find-that-body")), 0o600))
			var lines bytes.Buffer
			j := open(t, file, journal.Options{Log: slog.New(slog.NewTextHandler(&lines, nil))})
			require.Equal(t, name == "killed", j.State().Damaged == 1)
			entries, err := j.Entries(0, 10)
			require.NoError(t, err)
			require.Equal(t, []journal.Entry{{Seq: 1}}, entries)
			_, err = j.Get(1)
			var damaged *journal.DamagedError
			require.True(t, errors.As(err, &damaged), "%v", err)
			require.Equal(t, file, damaged.File)
			require.EqualValues(t, 1, damaged.Seq)
			require.EqualValues(t, 1, j.State().Damaged)
			require.Equal(t, "event 1: its checksum does not match", j.State().Damage)
			require.Contains(t, lines.String(), "event 1: its checksum does not match")
			require.NoError(t, j.Back(0, func(journal.Stored) bool { return true }))
			appendAll(t, j, 2)
			require.NoError(t, j.Save("crm", journal.Progress{Cursor: journal.Cursor{Floor: 1}}))
			require.NoError(t, j.Housekeep())
			require.NoError(t, j.Close())
			require.EqualValues(t, 1, open(t, file, journal.Options{}).State().Damaged, "it is counted for good")
		})
	}
}

// TestRemovedTargetsAreShown for a day, then dropped and counted.
func TestRemovedTargetsAreShown(t *testing.T) {
	now := time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)
	file := filepath.Join(t.TempDir(), "j.db")
	options := journal.Options{Now: func() time.Time { return now }}
	j := open(t, file, options)
	for _, target := range []string{"crm", "lab"} {
		_, err := j.OpenCursor(target)
		require.NoError(t, err)
	}
	appendAll(t, j, 5)
	require.NoError(t, j.Save("lab", journal.Progress{Cursor: journal.Cursor{Floor: 2, Done: journal.Ranges{{From: 4, To: 4}}}}))
	require.Empty(t, j.State().Removed)
	require.NoError(t, j.KeepCursors([]string{"crm"}))
	require.Equal(t, []journal.Removed{{Name: "lab", Until: now.Add(24 * time.Hour), Pending: 2}}, j.State().Removed)
	now = now.Add(25 * time.Hour)
	require.NoError(t, j.KeepCursors([]string{"crm"}))
	require.Empty(t, j.State().Removed)
	require.EqualValues(t, 1, j.State().Dropped)
}

// TestClockSetBack: a clock that jumps loses nothing, takes no other event for a repeat, and drops
// nothing that is still wanted.
func TestClockSetBack(t *testing.T) {
	now := time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)
	j := open(t, filepath.Join(t.TempDir(), "j.db"), journal.Options{Now: func() time.Time { return now }})
	_, err := j.OpenCursor("crm")
	require.NoError(t, err)
	for n, jump := range []time.Duration{0, -48 * time.Hour, 100 * time.Hour, -time.Second, -9_000 * time.Hour} {
		now = now.Add(jump)
		r := record(fmt.Sprint("e", n), "call")
		r.Request.ReceivedAt = now
		receipt, err := j.Append(context.Background(), r, &journal.RepeatKey{byte(n)})
		require.NoError(t, err)
		require.EqualValues(t, n+1, receipt.Seq)
		require.False(t, receipt.Repeat)
	}
	entries, err := j.Entries(0, 100)
	require.NoError(t, err)
	require.Len(t, entries, 5, "nothing is done, so nothing goes")
}

func BenchmarkAppend(b *testing.B) {
	for _, waiting := range []int{1, 16, 64} {
		b.Run(fmt.Sprint(waiting, " waiting"), func(b *testing.B) {
			j, err := journal.Open(context.Background(), filepath.Join(b.TempDir(), "j.db"), journal.Options{})
			require.NoError(b, err)
			body := []byte(strings.Repeat("x", 600))
			b.ResetTimer()
			var wg sync.WaitGroup
			for w := range waiting {
				wg.Go(func() {
					for n := w; n < b.N; n += waiting {
						r := record(fmt.Sprint(n), "call")
						r.Request.Body = body
						if _, err := j.Append(context.Background(), r, nil); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
			b.StopTimer()
			require.NoError(b, j.Close())
		})
	}
}
