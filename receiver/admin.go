package receiver

import (
	"fmt"
	"maps"
	"slices"

	"github.com/pbxhook/pbxhook/receiver/admin"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/journal"
	"github.com/pbxhook/pbxhook/receiver/provider"
	"github.com/pbxhook/pbxhook/receiver/render"
)

var _ admin.Service = (*Receiver)(nil)

const scanned = 1_000 // events that are looked at in one reading of the journal

// Webhooks implements admin.Service.
func (r *Receiver) Webhooks() []admin.Webhook {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]admin.Webhook, 0, len(r.webhooks))
	for _, id := range slices.Sorted(maps.Keys(r.webhooks)) {
		w := r.webhooks[id]
		all = append(all, admin.Webhook{Namespace: w.namespace, Name: w.name})
	}
	return all
}

func (r *Receiver) find(w admin.Webhook) (*webhook, error) {
	if found := r.atWork(w.String()); found != nil {
		return found, nil
	}
	return nil, fmt.Errorf("%w: no webhook %s runs here", admin.ErrNotFound, w)
}

// chosen are the targets that a selection is about, by name.
func (w *webhook) chosen(target string) ([]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if target == "" {
		return slices.Sorted(maps.Keys(w.targets)), nil
	}
	if w.targets[target] == nil {
		return nil, fmt.Errorf("%w: webhook %s/%s has no target %s", admin.ErrNotFound, w.namespace, w.name, target)
	}
	return []string{target}, nil
}

// delivering are the parts that this receiver delivers.
func (w *webhook) delivering() []*part {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Collect(maps.Values(w.parts))
}

// DeadLetters implements admin.Service.
func (r *Receiver) DeadLetters(id admin.Webhook, s admin.Selection, limit int) ([]admin.DeadLetter, error) {
	w, err := r.find(id)
	if err != nil {
		return nil, err
	}
	letters := []admin.DeadLetter{}
	err = w.letters(s, func(target string, d journal.DeadLetter) bool {
		letter, _ := w.letter(target, &d)
		letters = append(letters, letter)
		return len(letters) < limit
	})
	return letters, err
}

// letters calls do for each dead letter of a selection, until it returns false.
func (w *webhook) letters(s admin.Selection, do func(target string, d journal.DeadLetter) bool) error {
	targets, err := w.chosen(s.Target)
	if err != nil {
		return err
	}
	for _, target := range targets {
		for after := uint64(0); ; {
			letters, err := w.journal.DeadLetters(target, after, scanned)
			if err != nil {
				return err
			}
			for _, d := range letters {
				after = d.Record.Seq
				newer := !s.GivenUpTo.IsZero() && d.Time.After(s.GivenUpTo)
				if selects(s, headOf(&d.Record)) && !newer && !do(target, d) {
					return nil
				}
			}
			if len(letters) < scanned {
				break
			}
		}
	}
	return nil
}

// selects is whether a selection is about an event.
func selects(s admin.Selection, h journal.Head) bool {
	switch {
	case s.Call != "" && h.Lane != s.Call, s.Event != "" && h.ID != s.Event:
		return false
	case !s.From.IsZero() && h.ReceivedAt.Before(s.From), !s.To.IsZero() && !h.ReceivedAt.Before(s.To):
		return false
	}
	return true
}

// letter describes a dead letter, and decodes its event anew.
func (w *webhook) letter(target string, d *journal.DeadLetter) (admin.DeadLetter, event.Event) {
	w.mu.Lock()
	p := w.plan
	w.mu.Unlock()
	e := provider.Decode(p.manifest.Spec.Provider, &d.Record.Request, *p.ingest.Settings)
	return admin.DeadLetter{
		ID: d.Record.ID, CallID: e.CallID(), Target: target, Attempts: d.Attempts, Status: d.Status,
		Reason: d.Reason, Time: d.Time, Webhook: w.namespace + "/" + w.name,
	}, e
}

// DeadLetter implements admin.Service.
func (r *Receiver) DeadLetter(id admin.Webhook, target, eventID string) (letter admin.DeadLetter, err error) {
	w, err := r.find(id)
	if err != nil {
		return letter, err
	}
	found := false
	err = w.letters(admin.Selection{Target: target, Event: eventID}, func(target string, d journal.DeadLetter) bool {
		var e event.Event
		found = true
		letter, e = w.letter(target, &d)
		letter.Reply = d.Reply
		letter.Event = render.NewCloudEvent(render.Source(w.namespace, w.name), &d.Record, &e).AppendJSON(nil)
		return false
	})
	if err == nil && !found {
		err = fmt.Errorf("%w: target %s has no dead letter %s", admin.ErrNotFound, target, eventID)
	}
	return letter, err
}
