package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"

	"github.com/pbxhook/pbxhook/controllers/render"
	"github.com/pbxhook/pbxhook/receiver/admin"
)

// adminPort is where a receiver's pod serves the admin API, on its loopback address.
const adminPort = 9091

// receiverFlags say which receiver to ask: one on this machine by --admin, else that of a webhook in a
// cluster, by forwarding a port of its pod.
type receiverFlags struct {
	admin, namespace string
}

func (f *receiverFlags) add(cmd *cobra.Command) {
	cmd.PersistentFlags().StringVar(&f.admin, "admin", "", "URL of the admin API of a local `run`, such as http://127.0.0.1:9091")
	cmd.PersistentFlags().StringVarP(&f.namespace, "namespace", "n", "", "namespace of the webhook (default: that of the kubeconfig's context, or default)")
}

// connect returns a client and the webhooks that are meant: the one that is named or, of a local
// receiver, all. end ends the connection.
func (f *receiverFlags) connect(ctx context.Context, name string) (client *admin.Client, webhooks []admin.Webhook, end func(), err error) {
	base, end := f.admin, func() {}
	if base == "" {
		if name == "" {
			return nil, nil, nil, errors.New("expected the webhook's name (with -n NAMESPACE), or --admin with the URL of a local receiver's admin API")
		}
		if base, end, err = f.forward(ctx, name); err != nil {
			return nil, nil, nil, err
		}
	}
	client, webhooks, err = f.meant(ctx, base, name)
	if err != nil {
		end()
	}
	return client, webhooks, end, err
}

// meant asks a receiver which webhooks it serves, and takes those that are meant.
func (f *receiverFlags) meant(ctx context.Context, base, name string) (*admin.Client, []admin.Webhook, error) {
	client, err := admin.NewClient(base)
	if err != nil {
		return nil, nil, fmt.Errorf("--admin: %w", err)
	}
	all, err := client.Webhooks(ctx)
	if err != nil {
		return nil, nil, err
	}
	var webhooks []admin.Webhook
	for _, w := range all {
		if (name == "" || w.Name == name) && (f.namespace == "" || w.Namespace == f.namespace) {
			webhooks = append(webhooks, w)
		}
	}
	if len(webhooks) == 0 {
		return nil, nil, fmt.Errorf("%w: this receiver serves %v", admin.ErrNotFound, all)
	}
	return client, webhooks, nil
}

// forward forwards a port of this machine to the admin API of a webhook's receiver.
func (f *receiverFlags) forward(ctx context.Context, name string) (base string, end func(), err error) {
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(clientcmd.NewDefaultClientConfigLoadingRules(), &clientcmd.ConfigOverrides{})
	if f.namespace == "" {
		if f.namespace, _, err = loader.Namespace(); err != nil {
			return "", nil, fmt.Errorf("read the kubeconfig: %w", err)
		}
	}
	config, err := loader.ClientConfig()
	if err != nil {
		return "", nil, fmt.Errorf("read the kubeconfig (or give --admin, for a local receiver): %w", err)
	}
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		return "", nil, fmt.Errorf("make a client of the cluster: %w", err)
	}
	selector := labels.SelectorFromSet(labels.Set{render.LabelName: render.ReceiverName, render.LabelWebhook: name})
	pods, err := clients.CoreV1().Pods(f.namespace).List(ctx, metav1.ListOptions{LabelSelector: selector.String()})
	if err != nil {
		return "", nil, fmt.Errorf("find the receiver of %s/%s: %w", f.namespace, name, err)
	}
	for i := range pods.Items {
		pod := &pods.Items[i]
		if pod.Status.Phase != corev1.PodRunning || pod.DeletionTimestamp != nil {
			continue
		}
		transport, upgrader, err := spdy.RoundTripperFor(config)
		if err != nil {
			return "", nil, fmt.Errorf("make a connection to the cluster: %w", err)
		}
		address := clients.CoreV1().RESTClient().Post().Resource("pods").Namespace(pod.Namespace).Name(pod.Name).SubResource("portforward").URL()
		dialer := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, address)
		stop, ready := make(chan struct{}), make(chan struct{})
		forwarder, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, []string{fmt.Sprintf("0:%d", adminPort)}, stop, ready, io.Discard, io.Discard)
		if err != nil {
			return "", nil, fmt.Errorf("forward a port of pod %s: %w", pod.Name, err)
		}
		return tunnel(forwarder, stop, ready)
	}
	return "", nil, fmt.Errorf("%w: no pod of a receiver runs for webhook %s/%s: see kubectl -n %s describe pbx %s", admin.ErrNotFound, f.namespace, name, f.namespace, name)
}

// tunnel opens the forwarding and waits until it is there.
func tunnel(forwarder *portforward.PortForwarder, stop chan struct{}, ready <-chan struct{}) (base string, end func(), err error) {
	ended := make(chan error, 1)
	go func() { ended <- forwarder.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-ended:
		return "", nil, fmt.Errorf("forward a port of the receiver's pod: %w", err)
	}
	end = func() {
		close(stop)
		<-ended
	}
	ports, err := forwarder.GetPorts()
	if err != nil {
		end()
		return "", nil, fmt.Errorf("forward a port of the receiver's pod: %w", err)
	}
	return fmt.Sprintf("http://127.0.0.1:%d", ports[0].Local), end, nil
}

// each calls do for each webhook that is meant.
func (f *receiverFlags) each(ctx context.Context, name string, do func(context.Context, *admin.Client, admin.Webhook) error) error {
	client, webhooks, end, err := f.connect(ctx, name)
	if err != nil {
		return err
	}
	defer end()
	for _, w := range webhooks {
		if err := do(ctx, client, w); err != nil {
			return err
		}
	}
	return nil
}
