package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/controllers/render"
	"github.com/pbxhook/pbxhook/receiver/admin"
)

// adminPort is where a receiver's pod serves the admin API, on its loopback address.
const adminPort = 9091

// completeTime is how long a shell waits for names.
const completeTime = 3 * time.Second

// receiverFlags say which receiver to ask: one on this machine by --admin, else that of a webhook in a
// cluster, by forwarding a port of its pod.
type receiverFlags struct {
	admin, namespace string
}

func (f *receiverFlags) add(cmd *cobra.Command) {
	cmd.PersistentFlags().StringVar(&f.admin, "admin", "", "URL of the admin API of a local pbxhook run, such as http://127.0.0.1:9091")
	cmd.ValidArgsFunction = f.complete
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
		tunnel, err := f.forward(ctx, name, anyPort)
		if err != nil {
			return nil, nil, nil, err
		}
		base, end = tunnel.base, tunnel.end
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

// cluster reads the kubeconfig, and with it the namespace where none was given.
func (f *receiverFlags) cluster() (*rest.Config, error) {
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(clientcmd.NewDefaultClientConfigLoadingRules(), &clientcmd.ConfigOverrides{})
	config, err := loader.ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig (or give --admin, for a local receiver): %w", err)
	}
	if f.namespace == "" {
		if f.namespace, _, err = loader.Namespace(); err != nil {
			return nil, fmt.Errorf("read the kubeconfig: %w", err)
		}
	}
	return config, nil
}

var webhooks = v1alpha1.GroupVersion.WithResource("pbxwebhooks")

// conditions are those of a webhook in the cluster.
func (f *receiverFlags) conditions(ctx context.Context, name string) ([]metav1.Condition, error) {
	config, err := f.cluster()
	if err != nil {
		return nil, err
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client of the cluster: %w", err)
	}
	object, err := client.Resource(webhooks).Namespace(f.namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read the PBXWebhook: %w", err)
	}
	var w v1alpha1.PBXWebhook
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &w); err != nil {
		return nil, fmt.Errorf("read the PBXWebhook: %w", err)
	}
	return w.Status.Conditions, nil
}

// complete completes the names of the namespace's webhooks.
func (f *receiverFlags) complete(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	config, err := f.cluster()
	if err != nil || len(args) > 0 || f.admin != "" {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTime)
	defer cancel()
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	list, err := client.Resource(webhooks).Namespace(f.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for i := range list.Items {
		names = append(names, list.Items[i].GetName())
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// anyPort asks for a port of this machine that is free.
const anyPort = -1

// tunnel is a port of this machine that leads to a receiver's admin API.
type tunnel struct {
	base  string // URL
	port  int
	ended <-chan struct{} // closed when the connection has ended
	end   func()
}

// forward forwards a port of this machine (0: the usual one, or any when that is taken) to the admin API of a
// webhook's receiver.
func (f *receiverFlags) forward(ctx context.Context, name string, port int) (*tunnel, error) {
	config, err := f.cluster()
	if err != nil {
		return nil, err
	}
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client of the cluster: %w", err)
	}
	selector := labels.SelectorFromSet(labels.Set{render.LabelName: render.ReceiverName, render.LabelWebhook: name})
	pods, err := clients.CoreV1().Pods(f.namespace).List(ctx, metav1.ListOptions{LabelSelector: selector.String()})
	if err != nil {
		return nil, fmt.Errorf("find the receiver of %s/%s: %w", f.namespace, name, err)
	}
	for i := range pods.Items {
		pod := &pods.Items[i]
		if pod.Status.Phase != corev1.PodRunning || pod.DeletionTimestamp != nil {
			continue
		}
		if port == 0 {
			if t, err := forwardTo(config, clients, pod, adminPort); err == nil {
				return t, nil
			}
		}
		return forwardTo(config, clients, pod, max(port, 0))
	}
	return nil, fmt.Errorf("%w: no pod of a receiver runs for webhook %s/%s: see kubectl -n %s describe pbx %s", admin.ErrNotFound, f.namespace, name, f.namespace, name)
}

// forwardTo forwards a port of this machine (0: any) to a pod's admin API, and waits until it is there.
func forwardTo(config *rest.Config, clients *kubernetes.Clientset, pod *corev1.Pod, port int) (*tunnel, error) {
	transport, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return nil, fmt.Errorf("make a connection to the cluster: %w", err)
	}
	address := clients.CoreV1().RESTClient().Post().Resource("pods").Namespace(pod.Namespace).Name(pod.Name).SubResource("portforward").URL()
	dialer := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, address)
	stop, ready := make(chan struct{}), make(chan struct{})
	forwarder, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, []string{fmt.Sprintf("%d:%d", port, adminPort)}, stop, ready, io.Discard, io.Discard)
	if err != nil {
		return nil, fmt.Errorf("forward a port of pod %s: %w", pod.Name, err)
	}
	ended, trouble := make(chan struct{}), error(nil)
	go func() {
		defer close(ended)
		trouble = forwarder.ForwardPorts()
	}()
	select {
	case <-ready:
	case <-ended:
		return nil, fmt.Errorf("forward a port of pod %s (it needs the right to create pods/portforward in %s): %w", pod.Name, pod.Namespace, trouble)
	}
	end := func() {
		close(stop)
		<-ended
	}
	ports, err := forwarder.GetPorts()
	if err != nil {
		end()
		return nil, fmt.Errorf("forward a port of pod %s: %w", pod.Name, err)
	}
	local := int(ports[0].Local)
	return &tunnel{base: fmt.Sprintf("http://127.0.0.1:%d", local), port: local, ended: ended, end: end}, nil
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
