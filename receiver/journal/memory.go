package journal

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/pbxhook/pbxhook/receiver/event"
)

var (
	_ Journal = (*Memory)(nil)
	_ Part    = (*Memory)(nil)
)

// Memory is a journal that lasts as long as the process. It serves tests: what is said of dispatch is
// tried over it in virtual time.
type Memory struct {
	mu       sync.Mutex
	records  []Record // by sequence number, from 1
	cursors  map[string]Cursor
	dead     map[string][]DeadLetter // by sequence number
	attempts []Attempt
	repeats  map[RepeatKey]Receipt
	state    State
	byName   nameCounts
	appended chan struct{}
	closed   bool
}

// NewMemory makes an empty journal.
func NewMemory() *Memory {
	return &Memory{cursors: map[string]Cursor{}, dead: map[string][]DeadLetter{}, repeats: map[RepeatKey]Receipt{}, appended: make(chan struct{})}
}

// Append implements Journal.
func (m *Memory) Append(_ context.Context, r Record, key *RepeatKey) (Receipt, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return Receipt{}, ErrClosed
	}
	if key != nil {
		if first, ok := m.repeats[*key]; ok {
			first.Repeat = true
			m.state.Repeated++
			return first, nil
		}
	}
	r.Seq = uint64(len(m.records)) + 1
	m.records = append(m.records, r)
	receipt := Receipt{Seq: r.Seq, ID: r.ID, Type: r.Type}
	if key != nil {
		m.repeats[*key] = receipt
	}
	m.state.LastSeq, m.state.LastReceived = r.Seq, r.Request.ReceivedAt
	m.state.Received++
	m.state.Events++
	m.state.Bytes += int64(len(r.Request.Body))
	if r.Type == event.Unparsed {
		m.state.Unparsed++
	}
	m.byName.add(r.Name, 1, r.Request.ReceivedAt)
	close(m.appended)
	m.appended = make(chan struct{})
	return receipt, nil
}

// Reject implements Journal.
func (m *Memory) Reject(reason string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state.Rejected++
	m.state.LastRejected = Rejection{At: time.Now(), Reason: reason}
}

// CountURLCheck implements Journal.
func (m *Memory) CountURLCheck() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state.URLChecks++
	m.state.LastURLCheck = time.Now()
}

func (m *Memory) after(seq uint64, limit int) []Record {
	if seq >= uint64(len(m.records)) {
		return nil
	}
	rest := m.records[seq:]
	return rest[:min(len(rest), limit)]
}

// For implements Part: the whole journal.
func (m *Memory) For(string) Part { return m }

// Unread implements Part.
func (m *Memory) Unread(after uint64) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return int64(max(m.state.LastSeq, after) - after)
}

// Entries implements Part.
func (m *Memory) Entries(after uint64, limit int) ([]Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var entries []Entry
	for _, r := range m.after(after, limit) {
		entries = append(entries, Entry{Seq: r.Seq, Lane: r.Lane})
	}
	return entries, nil
}

// Heads implements Journal.
func (m *Memory) Heads(after uint64, limit int) ([]Head, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var heads []Head
	for _, r := range m.after(after, limit) {
		heads = append(heads, Head{Seq: r.Seq, ID: r.ID, Type: r.Type, Lane: r.Lane, ReceivedAt: r.Request.ReceivedAt})
	}
	return heads, nil
}

// Back implements Journal.
func (m *Memory) Back(before uint64, look func(s Stored) (more bool)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if before == 0 || before > uint64(len(m.records)) {
		before = uint64(len(m.records)) + 1
	}
	for _, r := range slices.Backward(m.records[:before-1]) {
		data := encode(r.Seq, &r)
		if !look(Stored{Head: headOf(r.Seq, data), Data: data}) {
			break
		}
	}
	return nil
}

// Get implements Journal.
func (m *Memory) Get(seq uint64) (Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if seq == 0 || seq > uint64(len(m.records)) {
		return Record{}, ErrNotFound
	}
	return m.records[seq-1], nil
}

// Appended implements Journal.
func (m *Memory) Appended() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.appended
}

// OpenCursor implements Journal.
func (m *Memory) OpenCursor(target string) (Cursor, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, ok := m.cursors[target]
	if !ok {
		c = Cursor{Floor: m.state.LastSeq}
		m.cursors[target] = c
	}
	return c, nil
}

// Save implements Journal.
func (m *Memory) Save(target string, p Progress) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	m.drop(target, p.Revived)
	for _, d := range p.Dead {
		m.drop(target, []uint64{d.Record.Seq})
		m.dead[target] = append(m.dead[target], d)
	}
	slices.SortFunc(m.dead[target], func(a, b DeadLetter) int { return int(a.Record.Seq) - int(b.Record.Seq) })
	for _, a := range p.Attempts {
		a.Target = target
		m.attempts = append(m.attempts, a)
	}
	p.Cursor.RemovedAt = m.cursors[target].RemovedAt
	p.Cursor.Evicted = m.cursors[target].Evicted + m.evict(target)
	m.cursors[target] = p.Cursor
	return nil
}

// evict deletes the oldest dead letters of a target above the number that is kept, and those that are too old, and
// returns how many.
func (m *Memory) evict(target string) (n int64) {
	letters := m.dead[target]
	for len(letters) > 0 && (len(letters) > maxDeadLetters || time.Since(letters[0].Time) >= deadLetterAge) {
		letters = letters[1:]
		n++
	}
	m.dead[target] = letters
	return n
}

// Evicted implements Part.
func (m *Memory) Evicted(target string) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cursors[target].Evicted
}

// Attempts implements Journal.
func (m *Memory) Attempts(seq uint64) ([]Attempt, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(m.attempts), func(a Attempt) bool { return a.Seq != seq }), nil
}

// Latest implements Journal.
func (m *Memory) Latest(logged int64) (attempts []Attempt, now int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.attempts[min(int(logged), len(m.attempts)):]), int64(len(m.attempts))
}

func (m *Memory) drop(target string, seqs []uint64) {
	m.dead[target] = slices.DeleteFunc(m.dead[target], func(d DeadLetter) bool { return slices.Contains(seqs, d.Record.Seq) })
}

// KeepCursors implements Journal.
func (m *Memory) KeepCursors(targets []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, c := range m.cursors {
		switch {
		case slices.Contains(targets, name):
			c.RemovedAt = time.Time{}
		case c.RemovedAt.IsZero():
			c.RemovedAt = time.Now()
		}
		m.cursors[name] = c
	}
	return nil
}

// DeadLetters implements Journal.
func (m *Memory) DeadLetters(target string, after uint64, limit int) ([]DeadLetter, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var letters []DeadLetter
	for _, d := range m.dead[target] {
		if d.Record.Seq > after && len(letters) < limit {
			letters = append(letters, d)
		}
	}
	return letters, nil
}

// DropDeadLetters implements Journal.
func (m *Memory) DropDeadLetters(target string, seqs []uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drop(target, seqs)
	return nil
}

// State implements Journal.
func (m *Memory) State() State {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.state
	s.Logged, s.ByName = int64(len(m.attempts)), m.byName.list()
	for _, letters := range m.dead {
		s.DeadLetters += int64(len(letters))
	}
	return s
}

// Problem implements Journal: it has none.
func (m *Memory) Problem() error { return nil }

// Close implements Journal.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}
