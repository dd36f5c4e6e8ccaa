package ingest_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/ingest"
	"github.com/pbxhook/pbxhook/receiver/journal"
	"github.com/pbxhook/pbxhook/receiver/provider/wire"
)

// watchedBody notes whether it was read.
type watchedBody struct {
	io.Reader
	read bool
}

func (b *watchedBody) Read(into []byte) (int, error) {
	b.read = true
	return b.Reader.Read(into)
}

func (b *watchedBody) Close() error { return nil }

// TestTheFirstAnswerThatMatchesCounts has, for each row of the table of answers, a request that a later row matches
// as well.
func TestTheFirstAnswerThatMatchesCounts(t *testing.T) {
	const cdr = `{"event_name":"Cdr","unique_id":"1.2"}`
	large := strings.Repeat("x", event.MaxBody+1)
	for name, tc := range map[string]struct {
		method, path, password, body string
		header                       []string
		want                         int
		unread                       bool // the body is not read
	}{
		"unknown webhook before method":                     {"DELETE", "/hooks/crm/nowhere", "wrong", large, nil, 404, true},
		"HEAD before method, credentials":                   {"HEAD", "/hooks/crm/voipstudio/x?a=b", "wrong", "", nil, 200, true},
		"HEAD before disabled":                              {"HEAD", "/hooks/crm/closed", "", "", nil, 200, true},
		"URL check before method":                           {"PUT", "/hooks/crm/voipstudio", "wrong", "", nil, 200, true},
		"URL check before disabled":                         {"POST", "/hooks/crm/closed", "", "", nil, 200, true},
		"URL check before unknown credentials":              {"GET", "/hooks/crm/unknown", "", "", nil, 200, true},
		"method before disabled":                            {"DELETE", "/hooks/crm/closed", "wrong", cdr, nil, 405, true},
		"method before credentials":                         {"DELETE", "/hooks/crm/basic", "wrong", cdr, nil, 405, true},
		"method before a large body":                        {"GET", "/hooks/crm/voipstudio", "password", large, nil, 405, true},
		"disabled before wrong credentials":                 {"POST", "/hooks/crm/closed", "wrong", cdr, nil, 503, true},
		"disabled before a large body":                      {"POST", "/hooks/crm/closed", "password", large, nil, 503, true},
		"unknown credentials before a large body":           {"POST", "/hooks/crm/unknown", "password", large, nil, 503, true},
		"wrong credentials before a large body":             {"POST", "/hooks/crm/basic", "wrong", large, nil, 401, true},
		"no credentials before a large body":                {"POST", "/hooks/crm/basic", "", large, nil, 401, true},
		"wrong token in the path before a large body":       {"POST", "/hooks/crm/bytoken/t0ken", "", large, nil, 401, true},
		"wrong credentials before a loop":                   {"POST", "/hooks/crm/basic", "wrong", cdr, []string{"Pbxhook-Hops", "9"}, 401, true},
		"wrong credentials before the component API":        {"GET", "/hooks/crm/basic?app_name=exten_api", "wrong", "", nil, 401, true},
		"a large body, said to be one":                      {"POST", "/hooks/crm/basic", "password", large, nil, 413, true},
		"a large body before the token in it":               {"POST", "/hooks/crm/simotel", "wrong", large, nil, 413, true},
		"wrong credentials before an unknown encoding":      {"POST", "/hooks/crm/basic", "wrong", cdr, []string{"Content-Encoding", "br"}, 401, true},
		"a large body before an unknown encoding":           {"POST", "/hooks/crm/basic", "password", large, []string{"Content-Encoding", "br"}, 413, true},
		"an unknown encoding before the token in the body":  {"POST", "/hooks/crm/simotel", "", cdr, []string{"Content-Encoding", "br"}, 415, false},
		"an unknown encoding before a loop":                 {"POST", "/hooks/crm/basic", "password", cdr, []string{"Content-Encoding", "br", "Pbxhook-Hops", "5"}, 415, false},
		"a large body before a loop":                        {"POST", "/hooks/crm/basic", "password", large, []string{"Pbxhook-Hops", "5"}, 413, true},
		"no token in the body before a loop":                {"POST", "/hooks/crm/simotel", "", cdr, []string{"Pbxhook-Hops", "5"}, 401, false},
		"a loop before the component API":                   {"GET", "/hooks/crm/basic?app_name=exten_api", "password", "", []string{"Pbxhook-Hops", "5"}, 508, false},
		"a loop before what cannot be decoded":              {"POST", "/hooks/crm/basic", "password", "{", []string{"Pbxhook-Hops", "5"}, 508, false},
		"four times is no loop":                             {"POST", "/hooks/crm/basic", "password", cdr, []string{"Pbxhook-Hops", "4"}, 202, false},
		"the component API before the journal":              {"GET", "/hooks/crm/full?app_name=exten_api", "password", "", nil, 422, false},
		"a full journal":                                    {"POST", "/hooks/crm/full", "password", cdr, nil, 503, false},
		"a full journal before what cannot be decoded":      {"POST", "/hooks/crm/full", "password", "{", nil, 503, false},
		"a right token is enough beside a wrong password":   {"POST", "/hooks/crm/simotel", "wrong", `{"event_name":"Cdr","unique_id":"1","X-API-Key":"t0ken/=+"}`, nil, 202, false},
		"a right password is enough beside a wrong token":   {"POST", "/hooks/crm/simotel?X-API-Key=no", "password", cdr, nil, 202, false},
		"chunked, and empty: a URL check":                   {"POST", "/hooks/crm/basic", "", "", []string{"Transfer-Encoding", "chunked"}, 200, false},
		"chunked, and not empty: wrong credentials":         {"POST", "/hooks/crm/basic/Cdr", "", cdr, []string{"Transfer-Encoding", "chunked"}, 401, true},
		"chunked, no event in the path: no credentials":     {"POST", "/hooks/crm/basic", "", cdr, []string{"Transfer-Encoding", "chunked"}, 401, false},
		"chunked, no event in the path: read to its end":    {"POST", "/hooks/crm/basic", "password", cdr, []string{"Transfer-Encoding", "chunked"}, 202, false},
		"chunked, and too large":                            {"POST", "/hooks/crm/basic", "password", large, []string{"Transfer-Encoding", "chunked"}, 413, false},
		"an event in the path, and nothing else: no check":  {"POST", "/hooks/crm/basic/Ping", "", "", nil, 401, true},
		"a query, and nothing else: no check":               {"GET", "/hooks/crm/basic?a=b", "", "", nil, 401, true},
		"a wrong token in the query: no check":              {"GET", "/hooks/crm/simotel?X-API-Key=no", "", "", nil, 401, false},
		"the token in the query: a check, disabled or not":  {"GET", "/hooks/crm/closed?X-API-Key=t0ken/%3D%2B&", "", "", nil, 200, true},
		"the token in the path: a check, whatever method":   {"PATCH", "/hooks/crm/bytoken/t0ken%2F=+", "", "", nil, 200, true},
		"the token in path and query, with an event: no":    {"DELETE", "/hooks/crm/simotel/t0ken%2F=+/Cdr?X-API-Key=no", "", "", nil, 405, true},
		"an unknown webhook, though the body is not read":   {"POST", "/hooks/crm", "", large, nil, 404, true},
		"white space after the name, pasted: the webhook's": {"GET", "/hooks/crm/basic%20%0A", "", "", nil, 200, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			full := r.add("full", &ingest.Credentials{Username: "username", Passwords: []string{"password"}})
			full.Journal = r.journal(journal.Options{MaxBytes: 1})
			r.add("basic", &ingest.Credentials{Username: "username", Passwords: []string{"password"}})
			r.add("bytoken", &ingest.Credentials{Tokens: []string{"t0ken/=+"}})
			body := &watchedBody{Reader: strings.NewReader(tc.body)}
			request := httptest.NewRequest(tc.method, tc.path, body)
			request.ContentLength = int64(len(tc.body))
			if tc.password != "" {
				request.SetBasicAuth("username", tc.password)
			}
			for i := 0; i+1 < len(tc.header); i += 2 {
				if tc.header[i] == "Transfer-Encoding" {
					request.ContentLength = -1
				}
				request.Header.Set(tc.header[i], tc.header[i+1])
			}
			w := httptest.NewRecorder()
			r.handler.ServeHTTP(w, request)
			require.Equal(t, tc.want, w.Code, w.Body)
			if tc.unread {
				require.False(t, body.read, "the body is not read")
			}
			checks := int64(0)
			for _, webhook := range r.all {
				checks += webhook.Journal.State().URLChecks
			}
			require.Equal(t, tc.want == 200, checks == 1, "a URL check is counted")
		})
	}
}

// TestBasicChallengeOnOneConnection: a client that learns from the first answer how to authenticate goes on over the
// same connection, though nobody read the body that it had sent.
func TestBasicChallengeOnOneConnection(t *testing.T) {
	r := newRig(t)
	r.add("basic", &ingest.Credentials{Username: "username", Passwords: []string{"password"}})
	conn, err := net.Dial("tcp", r.server.Listener.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	body := `{"event_name":"Cdr","unique_id":"1.2","x":"` + strings.Repeat("x", 200<<10) + `"}`
	answers := bufio.NewReader(conn)
	for _, step := range []struct {
		header string
		want   int
	}{{"", 401}, {"Authorization: Basic dXNlcm5hbWU6cGFzc3dvcmQ=\r\n", 202}} {
		_, err := fmt.Fprintf(conn, "POST /hooks/crm/basic HTTP/1.1\r\nHost: pbx\r\n%sContent-Length: %d\r\n\r\n%s", step.header, len(body), body)
		require.NoError(t, err)
		response, err := http.ReadResponse(answers, nil)
		require.NoError(t, err)
		require.Equal(t, step.want, response.StatusCode)
		_, err = io.Copy(io.Discard, response.Body)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
	}
}

func TestPaths(t *testing.T) {
	const token = "/t0ken%2F=+"
	for name, tc := range map[string]struct {
		path string
		want int
		kept string // the path that is stored
	}{
		"as it is":                      {"/hooks/crm/bytoken" + token + "/NewState", 202, "/NewState"},
		"slashes at the end":            {"/hooks/crm/bytoken" + token + "/NewState//", 202, "/NewState"},
		"slashes everywhere":            {"//hooks///crm//bytoken/" + token + "//NewState", 202, "/NewState"},
		"white space at the end":        {"/hooks/crm/bytoken" + token + "/NewState%20%0D%0A%09%C2%A0", 202, "/NewState"},
		"white space as a last segment": {"/hooks/crm/bytoken" + token + "/NewState/%20/%20", 202, "/NewState"},
		"white space after the token":   {"/hooks/crm/bytoken" + token + "%20", 202, ""},
		"white space inside stays":      {"/hooks/crm/bytoken" + token + "/a%20b/c", 202, "/a b/c"},
		"escaped letters":               {"/%68ooks/c%72m/bytoken/t0%6Ben%2f%3D%2B/New%53tate", 202, "/NewState"},
		"an escaped slash divides none": {"/hooks%2Fcrm/bytoken" + token, 404, ""},
		"a token that is cut in two":    {"/hooks/crm/bytoken/t0ken/=+/NewState", 401, ""},
		"a token that is not the first": {"/hooks/crm/bytoken/NewState" + token, 401, ""},
		"escaped once only":             {"/hooks/crm/bytoken" + token + "/New%2553tate", 202, "/New%53tate"},
		"dot segments":                  {"/hooks/crm/bytoken" + token + "/%2e%2e/./x", 202, "/.././x"},
		"dot segments lead nowhere":     {"/hooks/crm/x/../bytoken" + token, 404, ""},
		"not a webhook's path":          {"/hook/crm/bytoken" + token, 404, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			w := r.add("bytoken", &ingest.Credentials{Tokens: []string{"t0ken/=+"}})
			require.Equal(t, tc.want, r.do("POST", tc.path, "", `{"event_name":"NewState","exten":"991","state":"Idle"}`).code)
			if tc.want != 202 {
				return
			}
			stored, err := w.Journal.Get(1)
			require.NoError(t, err)
			require.Equal(t, tc.kept, stored.Request.Path)
		})
	}
}

func TestAuthorizationIsReadAsItIsWritten(t *testing.T) {
	const basic = "dXNlcm5hbWU6cGFzc3dvcmQ="
	for name, tc := range map[string]struct {
		header, value string
		want          int
	}{
		"lower case":                 {"Authorization", "basic " + basic, 202},
		"upper case":                 {"Authorization", "BASIC " + basic, 202},
		"several blanks":             {"Authorization", "Basic   " + basic, 202},
		"a tab":                      {"Authorization", "Basic\t" + basic, 202},
		"no blank":                   {"Authorization", "Basic" + basic, 401},
		"another scheme":             {"Authorization", "Digest " + basic, 401},
		"a token as it is":           {"X-API-Key", "t0ken/=+", 202},
		"a bearer":                   {"X-API-Key", "Bearer t0ken/=+", 202},
		"a bearer in lower case":     {"X-API-Key", "bearer  t0ken/=+", 202},
		"Token":                      {"X-API-Key", "Token t0ken/=+", 202},
		"a scheme that is none":      {"X-API-Key", "Key t0ken/=+", 401},
		"a scheme, and no token":     {"X-API-Key", "Bearer", 401},
		"the token is not its start": {"X-API-Key", "Bearer t0ken/=+ x", 401},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			require.Equal(t, tc.want, r.do("POST", "/hooks/crm/simotel", "", `{"event_name":"Cdr","unique_id":"1"}`, tc.header, tc.value).code)
		})
	}
}

// TestTheTokenIsNotStored: a target with format Original gets what is stored.
func TestTheTokenIsNotStored(t *testing.T) {
	const multi = "--b\r\nContent-Disposition: form-data; name=\"event_name\"\r\n\r\nCdr\r\n" +
		"--b\r\nContent-Disposition: form-data; name=\"x-api-key\"\r\n\r\nt0ken/=+\r\n" +
		"--b\r\nContent-Disposition: form-data; name=\"unique_id\"\r\n\r\n1\r\n--b--\r\n"
	for name, tc := range map[string]struct{ contentType, body, want string }{
		"JSON, first":          {"application/json", "{ \"X-API-Key\" : \"t0ken/=+\" , \"event_name\": \"Cdr\",\n \"unique_id\":1.50}", "{ \"event_name\": \"Cdr\",\n \"unique_id\":1.50}"},
		"JSON, in the middle":  {"application/json", `{"event_name":"Cdr", "x-api-key":"t0ken/=+", "unique_id":"1"}`, `{"event_name":"Cdr", "unique_id":"1"}`},
		"JSON, last":           {"application/json", "{\"event_name\":\"Cdr\",\"unique_id\":\"1\"\n,\"x-api-key\":\"t0ken/=+\"}\n", "{\"event_name\":\"Cdr\",\"unique_id\":\"1\"}\n"},
		"JSON, escaped":        {"application/json", `{"event_name":"Cdr","unique_id":"1","\u0078-api-key":"t0ken\/=+"}`, `{"event_name":"Cdr","unique_id":"1"}`},
		"JSON, twice":          {"application/json", `{"X-API-Key":"no","event_name":"Cdr","unique_id":"1","x-api-key":"t0ken/=+"}`, `{"event_name":"Cdr","unique_id":"1"}`},
		"what is not quite":    {"application/json", `{'event_name':'Cdr','unique_id':01,'x-api-key':'t0ken/=+'}`, `{"event_name":"Cdr","unique_id":"01"}`},
		"JSON in a JSON text":  {"text/plain", `"{\"event_name\":\"Cdr\",\"unique_id\":\"1\",\"x-api-key\":\"t0ken/=+\"}"`, `{"event_name":"Cdr","unique_id":"1"}`},
		"JSON without it":      {"application/json", "\n{ \"event_name\" :\"Cdr\",\"unique_id\":\"1\" }\n", "\n{ \"event_name\" :\"Cdr\",\"unique_id\":\"1\" }\n"},
		"a form without it":    {"application/x-www-form-urlencoded", "event_name=Cdr&unique_id=%31\r\n", "event_name=Cdr&unique_id=%31\r\n"},
		"a form":               {"application/x-www-form-urlencoded", "event_name=Cdr&x-api-key=t0ken/%3D%2B&unique_id=%31", "event_name=Cdr&unique_id=%31"},
		"a form, name escaped": {"", "x%2Dapi-key=t0ken/%3D%2B&event_name=Cdr&unique_id=1", "event_name=Cdr&unique_id=1"},
		"a multipart form":     {"multipart/form-data; boundary=b", multi, strings.Replace(multi, "--b\r\nContent-Disposition: form-data; name=\"x-api-key\"\r\n\r\nt0ken/=+\r\n", "", 1)},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			password := ""
			if tc.body == tc.want {
				password = "password"
			}
			got := r.do("POST", "/hooks/crm/simotel", password, tc.body, "Content-Type", tc.contentType)
			require.Equal(t, 202, got.code)
			require.Equal(t, "call.ended", got.Type)
			stored, err := r.simotel.Journal.Get(1)
			require.NoError(t, err)
			require.Equal(t, tc.want, string(stored.Request.Body))
		})
	}
}

// TestHeadersThatAreStored: what is about the connection, pbxhook's own, and what is no header is not.
func TestHeadersThatAreStored(t *testing.T) {
	r := newRig(t)
	request := httptest.NewRequest("POST", "/hooks/crm/open", strings.NewReader(`{"event_name":"Cdr","unique_id":"1"}`))
	request.Header = http.Header{
		"X-A": {"1"}, "X-Hop": {"1"}, "Connection": {"close, X-Hop", "x-other"}, "X-Other": {"1"}, "Keep-Alive": {"1"}, "Te": {"trailers"},
		"Pbxhook-Replay": {"forged"}, "Pbxhook-Hops": {"2", " 3"}, "X Y": {"1"}, "X-Line": {"a\r\nb"},
	}
	r.handler.ServeHTTP(httptest.NewRecorder(), request)
	stored, err := r.all[3].Journal.Get(1)
	require.NoError(t, err)
	require.Equal(t, http.Header{"X-A": {"1"}, "Pbxhook-Hops": {"3"}}, stored.Request.Header)
}

// TestBodyThatBreaks: a body that ends early is none that was read.
func TestBodyThatBreaks(t *testing.T) {
	r := newRig(t)
	for _, length := range []int64{-1, 10} {
		request := httptest.NewRequest("POST", "/hooks/crm/open", io.MultiReader(strings.NewReader(""), &broken{}))
		request.ContentLength = length
		w := httptest.NewRecorder()
		r.handler.ServeHTTP(w, request)
		require.Equal(t, 400, w.Code)
	}
}

type broken struct{}

func (*broken) Read([]byte) (int, error) { return 0, errors.New("the connection is gone") }

// FuzzTheTokenIsNotStored: whatever JSON an authenticated sender sends, what is stored has no member with the token's
// name, and all others as they were.
func FuzzTheTokenIsNotStored(f *testing.F) {
	for _, seed := range []string{`{"X-API-Key":"t","a":1}`, `{"a":[{"x-api-key":1}],"x-api-key" : null , "b":"\u0000"}`, `[{"x-api-key":"t","a":1}]`, `{"a":"x-api-key"}`, `{"\u0058-api-key":"t"}`} {
		f.Add(seed)
	}
	handler, _ := loggedHandler()
	store := journal.NewMemory()
	handler.Serve([]*ingest.Webhook{{
		Namespace: "crm", Name: "fuzz", Provider: v1alpha1.Simotel, Methods: []string{"POST"}, Settings: &wire.Settings{TokenName: "X-API-Key"}, Journal: store,
		Credentials: &ingest.Credentials{Username: "username", Passwords: []string{"password"}, TokenName: "X-API-Key"},
	}})
	f.Fuzz(func(t *testing.T, body string) {
		var sent map[string]json.RawMessage
		if json.Unmarshal([]byte(body), &sent) != nil || sent == nil || !utf8.ValidString(body) {
			t.Skip("no JSON object")
		}
		request := httptest.NewRequest("POST", "/hooks/crm/fuzz", strings.NewReader(body))
		request.SetBasicAuth("username", "password")
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, request)
		if w.Code != 202 {
			t.Skip("a component API call")
		}
		stored, err := store.Get(uint64(store.State().Received))
		require.NoError(t, err)
		maps.DeleteFunc(sent, func(name string, _ json.RawMessage) bool {
			return strings.EqualFold(strings.TrimSpace(name), "X-API-Key")
		})
		var got map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(stored.Request.Body, &got), "%s", stored.Request.Body)
		require.Equal(t, sent, got)
	})
}
