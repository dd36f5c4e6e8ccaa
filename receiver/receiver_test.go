package receiver_test

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
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/api/statusz"
	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver"
	"github.com/pbxhook/pbxhook/receiver/config"
	"github.com/pbxhook/pbxhook/receiver/deliver"
	"github.com/pbxhook/pbxhook/receiver/tracing"
	"github.com/pbxhook/pbxhook/test/loopback"
	"github.com/pbxhook/pbxhook/test/output"
)

const patience = time.Minute

// target remembers which paths were posted to, and with which Authorization.
type target struct {
	*httptest.Server
	mu  sync.Mutex
	got []string
}

func newTarget(t *testing.T) *target {
	t.Helper()
	s := &target{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.got = append(s.got, strings.TrimSpace(r.URL.Path+" "+r.Header.Get("Authorization")))
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *target) has(t *testing.T, want string, times int) {
	t.Helper()
	require.Eventually(t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		n := 0
		for _, one := range s.got {
			if one == want {
				n++
			}
		}
		return n == times
	}, patience, 10*time.Millisecond, "%q should have come %d times", want, times)
}

// running is a receiver with its files.
type running struct {
	t             testing.TB
	file, data    string
	hooks, status string
	hooksTLS      string
	drain         bool
	linger        time.Duration
	admin         bool
	adminAddress  string
	tracer        *tracing.Tracer
	log           *output.Text
	cancel        context.CancelFunc
	done          chan error
}

func start(t testing.TB, manifest string) *running {
	t.Helper()
	r := &running{t: t, file: filepath.Join(t.TempDir(), "manifest.yaml"), data: t.TempDir(), log: &output.Text{}}
	r.write(manifest)
	r.run()
	return r
}

func (r *running) write(manifest string) {
	r.t.Helper()
	require.NoError(r.t, os.WriteFile(r.file, []byte(manifest), 0o600))
}

func (r *running) run() {
	r.t.Helper()
	r.status, r.hooksTLS = loopback.Free(r.t), loopback.Free(r.t)
	if r.admin {
		r.adminAddress = loopback.Free(r.t)
	}
	serving := make(chan string, 1)
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel, r.done = cancel, make(chan error, 1)
	options := receiver.Options{
		Listen: "127.0.0.1:0", Admin: r.adminAddress, Tracer: r.tracer, ListenTLS: r.hooksTLS, DrainFirst: r.drain, Metrics: r.status, DataDir: r.data, Watch: []string{r.file}, Networks: deliver.Networks{Loopback: true},
		Load:    func() (*config.Manifests, error) { return config.Load([]string{r.file}, nil) },
		Serving: func(address, _ string, _ []*v1alpha1.PBXWebhook) { serving <- address },
		Grace:   10 * time.Second, Linger: r.linger, LockWait: time.Second,
		Log: slog.New(slog.NewJSONHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	go func(done chan error) { done <- receiver.New(options).Run(ctx) }(r.done)
	r.t.Cleanup(r.stop)
	select {
	case r.hooks = <-serving:
	case err := <-r.done:
		require.NoError(r.t, err)
	}
}

func (r *running) stop() {
	if r.cancel != nil {
		r.cancel()
		require.NoError(r.t, <-r.done)
		r.cancel = nil
	}
}

func (r *running) send(password string) int {
	r.t.Helper()
	code, _ := r.answer(password)
	return code
}

// answer is what a request gets; last is that it is the last one on its connection.
func (r *running) answer(password string) (code int, last bool) {
	r.t.Helper()
	request, err := http.NewRequest(http.MethodPost, "http://"+r.hooks+"/hooks/crm/callcenter/Cdr", strings.NewReader(`{"unique_id":"1.2"}`))
	require.NoError(r.t, err)
	request.SetBasicAuth("pbx", password)
	response, err := http.DefaultClient.Do(request)
	require.NoError(r.t, err)
	_ = response.Body.Close()
	return response.StatusCode, response.Close
}

// post sends a body as a G4 Simotel would, with the first password.
func (r *running) post(body string) {
	r.t.Helper()
	require.True(r.t, r.tryPost(body), "it is accepted")
}

// tryPost is post, and reports whether the event was accepted.
func (r *running) tryPost(body string) bool {
	r.t.Helper()
	request, err := http.NewRequest(http.MethodPost, "http://"+r.hooks+"/hooks/crm/callcenter", strings.NewReader(body))
	require.NoError(r.t, err)
	request.SetBasicAuth("pbx", "first")
	response, err := http.DefaultClient.Do(request)
	require.NoError(r.t, err)
	_ = response.Body.Close()
	return response.StatusCode == http.StatusAccepted
}

func (r *running) report() statusz.Report {
	r.t.Helper()
	response, err := http.Get("http://" + r.status + "/statusz")
	require.NoError(r.t, err)
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(response.Body)
	require.NoError(r.t, err)
	var report statusz.Report
	require.NoError(r.t, json.Unmarshal(data, &report))
	return report
}

func (r *running) eventually(what string, check func() bool) {
	r.t.Helper()
	require.Eventually(r.t, check, patience, 10*time.Millisecond, what)
}

func manifest(password, targets string) string {
	secret := ""
	if password != "" {
		secret = fmt.Sprintf("---\napiVersion: v1\nkind: Secret\nmetadata: {name: pbx, namespace: crm}\nstringData: {username: pbx, password: %s, key: bearer-key}\n", password)
	}
	return "apiVersion: pbxhook.io/v1alpha1\nkind: PBXWebhook\nmetadata: {name: callcenter, namespace: crm}\n" +
		"spec:\n  provider: Simotel\n  credentials: {secretRef: {name: pbx}}\n  targets: [" + targets + "]\n" + secret
}

func at(name, url string) string {
	return fmt.Sprintf(`{name: %s, url: %q, retry: {initialDelay: 10ms}}`, name, url)
}

func TestConfigurationIsReloaded(t *testing.T) {
	s := newTarget(t)
	r := start(t, manifest("first", at("a", s.URL+"/a")))
	require.Equal(t, 202, r.send("first"))
	s.has(t, "/a", 1)
	before := r.report().ConfigHash

	r.write(manifest("second", at("a", s.URL+"/a")+", "+at("b", s.URL+"/b")))
	r.eventually("the new configuration is in force", func() bool { return r.report().ConfigHash != before })
	require.Equal(t, 401, r.send("first"))
	require.Equal(t, 202, r.send("second"))
	s.has(t, "/a", 2)
	s.has(t, "/b", 1) // a new target gets what comes after it was named

	good := r.report().ConfigHash
	r.write("no: {")
	r.eventually("the broken one is refused", func() bool { return r.report().RefusedReason != "" })
	require.Equal(t, good, r.report().ConfigHash)
	require.NotEmpty(t, r.report().RefusedHash)
	require.Equal(t, 202, r.send("second"), "the last good one stays in force")

	r.write(manifest("second", at("b", s.URL+"/moved")))
	r.eventually("a good one ends the refusal", func() bool { report := r.report(); return report.RefusedReason == "" && report.ConfigHash != good })
	require.Equal(t, 202, r.send("second"))
	s.has(t, "/moved", 1)
	s.has(t, "/a", 3)
	targets := r.report().Webhooks[0].Targets
	require.Len(t, targets, 2)
	require.Equal(t, "a", targets[1].Name)
	require.Contains(t, targets[1].LastError, "removed: it goes on where it was if it comes back before")
}

// TestDisabledDrains: what is kept goes out, and nothing new comes in.
func TestDisabledDrains(t *testing.T) {
	s := newTarget(t)
	r := &running{t: t, file: filepath.Join(t.TempDir(), "manifest.yaml"), data: t.TempDir(), log: &output.Text{}, drain: true}
	refusing := "http://" + net.JoinHostPort("127.0.0.1", "1")
	r.write(manifest("first", at("a", refusing)))
	r.run()
	require.Equal(t, 202, r.send("first"))
	disabled := func(url string) string {
		return strings.Replace(manifest("first", at("a", url)), "spec:\n", "spec:\n  enabled: false\n", 1)
	}
	r.write(disabled(refusing))
	taken := 1
	r.eventually("nothing new is taken", func() bool {
		code := r.send("first")
		if code == 202 {
			taken++
		}
		return code == 503
	})
	require.EqualValues(t, taken, r.report().Webhooks[0].Events.Pending)
	require.Contains(t, r.report().Webhooks[0].Events.LastRejectedReason, "503: this webhook is disabled")
	require.NotNil(t, r.report().Webhooks[0].Targets[0].OldestPendingTime)
	r.write(disabled(s.URL + "/a"))
	s.has(t, "/a", taken)
	r.eventually("then it holds nothing", func() bool { return r.report().Webhooks[0].Events.Pending == 0 })
	require.Nil(t, r.report().Webhooks[0].Targets[0].OldestPendingTime)
}

func TestWithoutCredentialsNobodyIsLetIn(t *testing.T) {
	s := newTarget(t)
	r := start(t, manifest("", at("a", s.URL+"/a")))
	require.Equal(t, 503, r.send("any"))
	r.write(manifest("now", at("a", s.URL+"/a")))
	r.eventually("credentials come", func() bool { return r.send("now") == 202 })
}

// TestOneTargetsTroubleIsItsOwn: a target without its Secret holds its events, others go on.
func TestOneTargetsTroubleIsItsOwn(t *testing.T) {
	s := newTarget(t)
	needy := fmt.Sprintf(`{name: b, url: %q, auth: {bearer: {secretKeyRef: {name: other, key: key}}}}`, s.URL+"/b")
	r := start(t, manifest("p", at("a", s.URL+"/a")+", "+needy))
	require.Equal(t, 202, r.send("p"))
	s.has(t, "/a", 1)
	r.eventually("the trouble is said", func() bool {
		b := r.report().Webhooks[0].Targets[1]
		return !b.Healthy && b.Pending == 1 && strings.Contains(b.LastError, "Secret other does not exist")
	})
	r.write(manifest("p", at("a", s.URL+"/a")+", "+strings.Replace(needy, "other", "pbx", 1)))
	s.has(t, "/b Bearer bearer-key", 1)
}

// TestARemovedTargetHoldsUpNothing: its attempt under way may take its time.
func TestARemovedTargetHoldsUpNothing(t *testing.T) {
	s := newTarget(t)
	began, ended := make(chan struct{}), make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(began)
		<-ended
	}))
	defer slow.Close()
	defer close(ended)
	r := start(t, manifest("p", at("slow", slow.URL)))
	require.Equal(t, 202, r.send("p"))
	<-began
	r.write(manifest("p", at("a", s.URL+"/a")))
	r.eventually("the change is in force", func() bool {
		targets := r.report().Webhooks[0].Targets
		return len(targets) == 2 && targets[0].Name == "a" // and the removed one
	})
	require.Equal(t, 202, r.send("p"))
	s.has(t, "/a", 1)
}

func TestARestartResumes(t *testing.T) {
	s := newTarget(t)
	r := start(t, manifest("p", at("a", "http://127.0.0.1:1/")))
	require.Equal(t, 202, r.send("p"))
	require.Equal(t, 401, r.send("q"))
	r.stop()
	r.write(manifest("p", at("a", s.URL+"/a")))
	r.run()
	s.has(t, "/a", 1)
	events := r.report().Webhooks[0].Events
	require.EqualValues(t, 1, events.Received)
	require.EqualValues(t, 1, events.Rejected)
}

// TestNobodyIsCutOffAtTheEnd: who sends on while the receiver ends is answered, and told not to come again on that
// connection: none that is in use is closed from this side just as a request comes.
func TestNobodyIsCutOffAtTheEnd(t *testing.T) {
	r := &running{t: t, file: filepath.Join(t.TempDir(), "manifest.yaml"), data: t.TempDir(), log: &output.Text{}, linger: 2 * time.Second}
	r.write(manifest("p", at("a", "http://127.0.0.1:1/")))
	r.run()
	require.Equal(t, 202, r.send("p"))
	r.cancel()
	r.eventually("a sender is told", func() bool {
		code, last := r.answer("p")
		require.Equal(t, http.StatusAccepted, code)
		return last
	})
}

// TestEventsByName: which of the provider's events came, and which that the webhook expects never did.
func TestEventsByName(t *testing.T) {
	r := start(t, strings.Replace(manifest("first", at("a", "http://127.0.0.1:1/")), "spec:", "spec:\n  events: [Cdr, NewState]", 1))
	r.post(`{"event_name":"cdr","cuid":"1.1"}`)
	r.post(`{"event_name":"Dance","cuid":"1.1"}`)
	r.post(`{"event_name":`) // unparsed
	byName := r.report().Webhooks[0].Events.ByName
	require.Len(t, byName, 3)
	for i, want := range []v1alpha1.EventCount{{Name: "Cdr", Count: 1}, {Name: "Dance", Count: 1}, {Name: "NewState"}} {
		require.Equal(t, want.Name, byName[i].Name)
		require.Equal(t, want.Count, byName[i].Count)
		require.Equal(t, want.Count == 0, byName[i].LastReceivedTime == nil)
	}
	metrics := r.metrics(false)
	for _, want := range []string{`event="Cdr",webhook="crm/callcenter"} 1`, `event="NewState",webhook="crm/callcenter"} 0`, `event="Survey",webhook="crm/callcenter"} 0`, `event="other",webhook="crm/callcenter"} 1`, `event="unparsed",webhook="crm/callcenter"} 1`} {
		require.Contains(t, metrics, "pbxhook_events_by_name_total{"+want)
	}
	require.NotContains(t, metrics, `event="Dance"`)
}

func TestReadyAndMetrics(t *testing.T) {
	r := start(t, manifest("p", at("a", "http://127.0.0.1:1/")))
	require.Equal(t, 202, r.send("p"))
	for path, want := range map[string]string{"/healthz": "", "/readyz": "", "/metrics": `pbxhook_events_received_total{webhook="crm/callcenter"} 1`} {
		response, err := http.Get("http://" + r.status + path)
		require.NoError(t, err)
		data, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		_ = response.Body.Close()
		require.Equal(t, 200, response.StatusCode)
		require.Contains(t, string(data), want)
	}
}

func TestASecondReceiverWaitsForTheJournal(t *testing.T) {
	r := start(t, manifest("p", at("a", "http://127.0.0.1:1/")))
	options := receiver.Options{
		Listen: "127.0.0.1:0", DataDir: r.data, LockWait: 100 * time.Millisecond, Log: slog.New(slog.DiscardHandler),
		Load: func() (*config.Manifests, error) { return config.Load([]string{r.file}, nil) },
	}
	require.ErrorContains(t, receiver.New(options).Run(t.Context()), "another process has had it open")
}

func TestWhatCannotBeServedIsRefusedAtTheStart(t *testing.T) {
	for text, want := range map[string]string{
		manifest("p", at("a", "http://a")) + "---\nkind: PBXWebhook\napiVersion: pbxhook.io/v9\n":                              "expected apiVersion",
		strings.Replace(manifest("p", at("a", "http://a")), "provider: Simotel", "provider: Simotel\n  timeZone: No/Where", 1): "IANA time zone",
		manifest("p", at("a", "http://a")) + "---\n" + manifest("p", at("a", "http://a")):                                      "stands there twice",
	} {
		file := filepath.Join(t.TempDir(), "m.yaml")
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		options := receiver.Options{
			Listen: "127.0.0.1:0", DataDir: t.TempDir(), Log: slog.New(slog.DiscardHandler),
			Load: func() (*config.Manifests, error) { return config.Load([]string{file}, nil) },
		}
		require.ErrorContains(t, receiver.New(options).Run(t.Context()), want)
	}
}

// TestExpressions: what holds goes out; what cannot be told goes out and is counted; an expression that
// does not compile is that target's trouble alone, and the last good one stays in force.
func TestExpressions(t *testing.T) {
	s := newTarget(t)
	with := func(name, expression string) string {
		return fmt.Sprintf(`{name: %s, url: %q, retry: {initialDelay: 10ms}, expression: %q}`, name, s.URL+"/"+name, expression)
	}
	r := start(t, manifest("first", with("queue", `event.call.queue == "902"`)+", "+with("typo", `event.payload.nothing == "x"`)+", "+with("bad", `event.call.que == "902"`)))
	r.post(`{"event_name":"CdrQueue","unique_id":"1.2","queue":"902"}`)
	r.post(`{"event_name":"CdrQueue","unique_id":"1.3","queue":"903"}`)
	s.has(t, "/queue", 1)
	s.has(t, "/typo", 2)
	targets := func() map[string]v1alpha1.TargetStatus {
		named := map[string]v1alpha1.TargetStatus{}
		for _, target := range r.report().Webhooks[0].Targets {
			named[target.Name] = target
		}
		return named
	}
	r.eventually("both are counted", func() bool { return targets()["typo"].ExpressionErrors == 2 && targets()["typo"].Pending == 0 })
	require.True(t, targets()["typo"].Healthy)
	require.Equal(t, int64(2), targets()["bad"].Pending, "its events wait")
	require.Contains(t, targets()["bad"].LastError, "expression: undefined field 'que'")
	s.has(t, "/bad", 0)

	r.write(manifest("first", with("queue", `event.call.queue = "903"`)+", "+with("bad", `event.call.queue == "903"`)))
	s.has(t, "/bad", 1)
	r.eventually("the last good one is named", func() bool {
		return strings.Contains(targets()["queue"].LastError, "equality is ==") && strings.Contains(targets()["queue"].LastError, "the last good one stays in force")
	})
	require.False(t, targets()["queue"].Healthy)
	r.post(`{"event_name":"CdrQueue","unique_id":"1.4","queue":"902"}`)
	r.post(`{"event_name":"CdrQueue","unique_id":"1.5","queue":"903"}`)
	r.eventually("all done", func() bool { return targets()["queue"].Pending == 0 && targets()["bad"].Pending == 0 })
	s.has(t, "/queue", 2)
	s.has(t, "/bad", 2)

	r.write(manifest("first", with("queue", `event.call.queue == "903"`)))
	r.eventually("mended", func() bool { return targets()["queue"].Healthy })
}

// TestAnExpressionThatCannotTellIsCountedOnce, however often the event is tried.
func TestAnExpressionThatCannotTellIsCountedOnce(t *testing.T) {
	var tries atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if tries.Add(1) < 4 {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer s.Close()
	r := start(t, manifest("first", fmt.Sprintf(`{name: a, url: %q, retry: {initialDelay: 1ms}, expression: event.payload.nothing > 1}`, s.URL)))
	r.post(`{"event_name":"Cdr","unique_id":"1.2"}`)
	r.eventually("delivered", func() bool { return r.report().Webhooks[0].Targets[0].Delivered == 1 })
	require.Equal(t, int64(1), r.report().Webhooks[0].Targets[0].ExpressionErrors)
	require.Equal(t, int32(4), tries.Load())
}

// TestTemplates: what a target's template makes goes out; one that does not compile is that target's
// trouble alone, and the last good one stays in force.
func TestTemplates(t *testing.T) {
	var mu sync.Mutex
	var got []string
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		got = append(got, r.Method+" "+r.URL.String()+" "+string(body))
		if err != nil {
			t.Error(err)
		}
	}))
	defer s.Close()
	with := func(template string) string {
		return manifest("first", fmt.Sprintf(`{name: a, url: %q, format: Template, method: PUT, template: %q}`, s.URL+"/a", template))
	}
	status := func(r *running) v1alpha1.TargetStatus { return r.report().Webhooks[0].Targets[0] }
	r := start(t, with(`{"call": event.call.i}`))
	r.post(`{"event_name":"Cdr","unique_id":"1.2"}`)
	r.eventually("said", func() bool { return strings.Contains(status(r).LastError, "template: undefined field 'i'") })
	r.write(with(`{"call": event.call.id}`))
	r.eventually("mended", func() bool { return status(r).Delivered == 1 })
	r.write(with(`event.`))
	r.eventually("said again", func() bool { return strings.Contains(status(r).LastError, "the last good one stays in force") })
	r.post(`{"event_name":"Cdr","unique_id":"1.3"}`)
	r.eventually("delivered all the same", func() bool { return status(r).Delivered == 2 })
	r.write(with(`{"call": event.payload.nothing}`))
	r.eventually("in force", func() bool { return status(r).Healthy })
	r.post(`{"event_name":"Cdr","unique_id":"1.4"}`)
	r.eventually("a dead letter", func() bool { return status(r).DeadLettered == 1 })
	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, []string{`PUT /a {"call":"1.2"}`, `PUT /a {"call":"1.3"}`}, got)
}

// TestFilterExpression is the same for the webhook's own expression.
func TestFilterExpression(t *testing.T) {
	s := newTarget(t)
	with := func(expression string) string {
		return strings.Replace(manifest("first", at("a", s.URL+"/a")), "  targets:", fmt.Sprintf("  filter: {expression: %q}\n  targets:", expression), 1)
	}
	r := start(t, with(`event.nothing`))
	r.post(`{"event_name":"CdrQueue","unique_id":"1.2","queue":"902"}`)
	r.post(`{"event_name":"CdrQueue","unique_id":"1.3","queue":"903"}`)
	status := func() v1alpha1.TargetStatus { return r.report().Webhooks[0].Targets[0] }
	r.eventually("said", func() bool {
		return strings.Contains(status().LastError, "filter.expression: undefined field 'nothing'")
	})
	s.has(t, "/a", 0)
	r.write(with(`event.call.queue == "902"`))
	s.has(t, "/a", 1)
	r.eventually("mended", func() bool { return status().Healthy && status().Pending == 0 })
	r.write(with(`event.nothing`))
	r.eventually("said again", func() bool { return strings.Contains(status().LastError, "the last good one stays in force") })
	r.post(`{"event_name":"CdrQueue","unique_id":"1.4","queue":"903"}`)
	r.post(`{"event_name":"CdrQueue","unique_id":"1.5","queue":"902"}`)
	r.eventually("all done", func() bool { return status().Pending == 0 && r.report().Webhooks[0].Events.Received == 4 })
	s.has(t, "/a", 2)
}

// TestAnotherVersionIsDecodedAndCounted, also after a restart.
func TestAnotherVersionIsDecodedAndCounted(t *testing.T) {
	s := newTarget(t)
	r := start(t, strings.Replace(manifest("first", at("a", s.URL+"/a")), "provider: Simotel", "provider: Simotel\n  version: Rest4", 1))
	require.Equal(t, http.StatusAccepted, r.send("first")) // Rest4
	require.Zero(t, r.report().Webhooks[0].Events.OtherVersion)
	r.post(`{"event_name":"Cdr","unique_id":"1.2"}`)
	s.has(t, "/a", 2)
	check := func() {
		events := r.report().Webhooks[0].Events
		require.Equal(t, int64(1), events.OtherVersion)
		require.Equal(t, "G4", events.LastOtherVersion)
	}
	check()
	r.stop()
	r.run()
	check()
}

// TestNothingOfAnEventIsLogged: what an event holds reaches targets, and neither logs, metrics nor the
// status, also when things go wrong.
func TestNothingOfAnEventIsLogged(t *testing.T) {
	const number, token = "+989331112233", "recording-token-7"
	var got strings.Builder
	var mu sync.Mutex
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		mu.Lock()
		defer mu.Unlock()
		got.Write(body)
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write(body) // some targets show what they got
		if err != nil {
			t.Error(err)
		}
	}))
	defer refusing.Close()
	typo := fmt.Sprintf(`{name: typo, url: %q, expression: 'int(event.call.from.number + event.call.recording) > 3'}`, refusing.URL)
	r := start(t, manifest("first", at("refuses", refusing.URL)+", "+at("down", "http://127.0.0.1:1/")+", "+typo))
	r.post(`{"event_name":"Cdr","unique_id":"1.2","src":"` + number + `","record":"https://pbx.example.com/r?token=` + token + `"}`)
	r.post(`{"number": ` + number + `, "record": "` + token) // cannot be decoded
	require.Equal(t, http.StatusUnauthorized, r.send("wrong "+token))
	r.eventually("given up", func() bool {
		targets := r.report().Webhooks[0].Targets
		return targets[1].DeadLettered == 1 && targets[2].DeadLettered == 1 && targets[2].ExpressionErrors == 1
	})
	response, err := http.Get("http://" + r.status + "/metrics")
	require.NoError(t, err)
	metrics, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	status, err := json.Marshal(r.report())
	require.NoError(t, err)
	mu.Lock()
	require.Contains(t, got.String(), token, "targets get it")
	mu.Unlock()
	require.Contains(t, r.log.String(), "dead letter")
	for what, text := range map[string]string{"log": r.log.String(), "metrics": string(metrics), "status": string(status)} {
		require.NotContains(t, text, number, what)
		require.NotContains(t, text, token, what)
	}
}

// TestEventsThatWaitAreDecodedUnderTheNewSettings: what an event became when it arrived is remembered, and not
// used once the webhook is told otherwise.
func TestEventsThatWaitAreDecodedUnderTheNewSettings(t *testing.T) {
	bodies := make(chan string, 1)
	target := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		bodies <- string(body)
	}))
	defer target.Close()
	r := start(t, manifest("first", at("crm", "http://"+loopback.Free(t)))) // nobody listens there
	r.post(`{"event_name":"Cdr","unique_id":"1.1","starttime":"2026-11-22 08:00:00"}`)
	r.write(strings.Replace(manifest("first", at("crm", target.URL)), "spec:\n", "spec:\n  timeZone: Asia/Tehran\n", 1))
	select {
	case body := <-bodies:
		require.Contains(t, body, `"startTime":"2026-11-22T04:30:00Z"`)
	case <-time.After(patience):
		t.Fatal("the event did not come")
	}
}

// TestWhatIsNoRequestIsShown: garbage is counted, logged, and on the console's page; and each status code that a request
// can be answered with has its series from the start.
func TestWhatIsNoRequestIsShown(t *testing.T) {
	r := &running{t: t, file: filepath.Join(t.TempDir(), "manifest.yaml"), data: t.TempDir(), log: &output.Text{}, admin: true}
	r.write(manifest("p", at("a", "http://127.0.0.1:1/")))
	r.run()
	get := func(address, path string) string {
		response, err := http.Get("http://" + address + path)
		require.NoError(t, err)
		data, err := io.ReadAll(response.Body)
		require.NoError(t, errors.Join(err, response.Body.Close()))
		require.Equal(t, http.StatusOK, response.StatusCode)
		return string(data)
	}
	metrics := get(r.status, "/metrics")
	for _, code := range []int{200, 202, 400, 401, 405, 413, 415, 422, 503, 508} {
		require.Contains(t, metrics, fmt.Sprintf(`pbxhook_requests_total{code="%d",webhook="crm/callcenter"} 0`, code))
	}
	for _, code := range []int{400, 404, 417, 431, 501, 503, 505} {
		require.Contains(t, metrics, fmt.Sprintf(`pbxhook_requests_total{code="%d",webhook=""} 0`, code))
	}
	require.Contains(t, metrics, `pbxhook_connections_rejected_total{reason="handshake"} 0`)
	for range 3 {
		conn, err := net.Dial("tcp", r.hooks)
		require.NoError(t, err)
		_, err = io.WriteString(conn, "hush\r\n\r\n")
		require.NoError(t, err)
		text, err := io.ReadAll(conn)
		require.NoError(t, errors.Join(err, conn.Close()))
		require.Contains(t, string(text), "400 Bad Request")
	}
	metrics = get(r.status, "/metrics")
	require.Contains(t, metrics, `pbxhook_requests_total{code="400",webhook=""} 3`)
	require.Contains(t, metrics, `pbxhook_connections_rejected_total{reason="malformed"} 3`)
	require.Contains(t, get(r.adminAddress, "/rejected"), "400 Bad Request")
	require.Equal(t, 1, strings.Count(r.log.String(), "rejected before a request was read: malformed"), "one line a minute")
	require.NotContains(t, r.log.String()+get(r.adminAddress, "/rejected"), "hush")
}
