package controllers

import (
	"context"
	"errors"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/controllers/render"
)

// child is one object that a webhook needs, or does not need any more.
type child struct {
	live    client.Object // of its kind, to be read
	desired any           // what is to be applied; nil: it is not wanted
}

// of makes a child of a kind. A nil desired is one that is not wanted.
func of[D any](live client.Object, desired *D) child {
	if desired == nil {
		return child{live: live}
	}
	return child{live: live, desired: desired}
}

// children are the objects of a webhook beside its Secret, in the order in which they are made.
func (r *Reconciler) children(ctx context.Context, w *v1alpha1.PBXWebhook, seen *observation) ([]child, error) {
	told, err := tell(w, seen.configuration.before, r.cluster)
	if err != nil {
		return nil, err
	}
	deployment, err := render.Deployment(told, r.Receiver, seen.replicas(w), seen.former)
	if err != nil {
		return nil, &blockedError{reason: v1alpha1.ReasonInvalidSpec, message: err.Error()}
	}
	var list []child
	if claim := render.Claim(w); claim != nil { // one that is not wanted any more holds events: it stays
		if err := r.fitClaim(ctx, w, claim, seen); err != nil {
			return nil, err
		}
		list = append(list, of(&corev1.PersistentVolumeClaim{}, claim))
	}
	list = append(list,
		of(&networkingv1.NetworkPolicy{}, render.NetworkPolicy(w, r.Askers)),
		of(&corev1.Service{}, render.Service(w)),
		of(&policyv1.PodDisruptionBudget{}, render.DisruptionBudget(w)),
		of(&appsv1.Deployment{}, deployment),
		of(&networkingv1.Ingress{}, render.Ingress(w)),
	)
	if r.APIs.Gateway {
		list = append(list, of(&gatewayv1.HTTPRoute{}, render.HTTPRoute(w)))
	}
	if r.APIs.PodMonitor {
		list = append(list, of(podMonitor(), render.PodMonitor(w)))
	}
	return list, nil
}

func podMonitor() *unstructured.Unstructured {
	monitor := &unstructured.Unstructured{}
	monitor.SetGroupVersionKind(render.PodMonitorKind)
	return monitor
}

// applyChildren makes the objects of a webhook what they should be, and notes which it wrote. One that cannot be made
// does not hold up the others.
func (r *Reconciler) applyChildren(ctx context.Context, w *v1alpha1.PBXWebhook, seen *observation) error {
	children, err := r.children(ctx, w, seen)
	if err != nil {
		return err
	}
	seen.written = map[string]bool{}
	for i := range children {
		live, kind := children[i].live, kindOf(children[i].live)
		waits, err := r.waitsToRoll(ctx, w, &children[i], seen)
		if err != nil {
			return err
		}
		if waits {
			seen.rollWaits = true
			continue
		}
		written, err := r.apply(ctx, w, &children[i], seen)
		if blocked := (*blockedError)(nil); errors.As(err, &blocked) && isClaim(live) {
			err = r.claimRejected(ctx, w, blocked)
		}
		if err != nil && !seen.blocks(err) {
			return fmt.Errorf("%s: %w", kind, err)
		}
		if written {
			log.FromContext(ctx).V(1).Info("applied", "kind", kind, "generation", w.Generation)
		}
		seen.written[kind] = written
	}
	return nil
}

// replicas is how many receivers run. A disabled webhook's receiver goes when it has delivered what
// would go with its emptyDir.
func (o *observation) replicas(w *v1alpha1.PBXWebhook) int32 {
	if o.draining {
		return 1
	}
	if o.former != render.NoVolume {
		return min(1, render.Replicas(w)) // an embedded journal has one owner
	}
	return render.Replicas(w)
}
