package receiver_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/admin"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/test/output"
)

// watched is a receiver with two targets, one of which refuses what it is told to, and a client of its admin API.
type watched struct {
	*running
	*admin.Client
	refuses atomic.Value // a text; events that contain it are refused
}

func watch(t *testing.T) *watched {
	t.Helper()
	w := &watched{}
	w.refuses.Store("nothing")
	target := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		data := make([]byte, 64<<10)
		n, _ := r.Body.Read(data)
		if r.URL.Path == "/billing" && strings.Contains(string(data[:n]), w.refuses.Load().(string)) && r.Header.Get("Pbxhook-Replay") == "" {
			http.Error(out, `<script>alert("no")</script>`, http.StatusUnprocessableEntity)
			return
		}
		_, _ = out.Write([]byte("thanks"))
	}))
	t.Cleanup(target.Close)
	w.running = &running{t: t, file: t.TempDir() + "/manifest.yaml", data: t.TempDir(), log: &output.Text{}, admin: true}
	w.write(manifest("first", at("crm", target.URL+"/crm?key=s3cret")+", "+strings.TrimSuffix(at("billing", target.URL+"/billing"), "}")+", eventTypes: [call.ended, call.missed]}"))
	w.run()
	client, err := admin.NewClient("http://" + w.adminAddress)
	require.NoError(t, err)
	w.Client = client
	return w
}

// cdr is a call's record of Simotel.
func cdr(call, from, disposition string) string {
	return fmt.Sprintf(`{"event_name":"Cdr","unique_id":%q,"cuid":"c%s","src":%q,"dst":"902","type":"incoming","disposition":%q,"billsec":"11","duration":"19"}`, call, call, from, disposition)
}

func newState(call, from string) string {
	return fmt.Sprintf(`{"event_name":"NewState","unique_id":%q,"exten":"902","state":"Ringing","participant":%q}`, call, from)
}

func (w *watched) settled() {
	w.t.Helper()
	w.eventually("all is delivered and logged", func() bool {
		all, err := w.Status(context.Background())
		return err == nil && len(all) == 1 && !slices.ContainsFunc(all[0].Targets, func(t admin.TargetStatus) bool { return t.Pending > 0 })
	})
}

func (w *watched) search(q admin.CallQuery) (ids []string) {
	w.t.Helper()
	page, err := w.Calls(context.Background(), q)
	require.NoError(w.t, err)
	for _, call := range page.Calls {
		ids = append(ids, call.ID)
	}
	return ids
}

func TestCallsAreFound(t *testing.T) {
	w := watch(t)
	w.refuses.Store(`"subject":"2.1"`)
	begin := time.Now()
	w.post(newState("1.1", "02035141598"))
	w.post(newState("2.1", "09331234567"))
	w.post(cdr("1.1", "0203 514-1598", "ANSWERED"))
	w.post(cdr("2.1", "09331234567", "NO ANSWER"))
	w.post(`{"event_name":"Ping"}`)
	w.settled()
	middle := time.Now()
	w.post(cdr("3.1", "+442035141598", "ANSWERED"))
	w.settled()

	for _, tt := range []struct {
		name string
		q    admin.CallQuery
		want []string
	}{
		{"all", admin.CallQuery{}, []string{"3.1", "", "2.1", "1.1"}},
		{"limit", admin.CallQuery{Limit: 1}, []string{"3.1"}},
		{"webhook", admin.CallQuery{Webhook: "crm/callcenter", Limit: 1}, []string{"3.1"}},
		{"another webhook", admin.CallQuery{Webhook: "crm/other"}, nil},
		{"call id", admin.CallQuery{Text: "2.1"}, []string{"2.1"}},
		{"part of it", admin.CallQuery{Text: ".1", Type: event.CallMissed}, []string{"2.1"}},
		{"national number", admin.CallQuery{Text: "02035141598"}, []string{"3.1", "1.1"}},
		{"international number", admin.CallQuery{Text: "+44 20 3514 1598"}, []string{"3.1", "1.1"}},
		{"extension", admin.CallQuery{Text: "902"}, []string{"3.1", "2.1", "1.1"}},
		{"no extension, though the digits are there", admin.CallQuery{Text: "0203"}, nil},
		{"another number", admin.CallQuery{Text: "02035141599"}, nil},
		{"type", admin.CallQuery{Type: event.CallRinging}, []string{"2.1", "1.1"}},
		{"dead letters", admin.CallQuery{Outcome: admin.DeadLettered}, []string{"2.1"}},
		{"delivered to billing", admin.CallQuery{Outcome: admin.Delivered, Target: "billing"}, []string{"3.1", "1.1"}},
		{"sent to billing", admin.CallQuery{Target: "billing"}, []string{"3.1", "2.1", "1.1"}},
		{"not sent to billing", admin.CallQuery{Outcome: admin.NotSent, Target: "billing"}, []string{"", "2.1", "1.1"}},
		{"pending", admin.CallQuery{Outcome: admin.Pending}, nil},
		{"since", admin.CallQuery{From: middle}, []string{"3.1"}},
		{"until", admin.CallQuery{To: middle}, []string{"", "2.1", "1.1"}},
		{"before all", admin.CallQuery{To: begin}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.t = t
			require.Equal(t, tt.want, w.search(tt.q))
		})
	}
	w.t = t
	_, err := w.Calls(t.Context(), admin.CallQuery{Outcome: "nonsense"})
	require.ErrorContains(t, err, "expected an outcome")

	page, err := w.Calls(t.Context(), admin.CallQuery{Text: "2.1"})
	require.NoError(t, err)
	call := page.Calls[0]
	require.Equal(t, map[string]admin.Outcome{"crm": admin.Delivered, "billing": admin.DeadLettered}, call.Outcomes)
	require.Equal(t, []event.Type{event.CallRinging, event.CallMissed}, call.Types)
	require.Equal(t, "09331234567", call.From)
	require.Equal(t, "missed", call.State)
}

// TestPagesOfCalls: each call is on one page, though their events lie among each other.
func TestPagesOfCalls(t *testing.T) {
	w := watch(t)
	for _, state := range []string{"a", "b"} {
		for n := range 7 {
			w.post(newState(fmt.Sprintf("%d.1", n), state))
		}
	}
	var all []string
	q := admin.CallQuery{Limit: 3}
	for pages := 0; ; pages++ {
		require.Less(t, pages, 4)
		page, err := w.Calls(t.Context(), q)
		require.NoError(t, err)
		for _, call := range page.Calls {
			all = append(all, call.ID)
			require.Len(t, call.Types, 2)
		}
		if page.Before.IsZero() {
			break
		}
		q.Before = page.Before
	}
	require.Equal(t, []string{"6.1", "5.1", "4.1", "3.1", "2.1", "1.1", "0.1"}, all)
}

// TestACallTellsAll: what came, what was made of it, what each target said, and what came of a replay.
func TestACallTellsAll(t *testing.T) {
	w := watch(t)
	w.refuses.Store("call.missed")
	w.post(newState("2.1", "09331234567"))
	w.post(cdr("2.1", "09331234567", "NO ANSWER"))
	w.settled()
	id := admin.Webhook{Namespace: "crm", Name: "callcenter"}
	detail, err := w.Call(t.Context(), id, "2.1", "")
	require.NoError(t, err)
	require.Equal(t, []string{"crm", "billing"}, detail.Targets)
	require.Len(t, detail.Events, 2)
	ringing, missed := detail.Events[0], detail.Events[1]
	require.Equal(t, cdr("2.1", "09331234567", "NO ANSWER"), missed.Request.Body)
	require.Equal(t, "POST", missed.Request.Method)
	require.NotContains(t, fmt.Sprint(missed.Request.Header), "Basic")
	var ce struct{ ID, Type string }
	require.NoError(t, json.Unmarshal(missed.Event, &ce))
	require.Equal(t, missed.ID, ce.ID)
	require.Equal(t, "io.pbxhook.call.missed", ce.Type)

	require.Equal(t, admin.NotSent, ringing.Deliveries[1].Outcome)
	require.Contains(t, ringing.Deliveries[1].Why, "does not want it")
	require.Equal(t, admin.Delivered, missed.Deliveries[0].Outcome)
	require.Equal(t, "thanks", missed.Deliveries[0].Attempts[0].Reply)
	require.Equal(t, admin.DeadLettered, missed.Deliveries[1].Outcome)
	attempt := missed.Deliveries[1].Attempts[0]
	require.Equal(t, 422, attempt.Status)
	require.Equal(t, "422 from the target", attempt.Reason)
	require.Contains(t, attempt.Reply, "<script>")
	require.Positive(t, attempt.DurationMs)

	byEvent, err := w.Call(t.Context(), id, "", missed.ID)
	require.NoError(t, err)
	require.Equal(t, detail.Events[1].Request, byEvent.Events[1].Request)
	_, err = w.Call(t.Context(), id, "9.9", "")
	require.ErrorIs(t, err, admin.ErrNotFound)
	_, err = w.Call(t.Context(), id, "", "")
	require.ErrorContains(t, err, "expected the id")

	w.eventually("it is replayed, once the dead letter is kept", func() bool {
		replay, err := w.Replay(t.Context(), id, admin.ReplayRequest{Selection: admin.Selection{Target: "billing", DeadLetters: true}})
		return err == nil && replay.Targets["billing"] == 1
	})
	var replayed admin.Delivery
	w.eventually("it is delivered", func() bool {
		detail, err := w.Call(t.Context(), id, "2.1", "")
		require.NoError(t, err)
		replayed = detail.Events[1].Deliveries[1]
		return replayed.Outcome == admin.Delivered
	})
	require.Len(t, replayed.Attempts, 2)
	require.NotEmpty(t, replayed.Attempts[1].Replay)
}

// TestStatusAndRejected: how all fares, without what is nobody's business.
func TestStatusAndRejected(t *testing.T) {
	w := watch(t)
	w.refuses.Store(`"subject":"9.1"`)
	require.Equal(t, 401, w.send("wrong"))
	w.post(cdr("9.1", "09331234567", "ANSWERED"))
	w.settled()
	var all []admin.Status
	w.eventually("the dead letter is kept", func() bool {
		var err error
		all, err = w.Status(t.Context())
		return err == nil && all[0].Journal.DeadLetters == 1
	})
	require.Len(t, all, 1)
	require.EqualValues(t, 1, all[0].Events.Received)
	require.EqualValues(t, 1, all[0].Journal.DeadLetters)
	require.Positive(t, all[0].Journal.MaxBytes)
	require.Len(t, all[0].Targets, 2)
	crm := all[0].Targets[slices.IndexFunc(all[0].Targets, func(t admin.TargetStatus) bool { return t.Name == "crm" })]
	require.EqualValues(t, 1, crm.PerMinute)
	require.Regexp(t, `^127\.0\.0\.1:\d+$`, crm.Host)

	response, err := http.Get("http://" + w.adminAddress + "/api/v1/rejected")
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	var rejected []admin.Rejected
	require.NoError(t, json.NewDecoder(response.Body).Decode(&rejected))
	require.Len(t, rejected, 1)
	require.Equal(t, "crm/callcenter", rejected[0].Webhook)
	require.Contains(t, rejected[0].Hint, "the password is wrong")
}

// TestFollow tells events and attempts as they happen, and ends with the receiver.
func TestFollow(t *testing.T) {
	w := watch(t)
	w.post(cdr("0.1", "0", "ANSWERED")) // before, so it is not told
	w.settled()
	updates := make(chan admin.Update, 100)
	ended := make(chan error, 1)
	go func() {
		ended <- w.Follow(context.Background(), func(u admin.Update) error {
			updates <- u
			return nil
		})
	}()
	var event *admin.Line
	var got []string
	for n := 1; event == nil || len(got) < 2; {
		if event == nil { // perhaps it does not follow yet
			w.post(cdr(fmt.Sprint(n, ".1"), "09331234567", "ANSWERED"))
			n++
		}
		select {
		case u := <-updates:
			switch {
			case event == nil && u.Event != nil:
				event = u.Event
			case event != nil && u.Attempt != nil && u.Attempt.Event == event.ID:
				got = append(got, fmt.Sprint(u.Attempt.Target, " ", u.Attempt.Result))
			}
		case <-time.After(patience / 20):
			require.Less(t, n, 20, "nothing more was told: %v", got)
			if event != nil {
				n++
			}
		}
	}
	require.NotEqual(t, "0.1", event.Call, "that was before")
	require.Equal(t, "call.ended 09331234567", fmt.Sprint(event.Type, " ", event.From))
	slices.Sort(got)
	require.Equal(t, []string{"billing delivered", "crm delivered"}, got)
	w.stop()
	require.Error(t, <-ended)
}

// TestOnlyThisMachineIsAnswered: no page of another origin can read or do anything.
func TestOnlyThisMachineIsAnswered(t *testing.T) {
	w := watch(t)
	for _, path := range []string{"/api/v1/status", "/api/v1/calls", "/api/v1/follow", "/api/v1/rejected"} {
		request, err := http.NewRequest(http.MethodGet, "http://"+w.adminAddress+path, nil)
		require.NoError(t, err)
		request.Host = "evil.example.com"
		response, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		_ = response.Body.Close()
		require.Equal(t, http.StatusForbidden, response.StatusCode, path)
	}
	request, err := http.NewRequest(http.MethodPost, "http://"+w.adminAddress+"/api/v1/webhooks/crm/callcenter/replay", strings.NewReader(`{"deadLetters":true}`))
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Origin", "https://evil.example.com")
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	_ = response.Body.Close()
	require.Equal(t, http.StatusForbidden, response.StatusCode)
}
