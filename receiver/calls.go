package receiver

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/pbxhook/pbxhook/receiver/admin"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/journal"
	"github.com/pbxhook/pbxhook/receiver/render"
)

// Bounds of looking for calls: what is found by then is shown, and how far back it was looked.
const (
	searchTime   = 400 * time.Millisecond
	searchChunk  = 2_000         // events looked at before outcomes are asked for
	aroundEvents = 2_000         // before and after an event of a call, among which its others are
	aroundTime   = 2 * time.Hour // likewise
	listedEvents = 100           // of a call in a list
	detailEvents = 500           // of a call by itself
	idPrefix     = 8             // of an event's id, which is enough to find it by
	askTime      = time.Second   // for a dispatcher to say what it is done with
)

// found is a call that a search is about, by one of its events.
type found struct {
	seq  uint64
	lane string    // empty: the event alone
	at   time.Time // when it was received
}

// listed is a call of a list, whose place is that of the newest event that the search is about.
type listed struct {
	admin.Call
	at time.Time
}

// Calls implements admin.Service.
func (r *Receiver) Calls(ctx context.Context, q admin.CallQuery) (admin.CallPage, error) {
	page := admin.CallPage{Calls: []admin.Call{}}
	limit := cmp.Or(q.Limit, admin.DefaultCalls)
	var all []listed
	var horizon time.Time // up to where all webhooks were looked at
	for _, w := range r.all() {
		if q.Webhook != "" && q.Webhook != w.id() {
			continue
		}
		s := &search{webhook: w, plan: w.current(), query: q, number: digits(q.Text)}
		if err := s.run(ctx, limit); err != nil {
			return page, err
		}
		page.Looked += s.looked
		if s.reached.After(horizon) {
			horizon = s.reached
		}
		calls, err := w.calls(ctx, s.found)
		if err != nil {
			return page, err
		}
		all = append(all, calls...)
	}
	slices.SortStableFunc(all, func(a, b listed) int { return b.at.Compare(a.at) })
	page.Before = horizon
	for i, one := range all {
		if one.at.Before(horizon) {
			break // other webhooks may have calls between
		}
		if i == limit {
			page.Before = all[i-1].at
			break
		}
		page.Calls = append(page.Calls, one.Call)
	}
	return page, nil
}

func (r *Receiver) all() []*webhook {
	r.mu.Lock()
	defer r.mu.Unlock()
	webhooks := make([]*webhook, 0, len(r.webhooks))
	for _, id := range slices.Sorted(maps.Keys(r.webhooks)) {
		webhooks = append(webhooks, r.webhooks[id])
	}
	return webhooks
}

func (w *webhook) id() string { return w.namespace + "/" + w.name }

func (w *webhook) current() *plan {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.plan
}

// fates are what became of some events at a webhook's targets.
type fates struct {
	targets  []string                     // of the webhook, in its order
	attempts map[uint64][]journal.Attempt // by event
	done     map[string]map[uint64]bool   // by target and event; nil where the target cannot be asked
}

func (w *webhook) fates(ctx context.Context, heads []journal.Head) (*fates, error) {
	f := &fates{attempts: map[uint64][]journal.Attempt{}, done: map[string]map[uint64]bool{}}
	if p := w.current(); p != nil {
		for _, t := range p.targets {
			f.targets = append(f.targets, t.spec.Name)
		}
	}
	running, err := w.chosen("")
	if err != nil {
		return nil, err
	}
	var unlogged []journal.Attempt
	within, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	for _, target := range running {
		done, more := w.look(within, target, heads)
		if done == nil {
			continue // what is known of attempts says enough
		}
		f.done[target], unlogged = done, append(unlogged, more...)
	}
	for _, h := range heads { // after the dispatchers were asked, so that nothing falls between
		attempts, err := w.journal.Attempts(h.Seq)
		if err != nil {
			return nil, err
		}
		f.attempts[h.Seq] = attempts
	}
	for _, a := range unlogged {
		if !slices.ContainsFunc(f.attempts[a.Seq], func(b journal.Attempt) bool { return a.Target == b.Target && a.Time.Equal(b.Time) }) {
			f.attempts[a.Seq] = append(f.attempts[a.Seq], a)
		}
	}
	return f, nil
}

// look says which of some events a target is done with, and gives the attempts at them that are not in the delivery
// log yet; nil where nobody can say.
func (w *webhook) look(ctx context.Context, target string, heads []journal.Head) (map[uint64]bool, []journal.Attempt) {
	found := map[uint64]bool{}
	if w.shared != nil { // what others deliver is known from their cursors
		done, err := w.shared.Done(ctx, target, heads)
		if err != nil {
			return nil, nil
		}
		for i, h := range heads {
			found[h.Seq] = done[i]
		}
	}
	byPart := map[int][]uint64{}
	for _, h := range heads {
		index := 0
		if w.shared != nil {
			index = journal.PartitionOf(h)
		}
		byPart[index] = append(byPart[index], h.Seq)
	}
	var unlogged []journal.Attempt
	for _, pt := range w.delivering() {
		d, seqs := pt.dispatcher(target), byPart[pt.index]
		if d == nil || len(seqs) == 0 {
			continue
		}
		done, more, err := d.Look(ctx, seqs)
		if err != nil {
			return nil, nil
		}
		unlogged = append(unlogged, more...)
		for i, seq := range seqs {
			found[seq] = done[i]
		}
	}
	return found, unlogged
}

// headsOf are the heads of events.
func headsOf(events []journal.Record) []journal.Head {
	heads := make([]journal.Head, len(events))
	for i := range events {
		heads[i] = headOf(&events[i])
	}
	return heads
}

func headOf(r *journal.Record) journal.Head {
	return journal.Head{Seq: r.Seq, ID: r.ID, Type: r.Type, Lane: r.Lane, ReceivedAt: r.Request.ReceivedAt}
}

// of are the attempts of an event at a target.
func (f *fates) of(seq uint64, target string) []journal.Attempt {
	return slices.DeleteFunc(slices.Clone(f.attempts[seq]), func(a journal.Attempt) bool { return a.Target != target })
}

func (f *fates) outcome(seq uint64, target string) admin.Outcome {
	attempts := f.of(seq, target)
	done, known := f.done[target][seq]
	switch {
	case len(attempts) == 0 && known && !done:
		return admin.Pending
	case len(attempts) == 0:
		return admin.NotSent
	}
	switch last := attempts[len(attempts)-1]; {
	case known && !done: // also what was delivered, and is replayed
		return admin.Retrying
	case last.Result == journal.Delivered:
		return admin.Delivered
	case last.Result == journal.DeadLettered:
		return admin.DeadLettered
	}
	return admin.Retrying
}

// outcomes are those of an event by target, also of targets that are no more.
func (f *fates) outcomes(seq uint64) map[string]admin.Outcome {
	all := map[string]admin.Outcome{}
	for _, target := range f.targets {
		all[target] = f.outcome(seq, target)
	}
	for _, a := range f.attempts[seq] {
		if _, ok := all[a.Target]; !ok {
			all[a.Target] = f.outcome(seq, a.Target)
		}
	}
	return all
}

// calls describes calls that a search found, with their other events.
func (w *webhook) calls(ctx context.Context, list []found) ([]listed, error) {
	if len(list) == 0 {
		return nil, nil
	}
	byLane := map[string]int{} // its place in the list
	bySeq := map[uint64]int{}
	for i, one := range list {
		bySeq[one.seq] = i
		if one.lane != "" {
			byLane[one.lane] = i
		}
	}
	events := make([][]journal.Record, len(list)) // of each, the newest first
	var trouble error
	newest, oldest := list[0].seq, list[len(list)-1].seq
	err := w.journal.Back(newest+aroundEvents, func(e journal.Stored) bool {
		i, ok := bySeq[e.Seq]
		if !ok && e.Lane != "" {
			i, ok = byLane[e.Lane]
		}
		if ok && len(events[i]) < listedEvents {
			record, err := e.Record()
			trouble = cmp.Or(trouble, err)
			events[i] = append(events[i], record)
		}
		return trouble == nil && e.Seq+aroundEvents > oldest && ctx.Err() == nil
	})
	if err = cmp.Or(err, trouble, ctx.Err()); err != nil {
		return nil, err
	}
	calls := make([]listed, 0, len(list))
	for i := range list {
		if len(events[i]) == 0 { // dropped meanwhile
			continue
		}
		slices.Reverse(events[i])
		call, err := w.call(ctx, events[i])
		if err != nil {
			return nil, err
		}
		calls = append(calls, listed{Call: call, at: list[i].at})
	}
	return calls, nil
}

// call describes a call by its events, in the order received.
func (w *webhook) call(ctx context.Context, events []journal.Record) (admin.Call, error) {
	p := w.current()
	first, last := &events[0], &events[len(events)-1]
	call := admin.Call{
		Webhook: w.id(), ID: first.Lane, Provider: p.manifest.Spec.Provider,
		First: first.Request.ReceivedAt, Last: last.Request.ReceivedAt, Outcomes: map[string]admin.Outcome{},
	}
	if first.Lane == "" {
		call.Event = first.ID
	}
	for i := range events {
		e := p.decode(&events[i])
		call.Types = append(call.Types, e.Type)
		call.Reason = cmp.Or(e.Reason, call.Reason)
		if c := e.Call; c != nil {
			call.Direction = cmp.Or(c.Direction, call.Direction)
			call.From = cmp.Or(call.From, c.From.Number, c.From.Raw)
			call.To = cmp.Or(call.To, c.To.Number, c.To.Raw)
			call.State = cmp.Or(c.State, call.State)
			if c.TalkSeconds != nil {
				call.TalkSeconds = c.TalkSeconds
			}
		}
		if e.Extension != nil && e.Call == nil {
			call.From, call.State = cmp.Or(call.From, e.Extension.Number), cmp.Or(e.Extension.State, call.State)
		}
		if e.SMS != nil {
			call.From, call.To = cmp.Or(e.SMS.From.Number, e.SMS.From.Raw), cmp.Or(e.SMS.To.Number, e.SMS.To.Raw)
		}
	}
	fates, err := w.fates(ctx, headsOf(events))
	if err != nil {
		return call, err
	}
	for i := range events {
		for target, outcome := range fates.outcomes(events[i].Seq) {
			call.Outcomes[target] = outcome.Worse(call.Outcomes[target])
		}
	}
	return call, nil
}

// Call implements admin.Service.
func (r *Receiver) Call(ctx context.Context, id admin.Webhook, callID, eventID string) (detail admin.CallDetail, err error) {
	w, err := r.find(id)
	if err != nil {
		return detail, err
	}
	if callID == "" && eventID == "" {
		return detail, fmt.Errorf("%w: expected the id of a call, or of an event", admin.ErrInvalid)
	}
	events, more, err := w.eventsOf(ctx, callID, eventID)
	if err != nil {
		return detail, err
	}
	if len(events) == 0 {
		return detail, fmt.Errorf("%w: the journal of %s has no call %q", admin.ErrNotFound, id, cmp.Or(callID, eventID))
	}
	if detail.Call, err = w.call(ctx, events); err != nil {
		return detail, err
	}
	detail.More = more
	return detail, w.describe(ctx, &detail, events)
}

// eventsOf are the events of a call, in the order received, or those around one event: of its call, or it
// alone. more says that there are earlier ones.
func (w *webhook) eventsOf(ctx context.Context, callID, eventID string) (events []journal.Record, more bool, err error) {
	var trouble error
	var since time.Time
	err = w.journal.Back(0, func(e journal.Stored) bool {
		if ctx.Err() != nil || !since.IsZero() && since.Sub(e.ReceivedAt) > aroundTime*12 {
			return false
		}
		if mine := callID != "" && e.Lane == callID || callID == "" && e.ID == eventID; !mine {
			return true
		}
		if len(events) == detailEvents {
			more = true
			return false
		}
		since = e.ReceivedAt
		record, err := e.Record()
		trouble = cmp.Or(trouble, err)
		events = append(events, record)
		return trouble == nil && (callID != "" || e.ID != eventID)
	})
	if err = cmp.Or(err, trouble, ctx.Err()); err != nil {
		return nil, false, err
	}
	if callID == "" && len(events) == 1 && events[0].Lane != "" {
		return w.eventsOf(ctx, events[0].Lane, "")
	}
	slices.Reverse(events)
	return events, more, nil
}

// describe says all of a call's events.
func (w *webhook) describe(ctx context.Context, detail *admin.CallDetail, events []journal.Record) error {
	fates, err := w.fates(ctx, headsOf(events))
	if err != nil {
		return err
	}
	detail.Targets = fates.targets
	for target := range detail.Outcomes {
		if !slices.Contains(detail.Targets, target) { // one that is no more
			detail.Targets = append(detail.Targets, target)
		}
	}
	slices.Sort(detail.Targets[len(fates.targets):])
	p := w.current()
	for i := range events {
		r := &events[i]
		e := p.decode(r)
		one := admin.EventDetail{
			ID: r.ID, Type: e.Type, Name: e.Name, ReceivedAt: r.Request.ReceivedAt, Reason: e.Reason,
			Request: admin.Request{Method: r.Request.Method, Path: r.Request.Path, Query: r.Request.Query, Header: r.Request.Header, Body: string(r.Request.Body)},
			Event:   render.NewCloudEvent(render.Source(w.namespace, w.name), r, e).AppendJSON(nil),
		}
		for _, target := range detail.Targets {
			d := admin.Delivery{Target: target, Outcome: fates.outcome(r.Seq, target), Attempts: []admin.Attempt{}}
			for _, a := range fates.of(r.Seq, target) {
				d.Attempts = append(d.Attempts, attemptOf(&a))
			}
			if d.Outcome == admin.NotSent {
				d.Why = p.whyNot(target, e)
			}
			one.Deliveries = append(one.Deliveries, d)
		}
		detail.Events = append(detail.Events, one)
	}
	return nil
}

// whyNot says why an event did not go to a target.
func (p *plan) whyNot(target string, e *event.Event) string {
	t := p.target(target)
	if t == nil {
		return "the target is no more"
	}
	if p.filter == nil || t.filter == nil {
		return t.policy.Problem
	}
	if wanted, _ := p.filter.Wants(e); !wanted {
		return "the webhook's filter does not want it"
	}
	if wanted, _ := t.filter.Wants(e); !wanted {
		return "the target does not want it (eventTypes, expression)"
	}
	return "it is older than the target, or than what the delivery log has"
}

func attemptOf(a *journal.Attempt) admin.Attempt {
	return admin.Attempt{
		Target: a.Target, Time: a.Time, DurationMs: float64(a.Duration.Microseconds()) / 1000, Result: string(a.Result), Status: a.Status,
		Reason: a.Reason, Reply: a.Reply, Next: a.Next, Replay: a.Replay,
	}
}

// Rejected implements admin.Service.
func (r *Receiver) Rejected() []admin.Rejected {
	all := []admin.Rejected{}
	for _, one := range r.ingest.Rejected() {
		all = append(all, admin.Rejected{
			Time: one.Time, Webhook: one.Webhook, Path: one.Path, Code: one.Code, Reason: one.Reason, Hint: one.Hint,
			Method: one.Method, Sender: one.Sender, UserAgent: one.UserAgent, ContentType: one.ContentType,
		})
	}
	return all
}
