package receiver

import (
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/pbxhook/pbxhook/receiver/admin"
	"github.com/pbxhook/pbxhook/receiver/console"
)

// metricsHandler serves what machines ask: Prometheus, the kubelet and the operator.
func (r *Receiver) metricsHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(r.metrics.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !r.ready() {
			http.Error(w, "not ready: the journal is being opened, or another receiver still has it", http.StatusServiceUnavailable)
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

// metrics are the receiver's. What journals and dispatchers count anyway is read when asked for.
type metrics struct {
	receiver *Receiver
	registry *prometheus.Registry
	requests *prometheus.CounterVec
}

var (
	receivedDesc  = prometheus.NewDesc("pbxhook_events_received_total", "Events accepted and kept, since the journal was made.", []string{"webhook"}, nil)
	unparsedDesc  = prometheus.NewDesc("pbxhook_events_unparsed_total", "Events that could not be decoded, since the journal was made.", []string{"webhook"}, nil)
	versionDesc   = prometheus.NewDesc("pbxhook_events_other_version_total", "Events that came in another version than spec.version, since the journal was made.", []string{"webhook"}, nil)
	unsureDesc    = prometheus.NewDesc("pbxhook_target_expression_errors_total", "Events that a target got because an expression could not be evaluated.", []string{"webhook", "target"}, nil)
	pendingDesc   = prometheus.NewDesc("pbxhook_target_pending_events", "Events that a target does not have yet.", []string{"webhook", "target"}, nil)
	deliveredDesc = prometheus.NewDesc("pbxhook_target_delivered_total", "Events that a target took.", []string{"webhook", "target"}, nil)
	deadDesc      = prometheus.NewDesc("pbxhook_target_dead_letters_total", "Events that were given up for a target.", []string{"webhook", "target"}, nil)
	healthyDesc   = prometheus.NewDesc("pbxhook_target_healthy", "Whether a target takes its events.", []string{"webhook", "target"}, nil)
)

func newMetrics(r *Receiver) *metrics {
	m := &metrics{
		receiver: r, registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pbxhook_requests_total", Help: "Requests by the answer that they got; webhook is empty where none has the path.",
		}, []string{"webhook", "code"}),
	}
	m.registry.MustRegister(m, m.requests, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) answered(webhook string, code int) {
	m.requests.WithLabelValues(webhook, strconv.Itoa(code)).Inc()
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{receivedDesc, unparsedDesc, versionDesc, unsureDesc, pendingDesc, deliveredDesc, deadDesc, healthyDesc} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, value int64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), labels...)
	}
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	for _, w := range m.receiver.report(false).Webhooks {
		id := w.Namespace + "/" + w.Name
		counter(receivedDesc, w.Events.Received, id)
		counter(unparsedDesc, w.Events.Unparsed, id)
		counter(versionDesc, w.Events.OtherVersion, id)
		for _, t := range w.Targets {
			gauge(pendingDesc, float64(t.Pending), id, t.Name)
			counter(deliveredDesc, t.Delivered, id, t.Name)
			counter(deadDesc, t.DeadLettered, id, t.Name)
			counter(unsureDesc, t.ExpressionErrors, id, t.Name)
			healthy := 0.0
			if t.Healthy {
				healthy = 1
			}
			gauge(healthyDesc, healthy, id, t.Name)
		}
	}
}
