package journal

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Events vanish where somebody purges the stream, or gives it a limit of age or with discard: old. What is dropped here
// is done for all targets, so an event that is below the stream's first one and that a target did not have was deleted
// by somebody else. Dispatchers count those that they knew of. When a partition is opened, its cursor tells of some that
// were not done: then all numbers from its floor to the stream's first event may be such, since those of other
// partitions cannot be told apart.

// vanishedPause is for which what vanished is added up before it is reported: all partitions find out by themselves.
const vanishedPause = 2 * time.Second

// vanished are events that a target did not have when they were deleted.
type vanished struct {
	since time.Time
	count int64 // that were waiting
	most  int64 // that may have been, beside those
}

// First implements Expiring.
func (v *natsView) First() uint64 {
	v.n.mu.Lock()
	defer v.n.mu.Unlock()
	return v.n.first
}

// noteVanished takes in that events were deleted before a target had them: some, and at most so many more.
func (n *NATS) noteVanished(target string, count, most int64) {
	if count <= 0 && most <= 0 {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	one := n.vanished[target]
	if one == nil {
		one = &vanished{since: time.Now()}
		n.vanished[target] = one
	}
	one.count += count
	one.most += most
}

// reportVanished reports the events that were deleted before targets had them.
func (n *NATS) reportVanished() {
	n.mu.Lock()
	due := map[string]vanished{}
	for target, one := range n.vanished {
		if time.Since(one.since) >= vanishedPause {
			due[target] = *one
			delete(n.vanished, target)
		}
	}
	n.mu.Unlock()
	for _, target := range slices.Sorted(maps.Keys(due)) {
		one := due[target]
		number := fmt.Sprint(one.count)
		switch {
		case one.count == 0:
			number = fmt.Sprintf("at most %d", one.most)
		case one.most > 0:
			number = fmt.Sprintf("%d, and at most %d more,", one.count, one.most)
		}
		n.reportPlaces(max(one.count, 1), "%s events that target %s did not have yet are not in the stream %s any more: it was purged, or has a limit of age or number; those that no receiver remembers cannot be delivered", number, target, n.name())
	}
}

// skipDeleted moves a cursor past what is not stored any more, where events were among that which are not done, and
// returns how many there can have been at most.
func (f *owned) skipDeleted(first uint64) (most int64) {
	gone := func(seq uint64) bool {
		return seq > 0 && seq < first && seq > f.Cursor.Floor && !f.Cursor.Done.Has(seq)
	}
	lost := slices.ContainsFunc(f.Marks, func(m mark) bool { return gone(m.Seq) })
	for seq := range f.Cursor.Attempts {
		lost = lost || gone(seq)
	}
	if !lost {
		return 0
	}
	c := &f.Cursor
	most = int64(first-1-c.Floor) - c.Done.upTo(first-1).Len()
	c.Floor = first - 1
	var above Ranges
	for _, r := range c.Done {
		if r.To >= first {
			above = append(above, Range{max(r.From, first), r.To})
		}
	}
	c.Done, c.Attempts = above, maps.Clone(c.Attempts)
	maps.DeleteFunc(c.Attempts, func(seq uint64, _ int32) bool { return seq < first })
	return most
}

// noteBacklog counts what was deleted before a dispatcher read it, and has cursors say of which events they know: one
// that waits for a target which is down is written nowhere else.
func (p *natsPart) noteBacklog(ctx context.Context, cursors map[string]found) error {
	p.mu.Lock()
	views := maps.Clone(p.views)
	p.mu.Unlock()
	delete(views, Glance)
	for target, v := range views {
		if err := v.countUnread(ctx, target); err != nil {
			return err
		}
		if c, ok := cursors[target]; ok {
			if err := v.noteMarks(ctx, target, c.Marks.newest()); err != nil {
				return err
			}
		}
	}
	return nil
}

// noteLast is noteBacklog when the partition is given back.
func (p *natsPart) noteLast() {
	if p.lease.lapsed() {
		return // the cursors are somebody else's
	}
	ctx, cancel := context.WithTimeout(p.lease.attempts, p.n.options.LeaseTime/2)
	defer cancel()
	cursors, err := p.cursors(ctx)
	if err == nil {
		err = p.noteBacklog(ctx, cursors)
	}
	if err != nil {
		p.n.options.Log.Debug("a backlog was not noted", "partition", p.index, "error", err)
	}
}

// countUnread counts the events that were deleted before the dispatcher read them.
func (v *natsView) countUnread(ctx context.Context, target string) error {
	first := v.First()
	v.mu.Lock()
	readTo, unread := v.readTo, v.unread
	v.mu.Unlock()
	if unread == 0 || first <= readTo+1 {
		return nil
	}
	stream, err := v.n.js().Stream(ctx, v.n.name()) // a handle of its own: asking changes it
	if err != nil {
		return fmt.Errorf("look at the stream %s: %w", v.n.name(), plainJetStream(err))
	}
	subject := v.n.partSubject(v.index)
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(subject))
	if err != nil {
		return fmt.Errorf("count the events of partition %d: %w", v.index, plainJetStream(err))
	}
	left := int64(info.State.Subjects[subject])
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.readTo != readTo || left >= unread {
		return nil
	}
	v.unread = left
	v.n.noteVanished(target, unread-left, 0)
	return nil
}

// noteMarks writes the cursor where it does not say that the last event that was read is stored, and that is not done.
func (v *natsView) noteMarks(ctx context.Context, target string, written mark) error {
	v.saving.Lock()
	defer v.saving.Unlock()
	v.mu.Lock()
	newest, c, opened := v.marks.newest(), v.cursor, v.revision != 0
	v.mu.Unlock()
	if !opened || newest.Seq <= written.Seq || c.Has(newest.Seq) {
		return nil
	}
	return v.writeCursor(ctx, target, c)
}
