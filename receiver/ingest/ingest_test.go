package ingest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/ingest"
	"github.com/pbxhook/pbxhook/receiver/journal"
	"github.com/pbxhook/pbxhook/receiver/provider/wire"
)

// rig is a handler with a webhook of each provider, on journals of their own.
type rig struct {
	t       *testing.T
	server  *httptest.Server
	simotel *ingest.Webhook
	all     []*ingest.Webhook
	handler *ingest.Handler
}

func newRig(t *testing.T) *rig {
	t.Helper()
	credentials := func() *ingest.Credentials {
		return &ingest.Credentials{Username: "username", Passwords: []string{"password", "previous"}, Tokens: []string{"t0ken/=+"}, TokenName: "X-API-Key"}
	}
	r := &rig{t: t, handler: ingest.NewHandler(slog.New(slog.DiscardHandler), nil, func(string, int, time.Duration, string) {})}
	add := func(name string, p v1alpha1.Provider, c *ingest.Credentials, methods ...string) *ingest.Webhook {
		w := r.webhook(name, p, c, methods...)
		r.all = append(r.all, w)
		return w
	}
	r.simotel = add("simotel", v1alpha1.Simotel, credentials(), "GET", "POST")
	add("voipstudio", v1alpha1.VoIPstudio, credentials(), "POST")
	add("acefone", v1alpha1.Acefone, credentials(), "GET", "POST")
	add("open", v1alpha1.Simotel, nil, "GET", "POST")
	add("unknown", v1alpha1.Simotel, &ingest.Credentials{}, "GET", "POST")
	add("closed", v1alpha1.Simotel, credentials(), "GET", "POST").Closed = true
	r.handler.Serve(r.all)
	r.server = httptest.NewServer(r.handler)
	t.Cleanup(r.server.Close)
	return r
}

func (r *rig) webhook(name string, p v1alpha1.Provider, c *ingest.Credentials, methods ...string) *ingest.Webhook {
	return &ingest.Webhook{
		Namespace: "crm", Name: name, Provider: p, Methods: methods, Credentials: c,
		Settings: &wire.Settings{TokenName: "X-API-Key"}, Journal: journal.NewMemory(),
	}
}

// add serves one more webhook, of Simotel.
func (r *rig) add(name string, c *ingest.Credentials) *ingest.Webhook {
	w := r.webhook(name, v1alpha1.Simotel, c, "GET", "POST")
	r.all = append(r.all, w)
	r.handler.Serve(r.all)
	return w
}

func (r *rig) journal(options journal.Options) journal.Journal {
	r.t.Helper()
	j, err := journal.Open(context.Background(), filepath.Join(r.t.TempDir(), "j.db"), options)
	require.NoError(r.t, err)
	r.t.Cleanup(func() { require.NoError(r.t, j.Close()) })
	return j
}

type reply struct {
	code   int
	header http.Header
	ID     string `json:"id"`
	Type   string `json:"type"`
	Reason string `json:"reason"`
	Error  string `json:"error"`
}

func (r *rig) do(method, path, password, body string, header ...string) reply {
	r.t.Helper()
	request, err := http.NewRequest(method, r.server.URL+path, strings.NewReader(body))
	require.NoError(r.t, err)
	if password != "" {
		request.SetBasicAuth("username", password)
	}
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultClient.Do(request)
	require.NoError(r.t, err)
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(response.Body)
	require.NoError(r.t, err)
	out := reply{code: response.StatusCode, header: response.Header}
	if len(data) > 0 {
		require.NoError(r.t, json.Unmarshal(data, &out), "%s", data)
	}
	return out
}

func TestAnswers(t *testing.T) {
	const cdr = `{"event_name":"Cdr","unique_id":"1.2"}`
	form := []string{"Content-Type", "application/x-www-form-urlencoded"}
	for name, tc := range map[string]struct {
		method, path, password, body string
		header                       []string
		want                         int
		wantType                     string
	}{
		"unknown webhook":                  {"POST", "/hooks/crm/nowhere", "password", cdr, nil, 404, ""},
		"unknown namespace":                {"POST", "/hooks/x/simotel", "password", cdr, nil, 404, ""},
		"no webhook at all":                {"GET", "/", "", "", nil, 404, ""},
		"HEAD":                             {"HEAD", "/hooks/crm/simotel/NewState", "", "", nil, 200, ""},
		"a PBX checking the URL":           {"GET", "/hooks/crm/simotel", "", "", nil, 200, ""},
		"with a trailing slash":            {"GET", "/hooks/crm/simotel/", "", "", nil, 200, ""},
		"with the wrong password":          {"POST", "/hooks/crm/simotel", "wrong", "", nil, 200, ""},
		"with a method that is not taken":  {"PUT", "/hooks/crm/voipstudio", "", "", nil, 200, ""},
		"and by its token":                 {"GET", "/hooks/crm/simotel/t0ken%2F=+/", "", "", nil, 200, ""},
		"and before credentials are known": {"GET", "/hooks/crm/unknown", "", "", nil, 200, ""},
		"method not taken":                 {"GET", "/hooks/crm/voipstudio?event_name=call.hangup", "password", "", nil, 405, ""},
		"method never taken":               {"DELETE", "/hooks/crm/simotel/Cdr", "password", "", nil, 405, ""},
		"body too large":                   {"POST", "/hooks/crm/simotel", "wrong", strings.Repeat("x", event.MaxBody+1), nil, 413, ""},
		"body as large as allowed":         {"POST", "/hooks/crm/simotel", "password", cdr + strings.Repeat(" ", event.MaxBody-len(cdr)), nil, 202, "call.ended"},
		"no credentials":                   {"POST", "/hooks/crm/simotel", "", cdr, nil, 401, ""},
		"wrong password":                   {"POST", "/hooks/crm/simotel", "wrong", cdr, nil, 401, ""},
		"right password":                   {"POST", "/hooks/crm/simotel", "password", cdr, nil, 202, "call.ended"},
		"previous password":                {"POST", "/hooks/crm/simotel", "previous", cdr, nil, 202, "call.ended"},
		"anyone, where that is asked for":  {"POST", "/hooks/crm/open", "", cdr, nil, 202, "call.ended"},
		"token in the path":                {"POST", "/hooks/crm/simotel/t0ken%2F=+", "", cdr, nil, 202, "call.ended"},
		"token and event in the path":      {"GET", "/hooks/crm/simotel/t0ken%2F=+/cdr?unique_id=1", "", "", nil, 202, "call.ended"},
		"wrong token in the path":          {"GET", "/hooks/crm/simotel/t0ken/cdr?unique_id=1", "", "", nil, 401, ""},
		"token alone, and wrong":           {"GET", "/hooks/crm/simotel/t0ken", "", "", nil, 401, ""},
		"token in its header":              {"POST", "/hooks/crm/simotel", "", cdr, []string{"x-api-key", "t0ken/=+"}, 202, "call.ended"},
		"wrong token in its header":        {"POST", "/hooks/crm/simotel", "", cdr, []string{"x-api-key", "no"}, 401, ""},
		"token in the query":               {"POST", "/hooks/crm/simotel?x-api-key=t0ken/%3D%2B&a=b", "", cdr, nil, 202, "call.ended"},
		"token in the body":                {"POST", "/hooks/crm/simotel", "", `{"event_name":"Cdr","cuid":"1","X-API-Key":"t0ken/=+"}`, nil, 202, "call.ended"},
		"token in a form":                  {"POST", "/hooks/crm/simotel", "", `event_name=Cdr&cuid=1&X-API-Key=t0ken/%3D%2B`, form, 202, "call.ended"},
		"component API":                    {"GET", "/hooks/crm/simotel?app_name=exten_api&src=1&dst=2", "password", "", nil, 422, ""},
		"disabled":                         {"POST", "/hooks/crm/closed", "password", cdr, nil, 503, ""},
		"credentials never seen":           {"POST", "/hooks/crm/unknown", "password", cdr, nil, 503, ""},
		"cannot be decoded":                {"POST", "/hooks/crm/simotel", "password", `{"event_name":`, nil, 202, "unparsed"},
		"an unknown event":                 {"POST", "/hooks/crm/simotel", "password", `{"event_name":"Dance"}`, nil, 202, "other"},
		"trigger in the path":              {"POST", "/hooks/crm/acefone/call-missed/", "password", `{"call_id":"1.2"}`, nil, 202, "call.missed"},
		// Simotel: Introduction and Settings, its four curl commands
		"curl, G4 by GET":     {"GET", "/hooks/crm/simotel/?event_name=NewState&exten=991&state=Unavailable", "password", "", nil, 202, "extension.state"},
		"curl, G4 by POST":    {"POST", "/hooks/crm/simotel/", "password", "{\n    \"event_name\": \"NewState\",\n    \"exten\": \"991\",\n    \"state\": \"Unavailable\"\n\t}", []string{"Content-Type", "application/json"}, 202, "extension.state"},
		"curl, Rest4 by GET":  {"GET", "/hooks/crm/simotel/NewState?event_name=NewState&exten=991&state=Unavailable", "password", "", nil, 202, "extension.state"},
		"curl, Rest4 by POST": {"POST", "/hooks/crm/simotel/NewState", "password", "{\n    \"event_name\": \"NewState\",\n    \"exten\": \"991\",\n    \"state\": \"Unavailable\"\n\t}", []string{"Content-Type", "application/json"}, 202, "extension.state"},
		"curl, wrong":         {"GET", "/hooks/crm/simotel/NewState?event_name=NewState&exten=991&state=Unavailable", "Password", "", nil, 401, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			got := r.do(tc.method, tc.path, tc.password, tc.body, tc.header...)
			require.Equal(t, tc.want, got.code, got.Error)
			require.Equal(t, tc.wantType, got.Type)
			switch tc.want {
			case 401:
				require.Contains(t, got.header.Get("WWW-Authenticate"), "Basic")
			case 405:
				require.NotEmpty(t, got.header.Get("Allow"))
			case 503:
				require.NotEmpty(t, got.header.Get("Retry-After"))
			case 422:
				require.Contains(t, got.Error, "component API")
			}
			var received, rejected int64
			for _, w := range r.all {
				state := w.Journal.State()
				if state.Rejected > 0 {
					require.Equal(t, fmt.Sprintf("%d: %s", got.code, got.Error), state.LastRejected.Reason)
				}
				received += state.Received
				rejected += state.Rejected
			}
			require.Equal(t, tc.want == 202, received == 1, "202 and kept are one")
			require.Equal(t, tc.want == 202, got.ID != "")
			if tc.want != 404 {
				require.Equal(t, tc.want >= 400, rejected == 1, "what is refused is counted")
			}
			require.Equal(t, tc.wantType == "unparsed", got.Reason != "")
		})
	}
}

func TestWhatIsKeptHasNoSecret(t *testing.T) {
	r := newRig(t)
	got := r.do("POST", "/hooks/crm/simotel/t0ken%2F=+/Cdr?a=b&X-API-KEY=t0ken/%3D%2B", "password", `{"unique_id":"7.1"}`,
		"X-Api-Key", "t0ken/=+", "Cookie", "s=1", "X-Other", "yes", "Content-Type", "application/json")
	require.Equal(t, 202, got.code)
	kept, err := r.simotel.Journal.Get(1)
	require.NoError(t, err)
	require.Equal(t, "/Cdr", kept.Request.Path)
	require.Equal(t, "a=b", kept.Request.Query)
	require.Equal(t, `{"unique_id":"7.1"}`, string(kept.Request.Body))
	require.Equal(t, "yes", kept.Request.Header.Get("X-Other"))
	for _, name := range []string{"Authorization", "X-Api-Key", "Cookie"} {
		require.Empty(t, kept.Request.Header.Get(name), name)
	}
	require.Equal(t, "7.1", kept.Lane)
	require.Equal(t, got.ID, kept.ID)
}

func TestRepeats(t *testing.T) {
	r := newRig(t)
	body := `{"event_name":"call.hangup","id":"uk003.1","call_id":7}`
	first := r.do("POST", "/hooks/crm/voipstudio", "password", body)
	require.Equal(t, "uk003.1", first.ID, "the PBX's own id")
	again := r.do("POST", "/hooks/crm/voipstudio", "previous", body)
	require.Equal(t, 202, again.code)
	require.Equal(t, first.ID, again.ID)

	one := r.do("POST", "/hooks/crm/acefone/call-missed", "password", `{"call_id":"1"}`)
	two := r.do("POST", "/hooks/crm/acefone/call-missed", "password", `{"call_id":"1"}`)
	other := r.do("POST", "/hooks/crm/acefone/call-hangup", "password", `{"call_id":"1"}`)
	require.Equal(t, one.ID, two.ID)
	require.NotEqual(t, one.ID, other.ID)

	same := `{"event_name":"NewState","exten":"991","state":"Idle"}`
	require.NotEqual(t, r.do("POST", "/hooks/crm/simotel", "password", same).ID, r.do("POST", "/hooks/crm/simotel", "password", same).ID,
		"Simotel may send one state twice and mean it")
}

// waits is a journal on which an append waits until the sender is gone.
type waits struct {
	journal.Journal
	begun, gone chan bool
	stored      chan error
}

func (w *waits) Append(ctx context.Context, record journal.Record, repeat *journal.RepeatKey) (journal.Receipt, error) {
	close(w.begun)
	<-w.gone
	receipt, err := w.Journal.Append(ctx, record, repeat)
	w.stored <- errors.Join(err, ctx.Err())
	return receipt, err
}

// TestSenderThatDoesNotWait: an event whose sender closes the connection after the request is stored all the same.
func TestSenderThatDoesNotWait(t *testing.T) {
	r := newRig(t)
	j := &waits{Journal: r.simotel.Journal, begun: make(chan bool), gone: make(chan bool), stored: make(chan error, 1)}
	r.simotel.Journal = j
	r.handler.Serve(r.all)
	gone := make(chan bool)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		context.AfterFunc(request.Context(), func() { close(gone) })
		r.handler.ServeHTTP(w, request)
	}))
	defer server.Close()
	conn, err := net.Dial("tcp", strings.TrimPrefix(server.URL, "http://"))
	require.NoError(t, err)
	_, err = io.WriteString(conn, "POST /hooks/crm/simotel/Cdr HTTP/1.1\r\nHost: x\r\nX-API-Key: t0ken/=+\r\nContent-Length: 17\r\n\r\n"+`{"unique_id":"1"}`)
	require.NoError(t, err)
	<-j.begun
	require.NoError(t, conn.Close())
	<-gone // net/http has noticed
	close(j.gone)
	require.NoError(t, <-j.stored)
}

func TestFullAndBrokenJournalsAnswer503(t *testing.T) {
	r := newRig(t)
	r.simotel.Journal = r.journal(journal.Options{MaxBytes: 100})
	full := r.do("POST", "/hooks/crm/simotel/Cdr", "password", `{"unique_id":"1"}`)
	require.Equal(t, 503, full.code)
	require.Contains(t, full.Error, "full")
	require.NotEmpty(t, full.header.Get("Retry-After"))

	require.NoError(t, r.simotel.Journal.Close())
	broken := r.do("POST", "/hooks/crm/simotel/Cdr", "password", `{"unique_id":"1"}`)
	require.Equal(t, 503, broken.code)
}
