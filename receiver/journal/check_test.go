package journal_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/journal"
)

// used makes a journal with all that a journal has: small and large events, some dropped, cursors, dead
// letters, repeats, free pages. It is as a process leaves it that is killed; all is in journal.db.
func used(t *testing.T) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "j.db")
	j, err := journal.Open(context.Background(), file, journal.Options{MaxBytes: 60_000})
	require.NoError(t, err)
	for _, target := range []string{"crm", "lab"} {
		_, err = j.OpenCursor(target)
		require.NoError(t, err)
	}
	for n := range 120 {
		r := record(fmt.Sprint("e", n), fmt.Sprint("call", n%7))
		if n%20 == 0 {
			r.Request.Body = []byte(strings.Repeat("x", 9_000))
		}
		key := journal.RepeatKey{byte(n)}
		_, err = j.Append(context.Background(), r, &key)
		require.NoError(t, err)
		if n == 40 {
			require.NoError(t, j.Save("crm", journal.Progress{Cursor: journal.Cursor{Floor: 38}}))
			require.NoError(t, j.Save("lab", journal.Progress{Cursor: journal.Cursor{Floor: 36, Done: journal.Ranges{{From: 38, To: 40}}}}))
		}
	}
	letter := journal.DeadLetter{Record: record("e3", "call3"), Reason: "400 from the target", Status: 400, Time: time.Now()}
	letter.Record.Seq = 4
	require.NoError(t, j.Save("crm", journal.Progress{
		Cursor: journal.Cursor{Floor: 100, Done: journal.Ranges{{From: 105, To: 110}}, Attempts: map[uint64]int32{101: 3}, Delivered: 9},
		Dead:   []journal.DeadLetter{letter}, Attempts: []journal.Attempt{{Seq: 4, Time: time.Now(), Result: journal.DeadLettered, Reply: "no"}},
	}))
	ids(t, j) // which brings all into the file
	killed := filepath.Join(t.TempDir(), "j.db")
	copyJournal(t, file, killed)
	require.NoError(t, j.Close())
	return killed
}

// snapshot is all that a journal has to say, as text.
func snapshot(j *journal.Bolt) (string, error) {
	var all strings.Builder
	heads, err := j.Heads(0, 1_000)
	if err != nil {
		return "", err
	}
	for _, h := range heads {
		r, err := j.Get(h.Seq)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&all, "%+v\n", r)
	}
	for _, target := range []string{"crm", "lab"} {
		c, err := j.OpenCursor(target)
		if err != nil {
			return "", err
		}
		letters, err := j.DeadLetters(target, 0, 100)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&all, "%s %+v %+v\n", target, c, letters)
	}
	fmt.Fprintf(&all, "%+v\n", j.State())
	return all.String(), nil
}

// TestFlippedBits: whatever bit of the file is another one after a kill, the journal is refused at the start with what
// is damaged, or it is reported, or all of it is as it was, also after more was written. Never is something missing
// silently.
func TestFlippedBits(t *testing.T) {
	t.Parallel()
	original := used(t)
	data, err := os.ReadFile(original)
	require.NoError(t, err)
	log, err := os.ReadFile(journal.LogFile(original))
	require.NoError(t, err)
	j := open(t, original, journal.Options{MaxBytes: 60_000})
	want, err := snapshot(j)
	require.NoError(t, err)
	require.NoError(t, j.Close())

	random := rand.New(rand.NewPCG(uint64(os.Getpid()), 2))
	file := filepath.Join(inMemory(t), "flipped.db")
	refused, reported, whole := 0, 0, 0
	all := places(data, random)
	random.Shuffle(len(all), func(i, k int) { all[i], all[k] = all[k], all[i] })
	for _, at := range all[:len(all)/3] {
		flipped := append([]byte{}, data...)
		flipped[at] ^= 1 << random.IntN(8)
		require.NoError(t, os.WriteFile(file, flipped, 0o600))
		require.NoError(t, os.WriteFile(journal.LogFile(file), log, 0o600))
		j, err := journal.Open(context.Background(), file, journal.Options{MaxBytes: 60_000})
		switch {
		case err != nil:
			refused++
			var damaged *journal.DamagedError
			require.True(t, errors.As(err, &damaged), "byte %d: %v", at, err)
			require.Less(t, len(err.Error()), 2_000)
		case j.State().Damaged > 0:
			reported++
			require.NotEmpty(t, j.State().Damage)
			_, err := j.Heads(0, 1_000)
			require.NoError(t, err, "byte %d", at)
			_, err = j.Append(context.Background(), record("more", "call"), nil)
			require.NoError(t, err, "byte %d", at)
			require.NoError(t, j.Close())
		default:
			whole++
			requireWhole(t, j, file, want, at)
		}
	}
	t.Logf("%d bits flipped: %d refused, %d reported, %d in what is not used", refused+reported+whole, refused, reported, whole)
	require.NotZero(t, refused)
	require.NotZero(t, reported)
}

// places are the bytes to change: those of names, many of the pages' headers, and some of all others.
func places(data []byte, random *rand.Rand) (all []int) {
	for at := 0; at < len(data); {
		all = append(all, at)
		if at%os.Getpagesize() < 200 { // headers and elements
			at += 1 + random.IntN(24)
		} else {
			at += 1 + random.IntN(900)
		}
	}
	for _, name := range []string{"crm", "lab", "events", "cursors", "dead-letters", "repeats", "meta", "counters"} {
		for from := 0; ; {
			found := bytes.Index(data[from:], []byte(name))
			if found < 0 {
				break
			}
			for i := range len(name) {
				all = append(all, from+found+i)
			}
			from += found + 1
		}
	}
	return all
}

// requireWhole shows that a journal is as it was, and can be written on.
func requireWhole(t *testing.T, j *journal.Bolt, file, want string, at int) {
	t.Helper()
	got, err := snapshot(j)
	require.NoError(t, err, "byte %d", at)
	require.Equal(t, want, got, "byte %d", at)
	_, err = j.Append(context.Background(), record("more", "call"), nil)
	require.NoError(t, err, "byte %d", at)
	require.NoError(t, j.Close())
	report, err := journal.Check(file)
	require.NoError(t, err)
	require.Empty(t, report.Damage, "byte %d", at)
}

// TestCutOff: a file that is too short is refused, and never read past its end.
func TestCutOff(t *testing.T) {
	data, err := os.ReadFile(used(t))
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "cut.db")
	for size := 1; size < len(data); size += 3_001 {
		require.NoError(t, os.WriteFile(file, data[:size], 0o600))
		j, err := journal.Open(context.Background(), file, journal.Options{MaxBytes: 60_000})
		if err == nil { // what is cut off is room that was not used yet
			require.Greater(t, size, len(data)/2)
			require.NoError(t, j.Close())
			continue
		}
		var damaged *journal.DamagedError
		require.True(t, errors.As(err, &damaged), "%d bytes: %v", size, err)
	}
}

func TestRepair(t *testing.T) {
	file := used(t)
	report, err := journal.Check(file)
	require.NoError(t, err)
	require.Empty(t, report.Damage)
	require.ElementsMatch(t, []string{"crm", "lab"}, report.Targets)
	require.EqualValues(t, 1, report.DeadLetters)
	events := report.Events

	data, err := os.ReadFile(file)
	require.NoError(t, err)
	for _, id := range []string{"e102\x12", "e115\x12"} { // of the records, and not of the repeats; also in pages that are free by now
		require.True(t, bytes.Contains(data, []byte(id)))
		data = bytes.ReplaceAll(data, []byte(id), []byte("d"+id[1:]))
	}
	require.NoError(t, os.WriteFile(file, data, 0o600))
	report, err = journal.Check(file)
	require.NoError(t, err)
	require.Empty(t, report.Damage)
	require.Len(t, report.Reported, 2, "%v", report.Reported)
	require.Equal(t, journal.Ranges{{From: 103, To: 103}, {From: 116, To: 116}}, report.DamagedEvents)
	require.Equal(t, journal.Ranges{{From: 103, To: 103}, {From: 116, To: 116}}, report.Lost)

	to := filepath.Join(t.TempDir(), "repaired.db")
	report, err = journal.Repair(file, to)
	require.NoError(t, err)
	require.Equal(t, journal.Ranges{{From: 103, To: 103}, {From: 116, To: 116}}, report.Lost)
	require.False(t, report.LostTargets)
	repaired, err := journal.Check(to)
	require.NoError(t, err)
	require.Empty(t, repaired.Damage)
	require.Equal(t, events-2, repaired.Events)
	j := open(t, to, journal.Options{MaxBytes: 60_000})
	require.Equal(t, events-2, j.State().Events)
	c, err := j.OpenCursor("crm")
	require.NoError(t, err)
	require.EqualValues(t, 100, c.Floor)
	receipt, err := j.Append(context.Background(), record("more", ""), nil)
	require.NoError(t, err)
	require.EqualValues(t, 121, receipt.Seq, "no number is used again")
	r, err := j.Get(104)
	require.NoError(t, err)
	require.Equal(t, "e103", r.ID)

	_, err = journal.Repair(file, to)
	require.ErrorContains(t, err, "does not exist")
	_, err = journal.Repair(to, to+".2")
	require.ErrorContains(t, err, "another process has had it open", "the receiver has it")
	_, err = journal.Repair(filepath.Join(t.TempDir(), "none"), to+".3")
	require.Error(t, err)
	text := filepath.Join(t.TempDir(), "text")
	require.NoError(t, os.WriteFile(text, []byte(strings.Repeat("no journal ", 2_000)), 0o600))
	_, err = journal.Check(text)
	require.ErrorContains(t, err, "this is no journal")
}

// TestNumberFarTooHigh: a damaged key of an event would have readers take all others for done, and is refused.
func TestNumberFarTooHigh(t *testing.T) {
	file := used(t)
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	changed := 0
	for at := 12; at < len(data)-6; at++ { // of the record, which follows its key; also in pages that are free by now
		if string(data[at:at+6]) == "\x0a\x04e119" && binary.BigEndian.Uint64(data[at-12:]) == 120 {
			data[at-12] |= 0x40
			changed++
		}
	}
	require.NotZero(t, changed)
	require.NoError(t, os.WriteFile(file, data, 0o600))
	_, err = journal.Open(context.Background(), file, journal.Options{})
	require.ErrorContains(t, err, "120 was the last one")
	report, err := journal.Repair(file, filepath.Join(t.TempDir(), "repaired.db"))
	require.NoError(t, err)
	require.Equal(t, journal.Ranges{{From: 120, To: 120}}, report.Lost, "%+v", report)
}
