package receiver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/pbxhook/pbxhook/receiver/admin"
	"github.com/pbxhook/pbxhook/receiver/dispatch"
	"github.com/pbxhook/pbxhook/receiver/journal"
)

const (
	cancelTime = 3 * time.Second        // that the owners of partitions get to say that they have canceled a replay
	cancelPoll = 100 * time.Millisecond // between two looks at whether they have
)

// chosenEvents are the events of a selection for one target.
type chosenEvents struct {
	heads     []journal.Head
	givenUpTo time.Time // when the newest of its dead letters was given up; zero where none are meant
}

// Replay implements admin.Service.
func (r *Receiver) Replay(ctx context.Context, id admin.Webhook, request admin.ReplayRequest) (admin.Replay, error) {
	answer := admin.Replay{Targets: map[string]int64{}, DryRun: request.DryRun}
	w, err := r.find(id)
	if err != nil {
		return answer, err
	}
	events, err := w.selected(ctx, &request.Selection)
	if err != nil {
		return answer, err
	}
	for target, chosen := range events {
		answer.Targets[target] = int64(len(chosen.heads))
		answer.GivenUpTo = later(answer.GivenUpTo, chosen.givenUpTo)
	}
	if request.DryRun {
		return answer, nil
	}
	answer.ID = strings.ReplaceAll(uuid.NewString(), "-", "")[:12]
	for _, target := range slices.Sorted(maps.Keys(events)) {
		n, err := w.replay(ctx, events[target], journal.ReplayRequest{
			Target: target, ID: answer.ID, At: time.Now().UTC(), By: request.By, About: shorten(request.String()), Rate: request.Rate,
			GivenUpTo: events[target].givenUpTo,
		})
		if errors.Is(err, dispatch.ErrTooMany) {
			err = fmt.Errorf("%w: %w", admin.ErrInvalid, err)
		}
		if err != nil {
			return answer, fmt.Errorf("replay %s to target %s (earlier targets, by name, have it; it can be canceled): %w", answer.ID, target, err)
		}
		answer.Targets[target] = n
	}
	w.log.Info("replay", "replay", answer.ID, "targets", answer.Targets, "rate", request.Rate)
	return answer, nil
}

// maxAbout bounds what is remembered of which events a replay is about, in bytes.
const maxAbout = 200

func shorten(text string) string {
	if len(text) <= maxAbout {
		return text
	}
	return strings.ToValidUTF8(text[:maxAbout], "") + "…"
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// selected returns the events of a selection for each target that it is about, in order: those that go out when they
// are replayed. Errors: admin.ErrNotFound, admin.ErrInvalid where they are too many, the journal's.
func (w *webhook) selected(ctx context.Context, s *admin.Selection) (map[string]chosenEvents, error) {
	targets, err := w.chosen(s.Target)
	if err != nil {
		return nil, err
	}
	events := map[string]chosenEvents{}
	if s.DeadLetters {
		err = w.letters(*s, func(target string, d journal.DeadLetter) bool {
			chosen := events[target]
			chosen.heads = append(chosen.heads, headOf(&d.Record))
			chosen.givenUpTo = later(chosen.givenUpTo, d.Time)
			events[target] = chosen
			return len(chosen.heads) <= dispatch.MaxReplayed
		})
	} else {
		var heads []journal.Head
		heads, err = w.storedEvents(ctx, s)
		for _, target := range targets {
			events[target] = chosenEvents{heads: heads}
		}
	}
	if err != nil {
		return nil, err
	}
	for target, chosen := range events {
		if len(chosen.heads) > dispatch.MaxReplayed {
			return nil, fmt.Errorf("%w: more than %d events for target %s, which is what one replay takes: narrow it by --call, --from or --to", admin.ErrInvalid, dispatch.MaxReplayed, target)
		}
		if w.shared != nil && s.DeadLetters { // their cursors may not be written yet: their owner leaves out what is on its way
			continue
		}
		done, _ := w.look(ctx, target, chosen.heads)
		if done == nil {
			return nil, fmt.Errorf("target %s: its deliveries could not be asked what they are done with; try again", target)
		}
		chosen.heads = slices.DeleteFunc(slices.Clone(chosen.heads), func(h journal.Head) bool { return !done[h.Seq] })
		events[target] = chosen
	}
	return events, nil
}

// storedEvents returns the stored events of a selection, in order, and no more than one over what a replay takes.
func (w *webhook) storedEvents(ctx context.Context, s *admin.Selection) (all []journal.Head, err error) {
	for after := uint64(0); ; {
		heads, err := w.journal.Heads(after, scanned)
		if err = cmp.Or(err, ctx.Err()); err != nil {
			return nil, err
		}
		for _, h := range heads {
			after = h.Seq
			if selects(*s, h) {
				all = append(all, h)
			}
		}
		if len(heads) < scanned || len(all) > dispatch.MaxReplayed {
			return all, nil
		}
	}
}

// replay hands events to a target again: by its dispatcher, or where receivers share the journal by those of the
// partitions' owners, whichever these are. It returns how many, when that is durable.
func (w *webhook) replay(ctx context.Context, events chosenEvents, request journal.ReplayRequest) (int64, error) {
	parts := map[int]journal.Ranges{}
	for _, h := range events.heads {
		part := 0
		if w.shared != nil {
			part = journal.PartitionOf(h)
		}
		seqs := parts[part]
		seqs.Add(h.Seq)
		parts[part] = seqs
	}
	if len(parts) == 0 {
		return 0, nil
	}
	if w.shared != nil {
		return int64(len(events.heads)), w.shared.Replay(ctx, request, parts)
	}
	for _, pt := range w.delivering() {
		if d := pt.dispatcher(request.Target); d != nil {
			request.Seqs = parts[pt.index]
			return d.Replay(ctx, request)
		}
	}
	return 0, nil
}

// Replays implements admin.Service.
func (r *Receiver) Replays(ctx context.Context, id admin.Webhook) ([]admin.ReplayState, error) {
	w, err := r.find(id)
	if err != nil {
		return nil, err
	}
	byID := map[string]*admin.ReplayState{}
	for _, one := range w.withPrevious() {
		replays, err := one.replays(ctx)
		if err != nil {
			return nil, fmt.Errorf("list the replays: %w", err)
		}
		for target, all := range replays {
			for i := range all {
				addReplay(byID, w.id(), target, &all[i])
			}
		}
	}
	all := []admin.ReplayState{}
	for _, state := range byID {
		slices.SortFunc(state.Targets, func(a, b admin.ReplayTarget) int { return cmp.Compare(a.Target, b.Target) })
		all = append(all, *state)
	}
	slices.SortFunc(all, func(a, b admin.ReplayState) int {
		return cmp.Or(b.Begun.Compare(a.Begun), cmp.Compare(a.ID, b.ID))
	})
	return all, nil
}

// withPrevious returns the webhook, and the one over its previous journal while that is being delivered.
func (w *webhook) withPrevious() []*webhook {
	all := []*webhook{w}
	if f := w.before(); f != nil {
		all = append(all, f.webhook)
	}
	return all
}

// replays returns the replays by target; one is there once for each partition.
func (w *webhook) replays(ctx context.Context) (map[string][]journal.Replay, error) {
	if w.shared != nil {
		return w.shared.Replays(ctx)
	}
	targets, err := w.chosen("")
	if err != nil {
		return nil, err
	}
	all := map[string][]journal.Replay{}
	for _, pt := range w.delivering() {
		for _, target := range targets {
			d := pt.dispatcher(target)
			if d == nil {
				continue
			}
			replays, err := d.Replays(ctx)
			if err != nil {
				return nil, err
			}
			all[target] = append(all[target], replays...)
		}
	}
	return all, nil
}

// addReplay adds what one partition knows of a replay to a target.
func addReplay(byID map[string]*admin.ReplayState, webhook, target string, r *journal.Replay) {
	state := byID[r.ID]
	if state == nil {
		state = &admin.ReplayState{ID: r.ID, Webhook: webhook, What: r.About, By: r.By, Begun: r.At, Ended: r.Ended, Rate: r.Rate, Phase: admin.ReplayFinished}
		byID[r.ID] = state
	}
	switch {
	case r.Running():
		state.Phase, state.Ended = admin.ReplayRunning, time.Time{}
	case state.Phase != admin.ReplayRunning:
		state.Ended = later(state.Ended, r.Ended)
		if r.Canceled {
			state.Phase = admin.ReplayCanceled
		}
	}
	counts := admin.ReplayProgress{Total: r.Total, Failed: r.Failed, Remaining: r.Remaining, Done: r.Total - r.Failed - r.Remaining}
	state.Add(counts)
	i := slices.IndexFunc(state.Targets, func(t admin.ReplayTarget) bool { return t.Target == target })
	if i < 0 {
		i = len(state.Targets)
		state.Targets = append(state.Targets, admin.ReplayTarget{Target: target})
	}
	state.Targets[i].Add(counts)
}

// CancelReplay implements admin.Service.
func (r *Receiver) CancelReplay(ctx context.Context, id admin.Webhook, replay string) (admin.ReplayState, error) {
	w, err := r.find(id)
	if err != nil {
		return admin.ReplayState{}, err
	}
	found := false
	for _, one := range w.withPrevious() {
		here, err := one.cancelReplay(ctx, replay)
		if err != nil {
			return admin.ReplayState{}, fmt.Errorf("cancel replay %s: %w", replay, err)
		}
		found = found || here
	}
	if !found {
		return admin.ReplayState{}, fmt.Errorf("%w: %s has no replay %s; pbxhook replay list shows them", admin.ErrNotFound, id, replay)
	}
	state, err := r.awaitCanceled(ctx, id, replay)
	w.log.Info("replay canceled", "replay", replay, "notSent", state.Remaining)
	return state, err
}

// cancelReplay has the targets' dispatchers, or where receivers share the journal those of the partitions' owners,
// cancel a replay, and reports whether there is one.
func (w *webhook) cancelReplay(ctx context.Context, replay string) (found bool, err error) {
	if w.shared != nil {
		return w.shared.CancelReplay(ctx, replay)
	}
	targets, err := w.chosen("")
	if err != nil {
		return false, err
	}
	for _, pt := range w.delivering() {
		for _, target := range targets {
			d := pt.dispatcher(target)
			if d == nil {
				continue
			}
			_, here, err := d.CancelReplay(ctx, journal.ReplayRequest{Target: target, ID: replay})
			if err != nil {
				return found, err
			}
			found = found || here
		}
	}
	return found, nil
}

// awaitCanceled returns a replay once its owners have canceled it, or how far it is after a while: the request is
// durable, and an owner that is away takes it when it is back.
func (r *Receiver) awaitCanceled(ctx context.Context, id admin.Webhook, replay string) (admin.ReplayState, error) {
	for end := time.Now().Add(cancelTime); ; {
		all, err := r.Replays(ctx, id)
		if err != nil {
			return admin.ReplayState{}, err
		}
		i := slices.IndexFunc(all, func(s admin.ReplayState) bool { return s.ID == replay })
		switch {
		case i < 0: // it was forgotten meanwhile
			return admin.ReplayState{ID: replay, Webhook: id.String(), Phase: admin.ReplayCanceled}, nil
		case all[i].Phase != admin.ReplayRunning || time.Now().After(end):
			return all[i], nil
		}
		select {
		case <-ctx.Done():
			return all[i], ctx.Err()
		case <-time.After(cancelPoll):
		}
	}
}

// DropDeadLetters implements admin.Service.
func (r *Receiver) DropDeadLetters(id admin.Webhook, request admin.DropRequest) (admin.Drop, error) {
	answer := admin.Drop{Targets: map[string]int64{}, DryRun: request.DryRun}
	w, err := r.find(id)
	if err != nil {
		return answer, err
	}
	request.DeadLetters = true
	seqs := map[string][]uint64{}
	if err := w.letters(request.Selection, func(target string, d journal.DeadLetter) bool {
		seqs[target] = append(seqs[target], d.Record.Seq)
		answer.Targets[target]++
		answer.GivenUpTo = later(answer.GivenUpTo, d.Time)
		return true
	}); err != nil || request.DryRun {
		return answer, err
	}
	for _, target := range slices.Sorted(maps.Keys(seqs)) {
		if err := w.journal.DropDeadLetters(target, seqs[target]); err != nil {
			return answer, fmt.Errorf("drop dead letters of target %s: %w", target, err)
		}
		answer.Dropped += int64(len(seqs[target]))
	}
	w.log.Info("dead letters dropped", "targets", answer.Targets)
	return answer, nil
}
