package controllers

import (
	"context"
	"fmt"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/controllers/drift"
	"github.com/pbxhook/pbxhook/controllers/render"
)

const (
	// rollTime is for how long one roll keeps a place: one that hangs does not hold up all others.
	rollTime = 2 * time.Minute
	// rollRetry is when a webhook whose roll has to wait asks again.
	rollRetry = 3 * time.Second
	// rollPercent is the share of webhooks that roll at a time, unless Reconciler.RollPercent says otherwise.
	rollPercent = 10
)

// rolls bounds how many receivers are replaced at a time because of a change that concerns all of them, such as an
// upgrade of the operator: many at once would be in each other's way, and each PBX would find nobody for longer. It is
// safe for concurrent use.
type rolls struct {
	mu    sync.Mutex
	since map[types.NamespacedName]time.Time
}

// begin reports whether a webhook may roll now: it has a place, or takes one of those that are free.
func (r *rolls) begin(webhook types.NamespacedName, places int, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.since == nil {
		r.since = map[types.NamespacedName]time.Time{}
	}
	for other, since := range r.since {
		if now.Sub(since) >= rollTime {
			delete(r.since, other)
		}
	}
	if _, has := r.since[webhook]; !has && len(r.since) >= places {
		return false
	}
	r.since[webhook] = now
	return true
}

// end gives a webhook's place back.
func (r *rolls) end(webhook types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.since, webhook)
}

// waitsToRoll reports whether a webhook's pod template would change with that of all others, and no place is free. One
// that its author changed, and one that is not Ready anyway, does not wait.
func (r *Reconciler) waitsToRoll(ctx context.Context, w *v1alpha1.PBXWebhook, c *child, seen *observation) (bool, error) {
	if _, ok := c.live.(*appsv1.Deployment); !ok || c.desired == nil || seen.readyBefore != w.Generation || !render.Enabled(w) {
		return false, nil
	}
	live := &appsv1.Deployment{}
	if err := r.Get(ctx, childKey(w), live); err != nil {
		return false, client.IgnoreNotFound(err)
	}
	desired, err := stamped(c.desired)
	if err != nil || live.Annotations[annotationApplied] == desired.GetAnnotations()[annotationApplied] {
		return false, err
	}
	if want, err := likeLive(desired, live); err != nil {
		return false, fmt.Errorf("compare the Deployment: %w", err)
	} else if same, err := sameTemplate(want, live); err != nil || same {
		return false, err
	}
	webhooks := &v1alpha1.PBXWebhookList{}
	if err := r.List(ctx, webhooks, client.UnsafeDisableDeepCopy); err != nil {
		return false, fmt.Errorf("count the webhooks: %w", err)
	}
	percent := r.RollPercent
	if percent <= 0 {
		percent = rollPercent
	}
	if r.rolls.begin(client.ObjectKeyFromObject(w), max(1, len(webhooks.Items)*percent/100), r.now()) {
		log.FromContext(ctx).Info("rolling: the pod template changes for all webhooks")
		return false, nil
	}
	seen.lookAgain(rollRetry)
	return true, nil
}

// sameTemplate reports whether a Deployment's pods are as wanted already.
func sameTemplate(want map[string]any, live *appsv1.Deployment) (bool, error) {
	have, err := runtime.DefaultUnstructuredConverter.ToUnstructured(live)
	if err != nil {
		return false, fmt.Errorf("compare the Deployment: %w", err)
	}
	template := func(of map[string]any) map[string]any {
		found, _, _ := unstructured.NestedMap(of, "spec", "template")
		return map[string]any{"template": found}
	}
	found, err := drift.Find(template(want), template(have), nil, FieldOwner, nil)
	return err == nil && found.None(), err
}

// noteRolled gives the place back when the receivers of now take events.
func (r *Reconciler) noteRolled(w *v1alpha1.PBXWebhook, seen *observation) {
	if c := readyOf(w); seen.blocked == nil && !rolling(seen) && !seen.rollWaits && (c == nil || c.Status == "True") {
		r.rolls.end(client.ObjectKeyFromObject(w))
	}
}
