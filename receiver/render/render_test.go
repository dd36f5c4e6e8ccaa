package render_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2/event"
	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/journal"
	"github.com/pbxhook/pbxhook/receiver/provider"
	"github.com/pbxhook/pbxhook/receiver/provider/wire"
	"github.com/pbxhook/pbxhook/receiver/render"
	"github.com/pbxhook/pbxhook/test/golden"
)

func sample() (*journal.Record, *event.Event) {
	r := &journal.Record{ID: "uk003.1", Request: event.Request{
		Method: "POST", Path: "/a b/x", Query: "p=1", Header: http.Header{"Content-Type": {"application/json"}, "X-A": {"1"}},
		Body:       []byte(`{"id":"uk003.1","event_time":"2021-04-28 08:46:13","event_name":"call.hangup","call_id":139543232,"destination":"in","src":"447854740947","src_name":"<b>&é","dst":"441183211001"}`),
		ReceivedAt: time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC),
	}}
	e := provider.Decode(v1alpha1.VoIPstudio, &r.Request, wire.Settings{})
	return r, &e
}

func TestCloudEvents(t *testing.T) {
	r, e := sample()
	source := render.Source("crm", "callcenter")
	request, err := render.Render(v1alpha1.FormatCloudEvents, "https://crm.example.com/hooks?a=b", source, r, e)
	require.NoError(t, err)
	require.Equal(t, "https://crm.example.com/hooks?a=b", request.URL)
	require.Equal(t, "application/cloudevents+json; charset=UTF-8", request.Header.Get("Content-Type"))
	var pretty map[string]any
	require.NoError(t, json.Unmarshal(request.Body, &pretty))
	text, err := json.MarshalIndent(pretty, "", "  ")
	require.NoError(t, err)
	golden.Equal(t, "cloudevent.json", append(text, '\n'))

	var read cloudevents.Event // by the standard's own library
	require.NoError(t, json.Unmarshal(request.Body, &read))
	require.NoError(t, read.Validate())
	require.Equal(t, "uk003.1", read.ID())
	require.Equal(t, "139543232", read.Subject())

	batch, err := render.Render(v1alpha1.FormatCloudEventsBatch, "https://a", source, r, e)
	require.NoError(t, err)
	var list []cloudevents.Event
	require.NoError(t, json.Unmarshal(batch.Body, &list))
	require.Len(t, list, 1)

	binary, err := render.Render(v1alpha1.FormatCloudEventsBinary, "https://a", source, r, e)
	require.NoError(t, err)
	require.Equal(t, "io.pbxhook.call.ended", binary.Header.Get("Ce-Type"))
	require.Equal(t, "139543232", binary.Header.Get("Ce-Partitionkey"))
	require.Equal(t, "application/json", binary.Header.Get("Content-Type"))
	require.JSONEq(t, string(read.Data()), string(binary.Body))
}

func TestWithoutCallOrTime(t *testing.T) {
	r := &journal.Record{ID: "1", Request: event.Request{Query: "event_name=Ping", ReceivedAt: time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)}}
	e := provider.Decode(v1alpha1.Simotel, &r.Request, wire.Settings{})
	ce, err := render.CloudEvent("/s", r, &e)
	require.NoError(t, err)
	require.Empty(t, ce.Subject())
	require.Equal(t, r.Request.ReceivedAt, ce.Time(), "when received, where the PBX does not say")
}

func TestOriginal(t *testing.T) {
	for name, tc := range map[string]struct{ base, path, query, want string }{
		"path and query join":    {"http://crm/call", "/NewState", "a=b", "http://crm/call/NewState?a=b"},
		"slashes meet once":      {"http://crm/call/", "/NewState", "", "http://crm/call/NewState"},
		"no path stays as it is": {"http://crm/call/", "/", "a=b", "http://crm/call/?a=b"},
		"both have a query":      {"http://crm/call?k=1", "", "a=b", "http://crm/call?k=1&a=b"},
		"query as the PBX wrote": {"http://crm/", "", "a=%zz&b=+", "http://crm/?a=%zz&b=+"},
	} {
		t.Run(name, func(t *testing.T) {
			r, e := sample()
			r.Request.Method, r.Request.Path, r.Request.Query = "GET", tc.path, tc.query
			request, err := render.Render(v1alpha1.FormatOriginal, tc.base, "", r, e)
			require.NoError(t, err)
			require.Equal(t, tc.want, request.URL)
			require.Equal(t, "GET", request.Method)
			require.Equal(t, r.Request.Body, request.Body)
			require.Equal(t, "1", request.Header.Get("X-A"))
		})
	}
}

func TestUnknownFormatIsAnError(t *testing.T) {
	r, e := sample()
	_, err := render.Render(v1alpha1.FormatTemplate, "http://a", "", r, e)
	require.ErrorContains(t, err, "not implemented")
}
