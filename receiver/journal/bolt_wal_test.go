package journal_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/journal"
)

// Of the write-ahead log.
const (
	block   = 4 << 10
	segment = 512 * block
)

// blank has a block of a log be as it was before anything was written into it.
func blank(block []byte) []byte {
	empty := make([]byte, len(block))
	copy(empty, block[:24])
	copy(empty[40:44], block[40:44])
	empty[47] = 1
	binary.BigEndian.PutUint32(empty[4:], crc32.Checksum(empty[8:], crc32.MakeTable(crc32.Castagnoli)))
	return empty
}

// firstBlock is where the segment begins that has the first batch of a log, in bytes.
func firstBlock(t *testing.T, log []byte) int {
	t.Helper()
	newest, at := uint64(0), 0
	for _, begin := range []int{block, block + segment} {
		if cycle := binary.BigEndian.Uint64(log[begin+24:]); cycle > newest {
			newest, at = cycle, begin
		}
	}
	require.NotZero(t, newest, "no batch is in the log")
	return at
}

// killed is a journal's file as a process leaves it that is killed when it has kept some events, each in a batch of its
// own; all of them stand in the write-ahead log alone.
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
		require.EqualValues(t, events, report.Events+report.InLog)
		if report.InLog == int64(events) {
			return file
		}
	}
	require.Fail(t, "events are never in the write-ahead log alone")
	return ""
}

func copyJournal(t *testing.T, from, to string) {
	t.Helper()
	for old, copied := range map[string]string{from: to, journal.LogFile(from): journal.LogFile(to)} {
		data, err := os.ReadFile(old)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(copied, data, 0o600))
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

// TestPowerCut: what is left of the last batch is whole, was never written, or is reported. A batch that was never
// written was answered to nobody; of one that is not as it was written nobody knows. All before it is there.
func TestPowerCut(t *testing.T) {
	file := killed(t, 4)
	log, err := os.ReadFile(journal.LogFile(file))
	require.NoError(t, err)
	begin := firstBlock(t, log)
	for name, tc := range map[string]struct {
		tear     func(last []byte)
		whole    bool // the event is there all the same
		reported bool
	}{
		"not written": {tear: func(last []byte) { copy(last, blank(last)) }},
		"zeros":       {tear: func(last []byte) { clear(last) }, reported: true},
		"its beginning, and what was there before": {tear: func(last []byte) { copy(last[100:], blank(last)[100:]) }, reported: true},
		"zeros after its beginning":                {tear: func(last []byte) { clear(last[100:]) }, reported: true},
		"a bit of the record":                      {tear: func(last []byte) { last[100] ^= 4 }, reported: true},
		"a bit of the block's checksum":            {tear: func(last []byte) { last[5] ^= 4 }, whole: true},
		"a bit of the block's sequence number":     {tear: func(last []byte) { last[39] ^= 4 }, whole: true},
		"a bit of the length":                      {tear: func(last []byte) { last[50] ^= 4 }, whole: true},
		"a bit behind the record":                  {tear: func(last []byte) { last[4000] ^= 4 }, whole: true},
		"the batch before it":                      {tear: func(last []byte) { copy(last, log[begin+2*block:]) }, reported: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cut := filepath.Join(t.TempDir(), "j.db")
			copyJournal(t, file, cut)
			torn := append([]byte{}, log...)
			tc.tear(torn[begin+3*block : begin+4*block])
			require.NoError(t, os.WriteFile(journal.LogFile(cut), torn, 0o600))
			want := []string{"e0", "e1", "e2"}
			if tc.whole {
				want = append(want, "e3")
			}
			j := open(t, cut, journal.Options{})
			require.Equal(t, want, ids(t, j))
			require.Equal(t, tc.reported, j.State().Damage != "", j.State().Damage)
			require.Equal(t, tc.reported, j.State().Damaged > 0)
			_, err := j.Append(context.Background(), record("e4", "call"), nil)
			require.NoError(t, err)
			require.NoError(t, j.Close())
			j = open(t, cut, journal.Options{})
			require.Equal(t, append(want, "e4"), ids(t, j))
			require.Empty(t, j.State().Damage, "it is reported once")
		})
	}
}

// TestDamagedLog: what was answered and cannot be read any more is reported, with the events that are lost, and the start
// goes on.
func TestDamagedLog(t *testing.T) {
	file := killed(t, 4)
	log, err := os.ReadFile(journal.LogFile(file))
	require.NoError(t, err)
	log[firstBlock(t, log)+block+100] ^= 1
	require.NoError(t, os.WriteFile(journal.LogFile(file), log, 0o600))

	report, err := journal.Check(file)
	require.NoError(t, err)
	require.Empty(t, report.Damage)
	require.Len(t, report.Reported, 2, "%v", report.Reported)
	to := filepath.Join(t.TempDir(), "repaired.db")
	report, err = journal.Repair(file, to)
	require.NoError(t, err)
	require.Equal(t, journal.Ranges{{From: 2, To: 2}}, report.Lost)
	j := open(t, to, journal.Options{})
	require.Equal(t, []string{"e0", "e2", "e3"}, ids(t, j))
	require.NoError(t, j.Close())

	var lines bytes.Buffer
	j = open(t, file, journal.Options{Log: slog.New(slog.NewTextHandler(&lines, nil))})
	require.Equal(t, []string{"e0", "e2", "e3"}, ids(t, j))
	require.Contains(t, j.State().Damage, "events 2 to 2 were answered, and cannot be read")
	require.Contains(t, lines.String(), "is not as it was written")
	require.NoError(t, j.Close())
	require.FileExists(t, journal.LogFile(file)+".damaged", "for people")
	require.NoError(t, os.Rename(to, file), "as pbxhook journal repair says")
	j = open(t, file, journal.Options{})
	require.Equal(t, []string{"e0", "e2", "e3"}, ids(t, j))
}

// notedAsAnswered has a journal go on, as two copies: at a moment, and killed a moment later, when four events are in the
// log alone of which journal.db notes that they were answered.
func notedAsAnswered(t *testing.T, from string) (before, killed string) {
	t.Helper()
	for range 20 { // what is in the log goes into the file after a moment
		file := filepath.Join(t.TempDir(), "j.db")
		copyJournal(t, from, file)
		j := open(t, file, journal.Options{})
		appendAll(t, j, 3)
		letGo := j.Hold(t) // brings three into the file, and notes as answered what comes until it ends
		appendAll(t, j, 2)
		before = filepath.Join(t.TempDir(), "j.db")
		copyJournal(t, file, before)
		appendAll(t, j, 2)
		require.NoError(t, letGo(nil))
		letGo = j.Hold(t) // writes nothing meanwhile
		killed = filepath.Join(t.TempDir(), "j.db")
		copyJournal(t, file, killed)
		require.NoError(t, letGo(nil))
		report, err := journal.Check(killed)
		require.NoError(t, err)
		require.Empty(t, report.Damage)
		if report.InLog == 4 {
			return before, killed
		}
	}
	require.Fail(t, "events are never in the log alone")
	return "", ""
}

// TestFilesThatDoNotFit: one of the two is missing, emptied, of another journal or an older copy. That is reported, the
// journal does not open, and what can be read can be copied.
func TestFilesThatDoNotFit(t *testing.T) {
	file := killed(t, 3)
	other := killed(t, 5)
	older := filepath.Join(t.TempDir(), "j.db") // closed in order, before most of its events
	j := open(t, older, journal.Options{})
	appendAll(t, j, 3)
	require.NoError(t, j.Close())
	closed := filepath.Join(t.TempDir(), "j.db")
	copyJournal(t, older, closed)
	before, killedLater := notedAsAnswered(t, older)

	for name, tc := range map[string]struct {
		db, log string // empty: it is not there
		empty   bool   // the log has no bytes
		cut     bool   // it is too short
		header  bool   // a bit of its header is another one
		why     string
		events  int64 // that a repair finds
	}{
		"the log is missing":                           {db: file, why: "journal was not closed in order", events: 0},
		"the log is empty":                             {db: file, log: file, empty: true, why: "got 0", events: 0},
		"the log is cut off":                           {db: file, log: file, cut: true, why: "expected 4198400 bytes", events: 0},
		"the log's header is not whole":                {db: file, log: file, header: true, why: "its header is not that of a write-ahead log", events: 0},
		"the log is another journal's":                 {db: file, log: other, why: "expected the log of journal", events: 0},
		"the log is another journal's, in order":       {db: closed, log: other, why: "expected the log of journal", events: 3},
		"the log is an older copy":                     {db: killedLater, log: before, why: "an older copy", events: 8},
		"the log is an older copy, closed in order":    {db: killedLater, log: closed, why: "an older copy", events: 6},
		"the journal is missing":                       {log: file, why: "it is missing or empty", events: 3},
		"the journal is missing, the log not readable": {log: file, header: true, why: "it is missing or empty", events: -1},
		"the journal is an older copy":                 {db: older, log: killedLater, why: "the journal beside it is an older copy", events: 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			place := filepath.Join(t.TempDir(), "j.db")
			copyTo := func(from, to string) {
				if from != "" {
					data, err := os.ReadFile(from)
					require.NoError(t, err)
					require.NoError(t, os.WriteFile(to, data, 0o600))
				}
			}
			copyTo(tc.db, place)
			if tc.log != "" {
				copyTo(journal.LogFile(tc.log), journal.LogFile(place))
			}
			log, err := os.ReadFile(journal.LogFile(place))
			switch {
			case tc.empty:
				log = nil
			case tc.cut:
				log = log[:len(log)-block]
			case tc.header:
				log[30] ^= 1
			}
			if err == nil {
				require.NoError(t, os.WriteFile(journal.LogFile(place), log, 0o600))
			}
			for range 2 { // nothing is changed by an attempt to open it
				_, err = journal.Open(context.Background(), place, journal.Options{})
				var damaged *journal.DamagedError
				require.True(t, errors.As(err, &damaged), "%v", err)
				require.ErrorContains(t, err, tc.why)
			}
			report, err := journal.Check(place)
			require.NotEmpty(t, report.Damage)
			require.Equal(t, tc.events < 0, err != nil, err)

			to := filepath.Join(t.TempDir(), "repaired.db")
			report, err = journal.Repair(place, to)
			if tc.events < 0 {
				require.Error(t, err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tc.events, report.Events+report.InLog)
			require.Equal(t, tc.db == "", report.LostTargets)
			require.NoError(t, os.Rename(to, place), "as pbxhook journal repair says")
			if err := os.Remove(journal.LogFile(place)); err != nil {
				require.ErrorIs(t, err, os.ErrNotExist)
			}
			j := open(t, place, journal.Options{})
			require.Len(t, ids(t, j), int(tc.events))
			appendAll(t, j, 1)
			require.NoError(t, j.Close())
			require.Len(t, ids(t, open(t, place, journal.Options{})), int(tc.events)+1)
		})
	}
}

// TestTheLogIsNotNeeded after an ordered end: without it, or with one that cannot be read, nothing is missing.
func TestTheLogIsNotNeeded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "j.db")
	for n, spoil := range []func(log string) error{
		os.Remove, func(log string) error { return os.Truncate(log, 0) }, func(log string) error { return os.Truncate(log, block) },
		func(log string) error { return os.WriteFile(log, make([]byte, 100), 0o600) },
	} {
		j := open(t, file, journal.Options{})
		require.Len(t, ids(t, j), 2*n)
		appendAll(t, j, 2)
		require.NoError(t, j.Close())
		require.NoError(t, spoil(journal.LogFile(file)))
	}
	j := open(t, file, journal.Options{})
	require.Len(t, ids(t, j), 8)
	require.Empty(t, j.State().Damage)
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

// TestBothSegmentsOfTheLog are read after a kill, in the order in which they were written, which changes.
func TestBothSegmentsOfTheLog(t *testing.T) {
	file := filepath.Join(t.TempDir(), "j.db")
	j := open(t, file, journal.Options{})
	total := 0
	for tries, rounds := 0, 0; rounds < 4; tries++ {
		require.Less(t, tries, 40)
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
		total += 6
		if report.InLog != 6 { // a checkpoint that was due came between
			require.NoError(t, letGo(nil))
			continue
		}
		rounds++
		after := open(t, killed, journal.Options{})
		require.Len(t, ids(t, after), total)
		require.NoError(t, after.Close())

		log, err := os.ReadFile(journal.LogFile(file))
		require.NoError(t, err)
		for _, at := range []int{block, block + segment} { // the first batch of a segment
			torn := append([]byte{}, log...)
			torn[at+100] ^= 1
			require.NoError(t, os.WriteFile(journal.LogFile(killed), torn, 0o600))
			copied, err := os.ReadFile(file)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(killed, copied, 0o600))
			after := open(t, killed, journal.Options{})
			require.Len(t, ids(t, after), total-1)
			require.Contains(t, after.State().Damage, "were answered, and cannot be read")
			require.NoError(t, after.Close())
		}
		require.NoError(t, letGo(nil))
		require.Len(t, ids(t, j), total)
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

// TestReadFromFarBehind: from what is in the file to what is in the write-ahead log alone.
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
		return err == nil && report.Events == 3 && report.InLog == 0
	}, patience, 20*time.Millisecond)
}
