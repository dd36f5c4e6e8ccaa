package journal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/journal"
)

// files are those of a journal at one moment, as a kill leaves them.
type files struct{ db, log []byte }

// inMemory is a folder that needs no disk, where there is such a thing: for tests that open many journals.
func inMemory(t *testing.T) string {
	t.Helper()
	memory := "/dev/shm"
	if _, err := os.Stat(memory); err != nil {
		memory = ""
	}
	folder, err := os.MkdirTemp(memory, "pbxhook-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(folder) }) // a folder in the temporary ones
	return folder
}

// heldFiles are those of a journal that is open. No transaction writes while they are read.
func heldFiles(t *testing.T, j *journal.Bolt, file string) files {
	t.Helper()
	letGo := j.Hold(t)
	defer func() { require.NoError(t, letGo(nil)) }()
	return filesOf(t, file)
}

func filesOf(t *testing.T, file string) (f files) {
	t.Helper()
	var err error
	f.db, err = os.ReadFile(file)
	require.NoError(t, err)
	f.log, err = os.ReadFile(journal.LogFile(file))
	require.NoError(t, err)
	return f
}

// put writes them to a place; nil is no file.
func (f files) put(t *testing.T, place string) (file string) {
	t.Helper()
	file = filepath.Join(place, "j.db")
	for name, data := range map[string][]byte{file: f.db, journal.LogFile(file): f.log} {
		if data != nil {
			require.NoError(t, os.WriteFile(name, data, 0o600))
		}
	}
	return file
}

// spoil damages a file at random, as disks, people and programs do.
func spoil(random *rand.Rand, data, older []byte) (after []byte, how string) {
	after = append([]byte{}, data...)
	at := random.IntN(len(data))
	if random.IntN(2) == 0 { // where something is, more likely
		at = 0
		for range random.IntN(200) {
			if next := bytes.Index(after[at:], []byte("call")); next >= 0 {
				at += next + 1
			}
		}
	}
	length := min(1<<random.IntN(16), len(data)-at)
	switch random.IntN(9) {
	case 0:
		return nil, "removed"
	case 1:
		return []byte{}, "emptied"
	case 2:
		return after[:at], fmt.Sprint("cut off at ", at)
	case 3:
		clear(after)
		return after, "zeroed"
	case 4:
		clear(after[at : at+length])
		return after, fmt.Sprintf("%d zeros at %d", length, at)
	case 5:
		for i := range length {
			after[at+i] = byte(random.Uint32())
		}
		return after, fmt.Sprintf("%d random bytes at %d", length, at)
	case 6:
		return append([]byte{}, older...), "an older copy"
	case 7:
		from, to := random.IntN(len(data)/block)*block, at/block*block
		copy(after[to:min(to+block, len(after))], data[from:])
		return after, fmt.Sprintf("the block at %d in place of that at %d", from, to)
	}
	bit := byte(1) << random.IntN(8)
	after[at] ^= bit
	return after, fmt.Sprintf("bit %#x of byte %d", bit, at)
}

// TestRandomDamage damages either file, or both, of a journal that was killed, hundreds of times: all that was answered is
// there, or what is wrong is reported.
func TestRandomDamage(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "j.db")
	j := open(t, file, journal.Options{})
	_, err := j.OpenCursor("crm")
	require.NoError(t, err)
	add := func(from, to int) {
		for n := from; n < to; n++ {
			r := record(fmt.Sprint("e", n), "call")
			if n%10 == 0 {
				r.Request.Body = bytes.Repeat([]byte("call"), 3_000)
			}
			_, err := j.Append(context.Background(), r, &journal.RepeatKey{byte(n)})
			require.NoError(t, err)
		}
	}
	add(0, 40)
	ids(t, j) // which brings them into journal.db
	older := heldFiles(t, j, file)
	add(40, 60)
	require.NoError(t, j.Save("crm", journal.Progress{Cursor: journal.Cursor{Floor: 5}}))
	letGo := j.Hold(t)
	add(60, 80)
	require.NoError(t, letGo(nil)) // journal.db notes that they were answered
	noted := heldFiles(t, j, file)
	add(80, 83)
	latest := heldFiles(t, j, file)
	const events = 83

	rounds := 100
	if n, err := strconv.Atoi(os.Getenv("DAMAGE_ROUNDS")); err == nil {
		rounds = n
	}
	random := rand.New(rand.NewPCG(uint64(os.Getpid()), 19))
	refused, reported, whole := 0, 0, 0
	for n := range rounds {
		f, want := latest, events
		var how, what string
		switch which := random.IntN(5); {
		case which < 2:
			what = "the log"
			if f.log, how = spoil(random, f.log, older.log); how == "an older copy" { // it lacks events that were noted
				f.db, want = noted.db, 80
			}
		case which < 4:
			what = "the journal"
			f.db, how = spoil(random, f.db, older.db)
		default:
			what = "both"
			var second string
			f.log, how = spoil(random, f.log, nil)
			f.db, second = spoil(random, f.db, nil)
			how += " and " + second
			if f.db == nil && f.log == nil || len(f.db)+len(f.log) == 0 {
				continue // there is no journal
			}
		}
		folder := inMemory(t)
		place := f.put(t, folder)
		report, checkErr := journal.Check(place)
		j, err := journal.Open(context.Background(), place, journal.Options{})
		if err != nil {
			refused++
			var damaged *journal.DamagedError
			require.True(t, errors.As(err, &damaged), "%d, %s: %s: %v", n, what, how, err)
			require.True(t, checkErr != nil || len(report.Damage) > 0, "%d, %s: %s: %v", n, what, how, err)
			require.NoError(t, os.RemoveAll(folder))
			continue
		}
		if j.State().Damage != "" {
			reported++
			require.NotEmpty(t, report.Reported, "%d, %s: %s", n, what, how)
		} else {
			whole++
			require.Len(t, ids(t, j), want, "%d, %s: %s", n, what, how)
			for seq := range uint64(want) {
				r, err := j.Get(seq + 1)
				require.NoError(t, err, "%d, %s: %s", n, what, how)
				require.Equal(t, fmt.Sprint("e", seq), r.ID, "%d, %s: %s", n, what, how)
			}
			c, err := j.OpenCursor("crm")
			require.NoError(t, err)
			require.Contains(t, []uint64{0, 5}, c.Floor, "%d, %s: %s", n, what, how)
		}
		_, err = j.Append(context.Background(), record("more", "call"), nil)
		require.NoError(t, err, "%d, %s: %s", n, what, how)
		require.NoError(t, j.Close())
		require.NoError(t, os.RemoveAll(folder))
	}
	t.Logf("%d times damaged: %d refused, %d reported, %d whole", refused+reported+whole, refused, reported, whole)
}
