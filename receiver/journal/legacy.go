package journal

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
)

// The log of earlier versions, journal.db.ahead, is read once, and removed when its events are in journal.db.
const (
	legacySuffix = ".ahead"
	legacySize   = 4 << 20
	legacyBlock  = 4 << 10 // a batch begins on one
	legacyMagic  = "pbxA"  // a batch
	legacyEnd    = "pbxZ"  // at the very beginning: all is in the journal
	legacyHeader = 20      // magic, checksum, length of what follows, first sequence number
	legacyEntry  = 5       // length of the record, and of the key
)

// readLegacyLog reads the events of such a log that the journal does not have, whose last one is given. Damage is that some
// are missing before others that are there: these were written later, so what is missing was on the disk once. A batch at
// the end that is not whole was being written when the machine stopped, and answered to nobody.
func readLegacyLog(name string, last uint64) (events []logEvent, damage string, err error) {
	file, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", fmt.Errorf("open the log of an earlier version: %w", err)
	}
	defer func() { _ = file.Close() }() // it was only read
	mark := make([]byte, len(legacyEnd))
	if _, err := file.ReadAt(mark, 0); err == nil && string(mark) == legacyEnd {
		return nil, "", nil
	}
	log := make([]byte, legacySize)
	n, err := io.ReadFull(file, log)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, "", fmt.Errorf("read the log of an earlier version: %w", err)
	}
	for at := 0; at < n; at += legacyBlock {
		batch, length := readLegacyBatch(log[at:n])
		events = append(events, batch...)
		at += max(0, length-1) / legacyBlock * legacyBlock
	}
	slices.SortStableFunc(events, func(a, b logEvent) int { return cmp.Compare(a.seq, b.seq) })
	events, damage = missingBefore(events, last)
	return events, damage, nil
}

// missingBefore leaves out what the journal has, and says where something is missing.
func missingBefore(all []logEvent, last uint64) (events []logEvent, damage string) {
	for _, e := range all {
		if e.seq <= last {
			continue
		}
		if e.seq > last+1 && damage == "" {
			damage = fmt.Sprintf("the log of an earlier version: what stands before event %d, after %d, is not as it was written", e.seq, last)
		}
		events, last = append(events, e), e.seq
	}
	return events, damage
}

// readLegacyBatch reads the batch at the beginning of a log, and says how long it is; 0 where there is none that is whole.
func readLegacyBatch(log []byte) (events []logEvent, length int) {
	if len(log) < legacyHeader || string(log[:len(legacyMagic)]) != legacyMagic {
		return nil, 0
	}
	size := binary.BigEndian.Uint32(log[8:])
	if uint64(size) > uint64(len(log)-legacyHeader) {
		return nil, 0
	}
	length = legacyHeader + int(size)
	if crc32.Checksum(log[8:length], castagnoli) != binary.BigEndian.Uint32(log[4:]) {
		return nil, 0
	}
	seq := binary.BigEndian.Uint64(log[12:])
	for rest := log[legacyHeader:length]; len(rest) > 0; seq++ {
		if len(rest) < legacyEntry {
			return nil, 0
		}
		record, key := uint64(binary.BigEndian.Uint32(rest)), uint64(rest[4])
		if legacyEntry+key+record > uint64(len(rest)) {
			return nil, 0
		}
		e := logEvent{seq: seq, data: rest[legacyEntry+key : legacyEntry+key+record]}
		if key == uint64(len(RepeatKey{})) {
			e.key = (*RepeatKey)(rest[legacyEntry:])
		}
		if !intact(seq, e.data) {
			return nil, 0
		}
		events, rest = append(events, e), rest[legacyEntry+key+record:]
	}
	return events, length
}
