package provider_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/provider"
	"github.com/pbxhook/pbxhook/receiver/provider/sim"
	"github.com/pbxhook/pbxhook/receiver/provider/wire"
)

var providers = []v1alpha1.Provider{v1alpha1.Simotel, v1alpha1.VoIPstudio, v1alpha1.Acefone}

// way is one way in which a provider sends.
type way struct {
	provider v1alpha1.Provider
	version  v1alpha1.Version
	method   string
	form     bool
}

func (w way) String() string {
	parts := []string{string(w.provider)}
	if w.version != "" {
		parts = append(parts, string(w.version))
	}
	parts = append(parts, w.method)
	if w.form {
		parts = append(parts, "form")
	}
	return strings.Join(parts, "/")
}

// ways are all ways in which a provider sends.
func ways(p v1alpha1.Provider) []way {
	var all []way
	for _, version := range provider.Versions(p) {
		if p != v1alpha1.VoIPstudio { // which sends POST alone
			all = append(all, way{p, version, "GET", false})
		}
		all = append(all, way{p, version, "POST", false})
	}
	if p == v1alpha1.Acefone {
		all = append(all, way{p, "", "POST", true})
	}
	return all
}

func (w way) simulator(t testing.TB, quirks ...string) *provider.Simulator {
	s, err := provider.NewSimulator(provider.Simulation{Provider: w.provider, Version: w.version, Method: w.method, Form: w.form, Quirks: quirks, Seed: 1})
	require.NoError(t, err)
	return s
}

// settings are those of a webhook whose PBX is set in this way.
func (w way) settings(t testing.TB) wire.Settings {
	zone, err := time.LoadLocation(zones[w.provider])
	require.NoError(t, err)
	return wire.Settings{Version: w.version, Location: zone, Region: map[v1alpha1.Provider]string{"Simotel": "IR", "Acefone": "IN"}[w.provider]}
}

var zones = map[v1alpha1.Provider]string{"Simotel": "Asia/Tehran", "VoIPstudio": "UTC", "Acefone": "Asia/Kolkata"}

// sent is the request as the receiver sees it.
func sent(t testing.TB, s *provider.Simulator, m sim.Message) *event.Request {
	t.Helper()
	r, err := s.Request("http://pbx.example.com/hooks/a/b/?profile=7", m)
	require.NoError(t, err)
	body, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	body, err = wire.Decompress(r.Header, body, event.MaxBody, nil)
	require.NoError(t, err)
	return &event.Request{
		Method: r.Method, Path: strings.TrimPrefix(r.URL.Path, "/hooks/a/b"), Query: r.URL.RawQuery,
		Header: r.Header, Body: body, ReceivedAt: time.Now(),
	}
}

// TestEveryEvent sends every event in every version and method, as the table in docs/providers says.
func TestEveryEvent(t *testing.T) {
	published := schema(t)
	for _, p := range providers {
		for _, w := range ways(p) {
			s := w.simulator(t)
			for _, name := range s.Events() {
				t.Run(w.String()+"/"+name, func(t *testing.T) {
					c := s.Call(7, time.Now().In(w.settings(t).Location))
					step, err := s.Single(name)
					require.NoError(t, err)
					m, err := s.Event(&c, step)
					require.NoError(t, err)
					e := provider.Decode(p, sent(t, s, m), w.settings(t))
					require.NotContains(t, []event.Type{event.Unparsed, event.Other}, e.Type, e.Reason)
					require.Equal(t, name, e.Name)
					require.Empty(t, e.OtherVersion)
					requireSame(t, &c, m, &e)
					requireSchema(t, published, &e)
				})
			}
		}
	}
}

// requireSame shows that what was sent came out: every field in the payload, the call's identity, and
// its numbers, in their canonical form.
func requireSame(t *testing.T, c *sim.Call, m sim.Message, e *event.Event) {
	t.Helper()
	var payload map[string]any
	decoder := json.NewDecoder(strings.NewReader(string(e.Payload)))
	decoder.UseNumber()
	require.NoError(t, decoder.Decode(&payload))
	require.Equal(t, "7", payload["profile"], "a query that the address has of its own")
	for _, field := range m.Fields {
		got, ok := payload[field.Key]
		require.True(t, ok, field.Key)
		require.Equal(t, asText(field.Value), asText(wire.Text(got)), field.Key)
	}
	if e.Call == nil {
		return
	}
	if m.Fields.Get("call_id") != nil || m.Fields.Get("unique_id") != nil || m.Fields.Get("cuid") != nil {
		require.Equal(t, c.ID, e.Call.ID)
	}
	customer := e.Call.From
	if e.Call.Direction == event.Outbound {
		customer = e.Call.To
	}
	if customer.Raw != "" && e.Call.Direction != event.Internal && e.Call.Direction != "" {
		require.Equal(t, c.Customer, strings.TrimPrefix(customer.Raw, "+91"))
		require.True(t, strings.HasPrefix(customer.Number, "+") && strings.HasSuffix(customer.Number, c.Customer[2:]), customer.Number)
	}
	if start := e.Call.StartTime; start != nil {
		require.WithinDuration(t, c.Began, *start, time.Second)
	}
	if end := e.Call.EndTime; end != nil && e.Type == event.CallEnded {
		require.WithinDuration(t, c.At(sim.Ended), *end, time.Second)
	}
	if answer := e.Call.AnswerTime; answer != nil {
		require.False(t, answer.Before(c.Began.Truncate(time.Second)))
		require.False(t, answer.After(c.At(sim.Ended)))
	}
}

// asText is a field as text, the way in which wire.Text writes what was read.
func asText(value any) string {
	switch value := value.(type) {
	case sim.Fields, []any:
		var parsed any
		decoder := json.NewDecoder(strings.NewReader(sim.Of("v", value).Encode(sim.JSON)))
		decoder.UseNumber()
		if err := decoder.Decode(&parsed); err != nil {
			return err.Error()
		}
		return wire.Text(parsed.(map[string]any)["v"])
	case string: // a JSON text inside a parameter is read
		if strings.HasPrefix(value, "{") || strings.HasPrefix(value, "[") {
			parsed, err := wire.ParseJSON([]byte(value))
			if err == nil {
				return wire.Text(parsed)
			}
		}
		return strings.TrimSpace(value)
	case nil:
		return ""
	default:
		return fmt.Sprint(value)
	}
}

// courses are the canonical types that each call must come out as.
var courses = map[string]string{
	"Simotel answered":      "call.started call.ringing extension.state extension.state call.ended",
	"Simotel missed":        "call.started call.ringing extension.state call.missed",
	"Simotel busy":          "call.started call.missed",
	"Simotel transferred":   "call.started call.ringing extension.state call.transferred extension.state call.ringing extension.state extension.state call.ended",
	"Simotel queued":        "call.started call.ringing extension.state call.ringing extension.state extension.state call.ended queue.completed",
	"Simotel survey":        "call.started call.ringing extension.state call.ringing extension.state extension.state call.ended queue.completed survey.answered",
	"Simotel reserved":      "call.started queue.reserved call.missed",
	"Simotel outgoing":      "call.started extension.state extension.state call.ended",
	"Simotel click-to-call": "call.started extension.state extension.state call.ended",
	"Simotel internal":      "call.ringing extension.state extension.state call.ended",
	"Simotel voicemail":     "call.started voicemail.received voicemail.emailed call.ended",
	"Simotel fax":           "fax.received fax.sent",
	"Simotel campaign":      "campaign.reported",
	"Simotel exchange":      "ping extension.added extension.state extension.state extension.removed trunk.added trunk.state trunk.removed",

	"VoIPstudio answered":      "call.started call.ringing call.answered call.ended recording.ready",
	"VoIPstudio missed":        "call.started call.ringing call.missed",
	"VoIPstudio transferred":   "call.started call.ringing call.answered call.started call.ringing call.answered call.ended call.ended",
	"VoIPstudio queued":        "call.started call.ringing call.ringing call.missed call.answered call.ended call.ended queue.wrapup queue.wrapup",
	"VoIPstudio lost":          "call.started call.ringing call.ringing call.missed call.missed call.missed",
	"VoIPstudio held":          "call.started call.ringing call.answered call.held call.resumed call.ended",
	"VoIPstudio dtmf":          "call.started call.ringing call.answered call.dtmf call.dtmf call.ended",
	"VoIPstudio outgoing":      "call.started call.ringing call.answered call.ended",
	"VoIPstudio click-to-call": "call.started call.ringing call.answered call.ended",
	"VoIPstudio sms":           "sms.received",

	"Acefone answered":           "call.started call.ringing call.answered call.ended",
	"Acefone missed":             "call.started call.ringing call.missed",
	"Acefone missed-or-answered": "call.missed call.ended",
	"Acefone dtmf":               "call.started call.answered call.dtmf call.answered call.ended",
	"Acefone queued":             "call.started call.answered call.answered call.ringing call.answered call.ended",
	"Acefone transferred":        "call.started call.answered call.ended",
	"Acefone outgoing":           "call.started call.ended",
	"Acefone click-to-call":      "call.answered call.answered call.ended",
}

// TestEveryCall plays every call in every version and method, and with every quirk, through the
// decoders and back.
func TestEveryCall(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range providers {
		for _, w := range ways(p) {
			quirks := []string{""}
			for _, q := range w.simulator(t).Quirks() {
				quirks = append(quirks, q.Name)
			}
			for _, quirk := range quirks {
				s := w.simulator(t, strings.Fields(quirk)...)
				for _, scenario := range s.Scenarios() {
					seen[string(p)+" "+scenario.Name] = true
					t.Run(w.String()+"/"+scenario.Name+"/"+quirk, func(t *testing.T) {
						playAndDecode(t, w, s, scenario, quirk, len(scenario.Name)+len(quirk)) // any call
					})
				}
			}
		}
	}
	for course := range courses {
		require.True(t, seen[course], "no such call: %s", course)
	}
}

func playAndDecode(t *testing.T, w way, s *provider.Simulator, scenario sim.Scenario, quirk string, n int) {
	settings := w.settings(t)
	c := s.Call(n, time.Date(2026, 2, 3, 10, 20, 30, 123456000, settings.Location))
	messages, err := s.Play(scenario, n, &c)
	require.NoError(t, err)
	var types []string
	repeats := map[[16]byte]bool{}
	repeated := 0
	for _, m := range messages {
		r := sent(t, s, m)
		e := provider.Decode(w.provider, r, settings)
		require.NotEqual(t, event.Unparsed, e.Type, "%s: %s\n%s", m.Event, e.Reason, r.Body)
		if quirk != "one-url" {
			require.Equal(t, m.Event, e.Name, "%s", r.Body)
		}
		if key, ok := provider.RepeatKey(&e, r); ok {
			if repeats[key] {
				repeated++
			}
			repeats[key] = true
		}
		types = append(types, string(e.Type))
		requireSame(t, &c, m, &e)
		requireTalk(t, &c, m, &e)
	}
	want, ok := courses[string(w.provider)+" "+scenario.Name]
	require.True(t, ok, "say what becomes of this call")
	switch quirk {
	case "duplicates":
		if w.provider != v1alpha1.Simotel { // which may send one state twice and mean it
			require.Equal(t, len(strings.Fields(want)), len(messages)-repeated, "as many as without")
		}
	case "out-of-order":
		require.ElementsMatch(t, strings.Fields(want), types)
	case "one-url": // triggers that say nothing of themselves are told by what they have
		require.Len(t, types, len(strings.Fields(want)))
	default:
		require.Equal(t, want, strings.Join(types, " "))
	}
}

// requireTalk: the record of a call says how long it was talked.
func requireTalk(t *testing.T, c *sim.Call, m sim.Message, e *event.Event) {
	t.Helper()
	if e.Type != event.CallEnded || e.Call.TalkSeconds == nil {
		return
	}
	require.Equal(t, strconv.Itoa(int(c.Talk/time.Second)), strconv.FormatInt(*e.Call.TalkSeconds, 10), m.Event)
	require.Equal(t, "answered", e.Call.Disposition)
}

func TestOtherVersion(t *testing.T) {
	for name, tc := range map[string]struct {
		want v1alpha1.Version
		r    event.Request
		is   string
	}{
		"not told":                 {"", event.Request{Method: "POST", Path: "/Cdr", Body: []byte(`{}`)}, ""},
		"as told":                  {"Rest4", event.Request{Method: "POST", Path: "/Cdr", Body: []byte(` {"a":1}`)}, ""},
		"G in place of Rest":       {"Rest4", event.Request{Method: "POST", Body: []byte(`{"event_name":"Cdr"}`)}, "G4"},
		"Rest in place of G":       {"G4", event.Request{Method: "POST", Path: "/cdr/", Body: []byte(`{}`)}, "Rest4"},
		"parameters in place of 4": {"G4", event.Request{Method: "POST", Body: []byte(`event_name=Cdr`)}, "G2 or G3"},
		"JSON in place of 2":       {"Rest2", event.Request{Method: "POST", Path: "/Cdr", Body: []byte(`{}`)}, "Rest4"},
		"a GET shows less":         {"Rest2", event.Request{Method: "GET", Path: "/Cdr", Query: "a=b"}, ""},
		"a GET of the other kind":  {"Rest2", event.Request{Method: "GET", Query: "event_name=Cdr"}, "G2 or G3 or G4"},
		"a path that is no event":  {"G2", event.Request{Method: "GET", Path: "/call/", Query: "event_name=Cdr"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			tc.r.Header = http.Header{}
			e := provider.Decode(v1alpha1.Simotel, &tc.r, wire.Settings{Version: tc.want})
			require.Equal(t, tc.is, e.OtherVersion)
		})
	}
}

func TestWhatCannotBeSimulated(t *testing.T) {
	for _, p := range providers {
		s := way{p, "", "POST", false}.simulator(t)
		_, err := s.Single("Dance")
		require.ErrorContains(t, err, "expected one of")
		_, err = s.Scenario("dance")
		require.ErrorContains(t, err, "expected one of the calls")
		_, err = provider.NewSimulator(provider.Simulation{Provider: p, Quirks: []string{"dance"}})
		require.ErrorContains(t, err, "expected one of the quirks")
		_, err = s.Request("ftp://a/", sim.Message{})
		require.ErrorContains(t, err, "http or https URL")
	}
	_, err := provider.NewSimulator(provider.Simulation{Provider: v1alpha1.VoIPstudio, Method: "GET"})
	require.ErrorContains(t, err, "POST alone")
	_, err = provider.NewSimulator(provider.Simulation{Provider: v1alpha1.Simotel, Method: "PUT"})
	require.ErrorContains(t, err, "GET or POST")
	_, err = provider.NewSimulator(provider.Simulation{Provider: v1alpha1.Simotel, Version: "G5"})
	require.ErrorContains(t, err, "G2, G3, G4")
	_, err = provider.NewSimulator(provider.Simulation{Provider: "Twilio"})
	require.ErrorContains(t, err, "Simotel, VoIPstudio or Acefone")
}
