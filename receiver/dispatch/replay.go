package dispatch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pbxhook/pbxhook/receiver/journal"
)

// Bounds of replays of one target.
const (
	maxReplays = 100 // under way at once
	// MaxReplayed is how many events one replay has at most.
	MaxReplayed = 100_000
)

// ErrTooMany says that a replay asks for more than is taken at once.
var ErrTooMany = errors.New("too many events for one replay")

// wish is a replay that waits to be taken.
type wish struct {
	id    string
	seqs  journal.Ranges
	taken int64
	err   error
	done  chan struct{}
}

// Replay hands events to the target again, each at the end of its lane, and returns how many when that
// is durable. Events that the target does not have yet are left out: they are on their way. It needs a
// dispatcher that runs. Errors: ErrTooMany, the context's, or the journal's.
func (d *Dispatcher) Replay(ctx context.Context, id string, seqs journal.Ranges) (int64, error) {
	if seqs.Len() > MaxReplayed {
		return 0, fmt.Errorf("%w: %d, at most %d are taken: narrow it", ErrTooMany, seqs.Len(), MaxReplayed)
	}
	w := &wish{id: id, seqs: seqs, done: make(chan struct{})}
	select {
	case d.replays <- w:
		<-w.done
		return w.taken, w.err
	case <-d.ended:
		return 0, fmt.Errorf("replay to target %s: it is not delivered to any more", d.name)
	case <-ctx.Done():
		return 0, fmt.Errorf("replay to target %s: %w", d.name, ctx.Err())
	}
}

// replay takes a wish: it is written before anything goes out.
func (w *work) replay(wish *wish) (int64, error) {
	var entries []journal.Entry
	taken := journal.Replay{ID: wish.id, At: time.Now().UTC()}
	for seq := range wish.seqs.All() {
		if !w.progress.has(seq) || w.progress.replay(seq) != nil {
			continue
		}
		record, err := w.record(seq, true)
		if errors.Is(err, journal.ErrNotFound) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("replay event %d: %w", seq, err)
		}
		taken.Seqs.Add(seq)
		entries = append(entries, journal.Entry{Seq: seq, Lane: record.Lane})
	}
	switch {
	case len(entries) == 0:
		return 0, nil
	case len(w.progress.replays) >= maxReplays:
		return 0, fmt.Errorf("%w: %d replays to target %s are under way", ErrTooMany, maxReplays, w.name)
	case w.queued+len(entries) > maxQueued:
		return 0, fmt.Errorf("%w: %d events wait for target %s already", ErrTooMany, w.queued, w.name)
	}
	w.progress.replays = append(w.progress.replays, taken)
	w.progress.dirty = true
	if err := w.flush(); err != nil {
		w.progress.replays = slices.Delete(w.progress.replays, len(w.progress.replays)-1, len(w.progress.replays))
		return 0, err
	}
	for _, entry := range entries {
		w.enqueue(entry)
	}
	return int64(len(entries)), nil
}

// resumeReplays goes on with those that an earlier process took.
func (w *work) resumeReplays() {
	for _, replay := range clone(w.progress.replays) {
		for seq := range replay.Seqs.All() {
			record, err := w.record(seq, true)
			if err != nil { // gone, or damaged: once tells
				record = journal.Record{Seq: seq}
			}
			w.enqueue(journal.Entry{Seq: seq, Lane: record.Lane})
		}
	}
}

// record is a kept event. One that is replayed may be left as a dead letter alone.
func (w *work) record(seq uint64, replayed bool) (journal.Record, error) {
	record, err := w.journal.Get(seq)
	if !replayed || !errors.Is(err, journal.ErrNotFound) {
		return record, err
	}
	letters, err := w.journal.DeadLetters(w.name, seq-1, 1)
	if err != nil {
		return journal.Record{}, err
	}
	if len(letters) == 0 || letters[0].Record.Seq != seq {
		return journal.Record{}, journal.ErrNotFound
	}
	return letters[0].Record, nil
}
