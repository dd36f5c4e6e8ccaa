package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
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

	"github.com/pbxhook/pbxhook/api/spelling"
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
	admin, namespace, kubeconfig, context string
}

func (f *receiverFlags) add(cmd *cobra.Command) {
	flags := cmd.PersistentFlags()
	flags.StringVar(&f.admin, "admin", "", "URL of the admin API of a local pbxhook run (default: "+localAdmin+", where one runs and no webhook is named)")
	flags.StringVarP(&f.namespace, "namespace", "n", "", "namespace of the webhook (default: that of the kubeconfig's context, or default)")
	flags.StringVar(&f.kubeconfig, "kubeconfig", "", "path of the kubeconfig (default: $KUBECONFIG, or ~/.kube/config)")
	flags.StringVar(&f.context, "context", "", "context of the kubeconfig (default: its current one)")
	cmd.ValidArgsFunction = f.complete
	_ = cmd.RegisterFlagCompletionFunc("context", f.completeContexts) // it was added a line above
}

// localAdmin is where a local receiver serves the admin API, unless it was told otherwise.
const localAdmin = "http://127.0.0.1:9091"

// probed is where one is looked for; tests look elsewhere, since somebody may have one running.
var probed = localAdmin

// probeTime is how long a local receiver is looked for.
const probeTime = time.Second

// name splits a webhook's name as tables print it, namespace/name, and takes the namespace from it.
func (f *receiverFlags) name(text string) (string, error) {
	namespace, name, ok := strings.Cut(text, "/")
	if !ok {
		return text, nil
	}
	if f.namespace != "" && f.namespace != namespace {
		return "", fmt.Errorf("the webhook %s is not in the namespace %s that -n names: leave one of them out", text, f.namespace)
	}
	f.namespace = namespace
	return name, nil
}

// findLocal takes the receiver on this machine where neither a webhook nor --admin was given.
func (f *receiverFlags) findLocal(ctx context.Context, name string) error {
	if f.admin != "" || name != "" {
		return nil
	}
	client, err := admin.NewClient(probed)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	if _, err := client.Webhooks(ctx); err != nil {
		return fmt.Errorf("expected the webhook's name (with -n NAMESPACE), or a receiver on this machine: none answers at %s; give the URL of its admin API with --admin", probed)
	}
	f.admin = probed
	return nil
}

// connect returns a client and the webhooks that are meant: the one that is named or, of a local
// receiver, all. end ends the connection.
func (f *receiverFlags) connect(ctx context.Context, name string) (client *admin.Client, webhooks []admin.Webhook, end func(), err error) {
	if name, err = f.name(name); err == nil {
		err = f.findLocal(ctx, name)
	}
	if err != nil {
		return nil, nil, nil, err
	}
	base, end := f.admin, func() {}
	if base == "" {
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
		return nil, nil, fmt.Errorf("%w: no webhook %s: this receiver serves %s", admin.ErrNotFound, cmp.Or(name, "in namespace "+f.namespace), join(all)+spelling.DidYouMean(name, namesOf(all)))
	}
	return client, webhooks, nil
}

// join lists webhooks as tables print them.
func join(all []admin.Webhook) string {
	var texts []string
	for _, w := range all {
		texts = append(texts, w.String())
	}
	return cmp.Or(strings.Join(texts, ", "), "none")
}

func namesOf(all []admin.Webhook) []string {
	var names []string
	for _, w := range all {
		names = append(names, w.Name)
	}
	return names
}

// kubeconfigLoader reads the kubeconfig that the flags name.
func (f *receiverFlags) kubeconfigLoader() clientcmd.ClientConfig {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = f.kubeconfig
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: f.context})
}

// cluster reads the kubeconfig, and with it the namespace where none was given.
func (f *receiverFlags) cluster() (*rest.Config, error) {
	loader := f.kubeconfigLoader()
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

// completeContexts completes the contexts of the kubeconfig.
func (f *receiverFlags) completeContexts(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	raw, err := f.kubeconfigLoader().RawConfig()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return slices.Sorted(maps.Keys(raw.Contexts)), cobra.ShellCompDirectiveNoFileComp
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

// completeTargets completes the targets of the webhooks that are meant.
func (f *receiverFlags) completeTargets(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTime)
	defer cancel()
	var names []string
	if err := f.each(ctx, first(args), func(ctx context.Context, c *admin.Client, w admin.Webhook) error {
		of, err := targetNames(ctx, c, w)
		names = append(names, of...)
		return err
	}); err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	slices.Sort(names)
	return slices.Compact(names), cobra.ShellCompDirectiveNoFileComp
}

// targetNames returns the names of a webhook's targets.
func targetNames(ctx context.Context, c *admin.Client, w admin.Webhook) ([]string, error) {
	all, err := c.Status(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, s := range all {
		for _, t := range s.Targets {
			if s.Webhook == w.String() {
				names = append(names, t.Name)
			}
		}
	}
	return names, nil
}

// knownTarget refuses a target that a webhook does not have, naming those that it has.
func knownTarget(ctx context.Context, c *admin.Client, w admin.Webhook, target string) error {
	if target == "" {
		return nil
	}
	names, err := targetNames(ctx, c, w)
	if err == nil {
		err = oneOf("--target", target, names)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", w, err)
	}
	return nil
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
