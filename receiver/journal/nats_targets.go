package journal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// Targets that ever had cursors are known: their names are in the stream's metadata, where they outlive the bucket of the
// cursors. Where a known one has no cursor, that was lost, and the target gets all that is stored; only one that is not
// known is new, and begins with the next event.
const metaTargets = "pbxhook-targets"

// targetsOf returns the known targets; ok is false for a stream of an earlier version, which does not tell.
func targetsOf(info *jetstream.StreamInfo) (names []string, ok bool) {
	all, ok := info.Config.Metadata[metaTargets]
	return strings.FieldsFunc(all, func(r rune) bool { return r == ',' }), ok
}

// note makes the cursors that are missing, and has their targets known.
func (n *NATS) note() error {
	n.mu.Lock()
	targets := n.unnoted
	n.mu.Unlock()
	if len(targets) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(n.ctx, maxReadTime)
	defer cancel()
	info, err := n.info(ctx, n.name())
	if err != nil {
		return err
	}
	if err := n.same(info); err != nil {
		return err
	}
	there, has := map[string]bool{}, map[string]bool{}
	if err := n.eachOwned(ctx, "cursor.>", func(v value, _ owned, _ error) { // a damaged one is there, too
		if _, target, err := splitCursorKey(v.key); err == nil {
			there[v.key], has[target] = true, true
		}
	}); err != nil {
		return err
	}
	if info, err = n.know(ctx, info, slices.Collect(maps.Keys(has)), false); err != nil {
		return err
	}
	for _, target := range targets {
		if err := n.noteTarget(ctx, target, info, there); err != nil {
			return err
		}
	}
	if _, err := n.know(ctx, info, targets, true); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if slices.Equal(n.unnoted, targets) {
		n.unnoted = nil
	}
	return nil
}

// know adds targets to those that are known; always is false where this is only for a stream that does not tell.
func (n *NATS) know(ctx context.Context, info *jetstream.StreamInfo, targets []string, always bool) (*jetstream.StreamInfo, error) {
	known, tells := targetsOf(info)
	next := slices.Clone(known)
	for _, target := range targets {
		if !slices.Contains(next, target) {
			next = append(next, target)
		}
	}
	slices.Sort(next)
	if tells && (!always || len(next) == len(known)) {
		return info, nil
	}
	if err := n.setMetadata(ctx, metaTargets, info.Config.Metadata[metaTargets], strings.Join(next, ",")); err != nil {
		return nil, err
	}
	return n.info(ctx, n.name())
}

// noteTarget makes the cursors of a target that are not there.
func (n *NATS) noteTarget(ctx context.Context, target string, info *jetstream.StreamInfo, there map[string]bool) error {
	lost := 0
	for part := range Partitions {
		key := cursorKey(part, target)
		if there[key] {
			continue
		}
		f := n.beginning(target, info)
		if _, err := n.write(ctx, key, f, 0); err != nil {
			if outdated(err) {
				continue // another receiver was faster
			}
			return err
		}
		if known, _ := targetsOf(info); slices.Contains(known, target) {
			lost++
		}
	}
	if lost > 0 {
		n.report("%d of %d cursors of target %s were gone: in these partitions it gets all that is stored again", lost, Partitions, target)
	}
	return nil
}

// beginning returns the cursor of a target that has none: a new one gets what comes from now on, a known one all that is
// stored.
func (n *NATS) beginning(target string, info *jetstream.StreamInfo) owned {
	f := owned{Epoch: info.Config.Metadata[metaEpoch]}
	if known, _ := targetsOf(info); slices.Contains(known, target) {
		return f
	}
	f.Cursor.Floor, f.Marks = info.State.LastSeq, marks{lastMark(info)}
	return f
}

// forgetTargets takes out of the known targets those that are no more, and whose cursors were dropped.
func (n *NATS) forgetTargets(ctx context.Context) error {
	info, err := n.info(ctx, n.name())
	if err != nil {
		return err
	}
	n.mu.Lock()
	now := slices.Clone(n.targets)
	noting := len(n.unnoted) > 0
	n.mu.Unlock()
	known, _ := targetsOf(info)
	gone := func(target string) bool { return !slices.Contains(now, target) }
	if noting || !slices.ContainsFunc(known, gone) {
		return nil
	}
	if err := n.eachOwned(ctx, "cursor.>", func(v value, _ owned, _ error) {
		if _, target, err := splitCursorKey(v.key); err == nil {
			now = append(now, target)
		}
	}); err != nil {
		return err
	}
	left := slices.DeleteFunc(slices.Clone(known), gone)
	if len(left) == len(known) {
		return nil
	}
	return n.setMetadata(ctx, metaTargets, info.Config.Metadata[metaTargets], strings.Join(left, ","))
}

// lacks reports whether a cursor that this receiver has opened is not among those that are stored.
func (p *natsPart) lacks(cursors map[string]found) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for target, v := range p.views {
		if _, ok := cursors[target]; !ok && v.revision != 0 {
			return true
		}
	}
	return false
}

// restoreCursors writes back the cursors of partitions that this receiver owns, where they are gone.
func (n *NATS) restoreCursors() {
	n.mu.Lock()
	parts := slices.Collect(maps.Values(n.parts))
	n.mu.Unlock()
	for _, p := range parts {
		if err := p.restoreCursors(); err != nil && p.lease.attempts.Err() == nil {
			n.options.Log.Warn("cursors were not written back", "partition", p.index, "error", err)
		}
	}
}

func (p *natsPart) restoreCursors() (err error) {
	ctx, cancel := context.WithTimeout(p.lease.attempts, partTimeout)
	defer cancel()
	p.mu.Lock()
	views := maps.Clone(p.views)
	p.mu.Unlock()
	for target, v := range views {
		if target != Glance {
			err = errors.Join(err, v.restoreCursor(ctx, target))
		}
	}
	return err
}

// restoreCursor writes the cursor back, where it is gone or was made by who did not know it.
func (v *natsView) restoreCursor(ctx context.Context, target string) error {
	v.mu.Lock()
	revision := v.revision
	v.mu.Unlock()
	if revision == 0 {
		return nil // it was not opened
	}
	var f owned
	there, err := v.n.read(ctx, cursorKey(v.index, target), &f)
	if err != nil || there > 0 && f.Owner != "" {
		return err
	}
	v.n.options.Log.Warn("a cursor was gone, and is written back", "target", target, "partition", v.index)
	v.saving.Lock()
	defer v.saving.Unlock()
	v.mu.Lock()
	latest := v.cursor
	v.mu.Unlock()
	if err := v.writeCursor(ctx, target, latest); err != nil {
		return fmt.Errorf("write the cursor of target %s back: %w", target, err)
	}
	return nil
}
