package controllers

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
)

// TestWhyNone: each of what never comes by itself has a reason of its own, and says what to do.
func TestWhyNone(t *testing.T) {
	now := time.Unix(10000, 0)
	ago := func(d time.Duration) metav1.Time { return metav1.NewTime(now.Add(-d)) }
	running := func(since time.Duration) corev1.Pod {
		return corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: ago(since)}}}}}}
	}
	evicted := func(since time.Duration) corev1.Pod {
		return corev1.Pod{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: ago(since)}, Status: corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted", Message: "The node was low on resource: memory."}}
	}
	failure := func(message string) *appsv1.Deployment {
		return &appsv1.Deployment{Status: appsv1.DeploymentStatus{Conditions: []appsv1.DeploymentCondition{{Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Message: message}}}}
	}
	for name, tc := range map[string]struct {
		seen   observation
		reason string
		words  string
	}{
		"starting":                        {observation{pods: []corev1.Pod{running(10 * time.Second)}}, v1alpha1.ReasonProgressing, "being started"},
		"hung":                            {observation{pods: []corev1.Pod{running(2 * time.Minute)}}, v1alpha1.ReasonReceiverNotReady, "see its log"},
		"another pod has the lock":        {observation{pods: []corev1.Pod{running(2 * time.Minute)}, lockHolder: "orphan-1", selector: map[string]string{"a": "b"}}, v1alpha1.ReasonJournalLocked, "the pod orphan-1 holds the journal's lock"},
		"evicted":                         {observation{pods: []corev1.Pod{evicted(time.Minute)}}, v1alpha1.ReasonEvicted, "low on resource: memory"},
		"evicted, and the next one comes": {observation{pods: []corev1.Pod{evicted(time.Minute), running(time.Second)}}, v1alpha1.ReasonEvicted, "free what is short"},
		"evicted long ago":                {observation{pods: []corev1.Pod{evicted(time.Hour), running(time.Second)}}, v1alpha1.ReasonProgressing, "being started"},
		"paused":                          {observation{deployment: &appsv1.Deployment{Spec: appsv1.DeploymentSpec{Paused: true}}}, v1alpha1.ReasonPaused, "paused"},
		"quota on pods":                   {observation{deployment: failure(`pods "callcenter-receiver-5d8f-x7k2p" is forbidden: exceeded quota: few, requested: pods=1`)}, v1alpha1.ReasonQuotaExceeded, "raise the ResourceQuota"},
		"a policy":                        {observation{deployment: failure(`pods "callcenter-receiver-5d8f-x7k2p" is forbidden: violates PodSecurity`)}, v1alpha1.ReasonPodsRefused, "the pod is forbidden: violates PodSecurity"},
	} {
		t.Run(name, func(t *testing.T) {
			reason, message := whyNone(&tc.seen, now)
			require.Equal(t, tc.reason, reason, message)
			require.Contains(t, message, tc.words)
			require.NotContains(t, message, "x7k2p", "no random name")
		})
	}
}

// TestRefusal: who is to do something about what the API server rejects.
func TestRefusal(t *testing.T) {
	claims, deployments := schema.GroupResource{Resource: "persistentvolumeclaims"}, schema.GroupResource{Group: "apps", Resource: "deployments"}
	for name, tc := range map[string]struct {
		err    error
		reason string
		heals  bool
	}{
		"quota on claims": {apierrors.NewForbidden(claims, "x", errors.New("exceeded quota: few, requested: persistentvolumeclaims=1")), v1alpha1.ReasonQuotaExceeded, true},
		"no right":        {apierrors.NewForbidden(deployments, "x", errors.New(`User "system:serviceaccount:a:b" cannot patch resource "deployments" in API group "apps" in the namespace "crm"`)), v1alpha1.ReasonMissingRights, true},
		"a policy":        {apierrors.NewForbidden(deployments, "x", errors.New("ValidatingAdmissionPolicy 'p' denied request: no")), v1alpha1.ReasonApplyFailed, false},
		"invalid":         {apierrors.NewInvalid(schema.GroupKind{Kind: "Service"}, "x", nil), v1alpha1.ReasonApplyFailed, false},
		"conflict":        {apierrors.NewConflict(deployments, "x", nil), "", false},
	} {
		t.Run(name, func(t *testing.T) {
			got := refusal(tc.err, "Deployment", "callcenter-receiver")
			if tc.reason == "" {
				require.Nil(t, got)
				return
			}
			require.Equal(t, tc.reason, got.reason)
			require.Equal(t, tc.heals, got.heals)
		})
	}
	require.Nil(t, refusal(nil, "Service", "x"))
	require.LessOrEqual(t, len(steadyMessage(strings.Repeat("ä", 2000))), 1100, "bounded")
}

// TestReadyDoesNotFlip: pods that come and go for the same reason have it flip once, and then it waits for a minute.
func TestReadyDoesNotFlip(t *testing.T) {
	now := time.Unix(10000, 0)
	r := &Reconciler{Now: func() time.Time { return now }}
	w := &v1alpha1.PBXWebhook{ObjectMeta: metav1.ObjectMeta{Name: "a", Generation: 1}}
	says := func(status metav1.ConditionStatus, reason string) *v1alpha1.PBXWebhook {
		next := w.DeepCopy()
		next.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: status, Reason: reason, ObservedGeneration: next.Generation}}
		return next
	}
	flips := 0
	pass := func(after *v1alpha1.PBXWebhook) *observation {
		seen, known := &observation{deployment: &appsv1.Deployment{}}, r.known.get(w)
		r.steady(w, after, &known, seen)
		r.known.put(after, known)
		if was, is := readyOf(w), readyOf(after); was != nil && was.Status != is.Status {
			flips++
		}
		w = after
		return seen
	}
	pass(says(metav1.ConditionTrue, v1alpha1.ReasonSucceeded))
	var last *observation
	for range 30 {
		now = now.Add(time.Second)
		pass(says(metav1.ConditionFalse, v1alpha1.ReasonEvicted))
		now = now.Add(time.Second)
		last = pass(says(metav1.ConditionTrue, v1alpha1.ReasonSucceeded))
	}
	require.Equal(t, 3, flips, "False, True, False")
	require.NotZero(t, last.wait, "it is looked at again")
	now = now.Add(time.Minute)
	pass(says(metav1.ConditionTrue, v1alpha1.ReasonSucceeded))
	require.Equal(t, metav1.ConditionTrue, readyOf(w).Status, "when it has held for a minute")
	now = now.Add(time.Hour)
	pass(says(metav1.ConditionFalse, v1alpha1.ReasonEvicted))
	pass(says(metav1.ConditionTrue, v1alpha1.ReasonSucceeded))
	require.Equal(t, metav1.ConditionTrue, readyOf(w).Status, "once is told at once")
	pass(says(metav1.ConditionFalse, v1alpha1.ReasonEvicted))
	w.Generation = 2
	pass(says(metav1.ConditionTrue, v1alpha1.ReasonSucceeded))
	require.Equal(t, metav1.ConditionTrue, readyOf(w).Status, "another generation is another matter")
}
