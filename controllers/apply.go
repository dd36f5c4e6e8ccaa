package controllers

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/controllers/render"
)

// apply makes a child what it should be, if it is not. It carries the hash of what was applied last: so
// nothing is written when nothing differs, also after a restart. What somebody edited or deleted is
// restored, and a child that is not wanted any more is deleted.
func (r *Reconciler) apply(ctx context.Context, w *v1alpha1.PBXWebhook, c *child) (written bool, err error) {
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
	if found {
		whole, err := covers(desired, c.live)
		if err != nil || whole {
			return false, err
		}
		if err := r.restore(ctx, desired, c.live); err != nil {
			return false, err
		}
	}
	return true, r.write(ctx, w, client.ApplyConfigurationFromUnstructured(desired))
}

// restore takes out what somebody added to a list that the operator writes, which server-side apply would
// leave: a merge patch replaces lists as a whole.
func (r *Reconciler) restore(ctx context.Context, desired *unstructured.Unstructured, live client.Object) error {
	if live.GetAnnotations()[annotationApplied] != desired.GetAnnotations()[annotationApplied] {
		return nil // something else is wanted than last time
	}
	patch, err := json.Marshal(desired)
	if err != nil {
		return fmt.Errorf("write %s: %w", live.GetName(), err)
	}
	return r.Patch(ctx, live, client.RawPatch(types.MergePatchType, patch), client.FieldOwner(FieldOwner))
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

// covers is whether an object has all that is wanted, and in each wanted list nothing else.
func covers(desired *unstructured.Unstructured, live client.Object) (bool, error) {
	want, err := likeLive(desired, live)
	if err != nil {
		return false, fmt.Errorf("compare %s: %w", live.GetName(), err)
	}
	have, err := runtime.DefaultUnstructuredConverter.ToUnstructured(live)
	if err != nil {
		return false, fmt.Errorf("compare %s: %w", live.GetName(), err)
	}
	return covered(want["spec"], have["spec"]) && covered(want["metadata"], have["metadata"]), nil
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
