// The operator turns PBXWebhooks into receivers, and reports how they fare.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
	_ "time/tzdata" // the image has no zone files

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/discovery"
	ctrl "sigs.k8s.io/controller-runtime"
	ctrlconfig "sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/pbxhook/pbxhook/api/networks"
	"github.com/pbxhook/pbxhook/controllers"
	"github.com/pbxhook/pbxhook/controllers/render"
	"github.com/pbxhook/pbxhook/receiver"
)

// The Lease and its events are in the operator's own namespace; who asks for metrics is looked up.
//
// +kubebuilder:rbac:groups=coordination.k8s.io,namespace=pbxhook-system,resources=leases,verbs=get;create;update
// +kubebuilder:rbac:groups="",namespace=pbxhook-system,resources=events,verbs=create;patch
// +kubebuilder:rbac:groups=authentication.k8s.io,resources=tokenreviews,verbs=create
// +kubebuilder:rbac:groups=authorization.k8s.io,resources=subjectaccessreviews,verbs=create

const (
	// apisEvery is how often optional APIs are looked for.
	apisEvery = 15 * time.Second
	// syncTimeout is how long the caches may take to fill, as while the API server is away.
	syncTimeout = 10 * time.Minute
)

type options struct {
	image         string
	poll          bool
	setUser       bool
	namespaces    string
	monitoring    string
	deny          string
	allow         string
	elect         bool
	metrics       string
	metricsSecure bool
	metricsCerts  string
	probes        string
	pollInterval  time.Duration
	rollPercent   int
	lease         time.Duration
	selector      string
}

func flags(o *options) {
	flag.StringVar(&o.image, "receiver-image", os.Getenv("RECEIVER_IMAGE"), "image of the receivers (default: $RECEIVER_IMAGE)")
	flag.BoolVar(&o.poll, "poll-receivers", true, "ask receivers which configuration they run; false, for an operator outside the cluster, judges by the API server alone")
	flag.BoolVar(&o.setUser, "set-user", true, "run receivers as user and group 65532; false leaves that to the cluster (OpenShift)")
	flag.StringVar(&o.namespaces, "namespaces", "", "namespaces, separated by commas, whose PBXWebhooks are served; empty: all")
	flag.StringVar(&o.monitoring, "monitoring-namespaces", "monitoring", "namespaces, separated by commas, that may scrape receivers")
	flag.StringVar(&o.deny, "deny-networks", "", "networks, separated by commas, that targets may not be in, beside loopback, link-local and multicast addresses")
	flag.StringVar(&o.allow, "allow-networks", "", "networks, separated by commas, that targets may be in all the same")
	flag.BoolVar(&o.elect, "leader-elect", false, "let one of several operators work")
	flag.StringVar(&o.metrics, "metrics-bind-address", "0", "address of /metrics; 0: none")
	flag.BoolVar(&o.metricsSecure, "metrics-secure", true, "serve metrics over https, to those alone who may get /metrics")
	flag.StringVar(&o.metricsCerts, "metrics-cert-dir", "", "folder with tls.crt and tls.key for metrics, reloaded when they change; empty: a certificate of its own")
	flag.DurationVar(&o.pollInterval, "poll-interval", 30*time.Second, "how often receivers are asked while nothing happens: a target that goes down or comes back shows in the status within that time")
	flag.IntVar(&o.rollPercent, "roll-percent", 10, "percentage of the PBXWebhooks whose receivers are replaced at a time, at least one, by a change that concerns all of them, such as an upgrade of the operator")
	flag.DurationVar(&o.lease, "lease-duration", 15*time.Second, "how long another operator waits for a leader that is gone without having released the Lease")
	flag.StringVar(&o.selector, "namespace-selector", "", "labels of the namespaces whose PBXWebhooks are served, such as team=voice; empty: of all, or of those in --namespaces")
	flag.StringVar(&o.probes, "health-probe-bind-address", ":8081", "address of /healthz and /readyz")
}

func main() {
	var o options
	flags(&o)
	logs := zap.Options{}
	logs.BindFlags(flag.CommandLine)
	flag.Parse()
	ctrl.SetLogger(zap.New(zap.UseFlagOptions(&logs)))
	err := run(o)
	if errors.Is(err, controllers.ErrAPIsChanged) || isLeadershipLost(err) {
		ctrl.Log.Info("restarting within the container", "because", err.Error())
		err = again()
	}
	if err != nil {
		ctrl.Log.Error(err, "the operator ended")
		os.Exit(1)
	}
}

// isLeadershipLost reports whether the Lease could not be renewed, as when the API server is away: the error has no type.
func isLeadershipLost(err error) bool {
	return err != nil && strings.Contains(err.Error(), "leader election lost")
}

// again starts this program again in its own process, so that its container does not end.
func again() error {
	path, err := os.Executable()
	if err != nil {
		return fmt.Errorf("restart: %w", err)
	}
	return fmt.Errorf("restart: %w", syscall.Exec(path, os.Args, os.Environ()))
}

// check finds values of flags that cannot be used.
func (o *options) check() error {
	switch {
	case o.image == "":
		return errors.New("expected the receivers' image in --receiver-image or $RECEIVER_IMAGE, got none")
	case o.selector != "" && o.namespaces != "":
		return errors.New("expected one of --namespaces and --namespace-selector, got both")
	case o.rollPercent < 1 || o.rollPercent > 100:
		return fmt.Errorf("--roll-percent: expected 1 to 100, got %d", o.rollPercent)
	case o.pollInterval < time.Second:
		return fmt.Errorf("--poll-interval: expected at least 1s, got %s", o.pollInterval)
	case o.lease < 5*time.Second:
		return fmt.Errorf("--lease-duration: expected at least 5s, got %s", o.lease)
	}
	for flag, list := range map[string]string{"--deny-networks": o.deny, "--allow-networks": o.allow} {
		if _, err := networks.Parse(split(list)); err != nil {
			return fmt.Errorf("%s: %w", flag, err)
		}
	}
	return nil
}

func run(o options) error {
	if err := o.check(); err != nil {
		return err
	}
	ctx := ctrl.SetupSignalHandler()
	config, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("find the cluster: %w", err)
	}
	discover, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return fmt.Errorf("make the discovery client: %w", err)
	}
	apis, err := awaitAPIs(ctx, discover, o.probes)
	if err != nil {
		return err
	}
	scheme, err := controllers.Scheme()
	if err != nil {
		return err
	}
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:                        scheme,
		Cache:                         controllers.CacheOptions(apis, split(o.namespaces)...),
		Metrics:                       metricsOptions(o),
		HealthProbeBindAddress:        o.probes,
		LeaderElection:                o.elect,
		LeaderElectionID:              "operator.pbxhook.io",
		LeaderElectionReleaseOnCancel: true,
		LeaseDuration:                 new(o.lease),
		RenewDeadline:                 new(o.lease * 2 / 3),
		RetryPeriod:                   new(o.lease * 2 / 15),
		Controller:                    ctrlconfig.Controller{CacheSyncTimeout: syncTimeout},
	})
	if err != nil {
		return fmt.Errorf("make the manager: %w", err)
	}
	if err := setUp(mgr, o, apis); err != nil {
		return err
	}
	if err := mgr.Add(&controllers.APIWatch{Client: discover, Known: apis, Every: apisEvery}); err != nil {
		return fmt.Errorf("watch for optional APIs: %w", err)
	}
	return mgr.Start(ctx)
}

// telemetry are the variables of OpenTelemetry that the operator has: receivers get the same.
func telemetry() []string {
	all := slices.DeleteFunc(os.Environ(), func(variable string) bool { return !strings.HasPrefix(variable, "OTEL_") })
	slices.Sort(all)
	return all
}

func metricsOptions(o options) server.Options {
	metrics := server.Options{BindAddress: o.metrics, SecureServing: o.metricsSecure, CertDir: o.metricsCerts}
	if o.metricsSecure {
		metrics.FilterProvider = filters.WithAuthenticationAndAuthorization
	}
	return metrics
}

func setUp(mgr manager.Manager, o options, apis controllers.APIs) error {
	reconciler := &controllers.Reconciler{
		Client:      mgr.GetClient(),
		Live:        mgr.GetAPIReader(),
		Events:      mgr.GetEventRecorder("pbxhook"),
		Receiver:    render.Receiver{Image: o.image, DenyNetworks: o.deny, AllowNetworks: o.allow, LeaveUser: !o.setUser, Telemetry: telemetry()},
		Askers:      append(split(os.Getenv("POD_NAMESPACE")), split(o.monitoring)...),
		APIs:        apis,
		DropJournal: receiver.DropJournal,
		RollPercent: o.rollPercent, PollInterval: o.pollInterval,
	}
	if o.poll {
		reconciler.Ask, reconciler.Reach = controllers.AskReceivers(), controllers.ReachTCP
	}
	var err error
	if o.selector != "" {
		if reconciler.Namespaces, err = labels.Parse(o.selector); err != nil {
			return fmt.Errorf("--namespace-selector: %w", err)
		}
	}
	if err := reconciler.SetupWithManager(mgr); err != nil {
		return fmt.Errorf("set up the controller: %w", err)
	}
	if err := errors.Join(mgr.AddHealthzCheck("ping", healthz.Ping), mgr.AddReadyzCheck("ping", healthz.Ping)); err != nil {
		return fmt.Errorf("set up the probes: %w", err)
	}
	return nil
}

// split reads a list separated by commas.
func split(list string) []string {
	var items []string
	for item := range strings.SplitSeq(list, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}
