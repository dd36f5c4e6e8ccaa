package receiver_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/pbxhook/pbxhook/receiver/tracing"
	"github.com/pbxhook/pbxhook/test/output"
)

func (r *running) metrics(openMetrics bool) string {
	r.t.Helper()
	request, err := http.NewRequest(http.MethodGet, "http://"+r.status+"/metrics", nil)
	require.NoError(r.t, err)
	if openMetrics {
		request.Header.Set("Accept", "application/openmetrics-text")
	}
	response, err := http.DefaultClient.Do(request)
	require.NoError(r.t, err)
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	require.NoError(r.t, err)
	return string(text)
}

// TestTraces: one trace from the PBX's request to each attempt, also after a restart, and the target is told of it;
// metrics have it as an example, and no label tells of a call.
func TestTraces(t *testing.T) {
	var mu sync.Mutex
	var parents []string
	fails := true
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		parents = append(parents, r.Header.Get("Traceparent"))
		if fails {
			w.WriteHeader(http.StatusInternalServerError)
		}
		fails = false
	}))
	t.Cleanup(target.Close)
	recorder := tracetest.NewSpanRecorder()
	tracer := tracing.With(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder)))
	r := &running{t: t, file: t.TempDir() + "/manifest.yaml", data: t.TempDir(), log: &output.Text{}, tracer: tracer}
	r.write(manifest("first", at("crm", target.URL)))
	r.run()
	request, err := http.NewRequest(http.MethodPost, "http://"+r.hooks+"/hooks/crm/callcenter/Cdr?secret=hush", strings.NewReader(cdr("1610782193.391", "09331234567", "ANSWERED")))
	require.NoError(t, err)
	request.SetBasicAuth("pbx", "first")
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	request.Header.Set("Traceparent", "00-"+trace+"-00f067aa0ba902b7-01")
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	_ = response.Body.Close()
	require.Equal(t, http.StatusAccepted, response.StatusCode)
	r.eventually("two attempts, of which the second one is taken", func() bool { return len(recorder.Ended()) == 3 })

	spans := recorder.Ended()
	slices.SortStableFunc(spans, func(a, b sdktrace.ReadOnlySpan) int { return a.StartTime().Compare(b.StartTime()) }) // the answer may take longer than the delivery
	server := spans[0]
	require.Equal(t, "POST /hooks/{namespace}/{name}", server.Name())
	require.Equal(t, "00f067aa0ba902b7", server.Parent().SpanID().String())
	for i, span := range spans {
		require.Equal(t, trace, span.SpanContext().TraceID().String())
		text := fmt.Sprint(span.Name(), span.Attributes(), span.Status(), span.Events())
		for _, hidden := range []string{"hush", "9331234567", "1610782193", "first"} {
			require.NotContains(t, text, hidden)
		}
		if i > 0 {
			require.Equal(t, "deliver crm", span.Name())
			require.Equal(t, server.SpanContext().SpanID(), span.Parent().SpanID())
			require.Equal(t, fmt.Sprintf("00-%s-%s-01", trace, span.SpanContext().SpanID()), parents[i-1])
		}
	}
	require.Equal(t, "500 from the target", spans[1].Status().Description)

	plain, open := r.metrics(false), r.metrics(true)
	for _, want := range []string{
		`pbxhook_requests_total{code="202",webhook="crm/callcenter"} 1`,
		`pbxhook_delivery_attempts_total{code="2xx",result="delivered",target="crm",webhook="crm/callcenter"} 1`,
		`pbxhook_delivery_attempts_total{code="5xx",result="retry",target="crm",webhook="crm/callcenter"} 1`,
		`pbxhook_delivery_duration_seconds_count{target="crm",webhook="crm/callcenter"} 2`,
		`pbxhook_delivery_delay_seconds_count{target="crm",webhook="crm/callcenter"} 1`,
		`pbxhook_request_duration_seconds_count{webhook="crm/callcenter"} 1`,
		`pbxhook_journal_events{webhook="crm/callcenter"} 1`,
		`pbxhook_target_breaker_open{target="crm",webhook="crm/callcenter"} 0`,
		`pbxhook_last_event_timestamp_seconds{webhook="crm/callcenter"}`,
	} {
		require.Contains(t, plain, want)
	}
	require.Contains(t, open, `# {trace_id="`+trace+`"}`)
	for _, hidden := range []string{"9331234567", "1610782193", "hush"} {
		require.NotContains(t, plain, hidden)
	}

	other := newTarget(t)
	r.write(manifest("first", at("lab", other.URL+"/")))
	r.eventually("a target that is no more has no series", func() bool { return !strings.Contains(r.metrics(false), `target="crm"`) })
}

// TestTracingIsAskedFor by OpenTelemetry's own variables, and what cannot be done is said.
func TestTracingIsAskedFor(t *testing.T) {
	for _, tt := range []struct {
		name  string
		env   map[string]string
		on    bool
		error string
	}{
		{"nothing", nil, false, ""},
		{"endpoint", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, true, ""},
		{"endpoint of traces", map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1/v1/traces"}, true, ""},
		{"exporter alone", map[string]string{"OTEL_TRACES_EXPORTER": "otlp"}, true, ""},
		{"none", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"}, false, ""},
		{"disabled", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}, false, ""},
		{"gRPC", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, false, "expected http/protobuf"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for name, value := range tt.env {
				t.Setenv(name, value)
			}
			tracer, err := tracing.New(t.Context(), slog.New(slog.DiscardHandler))
			if tt.error != "" {
				require.ErrorContains(t, err, tt.error)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.on, tracer != nil)
			require.NoError(t, tracer.Close(context.Background()))
		})
	}
}

// TestTracesAreSent to where the standard variables say, with the service's name.
func TestTracesAreSent(t *testing.T) {
	got := make(chan string, 10)
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- r.URL.Path + " " + r.Header.Get("X-Tenant") + " " + string(body)
	}))
	t.Cleanup(collector.Close)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "X-Tenant=crm")
	t.Setenv("OTEL_SERVICE_NAME", "phones")
	tracer, err := tracing.New(t.Context(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	tracer.Received(t.Context(), "POST /hooks", "", "").End("")
	require.NoError(t, tracer.Close(t.Context()))
	sent := <-got
	require.True(t, strings.HasPrefix(sent, "/v1/traces crm "), sent)
	require.Contains(t, sent, "phones")
	require.Contains(t, sent, "POST /hooks")
}
