package receiver

import (
	"encoding/json"
	"net/http"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/pbxhook/pbxhook/receiver/admin"
	"github.com/pbxhook/pbxhook/receiver/console"
)

// metricsHandler serves what machines ask: Prometheus, the kubelet and the operator.
func (r *Receiver) metricsHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(r.metrics.registry, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if reason := r.notReady(); reason != "" {
			http.Error(w, "not ready: "+reason, http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusOK)
	})
	mux.HandleFunc("GET /statusz", r.statusz)
	return mux
}

// adminHandler serves what people ask, on a loopback address: the console, and the API behind the commands.
func (r *Receiver) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /statusz", r.statusz)
	admin.Register(mux, r)
	console.Register(mux, r)
	return mux
}

func (r *Receiver) statusz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(r.Report()); err != nil {
		r.log.Debug("statusz was not read to its end", "error", err)
	}
}
