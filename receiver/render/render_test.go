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
	"github.com/pbxhook/pbxhook/receiver/expression"
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

// read reads a CloudEvent with the library of the standard.
func read(t *testing.T, text []byte) cloudevents.Event {
	t.Helper()
	var ce cloudevents.Event
	require.NoError(t, json.Unmarshal(text, &ce))
	require.NoError(t, ce.Validate())
	return ce
}

func TestCloudEvents(t *testing.T) {
	r, e := sample()
	source := render.Source("crm", "callcenter")
	request, err := render.Render(render.Shape{Format: v1alpha1.FormatCloudEvents, URL: "https://crm.example.com/hooks?a=b", Source: source}, r, e)
	require.NoError(t, err)
	require.Equal(t, "https://crm.example.com/hooks?a=b", request.URL)
	require.Equal(t, "application/cloudevents+json; charset=utf-8", request.Header.Get("Content-Type"))
	var pretty map[string]any
	require.NoError(t, json.Unmarshal(request.Body, &pretty))
	text, err := json.MarshalIndent(pretty, "", "  ")
	require.NoError(t, err)
	golden.Equal(t, "cloudevent.json", append(text, '\n'))

	ce := read(t, request.Body)
	require.Equal(t, "uk003.1", ce.ID())
	require.Equal(t, "139543232", ce.Subject())

	batch, err := render.Render(render.Shape{Format: v1alpha1.FormatCloudEventsBatch, URL: "https://a", Source: source}, r, e)
	require.NoError(t, err)
	var list []cloudevents.Event
	require.NoError(t, json.Unmarshal(batch.Body, &list))
	require.Len(t, list, 1)

	binary, err := render.Render(render.Shape{Format: v1alpha1.FormatCloudEventsBinary, URL: "https://a", Source: source}, r, e)
	require.NoError(t, err)
	require.Equal(t, "io.pbxhook.call.ended", binary.Header.Get("Ce-Type"))
	require.Equal(t, "139543232", binary.Header.Get("Ce-Partitionkey"))
	require.Equal(t, "application/json", binary.Header.Get("Content-Type"))
	require.JSONEq(t, string(ce.Data()), string(binary.Body))
}

func TestWithoutCallOrTime(t *testing.T) {
	r := &journal.Record{ID: "1", Request: event.Request{Query: "event_name=Ping", ReceivedAt: time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)}}
	e := provider.Decode(v1alpha1.Simotel, &r.Request, wire.Settings{})
	ce := read(t, render.NewCloudEvent("/s", r, &e).AppendJSON(nil))
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
		"a path with signs":      {"http://crm/a%2Fb", "/100%/a?b#c;d", "", "http://crm/a%2Fb/100%25/a%3Fb%23c%3Bd"},
		"dots that are a name":   {"http://crm/a", "/..x/.../x..", "", "http://crm/a/..x/.../x.."},
	} {
		t.Run(name, func(t *testing.T) {
			r, e := sample()
			r.Request.Method, r.Request.Path, r.Request.Query = "GET", tc.path, tc.query
			request, err := render.Render(render.Shape{Format: v1alpha1.FormatOriginal, URL: tc.base}, r, e)
			require.NoError(t, err)
			require.Equal(t, tc.want, request.URL)
			require.Equal(t, "GET", request.Method)
			require.Equal(t, r.Request.Body, request.Body)
			require.Equal(t, "1", request.Header.Get("X-A"))
		})
	}
}

// TestOriginalStaysWithinTheTarget: a sender does not choose where the target's requests go.
func TestOriginalStaysWithinTheTarget(t *testing.T) {
	for _, path := range []string{"/..", "/.", "/a/../b", "/a/./b", "/a/..", "/%2e%2e/x", "/.%2E", "/%252e%252e/x", "/..%2fx", "/a\\..\\b", "/..;x/y", "/%25252525252525252525252e"} {
		t.Run(path, func(t *testing.T) {
			r, e := sample()
			r.Request.Path = path
			_, err := render.Render(render.Shape{Format: v1alpha1.FormatOriginal, URL: "http://crm/call"}, r, e)
			require.ErrorContains(t, err, "dot segment")
			_, err = render.Render(render.Shape{Format: v1alpha1.FormatCloudEvents, URL: "http://crm/call"}, r, e)
			require.NoError(t, err, "other targets get it")
		})
	}
}

// TestOriginalDropsWhatIsNotTheSendersToSay: also of events that an earlier version stored.
func TestOriginalDropsWhatIsNotTheSendersToSay(t *testing.T) {
	r, e := sample()
	r.Request.Header = http.Header{
		"X-A": {"1", "2"}, "X-Forwarded-For": {"192.0.2.1"}, "Content-Type": {"application/json"}, "Connection": {"close"}, "Te": {"trailers"}, "Upgrade": {"h2c"},
		"Webhook-Id": {"forged"}, "Webhook-Signature": {"forged"}, "Ce-Type": {"forged"}, "Pbxhook-Replay": {"forged"}, "X-Original-Url": {"/admin"},
		"X-Rewrite-Url": {"/admin"}, "X-Http-Method-Override": {"DELETE"}, "X_original_url": {"/admin"}, "X-Method-Override": {"DELETE"}, "Content-Length": {"7"},
		"Authorization": {"Basic x"}, "Proxy-Authorization": {"Basic x"}, "Cookie": {"a=b"}, "X-Space ": {"1"}, "X-Line": {"a\r\nX-B: 1"}, "Host": {"admin"},
	}
	request, err := render.Render(render.Shape{Format: v1alpha1.FormatOriginal, URL: "http://crm/call"}, r, e)
	require.NoError(t, err)
	require.Equal(t, http.Header{"X-A": {"1", "2"}, "X-Forwarded-For": {"192.0.2.1"}, "Content-Type": {"application/json"}, "Pbxhook-Hops": {"1"}}, request.Header)
}

// TestHopsAreCounted, in every format.
func TestHopsAreCounted(t *testing.T) {
	template, err := expression.CompileTemplate(`{"a": 1}`)
	require.NoError(t, err)
	for _, format := range []v1alpha1.Format{v1alpha1.FormatCloudEvents, v1alpha1.FormatCloudEventsBinary, v1alpha1.FormatCloudEventsBatch, v1alpha1.FormatOriginal, v1alpha1.FormatTemplate} {
		r, e := sample()
		shape := render.Shape{Format: format, URL: "http://crm", Template: template}
		request, err := render.Render(shape, r, e)
		require.NoError(t, err)
		require.Equal(t, []string{"1"}, request.Header["Pbxhook-Hops"], format)
		r.Request.Header.Set("Pbxhook-Hops", "4")
		request, err = render.Render(shape, r, e)
		require.NoError(t, err)
		require.Equal(t, []string{"5"}, request.Header["Pbxhook-Hops"], format)
	}
}

func TestUnknownFormatIsAnError(t *testing.T) {
	r, e := sample()
	_, err := render.Render(render.Shape{Format: "Fax", URL: "http://a"}, r, e)
	require.ErrorContains(t, err, "expected a format")
}

func TestTemplate(t *testing.T) {
	for name, tc := range map[string]struct {
		template, method, contentType  string
		wantURL, wantType, want, fails string
	}{
		"an object is JSON":     {template: `{"phone": event.call.from.number, "n": 1, "x": 1.5, "b": true, "none": event.call.talkSeconds, "l": [1, "a"]}`, wantType: "application/json", want: `{"b":true,"l":[1,"a"],"n":1,"none":null,"phone":"+447854740947","x":1.5}`},
		"signs stay signs":      {template: `{"name": event.call.from.name}`, wantType: "application/json", want: `{"name":"<b>&é"}`},
		"the whole event":       {template: `{"call": event.call.to, "when": event.receivedAt}`, wantType: "application/json", want: `{"call":{"number":"+441183211001","raw":"441183211001","name":"","extension":""},"when":"2026-11-22T08:00:00Z"}`},
		"the PBX's own fields":  {template: `event.payload`, wantType: "application/json", want: `{"call_id":139543232,"destination":"in","dst":"441183211001","event_name":"call.hangup","event_time":"2021-04-28 08:46:13","id":"uk003.1","p":"1","src":"447854740947","src_name":"<b>&é"}`},
		"a list":                {template: `[event.call.id]`, wantType: "application/json", want: `["139543232"]`},
		"a text is text":        {template: `"Call from " + event.call.from.number`, wantType: "text/plain; charset=utf-8", want: "Call from +447854740947"},
		"a form":                {template: `{"phone": event.call.from.number, "none": null, "l": [1]}`, contentType: "application/x-www-form-urlencoded; charset=utf-8", wantType: "application/x-www-form-urlencoded", want: "l=%5B1%5D&none=&phone=%2B447854740947"},
		"PUT":                   {template: `{}`, method: "PUT", wantType: "application/json", want: `{}`},
		"GET":                   {template: `{"p": event.call.from.number}`, method: "GET", wantURL: "http://crm/x?k=1&p=%2B447854740947"},
		"GET of a text":         {template: `"x"`, method: "GET", fails: "expected an object"},
		"a key that is missing": {template: `{"p": event.payload.nothing}`, fails: "cannot be evaluated"},
		"keys that are numbers": {template: `{1: "a"}`, fails: "cannot be evaluated"},
	} {
		t.Run(name, func(t *testing.T) {
			r, e := sample()
			template, err := expression.CompileTemplate(tc.template)
			require.NoError(t, err)
			request, err := render.Render(render.Shape{Format: v1alpha1.FormatTemplate, URL: "http://crm/x?k=1", Template: template, Method: tc.method, ContentType: tc.contentType}, r, e)
			if tc.fails != "" {
				require.ErrorContains(t, err, tc.fails)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tc.want, string(request.Body))
			require.Equal(t, tc.wantType, request.Header.Get("Content-Type"))
			require.Equal(t, wire.First(tc.wantURL, "http://crm/x?k=1"), request.URL)
			require.Equal(t, wire.First(tc.method, "POST"), request.Method)
		})
	}
	_, err := expression.CompileTemplate(`{"phone": event.call.fro}`)
	require.ErrorContains(t, err, "undefined field 'fro'")
}

// TestTraceContext: one trace for all attempts of an event, the PBX's own where it has one.
func TestTraceContext(t *testing.T) {
	const parent, state = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "vendor=1"
	render1 := func(format v1alpha1.Format, header http.Header) (*render.Request, cloudevents.Event) {
		r, e := sample()
		for name, values := range header {
			r.Request.Header[name] = values
		}
		request, err := render.Render(render.Shape{Format: format, URL: "http://a", Source: "/s"}, r, e)
		require.NoError(t, err)
		return request, read(t, render.NewCloudEvent("/s", r, e).AppendJSON(nil))
	}
	given, ce := render1(v1alpha1.FormatCloudEvents, http.Header{"Traceparent": {parent}, "Tracestate": {state}})
	require.Regexp(t, "^00-4bf92f3577b34da6a3ce929d0e0e4736-[0-9a-f]{16}-01$", given.Header.Get("Traceparent"))
	require.NotEqual(t, parent, given.Header.Get("Traceparent"), "this attempt is a span of its own")
	require.Equal(t, state, given.Header.Get("Tracestate"))
	require.Equal(t, parent, ce.Extensions()["traceparent"])

	one, ce := render1(v1alpha1.FormatCloudEvents, nil)
	two, _ := render1(v1alpha1.FormatCloudEventsBinary, http.Header{"Traceparent": {"00-nonsense"}, "Tracestate": {state}})
	require.Regexp(t, "^00-[0-9a-f]{32}-[0-9a-f]{16}-00$", one.Header.Get("Traceparent"))
	require.Equal(t, one.Header.Get("Traceparent")[:35], two.Header.Get("Traceparent")[:35])
	require.NotEqual(t, one.Header.Get("Traceparent"), two.Header.Get("Traceparent"))
	require.Empty(t, two.Header.Get("Tracestate"))
	require.NotContains(t, ce.Extensions(), "traceparent")

	original, _ := render1(v1alpha1.FormatOriginal, nil)
	require.Empty(t, original.Header.Get("Traceparent"), "a service that was behind the PBX sees no difference")
}
