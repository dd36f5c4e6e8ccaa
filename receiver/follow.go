package receiver

import (
	"cmp"
	"context"
	"time"

	"github.com/pbxhook/pbxhook/receiver/admin"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/journal"
)

const (
	followPause = 200 * time.Millisecond // as often as the delivery log is written
	followBatch = 500
)

// Pulse implements admin.Service.
func (r *Receiver) Pulse() (pulse uint64) {
	for _, w := range r.all() {
		s := w.journal.State()
		pulse += s.LastSeq + uint64(s.Logged) + uint64(s.Rejected)
	}
	return pulse
}

// place is up to where a follower has been told.
type place struct {
	seq    uint64
	logged int64
}

// Follow implements admin.Service.
func (r *Receiver) Follow(ctx context.Context, tell func(admin.Update) error) error {
	places := map[*webhook]place{}
	begin := func(w *webhook) {
		s := w.journal.State()
		places[w] = place{s.LastSeq, s.Logged}
	}
	for _, w := range r.all() {
		begin(w)
	}
	tick := time.NewTicker(followPause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for _, w := range r.all() {
			if _, known := places[w]; !known {
				begin(w) // one that has come meanwhile
			}
			next, err := w.tellSince(places[w], tell)
			if err != nil {
				return err
			}
			places[w] = next
		}
	}
}

// tellSince tells what happened since a place, and returns the next one.
func (w *webhook) tellSince(p place, tell func(admin.Update) error) (place, error) {
	state := w.journal.State() // what comes meanwhile is told next time
	for p.seq < state.LastSeq {
		heads, err := w.journal.Heads(p.seq, followBatch)
		if err != nil || len(heads) == 0 {
			return p, err
		}
		for _, h := range heads {
			p.seq = h.Seq
			line, err := w.line(h.Seq)
			if err != nil {
				continue // dropped meanwhile
			}
			if err := tell(admin.Update{Event: line}); err != nil {
				return p, err
			}
		}
	}
	attempts, now := w.journal.Latest(p.logged)
	p.logged = now
	for i := range attempts {
		a := attemptOf(&attempts[i])
		a.Webhook = w.id()
		if record, err := w.journal.Get(attempts[i].Seq); err == nil {
			a.Event = record.ID
		}
		if err := tell(admin.Update{Attempt: &a}); err != nil {
			return p, err
		}
	}
	return p, nil
}

// line is an event in brief.
func (w *webhook) line(seq uint64) (*admin.Line, error) {
	record, err := w.journal.Get(seq)
	if err != nil {
		return nil, err
	}
	return lineOf(w.id(), &record, w.current().decode(&record)), nil
}

func lineOf(webhook string, r *journal.Record, e *event.Event) *admin.Line {
	line := &admin.Line{Webhook: webhook, ID: r.ID, Call: e.CallID(), Type: e.Type, Name: e.Name, ReceivedAt: r.Request.ReceivedAt}
	if c := e.Call; c != nil {
		line.From, line.To = cmp.Or(c.From.Number, c.From.Raw), cmp.Or(c.To.Number, c.To.Raw)
	}
	return line
}
