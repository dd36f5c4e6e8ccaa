package controllers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/controllers/drift"
	"github.com/pbxhook/pbxhook/controllers/render"
)

// apply makes a child what it should be, if it is not. A child that is not wanted any more is deleted.
func (r *Reconciler) apply(ctx context.Context, w *v1alpha1.PBXWebhook, c *child, seen *observation) (written bool, err error) {
	if c.desired == nil {
		return r.prune(ctx, w, c.live)
	}
	desired, err := stamped(c.desired)
	if err != nil {
		return false, err
	}
	found, err := r.find(ctx, w, c.live)
	if err != nil {
		return false, err
	}
	if !found {
		c.live = nil
	}
	return r.converge(ctx, w, desired, c.live, seen)
}

// converge writes an object where it is not as desired; a nil live one is created. It carries the hash of what was
// applied last: so nothing is written when nothing differs, also after a restart. What admission rewrote is
// accepted, and what a person or another controller changed is restored: see package drift.
func (r *Reconciler) converge(ctx context.Context, w *v1alpha1.PBXWebhook, desired *unstructured.Unstructured, live client.Object, seen *observation) (written bool, err error) {
	if live == nil {
		return r.write(ctx, w, desired, seen)
	}
	want, err := likeLive(desired, live)
	if err != nil {
		return false, fmt.Errorf("compare %s: %w", live.GetName(), err)
	}
	have, err := runtime.DefaultUnstructuredConverter.ToUnstructured(live)
	if err != nil {
		return false, fmt.Errorf("compare %s: %w", live.GetName(), err)
	}
	kind := desired.GetKind()
	found, err := drift.Find(want, have, live.GetManagedFields(), FieldOwner, left(kind))
	if err != nil || found.None() && len(found.Accepted) == 0 && !stale(w, live) {
		return false, err
	}
	// the cache may be behind, and does not have all managed fields
	now := &unstructured.Unstructured{}
	now.SetGroupVersionKind(desired.GroupVersionKind())
	if err := r.Live.Get(ctx, client.ObjectKeyFromObject(live), now); err != nil {
		return false, fmt.Errorf("read %s %s: %w", kind, live.GetName(), err)
	}
	if found, err = drift.Find(want, now.Object, now.GetManagedFields(), FieldOwner, left(kind)); err != nil {
		return false, err
	}
	if now.GetAnnotations()[annotationApplied] != desired.GetAnnotations()[annotationApplied] {
		return r.change(ctx, w, desired, want, now, found, seen)
	}
	if found.None() && !stale(w, now) {
		return false, nil // what admission rewrote
	}
	return r.restore(ctx, w, desired, want, now, found, seen)
}

// change applies what is wanted now and was not before.
func (r *Reconciler) change(ctx context.Context, w *v1alpha1.PBXWebhook, desired *unstructured.Unstructured, want map[string]any, now *unstructured.Unstructured, found *drift.Drift, seen *observation) (bool, error) {
	if found.NeedsPatch() || stale(w, now) {
		if patched, err := r.patch(ctx, w, want, now, found, seen); err != nil || !patched {
			return false, err
		}
	}
	written, err := r.write(ctx, w, desired, seen)
	if written {
		r.announceAdopted(ctx, w, now, found)
	}
	return written, err
}

// restore makes an object as it was applied again, and says who had changed it.
func (r *Reconciler) restore(ctx context.Context, w *v1alpha1.PBXWebhook, desired *unstructured.Unstructured, want map[string]any, now *unstructured.Unstructured, found *drift.Drift, seen *observation) (bool, error) {
	kind := now.GetKind()
	if wait := r.guard.restore(client.ObjectKeyFromObject(w), kind, r.now()); wait > 0 {
		seen.lookAgain(wait)
		return false, nil
	}
	if found.NeedsPatch() || stale(w, now) {
		if patched, err := r.patch(ctx, w, want, now, found, seen); err != nil || !patched {
			return false, err
		}
	}
	written, err := r.write(ctx, w, desired, seen)
	if err != nil || !written {
		return written, err
	}
	if message := restoredMessage(kind, found); message != "" {
		log.FromContext(ctx).Info("restored", "kind", kind, "object", now.GetName(), "message", message)
		r.Events.Eventf(w, now, corev1.EventTypeWarning, v1alpha1.ReasonRestored, "Reconcile", "%s", message)
	}
	r.announceAdopted(ctx, w, now, found)
	return true, nil
}

// Events of one reason are told apart by the object that they are related to.
//
// announceAdopted says that an object of the operator's own had lost its owner, or had one that is gone. A claim has
// an owner only where it goes with the webhook.
func (r *Reconciler) announceAdopted(ctx context.Context, w *v1alpha1.PBXWebhook, now *unstructured.Unstructured, found *drift.Drift) {
	lost := now.GetKind() != "PersistentVolumeClaim" && slices.ContainsFunc(found.Changed, func(f drift.Field) bool {
		return strings.HasPrefix(f.String(), "metadata.ownerReferences")
	})
	if !lost && !stale(w, now) {
		return
	}
	log.FromContext(ctx).Info("adopted", "kind", now.GetKind(), "object", now.GetName())
	r.Events.Eventf(w, now, corev1.EventTypeNormal, v1alpha1.ReasonAdopted, "Reconcile",
		"the %s %s is this PBXWebhook's again: its owner reference was missing, or that of a deleted PBXWebhook", now.GetKind(), now.GetName())
}

// patch takes out what server-side apply would leave, and puts in all that is wanted at the same time, since the API
// server may reject the one without the other.
func (r *Reconciler) patch(ctx context.Context, w *v1alpha1.PBXWebhook, want map[string]any, now *unstructured.Unstructured, found *drift.Drift, seen *observation) (bool, error) {
	content, err := found.Fix(want, now.Object, now.GetManagedFields(), FieldOwner)
	if err != nil {
		return false, err
	}
	fixed := &unstructured.Unstructured{Object: content}
	fixed.SetOwnerReferences(slices.DeleteFunc(fixed.GetOwnerReferences(), func(o metav1.OwnerReference) bool { return staleOwner(w, o) }))
	fixed.SetManagedFields(nil)
	annotations := fixed.GetAnnotations() // what was applied last is for server-side apply to say
	annotations[annotationApplied] = now.GetAnnotations()[annotationApplied]
	fixed.SetAnnotations(annotations)
	base := now.DeepCopy()
	base.SetManagedFields(nil)
	if wait := r.guard.write(client.ObjectKeyFromObject(w), now.GetKind(), "patch", r.now()); wait > 0 {
		seen.lookAgain(wait)
		return false, nil
	}
	err = r.Patch(ctx, fixed, client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{}), client.FieldOwner(FieldOwner))
	if apierrors.IsConflict(err) { // somebody wrote it in between
		seen.lookAgain(pollSoon)
		return false, nil
	}
	if refused := refusal(err, now.GetKind(), now.GetName()); refused != nil {
		return false, refused
	}
	return err == nil, err
}

// write applies an object. It returns false where the object has been written too often: later.
func (r *Reconciler) write(ctx context.Context, w *v1alpha1.PBXWebhook, desired *unstructured.Unstructured, seen *observation) (bool, error) {
	if wait := r.guard.write(client.ObjectKeyFromObject(w), desired.GetKind(), desired.GetAnnotations()[annotationApplied], r.now()); wait > 0 {
		log.FromContext(ctx).Info("held back: written too often", "kind", desired.GetKind(), "wait", wait.String())
		seen.lookAgain(wait)
		return false, nil
	}
	err := r.Apply(ctx, client.ApplyConfigurationFromUnstructured(desired), client.FieldOwner(FieldOwner), client.ForceOwnership)
	if refused := refusal(err, desired.GetKind(), desired.GetName()); refused != nil {
		return false, refused
	}
	return err == nil, err
}

// left says which fields that others add to an object of a kind stay.
func left(kind string) func(path string) bool {
	return func(path string) bool {
		switch kind {
		case "Deployment": // kubectl rollout restart, and what mutates pods by their annotations
			return strings.HasPrefix(path, "spec.template.metadata.annotations")
		case "Service": // some load balancers are told their address there
			return path == "spec.loadBalancerIP" || path == "spec.healthCheckNodePort"
		case "PersistentVolumeClaim": // its volume
			return true
		}
		return false
	}
}

// restoredMessage says who had changed what, naming at most five fields of each; empty where nobody else had a part.
func restoredMessage(kind string, found *drift.Drift) string {
	by := map[string][]string{}
	var names []string
	for _, field := range append(slices.Clone(found.Changed), found.Added...) {
		path := field.String()
		if field.Manager == FieldOwner || strings.HasPrefix(path, "metadata.ownerReferences") {
			continue
		}
		if by[field.Manager] == nil {
			names = append(names, field.Manager)
		}
		by[field.Manager] = append(by[field.Manager], path)
	}
	var told []string
	for _, name := range names {
		fields := by[name]
		list := strings.Join(fields[:min(5, len(fields))], ", ")
		if len(fields) > 5 {
			list = fmt.Sprintf("%s and %d more", list, len(fields)-5)
		}
		if name == "" {
			told = append(told, "somebody had removed "+list)
		} else {
			told = append(told, fmt.Sprintf("%q had changed %s", name, list))
		}
	}
	if len(told) == 0 {
		return ""
	}
	return fmt.Sprintf("the %s is restored: %s. Change the PBXWebhook instead, or stop what rewrites it", kind, strings.Join(told, "; "))
}

// staleOwner reports whether an owner is an earlier webhook of the same name, which is gone: names are unique.
func staleOwner(w *v1alpha1.PBXWebhook, o metav1.OwnerReference) bool {
	return o.Kind == v1alpha1.Kind && strings.HasPrefix(o.APIVersion, v1alpha1.GroupVersion.Group+"/") && o.Name == w.Name && o.UID != w.UID
}

func stale(w *v1alpha1.PBXWebhook, live metav1.Object) bool {
	return slices.ContainsFunc(live.GetOwnerReferences(), func(o metav1.OwnerReference) bool { return staleOwner(w, o) })
}

// annotationApplied is the hash of what the operator applied last.
const annotationApplied = "pbxhook.io/applied"

// stamped is what is to be applied, with its hash.
func stamped(desired any) (*unstructured.Unstructured, error) {
	data, err := json.Marshal(desired)
	if err != nil {
		return nil, fmt.Errorf("write what is wanted: %w", err)
	}
	object := &unstructured.Unstructured{}
	if err := object.UnmarshalJSON(data); err != nil {
		return nil, fmt.Errorf("read what is wanted: %w", err)
	}
	annotations := object.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[annotationApplied] = render.Hash(data)[:32]
	object.SetAnnotations(annotations)
	return object, nil
}

// prune deletes a child that was wanted once. What is not the webhook's stays.
func (r *Reconciler) prune(ctx context.Context, w *v1alpha1.PBXWebhook, live client.Object) (deleted bool, err error) {
	err = r.Get(ctx, childKey(w), live)
	if err != nil || !metav1.IsControlledBy(live, w) || live.GetDeletionTimestamp() != nil {
		return false, client.IgnoreNotFound(err)
	}
	uid := live.GetUID()
	return true, client.IgnoreNotFound(r.Delete(ctx, live, client.Preconditions{UID: &uid}))
}

// find reads a child, and refuses one that the operator did not make. What the cache does not hold
// is looked for in the API server: the cache has labelled objects alone.
func (r *Reconciler) find(ctx context.Context, w *v1alpha1.PBXWebhook, live client.Object) (found bool, err error) {
	err = r.Get(ctx, childKey(w), live)
	if apierrors.IsNotFound(err) || err == nil && !ours(w, live) { // the cache strips managed fields
		err = r.Live.Get(ctx, childKey(w), live)
	}
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, refuseForeign(w, live)
}

// ours reports whether an object was made for this webhook, or for an earlier one of its name: by its owner, by its
// labels, or by who wrote it.
func ours(w *v1alpha1.PBXWebhook, live client.Object) bool {
	if owner := metav1.GetControllerOf(live); owner != nil {
		return owner.UID == w.UID || staleOwner(w, *owner)
	}
	if live.GetLabels()[render.LabelManagedBy] == render.ManagedBy && live.GetLabels()[render.LabelWebhook] == w.Name {
		return true
	}
	return slices.ContainsFunc(live.GetManagedFields(), func(m metav1.ManagedFieldsEntry) bool {
		return m.Manager == FieldOwner && m.Operation == metav1.ManagedFieldsOperationApply && m.Subresource == ""
	})
}

// refuseForeign says whose an object is that is not this webhook's.
func refuseForeign(w *v1alpha1.PBXWebhook, live client.Object) error {
	switch {
	case ours(w, live) && live.GetDeletionTimestamp() != nil && !metav1.IsControlledBy(live, w):
		return errReplacing
	case ours(w, live):
		return nil
	case isClaim(live): // which may hold a journal
		return &blockedError{
			reason:  v1alpha1.ReasonForeignObject,
			message: fmt.Sprintf("a PersistentVolumeClaim named %s exists that pbxhook did not make: name this PBXWebhook otherwise; or, if it holds the journal of this one, give it the labels %s=%s and %s=%s", live.GetName(), render.LabelManagedBy, render.ManagedBy, render.LabelWebhook, w.Name),
		}
	}
	return &blockedError{
		reason:  v1alpha1.ReasonForeignObject,
		message: fmt.Sprintf("a %s named %s exists that pbxhook did not make: delete or rename it, or name this PBXWebhook otherwise", kindOf(live), live.GetName()),
	}
}

func isClaim(o client.Object) bool {
	_, ok := o.(*corev1.PersistentVolumeClaim)
	return ok
}

// kindOf is an object's kind, which typed objects mostly do not carry.
func kindOf(o client.Object) string {
	if kind := o.GetObjectKind().GroupVersionKind().Kind; kind != "" {
		return kind
	}
	return reflect.TypeOf(o).Elem().Name()
}

// likeLive writes what is wanted as an object of the live one's type is written: with 1Gi for 1024Mi.
func likeLive(desired *unstructured.Unstructured, live client.Object) (map[string]any, error) {
	if _, untyped := live.(*unstructured.Unstructured); untyped {
		return desired.Object, nil
	}
	typed := reflect.New(reflect.TypeOf(live).Elem()).Interface()
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(desired.Object, typed); err != nil {
		return nil, err
	}
	return runtime.DefaultUnstructuredConverter.ToUnstructured(typed)
}

// blocks notes an error that is no reason to leave the webhook's other objects as they are.
func (o *observation) blocks(err error) bool {
	var blocked *blockedError
	if !errors.As(err, &blocked) {
		return false
	}
	if o.refused == nil {
		o.refused = blocked
	}
	return true
}

// lookAgain has the webhook looked at again after a time, at the latest.
func (o *observation) lookAgain(after time.Duration) {
	if o.wait == 0 || after < o.wait {
		o.wait = after
	}
}
