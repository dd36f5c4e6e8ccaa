package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// errFormat is that a file cannot be read as a log of this version.
var errFormat = errors.New("its header is not that of a write-ahead log")

// Contents is a log that was read.
type Contents struct {
	// ID is the identity of the journal that the log belongs to.
	ID ID
	// Newest is the latest cycle of which there is a whole block; 0: nothing was ever written.
	Newest uint64

	blocks []block
}

type block struct {
	header
	data  []byte
	whole bool // and of this journal, and in its place
}

// Read reads a log. The error wraps os.ErrNotExist where there is none; another one says why the file cannot be read as
// a log.
func Read(name string) (*Contents, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open the write-ahead log: %w", err)
	}
	defer func() { _ = file.Close() }() // it was only read
	data := make([]byte, fileSize+1)
	n, err := io.ReadFull(file, data)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read the write-ahead log: %w", err)
	}
	if n != fileSize {
		return nil, fmt.Errorf("read the write-ahead log %s: expected %d bytes, got %s", name, fileSize, lengthOf(n))
	}
	head, whole := parse(data[:blockSize])
	if !whole || head.position != 0 {
		return nil, fmt.Errorf("read the write-ahead log %s: %w", name, errFormat)
	}
	if version := binary.BigEndian.Uint32(data[blockHeader:]); version != formatVersion {
		return nil, fmt.Errorf("read the write-ahead log %s: expected format %d, got %d: run the version of pbxhook that wrote it", name, formatVersion, version)
	}
	c := &Contents{ID: head.id, blocks: make([]block, blocks)}
	for i := range c.blocks {
		b := &c.blocks[i]
		b.data = data[i*blockSize : (i+1)*blockSize]
		b.header, b.whole = parse(b.data)
		b.whole = b.whole && b.id == c.ID && b.position == i
		if b.whole {
			c.Newest = max(c.Newest, b.cycle)
		}
	}
	return c, nil
}

func lengthOf(n int) string {
	if n > fileSize {
		return "more"
	}
	return fmt.Sprint(n)
}

// Batch is what could be read of a batch.
type Batch struct {
	Entries []Entry
	// Damage says what is not as it was written; empty: nothing, or nothing that matters.
	Damage string
}

// Batches returns those of a cycle, in the order in which they were written, without a last one that was never synced.
// seq is the sequence number that the first event of the cycle should have.
func (c *Contents) Batches(cycle, seq uint64) (all []Batch) {
	r := reader{contents: c, cycle: cycle, at: segmentStart(cycle), seq: seq}
	r.end = r.at + segmentBlocks
	for r.at < r.end {
		batch, more := r.batch()
		if len(batch.Entries) > 0 || batch.Damage != "" {
			all = append(all, batch)
		}
		if !more {
			break
		}
	}
	return all
}

// reader goes through the blocks of one cycle.
type reader struct {
	contents *Contents
	cycle    uint64
	at, end  int
	seq      uint64 // that should come next
}

func (r *reader) block(at int) *block { return &r.contents.blocks[at] }

// live reports whether a block is whole and of this cycle.
func (r *reader) live(at int) bool { b := r.block(at); return b.whole && b.cycle == r.cycle }

// notWritten reports whether a block is one that this cycle has not written.
func (r *reader) notWritten(at int) bool { b := r.block(at); return b.whole && b.cycle < r.cycle }

// batch reads what begins where the reader is. There is no more behind the first block that was not written.
func (r *reader) batch() (batch Batch, more bool) {
	if r.notWritten(r.at) {
		return r.lost()
	}
	begin, count, seq, length := r.at, 1, r.seq, -1
	if h, known := r.headerOf(begin); known {
		count, seq, length = h.blocks, h.seq, h.length
	}
	stream := make([]byte, 0, count*payload)
	wrong, unwritten := 0, 0
	for i := range count {
		b := r.block(begin + i)
		stream = append(stream, b.data[blockHeader:]...)
		switch {
		case r.notWritten(begin + i):
			unwritten++
		case !r.live(begin+i) || b.seq != seq || b.index != i || b.blocks != count:
			wrong++
		}
	}
	r.at = begin + count
	if wrong == 0 && unwritten > 0 && !r.follows(r.at) {
		return Batch{}, false // it was being written
	}
	entries, all := parseEntries(stream, length, &r.contents.ID, r.cycle, seq)
	if !all { // the length may be wrong
		if more, whole := parseEntries(stream, -1, &r.contents.ID, r.cycle, seq); len(more) >= len(entries) {
			entries, all = more, whole
		}
	}
	if len(entries) > 0 {
		r.seq = entries[len(entries)-1].Seq + 1
	}
	batch.Entries = entries
	if !all {
		batch.Damage = fmt.Sprintf("the batch in %s is not as it was written: %d of its events can be read", span(begin, count), len(entries))
	}
	return batch, true
}

// lost looks at blocks that were not written: is there a batch behind them that began later, they were, and have gone
// back to what they were before.
func (r *reader) lost() (batch Batch, more bool) {
	begin := r.at
	if !r.follows(begin + 1) {
		return Batch{}, false
	}
	return Batch{Damage: fmt.Sprintf("%s were written, and are as they were before that", span(begin, r.at-begin))}, true
}

// follows goes on to the next batch that begins at a block or behind it, and reports whether there is one.
func (r *reader) follows(from int) bool {
	for at := from; at < r.end; at++ {
		if first := at - r.block(at).index; r.live(at) && first >= from {
			r.at = first
			return true
		}
	}
	return false
}

// headerOf is the header of the batch that begins at a block: that block's own or, when it is wrong, that of the next
// one, if it is of the same batch. A wrong block's header is taken when nothing contradicts it.
func (r *reader) headerOf(begin int) (h header, known bool) {
	if r.live(begin) && r.block(begin).index == 0 {
		h, known = r.block(begin).header, true
	} else if begin+1 < r.end && r.live(begin+1) && r.block(begin+1).index == 1 {
		h, known = r.block(begin+1).header, true
	} else if w := r.block(begin).header; w.cycle == r.cycle && w.index == 0 && w.length <= w.blocks*payload {
		h, known = w, true
		h.seq = r.seq
		for i := 1; i < h.blocks && begin+i < r.end; i++ {
			if r.live(begin+i) && r.block(begin+i).index < i { // another batch
				h.blocks = i
			}
		}
	}
	return h, known && h.blocks > 0 && begin+h.blocks <= r.end
}

// parseEntries reads the entries of a batch that are whole, up to the first one that is not. all says that nothing else
// is in it. A length below 0 is not known: zeros follow the last entry.
func parseEntries(stream []byte, length int, id *ID, cycle, seq uint64) (entries []Entry, all bool) {
	if length > len(stream) {
		length = -1
	}
	rest := stream
	if length >= 0 {
		rest = stream[:length]
	}
	for len(rest) >= entryHeader {
		size, keySize := uint64(binary.BigEndian.Uint32(rest)), uint64(rest[4])
		if entryHeader+keySize+size > uint64(len(rest)) {
			break
		}
		key, data := rest[entryHeader:entryHeader+keySize], rest[entryHeader+keySize:entryHeader+keySize+size]
		if binary.BigEndian.Uint32(rest[5:]) != checksum(id, cycle, seq, rest[:5], key, data) {
			break
		}
		entries = append(entries, Entry{Seq: seq, Key: key, Data: data})
		rest, seq = rest[entryHeader+keySize+size:], seq+1
	}
	if length >= 0 {
		return entries, len(rest) == 0
	}
	return entries, len(entries) > 0 && zero(rest)
}

func zero(data []byte) bool {
	for _, b := range data {
		if b != 0 {
			return false
		}
	}
	return true
}

func span(first, count int) string {
	if count == 1 {
		return fmt.Sprintf("block %d", first)
	}
	return fmt.Sprintf("blocks %d to %d", first, first+count-1)
}
