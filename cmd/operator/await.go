package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/discovery"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/pbxhook/pbxhook/controllers"
)

// retries are the waits between attempts to reach the API server: 1 s, doubling to 10 s.
var retries = wait.Backoff{Duration: time.Second, Factor: 2, Jitter: 0.1, Steps: 1 << 30, Cap: 10 * time.Second}

// awaitAPIs finds out which optional APIs the cluster has, and waits until the API server answers. Meanwhile the
// operator is alive and not ready, so that the kubelet does not restart it.
func awaitAPIs(ctx context.Context, discover discovery.ServerResourcesInterface, probes string) (controllers.APIs, error) {
	apis, err := controllers.DiscoverAPIs(discover)
	if err == nil {
		return apis, nil
	}
	end := serveAlive(probes)
	defer end()
	backoff := retries
	for {
		next := backoff.Step()
		ctrl.Log.Info("the API server does not answer: trying again", "error", err.Error(), "in", next.Round(time.Millisecond).String())
		select {
		case <-ctx.Done():
			return apis, fmt.Errorf("wait for the API server: %w", context.Cause(ctx))
		case <-time.After(next):
		}
		if apis, err = controllers.DiscoverAPIs(discover); err == nil {
			return apis, nil
		}
	}
}

// serveAlive answers /healthz with 200 and all else with 503, until end is called.
func serveAlive(address string) (end func()) {
	if address == "" || address == "0" {
		return func() {}
	}
	listener, err := net.Listen("tcp", address)
	if err != nil { // the manager will say so, too
		ctrl.Log.Error(err, "cannot answer probes while waiting for the API server")
		return func() {}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "waiting for the API server", http.StatusServiceUnavailable)
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second, MaxHeaderBytes: 1 << 14}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			ctrl.Log.Error(err, "cannot answer probes while waiting for the API server")
		}
	}()
	return func() {
		_ = server.Close() // probes come again
		<-done
	}
}
