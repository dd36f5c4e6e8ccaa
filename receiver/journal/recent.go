package journal

import "sync"

const (
	maxRecent      = 1024
	maxRecentBytes = 2 << 20 // of their requests
)

// recent are the latest events as they came, decoded: while targets keep up, nothing is read from the disk.
type recent struct {
	mu     sync.RWMutex
	slots  []*Record // by sequence number, modulo its length
	oldest uint64    // that may be in it
	newest uint64
	bytes  int
}

func (r *recent) slot(seq uint64) **Record { return &r.slots[seq%maxRecent] }

// add takes in events that are durable now; their sequence numbers follow each other.
func (r *recent) add(records []*Record) {
	if len(records) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.slots == nil {
		r.slots = make([]*Record, maxRecent)
		r.oldest = records[0].Seq
	}
	for _, record := range records {
		r.newest = record.Seq
		for r.oldest+maxRecent <= r.newest {
			r.dropOldest()
		}
		*r.slot(record.Seq) = record
		r.bytes += record.size()
	}
	for r.bytes > maxRecentBytes && r.oldest < r.newest {
		r.dropOldest()
	}
}

// dropOldest forgets the oldest one; r.mu is held.
func (r *recent) dropOldest() {
	r.forget(r.oldest)
	r.oldest++
}

func (r *recent) forget(seq uint64) {
	if slot := r.slot(seq); *slot != nil && (*slot).Seq == seq {
		r.bytes -= (*slot).size()
		*slot = nil
	}
}

// drop forgets events that are not kept any more.
func (r *recent) drop(seqs []uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.slots == nil {
		return
	}
	for _, seq := range seqs {
		r.forget(seq)
	}
}

// get is an event, or nil when it is not a recent one.
func (r *recent) get(seq uint64) *Record {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.slots == nil {
		return nil
	}
	if record := *r.slot(seq); record != nil && record.Seq == seq {
		return record
	}
	return nil
}

// entries are those after a sequence number; ok is false when some of them are not recent.
func (r *recent) entries(after uint64, limit int) (entries []Entry, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.slots == nil || after+1 < r.oldest {
		return nil, false
	}
	for seq := after + 1; seq <= r.newest && len(entries) < limit; seq++ {
		record := *r.slot(seq)
		if record == nil {
			return nil, false
		}
		entries = append(entries, Entry{Seq: seq, Lane: record.Lane})
	}
	return entries, true
}
