package controllers

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pbxhook/pbxhook/api/statusz"
	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/controllers/render"
)

const (
	askTimeout = 2 * time.Second
	maxReport  = 1 << 20 // bytes of a receiver's answer
)

// Asker asks the receiver of a pod how it fares.
type Asker func(ctx context.Context, ip string) (*statusz.Report, error)

// receivers is what the receivers of a webhook said.
type receivers struct {
	polled      bool
	available   int             // receivers that take requests
	behind      map[string]bool // those that run another configuration, by pod name
	unreachable int
	unrouted    bool   // the Service does not lead to a receiver, though one is available
	refused     string // why one cannot use the configuration
	pending     int64  // events that some target does not have yet
	unsure      bool   // one has not read yet how many there are
	report      *statusz.Webhook
}

// askReceivers asks the receivers that there are how they fare.
func (r *Reconciler) askReceivers(ctx context.Context, w *v1alpha1.PBXWebhook, seen *observation) error {
	pods := &corev1.PodList{}
	if err := r.List(ctx, pods, client.InNamespace(w.Namespace), client.MatchingLabels(render.Selector(w))); err != nil {
		return fmt.Errorf("list receiver pods: %w", err)
	}
	seen.pods = pods.Items
	seen.receivers = r.ask(ctx, seen.configuration.hash, seen.pods)
	seen.draining = !render.Enabled(w) && render.Volatile(w) && r.Ask != nil && holdsEvents(seen)
	return nil
}

// holdsEvents is whether a receiver of a disabled webhook has, or may have, something to deliver. One
// that says that it has nothing, under a configuration by which it takes nothing, has nothing.
func holdsEvents(seen *observation) bool {
	var ran int
	for i := range seen.pods {
		if seen.pods[i].DeletionTimestamp == nil && hasRun(&seen.pods[i]) {
			ran++
		}
	}
	answered := seen.receivers.available - seen.receivers.unreachable - len(seen.receivers.behind)
	return ran > answered || seen.receivers.pending > 0 || seen.receivers.unsure
}

// hasRun is whether a pod's container was ever started.
func hasRun(pod *corev1.Pod) bool {
	for _, c := range pod.Status.ContainerStatuses {
		if c.State.Running != nil || c.State.Terminated != nil || c.LastTerminationState.Terminated != nil {
			return true
		}
	}
	return isReady(pod)
}

// ask asks the available receivers, all at a time; a pod on its way out does not count.
func (r *Reconciler) ask(ctx context.Context, hash string, pods []corev1.Pod) receivers {
	answers := receivers{polled: r.Ask != nil, behind: map[string]bool{}}
	var asked sync.WaitGroup
	reports := make([]*statusz.Report, len(pods))
	for i := range pods {
		pod := &pods[i]
		if pod.DeletionTimestamp != nil || !isReady(pod) {
			continue
		}
		answers.available++
		if r.Ask == nil {
			continue
		}
		asked.Go(func() {
			if report, err := r.Ask(ctx, pod.Status.PodIP); err == nil {
				reports[i] = report
			}
		})
	}
	asked.Wait()
	if r.Ask == nil {
		return answers
	}
	answers.unreachable = answers.available
	for i, report := range reports {
		if report != nil {
			answers.unreachable--
			answers.take(report, hash, pods[i].Name)
		}
	}
	return answers
}

// take notes what one receiver said.
func (a *receivers) take(report *statusz.Report, hash, pod string) {
	if report.ConfigHash != hash {
		a.behind[pod] = true
	}
	if report.RefusedHash == hash {
		a.refused = report.RefusedReason
	}
	if len(report.Webhooks) == 1 {
		a.pending += report.Webhooks[0].Events.Pending
		a.unsure = a.unsure || report.Webhooks[0].PendingUnknown
		a.report = merge(a.report, &report.Webhooks[0])
	}
}

// merge joins what two receivers of a webhook said. Each speaks of the events of the journal as a whole, and of
// targets as far as it delivers to them itself.
func merge(all, one *statusz.Webhook) *statusz.Webhook {
	if all == nil {
		return one
	}
	e, o := &all.Events, &one.Events
	e.Received, e.Unparsed, e.Rejected, e.OtherVersion = max(e.Received, o.Received), max(e.Unparsed, o.Unparsed), max(e.Rejected, o.Rejected), max(e.OtherVersion, o.OtherVersion)
	e.ByName = mergeCounts(e.ByName, o.ByName)
	e.URLChecks, e.LastURLCheckTime = max(e.URLChecks, o.URLChecks), later(e.LastURLCheckTime, o.LastURLCheckTime)
	e.Pending += o.Pending
	e.LastReceivedTime = later(e.LastReceivedTime, o.LastReceivedTime)
	if later(e.LastRejectedTime, o.LastRejectedTime) == o.LastRejectedTime && o.LastRejectedTime != nil {
		e.LastRejectedTime, e.LastRejectedReason = o.LastRejectedTime, o.LastRejectedReason
	}
	e.LastOtherVersion = cmp.Or(e.LastOtherVersion, o.LastOtherVersion)
	all.PendingUnknown = all.PendingUnknown || one.PendingUnknown
	all.JournalProblem = cmp.Or(all.JournalProblem, one.JournalProblem)
	all.JournalWarning = cmp.Or(all.JournalWarning, one.JournalWarning)
	all.JournalDamage = cmp.Or(all.JournalDamage, one.JournalDamage)
	e.Draining += o.Draining
	all.Draining = cmp.Or(all.Draining, one.Draining)
	for _, t := range one.Targets {
		i := slices.IndexFunc(all.Targets, func(known v1alpha1.TargetStatus) bool { return known.Name == t.Name })
		if i < 0 {
			all.Targets = append(all.Targets, t)
			continue
		}
		known := &all.Targets[i]
		known.Healthy = known.Healthy && t.Healthy
		known.Pending += t.Pending
		known.Delivered += t.Delivered
		known.DeadLettered += t.DeadLettered
		known.Evicted = max(known.Evicted, t.Evicted) // each says how many of the journal as a whole
		known.ExpressionErrors += t.ExpressionErrors
		known.LastDeliveryTime = later(known.LastDeliveryTime, t.LastDeliveryTime)
		known.LastError = cmp.Or(known.LastError, t.LastError)
		if known.OldestPendingTime == nil || t.OldestPendingTime != nil && t.OldestPendingTime.Before(known.OldestPendingTime) {
			known.OldestPendingTime = t.OldestPendingTime
		}
	}
	return all
}

func later(a, b *metav1.Time) *metav1.Time {
	if a == nil || b != nil && a.Before(b) {
		return b
	}
	return a
}

// reachService is whether the Service leads to a receiver, as a PBX needs it: nodes take a moment to
// learn of a new pod.
func (r *Reconciler) reachService(ctx context.Context, w *v1alpha1.PBXWebhook) error {
	service := &corev1.Service{}
	if err := r.Get(ctx, childKey(w), service); err != nil {
		return fmt.Errorf("read the receiver's Service: %w", err)
	}
	if len(service.Spec.Ports) == 0 {
		return errors.New("the Service has no port: somebody is editing it")
	}
	port := service.Spec.Ports[len(service.Spec.Ports)-1].Port // metrics, where it is shown
	return r.Reach(ctx, net.JoinHostPort(service.Spec.ClusterIP, strconv.Itoa(int(port))))
}

// ReachTCP is whether something listens at an address.
func ReachTCP(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("reach the Service: %w", err)
	}
	return c.Close()
}

func isReady(pod *corev1.Pod) bool { return readiness(pod).Status == corev1.ConditionTrue }

// readiness is a pod's condition Ready; an empty one while it has none.
func readiness(pod *corev1.Pod) corev1.PodCondition {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c
		}
	}
	return corev1.PodCondition{}
}

// AskReceivers asks receivers over HTTP, each time anew: a connection that is kept would hide that
// the next one fails.
func AskReceivers() Asker {
	c := &http.Client{Timeout: askTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	return func(ctx context.Context, ip string) (*statusz.Report, error) {
		url := "http://" + net.JoinHostPort(ip, strconv.Itoa(render.MetricsPort)) + "/statusz"
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return nil, fmt.Errorf("ask the receiver: %w", err)
		}
		response, err := c.Do(request)
		if err != nil {
			return nil, fmt.Errorf("ask the receiver: %w", err)
		}
		defer func() { _ = response.Body.Close() }() // it was only read
		if response.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("ask the receiver: expected 200, got %s", response.Status)
		}
		report := &statusz.Report{}
		if err := json.NewDecoder(io.LimitReader(response.Body, maxReport)).Decode(report); err != nil {
			return nil, fmt.Errorf("read the receiver's answer: %w", err)
		}
		return report, nil
	}
}

// mergeCounts joins what two receivers know of the counts of one journal: the higher count is the later one.
func mergeCounts(all, one []v1alpha1.EventCount) []v1alpha1.EventCount {
	for _, o := range one {
		i := slices.IndexFunc(all, func(known v1alpha1.EventCount) bool { return known.Name == o.Name })
		if i < 0 {
			all = append(all, o)
			continue
		}
		all[i].Count = max(all[i].Count, o.Count)
		all[i].LastReceivedTime = later(all[i].LastReceivedTime, o.LastReceivedTime)
	}
	return all[:min(len(all), maxNames)]
}

// maxNames is how many names status.events.byName has at most.
const maxNames = 64
