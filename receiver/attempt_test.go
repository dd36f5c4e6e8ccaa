package receiver

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/dispatch"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/ingest"
	"github.com/pbxhook/pbxhook/receiver/journal"
	"github.com/pbxhook/pbxhook/receiver/provider/wire"
)

// TestAttemptPanics: a panic in an attempt, here on a plan that lacks what it needs, is an outcome like any other.
func TestAttemptPanics(t *testing.T) {
	settings := &wire.Settings{}
	decoded := &event.Decoded{Settings: settings}
	for name, tc := range map[string]struct {
		plan   *plan
		want   dispatch.Result
		reason string
	}{
		"decode": {plan: &plan{}, want: dispatch.Refused, reason: "decode: a defect of pbxhook"},
		"filter": {plan: &plan{ingest: ingest.Webhook{Settings: settings}}, want: dispatch.Refused, reason: "filter: a defect of pbxhook"},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			m := newMetrics(&Receiver{})
			w := &webhook{namespace: "crm", name: "pbx", metrics: m, log: slog.New(slog.NewTextHandler(&log, nil))}
			attempt := w.attempt(tc.plan, targetPlan{spec: v1alpha1.Target{Name: "crm"}}, &target{})
			r := journal.Record{Seq: 1, ID: "id", Decoded: decoded, Request: event.Request{Body: []byte("+442035141598")}}
			outcome := attempt(t.Context(), r)
			require.Equal(t, tc.want, outcome.Result)
			require.Contains(t, outcome.Reason, tc.reason)
			require.False(t, outcome.Answered)
			answer := httptest.NewRecorder()
			registry := prometheus.NewRegistry()
			registry.MustRegister(m.panics)
			promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
			require.Contains(t, answer.Body.String(), `pbxhook_delivery_panics_total{target="crm",webhook="crm/pbx"} 1`)
			require.Contains(t, log.String(), "attempt_test.go", "the log has the place")
			require.NotContains(t, log.String(), "2035141598")
		})
	}
}
