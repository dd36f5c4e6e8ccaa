package receiver

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/pbxhook/pbxhook/receiver/dispatch"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/provider"
	"github.com/pbxhook/pbxhook/receiver/server"
)

// metrics are the receiver's. What journals and dispatchers count anyway is read when asked for. Labels are
// webhooks, targets, and a few fixed words: never a number or a call.
type metrics struct {
	receiver *Receiver
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	unread   *prometheus.CounterVec
	accepted *prometheus.HistogramVec
	attempts *prometheus.CounterVec
	duration *prometheus.HistogramVec
	delay    *prometheus.HistogramVec
	panics   *prometheus.CounterVec
}

const (
	labelWebhook = "webhook" // namespace/name
	labelTarget  = "target"
	labelCode    = "code"
	labelResult  = "result"
	labelReason  = "reason"
	labelEvent   = "event" // the provider's own name, of its catalogue
)

func webhookDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, []string{labelWebhook}, nil)
}

func targetDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, []string{labelWebhook, labelTarget}, nil)
}

var (
	receivedDesc    = webhookDesc("pbxhook_events_received_total", "Events accepted and kept, since the journal was made.")
	unparsedDesc    = webhookDesc("pbxhook_events_unparsed_total", "Events that could not be decoded, since the journal was made.")
	failuresDesc    = prometheus.NewDesc("pbxhook_decoder_failures_total", "How often a decoder failed, since the receiver started: a defect of pbxhook. The event is kept as unparsed.", nil, nil)
	byNameDesc      = prometheus.NewDesc("pbxhook_events_by_name_total", "Events by the provider's own name (other: a name that pbxhook does not know; unparsed: could not be decoded), since the journal was made.", []string{labelWebhook, labelEvent}, nil)
	versionDesc     = webhookDesc("pbxhook_events_other_version_total", "Events that came in another version than spec.version, since the journal was made.")
	repeatedDesc    = webhookDesc("pbxhook_events_repeated_total", "Events that the PBX sent again and that were not kept again, since the journal was made.")
	damagedDesc     = webhookDesc("pbxhook_journal_damage_total", "Places of the journal that were found not to be as they were written, and did not keep it from being opened, since it was made.")
	rejectedDesc    = webhookDesc("pbxhook_requests_rejected_total", "Requests that were refused, since the journal was made.")
	urlChecksDesc   = webhookDesc("pbxhook_url_checks_total", "Requests that only asked whether the URL is there, since the journal was made.")
	guessedDesc     = webhookDesc("pbxhook_credentials_guessed_total", "Different wrong credentials that came, since the receiver started. A PBX with an old password counts once.")
	lastDesc        = webhookDesc("pbxhook_last_event_timestamp_seconds", "When the last event was received; absent before the first.")
	bytesDesc       = webhookDesc("pbxhook_journal_bytes", "What the journal's events take.")
	maxBytesDesc    = webhookDesc("pbxhook_journal_max_bytes", "What the journal's events may take.")
	keptDesc        = webhookDesc("pbxhook_journal_events", "Events that the journal has, delivered or not.")
	certificateDesc = webhookDesc("pbxhook_certificate_expiry_timestamp_seconds", "When the certificate of receiver.tls ends; absent without one.")
	deadKeptDesc    = webhookDesc("pbxhook_dead_letters", "Dead letters that are kept.")
	unsureDesc      = targetDesc("pbxhook_target_expression_errors_total", "Events that a target got because an expression could not be evaluated.")
	pendingDesc     = targetDesc("pbxhook_target_pending_events", "Events that a target does not have yet; absent until the receiver has read it from the journal.")
	oldestDesc      = targetDesc("pbxhook_target_oldest_pending_timestamp_seconds", "When the oldest event that a target does not have was received; absent where there is none.")
	deliveredDesc   = targetDesc("pbxhook_target_delivered_total", "Events that a target took.")
	deadDesc        = targetDesc("pbxhook_target_dead_letters_total", "Events that were given up for a target.")
	healthyDesc     = targetDesc("pbxhook_target_healthy", "Whether a target takes its events.")
	oldestDeadDesc  = targetDesc("pbxhook_target_oldest_dead_letter_timestamp_seconds", "When the oldest dead letter of a target was given up; absent where there is none, and on NATS.")
	suspendedDesc   = targetDesc("pbxhook_target_suspended", "Whether nothing is sent to a target, because its suspend is true.")
	evictedDesc     = targetDesc("pbxhook_target_dead_letters_evicted_total", "Dead letters of a target that were deleted because there were too many, or they were too old.")
	breakerDesc     = targetDesc("pbxhook_target_breaker_open", "Whether a target is left alone but for probes, because it does not answer.")
)

var (
	connectionsDesc    = prometheus.NewDesc("pbxhook_connections", "Connections of PBXs that are open.", nil, nil)
	maxConnectionsDesc = prometheus.NewDesc("pbxhook_connections_max", "How many connections of PBXs may be open.", nil, nil)
	bodiesDesc         = prometheus.NewDesc("pbxhook_body_bytes_in_flight", "Bytes of requests' bodies that are being read or handled.", nil, nil)
	maxBodiesDesc      = prometheus.NewDesc("pbxhook_body_bytes_in_flight_max", "How many bytes of bodies may be in flight.", nil, nil)
)

var (
	acceptBuckets  = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10}
	attemptBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}
	delayBuckets   = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60, 600, 3600, 21600, 86400}
)

func newMetrics(r *Receiver) *metrics {
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	}
	m := &metrics{
		receiver: r, registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pbxhook_requests_total", Help: "Requests by the answer that they got; webhook is empty where none has the path.",
		}, []string{labelWebhook, labelCode}),
		unread: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pbxhook_connections_rejected_total",
			Help: "Connections and requests that were rejected before a request was read: malformed HTTP, a TLS handshake that failed, connections or long headers beyond the bounds, and those closed to make room (evicted).",
		}, []string{labelReason}),
		accepted: histogram("pbxhook_request_duration_seconds", "From the request's header to its answer, of requests that were accepted.", acceptBuckets, labelWebhook),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pbxhook_delivery_attempts_total", Help: "Requests to targets by what came of them (delivered, retry, refused), and by the class of the answer (none: there was none).",
		}, []string{labelWebhook, labelTarget, labelResult, labelCode}),
		duration: histogram("pbxhook_delivery_duration_seconds", "How long a request to a target took.", attemptBuckets, labelWebhook, labelTarget),
		delay:    histogram("pbxhook_delivery_delay_seconds", "From an event's arrival to its delivery, without replays.", delayBuckets, labelWebhook, labelTarget),
		panics: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pbxhook_delivery_panics_total", Help: "Attempts that panicked, which is a defect of pbxhook; the event became a dead letter, or is tried again.",
		}, []string{labelWebhook, labelTarget}),
	}
	m.registry.MustRegister(m, m.requests, m.unread, m.accepted, m.attempts, m.duration, m.delay, m.panics,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewBuildInfoCollector())
	for _, reason := range server.Reasons {
		m.unread.WithLabelValues(string(reason))
	}
	m.start("", unreadCodes)
	return m
}

// The status codes that requests to a webhook can be answered with, and those of requests that reach none. Each has its
// series from the start: Prometheus sees no increase in one that begins above 0.
var (
	webhookCodes = []int{200, 202, 400, 401, 405, 413, 415, 422, 503, 508}
	unreadCodes  = []int{400, 404, 417, 431, 501, 503, 505}
)

// start makes the series of a webhook's status codes.
func (m *metrics) start(webhook string, statuses []int) {
	for _, code := range statuses {
		m.requests.WithLabelValues(webhook, codes[code])
	}
}

// rejectedUnread counts what was rejected before it reached a webhook.
func (m *metrics) rejectedUnread(r server.Rejection) {
	m.unread.WithLabelValues(string(r.Reason)).Inc()
	if r.Code != 0 {
		m.requests.WithLabelValues("", codes[r.Code]).Inc()
	}
}

// answered takes in that a PBX got its answer.
func (m *metrics) answered(webhook string, code int, took time.Duration, trace string) {
	m.requests.WithLabelValues(webhook, codes[code]).Inc()
	if code == 202 {
		observe(m.accepted.WithLabelValues(webhook), took, trace)
	}
}

// codes are the labels of answers, so that none is made for each request.
var codes = func() (all [600]string) {
	for code := range all {
		all[code] = strconv.Itoa(code)
	}
	return all
}()

// observe counts a time, with the trace that it is an example of.
func observe(o prometheus.Observer, took time.Duration, trace string) {
	if e, ok := o.(prometheus.ExemplarObserver); ok && trace != "" {
		e.ObserveWithExemplar(took.Seconds(), prometheus.Labels{"trace_id": trace})
		return
	}
	o.Observe(took.Seconds())
}

// deliveries are the metrics of one target.
type deliveries struct {
	attempts        *prometheus.CounterVec
	duration, delay prometheus.Observer
	delivered       prometheus.Counter // by far the most
	panics          prometheus.Counter
}

func (m *metrics) target(webhook, target string) *deliveries {
	attempts := m.attempts.MustCurryWith(prometheus.Labels{labelWebhook: webhook, labelTarget: target})
	return &deliveries{
		attempts: attempts, delivered: attempts.WithLabelValues("delivered", "2xx"),
		duration: m.duration.WithLabelValues(webhook, target), delay: m.delay.WithLabelValues(webhook, target),
		panics: m.panics.WithLabelValues(webhook, target),
	}
}

var (
	results = map[dispatch.Result]string{dispatch.Delivered: "delivered", dispatch.Retry: "retry", dispatch.Refused: "refused"}
	classes = []string{"none", "1xx", "2xx", "3xx", "4xx", "5xx"}
)

// attempted takes in what came of an attempt at an event that was received some time ago.
func (d *deliveries) attempted(outcome *dispatch.Outcome, took, since time.Duration, replayed bool, trace string) {
	observe(d.duration, took, trace)
	if outcome.Result == dispatch.Delivered && !replayed {
		observe(d.delay, since, trace)
	}
	if outcome.Result == dispatch.Delivered && outcome.Status/100 == 2 {
		d.delivered.Inc()
		return
	}
	d.attempts.WithLabelValues(results[outcome.Result], classes[min(outcome.Status/100, len(classes)-1)]).Inc()
}

// forget ends the series of a target that is no more, or of all of a webhook (target empty).
func (m *metrics) forget(webhook, target string) {
	labels := prometheus.Labels{labelWebhook: webhook}
	if target != "" {
		labels[labelTarget] = target
	}
	m.attempts.DeletePartialMatch(labels)
	m.duration.DeletePartialMatch(labels)
	m.delay.DeletePartialMatch(labels)
	m.panics.DeletePartialMatch(labels)
	if target == "" {
		m.requests.DeletePartialMatch(labels)
		m.accepted.DeletePartialMatch(labels)
	}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		failuresDesc, receivedDesc, unparsedDesc, byNameDesc, versionDesc, repeatedDesc, rejectedDesc, damagedDesc, urlChecksDesc, guessedDesc, lastDesc, bytesDesc, maxBytesDesc, keptDesc, certificateDesc, deadKeptDesc,
		connectionsDesc, maxConnectionsDesc, bodiesDesc, maxBodiesDesc,
		unsureDesc, pendingDesc, oldestDesc, deliveredDesc, deadDesc, healthyDesc, breakerDesc, suspendedDesc, evictedDesc, oldestDeadDesc,
	} {
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
	seconds := func(d *prometheus.Desc, t time.Time, labels ...string) {
		if !t.IsZero() {
			gauge(d, float64(t.UnixMilli())/1000, labels...)
		}
	}
	counter(failuresDesc, provider.Failures())
	open, mostOpen := m.receiver.limits.Connections()
	gauge(connectionsDesc, float64(open))
	gauge(maxConnectionsDesc, float64(mostOpen))
	bodies, mostBodies := m.receiver.limits.BodyBytes()
	gauge(bodiesDesc, float64(bodies))
	gauge(maxBodiesDesc, float64(mostBodies))
	for _, w := range m.receiver.all() {
		id, state := w.id(), w.journal.State()
		counter(receivedDesc, state.Received, id)
		counter(unparsedDesc, state.Unparsed, id)
		if p := w.current(); p != nil {
			counter(byNameDesc, state.Unparsed, id, string(event.Unparsed))
			for name, count := range closedNames(state.ByName, p.ingest.Provider) {
				counter(byNameDesc, count, id, name)
			}
		}
		counter(versionDesc, state.OtherVersion, id)
		counter(repeatedDesc, state.Repeated, id)
		counter(rejectedDesc, state.Rejected, id)
		counter(urlChecksDesc, state.URLChecks, id)
		counter(guessedDesc, m.receiver.ingest.Guessed(id), id)
		counter(damagedDesc, state.Damaged, id)
		seconds(lastDesc, state.LastReceived, id)
		gauge(bytesDesc, float64(state.Bytes), id)
		gauge(maxBytesDesc, float64(state.MaxBytes), id)
		gauge(keptDesc, float64(state.Events), id)
		gauge(deadKeptDesc, float64(state.DeadLetters), id)
		if p := w.current(); p != nil && p.certificate != nil && p.certificate.Leaf != nil {
			seconds(certificateDesc, p.certificate.Leaf.NotAfter, id)
		}
		w.eachTarget(func(s dispatch.Status, unsure int64) {
			if s.Known {
				gauge(pendingDesc, float64(s.Pending), id, s.Name)
			}
			if oldest := w.oldest(s); oldest != nil {
				seconds(oldestDesc, oldest.Time, id, s.Name)
			}
			counter(deliveredDesc, s.Delivered, id, s.Name)
			counter(deadDesc, s.DeadLettered, id, s.Name)
			counter(unsureDesc, unsure, id, s.Name)
			gauge(healthyDesc, truth(s.Healthy), id, s.Name)
			gauge(breakerDesc, truth(s.BreakerOpen), id, s.Name)
			gauge(suspendedDesc, truth(s.Suspended), id, s.Name)
			seconds(oldestDeadDesc, w.oldestDeadLetter(s.Name), id, s.Name)
			counter(evictedDesc, s.Evicted, id, s.Name)
		})
	}
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
