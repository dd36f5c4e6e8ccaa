package journal

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// The log ahead is a file beside the journal's. Events are written into it, one batch after the other, and answered
// when it is on the disk; a later transaction brings them into the journal. So an event costs one wait for the disk, on
// blocks that are there already, where a transaction of bbolt's takes two and copies pages.
//
// It has two halves: while the events of one are brought into the journal, the other one takes what comes. What is left
// of an earlier round is told by its sequence numbers, which the journal has by then.
const (
	aheadSuffix   = ".ahead"
	aheadHalf     = 2 << 20
	aheadSize     = 2 * aheadHalf
	aheadBlock    = 4 << 10           // what a disk writes as one, or larger; a batch begins on one
	aheadMagic    = "pbxA"            // a batch
	aheadEnd      = "pbxZ"            // at the very beginning: all is in the journal
	aheadHeader   = 20                // magic, checksum, length of what follows, first sequence number
	entryHeader   = 5                 // length of the record, and of the key
	maxAhead      = maxRecent * 3 / 4 // events: readers have them from what is remembered
	maxAheadBytes = 1 << 20           // of them
	settleAfter   = 200 * time.Millisecond
	settleFrom    = maxAhead / 2
)

// aheadEvent is an event on its way into the file.
type aheadEvent struct {
	seq   uint64
	data  []byte     // its record
	key   *RepeatKey // nil: it has no repeats
	first repeat     // that they are told by; the log has it in the record
}

// ahead is the log ahead, as it is written.
type ahead struct {
	file *os.File
	half int64 // that takes batches: 0 or 1
	at   int64 // where the next one goes, in it
	out  []byte
}

// openAhead makes the log, or begins it anew. What it had is in the journal by now.
func openAhead(name string) (a *ahead, err error) {
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, fmt.Errorf("open the log ahead: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("make the log ahead: %w", err), file.Close())
		}
	}()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	a = &ahead{file: file}
	if info.Size() == aheadSize {
		return a, nil
	}
	if err := errors.Join(file.Truncate(0), a.fill()); err != nil {
		return nil, err
	}
	folder, err := os.Open(filepath.Dir(name))
	if err != nil {
		return nil, err
	}
	return a, errors.Join(file.Sync(), folder.Sync(), folder.Close())
}

// fill writes all blocks, so that later writes find them there.
func (a *ahead) fill() error {
	zeros := make([]byte, 64<<10)
	for at := int64(0); at < aheadSize; at += int64(len(zeros)) {
		if _, err := a.file.WriteAt(zeros, at); err != nil {
			return err
		}
	}
	return nil
}

// write keeps a batch, whose sequence numbers follow each other. full is that there is no room for it.
func (a *ahead) write(events []aheadEvent) (full bool, err error) {
	out := append(a.out[:0], make([]byte, aheadHeader)...)
	for _, e := range events {
		out = binary.BigEndian.AppendUint32(out, uint32(len(e.data)))
		var key []byte
		if e.key != nil {
			key = e.key[:]
		}
		out = append(append(append(out, byte(len(key))), key...), e.data...)
	}
	copy(out, aheadMagic)
	binary.BigEndian.PutUint32(out[8:], uint32(len(out)-aheadHeader))
	binary.BigEndian.PutUint64(out[12:], events[0].seq)
	binary.BigEndian.PutUint32(out[4:], crc32.Checksum(out[8:], castagnoli))
	if rest := len(out) % aheadBlock; rest > 0 {
		out = append(out, make([]byte, aheadBlock-rest)...)
	}
	a.out = out
	if a.at+int64(len(out)) > aheadHalf {
		return true, nil
	}
	if _, err := a.file.WriteAt(out, a.half*aheadHalf+a.at); err != nil {
		return false, fmt.Errorf("write the log ahead: %w", err)
	}
	if err := syncData(a.file); err != nil {
		return false, fmt.Errorf("write the log ahead: %w", err)
	}
	a.at += int64(len(out))
	return false, nil
}

// turn has the other half take batches from now on. All that it has is in the journal.
func (a *ahead) turn() {
	if a.at > 0 { // else the mark of the end would stay
		a.half, a.at = 1-a.half, 0
	}
}

// halfFull is whether the half that takes batches is full by half: what is in it is to be brought into the journal.
func (a *ahead) halfFull() bool { return a.at > aheadHalf/2 }

// close notes that nothing of it is needed any more, if that is so.
func (a *ahead) close(settled bool) error {
	var err error
	if settled {
		block := make([]byte, aheadBlock)
		copy(block, aheadEnd)
		_, err = a.file.WriteAt(block, 0)
		err = errors.Join(err, a.file.Sync())
	}
	return errors.Join(err, a.file.Close())
}

// readAhead reads the events of a log ahead that the journal does not have, whose last one is given. Damage is that some
// are missing before others that are there: these were written later, so what is missing was on the disk once. A batch at
// the end that is not whole was being written when the machine stopped, and answered to nobody.
func readAhead(name string, last uint64) (events []aheadEvent, damage string, err error) {
	file, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", fmt.Errorf("open the log ahead: %w", err)
	}
	defer func() { _ = file.Close() }() // it was only read
	mark := make([]byte, len(aheadEnd))
	if _, err := file.ReadAt(mark, 0); err == nil && string(mark) == aheadEnd {
		return nil, "", nil
	}
	log := make([]byte, aheadSize)
	n, err := io.ReadFull(file, log)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, "", fmt.Errorf("read the log ahead: %w", err)
	}
	for at := 0; at < n; at += aheadBlock {
		batch, length := readBatch(log[at:n])
		events = append(events, batch...)
		at += max(0, length-1) / aheadBlock * aheadBlock
	}
	slices.SortStableFunc(events, func(a, b aheadEvent) int { return cmp.Compare(a.seq, b.seq) })
	events, damage = missed(events, last)
	return events, damage, nil
}

// missed leaves out what the journal has, and says where something is missing.
func missed(all []aheadEvent, last uint64) (events []aheadEvent, damage string) {
	for _, e := range all {
		if e.seq <= last {
			continue
		}
		if e.seq > last+1 && damage == "" {
			damage = fmt.Sprintf("the log ahead: what stands before event %d, after %d, is not as it was written", e.seq, last)
		}
		events, last = append(events, e), e.seq
	}
	return events, damage
}

// readBatch reads the batch at the beginning of a log, and says how long it is; 0 where there is none that is whole.
func readBatch(log []byte) (events []aheadEvent, length int) {
	if len(log) < aheadHeader || string(log[:len(aheadMagic)]) != aheadMagic {
		return nil, 0
	}
	size := binary.BigEndian.Uint32(log[8:])
	if uint64(size) > uint64(len(log)-aheadHeader) {
		return nil, 0
	}
	length = aheadHeader + int(size)
	if crc32.Checksum(log[8:length], castagnoli) != binary.BigEndian.Uint32(log[4:]) {
		return nil, 0
	}
	seq := binary.BigEndian.Uint64(log[12:])
	for rest := log[aheadHeader:length]; len(rest) > 0; seq++ {
		if len(rest) < entryHeader {
			return nil, 0
		}
		record, key := uint64(binary.BigEndian.Uint32(rest)), uint64(rest[4])
		if entryHeader+key+record > uint64(len(rest)) {
			return nil, 0
		}
		e := aheadEvent{seq: seq, data: rest[entryHeader+key : entryHeader+key+record]}
		if key == uint64(len(RepeatKey{})) {
			e.key = (*RepeatKey)(rest[entryHeader:])
		}
		if !intact(seq, e.data) {
			return nil, 0
		}
		events, rest = append(events, e), rest[entryHeader+key+record:]
	}
	return events, length
}
