package controllers_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
)

// TestClaimThatCannotGrow: the message says both ways out, all else of the spec is applied meanwhile, and the spec can
// return to what the claim has.
func TestClaimThatCannotGrow(t *testing.T) {
	w := withOperator(t)
	webhook := w.webhook("callcenter", nil)
	w.healthy("callcenter")
	w.follow("callcenter")
	claim := &corev1.PersistentVolumeClaim{}
	w.get(claim, child)
	claim.Status.Phase, claim.Status.Capacity = corev1.ClaimBound, corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("2Gi")}
	w.replaceStatus(claim)

	size := func(size string) {
		t.Helper()
		w.get(webhook, "callcenter")
		quantity := resource.MustParse(size)
		webhook.Spec.Journal.Embedded = &v1alpha1.EmbeddedJournal{Storage: v1alpha1.EmbeddedStorage{Claim: &v1alpha1.Claim{Size: &quantity}}}
		webhook.Spec.Targets[0].URL = "http://crm.example.com/" + size
		w.replaceSpec(webhook)
	}
	size("3Gi")
	got := w.eventually("callcenter", v1alpha1.ConditionStalled, metav1.ConditionTrue, v1alpha1.ReasonClaimRejected)
	message := meta.FindStatusCondition(got.Status.Conditions, v1alpha1.ConditionStalled).Message
	require.Contains(t, message, "size back to 2Gi")
	require.Contains(t, message, "allowVolumeExpansion")
	require.Contains(t, w.manifest("callcenter"), "http://crm.example.com/3Gi", "the target is applied")
	secret := &corev1.Secret{}
	w.get(secret, "pbx")
	secret.StringData = map[string]string{"token": "rotated"}
	require.NoError(t, w.client.Update(t.Context(), secret))
	require.Eventually(t, func() bool { return strings.Contains(w.values("callcenter"), "rotated") }, patience, 50*time.Millisecond, "the password is applied")

	size("2Gi")
	w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)
	size("1.5Gi")
	got = w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)
	require.Contains(t, meta.FindStatusCondition(got.Status.Conditions, v1alpha1.ConditionJournalDurable).Message, "its claim has 2Gi and stays so")
	w.get(claim, child)
	require.Equal(t, "2Gi", claim.Spec.Resources.Requests.Storage().String())
}
