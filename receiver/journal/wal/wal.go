// Package wal is the write-ahead log of an embedded journal: a file of fixed size into which batches of events are
// written and synced before they are answered. It knows nothing of events but their sequence numbers.
//
// # Format
//
// The file is a header block and two segments, all of blocks of 4 KiB:
//
//	block 0              the header: which journal the log belongs to, and the version of this format
//	blocks 1 to 512      the segment of even cycles
//	blocks 513 to 1024   the segment of odd cycles
//
// Every block begins with the same 56 bytes, numbers being big-endian:
//
//	 0  magic "pbxW"
//	 4  CRC-32C of all that follows in the block
//	 8  identity of the journal, 16 bytes
//	24  cycle, 8 bytes; 0: formatted and never written
//	32  sequence number of the batch's first event, 8 bytes
//	40  position: the number of the block in the file, 4 bytes
//	44  index of the block in its batch, 2 bytes
//	46  blocks of the batch, 2 bytes
//	48  bytes of the batch, without these headers and the padding, 4 bytes
//	52  reserved, 4 bytes
//
// What follows is the batch, cut into pieces of 4040 bytes, the last one padded with zeros. It is a sequence of entries,
// whose sequence numbers follow each other:
//
//	0  length of the data, 4 bytes
//	4  length of the key, 1 byte
//	5  CRC-32C of identity, cycle, sequence number, the five bytes before, key and data
//	9  key, data
//
// # Cycles
//
// A cycle is the time in which one segment takes batches, from its beginning on; the next cycle takes the other segment.
// Cycle numbers only grow, so blocks that are left from earlier cycles are told from those of this one. A cycle begins
// only when all events of the cycle before the last one, which had the same segment, are synced in journal.db.
//
// # What a block may be
//
// All blocks are written when the file is made, and from then on in place. A block is therefore
//
//   - whole: its checksum matches, and it was written for this place of this journal's log;
//   - not written: whole, and of an earlier cycle than the one that is read;
//   - wrong: neither. It was written, and is not what was written. Zeros are wrong too.
//
// Batches of a cycle stand one behind the other, and each is synced before the next one is written. A last batch of which
// some blocks are not written was never synced, so it was not answered: that is what a power cut leaves, and normal.
// Of a batch with wrong blocks the entries that are whole are taken.
package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
)

const (
	blockSize     = 4 << 10
	blockHeader   = 56
	payload       = blockSize - blockHeader
	segmentBlocks = 512
	blocks        = 1 + 2*segmentBlocks
	fileSize      = blocks * blockSize
	formatVersion = 1
	entryHeader   = 9
	fileMode      = 0o600
)

// SegmentBytes is how many bytes of blocks a segment takes.
const SegmentBytes = segmentBlocks * blockSize

const magic = "pbxW"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ID is the identity of a journal, which its log has in every block.
type ID [16]byte

// Entry is an event in the log.
type Entry struct {
	Seq  uint64
	Key  []byte // at most 255 bytes
	Data []byte
}

// errFailed says that what an earlier write left in the segment is not known.
var errFailed = errors.New("an earlier write of this cycle failed")

// File is what a log needs of its file. Sync returns when all that was written is on the disk.
type File interface {
	WriteAt(data []byte, at int64) (int, error)
	Sync() error
	Close() error
}

// Log takes batches. It is not safe for concurrent use.
type Log struct {
	file   File
	id     ID
	cycle  uint64
	next   int // block of the segment that the next batch begins with
	failed bool
	out    []byte
}

// Create makes a log without events, in place of one that may be there, and returns when it is on the disk. A log that
// was there stays as it was until the new one is.
func Create(name string, id ID) (err error) {
	temporary := name + ".new"
	file, err := os.OpenFile(temporary, os.O_RDWR|os.O_CREATE|os.O_TRUNC, fileMode)
	if err != nil {
		return fmt.Errorf("create the write-ahead log: %w", err)
	}
	if err := errors.Join(format(file, id), file.Close()); err != nil {
		return fmt.Errorf("create the write-ahead log %s: %w", name, errors.Join(err, os.Remove(temporary)))
	}
	if err := os.Rename(temporary, name); err != nil {
		return fmt.Errorf("create the write-ahead log: %w", err)
	}
	folder, err := os.Open(filepath.Dir(name))
	if err != nil {
		return fmt.Errorf("create the write-ahead log %s: %w", name, err)
	}
	if err := errors.Join(folder.Sync(), folder.Close()); err != nil {
		return fmt.Errorf("create the write-ahead log %s: sync its folder: %w", name, err)
	}
	return nil
}

// format writes every block, so that later writes change nothing but the content of the file.
func format(file *os.File, id ID) error {
	const together = 41 // blocks of one write; a divisor of all
	out := make([]byte, together*blockSize)
	for first := 0; first < blocks; first += together {
		clear(out)
		for i := range together {
			block := out[i*blockSize : (i+1)*blockSize]
			h := header{id: id, position: first + i, blocks: 1}
			if h.position == 0 {
				binary.BigEndian.PutUint32(block[blockHeader:], formatVersion)
			}
			h.put(block)
		}
		if _, err := file.WriteAt(out, int64(first*blockSize)); err != nil {
			return err
		}
	}
	return file.Sync()
}

// Open opens a log that was created or found to belong to the journal, to write a cycle that is later than all that it
// has.
func Open(name string, id ID, cycle uint64) (*Log, error) {
	file, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open the write-ahead log: %w", err)
	}
	return &Log{file: dataFile{file}, id: id, cycle: cycle}, nil
}

// Wrap puts a file between the log and its own one. It is for tests.
func (l *Log) Wrap(wrap func(File) File) { l.file = wrap(l.file) }

// dataFile is a file whose size never changes: a sync need not write when it was written.
type dataFile struct{ *os.File }

func (f dataFile) Sync() error { return syncData(f.File) }

// Cycle is the one that takes batches.
func (l *Log) Cycle() uint64 { return l.cycle }

// Next begins the next cycle. The events of the cycle before this one must be on the disk elsewhere; and those of this
// one too, if a write of it failed.
func (l *Log) Next() { l.cycle, l.next, l.failed = l.cycle+1, 0, false }

// HalfFull reports whether more than half of the segment is used.
func (l *Log) HalfFull() bool { return l.next > segmentBlocks/2 }

// Append writes a batch, whose sequence numbers follow each other, and returns when it is on the disk. full says that
// there is no room for it in this cycle. After an error nothing is known of the blocks that it wrote: the log takes
// nothing more until Next.
func (l *Log) Append(entries []Entry) (full bool, err error) {
	if l.failed {
		return false, errFailed
	}
	out, count := l.encode(entries)
	if l.next+count > segmentBlocks {
		return true, nil
	}
	first := segmentStart(l.cycle) + l.next
	length := 0
	for i := range entries {
		length += entrySize(&entries[i])
	}
	for i := range count {
		h := header{id: l.id, cycle: l.cycle, seq: entries[0].Seq, position: first + i, index: i, blocks: count, length: length}
		h.put(out[i*blockSize : (i+1)*blockSize])
	}
	if _, err = l.file.WriteAt(out, int64(first*blockSize)); err == nil {
		err = l.file.Sync()
	}
	if err != nil {
		l.failed = true
		return false, fmt.Errorf("write the write-ahead log: %w", err)
	}
	l.next += count
	return false, nil
}

// Close closes the file. What was appended stays in it.
func (l *Log) Close() error { return l.file.Close() }

// segmentStart is the first block of the segment that a cycle uses.
func segmentStart(cycle uint64) int { return 1 + int(cycle%2)*segmentBlocks }

func entrySize(e *Entry) int { return entryHeader + len(e.Key) + len(e.Data) }

// encode lays entries out in blocks, whose headers are still to be written. It returns nothing where they are more than
// a segment takes.
func (l *Log) encode(entries []Entry) (out []byte, count int) {
	total := 0
	for i := range entries {
		total += entrySize(&entries[i])
	}
	count = (total + payload - 1) / payload
	if count > segmentBlocks {
		return nil, count
	}
	if size := count * blockSize; cap(l.out) < size {
		l.out = make([]byte, size)
	} else {
		l.out = l.out[:size]
		clear(l.out[(count-1)*blockSize:])
	}
	at := 0 // in the stream
	write := func(data []byte) {
		for len(data) > 0 {
			n := copy(l.out[at/payload*blockSize+blockHeader+at%payload:(at/payload+1)*blockSize], data)
			data, at = data[n:], at+n
		}
	}
	for i := range entries {
		e := &entries[i]
		var head [entryHeader]byte
		binary.BigEndian.PutUint32(head[:], uint32(len(e.Data)))
		head[4] = byte(len(e.Key))
		binary.BigEndian.PutUint32(head[5:], checksum(&l.id, l.cycle, e.Seq, head[:5], e.Key, e.Data))
		write(head[:])
		write(e.Key)
		write(e.Data)
	}
	return l.out, count
}

// checksum is that of an entry. It covers where the entry belongs: one that is left from elsewhere does not match.
func checksum(id *ID, cycle, seq uint64, head, key, data []byte) uint32 {
	var place [32]byte
	copy(place[:], id[:])
	binary.BigEndian.PutUint64(place[16:], cycle)
	binary.BigEndian.PutUint64(place[24:], seq)
	sum := crc32.Checksum(place[:], castagnoli)
	for _, part := range [][]byte{head, key, data} {
		sum = crc32.Update(sum, castagnoli, part)
	}
	return sum
}

// header is that of a block.
type header struct {
	id       ID
	cycle    uint64
	seq      uint64
	position int
	index    int
	blocks   int
	length   int
}

// put writes a header into its block, whose other content is there already.
func (h *header) put(block []byte) {
	copy(block, magic)
	copy(block[8:], h.id[:])
	binary.BigEndian.PutUint64(block[24:], h.cycle)
	binary.BigEndian.PutUint64(block[32:], h.seq)
	binary.BigEndian.PutUint32(block[40:], uint32(h.position))
	binary.BigEndian.PutUint16(block[44:], uint16(h.index))
	binary.BigEndian.PutUint16(block[46:], uint16(h.blocks))
	binary.BigEndian.PutUint32(block[48:], uint32(h.length))
	binary.BigEndian.PutUint32(block[52:], 0)
	binary.BigEndian.PutUint32(block[4:], crc32.Checksum(block[8:], castagnoli))
}

// parse reads a header, and reports whether its block is whole.
func parse(block []byte) (h header, whole bool) {
	h = header{
		id: ID(block[8:24]), cycle: binary.BigEndian.Uint64(block[24:]), seq: binary.BigEndian.Uint64(block[32:]),
		position: int(binary.BigEndian.Uint32(block[40:])), index: int(binary.BigEndian.Uint16(block[44:])),
		blocks: int(binary.BigEndian.Uint16(block[46:])), length: int(binary.BigEndian.Uint32(block[48:])),
	}
	return h, string(block[:4]) == magic && binary.BigEndian.Uint32(block[4:]) == crc32.Checksum(block[8:], castagnoli)
}
