package controllers

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/controllers/render"
)

// apply makes a child what it should be, if it is not. What the operator owns of the live object must
// be what it wants to own, and every list that it wants must have nothing else in it. So nothing is
// written when nothing differs, also after a restart, and what somebody edited or deleted is restored.
// A child that is not wanted any more is deleted.
func (r *Reconciler) apply(ctx context.Context, w *v1alpha1.PBXWebhook, c *child) (written bool, err error) {
	if c.desired == nil {
		return r.prune(ctx, w, c.live)
	}
	found, err := r.find(ctx, w, c.live)
	if err != nil {
		return false, err
	}
	if !found {
		return true, r.write(ctx, w, c.desired)
	}
	same, alone, err := c.compare()
	if err != nil {
		return false, fmt.Errorf("compare with what is there: %w", err)
	}
	if same && alone {
		return false, nil
	}
	if !alone {
		// a merge patch replaces lists as a whole; server-side apply would leave what others added
		patch, err := json.Marshal(c.desired)
		if err != nil {
			return false, fmt.Errorf("write %s: %w", c.live.GetName(), err)
		}
		if err := r.Patch(ctx, c.live, client.RawPatch(types.MergePatchType, patch), client.FieldOwner(FieldOwner)); err != nil {
			return false, err
		}
	}
	return true, r.write(ctx, w, c.desired)
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

// write applies an object. What the API server finds invalid, or forbids (a claim that its class does
// not let grow), is for somebody to mend.
func (r *Reconciler) write(ctx context.Context, w *v1alpha1.PBXWebhook, desired runtime.ApplyConfiguration) error {
	err := r.Apply(ctx, desired, client.FieldOwner(FieldOwner), client.ForceOwnership)
	if apierrors.IsInvalid(err) || apierrors.IsForbidden(err) {
		return &stalledError{reason: v1alpha1.ReasonApplyFailed, message: fmt.Sprintf("the API server refused an object of %s: %v", render.Name(w.Name), err)}
	}
	return err
}

// find reads a child, and refuses one that the operator did not make. What the cache does not hold
// is looked for in the API server: the cache has labelled objects alone.
func (r *Reconciler) find(ctx context.Context, w *v1alpha1.PBXWebhook, live client.Object) (found bool, err error) {
	err = r.Get(ctx, childKey(w), live)
	if apierrors.IsNotFound(err) {
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

// refuseForeign says whose an object is that is not this webhook's.
func refuseForeign(w *v1alpha1.PBXWebhook, live client.Object) error {
	controller := metav1.GetControllerOf(live)
	switch {
	case controller != nil && controller.UID == w.UID:
		return nil
	case controller != nil && controller.Kind == v1alpha1.Kind && controller.Name == w.Name:
		return errReplacing
	case controller == nil && isClaim(live) && live.GetLabels()[render.LabelManagedBy] == render.ManagedBy && live.GetLabels()[render.LabelWebhook] == w.Name:
		return nil // a claim that was retained
	}
	return &stalledError{
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

// compare is whether what the operator owns of the live object is what it wants to own, and whether
// nobody added to its lists.
func (c *child) compare() (same, alone bool, err error) {
	want, err := asTyped(c.live, c.desired)
	if err != nil {
		return false, false, err
	}
	alone, err = covers(want, c.live)
	if err != nil {
		return false, false, err
	}
	if c.owned == nil { // a kind without an extractor: its fields never go, so that to cover them is enough
		return true, alone, nil
	}
	extracted, err := c.owned()
	if err != nil {
		return false, false, fmt.Errorf("read what is owned of %s: %w", c.live.GetName(), err)
	}
	have, err := asTyped(c.live, extracted)
	if err != nil {
		return false, false, err
	}
	return equality.Semantic.DeepEqual(have, want), alone, nil
}

// asTyped reads what is written of an object as its own type, in which 1Gi and 1024Mi are the same.
func asTyped(live client.Object, written any) (client.Object, error) {
	data, err := json.Marshal(written)
	if err != nil {
		return nil, fmt.Errorf("compare %s: %w", live.GetName(), err)
	}
	typed := reflect.New(reflect.TypeOf(live).Elem()).Interface().(client.Object)
	if err := json.Unmarshal(data, typed); err != nil {
		return nil, fmt.Errorf("compare %s: %w", live.GetName(), err)
	}
	return typed, nil
}

// covers is whether an object has all that is wanted, and in each wanted list nothing else.
func covers(want, have client.Object) (bool, error) {
	wanted, err := runtime.DefaultUnstructuredConverter.ToUnstructured(want)
	if err != nil {
		return false, fmt.Errorf("compare %s: %w", have.GetName(), err)
	}
	found, err := runtime.DefaultUnstructuredConverter.ToUnstructured(have)
	if err != nil {
		return false, fmt.Errorf("compare %s: %w", have.GetName(), err)
	}
	return covered(wanted["spec"], found["spec"]), nil
}

func covered(want, have any) bool {
	switch want := want.(type) {
	case nil:
		return true
	case map[string]any:
		found, _ := have.(map[string]any)
		for key, value := range want {
			if !covered(value, found[key]) {
				return false
			}
		}
		return true
	case []any:
		found, _ := have.([]any)
		if len(want) != len(found) {
			return false
		}
		for i := range want {
			if !covered(want[i], found[i]) {
				return false
			}
		}
		return true
	default:
		return reflect.DeepEqual(want, have)
	}
}
