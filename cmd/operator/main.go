// The operator turns PBXWebhooks into receivers, and reports how they fare.
package main

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"strings"
	_ "time/tzdata" // the image has no zone files

	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/controllers"
	"github.com/pbxhook/pbxhook/controllers/render"
)

// +kubebuilder:rbac:groups=coordination.k8s.io,namespace=pbxhook-system,resources=leases,verbs=get;create;update
// +kubebuilder:rbac:groups="",namespace=pbxhook-system,resources=events,verbs=create;patch

type options struct {
	image   string
	poll    bool
	elect   bool
	metrics string
	probes  string
	deny    string
	allow   string
}

func main() {
	var o options
	flag.StringVar(&o.image, "receiver-image", os.Getenv("RECEIVER_IMAGE"), "image of the receivers (default: $RECEIVER_IMAGE)")
	flag.BoolVar(&o.poll, "poll-receivers", true, "ask receivers which configuration they run; false, for an operator outside the cluster, judges by the API server alone")
	flag.BoolVar(&o.elect, "leader-elect", false, "let one of several operators work")
	flag.StringVar(&o.metrics, "metrics-bind-address", "0", "address of /metrics; 0: none")
	flag.StringVar(&o.probes, "health-probe-bind-address", ":8081", "address of /healthz and /readyz")
	flag.StringVar(&o.deny, "deny-networks", "", "networks, separated by commas, that targets may not be in, beside loopback, link-local and multicast addresses")
	flag.StringVar(&o.allow, "allow-networks", "", "networks, separated by commas, that targets may be in all the same")
	logs := zap.Options{}
	logs.BindFlags(flag.CommandLine)
	flag.Parse()
	ctrl.SetLogger(zap.New(zap.UseFlagOptions(&logs)))
	if err := run(o); err != nil {
		ctrl.Log.Error(err, "the operator ended")
		os.Exit(1)
	}
}

func run(o options) error {
	if o.image == "" {
		return errors.New("expected the receivers' image in --receiver-image or $RECEIVER_IMAGE, got none")
	}
	for flag, networks := range map[string]string{"--deny-networks": o.deny, "--allow-networks": o.allow} {
		for network := range strings.SplitSeq(networks, ",") {
			if _, _, err := net.ParseCIDR(network); err != nil && net.ParseIP(network) == nil && networks != "" {
				return fmt.Errorf("%s: expected networks such as 10.0.0.0/8, separated by commas, got %q", flag, network)
			}
		}
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return fmt.Errorf("make the scheme: %w", err)
	}
	mgr, err := ctrl.NewManager(ctrl.GetConfigOrDie(), ctrl.Options{
		Scheme:                        scheme,
		Cache:                         controllers.CacheOptions(),
		Metrics:                       server.Options{BindAddress: o.metrics},
		HealthProbeBindAddress:        o.probes,
		LeaderElection:                o.elect,
		LeaderElectionID:              "operator.pbxhook.io",
		LeaderElectionReleaseOnCancel: true,
	})
	if err != nil {
		return fmt.Errorf("make the manager: %w", err)
	}
	reconciler := &controllers.Reconciler{
		Client:   mgr.GetClient(),
		Live:     mgr.GetAPIReader(),
		Events:   mgr.GetEventRecorder("pbxhook"),
		Receiver: render.Receiver{Image: o.image, DenyNetworks: o.deny, AllowNetworks: o.allow},
	}
	if o.poll {
		reconciler.Ask = controllers.AskReceivers()
	}
	if err := reconciler.SetupWithManager(mgr); err != nil {
		return fmt.Errorf("set up the controller: %w", err)
	}
	if err := errors.Join(mgr.AddHealthzCheck("ping", healthz.Ping), mgr.AddReadyzCheck("ping", healthz.Ping)); err != nil {
		return fmt.Errorf("set up the probes: %w", err)
	}
	return mgr.Start(ctrl.SetupSignalHandler())
}
