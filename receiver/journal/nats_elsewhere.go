package journal

import (
	"context"
	"time"
)

// Elsewhere is how a target fares in partitions of other receivers, as far as their cursors were written.
type Elsewhere struct {
	Pending      int64 // about
	Delivered    int64
	DeadLettered int64
	LastDelivery time.Time
}

// Elsewhere says how targets fare in the partitions that are not this receiver's.
func (n *NATS) Elsewhere(ctx context.Context, mine func(part int) bool) (map[string]Elsewhere, error) {
	type place struct {
		part   int
		target string
		floor  uint64
	}
	all, places := map[string]Elsewhere{}, []place{}
	if err := n.eachCursor(ctx, "cursor.>", func(part int, target string, f found) {
		if mine(part) {
			return
		}
		e := all[target]
		e.Delivered += f.Cursor.Delivered
		e.DeadLettered += f.Cursor.DeadLettered
		if f.Cursor.LastDelivery.After(e.LastDelivery) {
			e.LastDelivery = f.Cursor.LastDelivery
		}
		for _, replay := range f.Cursor.Replays {
			e.Pending += replay.Seqs.Len()
		}
		all[target] = e
		places = append(places, place{part, target, f.Cursor.Floor})
	}); err != nil {
		return nil, err
	}
	for _, p := range places {
		pending, err := n.after(ctx, p.part, p.floor)
		if err != nil {
			return nil, err
		}
		e := all[p.target]
		e.Pending += pending
		all[p.target] = e
	}
	return all, nil
}

// after is how many events a partition has after a sequence number, about.
func (n *NATS) after(ctx context.Context, part int, seq uint64) (int64, error) {
	first, left, err := n.batch(ctx, n.name(), n.partSubject(part), seq+1, 1)
	return int64(len(first)) + left, err
}

// Done says which of some events a target is done with, as far as its cursors were written.
func (n *NATS) Done(ctx context.Context, target string, heads []Head) ([]bool, error) {
	cursors := map[int]Cursor{}
	if err := n.eachCursor(ctx, "cursor.*."+target, func(part int, _ string, f found) { cursors[part] = f.Cursor }); err != nil {
		return nil, err
	}
	done := make([]bool, len(heads))
	for i, h := range heads {
		c, ok := cursors[PartitionOf(h)]
		done[i] = ok && c.Has(h.Seq)
	}
	return done, nil
}
