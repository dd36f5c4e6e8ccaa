package controllers

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/log"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/pbxhook/pbxhook/controllers/render"
)

// APIs are those which a cluster may have or not have.
type APIs struct {
	Gateway    bool // Gateway API, for spec.expose.gateway
	PodMonitor bool // Prometheus Operator
}

// DiscoverAPIs finds out which the cluster has.
func DiscoverAPIs(c discovery.ServerResourcesInterface) (APIs, error) {
	var found APIs
	var err error
	if found.Gateway, err = serves(c, gatewayv1.GroupVersion.String(), "httproutes"); err != nil {
		return found, err
	}
	found.PodMonitor, err = serves(c, render.PodMonitorKind.GroupVersion().String(), "podmonitors")
	return found, err
}

func serves(c discovery.ServerResourcesInterface, version, resource string) (bool, error) {
	list, err := c.ServerResourcesForGroupVersion(version)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look up the API %s: %w", version, err)
	}
	for i := range list.APIResources {
		if list.APIResources[i].Name == resource {
			return true, nil
		}
	}
	return false, nil
}

// ErrAPIsChanged says that an API which the operator can use was installed or removed. Informers are
// made at the start, so the operator starts anew.
var ErrAPIsChanged = errors.New("an optional API was installed or removed")

// APIWatch ends with ErrAPIsChanged when the cluster has other optional APIs than at the start.
type APIWatch struct {
	Client discovery.ServerResourcesInterface
	Known  APIs
	Every  time.Duration
}

// Start implements manager.Runnable.
func (a *APIWatch) Start(ctx context.Context) error {
	for ticks := time.NewTicker(a.Every); ; {
		select {
		case <-ctx.Done():
			ticks.Stop()
			return nil
		case <-ticks.C:
		}
		found, err := DiscoverAPIs(a.Client)
		if err != nil { // the API server is away for a moment
			log.FromContext(ctx).V(1).Info("could not look up optional APIs", "error", err.Error())
			continue
		}
		if found != a.Known {
			return ErrAPIsChanged
		}
	}
}

// NeedLeaderElection implements manager.LeaderElectionRunnable: an operator that waits to be the leader
// would start with what it saw.
func (a *APIWatch) NeedLeaderElection() bool { return false }
