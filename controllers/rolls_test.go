package controllers_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
)

// TestUpgradeRollsAFewAtATime: another image replaces the receivers of one webhook after the other, a webhook that is
// not Ready holds no place, and its author's own change does not wait.
func TestUpgradeRollsAFewAtATime(t *testing.T) {
	w := newWorld(t)
	w.secret("pbx", map[string]string{"token": "t"})
	const webhooks = 4
	name := func(i int) string { return fmt.Sprintf("pbx-%d", i) }
	w.byIP = map[string]string{}
	for i := range webhooks {
		w.byIP[fmt.Sprintf("10.0.1.%d", i)] = name(i)
	}
	stop := w.operator()
	for i := range webhooks {
		w.webhook(name(i), nil)
		w.eventually(name(i), v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonProgressing)
		status := ready(true)
		status.PodIP = fmt.Sprintf("10.0.1.%d", i)
		w.pod(name(i), status)
		w.eventually(name(i), v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)
	}
	broken := w.webhook("broken", nil)
	w.eventually("broken", v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonProgressing)
	w.quiet()
	stop()

	w.rollingOut.Store(true)
	w.image = "pbxhook:next"
	w.operator()
	upgraded := func() (names []string) {
		list := &appsv1.DeploymentList{}
		require.NoError(t, w.client.List(t.Context(), list, client.InNamespace(w.namespace)))
		for i := range list.Items {
			if list.Items[i].Spec.Template.Spec.Containers[0].Image == w.image {
				names = append(names, list.Items[i].Name)
			}
		}
		return names
	}
	count := func(n int, why string) {
		t.Helper()
		require.Eventually(t, func() bool { return len(upgraded()) == n }, patience, 50*time.Millisecond, why)
		w.quiet()
		require.Len(t, upgraded(), n, why)
	}
	count(2, "one of the Ready ones, and the one that is not")
	require.Contains(t, upgraded(), broken.Name+"-receiver")

	var waiting string
	for i := range webhooks {
		if !slices.Contains(upgraded(), name(i)+"-receiver") {
			waiting = name(i)
		}
	}
	webhook := &v1alpha1.PBXWebhook{}
	w.get(webhook, waiting)
	webhook.Spec.Receiver.Pod = &v1alpha1.Pod{Annotations: map[string]v1alpha1.AnnotationValue{"a": "b"}}
	w.replaceSpec(webhook)
	count(3, "an author's own change does not wait")
	w.advance(3 * time.Minute)
	count(4, "a roll that hangs is waited for two minutes")
	w.rollingOut.Store(false)
	count(5, "the next one when the one before is Ready")
}
