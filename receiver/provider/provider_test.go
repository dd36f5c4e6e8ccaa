package provider_test

import (
	"bufio"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/provider"
	"github.com/pbxhook/pbxhook/receiver/provider/wire"
	"github.com/pbxhook/pbxhook/test/golden"
)

// sample is a line of testdata/samples.jsonl: a request as published or captured, and what must
// become of it.
type sample struct {
	Name        string            `json:"name"`
	Provider    v1alpha1.Provider `json:"provider"`
	Version     v1alpha1.Version  `json:"version"`
	Method      string            `json:"method"`
	Path        string            `json:"path"`
	Query       string            `json:"query"`
	ContentType string            `json:"contentType"`
	Body        string            `json:"body"`

	WantType event.Type `json:"wantType"`
	WantCall string     `json:"wantCall"`
}

func (s sample) request() *event.Request {
	return &event.Request{
		Method: s.Method, Path: s.Path, Query: s.Query, Body: []byte(s.Body),
		Header:     http.Header{"Content-Type": {s.ContentType}},
		ReceivedAt: time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC),
	}
}

func (s sample) settings(t testing.TB) wire.Settings {
	settings := wire.Settings{Version: s.Version}
	if s.Provider == v1alpha1.Acefone {
		location, err := time.LoadLocation("Asia/Kolkata")
		require.NoError(t, err)
		settings.Location, settings.Region = location, "IN"
	}
	return settings
}

func samples(t testing.TB) []sample {
	t.Helper()
	file, err := os.Open(filepath.Join("testdata", "samples.jsonl"))
	require.NoError(t, err)
	defer func() { require.NoError(t, file.Close()) }()
	var all []sample
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var s sample
		require.NoError(t, json.Unmarshal(lines.Bytes(), &s))
		all = append(all, s)
	}
	require.NotEmpty(t, all)
	return all
}

func TestSamples(t *testing.T) {
	published := schema(t)
	for _, s := range samples(t) {
		t.Run(s.Name, func(t *testing.T) {
			e := provider.Decode(s.Provider, s.request(), s.settings(t))
			require.Equal(t, s.WantType, e.Type, e.Reason)
			require.Equal(t, s.WantCall, e.CallID())
			got, err := json.MarshalIndent(e, "", "  ")
			require.NoError(t, err)
			golden.Equal(t, "golden/"+s.Name+".json", append(got, '\n'))
			requireSchema(t, published, &e)
		})
	}
}

// TestEveryEventHasASample: each event that a provider's panel offers is shown by a sample, so that no
// mapping goes untried.
func TestEveryEventHasASample(t *testing.T) {
	shown := map[string]bool{}
	for _, s := range samples(t) {
		e := provider.Decode(s.Provider, s.request(), s.settings(t))
		shown[string(s.Provider)+" "+e.Name] = true
	}
	for _, p := range providers {
		for _, known := range provider.Events(p) {
			require.True(t, shown[string(p)+" "+known.Name], known.Name)
		}
	}
}

func TestQuirks(t *testing.T) {
	for name, tc := range map[string]struct {
		sample
		wantName string
	}{
		"name at the end of the path, any case": {sample{Provider: "Simotel", Path: "/newstate/", Query: "exten=991&state=Idle", WantType: "extension.state"}, "NewState"},
		"name in the query wins over the path":  {sample{Provider: "Simotel", Path: "/cdr", Query: "event_name=NewState&exten=991&state=Idle", WantType: "extension.state"}, "NewState"},
		"name in another case":                  {sample{Provider: "Simotel", Query: "event_name=CDR&cuid=1.2&type=outgoing", WantType: "call.ended", WantCall: "1.2"}, "Cdr"},
		"parameters as a form":                  {sample{Provider: "Simotel", Body: "event_name=Cdr&unique_id=1.2&type=incoming&disposition=NO+ANSWER", ContentType: "application/x-www-form-urlencoded", WantType: "call.missed", WantCall: "1.2"}, "Cdr"},
		"a form that says nothing of itself":    {sample{Provider: "Simotel", Body: "event_name=Cdr&unique_id=1.2", WantType: "call.ended", WantCall: "1.2"}, "Cdr"},
		"JSON that says it is a form":           {sample{Provider: "Simotel", Body: `{"event_name":"Cdr","unique_id":"1.2"}`, ContentType: "application/x-www-form-urlencoded", WantType: "call.ended", WantCall: "1.2"}, "Cdr"},
		"JSON under payload beside others":      {sample{Provider: "Simotel", Body: `payload=%7B%22event_name%22%3A%22Cdr%22%2C%22unique_id%22%3A%221.2%22%7D&source=x`, WantType: "call.ended", WantCall: "1.2"}, "Cdr"},
		"an address with a query of its own":    {sample{Provider: "Simotel", Query: "server_profile=7", Body: `{"event_name":"Cdr","unique_id":"1.2"}`, WantType: "call.ended", WantCall: "1.2"}, "Cdr"},
		"a busy incoming call is missed":        {sample{Provider: "Simotel", Query: "event_name=Cdr&cuid=1&type=incoming&disposition=Busy", WantType: "call.missed", WantCall: "1"}, "Cdr"},
		"a busy outgoing call has ended":        {sample{Provider: "Simotel", Query: "event_name=Cdr&cuid=1&type=outgoing&disposition=BUSY", WantType: "call.ended", WantCall: "1"}, "Cdr"},
		"ringing belongs to the call":           {sample{Provider: "Simotel", Query: "event_name=NewState&exten=991&state=Ringing&unique_id=1.2", WantType: "call.ringing", WantCall: "1.2"}, "NewState"},
		"an event that Simotel adds some day":   {sample{Provider: "Simotel", Query: "event_name=Dance&unique_id=1.2", WantType: "other", WantCall: "1.2"}, "Dance"},
		"neither name nor shape":                {sample{Provider: "Simotel", Query: "a=b", WantType: "unparsed"}, ""},
		"text that is no JSON":                  {sample{Provider: "Simotel", Body: `{"event_name": `, ContentType: "application/json", WantType: "unparsed"}, ""},
		"a list of one":                         {sample{Provider: "VoIPstudio", Body: `[{"event_name":"call.hangup","call_id":7}]`, WantType: "call.ended", WantCall: "7"}, "call.hangup"},
		"the root is the call":                  {sample{Provider: "VoIPstudio", Body: `{"event_name":"call.missed","call_id":7,"root_call_id":3,"final":false}`, WantType: "call.missed", WantCall: "3"}, "call.missed"},
		"a null event name":                     {sample{Provider: "VoIPstudio", Body: `{"event_name":null}`, WantType: "unparsed"}, ""},
		"missed or answered, missed":            {sample{Provider: "Acefone", Path: "/call-missed-or-answered", Query: "call_id=1.2&call_status=missed", WantType: "call.missed", WantCall: "1.2"}, "CallMissedOrAnswered"},
		"missed or answered, answered":          {sample{Provider: "Acefone", Path: "/Call-Missed-Or-Answered/", Query: "call_id=1.2&call_status=answered", WantType: "call.ended", WantCall: "1.2"}, "CallMissedOrAnswered"},
		"missed or answered, no status":         {sample{Provider: "Acefone", Path: "/call_missed_or_answered", Query: "call_id=1.2&call_connected=0", WantType: "call.missed", WantCall: "1.2"}, "CallMissedOrAnswered"},
		"a trigger that Acefone has not":        {sample{Provider: "Acefone", Path: "/disposition-status-updated", Query: "call_id=1.2", WantType: "other", WantCall: "1.2"}, "DispositionStatusUpdated"},
		"a trigger among the fields":            {sample{Provider: "Acefone", Query: "call_id=1.2&trigger=Call+missed", WantType: "call.missed", WantCall: "1.2"}, "CallMissed"},
		"a trigger with its product's note":     {sample{Provider: "Acefone", Path: "/Call answered by Customer(Click to Call)", Query: "uuid=1", WantType: "call.answered"}, "CallAnsweredByCustomer"},
		"an agent on the line":                  {sample{Provider: "Acefone", Query: "call_id=1.2&start_stamp=2026-01-02+03:04:05&answered_agent_name=Asha", WantType: "call.answered", WantCall: "1.2"}, "CallAnsweredByExtension"},
		"a customer on the line":                {sample{Provider: "Acefone", Query: "call_id=1.2&start_stamp=2026-01-02+03:04:05&customer_ring_time=3", WantType: "call.answered", WantCall: "1.2"}, "CallAnsweredByCustomer"},
		"a part that is no trigger":             {sample{Provider: "Acefone", Path: "/inbound_complete", Query: "call_id=1.2&call_status=missed", WantType: "call.missed", WantCall: "1.2"}, "CallMissed"},
		"a sibling's name of a trigger":         {sample{Provider: "Acefone", Path: "/call-answered-by-agent", Query: "call_id=1.2", WantType: "call.answered", WantCall: "1.2"}, "CallAnsweredByExtension"},
		"a form with JSON inside":               {sample{Provider: "Acefone", Path: "/call-hangup", Body: "call_id=1.2&answered_agent=%7B%22id%22%3A%227%22%7D", ContentType: "application/x-www-form-urlencoded", WantType: "call.ended", WantCall: "1.2"}, "CallHangup"},
		"a variable that was not resolved":      {sample{Provider: "Acefone", Path: "/call-hangup", Query: "call_id=$call_id", WantType: "unparsed"}, "CallHangup"},
		"leading zeros keep their text":         {sample{Provider: "Simotel", Body: `{"event_name": "IncomingCall", "number": 09331112233, "unique_id": 1812081675.213}`, WantType: "call.started", WantCall: "1812081675.213"}, "IncomingCall"},
		"Python's idea of JSON":                 {sample{Provider: "Simotel", Body: `{'event': 'Survey', 'unique_id': '1.2', 'queue': None, 'point': 5,}`, WantType: "survey.answered", WantCall: "1.2"}, "Survey"},
	} {
		t.Run(name, func(t *testing.T) {
			tc.Method = http.MethodPost
			e := provider.Decode(tc.Provider, tc.request(), tc.settings(t))
			require.Equal(t, tc.WantType, e.Type, e.Reason)
			require.Equal(t, tc.WantCall, e.CallID())
			require.Equal(t, tc.wantName, e.Name)
			require.Equal(t, tc.WantType == event.Unparsed, e.Request != nil)
			require.Equal(t, tc.WantType == event.Unparsed, e.Reason != "")
		})
	}
}

// TestDigits: one value, or a list that may be empty.
func TestDigits(t *testing.T) {
	for body, want := range map[string]string{
		`{"digits_dialed":"42"}`:                                       "42",
		`{"digits_dialed":["4","2",7]}`:                                "427",
		`{"digits_dialed":"[\"4\",\"2\"]"}`:                            "42",
		`{"digits_dialed":[],"last_dtmf":"9"}`:                         "9",
		`{"digits_dialed":[{"a":1}],"digit_pressed":{},"call_id":"1"}`: "",
		`{"digit_pressed":0}`:                                          "0",
		`{"call_flow":[{"type":"DTMF","input":"1"},{"type":"IVR"},{"type":"DTMF","input":"2"}]}`: "12",
	} {
		r := &event.Request{Method: "POST", Path: "/dtmf-option", Body: []byte(body)}
		e := provider.Decode(v1alpha1.Acefone, r, wire.Settings{})
		require.Equal(t, want, e.Call.Digits, body)
	}
}

func TestComponentCallsNeedAnAnswer(t *testing.T) {
	for _, path := range []string{"", "/exten_api"} {
		r := &event.Request{Method: "GET", Path: path, Query: "app_name=exten_api&src=1&dst=2&unique_id=1.2"}
		e := provider.Decode(v1alpha1.Simotel, r, wire.Settings{})
		require.Contains(t, e.NeedsAnswer, "component API")
	}
	r := &event.Request{Method: "GET", Query: "app_name=x&event_name=Cdr"}
	e := provider.Decode(v1alpha1.Simotel, r, wire.Settings{})
	require.Empty(t, e.NeedsAnswer)
}

// TestAnEmptyFieldSaysNothing: an originated_call_id without a value does not make a two-way call.
func TestAnEmptyFieldSaysNothing(t *testing.T) {
	for query, want := range map[string]v1alpha1.CallType{
		"event_name=OutgoingCall&cuid=1&originated_call_id=":                v1alpha1.CallTypeOutbound,
		"event_name=OutgoingCall&cuid=1&originated_call_id=orig.call.1.2":   v1alpha1.CallTypeClickToCall,
		"event_name=Cdr&cuid=1&type=outgoing&originated_call_id=":           v1alpha1.CallTypeOutbound,
		"event_name=Cdr&cuid=1&type=outgoing&originated_call_id=orig.call.": v1alpha1.CallTypeClickToCall,
	} {
		e := provider.Decode(v1alpha1.Simotel, &event.Request{Query: query}, wire.Settings{})
		require.Equal(t, want, e.Call.CallType, query)
	}
}

func TestRepeatKey(t *testing.T) {
	key := func(p v1alpha1.Provider, path, body string) ([16]byte, bool) {
		r := &event.Request{Method: "POST", Path: path, Body: []byte(body)}
		e := provider.Decode(p, r, wire.Settings{})
		return provider.RepeatKey(&e, r)
	}
	_, ok := key(v1alpha1.Simotel, "", `{"event_name":"NewState","exten":"1"}`)
	require.False(t, ok, "Simotel may send one state twice and mean it")
	_, ok = key(v1alpha1.VoIPstudio, "", `{"event_name":"call.hangup"}`)
	require.False(t, ok, "no id, no repeat")
	one, ok := key(v1alpha1.VoIPstudio, "", `{"event_name":"call.hangup","id":"a"}`)
	require.True(t, ok)
	two, _ := key(v1alpha1.VoIPstudio, "", `{"event_name":"call.hangup","id":"b"}`)
	require.NotEqual(t, one, two)
	three, ok := key(v1alpha1.Acefone, "/call-missed", `{"call_id":"1"}`)
	require.True(t, ok)
	four, _ := key(v1alpha1.Acefone, "/call-hangup", `{"call_id":"1"}`)
	require.NotEqual(t, three, four, "two triggers are two events")
}

func FuzzSimotel(f *testing.F)    { fuzz(f, v1alpha1.Simotel) }
func FuzzVoIPstudio(f *testing.F) { fuzz(f, v1alpha1.VoIPstudio) }
func FuzzAcefone(f *testing.F)    { fuzz(f, v1alpha1.Acefone) }

// fuzz tries a decoder with the samples of all providers as seeds.
func fuzz(f *testing.F, p v1alpha1.Provider) {
	for _, s := range samples(f) {
		f.Add(s.Path, s.Query, s.ContentType, []byte(s.Body))
	}
	for _, c := range fieldCases(f) {
		if c.Provider == "http" {
			continue
		}
		_, r, _ := c.request(f)
		f.Add(r.Path, r.Query, r.ContentType(), r.Body)
	}
	f.Add("", "", "", []byte(strings.Repeat("{", 2000)))
	f.Add("/call-hangup", "answered_agent="+strings.Repeat("[", 2000), "", []byte(nil))
	f.Fuzz(func(t *testing.T, path, query, contentType string, body []byte) {
		r := &event.Request{Method: "POST", Path: path, Query: query, Body: body, Header: http.Header{"Content-Type": {contentType}}}
		e := provider.Decode(p, r, wire.Settings{Location: time.FixedZone("", 3600), Region: "GB"})
		if e.Type == "" && e.NeedsAnswer == "" {
			t.Fatal("an event without a type")
		}
		if (e.Type == event.Unparsed) != (e.Reason != "") {
			t.Fatalf("type %s with reason %q", e.Type, e.Reason)
		}
		if _, err := json.Marshal(e); err != nil {
			t.Fatal(err)
		}
	})
}
