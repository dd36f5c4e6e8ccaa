package controllers

import (
	"context"
	"encoding/json"
	"fmt"

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

// apply makes a child what it should be, if it is not: what the operator owns of the live object,
// which owned extracts from it, is compared with what it wants to own. So nothing is written when
// nothing differs, also after a restart, and what somebody edited or deleted is restored.
func (r *Reconciler) apply(ctx context.Context, w *v1alpha1.PBXWebhook, live client.Object, desired runtime.ApplyConfiguration, owned func() (any, error)) error {
	found, err := r.find(ctx, w, live)
	if err != nil {
		return err
	}
	if found {
		same, err := equal(live, desired, owned)
		if err != nil || same {
			return err
		}
	}
	return r.write(ctx, w, desired)
}

// write applies an object. What the API server finds invalid is for somebody to mend.
func (r *Reconciler) write(ctx context.Context, w *v1alpha1.PBXWebhook, desired runtime.ApplyConfiguration) error {
	err := r.Apply(ctx, desired, client.FieldOwner(FieldOwner), client.ForceOwnership)
	if apierrors.IsInvalid(err) {
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

// equal is whether what the operator owns of a live object is what it wants to own. Both are read as
// the object's own type, in which 1Gi and 1024Mi are the same.
func equal(live client.Object, desired runtime.ApplyConfiguration, owned func() (any, error)) (bool, error) {
	extracted, err := owned()
	if err != nil {
		return false, fmt.Errorf("read what is owned of %s: %w", live.GetName(), err)
	}
	have, want := live.DeepCopyObject(), live.DeepCopyObject()
	for _, pair := range []struct {
		from any
		to   runtime.Object
	}{{extracted, have}, {desired, want}} {
		data, err := json.Marshal(pair.from)
		if err != nil {
			return false, fmt.Errorf("compare %s: %w", live.GetName(), err)
		}
		empty(pair.to)
		if err := json.Unmarshal(data, pair.to); err != nil {
			return false, fmt.Errorf("compare %s: %w", live.GetName(), err)
		}
	}
	return equality.Semantic.DeepEqual(have, want), nil
}

// empty makes an object new.
func empty(o runtime.Object) {
	switch o := o.(type) {
	case *corev1.PersistentVolumeClaim:
		*o = corev1.PersistentVolumeClaim{}
	case *corev1.Service:
		*o = corev1.Service{}
	case *appsv1.Deployment:
		*o = appsv1.Deployment{}
	}
}
