package controllers

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pbxhook/pbxhook/api/statusz"
	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/controllers/render"
)

const (
	askTimeout = 2 * time.Second
	maxReport  = 1 << 20 // bytes of a receiver's answer
)

// Asker asks the receiver at an address, of a pod or a Service, how it fares.
type Asker func(ctx context.Context, ip string) (*statusz.Report, error)

// receivers is what the receivers of a webhook said.
type receivers struct {
	polled      bool
	available   int             // pods that take requests
	behind      map[string]bool // those that run another configuration, by pod name
	unreachable int
	unrouted    bool   // the Service does not lead to a receiver, though one is available
	refused     string // why one cannot use the configuration
	report      *statusz.Webhook
}

// ask asks the available receivers; a pod on its way out does not count.
func (r *Reconciler) ask(ctx context.Context, hash string, pods []corev1.Pod) receivers {
	answers := receivers{polled: r.Ask != nil, behind: map[string]bool{}}
	for i := range pods {
		pod := &pods[i]
		if pod.DeletionTimestamp != nil || !isReady(pod) {
			continue
		}
		answers.available++
		if r.Ask == nil {
			continue
		}
		report, err := r.Ask(ctx, pod.Status.PodIP)
		if err != nil {
			answers.unreachable++
			continue
		}
		if report.ConfigHash != hash {
			answers.behind[pod.Name] = true
		}
		if report.RefusedHash == hash {
			answers.refused = report.RefusedReason
		}
		if len(report.Webhooks) == 1 {
			answers.report = &report.Webhooks[0]
		}
	}
	return answers
}

// askService asks by way of the Service, as the PBX will: nodes take a moment to learn of a new pod.
func (r *Reconciler) askService(ctx context.Context, w *v1alpha1.PBXWebhook) error {
	service := &corev1.Service{}
	if err := r.Get(ctx, types.NamespacedName{Namespace: w.Namespace, Name: render.Name(w.Name)}, service); err != nil {
		return fmt.Errorf("read the receiver's Service: %w", err)
	}
	_, err := r.Ask(ctx, service.Spec.ClusterIP)
	return err
}

func isReady(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
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
