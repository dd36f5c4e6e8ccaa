package journal

import (
	"encoding/json"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"github.com/pbxhook/pbxhook/receiver/event"
)

const (
	repeatAge  = 10 * time.Minute
	maxRepeats = 200_000
)

// repeat is the first one of an event that may come again.
type repeat struct {
	seq  uint64
	id   string
	kind event.Type
	at   time.Time
}

// storedRepeat is a repeat in the file, under its sequence number: in order of time.
type storedRepeat struct {
	Key  []byte     `json:"key"`
	ID   string     `json:"id"`
	Type event.Type `json:"type"`
	At   time.Time  `json:"at"`
}

// repeats remember events by key for ten minutes. Only the committing goroutine uses them, so a
// repeat of an event that is being committed waits its turn and finds it. What a transaction added
// is forgotten when it fails.
type repeats struct {
	byKey map[RepeatKey]repeat
	order []RepeatKey // oldest first
	added int         // by the transaction under way
}

func (r *repeats) load(bucket *bbolt.Bucket) error {
	r.byKey = map[RepeatKey]repeat{}
	return bucket.ForEach(func(seq, data []byte) error {
		var stored storedRepeat
		if err := json.Unmarshal(data, &stored); err != nil || len(stored.Key) != len(RepeatKey{}) {
			return nil // worth less than the events: it only spares a target a repeat
		}
		r.remember(RepeatKey(stored.Key), repeat{seq: seqOf(seq), id: stored.ID, kind: stored.Type, at: stored.At})
		return nil
	})
}

func (r *repeats) remember(key RepeatKey, first repeat) {
	r.byKey[key] = first
	r.order = append(r.order, key)
}

func (r *repeats) begin() { r.added = 0 }

func (r *repeats) end(committed bool) {
	if committed {
		return
	}
	kept := len(r.order) - r.added
	for _, key := range r.order[kept:] {
		delete(r.byKey, key)
	}
	r.order = r.order[:kept]
}

func (r *repeats) find(key RepeatKey, now time.Time) (repeat, bool) {
	first, ok := r.byKey[key]
	return first, ok && now.Sub(first.at) < repeatAge
}

func (r *repeats) add(key RepeatKey, first repeat) {
	r.remember(key, first)
	r.added++
}

// store writes a repeat into the file.
func (r *repeat) store(bucket *bbolt.Bucket, key RepeatKey) error {
	data, err := json.Marshal(storedRepeat{Key: key[:], ID: r.id, Type: r.kind, At: r.at})
	if err != nil {
		return err
	}
	return bucket.Put(keyOf(r.seq), data)
}

// expire forgets what is too old or too much.
func (r *repeats) expire(bucket *bbolt.Bucket, now time.Time) error {
	for len(r.order) > 0 {
		key := r.order[0]
		first := r.byKey[key]
		if len(r.order) <= maxRepeats && now.Sub(first.at) < repeatAge {
			return nil
		}
		if err := bucket.Delete(keyOf(first.seq)); err != nil {
			return fmt.Errorf("forget a repeat: %w", err)
		}
		delete(r.byKey, key)
		r.order = r.order[1:]
	}
	return nil
}
