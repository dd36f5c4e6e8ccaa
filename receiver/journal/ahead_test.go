package journal_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/journal"
)

// Of the log ahead.
const (
	block = 4 << 10
	half  = 2 << 20
)

// killed is a journal's file as a process leaves it that is killed when it has kept some events, each in a batch of its
// own; all of them stand in the log ahead alone.
func killed(t *testing.T, events int) (file string) {
	t.Helper()
	for range 20 { // what is in the log goes into the file after a moment
		running := filepath.Join(t.TempDir(), "j.db")
		j := open(t, running, journal.Options{})
		_, err := j.OpenCursor("crm")
		require.NoError(t, err)
		for n := range events {
			key := journal.RepeatKey{byte(n)}
			r := record(fmt.Sprint("e", n), "call")
			if n == 1 {
				r.Type = event.Unparsed
			}
			_, err := j.Append(context.Background(), r, &key)
			require.NoError(t, err)
		}
		file = filepath.Join(t.TempDir(), "j.db")
		copyJournal(t, running, file)
		report, err := journal.Check(file)
		require.NoError(t, err)
		require.Empty(t, report.Damage)
		require.EqualValues(t, events, report.Events+report.Ahead)
		if report.Ahead == int64(events) {
			return file
		}
	}
	require.Fail(t, "events are never in the log ahead alone")
	return ""
}

func copyJournal(t *testing.T, from, to string) {
	t.Helper()
	for _, suffix := range []string{"", ".ahead"} {
		data, err := os.ReadFile(from + suffix)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(to+suffix, data, 0o600))
	}
}

func ids(t *testing.T, j *journal.Bolt) (all []string) {
	t.Helper()
	heads, err := j.Heads(0, 1000)
	require.NoError(t, err)
	for _, h := range heads {
		all = append(all, h.ID)
	}
	return all
}

// TestKilledBeforeATransaction: what was answered is there, is counted, and its repeats are known.
func TestKilledBeforeATransaction(t *testing.T) {
	j := open(t, killed(t, 3), journal.Options{Now: func() time.Time { return record("", "").Request.ReceivedAt }})
	require.Equal(t, []string{"e0", "e1", "e2"}, ids(t, j))
	state := j.State()
	require.EqualValues(t, 3, state.Received)
	require.EqualValues(t, 3, state.Events)
	require.EqualValues(t, 1, state.Unparsed)
	require.Equal(t, record("", "").Request.ReceivedAt, state.LastReceived)
	c, err := j.OpenCursor("crm")
	require.NoError(t, err)
	require.Zero(t, c.Floor, "all of them are still to be delivered")
	key := journal.RepeatKey{1}
	again, err := j.Append(context.Background(), record("other", "call"), &key)
	require.NoError(t, err)
	require.True(t, again.Repeat)
	require.Equal(t, "e1", again.ID)
	receipt, err := j.Append(context.Background(), record("e3", "call"), nil)
	require.NoError(t, err)
	require.EqualValues(t, 4, receipt.Seq)
}

// TestPowerCut: of a batch that was being written only a part is on the disk, or another one than was meant. It was
// answered to nobody; all before it is there.
func TestPowerCut(t *testing.T) {
	file := killed(t, 4)
	log, err := os.ReadFile(file + ".ahead")
	require.NoError(t, err)
	for name, tear := range map[string]func(last []byte){
		"nothing of it":     func(last []byte) { clear(last) },
		"its beginning":     func(last []byte) { clear(last[100:]) },
		"not its beginning": func(last []byte) { clear(last[:16]) },
		"something else":    func(last []byte) { last[60] ^= 4 },
		"one before":        func(last []byte) { copy(last, log[block:]) },
	} {
		t.Run(name, func(t *testing.T) {
			cut := filepath.Join(t.TempDir(), "j.db")
			copyJournal(t, file, cut)
			torn := append([]byte{}, log...)
			tear(torn[3*block : 4*block])
			require.NoError(t, os.WriteFile(cut+".ahead", torn, 0o600))
			j := open(t, cut, journal.Options{})
			require.Equal(t, []string{"e0", "e1", "e2"}, ids(t, j))
			_, err := j.Append(context.Background(), record("e3", "call"), nil)
			require.NoError(t, err)
			require.NoError(t, j.Close())
			j = open(t, cut, journal.Options{})
			require.Equal(t, []string{"e0", "e1", "e2", "e3"}, ids(t, j))
		})
	}
}

// TestDamagedLogAhead: what stands before events that are there was on the disk once. It is named, and what is readable
// can be copied.
func TestDamagedLogAhead(t *testing.T) {
	file := killed(t, 4)
	log, err := os.ReadFile(file + ".ahead")
	require.NoError(t, err)
	log[block+60] ^= 1
	require.NoError(t, os.WriteFile(file+".ahead", log, 0o600))
	_, err = journal.Open(context.Background(), file, journal.Options{})
	var damaged *journal.DamagedError
	require.True(t, errors.As(err, &damaged), "%v", err)
	require.ErrorContains(t, err, "the log ahead: what stands before event 3, after 1, is not as it was written")

	to := filepath.Join(t.TempDir(), "repaired.db")
	report, err := journal.Repair(file, to)
	require.NoError(t, err)
	require.Equal(t, journal.Ranges{{From: 2, To: 2}}, report.Lost)
	j := open(t, to, journal.Options{})
	require.Equal(t, []string{"e0", "e2", "e3"}, ids(t, j))
	require.NoError(t, j.Close())
	require.NoError(t, os.Rename(to, file), "as pbxhook journal repair says")
	j = open(t, file, journal.Options{})
	require.Equal(t, []string{"e0", "e2", "e3"}, ids(t, j))
}

// TestLogAheadOfAnother: that of a journal that was deleted, or of one that went on while a copy was put in its place.
func TestLogAheadOfAnother(t *testing.T) {
	file := killed(t, 3)
	require.NoError(t, os.Remove(file))
	j := open(t, file, journal.Options{})
	require.Empty(t, ids(t, j))
	require.NoError(t, j.Close())

	file = filepath.Join(t.TempDir(), "j.db")
	j = open(t, file, journal.Options{})
	appendAll(t, j, 3)
	require.NoError(t, j.Close())
	older, err := os.ReadFile(file)
	require.NoError(t, err)
	j = open(t, file, journal.Options{})
	for n := 6; n <= 9; n += 3 {
		appendAll(t, j, 3)
		require.Len(t, ids(t, j), n) // which brings them into the file
	}
	appendAll(t, j, 3) // in the place of the first ones
	log, err := os.ReadFile(file + ".ahead")
	require.NoError(t, err)
	require.NoError(t, j.Close())
	copied := filepath.Join(t.TempDir(), "j.db")
	require.NoError(t, os.WriteFile(copied, older, 0o600))
	require.NoError(t, os.WriteFile(copied+".ahead", log, 0o600))
	_, err = journal.Open(context.Background(), copied, journal.Options{})
	require.ErrorContains(t, err, "what stands before event 7, after 3, is not as it was written")
}

// TestEventsAreKeptBesideATransaction: they wait for none, whatever comes of it, and are there after a kill.
func TestEventsAreKeptBesideATransaction(t *testing.T) {
	for name, outcome := range map[string]error{"it succeeds": nil, "it fails": errors.New("a page cannot be written")} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "j.db")
			j := open(t, file, journal.Options{})
			letGo := j.Hold(t) // so that the next one finds events
			appendAll(t, j, 3)
			saved := make(chan error, 1)
			go func() { saved <- j.Save("crm", journal.Progress{Cursor: journal.Cursor{Floor: 1}}) }()
			require.NoError(t, letGo(nil))
			require.NoError(t, <-saved)
			appendAll(t, j, 2) // which the next one has
			letGo = j.Hold(t)
			appendAll(t, j, 2)
			j.Reject("the password is wrong")
			entries, err := j.Entries(0, 100)
			require.NoError(t, err)
			require.Len(t, entries, 7)
			state := j.State()
			require.EqualValues(t, 7, state.Events)
			require.EqualValues(t, 1, state.Rejected)

			killed := filepath.Join(t.TempDir(), "j.db")
			copyJournal(t, file, killed)
			require.Len(t, ids(t, open(t, killed, journal.Options{})), 7)

			require.ErrorIs(t, letGo(outcome), outcome)
			if outcome != nil {
				require.ErrorIs(t, j.Problem(), outcome)
			}
			require.Eventually(t, func() bool { return j.Problem() == nil }, patience, 10*time.Millisecond)
			appendAll(t, j, 3)
			require.Len(t, ids(t, j), 10)
			state = j.State()
			require.NoError(t, j.Close())
			j = open(t, file, journal.Options{})
			require.Equal(t, state, j.State())
			c, err := j.OpenCursor("crm")
			require.NoError(t, err)
			require.EqualValues(t, 1, c.Floor)
		})
	}
}

// TestBothHalvesOfTheLogAhead are read after a kill, in the order in which they were written, which changes.
func TestBothHalvesOfTheLogAhead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "j.db")
	j := open(t, file, journal.Options{})
	for round := range 4 {
		letGo := j.Hold(t)
		appendAll(t, j, 3) // in one half
		require.NoError(t, letGo(nil))
		letGo = j.Hold(t)  // brings these into the file, at its end
		appendAll(t, j, 3) // in the other one
		killed := filepath.Join(t.TempDir(), "j.db")
		copyJournal(t, file, killed)
		report, err := journal.Check(killed)
		require.NoError(t, err)
		require.Empty(t, report.Damage)
		require.EqualValues(t, 6, report.Ahead, round)
		after := open(t, killed, journal.Options{})
		require.Len(t, ids(t, after), 6*(round+1))
		require.NoError(t, after.Close())

		log, err := os.ReadFile(file + ".ahead")
		require.NoError(t, err)
		for _, at := range []int{0, half} { // the first batch of a half: there are others behind, or it is known to be missed
			torn := append([]byte{}, log...)
			torn[at+60] ^= 1
			require.NoError(t, os.WriteFile(killed+".ahead", torn, 0o600))
			copied, err := os.ReadFile(file)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(killed, copied, 0o600))
			_, err = journal.Open(context.Background(), killed, journal.Options{})
			require.ErrorContains(t, err, "is not as it was written")
		}
		require.NoError(t, letGo(nil))
		require.Len(t, ids(t, j), 6*(round+1))
	}
}

// TestAllAtOnce: events, their repeats, progress, refusals and housekeeping. What was counted is what is there, which
// opening it again holds against each other.
func TestAllAtOnce(t *testing.T) {
	const writers, events, targets = 8, 400, 3
	file := filepath.Join(t.TempDir(), "j.db")
	j := open(t, file, journal.Options{MaxBytes: 2 << 20})
	var wg, others sync.WaitGroup
	stop := make(chan struct{})
	for n := range targets {
		target := fmt.Sprint("t", n)
		_, err := j.OpenCursor(target)
		require.NoError(t, err)
		others.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				last := j.State().LastSeq
				require.NoError(t, j.Save(target, journal.Progress{Cursor: journal.Cursor{Floor: last}, Attempts: []journal.Attempt{{Seq: last, Result: journal.Delivered}}}))
			}
		})
	}
	others.Go(func() {
		for range 5 {
			require.NoError(t, j.Housekeep())
			time.Sleep(10 * time.Millisecond)
		}
	})
	for w := range writers {
		wg.Go(func() {
			for n := range events {
				key := journal.RepeatKey{byte(w), byte(n), byte(n >> 8)}
				r := record(fmt.Sprint(w, ".", n), "call")
				r.Request.Body = make([]byte, 2000) // so that some must go for others
				for want := range 2 {
					receipt, err := j.Append(context.Background(), r, &key)
					require.NoError(t, err)
					require.Equal(t, want == 1, receipt.Repeat)
				}
				j.Reject("the password is wrong")
			}
		})
	}
	wg.Wait()
	close(stop)
	others.Wait()
	state := j.State()
	require.EqualValues(t, writers*events, state.Received)
	require.EqualValues(t, writers*events, state.Repeated)
	require.EqualValues(t, writers*events, state.Rejected)
	require.Less(t, state.Events, state.Received)
	require.NoError(t, j.Close())
	require.Equal(t, state, open(t, file, journal.Options{MaxBytes: 2 << 20}).State())
}

// TestReadersMissNothing while events come, go into the file, and are forgotten by what is remembered of late.
func TestReadersMissNothing(t *testing.T) {
	const events, writers = 4000, 16
	j := open(t, filepath.Join(t.TempDir(), "j.db"), journal.Options{})
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for n := w; n < events; n += writers {
				_, err := j.Append(context.Background(), record(fmt.Sprint(n), ""), nil)
				require.NoError(t, err)
			}
		})
	}
	for _, limit := range []int{1, 7, 1000} {
		wg.Go(func() {
			for next := uint64(1); next <= events; {
				appended := j.Appended()
				entries, err := j.Entries(next-1, limit)
				require.NoError(t, err)
				for _, e := range entries {
					require.Equal(t, next, e.Seq)
					_, err := j.Get(e.Seq)
					require.NoError(t, err)
					next++
				}
				if len(entries) == 0 {
					<-appended
				}
			}
		})
	}
	wg.Wait()
	require.Len(t, ids(t, j), 1000)
}

// TestReadFromFarBehind: from what is in the file to what is in the log ahead alone.
func TestReadFromFarBehind(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "j.db"), journal.Options{})
	appendAll(t, j, 2100) // more than what is remembered
	for n := 2100; n < 2130; n += 3 {
		entries, err := j.Entries(0, 10_000)
		require.NoError(t, err)
		require.Len(t, entries, n)
		entries, err = j.Entries(10, 2050)
		require.NoError(t, err)
		require.Len(t, entries, 2050)
		appendAll(t, j, 3)
	}
}

// TestEventsReachTheFile when nobody asks for a transaction.
func TestEventsReachTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "j.db")
	j := open(t, file, journal.Options{})
	appendAll(t, j, 3)
	require.Eventually(t, func() bool {
		report, err := journal.Check(file)
		return err == nil && report.Events == 3 && report.Ahead == 0
	}, patience, 20*time.Millisecond)
}

// FuzzLogAhead: whatever is in the log, it is refused or read, and nothing of the file is lost.
func FuzzLogAhead(f *testing.F) {
	folder := f.TempDir()
	file := filepath.Join(folder, "j.db")
	j, err := journal.Open(context.Background(), file, journal.Options{})
	require.NoError(f, err)
	_, err = j.Append(context.Background(), record("e0", "call"), nil)
	require.NoError(f, err)
	log, err := os.ReadFile(file + ".ahead")
	require.NoError(f, err)
	require.NoError(f, j.Close())
	f.Add(log[:2*block])
	f.Add([]byte("pbxA"))
	f.Add([]byte("pbxZ"))
	whole, err := os.ReadFile(file)
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, log []byte) {
		file := filepath.Join(t.TempDir(), "j.db")
		require.NoError(t, os.WriteFile(file, whole, 0o600))
		require.NoError(t, os.WriteFile(file+".ahead", log, 0o600))
		j, err := journal.Open(context.Background(), file, journal.Options{})
		if err != nil {
			var damaged *journal.DamagedError
			require.True(t, errors.As(err, &damaged), "%v", err)
			return
		}
		require.Equal(t, "e0", ids(t, j)[0])
		require.NoError(t, j.Close())
	})
}
