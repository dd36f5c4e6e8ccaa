package wal_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/journal/wal"
)

const block = 4 << 10

var id = wal.ID{1, 2, 3}

func entries(first uint64, sizes ...int) (all []wal.Entry) {
	for i, size := range sizes {
		seq := first + uint64(i)
		all = append(all, wal.Entry{Seq: seq, Key: []byte(fmt.Sprint("key", seq)), Data: []byte(strings.Repeat(fmt.Sprint(seq%10), size))})
	}
	return all
}

func created(t testing.TB, cycle uint64) (name string, log *wal.Log) {
	t.Helper()
	name = filepath.Join(t.TempDir(), "journal.wal")
	require.NoError(t, wal.Create(name, id))
	log, err := wal.Open(name, id, cycle)
	require.NoError(t, err)
	t.Cleanup(func() { _ = log.Close() })
	return name, log
}

func mustAppend(t testing.TB, log *wal.Log, batches ...[]wal.Entry) {
	t.Helper()
	for _, batch := range batches {
		full, err := log.Append(batch)
		require.NoError(t, err)
		require.False(t, full)
	}
}

// read is all that a log has of a cycle, and what is wrong with it.
func read(t *testing.T, name string, cycle, seq uint64) (seqs []uint64, damage string) {
	t.Helper()
	contents, err := wal.Read(name)
	require.NoError(t, err)
	for _, batch := range contents.Batches(cycle, seq) {
		for _, e := range batch.Entries {
			require.Equal(t, entries(e.Seq, len(e.Data))[0], e)
			seqs = append(seqs, e.Seq)
		}
		damage += batch.Damage
	}
	return seqs, damage
}

// TestBatchesComeBack of every size, cycle by cycle, whatever an earlier cycle left in their segment.
func TestBatchesComeBack(t *testing.T) {
	name, log := created(t, 7)
	contents, err := wal.Read(name)
	require.NoError(t, err)
	require.Equal(t, id, contents.ID)
	require.Zero(t, contents.Newest)
	seq := uint64(1)
	for cycle := uint64(7); cycle < 12; cycle++ {
		begin := seq
		var want []uint64
		for _, size := range []int{1, 4031 - 4, 4031 - 3, 100_000 >> (cycle - 7), 0, 9000} {
			mustAppend(t, log, entries(seq, size, 10))
			want = append(want, seq, seq+1)
			seq += 2
		}
		got, damage := read(t, name, cycle, begin)
		require.Empty(t, damage)
		require.Equal(t, want, got)
		got, damage = read(t, name, cycle+1, seq)
		require.Empty(t, damage)
		require.Empty(t, got)
		log.Next()
	}
	require.NoError(t, log.Close())
	log, err = wal.Open(name, id, 13)
	require.NoError(t, err)
	mustAppend(t, log, entries(seq, 1))
	require.NoError(t, log.Close())
	got, _ := read(t, name, 13, seq)
	require.Equal(t, []uint64{seq}, got)
}

// TestSegmentIsFull says so, and writes nothing; so does a batch that no segment takes.
func TestSegmentIsFull(t *testing.T) {
	name, log := created(t, 1)
	for seq := uint64(1); ; seq++ {
		full, err := log.Append(entries(seq, 30_000))
		require.NoError(t, err)
		if full {
			require.EqualValues(t, 512/8+1, seq)
			break
		}
		require.Equal(t, seq > 512/8/2, log.HalfFull(), seq)
	}
	full, err := log.Append(entries(100, wal.SegmentBytes))
	require.NoError(t, err)
	require.True(t, full)
	got, damage := read(t, name, 1, 1)
	require.Empty(t, damage)
	require.Len(t, got, 64)
}

// faulty fails as it is told, and counts syncs.
type faulty struct {
	wal.File
	write, sync error
}

func (f *faulty) WriteAt(data []byte, at int64) (int, error) {
	if f.write != nil {
		n, _ := f.File.WriteAt(data[:len(data)/2], at)
		return n, f.write
	}
	return f.File.WriteAt(data, at)
}

func (f *faulty) Sync() error { return errors.Join(f.sync, f.File.Sync()) }

// TestFailedWrite: the log takes nothing more in the cycle, whatever the disk says then.
func TestFailedWrite(t *testing.T) {
	for name, fault := range map[string]faulty{"write": {write: errors.New("no")}, "sync": {sync: errors.New("no")}} {
		t.Run(name, func(t *testing.T) {
			name, log := created(t, 1)
			f := &faulty{}
			log.Wrap(func(file wal.File) wal.File { f.File = file; return f })
			mustAppend(t, log, entries(1, 100))
			f.write, f.sync = fault.write, fault.sync
			_, err := log.Append(entries(2, 5_000))
			require.ErrorContains(t, err, "no")
			f.write, f.sync = nil, nil
			_, err = log.Append(entries(2, 100))
			require.ErrorContains(t, err, "an earlier write of this cycle failed")
			log.Next()
			mustAppend(t, log, entries(2, 100))
			got, damage := read(t, name, 2, 2)
			require.Empty(t, damage)
			require.Equal(t, []uint64{2}, got)
		})
	}
}

// TestTornAndWrong: blocks that were never written are the end; others are named, and what is whole beside them is read.
func TestTornAndWrong(t *testing.T) {
	name, log := created(t, 2)
	empty, err := os.ReadFile(name)
	require.NoError(t, err)
	mustAppend(t, log, entries(1, 100), entries(2, 5_000, 5_000), entries(4, 10), entries(5, 3_000, 3_000, 3_000))
	require.NoError(t, log.Close())
	whole, err := os.ReadFile(name)
	require.NoError(t, err)
	// blocks 1; 2 to 4; 5; 6 to 8
	unwritten := func(data []byte, blocks ...int) {
		for _, b := range blocks {
			copy(data[b*block:(b+1)*block], empty[b*block:])
		}
	}
	for name, tc := range map[string]struct {
		change func(data []byte)
		want   []uint64
		damage string
	}{
		"whole":                       {func([]byte) {}, []uint64{1, 2, 3, 4, 5, 6, 7}, ""},
		"torn: nothing":               {func(d []byte) { unwritten(d, 6, 7, 8) }, []uint64{1, 2, 3, 4}, ""},
		"torn: the first block alone": {func(d []byte) { unwritten(d, 7, 8) }, []uint64{1, 2, 3, 4}, ""},
		"torn: the last block alone":  {func(d []byte) { unwritten(d, 6, 7) }, []uint64{1, 2, 3, 4}, ""},
		"a bit in the last batch": {
			func(d []byte) { d[7*block+100] ^= 1 }, []uint64{1, 2, 3, 4, 5},
			"the batch in blocks 6 to 8 is not as it was written: 1 of its events can be read",
		},
		"a bit in a batch between": {
			func(d []byte) { d[4*block+2000] ^= 1 }, []uint64{1, 2, 4, 5, 6, 7},
			"the batch in blocks 2 to 4 is not as it was written: 1 of its events can be read",
		},
		"zeros":                     {func(d []byte) { clear(d[2*block : 5*block]) }, []uint64{1, 4, 5, 6, 7}, "block 2"},
		"gone back to before":       {func(d []byte) { unwritten(d, 2, 3, 4) }, []uint64{1, 4, 5, 6, 7}, "blocks 2 to 4 were written, and are as they were before that"},
		"one block gone back":       {func(d []byte) { unwritten(d, 3) }, []uint64{1, 4, 5, 6, 7}, "the batch in blocks 2 to 4 is not as it was written: 0"},
		"a first block's header":    {func(d []byte) { d[2*block+40] ^= 8 }, []uint64{1, 2, 3, 4, 5, 6, 7}, ""},
		"how many blocks it has":    {func(d []byte) { d[5*block+47] ^= 2 }, []uint64{1, 2, 3, 4, 5, 6, 7}, ""},
		"its length":                {func(d []byte) { d[5*block+51] ^= 2 }, []uint64{1, 2, 3, 4, 5, 6, 7}, ""},
		"its cycle":                 {func(d []byte) { d[5*block+31] ^= 1 }, []uint64{1, 2, 3, 4, 5, 6, 7}, ""},
		"a bit behind the end":      {func(d []byte) { d[9*block+100] ^= 1 }, []uint64{1, 2, 3, 4, 5, 6, 7}, "block 9"},
		"a bit far behind the end":  {func(d []byte) { d[100*block+100] ^= 1 }, []uint64{1, 2, 3, 4, 5, 6, 7}, ""},
		"another one in its place":  {func(d []byte) { copy(d[5*block:6*block], d[block:]) }, []uint64{1, 2, 3, 5, 6, 7}, "block 5"},
		"the other segment is zero": {func(d []byte) { clear(d[513*block:]) }, []uint64{1, 2, 3, 4, 5, 6, 7}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data := append([]byte{}, whole...)
			tc.change(data)
			name := filepath.Join(t.TempDir(), "journal.wal")
			require.NoError(t, os.WriteFile(name, data, 0o600))
			got, damage := read(t, name, 2, 1)
			require.Equal(t, tc.want, got)
			require.Equal(t, tc.damage == "", damage == "", damage)
			require.Contains(t, damage, tc.damage)
		})
	}
}

func TestNoLog(t *testing.T) {
	folder := t.TempDir()
	_, err := wal.Read(filepath.Join(folder, "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
	name, _ := created(t, 1)
	whole, err := os.ReadFile(name)
	require.NoError(t, err)
	for what, tc := range map[string]struct {
		data []byte
		want string
	}{
		"empty":     {nil, "expected 4198400 bytes, got 0"},
		"short":     {whole[:block], "got 4096"},
		"long":      {append(append([]byte{}, whole...), 0), "got more"},
		"no header": {make([]byte, len(whole)), "its header is not that of a write-ahead log"},
	} {
		file := filepath.Join(folder, what)
		require.NoError(t, os.WriteFile(file, tc.data, 0o600))
		_, err := wal.Read(file)
		require.ErrorContains(t, err, tc.want)
	}
}

// FuzzRead: whatever the blocks are, they are read without harm, and an entry that is read was written.
func FuzzRead(f *testing.F) {
	name, log := created(f, 2)
	mustAppend(f, log, entries(1, 100), entries(2, 5_000, 5_000), entries(4, 10))
	whole, err := os.ReadFile(name)
	require.NoError(f, err)
	f.Add(uint32(block+50), []byte{1, 2, 3})
	f.Add(uint32(2*block+44), []byte{0, 0, 255, 255})
	f.Add(uint32(2*block+48), []byte{255, 255, 255, 255})
	f.Add(uint32(5*block), binary.BigEndian.AppendUint64(nil, 7))
	name = filepath.Join(f.TempDir(), "journal.wal")
	f.Fuzz(func(t *testing.T, at uint32, change []byte) {
		data := append([]byte{}, whole...)
		copy(data[block+int(at)%(8*block):], change)
		require.NoError(t, os.WriteFile(name, data, 0o600))
		contents, err := wal.Read(name)
		require.NoError(t, err)
		for cycle := uint64(1); cycle <= 3; cycle++ {
			for _, batch := range contents.Batches(cycle, 1) {
				for _, e := range batch.Entries {
					require.LessOrEqual(t, e.Seq, uint64(4))
					require.Equal(t, entries(e.Seq, len(e.Data))[0], e)
				}
			}
		}
	})
}
