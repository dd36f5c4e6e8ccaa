package controllers

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	appsv1ac "k8s.io/client-go/applyconfigurations/apps/v1"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/controllers/render"
)

func (r *Reconciler) applyService(ctx context.Context, w *v1alpha1.PBXWebhook) error {
	live := &corev1.Service{}
	return r.apply(ctx, w, live, render.Service(w), func() (any, error) { return corev1ac.ExtractService(live, FieldOwner) })
}

func (r *Reconciler) applyClaim(ctx context.Context, w *v1alpha1.PBXWebhook) error {
	live := &corev1.PersistentVolumeClaim{}
	return r.apply(ctx, w, live, render.Claim(w), func() (any, error) { return corev1ac.ExtractPersistentVolumeClaim(live, FieldOwner) })
}

func (r *Reconciler) applyDeployment(ctx context.Context, w *v1alpha1.PBXWebhook) error {
	desired, err := render.Deployment(w, r.Receiver)
	if err != nil {
		return &stalledError{reason: v1alpha1.ReasonInvalidSpec, message: err.Error()}
	}
	live := &appsv1.Deployment{}
	return r.apply(ctx, w, live, desired, func() (any, error) { return appsv1ac.ExtractDeployment(live, FieldOwner) })
}

// apply makes a child what it should be, if it is not. What the operator owns of the live object,
// which owned extracts from it, must be what it wants to own, and every list that it wants must have
// nothing else in it. So nothing is written when nothing differs, also after a restart, and what
// somebody edited or deleted is restored.
func (r *Reconciler) apply(ctx context.Context, w *v1alpha1.PBXWebhook, live client.Object, desired runtime.ApplyConfiguration, owned func() (any, error)) error {
	found, err := r.find(ctx, w, live)
	if err != nil {
		return err
	}
	if !found {
		return r.write(ctx, w, desired)
	}
	extracted, err := owned()
	if err != nil {
		return fmt.Errorf("read what is owned of %s: %w", live.GetName(), err)
	}
	want, err := asTyped(live, desired)
	if err != nil {
		return err
	}
	have, err := asTyped(live, extracted)
	if err != nil {
		return err
	}
	alone, err := covers(want, live)
	if err != nil {
		return err
	}
	if alone && equality.Semantic.DeepEqual(have, want) {
		return nil
	}
	if !alone {
		// a merge patch replaces lists as a whole; server-side apply would leave what others added
		patch, err := json.Marshal(desired)
		if err != nil {
			return fmt.Errorf("write %s: %w", live.GetName(), err)
		}
		if err := r.Patch(ctx, live, client.RawPatch(types.MergePatchType, patch), client.FieldOwner(FieldOwner)); err != nil {
			return err
		}
	}
	return r.write(ctx, w, desired)
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
	key := types.NamespacedName{Namespace: w.Namespace, Name: render.Name(w.Name)}
	err = r.Get(ctx, key, live)
	if apierrors.IsNotFound(err) {
		err = r.Live.Get(ctx, key, live)
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

func kindOf(o client.Object) string {
	switch o.(type) {
	case *corev1.PersistentVolumeClaim:
		return "PersistentVolumeClaim"
	case *corev1.Service:
		return "Service"
	case *appsv1.Deployment:
		return "Deployment"
	default:
		return "Secret"
	}
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
