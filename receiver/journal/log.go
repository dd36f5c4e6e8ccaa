package journal

import (
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/encoding/protowire"
)

// Bounds of the delivery log. It is for people: what is needed to deliver is in the cursors.
const (
	maxLogBytes  = 64 << 20
	logShare     = 8 // of MaxBytes: an eighth at most
	logAge       = 7 * 24 * time.Hour
	maxLatest    = 1024
	lineOverhead = 32 // bytes that bbolt adds to a line, about
)

// A line is stored under its event's sequence number and the number of the line, so that the attempts of an
// event lie together and the oldest events' go first. It is a CRC-32C and then fields, as a record is.
const (
	lineTarget protowire.Number = iota + 1
	lineTime
	lineDuration
	lineResult
	lineStatus
	lineReason
	lineReply
	lineNext
	lineReplay
)

func lineKey(seq uint64, line int64) []byte {
	return binary.BigEndian.AppendUint64(keyOf(seq), uint64(line))
}

// log adds attempts of a target to the delivery log, and makes room for them. Where the disk is all but full
// they are not written.
func (t *transaction) log(target string, attempts []Attempt) error {
	if t.noSpace != nil {
		return nil
	}
	bucket := t.bucket(bucketLog)
	bucket.FillPercent = 0.9     // keys mostly grow
	for _, a := range attempts { // copies: the dispatcher may look at them meanwhile
		a.Target = target
		t.counters.Logged++
		key := lineKey(a.Seq, t.counters.Logged)
		data := encodeAttempt(key, &a)
		if err := bucket.Put(key, data); err != nil {
			return fmt.Errorf("write the delivery log of target %s: %w", target, err)
		}
		t.counters.LogBytes += int64(len(data) + lineOverhead)
		t.logged = append(t.logged, a)
	}
	if t.counters.LogBytes <= t.journal.maxLog() {
		return nil
	}
	return t.trimLog()
}

func (b *Bolt) maxLog() int64 { return min(maxLogBytes, b.options.MaxBytes/logShare) }

// trimLog drops the lines of the oldest events, while there are too many or they are too old.
func (t *transaction) trimLog() error {
	bucket := t.bucket(bucketLog)
	oldest := t.now.Add(-logAge)
	var gone [][]byte
	bytes := t.counters.LogBytes
	cursor := bucket.Cursor()
	for key, data := cursor.First(); key != nil && len(gone) < maxTrim; key, data = cursor.Next() {
		if bytes <= t.journal.maxLog() {
			if a, err := decodeAttempt(key, data); err == nil && a.Time.After(oldest) {
				break
			}
		}
		gone = append(gone, key)
		bytes -= int64(len(data) + lineOverhead)
	}
	for _, key := range gone {
		if err := bucket.Delete(key); err != nil {
			return fmt.Errorf("trim the delivery log: %w", err)
		}
	}
	t.counters.LogBytes = max(bytes, 0)
	return nil
}

// Attempts implements Journal. A line that is not as it was written is left out.
func (b *Bolt) Attempts(seq uint64) ([]Attempt, error) {
	var attempts []Attempt
	err := b.view(func(tx *bbolt.Tx) error {
		cursor := tx.Bucket([]byte(bucketLog)).Cursor()
		for key, data := cursor.Seek(keyOf(seq)); len(key) == 16 && seqOf(key[:8]) == seq; key, data = cursor.Next() {
			if a, err := decodeAttempt(key, data); err == nil {
				attempts = append(attempts, a)
			}
		}
		return nil
	})
	return attempts, err
}

// Latest implements Journal.
func (b *Bolt) Latest(logged int64) (attempts []Attempt, now int64) { return b.latest.after(logged) }

func encodeAttempt(key []byte, a *Attempt) []byte {
	data := make([]byte, 4, 4+64+len(a.Reason)+len(a.Reply))
	text := func(field protowire.Number, value string) {
		if value != "" {
			data = protowire.AppendString(protowire.AppendTag(data, field, protowire.BytesType), value)
		}
	}
	number := func(field protowire.Number, value int64) {
		if value != 0 {
			data = protowire.AppendVarint(protowire.AppendTag(data, field, protowire.VarintType), uint64(value))
		}
	}
	text(lineTarget, a.Target)
	number(lineTime, a.Time.UnixNano())
	number(lineDuration, int64(a.Duration))
	text(lineResult, string(a.Result))
	number(lineStatus, int64(a.Status))
	text(lineReason, a.Reason)
	text(lineReply, a.Reply)
	if !a.Next.IsZero() {
		number(lineNext, a.Next.UnixNano())
	}
	text(lineReplay, a.Replay)
	binary.BigEndian.PutUint32(data, checksum(key, data[4:]))
	return data
}

func decodeAttempt(key, data []byte) (Attempt, error) {
	if len(key) != 16 || len(data) < 4 || binary.BigEndian.Uint32(data) != checksum(key, data[4:]) {
		return Attempt{}, errChecksum
	}
	a := Attempt{Seq: seqOf(key[:8])}
	err := fields(data[4:], func(field protowire.Number, text []byte, number uint64) bool {
		switch field {
		case lineTarget:
			a.Target = string(text)
		case lineTime:
			a.Time = timeOf(number)
		case lineDuration:
			a.Duration = time.Duration(number)
		case lineResult:
			a.Result = Result(text)
		case lineStatus:
			a.Status = int(number)
		case lineReason:
			a.Reason = string(text)
		case lineReply:
			a.Reply = string(text)
		case lineNext:
			a.Next = timeOf(number)
		case lineReplay:
			a.Replay = string(text)
		}
		return true
	})
	return a, err
}

// latest are the newest lines of the delivery log, for those who watch.
type latest struct {
	mu    sync.Mutex
	lines []Attempt // at most twice maxLatest
	total int64     // that were ever written
}

func (l *latest) add(lines []Attempt, total int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total = total
	for _, a := range lines[max(0, len(lines)-maxLatest):] {
		a.Reply = ""
		l.lines = append(l.lines, a)
	}
	if len(l.lines) > 2*maxLatest {
		l.lines = append([]Attempt(nil), l.lines[len(l.lines)-maxLatest:]...)
	}
}

// after are the lines after some that were ever written, as far as they are remembered.
func (l *latest) after(logged int64) (lines []Attempt, total int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := max(0, min(l.total-logged, int64(len(l.lines)), maxLatest))
	return append([]Attempt(nil), l.lines[len(l.lines)-int(n):]...), l.total
}
