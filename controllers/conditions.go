package controllers

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pbxhook/pbxhook/api/statusz"
	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/controllers/render"
)

// conditions sets conditions of one webhook, all of one generation and time.
type conditions struct {
	webhook *v1alpha1.PBXWebhook
	now     metav1.Time
	held    map[string]bool // that were set in this pass
}

func (s *conditions) set(kind string, status metav1.ConditionStatus, reason, format string, args ...any) {
	s.held[kind] = true
	message := fmt.Sprintf(format, args...)
	meta.SetStatusCondition(&s.webhook.Status.Conditions, metav1.Condition{
		Type: kind, Status: status, Reason: reason, Message: message, ObservedGeneration: s.webhook.Generation, LastTransitionTime: s.now,
	})
}

func (s *conditions) remove(kind string) {
	meta.RemoveStatusCondition(&s.webhook.Status.Conditions, kind)
}

func (s *conditions) get(kind string) metav1.Condition {
	if c := meta.FindStatusCondition(s.webhook.Status.Conditions, kind); c != nil {
		return *c
	}
	return metav1.Condition{Type: kind, Status: metav1.ConditionUnknown}
}

func (s *conditions) natsJournal(nats *v1alpha1.NATSJournal, report *statusz.Webhook) {
	switch {
	case report == nil:
		s.set(v1alpha1.ConditionJournalDurable, metav1.ConditionUnknown, v1alpha1.ReasonReceiversUnreachable, "no receiver has said yet whether it reaches NATS")
	case nats.Replicas < 3:
		s.set(v1alpha1.ConditionJournalDurable, metav1.ConditionTrue, v1alpha1.ReasonStream, "an accepted event survives the loss of every receiver, and not that of the one NATS server that keeps it")
	default:
		s.set(v1alpha1.ConditionJournalDurable, metav1.ConditionTrue, v1alpha1.ReasonStream, "an accepted event survives the loss of every receiver, and of %d of %d NATS servers", nats.Replicas/2, nats.Replicas)
	}
}

func (s *conditions) journal(seen *observation) {
	s.journalNow(seen.receivers.report)
	if c := s.get(v1alpha1.ConditionJournalDurable); seen.claimNote != "" && c.Reason == v1alpha1.ReasonPersistentVolume {
		s.set(c.Type, c.Status, c.Reason, "%s%s", c.Message, seen.claimNote)
	}
	if c := s.get(v1alpha1.ConditionJournalDurable); seen.moving && c.Reason != v1alpha1.ReasonJournalUnavailable {
		s.set(c.Type, c.Status, v1alpha1.ReasonJournalMoving, "%s; %s", c.Message, movingMessage(seen))
	}
}

func (s *conditions) journalNow(report *statusz.Webhook) {
	if report != nil && report.JournalProblem != "" {
		s.set(v1alpha1.ConditionJournalDurable, metav1.ConditionFalse, v1alpha1.ReasonJournalUnavailable, "events are answered 503: %s", report.JournalProblem)
		return
	}
	if report != nil && report.JournalWarning != "" {
		s.set(v1alpha1.ConditionJournalDurable, metav1.ConditionFalse, v1alpha1.ReasonJournalDegraded, "events are accepted, but: %s", report.JournalWarning)
		return
	}
	if report != nil && report.JournalDamage != "" {
		s.set(v1alpha1.ConditionJournalDurable, metav1.ConditionFalse, v1alpha1.ReasonJournalDamaged,
			"events are accepted, and the receiver found at its start or since that the journal is not as it was written: %s; see the receiver's log", report.JournalDamage)
		return
	}
	if nats := s.webhook.Spec.Journal.NATS; nats != nil {
		s.natsJournal(nats, report)
		return
	}
	if render.NeedsClaim(s.webhook) {
		s.set(v1alpha1.ConditionJournalDurable, metav1.ConditionTrue, v1alpha1.ReasonPersistentVolume, "an accepted event survives the loss of its pod")
		return
	}
	s.set(v1alpha1.ConditionJournalDurable, metav1.ConditionFalse, v1alpha1.ReasonEmptyDir,
		"the journal is an emptyDir: events that are not yet delivered are lost when the pod is deleted; choose journal.embedded.storage.claim to keep them")
}

func (s *conditions) credentials(c configuration) {
	switch {
	case s.webhook.Spec.Credentials.Anonymous != nil:
		s.set(v1alpha1.ConditionCredentialsResolved, metav1.ConditionTrue, v1alpha1.ReasonAnonymous, "anyone who can reach the receiver is taken for the PBX")
	case c.credentials == nil:
		told := append([]string{"the PBX's credentials are known"}, c.notes...)
		if len(c.guessable) > 0 {
			told = append(told, fmt.Sprintf("%s: shorter than %d characters, which can be guessed, as nobody is locked out", strings.Join(c.guessable, ", "), shortest))
		}
		s.set(v1alpha1.ConditionCredentialsResolved, metav1.ConditionTrue, v1alpha1.ReasonSucceeded, "%s", strings.Join(told, "; "))
	case c.credentials.lastGood:
		s.set(v1alpha1.ConditionCredentialsResolved, metav1.ConditionFalse, c.credentials.reason, "%s; the last good credentials stay in force: create or mend it", c.credentials.message)
	default:
		s.set(v1alpha1.ConditionCredentialsResolved, metav1.ConditionFalse, c.credentials.reason, "%s: create it; until then the PBX is answered 503", c.credentials.message)
	}
}

func (s *conditions) receiver(seen *observation) {
	if !render.Enabled(s.webhook) {
		s.set(v1alpha1.ConditionReceiverAvailable, metav1.ConditionFalse, v1alpha1.ReasonDisabled, "spec.enabled is false: no receiver runs")
		return
	}
	if seen.receivers.available > 0 && rolling(seen) {
		reason, message := whyNone(seen, s.now.Time)
		s.set(v1alpha1.ConditionReceiverAvailable, metav1.ConditionFalse, reason, "%s", message)
		return
	}
	settling := s.settling(seen)
	if settling && seen.receivers.unreachable > 0 { // later that is worth a word: see configuration
		s.set(v1alpha1.ConditionReceiverAvailable, metav1.ConditionFalse, v1alpha1.ReasonProgressing, "%s", starting)
		return
	}
	if seen.receivers.unrouted {
		message := starting
		if !settling {
			message = "the Service does not lead to the receiver, though its pod is ready: see kube-proxy, or what takes its place"
		}
		s.set(v1alpha1.ConditionReceiverAvailable, metav1.ConditionFalse, v1alpha1.ReasonProgressing, "%s", message)
		return
	}
	if seen.receivers.available > 0 {
		s.set(v1alpha1.ConditionReceiverAvailable, metav1.ConditionTrue, v1alpha1.ReasonSucceeded, "a receiver takes requests")
		return
	}
	reason, message := whyNone(seen, s.now.Time)
	s.set(v1alpha1.ConditionReceiverAvailable, metav1.ConditionFalse, reason, "%s", message)
}

// routeTime is how long the cluster's network may take to lead to a new pod.
const routeTime = 15 * time.Second

// settling is whether no pod has been ready for longer than that.
func (s *conditions) settling(seen *observation) bool {
	for i := range seen.pods {
		pod := &seen.pods[i]
		if isReady(pod) && s.now.Sub(readiness(pod).LastTransitionTime.Time) > routeTime {
			return false
		}
	}
	return true
}

// rolling is whether a receiver of an earlier pod template runs, or may run: soon it is gone.
func rolling(seen *observation) bool {
	d := seen.deployment
	return d == nil || seen.written[kindOf(d)] || d.Status.ObservedGeneration < d.Generation || d.Status.Replicas > d.Status.UpdatedReplicas
}

func (s *conditions) exposed(seen *observation) {
	s.set(v1alpha1.ConditionExposed, seen.exposure.status, seen.exposure.reason, "%s", seen.exposure.message)
}

func (s *conditions) configuration(seen *observation) {
	answers := seen.receivers
	set := func(status metav1.ConditionStatus, reason, format string, args ...any) {
		s.set(v1alpha1.ConditionConfigurationApplied, status, reason, format, args...)
	}
	switch {
	case answers.available == 0:
		set(metav1.ConditionUnknown, v1alpha1.ReasonNoReceiver, "no receiver is available to ask")
	case !answers.polled:
		set(metav1.ConditionUnknown, v1alpha1.ReasonNotPolled, "the operator runs with --poll-receivers=false and judges by the API server alone")
	case answers.refused != "":
		set(metav1.ConditionFalse, v1alpha1.ReasonConfigurationRefused, "a receiver cannot use this configuration and runs the last good one: %s", answers.refused)
	case len(answers.behind) > 0 && seen.behindFor < routeTime && s.wasApplied(): // a rotated Secret is on its way
	case len(answers.behind) > 0:
		set(metav1.ConditionFalse, v1alpha1.ReasonConfigurationPending, "a receiver still runs an older configuration")
	case answers.unreachable > 0 && s.settling(seen):
		set(metav1.ConditionUnknown, v1alpha1.ReasonNoReceiver, "no receiver is available to ask")
	case answers.unreachable > 0:
		set(metav1.ConditionUnknown, v1alpha1.ReasonReceiversUnreachable, "the operator cannot reach a receiver on port %d: see NetworkPolicies", render.MetricsPort)
	default:
		set(metav1.ConditionTrue, v1alpha1.ReasonSucceeded, "every available receiver runs this configuration")
	}
}

// wasApplied reports whether receivers ran the configuration of this generation before.
func (s *conditions) wasApplied() bool {
	c := s.get(v1alpha1.ConditionConfigurationApplied)
	return c.Status == metav1.ConditionTrue && c.ObservedGeneration == s.webhook.Generation
}

func (s *conditions) targets(seen *observation) {
	var failing, suspended []string
	if seen.receivers.report != nil {
		for _, t := range seen.receivers.report.Targets {
			wanted := slices.IndexFunc(s.webhook.Spec.Targets, func(spec v1alpha1.Target) bool { return spec.Name == t.Name })
			switch {
			case wanted < 0, t.Healthy: // a removed one is shown, and no trouble
			case s.webhook.Spec.Targets[wanted].Suspend != nil && *s.webhook.Spec.Targets[wanted].Suspend:
				suspended = append(suspended, t.Name+": suspended: its events wait until suspend is false")
			default:
				failing = append(failing, fmt.Sprintf("%s: %s", t.Name, t.LastError))
			}
		}
	}
	var lost []string
	for _, m := range seen.configuration.references {
		lost = append(lost, m.message)
	}
	switch {
	case len(lost) > 0:
		s.set(v1alpha1.ConditionTargetsHealthy, metav1.ConditionFalse, v1alpha1.ReasonReferencesNotFound, "%s", strings.Join(slices.Concat(lost, failing, suspended), "; "))
	case len(failing) > 0:
		s.set(v1alpha1.ConditionTargetsHealthy, metav1.ConditionFalse, v1alpha1.ReasonTargetsFailing, "%s", strings.Join(append(failing, suspended...), "; "))
	case len(suspended) > 0:
		s.set(v1alpha1.ConditionTargetsHealthy, metav1.ConditionFalse, v1alpha1.ReasonTargetsSuspended, "%s", strings.Join(suspended, "; "))
	case seen.receivers.report == nil:
		s.set(v1alpha1.ConditionTargetsHealthy, metav1.ConditionUnknown, v1alpha1.ReasonNoReceiver, "no receiver has told how its targets fare")
	default:
		s.set(v1alpha1.ConditionTargetsHealthy, metav1.ConditionTrue, v1alpha1.ReasonSucceeded, "every target takes its events")
	}
}

// ready sums up: an event can be accepted and journalled under this generation. Targets do not count.
func (s *conditions) ready(seen *observation) {
	defer func() { // present only while they hold
		for _, kind := range []string{v1alpha1.ConditionDisabled, v1alpha1.ConditionReconciling, v1alpha1.ConditionStalled} {
			if !s.held[kind] {
				s.remove(kind)
			}
		}
	}()
	blocked := seen.refused
	if errors.As(seen.blocked, &blocked) || blocked != nil {
		if blocked.heals {
			s.reconciling(blocked.reason, "%s", blocked.message)
		} else {
			s.set(v1alpha1.ConditionStalled, metav1.ConditionTrue, blocked.reason, "%s", blocked.message)
		}
		s.set(v1alpha1.ConditionReady, metav1.ConditionFalse, blocked.reason, "%s", blocked.message)
		return
	}
	if seen.blocked != nil {
		s.reconciling(v1alpha1.ReasonProgressing, "%s", blockedMessage(seen.blocked))
		s.set(v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonProgressing, "%s", blockedMessage(seen.blocked))
		return
	}
	if !render.Enabled(s.webhook) {
		s.remove(v1alpha1.ConditionReady)
		message := "spec.enabled is false: nothing is received, the journal is kept"
		if seen.draining {
			message = "spec.enabled is false: nothing is received; the receiver goes when it has delivered what its emptyDir holds"
		}
		s.set(v1alpha1.ConditionDisabled, metav1.ConditionTrue, v1alpha1.ReasonDisabled, "%s", message)
		return
	}
	for _, kind := range []string{v1alpha1.ConditionCredentialsResolved, v1alpha1.ConditionReceiverAvailable, v1alpha1.ConditionConfigurationApplied} {
		c := s.get(kind)
		if c.Status == metav1.ConditionTrue || c.Reason == v1alpha1.ReasonNotPolled {
			continue
		}
		s.set(v1alpha1.ConditionReady, c.Status, c.Reason, "%s", c.Message)
		if c.Reason == v1alpha1.ReasonProgressing || c.Reason == v1alpha1.ReasonConfigurationPending {
			s.reconciling(c.Reason, "%s", c.Message)
		}
		return
	}
	if c := s.get(v1alpha1.ConditionJournalDurable); c.Reason == v1alpha1.ReasonJournalUnavailable {
		s.set(v1alpha1.ConditionReady, metav1.ConditionFalse, c.Reason, "%s", c.Message)
		return
	}
	if seen.exposure.blocks {
		s.set(v1alpha1.ConditionReady, metav1.ConditionFalse, seen.exposure.reason, "%s", seen.exposure.message)
		return
	}
	if s.get(v1alpha1.ConditionConfigurationApplied).Reason == v1alpha1.ReasonNotPolled {
		s.set(v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSucceeded, "a receiver is available; whether it runs this configuration is not known (--poll-receivers=false)")
		return
	}
	s.set(v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSucceeded, "events are received and kept")
}

func (s *conditions) reconciling(reason, format string, args ...any) {
	s.set(v1alpha1.ConditionReconciling, metav1.ConditionTrue, reason, format, args...)
}

// blockedMessage says what the operator waits for; it does not change from one attempt to the next.
func blockedMessage(err error) string {
	if errors.Is(err, errReplacing) {
		return errReplacing.Error()
	}
	return "the operator could not make the receiver's objects and tries again: see its log"
}
