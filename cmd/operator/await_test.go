package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"

	"github.com/pbxhook/pbxhook/controllers"
)

// away is an API server that answers from the nth question on.
type away struct {
	discovery.ServerResourcesInterface
	until, asked atomic.Int32
}

func (a *away) ServerResourcesForGroupVersion(string) (*metav1.APIResourceList, error) {
	if a.asked.Add(1) < a.until.Load() {
		return nil, errors.New("connection refused")
	}
	return &metav1.APIResourceList{APIResources: []metav1.APIResource{{Name: "httproutes"}}}, nil
}

// TestAwaitAPIs: an API server that is away at the start is waited for, and the operator is alive meanwhile.
func TestAwaitAPIs(t *testing.T) {
	before := retries
	retries.Duration = 10 * time.Millisecond
	t.Cleanup(func() { retries = before })
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := listener.Addr().String()
	require.NoError(t, listener.Close())

	server := &away{}
	server.until.Store(1 << 20)
	found := make(chan controllers.APIs, 1)
	go func() {
		apis, err := awaitAPIs(t.Context(), server, address)
		if err == nil {
			found <- apis
		}
		close(found)
	}()
	get := func(path string) int {
		response, err := http.Get("http://" + address + path)
		if err != nil {
			return 0
		}
		_ = response.Body.Close()
		return response.StatusCode
	}
	require.Eventually(t, func() bool {
		return get("/healthz") == http.StatusOK && get("/readyz") == http.StatusServiceUnavailable
	}, time.Minute, 10*time.Millisecond)
	server.until.Store(0)
	apis, ok := <-found
	require.True(t, ok)
	require.True(t, apis.Gateway)
	require.Zero(t, get("/healthz"), "the manager listens there from now on")

	server.until.Store(1 << 20)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = awaitAPIs(ctx, server, "0")
	require.ErrorIs(t, err, context.Canceled)
}

func TestCheck(t *testing.T) {
	good := func() options {
		return options{image: "pbxhook:dev", rollPercent: 10, pollInterval: 30 * time.Second, lease: 15 * time.Second}
	}
	for name, tc := range map[string]struct {
		change func(*options)
		want   string
	}{
		"good":          {func(*options) {}, ""},
		"no image":      {func(o *options) { o.image = "" }, "--receiver-image"},
		"both":          {func(o *options) { o.namespaces, o.selector = "crm", "a=b" }, "one of --namespaces and --namespace-selector"},
		"no roll":       {func(o *options) { o.rollPercent = 0 }, "--roll-percent: expected 1 to 100, got 0"},
		"poll too fast": {func(o *options) { o.pollInterval = time.Millisecond }, "--poll-interval"},
		"short lease":   {func(o *options) { o.lease = time.Second }, "--lease-duration"},
		"networks":      {func(o *options) { o.deny = "10.0.0.0/99" }, "--deny-networks"},
	} {
		t.Run(name, func(t *testing.T) {
			o := good()
			tc.change(&o)
			if err := o.check(); tc.want != "" {
				require.ErrorContains(t, err, tc.want)
			} else {
				require.NoError(t, err)
			}
		})
	}
}
