package receiver

import (
	"context"
	"strings"

	"github.com/pbxhook/pbxhook/receiver/admin"
	"github.com/pbxhook/pbxhook/receiver/dispatch"
	"github.com/pbxhook/pbxhook/receiver/journal"
)

// Status implements admin.Service.
func (r *Receiver) Status() []admin.Status {
	all := []admin.Status{}
	for _, w := range r.all() {
		all = append(all, w.status())
	}
	return all
}

// elsewhere is how targets fare at other receivers, where these share the journal.
func (w *webhook) elsewhere() map[string]journal.Elsewhere {
	if w.shared == nil {
		return nil
	}
	mine := map[int]bool{}
	for _, pt := range w.delivering() {
		mine[pt.index] = true
	}
	ctx, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()
	all, err := w.shared.Elsewhere(ctx, func(part int) bool { return mine[part] })
	if err != nil {
		w.log.Debug("not known how targets fare at other receivers", "error", err)
	}
	return all
}

func (w *webhook) status() admin.Status {
	report, state, p := w.report(), w.journal.State(), w.current()
	s := admin.Status{
		Webhook: w.id(), Events: report.Events, Targets: []admin.TargetStatus{},
		Journal: admin.JournalStatus{Events: state.Events, Bytes: state.Bytes, MaxBytes: state.MaxBytes, DeadLetters: state.DeadLetters, Problem: w.problem(), Warning: strings.Trim(state.Warning+"; "+state.Damage, "; ")},
	}
	if p != nil {
		s.Provider = p.manifest.Spec.Provider
	}
	elsewhere := w.elsewhere()
	now := map[string]dispatch.Status{}
	w.eachTarget(func(s dispatch.Status, _ int64) { now[s.Name] = s })
	for _, t := range report.Targets {
		target := admin.TargetStatus{TargetStatus: t, PerMinute: now[t.Name].PerMinute, BreakerOpen: now[t.Name].BreakerOpen, Suspended: now[t.Name].Suspended}
		if e, ok := elsewhere[t.Name]; ok {
			target.Pending += e.Pending
			target.Delivered += e.Delivered
			target.DeadLettered += e.DeadLettered
			if last := timeOf(e.LastDelivery); last != nil && (target.LastDeliveryTime == nil || target.LastDeliveryTime.Before(last)) {
				target.LastDeliveryTime = last
			}
		}
		if plan := p.target(t.Name); plan != nil {
			target.Host = plan.host
		}
		s.Targets = append(s.Targets, target)
	}
	return s
}
