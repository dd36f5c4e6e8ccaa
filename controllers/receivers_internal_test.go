package controllers

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/pbxhook/pbxhook/api/statusz"
	"github.com/pbxhook/pbxhook/api/v1alpha1"
)

// TestReceiversAreJoined: each speaks of all that was received, and of what it delivers itself.
func TestReceiversAreJoined(t *testing.T) {
	early, late := &metav1.Time{Time: time.Unix(1000, 0)}, &metav1.Time{Time: time.Unix(2000, 0)}
	a := receivers{behind: map[string]bool{}}
	a.take(&statusz.Report{ConfigHash: "h", Webhooks: []statusz.Webhook{{
		Events:  v1alpha1.EventsStatus{Received: 10, Rejected: 2, Pending: 3, LastReceivedTime: late, LastRejectedTime: late, LastRejectedReason: "401"},
		Targets: []v1alpha1.TargetStatus{{Name: "crm", Healthy: true, Pending: 3, Delivered: 4, LastDeliveryTime: early, OldestPendingTime: late}},
	}}}, "h", "one")
	a.take(&statusz.Report{ConfigHash: "old", Webhooks: []statusz.Webhook{{
		JournalProblem: "NATS is not reached", JournalDamage: "event 7: its checksum does not match",
		Events: v1alpha1.EventsStatus{Received: 9, Rejected: 2, Pending: 1, LastReceivedTime: early, LastRejectedTime: early, LastRejectedReason: "405"},
		Targets: []v1alpha1.TargetStatus{
			{Name: "crm", Pending: 1, Delivered: 2, DeadLettered: 1, LastDeliveryTime: late, OldestPendingTime: early, LastError: "503 from the target"},
			{Name: "lab", Healthy: true, Delivered: 7},
		},
	}}}, "h", "two")
	require.EqualValues(t, 4, a.pending)
	require.Equal(t, map[string]bool{"two": true}, a.behind)
	require.Equal(t, v1alpha1.EventsStatus{Received: 10, Rejected: 2, Pending: 4, LastReceivedTime: late, LastRejectedTime: late, LastRejectedReason: "401"}, a.report.Events)
	require.Equal(t, "NATS is not reached", a.report.JournalProblem)
	require.Equal(t, "event 7: its checksum does not match", a.report.JournalDamage)
	require.Equal(t, []v1alpha1.TargetStatus{
		{Name: "crm", Pending: 4, Delivered: 6, DeadLettered: 1, LastDeliveryTime: late, OldestPendingTime: early, LastError: "503 from the target"},
		{Name: "lab", Healthy: true, Delivered: 7},
	}, a.report.Targets)
}

// TestPendingIsNotKnown: what a receiver that has just started does not know yet is not taken for nothing.
func TestPendingIsNotKnown(t *testing.T) {
	oldest := &metav1.Time{Time: time.Unix(1000, 0)}
	a := receivers{behind: map[string]bool{}}
	a.take(&statusz.Report{Webhooks: []statusz.Webhook{{Targets: []v1alpha1.TargetStatus{{Name: "crm", Healthy: true, Delivered: 3}}}}}, "", "one")
	require.False(t, holdsEvents(&observation{receivers: a}))
	a.take(&statusz.Report{Webhooks: []statusz.Webhook{{PendingUnknown: true, Targets: []v1alpha1.TargetStatus{{Name: "crm", Healthy: true}, {Name: "new"}}}}}, "", "two")
	require.True(t, holdsEvents(&observation{receivers: a}), "the webhook is not scaled to zero")
	require.True(t, a.report.PendingUnknown)
	keepPending(v1alpha1.PBXWebhookStatus{
		Events:  &v1alpha1.EventsStatus{Pending: 7},
		Targets: []v1alpha1.TargetStatus{{Name: "crm", Pending: 7, OldestPendingTime: oldest, Delivered: 1}},
	}, a.report)
	require.EqualValues(t, 7, a.report.Events.Pending, "the last count stays")
	require.Equal(t, []v1alpha1.TargetStatus{{Name: "crm", Healthy: true, Pending: 7, OldestPendingTime: oldest, Delivered: 3}, {Name: "new"}}, a.report.Targets)
}

// TestSuspendedTargets: a target that is suspended is said to be, and does not look like one that fails.
func TestSuspendedTargets(t *testing.T) {
	suspended := v1alpha1.Target{Name: "lab", Suspend: ptr.To(true)}
	for name, tc := range map[string]struct {
		crm             v1alpha1.TargetStatus
		reason, message string
	}{
		"alone":                    {crm: v1alpha1.TargetStatus{Name: "crm", Healthy: true}, reason: v1alpha1.ReasonTargetsSuspended, message: "lab: suspended: its events wait until suspend is false"},
		"beside one that does not": {crm: v1alpha1.TargetStatus{Name: "crm", LastError: "503"}, reason: v1alpha1.ReasonTargetsFailing, message: "crm: 503; lab: suspended: its events wait until suspend is false"},
	} {
		t.Run(name, func(t *testing.T) {
			w := &v1alpha1.PBXWebhook{Spec: v1alpha1.PBXWebhookSpec{Targets: []v1alpha1.Target{{Name: "crm"}, suspended}}}
			s := &conditions{webhook: w, held: map[string]bool{}}
			s.targets(&observation{receivers: receivers{report: &statusz.Webhook{Targets: []v1alpha1.TargetStatus{tc.crm, {Name: "lab", LastError: "suspended"}}}}})
			got := s.get(v1alpha1.ConditionTargetsHealthy)
			require.Equal(t, metav1.ConditionFalse, got.Status)
			require.Equal(t, tc.reason, got.Reason)
			require.Equal(t, tc.message, got.Message)
		})
	}
}

// TestMergeCounts: receivers that share a journal speak of the same events.
func TestMergeCounts(t *testing.T) {
	all := []v1alpha1.EventCount{{Name: "Cdr", Count: 3}, {Name: "NewState"}}
	one := []v1alpha1.EventCount{{Name: "Cdr", Count: 2}, {Name: "NewState", Count: 1}, {Name: "Survey", Count: 4}}
	require.Equal(t, []v1alpha1.EventCount{{Name: "Cdr", Count: 3}, {Name: "NewState", Count: 1}, {Name: "Survey", Count: 4}}, mergeCounts(all, one))
}

// TestJournalDamage is in the condition, and does not make the webhook unready.
func TestJournalDamage(t *testing.T) {
	webhook := &v1alpha1.PBXWebhook{}
	c := &conditions{webhook: webhook, held: map[string]bool{}}
	c.journalNow(&statusz.Webhook{JournalDamage: "event 7: its checksum does not match"})
	durable := c.get(v1alpha1.ConditionJournalDurable)
	require.Equal(t, metav1.ConditionFalse, durable.Status)
	require.Equal(t, v1alpha1.ReasonJournalDamaged, durable.Reason)
	require.Contains(t, durable.Message, "event 7: its checksum does not match")
	c.journalNow(&statusz.Webhook{JournalDamage: "event 7: its checksum does not match", JournalProblem: "full"})
	require.Equal(t, v1alpha1.ReasonJournalUnavailable, c.get(v1alpha1.ConditionJournalDurable).Reason)
	c.journalNow(&statusz.Webhook{JournalDamage: "event 7: its checksum does not match", JournalWarning: "2 of 3 copies are up to date"})
	require.Equal(t, v1alpha1.ReasonJournalDegraded, c.get(v1alpha1.ConditionJournalDurable).Reason)
}
