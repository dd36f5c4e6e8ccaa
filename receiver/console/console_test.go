package console_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver/admin"
	"github.com/pbxhook/pbxhook/receiver/console"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/test/golden"
)

var at = time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)

// service is a receiver that has one call.
type service struct {
	admin.Service
	replayed admin.ReplayRequest
	dropped  admin.DropRequest
	canceled string
	trouble  error
}

func (s *service) Webhooks() []admin.Webhook {
	return []admin.Webhook{{Namespace: "crm", Name: "callcenter"}}
}

func (s *service) Status() []admin.Status {
	return []admin.Status{{
		Webhook: "crm/callcenter", Provider: "Simotel", Journal: admin.JournalStatus{Bytes: 90, MaxBytes: 100, DeadLetters: 2},
		Events:  v1alpha1.EventsStatus{URLChecks: 2, LastURLCheckTime: &metav1.Time{Time: at}, ByName: []v1alpha1.EventCount{{Name: "Cdr", Count: 3, LastReceivedTime: &metav1.Time{Time: at}}, {Name: "NewState"}}},
		Targets: []admin.TargetStatus{{TargetStatus: v1alpha1.TargetStatus{Name: "crm", LastError: "503 from the target", Pending: 7}, BreakerOpen: true}},
	}}
}

func (s *service) Calls(_ context.Context, q admin.CallQuery) (admin.CallPage, error) {
	if q.Type == event.Unparsed {
		call := s.call()
		call.ID, call.Event, call.Reason = "", "e9", "expected JSON or a form, got <b>"
		return admin.CallPage{Calls: []admin.Call{call}}, s.trouble
	}
	return admin.CallPage{Looked: 3, Before: at, Calls: []admin.Call{s.call()}}, s.trouble
}

func (s *service) call() admin.Call {
	return admin.Call{
		Webhook: "crm/callcenter", ID: "1610782193.391", Provider: "Simotel", First: at, Last: at.Add(time.Second), Direction: "inbound",
		From: "+442035141598", To: "902", State: "ended", Types: []event.Type{event.CallRinging, event.CallEnded},
		Outcomes: map[string]admin.Outcome{"crm": admin.Delivered, "lab": admin.DeadLettered},
	}
}

func (s *service) Call(_ context.Context, w admin.Webhook, call, id string) (admin.CallDetail, error) {
	if call != "1610782193.391" {
		return admin.CallDetail{}, admin.ErrNotFound
	}
	return admin.CallDetail{Call: s.call(), Targets: []string{"crm", "lab", "new"}, Events: []admin.EventDetail{{
		ID: "e1", Type: event.CallRinging, Name: "NewState", ReceivedAt: at,
		Request: admin.Request{Method: "POST", Path: "/NewState", Query: "src=02035141598", Header: http.Header{"User-Agent": {"Simotel"}}, Body: `{"participant":"02035141598"}`},
		Event:   json.RawMessage(`{"id":"e1","data":{"call":{"from":{"number":"+442035141598"}}}}`),
		Deliveries: []admin.Delivery{
			{Target: "crm", Outcome: admin.Delivered, Attempts: []admin.Attempt{
				{Target: "crm", Time: at.Add(20 * time.Millisecond), DurationMs: 1.25, Result: "retried", Status: 503, Reason: "503 from the target", Next: at.Add(time.Second)},
				{Target: "crm", Time: at.Add(time.Second), DurationMs: 31, Result: "delivered", Status: 204},
			}},
			{Target: "lab", Outcome: admin.NotSent, Why: "the target does not want it (eventTypes, expression)", Attempts: []admin.Attempt{}},
			{Target: "new", Outcome: admin.Pending, Attempts: []admin.Attempt{}},
		},
	}, {
		ID: "e2", Type: event.CallEnded, Name: "Cdr", ReceivedAt: at.Add(900 * time.Millisecond), Reason: "a reason",
		Request: admin.Request{Method: "GET", Query: "event_name=Cdr"},
		Event:   json.RawMessage(`{"id":"e2","data":{"call":{"recording":"https://rec.example.com/x?token=s3cret"}}}`),
		Deliveries: []admin.Delivery{{Target: "lab", Outcome: admin.DeadLettered, Attempts: []admin.Attempt{
			{Target: "lab", Time: at.Add(950 * time.Millisecond), Result: "deadLettered", Reason: "connection refused", Reply: "<b>02035141598</b>", Replay: "r1"},
		}}},
	}}}, nil
}

func (s *service) DeadLetters(w admin.Webhook, sel admin.Selection, limit int) ([]admin.DeadLetter, error) {
	return []admin.DeadLetter{{ID: "e2", CallID: "1610782193.391", Target: "lab", Attempts: 1, Reason: "422 from the target", Time: at, Webhook: w.String()}}, nil
}

func (s *service) Rejected() []admin.Rejected {
	return []admin.Rejected{
		{Time: at, Webhook: "crm/callcenter", Code: 401, Reason: "expected the webhook's username and password", Hint: "the username is right, the password is wrong", Method: "POST", Sender: "10.0.0.7:4711"},
		{Time: at, Path: "/hooks/crm/other", Code: 404, Reason: "no webhook has this path", Method: "GET", Sender: "10.0.0.7:4712"},
		{Time: at, Reason: "the sender does not trust this webhook's certificate", Sender: "10.0.0.7:4713"},
		{Time: at, Code: 400, Reason: "400 Bad Request: missing required Host header", Sender: "10.0.0.7:4714"},
	}
}

func (s *service) Replay(_ context.Context, _ admin.Webhook, r admin.ReplayRequest) (admin.Replay, error) {
	if !r.DryRun {
		s.replayed = r
	}
	return admin.Replay{ID: "r2", Targets: map[string]int64{"lab": 3}, GivenUpTo: at, DryRun: r.DryRun}, s.trouble
}

func (s *service) DropDeadLetters(_ admin.Webhook, r admin.DropRequest) (admin.Drop, error) {
	answer := admin.Drop{Targets: map[string]int64{"lab": 1}, GivenUpTo: at, DryRun: r.DryRun}
	if !r.DryRun {
		s.dropped, answer.Dropped = r, 1
	}
	return answer, nil
}

func (s *service) Replays(_ context.Context, w admin.Webhook) ([]admin.ReplayState, error) {
	state := func(id string, phase admin.ReplayPhase, ended time.Time, p admin.ReplayProgress) admin.ReplayState {
		return admin.ReplayState{
			ID: id, Webhook: w.String(), What: "dead letters of call <b>", By: "someone", Phase: phase, Begun: at, Ended: ended, ReplayProgress: p,
			Targets: []admin.ReplayTarget{{Target: "lab", ReplayProgress: p}},
		}
	}
	paced := state("r1", admin.ReplayRunning, time.Time{}, admin.ReplayProgress{Total: 9, Done: 3, Failed: 1, Remaining: 5})
	paced.Rate = 2.5
	return []admin.ReplayState{
		paced,
		state("r2", admin.ReplayFinished, at.Add(time.Minute), admin.ReplayProgress{Total: 9, Done: 9}),
		state("r3", admin.ReplayCanceled, at.Add(time.Minute), admin.ReplayProgress{Total: 9, Done: 4, Remaining: 5}),
	}, s.trouble
}

func (s *service) CancelReplay(_ context.Context, _ admin.Webhook, id string) (admin.ReplayState, error) {
	s.canceled = id
	return admin.ReplayState{ID: id, Phase: admin.ReplayCanceled, ReplayProgress: admin.ReplayProgress{Remaining: 5}}, nil
}

func (s *service) ResetCursors(context.Context, admin.Webhook, admin.ResetRequest) (admin.Reset, error) {
	return admin.Reset{}, s.trouble
}

func (s *service) Pulse() uint64 { return 1 }

func do(s *service, r *http.Request) *httptest.ResponseRecorder {
	mux := http.NewServeMux()
	console.Register(mux, s)
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	return w
}

func get(path string) *http.Request {
	return httptest.NewRequest(http.MethodGet, "http://127.0.0.1:9091"+path, nil)
}

func post(path string, form url.Values, header ...string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1:9091"+path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return r
}

// TestPages: each page as it is, with and without numbers.
func TestPages(t *testing.T) {
	for name, path := range map[string]string{
		"call": "/call?webhook=crm/callcenter&id=1610782193.391", "targets": "/targets", "dead-letters": "/dead-letters?webhook=crm%2Fcallcenter&target=lab", "rejected": "/rejected", "replays": "/replays",
		"error": "/call?webhook=crm/callcenter&id=9",
	} {
		t.Run(name, func(t *testing.T) {
			w := do(&service{}, get(path))
			golden.Equal(t, name+".html", w.Body.Bytes())
			require.NotContains(t, w.Body.String(), "5141598")
			require.NotContains(t, w.Body.String(), "s3cret")
			require.Contains(t, w.Header().Get("Content-Security-Policy"), "default-src 'none'")
			require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
			require.NotRegexp(t, `style=|onclick=|javascript:`, w.Body.String())
		})
	}
	shown := get("/call?webhook=crm/callcenter&id=1610782193.391")
	shown.AddCookie(&http.Cookie{Name: "pbxhook-numbers", Value: "shown"})
	w := do(&service{}, shown)
	require.Contains(t, w.Body.String(), "442035141598")
	require.Contains(t, w.Body.String(), "token=s3cret")
	require.Contains(t, w.Body.String(), "&lt;b&gt;02035141598&lt;/b&gt;")
}

func TestListOfCalls(t *testing.T) {
	w := do(&service{}, get("/?q=391&type=call.ended&outcome=delivered"))
	body := w.Body.String()
	require.Equal(t, http.StatusOK, w.Code)
	require.Contains(t, body, "/call?id=1610782193.391&amp;webhook=crm%2Fcallcenter")
	require.Contains(t, body, "•••598")
	require.NotContains(t, body, "5141598")
	require.Contains(t, body, "ringing → ended")
	require.Contains(t, body, `<option selected>call.ended</option>`)
	require.Contains(t, body, `before=2026-11-22T08%3A00%3A00Z`)
	for _, problem := range []string{"target crm: 503 from the target; 7 events wait", "2 events given up", "the journal is 90 % full"} {
		require.Contains(t, body, problem)
	}
	require.Equal(t, http.StatusBadRequest, do(&service{}, get("/?from=yesterday")).Code)
	require.Equal(t, http.StatusBadRequest, do(&service{}, get("/?limit=0")).Code)
	require.Equal(t, http.StatusInternalServerError, do(&service{trouble: errors.New("disk")}, get("/")).Code)
}

// TestOnlyThePageItselfCanAct: replays and drops want a form of this origin.
func TestOnlyThePageItselfCanAct(t *testing.T) {
	form := url.Values{"webhook": {"crm/callcenter"}, "target": {"lab"}, "event": {"e2"}, "back": {"/dead-letters?webhook=a"}}
	for name, header := range map[string][]string{
		"another site": {"Sec-Fetch-Site", "cross-site"}, "another port": {"Sec-Fetch-Site", "same-site"}, "another origin": {"Origin", "http://127.0.0.1:1"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &service{}
			for _, path := range []string{"/replay", "/drop", "/numbers", "/cancel"} {
				require.Equal(t, http.StatusForbidden, do(s, post(path, form, header...)).Code)
			}
			require.Zero(t, s.replayed)
			require.Zero(t, s.dropped)
			require.Zero(t, s.canceled)
		})
	}
	s := &service{}
	r := post("/replay", form)
	r.Host = "rebound.example.com"
	require.Equal(t, http.StatusForbidden, do(s, r).Code)
	require.Equal(t, http.StatusNotFound, do(s, get("/drop")).Code, "a link cannot act")

	w := do(s, post("/replay", form, "Origin", "http://127.0.0.1:9091", "Sec-Fetch-Site", "same-origin"))
	require.Equal(t, http.StatusSeeOther, w.Code)
	require.Equal(t, "/dead-letters?done=replayed&n=3&webhook=a", w.Header().Get("Location"))
	selection := admin.Selection{Target: "lab", Event: "e2", DeadLetters: true}
	require.Equal(t, admin.ReplayRequest{Selection: selection, By: "console"}, s.replayed)
	form.Set("givenUpTo", "2026-11-22T08:00:00.5Z")
	w = do(s, post("/drop", form))
	selection.GivenUpTo = at.Add(500 * time.Millisecond)
	require.Equal(t, selection, s.dropped.Selection, "no later ones than those that the page counted")
	form.Set("givenUpTo", "yesterday")
	require.Equal(t, http.StatusBadRequest, do(s, post("/replay", form)).Code)
	w2 := do(s, post("/cancel", url.Values{"webhook": {"crm/callcenter"}, "replay": {"r1"}, "back": {"/replays"}}))
	require.Equal(t, "/replays?done=canceled&n=5", w2.Header().Get("Location"))
	require.Equal(t, "r1", s.canceled)
	require.Equal(t, "/dead-letters?done=dropped&n=1&webhook=a", w.Header().Get("Location"))
	require.Contains(t, do(s, get("/targets?done=dropped&n=1")).Body.String(), "1 event dropped")
	require.NotContains(t, do(s, get("/targets?done=<b>&n=1")).Body.String(), "<b>")
}

// TestBackStaysHere: where a form goes back to is a page of the console.
func TestBackStaysHere(t *testing.T) {
	for _, back := range []string{"https://evil.example.com/", "//evil.example.com/", "\\\\evil", "javascript:alert(1)", "evil", "", "/\t/evil", ":"} {
		w := do(&service{}, post("/numbers", url.Values{"back": {back}, "show": {"1"}}))
		to, err := url.Parse(w.Header().Get("Location"))
		require.NoError(t, err)
		require.Empty(t, to.Host, back)
		require.Equal(t, "/", to.Path[:1], back)
		require.NotContains(t, to.Path, "//", back)
		require.Contains(t, w.Header().Get("Set-Cookie"), "HttpOnly; SameSite=Strict")
	}
}
