package controllers

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/pbxhook/pbxhook/api/statusz"
	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/controllers/render"
)

// countersEvery is how often counters alone are written to the status, at most.
const countersEvery = 5 * time.Minute

// report patches the status once, if there is something to say: conditions at once, counters alone
// at most every five minutes.
func (r *Reconciler) report(ctx context.Context, w *v1alpha1.PBXWebhook, seen *observation) error {
	known := r.known.get(w)
	if known.status != nil { // the cache may not have the last one yet
		known.status.DeepCopyInto(&w.Status)
	}
	before := w.DeepCopy()
	summarize(w, seen, metav1.NewTime(r.now()))
	r.steady(before, w, &known, seen)
	due := r.now().After(known.countersAt)
	if !due && !spoken(&before.Status, &w.Status) {
		return nil
	}
	if equality.Semantic.DeepEqual(before.Status, w.Status) {
		return nil
	}
	if err := r.Status().Patch(ctx, w, client.MergeFrom(before), client.FieldOwner(FieldOwner)); err != nil {
		return client.IgnoreNotFound(fmt.Errorf("patch the status: %w", err))
	}
	known.status = w.Status.DeepCopy()
	known.countersAt = r.now().Add(countersEvery + rand.N(countersEvery/5))
	r.known.put(w, known)
	r.announce(ctx, before, w)
	return nil
}

// flip is the last time that a webhook was not ready any more, and for which reason.
type flip struct {
	reason string
	at     time.Time
	again  bool // for the same reason as the time before, within a minute
}

// flipTime is how long Ready stays False when it was so twice for the same reason within that time.
const flipTime = time.Minute

// steady has Ready go back to True only when that has held for a while, where it was False for the same reason shortly
// before: a receiver that comes and goes would flip it with every pod. A rollout is no flip.
func (r *Reconciler) steady(before, after *v1alpha1.PBXWebhook, known *remembered, seen *observation) {
	was, is := readyOf(before), readyOf(after)
	if was == nil || is == nil || was.ObservedGeneration != is.ObservedGeneration {
		known.flip = flip{}
		return
	}
	now := r.now()
	switch {
	case was.Status == metav1.ConditionTrue && is.Status != metav1.ConditionTrue:
		known.flip = flip{reason: is.Reason, at: now, again: !rolling(seen) && known.flip.reason == is.Reason && now.Sub(known.flip.at) < flipTime}
		r.known.put(after, *known)
	case was.Status != metav1.ConditionTrue && is.Status == metav1.ConditionTrue && known.flip.again:
		if left := flipTime - now.Sub(known.flip.at); left > 0 {
			after.Status.Conditions = before.DeepCopy().Status.Conditions
			seen.lookAgain(left)
		}
	}
}

func readyOf(w *v1alpha1.PBXWebhook) *metav1.Condition {
	return meta.FindStatusCondition(w.Status.Conditions, v1alpha1.ConditionReady)
}

// spoken is whether a status says something other than different counts. How many pods there are is news
// once the webhook is ready: before, they come and go, and its conditions tell.
func spoken(before, after *v1alpha1.PBXWebhookStatus) bool {
	ready := meta.IsStatusConditionTrue(after.Conditions, v1alpha1.ConditionReady)
	quiet := func(s *v1alpha1.PBXWebhookStatus) *v1alpha1.PBXWebhookStatus {
		s = s.DeepCopy()
		if s.Receiver != nil && !ready {
			s.Receiver.Replicas, s.Receiver.ReadyReplicas = 0, 0
		}
		if s.Events != nil { // the first event is news, the next one is a count
			s.Events = &v1alpha1.EventsStatus{
				Received: min(s.Events.Received, 1), Rejected: min(s.Events.Rejected, 1), Unparsed: min(s.Events.Unparsed, 1),
				OtherVersion: min(s.Events.OtherVersion, 1), Draining: s.Events.Draining,
				URLChecks: min(s.Events.URLChecks, 1),
			}
		}
		for i := range s.Targets {
			t := &s.Targets[i]
			s.Targets[i] = v1alpha1.TargetStatus{
				Name: t.Name, Healthy: t.Healthy, LastError: t.LastError,
				DeadLettered: min(t.DeadLettered, 1), Evicted: min(t.Evicted, 1), ExpressionErrors: min(t.ExpressionErrors, 1),
			}
		}
		return s
	}
	return !equality.Semantic.DeepEqual(quiet(before), quiet(after))
}

// announce emits an event where something changes for the worse, or back: that a webhook is ready, or
// that its targets take their events. That a new one comes up is no news.
func (r *Reconciler) announce(ctx context.Context, before, after *v1alpha1.PBXWebhook) {
	for _, kind := range []string{v1alpha1.ConditionReady, v1alpha1.ConditionTargetsHealthy} {
		was := meta.FindStatusCondition(before.Status.Conditions, kind)
		is := meta.FindStatusCondition(after.Status.Conditions, kind)
		if is == nil || (was != nil && was.Status == is.Status && was.Reason == is.Reason) {
			continue
		}
		log.FromContext(ctx).Info("condition changed", "condition", kind, "status", is.Status, "reason", is.Reason, "generation", after.Generation)
		switch {
		case is.Status == metav1.ConditionFalse && is.Reason != v1alpha1.ReasonProgressing:
			r.Events.Eventf(after, nil, corev1.EventTypeWarning, is.Reason, "Reconcile", "%s", is.Message)
		case is.Status == metav1.ConditionTrue && was != nil && was.Status == metav1.ConditionFalse && was.Reason != v1alpha1.ReasonProgressing:
			r.Events.Eventf(after, nil, corev1.EventTypeNormal, kind, "Reconcile", "%s", is.Message)
		}
	}
}

// summarize makes the status of what was seen.
func summarize(w *v1alpha1.PBXWebhook, seen *observation, now metav1.Time) {
	s := &conditions{webhook: w, now: now, held: map[string]bool{}}
	w.Status.ObservedGeneration = w.Generation
	s.journal(seen)
	if seen.blocked == nil {
		w.Status.Address, w.Status.Endpoints = address(seen.exposure.url), endpoints(w, seen.exposure.url)
		s.credentials(seen.configuration)
		s.receiver(seen)
		s.configuration(seen)
		s.targets(seen)
		s.exposed(seen)
		counts(w, seen, now)
	}
	s.ready(seen)
	slices.SortFunc(w.Status.Conditions, func(a, b metav1.Condition) int { return order(a.Type) - order(b.Type) })
}

// order puts the summary first.
func order(condition string) int {
	return slices.Index([]string{
		v1alpha1.ConditionReady, v1alpha1.ConditionDisabled, v1alpha1.ConditionStalled, v1alpha1.ConditionReconciling,
		v1alpha1.ConditionCredentialsResolved, v1alpha1.ConditionReceiverAvailable, v1alpha1.ConditionConfigurationApplied,
		v1alpha1.ConditionExposed, v1alpha1.ConditionJournalDurable, v1alpha1.ConditionTargetsHealthy,
	}, condition)
}

// address is what to paste into the PBX; nil while there is none.
func address(url string) *v1alpha1.Address {
	if url == "" {
		return nil
	}
	return &v1alpha1.Address{URL: url}
}

// endpoints are the addresses of the triggers, where the provider has one webhook for each.
func endpoints(w *v1alpha1.PBXWebhook, url string) []v1alpha1.Endpoint {
	if w.Spec.Provider != v1alpha1.Acefone || url == "" {
		return nil
	}
	var list []v1alpha1.Endpoint
	for _, name := range slices.Sorted(maps.Keys(v1alpha1.AcefonePaths)) {
		if len(w.Spec.Events) == 0 || slices.Contains(w.Spec.Events, name) {
			list = append(list, v1alpha1.Endpoint{Event: name, URL: url + "/" + v1alpha1.AcefonePaths[name]})
		}
	}
	return list
}

// counts copies what was counted: of pods as they are now, and by the receivers. Without an answer the last
// counts stay.
func counts(w *v1alpha1.PBXWebhook, seen *observation, now metav1.Time) {
	receiver := &v1alpha1.ReceiverStatus{Selector: labels.SelectorFromSet(render.Selector(w)).String(), ReadyReplicas: int32(seen.receivers.available)}
	for i := range seen.pods {
		if seen.pods[i].DeletionTimestamp == nil && !ended(&seen.pods[i]) {
			receiver.Replicas++
		}
	}
	receiver.Replicas = max(receiver.Replicas, receiver.ReadyReplicas)
	w.Status.Receiver = receiver
	if seen.receivers.report != nil {
		keepPending(w.Status, seen.receivers.report)
		w.Status.Events = seen.receivers.report.Events.DeepCopy()
		w.Status.Targets = sinceWhen(w.Status.Targets, seen.receivers.report.Targets, now)
	}
}

// keepPending has the counts of what waits stay as they were where a receiver does not know them yet.
func keepPending(last v1alpha1.PBXWebhookStatus, report *statusz.Webhook) {
	if !report.PendingUnknown {
		return
	}
	if last.Events != nil {
		report.Events.Pending = last.Events.Pending
	}
	for i := range report.Targets {
		t := &report.Targets[i]
		if known := slices.IndexFunc(last.Targets, func(l v1alpha1.TargetStatus) bool { return l.Name == t.Name }); known >= 0 {
			t.Pending, t.OldestPendingTime = last.Targets[known].Pending, last.Targets[known].OldestPendingTime
		}
	}
}

// sinceWhen says of each target that is not healthy since when, as far as the last status knows.
func sinceWhen(before, targets []v1alpha1.TargetStatus, now metav1.Time) []v1alpha1.TargetStatus {
	targets = slices.Clone(targets)
	for i := range targets {
		t := &targets[i]
		t.UnhealthySince = nil
		if t.Healthy {
			continue
		}
		t.UnhealthySince = &now
		for _, last := range before {
			if last.Name == t.Name && !last.Healthy && last.UnhealthySince != nil {
				t.UnhealthySince = last.UnhealthySince
			}
		}
	}
	return targets
}
