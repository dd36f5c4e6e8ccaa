package controllers_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pbxhook/pbxhook/api/statusz"
	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/controllers/render"
)

// draining is what receivers say of the journal before, from now on.
func (w *world) draining(d *statusz.Draining) {
	w.answer(w.hash("callcenter"), nil)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.report.Webhooks[0].Draining = d
	w.report.Webhooks[0].Events.Received = 100
	if d != nil {
		w.report.Webhooks[0].Events.Draining = d.Pending
	}
}

// deployment waits until the receivers are as they should be.
func (w *world) deployment(what string, is func(d *appsv1.Deployment) bool) {
	w.t.Helper()
	require.Eventually(w.t, func() bool {
		d := &appsv1.Deployment{}
		w.get(d, "callcenter-receiver")
		return is(d)
	}, patience, 50*time.Millisecond, what)
}

func onClaim(d *appsv1.Deployment) bool {
	return slices.ContainsFunc(d.Spec.Template.Spec.Volumes, func(v corev1.Volume) bool { return v.PersistentVolumeClaim != nil })
}

// TestJournalMoves: the receivers have both journals until nothing is left in the one before, and the status says how
// far it is.
func TestJournalMoves(t *testing.T) {
	w := withOperator(t)
	w.secret("nats", map[string]string{"token": "s3cret"})
	w.webhook("callcenter", nil)
	w.healthy("callcenter")
	webhook := &v1alpha1.PBXWebhook{}
	change := func(journal v1alpha1.Journal, replicas int32) {
		w.get(webhook, "callcenter")
		webhook.Spec.Journal, webhook.Spec.Receiver.Replicas = journal, ptr.To(replicas)
		w.replaceSpec(webhook)
	}
	generation := func() int64 {
		d := &appsv1.Deployment{}
		w.get(d, "callcenter-receiver")
		return d.Generation
	}
	says := func(nats, before bool) {
		t.Helper()
		require.Eventually(t, func() bool {
			last := render.ReadWebhook([]byte(w.manifest("callcenter")))
			return (last.Spec.Journal.NATS != nil) == nats && (last.JournalBefore() != nil) == before
		}, patience, 50*time.Millisecond)
	}

	claim := &corev1.PersistentVolumeClaim{}
	w.get(claim, "callcenter-receiver")
	claim.Status.Phase = corev1.ClaimBound
	w.replaceStatus(claim)
	first := generation()
	change(v1alpha1.Journal{NATS: &v1alpha1.NATSJournal{URL: "nats://nats:4222", CredentialsSecretRef: &v1alpha1.SecretReference{Name: "nats"}}}, 3)
	says(true, false)
	w.draining(&statusz.Draining{Pending: 7})
	w.eventually("callcenter", v1alpha1.ConditionJournalDurable, metav1.ConditionTrue, v1alpha1.ReasonJournalMoving)
	left := func(n int64) {
		t.Helper()
		require.Eventually(t, func() bool {
			w.get(webhook, "callcenter")
			return webhook.Status.Events != nil && webhook.Status.Events.Draining == n
		}, patience, 50*time.Millisecond)
	}
	left(7)
	w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)
	require.Equal(t, first, generation(), "the receiver stays as it is")
	w.draining(&statusz.Draining{Pending: 3, DeadLetters: 2, Problem: "no"})
	left(3)
	w.draining(nil)
	w.deployment("three receivers without the claim", func(d *appsv1.Deployment) bool {
		return !onClaim(d) && *d.Spec.Replicas == 3 && d.Spec.Strategy.RollingUpdate.MaxUnavailable.IntVal == 0
	})
	w.eventually("callcenter", v1alpha1.ConditionJournalDurable, metav1.ConditionTrue, v1alpha1.ReasonStream)
	w.get(claim, "callcenter-receiver")
	require.Zero(t, claim.DeletionTimestamp, "what was there stays there")

	change(v1alpha1.Journal{Embedded: &v1alpha1.EmbeddedJournal{Storage: v1alpha1.EmbeddedStorage{Claim: &v1alpha1.Claim{}}}}, 1)
	says(false, true)
	require.Contains(t, w.values("callcenter"), "s3cret", "the journal before can still be read")
	w.deployment("one receiver with the claim, which replaces others when it is ready", func(d *appsv1.Deployment) bool {
		return onClaim(d) && *d.Spec.Replicas == 1 && d.Spec.Strategy.RollingUpdate.MaxUnavailable.IntVal == 0
	})
	w.draining(&statusz.Draining{Pending: 5, DeadLetters: 2})
	w.eventually("callcenter", v1alpha1.ConditionJournalDurable, metav1.ConditionTrue, v1alpha1.ReasonJournalMoving)
	says(false, true)
	w.draining(nil)
	says(false, false)
	require.NotContains(t, w.values("callcenter"), "s3cret")
	w.draining(nil)
	w.eventually("callcenter", v1alpha1.ConditionJournalDurable, metav1.ConditionTrue, v1alpha1.ReasonPersistentVolume)
	w.deployment("the embedded journal's strategy", func(d *appsv1.Deployment) bool { return d.Spec.Strategy.RollingUpdate.MaxUnavailable.IntVal == 1 })
	require.Eventually(t, func() bool {
		events := &eventsv1.EventList{}
		require.NoError(t, w.client.List(t.Context(), events, client.InNamespace(w.namespace)))
		return slices.ContainsFunc(events.Items, func(e eventsv1.Event) bool {
			return e.Reason == v1alpha1.ReasonJournalMoved && strings.Contains(e.Note, "2 that were given up stay in the stream in NATS")
		})
	}, patience, 50*time.Millisecond)
}

// TestJournalThatNeverWas: who turns to NATS because no disk comes does not wait for one.
func TestJournalThatNeverWas(t *testing.T) {
	w := withOperator(t)
	webhook := w.webhook("callcenter", nil)
	w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonProgressing)
	w.deployment("it waits for its claim", onClaim)
	w.get(webhook, "callcenter")
	webhook.Spec.Journal = v1alpha1.Journal{NATS: &v1alpha1.NATSJournal{URL: "nats://nats:4222"}}
	w.replaceSpec(webhook)
	w.deployment("it does not any more", func(d *appsv1.Deployment) bool { return !onClaim(d) })
}
