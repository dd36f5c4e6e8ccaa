package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pbxhook/pbxhook/api/statusz"
	"github.com/pbxhook/pbxhook/controllers/render"
)

// nodes are kubelets, kube-proxies and receivers in one: pods become ready at addresses on loopback, where
// something answers as a receiver does, and so do Services.
type nodes struct {
	client  client.Client
	cancel  context.CancelFunc
	synced  chan struct{}  // closed when nothing new is served
	running sync.WaitGroup // servers

	pods    int
	known   map[string]bool // pods and Services that are served
	servers []*http.Server
}

func startNodes(ctx context.Context, c client.Client) *nodes {
	ctx, cancel := context.WithCancel(ctx)
	n := &nodes{client: c, cancel: cancel, known: map[string]bool{}, synced: make(chan struct{})}
	go func() {
		defer close(n.synced)
		for ctx.Err() == nil {
			if err := n.sync(ctx); err != nil && ctx.Err() == nil {
				fmt.Println("nodes:", err) // tried again
			}
			select {
			case <-ctx.Done():
			case <-time.After(300 * time.Millisecond):
			}
		}
	}()
	return n
}

func (n *nodes) stop() {
	n.cancel()
	<-n.synced
	for _, s := range n.servers {
		_ = s.Close() // its answers are not waited for
	}
	n.running.Wait()
}

// sync serves what is new.
func (n *nodes) sync(ctx context.Context) error {
	services := &corev1.ServiceList{}
	if err := n.client.List(ctx, services, client.MatchingLabels{render.LabelManagedBy: render.ManagedBy}); err != nil {
		return fmt.Errorf("list Services: %w", err)
	}
	for i := range services.Items {
		if err := n.serve(services.Items[i].Spec.ClusterIP, services.Items[i].Labels[render.LabelWebhook]); err != nil {
			return err
		}
	}
	pods := &corev1.PodList{}
	if err := n.client.List(ctx, pods, client.MatchingLabels{render.LabelManagedBy: render.ManagedBy}); err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	for i := range pods.Items {
		if err := n.run(ctx, &pods.Items[i]); err != nil {
			return err
		}
	}
	return nil
}

// run makes a pod ready, once.
func (n *nodes) run(ctx context.Context, pod *corev1.Pod) error {
	if pod.Status.PodIP != "" {
		return nil
	}
	n.pods++
	ip := fmt.Sprintf("127.77.%d.%d", n.pods/250, n.pods%250+1)
	if err := n.serve(ip, pod.Labels[render.LabelWebhook]); err != nil {
		return err
	}
	before := pod.DeepCopy()
	pod.Status.Phase, pod.Status.PodIP, pod.Status.PodIPs, pod.Status.HostIP = corev1.PodRunning, ip, []corev1.PodIP{{IP: ip}}, "192.0.2.1"
	pod.Status.HostIPs = []corev1.HostIP{{IP: "192.0.2.1"}}
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
	if err := n.client.Status().Patch(ctx, pod, client.MergeFrom(before)); err != nil {
		return fmt.Errorf("make pod %s ready: %w", pod.Name, err)
	}
	return nil
}

// serve answers /statusz at an address as a receiver that took its configuration.
func (n *nodes) serve(ip, webhook string) error {
	if n.known[ip] {
		return nil
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(ip, strconv.Itoa(render.MetricsPort)))
	if err != nil {
		return fmt.Errorf("listen as a receiver: %w", err)
	}
	n.known[ip] = true
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		secret := &corev1.Secret{}
		if err := n.client.Get(r.Context(), client.ObjectKey{Namespace: namespace, Name: render.Name(webhook)}, secret); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(w).Encode(statusz.Report{ConfigHash: render.Hash(secret.Data[render.ManifestKey]), Webhooks: []statusz.Webhook{{Namespace: namespace, Name: webhook}}})
	})}
	n.servers = append(n.servers, server)
	n.running.Go(func() { _ = server.Serve(listener) }) // until Close
	return nil
}
