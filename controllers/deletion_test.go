package controllers_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/controllers"
)

// onNATS makes a webhook whose events in NATS go with it.
func (w *world) onNATS() *v1alpha1.PBXWebhook {
	w.t.Helper()
	w.secret("nats", map[string]string{"token": "s3cret"})
	webhook := w.webhook("callcenter", func(webhook *v1alpha1.PBXWebhook) {
		webhook.Spec.Journal = v1alpha1.Journal{
			NATS:           &v1alpha1.NATSJournal{URL: "nats://nats:4222", CredentialsSecretRef: &v1alpha1.SecretReference{Name: "nats"}},
			DeletionPolicy: v1alpha1.DeletionDelete,
		}
	})
	w.eventually("callcenter", v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonProgressing)
	w.get(webhook, "callcenter")
	require.Equal(w.t, []string{controllers.Finalizer}, webhook.Finalizers)
	return webhook
}

func (w *world) dropFails(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dropErr = err
}

// drops returns the configurations by which journals were deleted, or should have been.
func (w *world) drops() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.dropped...)
}

func (w *world) gone(webhook *v1alpha1.PBXWebhook) {
	w.t.Helper()
	require.Eventually(w.t, func() bool {
		return apierrors.IsNotFound(w.client.Get(w.t.Context(), client.ObjectKeyFromObject(webhook), webhook))
	}, patience, 50*time.Millisecond, "the webhook should be gone")
}

// TestJournalIsDeletedWithoutTheRenderedSecret: as when a namespace is deleted, whose objects go in any order. What is
// still there is enough, and the status says what the webhook waits for.
func TestJournalIsDeletedWithoutTheRenderedSecret(t *testing.T) {
	w := withOperator(t)
	webhook := w.onNATS()
	w.dropFails(errors.New("NATS is not reached"))
	require.NoError(t, w.client.Delete(t.Context(), webhook))
	require.Eventually(t, func() bool { return len(w.drops()) > 0 }, patience, 50*time.Millisecond)
	require.Eventually(t, func() bool {
		w.get(webhook, "callcenter")
		ready := meta.FindStatusCondition(webhook.Status.Conditions, v1alpha1.ConditionReady)
		return ready.Reason == v1alpha1.ReasonDeleting && strings.Contains(ready.Message, "NATS is not reached")
	}, patience, 50*time.Millisecond)
	for _, o := range []client.Object{&corev1.Secret{}, &appsv1.Deployment{}} {
		w.get(o, child)
		require.NoError(t, w.client.Delete(t.Context(), o))
	}
	w.dropFails(nil)
	w.gone(webhook)
	drops := w.drops()
	require.Contains(t, drops[len(drops)-1], "nats://nats:4222")
	require.Contains(t, drops[len(drops)-1], "czNjcmV0", "with the credentials of the Secret that is still there")
}

// TestNamespaceDeletedWithJournal: a namespace does not wait for what may never come, and what remains is named.
func TestNamespaceDeletedWithJournal(t *testing.T) {
	for name, tc := range map[string]struct {
		credentials bool
		later       time.Duration
	}{
		"credentials are gone":  {},
		"NATS is away too long": {credentials: true, later: 3 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			w := withOperator(t)
			webhook := w.onNATS()
			w.dropFails(errors.New("NATS is not reached"))
			namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}}
			require.NoError(t, w.client.Delete(t.Context(), namespace)) // no namespace controller runs here
			for _, o := range []client.Object{&corev1.Secret{}, &appsv1.Deployment{}} {
				w.get(o, child)
				require.NoError(t, w.client.Delete(t.Context(), o))
			}
			if !tc.credentials {
				secret := &corev1.Secret{}
				w.get(secret, "nats")
				require.NoError(t, w.client.Delete(t.Context(), secret))
			}
			w.advance(tc.later)
			require.NoError(t, w.client.Delete(t.Context(), webhook))
			w.gone(webhook)
			require.Eventually(t, func() bool {
				events := &eventsv1.EventList{}
				require.NoError(t, w.client.List(context.Background(), events, client.InNamespace("default")))
				for i := range events.Items {
					e := &events.Items[i]
					if e.Reason == v1alpha1.ReasonJournalAbandoned && e.Regarding.Name == w.namespace && strings.Contains(e.Note, "KV_pbxhook_"+w.namespace+"_callcenter_leases") {
						return true
					}
				}
				return false
			}, patience, 50*time.Millisecond, "the streams that remain are named")
		})
	}
}
