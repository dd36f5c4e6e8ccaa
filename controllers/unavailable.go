package controllers

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/controllers/render"
)

const (
	// startTime is how long a receiver may run before it is ready: it reads its journal, and waits for the lock of one
	// that ends.
	startTime = time.Minute
	// evictedTime is for how long an evicted pod explains that there is no receiver.
	evictedTime = 5 * time.Minute
	// podsListed bounds the search for the pod that holds a journal.
	podsListed = 500
)

// starting is said from a webhook's first moment until a receiver of its generation takes requests, so that
// it is written once.
const starting = "a receiver of this generation is being started"

// whyNone says why no receiver is available, from what the kubelet and the Deployment say. Messages do not change from
// one attempt to the next.
func whyNone(seen *observation, now time.Time) (reason, message string) {
	if d := seen.deployment; d != nil && d.Spec.Paused {
		return v1alpha1.ReasonPaused, "the receiver's Deployment is paused by somebody else, again and again: stop what does that, see the events of this PBXWebhook (Restored)"
	}
	for i := range seen.pods {
		pod := &seen.pods[i]
		if pod.DeletionTimestamp != nil || ended(pod) {
			continue
		}
		if reason, message = whyNotReady(pod); reason != "" {
			return reason, message
		}
	}
	if message := evicted(seen, now); message != "" {
		return v1alpha1.ReasonEvicted, message
	}
	if seen.deployment != nil {
		for _, c := range seen.deployment.Status.Conditions {
			if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
				if isQuota(c.Message) {
					quota := quotaExceeded("the receiver's pod", c.Message)
					return quota.reason, quota.message
				}
				return v1alpha1.ReasonPodsRefused, "the receiver's pod is rejected: " + steadyMessage(c.Message)
			}
		}
	}
	if seen.lockHolder != "" {
		return v1alpha1.ReasonJournalLocked, fmt.Sprintf("the pod %s holds the journal's lock and is not this webhook's any more, since a label was removed from it: delete that pod, or give it its labels back (%s)",
			seen.lockHolder, selectorText(seen.selector))
	}
	if stuck(seen, now) {
		return v1alpha1.ReasonReceiverNotReady, "the receiver runs and does not become ready: see its log (kubectl logs deployment/<name>-receiver), and whether it still has the CPU and memory that it needs"
	}
	return v1alpha1.ReasonProgressing, starting
}

func whyNotReady(pod *corev1.Pod) (reason, message string) {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return v1alpha1.ReasonUnschedulable, "no node takes the receiver's pod: " + c.Message
		}
	}
	for _, c := range pod.Status.ContainerStatuses {
		waiting := c.State.Waiting
		if waiting == nil {
			continue
		}
		switch waiting.Reason {
		case "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull":
			return v1alpha1.ReasonImagePullFailed, fmt.Sprintf("the receiver's image %s cannot be pulled: correct the operator's --receiver-image, or spec.receiver.pod.imagePullSecrets", c.Image)
		case "CreateContainerConfigError", "CreateContainerError":
			return v1alpha1.ReasonContainerConfigError, "the receiver's container cannot be made: " + waiting.Message
		case "CrashLoopBackOff":
			return v1alpha1.ReasonCrashLoop, "the receiver ends again and again: see its log (kubectl logs deployment/<name>-receiver)"
		}
	}
	return "", ""
}

// ended reports whether a pod will not run any more, as one that was evicted.
func ended(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded
}

// evicted says why the kubelet evicted receivers lately; empty where it did not.
func evicted(seen *observation, now time.Time) string {
	for i := range seen.pods {
		pod := &seen.pods[i]
		if pod.Status.Phase == corev1.PodFailed && pod.Status.Reason == "Evicted" && now.Sub(pod.CreationTimestamp.Time) < evictedTime {
			return "the node evicts the receiver's pod: free what is short on it, or raise spec.receiver.resources.requests (" + steadyMessage(pod.Status.Message) + ")"
		}
	}
	return ""
}

// stuck reports whether a receiver has run for longer than it needs to become ready.
func stuck(seen *observation, now time.Time) bool {
	return slices.ContainsFunc(seen.pods, func(pod corev1.Pod) bool {
		return pod.DeletionTimestamp == nil && !isReady(&pod) && slices.ContainsFunc(pod.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool {
			return c.State.Running != nil && now.Sub(c.State.Running.StartedAt.Time) > startTime
		})
	})
}

// findLockHolder names a pod that uses the webhook's claim and is none of its receivers, where one of these waits: the
// journal has one owner.
func (r *Reconciler) findLockHolder(ctx context.Context, w *v1alpha1.PBXWebhook, seen *observation) error {
	seen.selector = render.Selector(w)
	if seen.receivers.available > 0 || !render.NeedsClaim(w) || !slices.ContainsFunc(seen.pods, func(p corev1.Pod) bool { return hasRun(&p) && !ended(&p) }) {
		return nil
	}
	pods := &corev1.PodList{}
	if err := r.Live.List(ctx, pods, client.InNamespace(w.Namespace), client.Limit(podsListed)); err != nil {
		return fmt.Errorf("look for the pod that holds the journal: %w", err)
	}
	for i := range pods.Items {
		pod := &pods.Items[i]
		uses := slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool {
			return v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == render.Name(w.Name)
		})
		if uses && !ended(pod) && !matches(pod, seen.selector) {
			seen.lockHolder = pod.Name
			return nil
		}
	}
	return nil
}

func matches(o client.Object, selector map[string]string) bool {
	for name, value := range selector {
		if o.GetLabels()[name] != value {
			return false
		}
	}
	return true
}

func selectorText(selector map[string]string) string {
	var all []string
	for name, value := range selector {
		all = append(all, name+"="+value)
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}
