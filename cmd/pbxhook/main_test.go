package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/cmd/pbxhook/check"
	"github.com/pbxhook/pbxhook/receiver/expression"
	"github.com/pbxhook/pbxhook/receiver/journal"
	"github.com/pbxhook/pbxhook/test/loopback"
	"github.com/pbxhook/pbxhook/test/testenv"
)

// TestMain lets this binary be pbxhook itself, for tests that need a process to kill.
func TestMain(m *testing.M) {
	if os.Getenv("BE_PBXHOOK") != "" {
		main()
		return
	}
	probed = "http://127.0.0.1:9" // where nobody listens
	os.Exit(m.Run())
}

const patience = time.Minute

func run(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := root()
	cmd.SetArgs(args)
	cmd.SetIn(strings.NewReader(stdin))
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestDecode(t *testing.T) {
	for name, tc := range map[string]struct {
		args             []string
		body, kind, call string
	}{
		"Simotel by query": {[]string{"simotel", "--version", "Rest4", "--method", "GET", "--path", "/NewState", "--query", "exten=991&state=Idle&cuid=1.2"}, "", "io.pbxhook.extension.state", "1.2"},
		"VoIPstudio":       {[]string{"VoIPstudio", "--content-type", "application/json"}, `{"event_name":"call.missed","call_id":7}`, "io.pbxhook.call.missed", "7"},
		"Acefone":          {[]string{"acefone", "--path", "/call-hangup", "--time-zone", "Asia/Kolkata", "--region", "IN"}, `call_id=1.2&end_stamp=2026-07-11+21:13:52`, "io.pbxhook.call.ended", "1.2"},
		"own keys":         {[]string{"acefone", "--path", "/call-hangup", "--field", "call.id=my_key", "--field", "call.queue=desk"}, `{"my_key":"7","desk":"Sales"}`, "io.pbxhook.call.ended", "7"},
		"not decodable":    {[]string{"simotel"}, `{"a`, "io.pbxhook.unparsed", ""},
		"nothing":          {[]string{"acefone"}, ``, "io.pbxhook.unparsed", ""},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := run(t, tc.body, append([]string{"decode"}, tc.args...)...)
			require.NoError(t, err)
			require.Equal(t, 1, strings.Count(strings.TrimSpace(out), "\n")+1, "one JSON object")
			var ce struct{ Type, Subject string }
			require.NoError(t, json.Unmarshal([]byte(out), &ce))
			require.Equal(t, tc.kind, ce.Type)
			require.Equal(t, tc.call, ce.Subject)
		})
	}
	for _, args := range [][]string{{"decode", "twilio"}, {"decode", "simotel", "--time-zone", "Mars/Base"}, {"decode"}} {
		_, err := run(t, "", args...)
		require.Error(t, err)
	}
}

// TestDecodeIsWhatTheReceiverDoes: by hand, each sample becomes its golden event.
func TestDecodeIsWhatTheReceiverDoes(t *testing.T) {
	folder := filepath.Join(testenv.Root(), "receiver", "provider", "testdata")
	text, err := os.ReadFile(filepath.Join(folder, "samples.jsonl"))
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		var s struct{ Name, Provider, Version, Method, Path, Query, ContentType, Body string }
		require.NoError(t, json.Unmarshal([]byte(line), &s))
		t.Run(s.Name, func(t *testing.T) {
			args := []string{"decode", s.Provider, "--version", s.Version, "--method", s.Method, "--path", s.Path, "--query", s.Query, "--content-type", s.ContentType}
			if s.Provider == "Acefone" {
				args = append(args, "--time-zone", "Asia/Kolkata", "--region", "IN")
			}
			out, err := run(t, s.Body, args...)
			require.NoError(t, err)
			var got struct{ Data map[string]any }
			require.NoError(t, json.Unmarshal([]byte(out), &got))
			var want map[string]any
			golden, err := os.ReadFile(filepath.Join(folder, "golden", s.Name+".json"))
			require.NoError(t, err)
			require.NoError(t, json.Unmarshal(golden, &want))
			delete(want, "receivedAt")
			delete(got.Data, "receivedAt")
			require.Equal(t, want, got.Data)
		})
	}
}

// TestDocumentedManifestsAreGood: what the documentation shows is what the API server and the receiver
// take.
func TestDocumentedManifestsAreGood(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(testenv.Root(), "README.md"))
	require.NoError(t, err)
	blocks := regexp.MustCompile("(?s)```yaml\n(apiVersion.*?)```").FindAllSubmatch(readme, -1)
	require.Len(t, blocks, 3, "one a provider")
	for _, block := range blocks {
		file := filepath.Join(t.TempDir(), "w.yaml")
		require.NoError(t, os.WriteFile(file, block[1], 0o600))
		out, err := run(t, "", "check", "-f", file)
		require.NoError(t, err, out)
	}
	fields, err := os.ReadFile(filepath.Join(testenv.Root(), "docs", "fields.md"))
	require.NoError(t, err)
	expressions := regexp.MustCompile(`expression: '([^']+)'`).FindAllSubmatch(fields, -1)
	require.NotEmpty(t, expressions)
	for _, match := range expressions {
		_, err := expression.Compile(string(match[1]))
		require.NoError(t, err, "%s", match[1])
	}
}

func TestCheck(t *testing.T) {
	const webhook = "apiVersion: pbxhook.io/v1alpha1\nkind: PBXWebhook\nmetadata: {name: a}\nspec:\n  provider: Simotel\n  credentials: {secretRef: {name: pbx}}\n  targets: [{name: crm, url: \"http://crm/\"%s}]\n"
	const bad = "not all manifests are good: 1 error"
	for name, tc := range map[string]struct{ text, want, fails string }{
		"good":            {fmt.Sprintf(webhook, "") + "---\napiVersion: v1\nkind: Secret\nmetadata: {name: pbx}\nstringData: {token: t}\n", "default/a: ok", ""},
		"no Secret here":  {fmt.Sprintf(webhook, ""), ":6:17: warning: default/a: spec.credentials.secretRef: Secret pbx is not in these files", ""},
		"incomplete":      {fmt.Sprintf(webhook, "") + "---\napiVersion: v1\nkind: Secret\nmetadata: {name: pbx}\nstringData: {username: t}\n", "has a username and no password", bad},
		"against a rule":  {fmt.Sprintf(webhook, ", template: x"), "template goes with format Template", bad},
		"unknown field":   {fmt.Sprintf(webhook, ", tiemout: 1s"), ":7:45: error: default/a: spec.targets[0].tiemout: unknown field; did you mean timeout?", bad},
		"wrong time zone": {fmt.Sprintf(webhook, "") + "  timeZone: Asia/Nowhere\n", "expected an IANA time zone", bad},
		"nats":            {fmt.Sprintf(webhook, "") + "  journal: {nats: {url: \"nats://nats:4222\", credentialsSecretRef: {name: nats}}}\n", "spec.journal.nats.credentialsSecretRef: Secret nats is not in these files", ""},
		"template":        {fmt.Sprintf(webhook, ", format: Template, template: \"{'phone': event.call.from.number}\""), "default/a: ok", ""},
		"bad template":    {fmt.Sprintf(webhook, ", format: Template, template: \"{'phone': event.call.phone}\""), "spec.targets[crm].template: undefined field 'phone'", bad},
		"expression":      {fmt.Sprintf(webhook, ", expression: event.call.talkSeconds > 10"), "default/a: ok", ""},
		"bad expression":  {fmt.Sprintf(webhook, ", expression: event.call.talkSecs > 10"), "spec.targets[crm].expression: undefined field 'talkSecs'; did you mean talkSeconds? (line 1, column 11)", bad},
		"bad filter":      {fmt.Sprintf(webhook, "") + "  filter: {expression: event.call.queue}\n", "spec.filter.expression: expected an expression that is true or false", bad},
		"no webhook":      {"apiVersion: v1\nkind: Secret\nmetadata: {name: pbx}\n", "", "expected a PBXWebhook"},
		"not YAML":        {"{", "expected a value", bad},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "w.yaml")
			require.NoError(t, os.WriteFile(file, []byte(tc.text), 0o600))
			out, err := run(t, "", "check", "-f", file)
			if tc.fails == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, tc.fails)
			}
			require.Contains(t, out, tc.want)
			fromStdin, stdinErr := run(t, tc.text, "check", "-f", "-")
			require.Equal(t, err == nil, stdinErr == nil)
			require.Equal(t, strings.ReplaceAll(out, file, "standard input"), fromStdin)
		})
	}
	out, err := run(t, fmt.Sprintf(webhook, ", tiemout: 1s"), "check", "-f", "-", "-o", "json")
	require.Error(t, err)
	var findings []check.Finding
	require.NoError(t, json.Unmarshal([]byte(out), &findings))
	require.Equal(t, check.Finding{File: "standard input", Line: 7, Column: 45, Object: "default/a", Field: "spec.targets[0].tiemout", Severity: check.Error, Message: "unknown field; did you mean timeout?"}, findings[len(findings)-1])
	_, err = run(t, "", "check", "-f", "-", "-o", "xml")
	require.ErrorContains(t, err, `-o: expected json, got "xml"`)

	samples, err := run(t, "", "check", "-f", filepath.Join(testenv.Root(), "config", "samples", "simotel.yaml"),
		"-f", filepath.Join(testenv.Root(), "config", "samples", "voipstudio.yaml"), "-f", filepath.Join(testenv.Root(), "config", "samples", "acefone.yaml"))
	require.NoError(t, err, samples)
}

func TestDemoOnce(t *testing.T) {
	out, err := run(t, "", "demo", "--once")
	require.NoError(t, err, out)
	for _, provider := range []string{"Simotel", "VoIPstudio", "Acefone"} {
		require.Contains(t, out, provider)
	}
	require.Equal(t, 3, strings.Count(out, "yes"), out)
}

// process is a `pbxhook run` of its own.
type process struct {
	*exec.Cmd
	address, admin string
}

func start(t *testing.T, file, data string) *process {
	t.Helper()
	p := &process{address: loopback.Free(t), admin: loopback.Free(t)}
	p.Cmd = exec.Command(os.Args[0], "run", "-f", file, "--data-dir", data, "--listen", p.address, "--admin", p.admin, "--metrics", "")
	p.Env = append(os.Environ(), "BE_PBXHOOK=1")
	p.Stderr = os.Stderr
	require.NoError(t, p.Start())
	t.Cleanup(func() { _ = p.Process.Kill(); _ = p.Wait() }) // when it was not ended before
	require.Eventually(t, func() bool {
		response, err := http.Get("http://" + p.address + "/")
		if err == nil {
			_ = response.Body.Close()
		}
		return err == nil
	}, patience, 20*time.Millisecond)
	return p
}

// TestNothingAnsweredIsLost: kill -9 right after 1,000 events were answered 202 with the target down.
func TestNothingAnsweredIsLost(t *testing.T) {
	var mu sync.Mutex
	got := map[string][]int{} // numbers of a call's events, in order of arrival
	var count int
	target := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var ce struct {
			Subject string
			Data    struct{ Payload struct{ N int } }
		}
		if body, err := io.ReadAll(r.Body); err == nil && json.Unmarshal(body, &ce) == nil {
			mu.Lock()
			defer mu.Unlock()
			got[ce.Subject] = append(got[ce.Subject], ce.Data.Payload.N)
			count++
		}
	}))
	defer target.Close()
	address := target.Listener.Addr().String()
	require.NoError(t, target.Listener.Close()) // down

	folder := t.TempDir()
	file := filepath.Join(folder, "w.yaml")
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, `
apiVersion: pbxhook.io/v1alpha1
kind: PBXWebhook
metadata: {name: callcenter}
spec:
  provider: Simotel
  credentials: {anonymous: {}}
  targets: [{name: crm, url: "http://%s/", retry: {initialDelay: 50ms}}]
`, address), 0o600))

	p := start(t, file, filepath.Join(folder, "data"))
	var wg sync.WaitGroup
	for call := range 20 { // each call's events one after the other, calls side by side
		wg.Go(func() {
			for n := range 50 {
				body := fmt.Sprintf(`{"event_name":"Cdr","unique_id":"%d.1","n":%d}`, call, n)
				response, err := http.Post("http://"+p.address+"/hooks/default/callcenter", "application/json", strings.NewReader(body))
				if err != nil || response.StatusCode != http.StatusAccepted {
					t.Errorf("event %d of call %d: %v %v", n, call, response, err)
					return
				}
				_ = response.Body.Close()
			}
		})
	}
	wg.Wait()
	require.NoError(t, p.Process.Signal(syscall.SIGKILL))
	_ = p.Wait()

	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", address) // up
	require.NoError(t, err)
	target.Listener = listener
	target.Start()
	again := start(t, file, filepath.Join(folder, "data"))
	require.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return count >= 1000
	}, patience, 20*time.Millisecond)
	require.NoError(t, again.Process.Signal(syscall.SIGTERM))
	require.NoError(t, again.Wait(), "SIGTERM ends it well")
	mu.Lock()
	defer mu.Unlock()
	require.Len(t, got, 20)
	for call, numbers := range got {
		require.Len(t, numbers, 50, call)
		for i, n := range numbers {
			require.Equal(t, i, n, "call %s in order", call)
		}
	}
}

// TestSimulate plays every call of every provider, with quirks, into a receiver of its own.
func TestSimulate(t *testing.T) {
	folder := t.TempDir()
	var manifests strings.Builder
	for _, p := range []string{"Simotel", "VoIPstudio", "Acefone"} {
		fmt.Fprintf(&manifests, "---\napiVersion: pbxhook.io/v1alpha1\nkind: PBXWebhook\nmetadata: {name: %s}\nspec:\n  provider: %s\n  timeZone: Asia/Kolkata\n  credentials: {anonymous: {}}\n  targets: [{name: crm, url: \"http://127.0.0.1:9/\"}]\n", strings.ToLower(p), p)
	}
	file := filepath.Join(folder, "w.yaml")
	require.NoError(t, os.WriteFile(file, []byte(manifests.String()), 0o600))
	r := start(t, file, filepath.Join(folder, "data"))
	to := "http://" + r.address + "/hooks/default/"
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"Simotel":          {[]string{"simotel", "--to", to + "simotel", "--calls", "14"}, "14 calls, 67 events"},
		"Simotel G2":       {[]string{"simotel", "--to", to + "simotel", "--version", "G2", "--calls", "1", "--scenario", "queued", "--quirk", "cuid,post-query", "--rate", "1000"}, "1 calls, 8 events"},
		"Simotel GET":      {[]string{"simotel", "--to", to + "simotel/", "--method", "get", "--calls", "14", "--quirk", "out-of-order"}, "14 calls, 67 events"},
		"VoIPstudio twice": {[]string{"voipstudio", "--to", to + "voipstudio", "--calls", "1", "--scenario", "held", "--quirk", "duplicates"}, "1 calls, 8 events"},
		"Acefone":          {[]string{"acefone", "--to", to + "acefone", "--form", "--calls", "8", "--time-zone", "Asia/Kolkata", "--quirk", "dialer", "--quirk", "unresolved-variables"}, "8 calls, 28 events"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := run(t, "", append([]string{"simulate"}, tc.args...)...)
			require.NoError(t, err, out)
			require.Contains(t, out, tc.want)
			require.Contains(t, out, "202 Accepted")
			require.Equal(t, 2, strings.Count(out, "\n"), "one kind of answer: %s", out)
		})
	}
	out, err := run(t, "", "simulate", "acefone", "--list")
	require.NoError(t, err)
	require.Contains(t, out, "unresolved-variables")
	for want, args := range map[string][]string{
		"404 Not Found":               {"simotel", "--to", "http://" + r.address + "/hooks/default/nobody", "--calls", "1"},
		"refused":                     {"simotel", "--to", "http://127.0.0.1:1/hooks/a/b", "--calls", "1"},
		"--calls: expected 1 to":      {"simotel", "--to", to, "--calls", "0"},
		"--rate: expected":            {"simotel", "--to", to, "--rate", "-1"},
		"expected one of the quirks":  {"simotel", "--to", to, "--quirk", "dance"},
		"expected one of the calls":   {"simotel", "--to", to, "--scenario", "dance"},
		"at least one of the flags":   {"simotel"},
		"the webhook's http or https": {"simotel", "--to", "::"},
	} {
		out, err := run(t, "", append([]string{"simulate"}, args...)...)
		require.Error(t, err)
		require.Contains(t, out+err.Error(), want)
	}
}

// TestDeadLettersAndReplay: what was given up is listed, shown, dropped, and replayed when the target is
// mended, in order.
func TestDeadLettersAndReplay(t *testing.T) {
	var mu sync.Mutex
	var got []string // type and replay of what was taken
	refuses := true
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var ce struct{ Type string }
		body, err := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		if refuses || err != nil || json.Unmarshal(body, &ce) != nil {
			w.WriteHeader(http.StatusTeapot)
			_, _ = io.WriteString(w, "short and stout")
			return
		}
		got = append(got, strings.TrimSpace(strings.TrimPrefix(ce.Type, "io.pbxhook.")+" "+map[bool]string{true: "replayed"}[r.Header.Get("Pbxhook-Replay") != ""]))
	}))
	defer target.Close()
	folder := t.TempDir()
	file := filepath.Join(folder, "w.yaml")
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, "apiVersion: pbxhook.io/v1alpha1\nkind: PBXWebhook\nmetadata: {name: pbx}\nspec:\n  provider: Simotel\n  credentials: {anonymous: {}}\n  targets: [{name: crm, url: %q}]\n", target.URL), 0o600))
	p := start(t, file, filepath.Join(folder, "data"))
	pbxhook := func(args ...string) (string, error) { return run(t, "", append(args, "--admin", "http://"+p.admin)...) }
	list := func(args ...string) []map[string]any {
		out, err := pbxhook(append([]string{"dead-letters", "-o", "json"}, args...)...)
		require.NoError(t, err)
		var letters []map[string]any
		require.NoError(t, json.Unmarshal([]byte(out), &letters))
		return letters
	}
	require.Empty(t, list())
	_, err := run(t, "", "simulate", "simotel", "--to", "http://"+p.address+"/hooks/default/pbx", "--calls", "2", "--scenario", "answered")
	require.NoError(t, err)
	require.Eventually(t, func() bool { return len(list()) == 10 }, patience, 20*time.Millisecond)
	letter := list("pbx", "--limit", "1")[0]
	require.Equal(t, "crm", letter["target"])
	require.EqualValues(t, 418, letter["status"])
	require.EqualValues(t, 1, letter["attempts"])
	require.Equal(t, "418 from the target", letter["reason"])
	call, id := letter["callId"].(string), letter["id"].(string)
	require.Len(t, list("--call", call), 5)
	out, err := pbxhook("dead-letters", "show", id, "--target", "crm")
	require.NoError(t, err)
	require.Contains(t, out, "short and stout")
	require.Contains(t, out, "io.pbxhook.call.started")
	out, err = pbxhook("dead-letters")
	require.NoError(t, err)
	require.Contains(t, out, "418 from the target")

	mu.Lock()
	refuses = false
	mu.Unlock()
	out, err = pbxhook("dead-letters", "drop", id)
	require.NoError(t, err)
	require.Contains(t, out, "1 dropped")
	out, err = pbxhook("replay", "--dead-letters", "--call", call, "--target", "crm", "--yes", "--wait")
	require.NoError(t, err)
	require.Contains(t, out, "4 events to crm")
	require.Contains(t, out, "finished: 4 done, 0 given up, 0 not sent")
	taken := func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string{}, got...)
	}
	require.Eventually(t, func() bool { return len(taken()) == 4 }, patience, 20*time.Millisecond)
	require.Equal(t, []string{"call.ringing replayed", "extension.state replayed", "extension.state replayed", "call.ended replayed"}, taken())
	require.Eventually(t, func() bool { return len(list()) == 5 }, patience, 20*time.Millisecond, "they are dead letters no more")
	_, err = pbxhook("replay", "--from", "1h", "--call", call, "--yes")
	require.NoError(t, err)
	require.Eventually(t, func() bool { return len(taken()) == 9 }, patience, 20*time.Millisecond, "all five of the call, the dropped one too")
	_, err = pbxhook("replay", "--event", id)
	require.NoError(t, err)
	out, err = pbxhook("dead-letters", "replay", "--all", "--yes")
	require.NoError(t, err)
	require.Contains(t, out, "5 events to crm")
	require.Eventually(t, func() bool { return len(taken()) == 15 && len(list()) == 0 }, patience, 20*time.Millisecond)

	for want, args := range map[string][]string{
		"no event to replay":                {"replay", "--call", "nobody"},
		"expected a call, an event":         {"replay"},
		"expected a time such as":           {"replay", "--from", "yesterday"},
		"expected from before to":           {"replay", "--from", "1h", "--to", "2h"},
		"this receiver serves":              {"replay", "--event", "x", "nobody"},
		"no dead letter x":                  {"dead-letters", "show", "x", "--target", "crm"},
		"expected --target":                 {"dead-letters", "show", "x"},
		"not found: no dead letter x":       {"dead-letters", "drop", "x"},
		"expected the id of an event":       {"dead-letters", "drop"},
		"has no target nobody":              {"dead-letters", "--target", "nobody"},
		"expected json or yaml":             {"dead-letters", "-o", "xml"},
		"expected a limit":                  {"dead-letters", "--limit", "0"},
		"webhook default/pbx has no target": {"replay", "--event", "x", "--target", "nobody", "pbx"},
	} {
		_, err := pbxhook(args...)
		require.ErrorContains(t, err, want)
	}
	_, err = run(t, "", "replay", "--event", "x", "--admin", "ftp://a")
	require.ErrorContains(t, err, "such as http://127.0.0.1:9091")
	_, err = run(t, "", "dead-letters")
	require.ErrorContains(t, err, "expected the webhook's name")
	_, err = run(t, "", "dead-letters", "--admin", "http://"+p.address)
	require.ErrorContains(t, err, "no webhook has this path")
}

// TestJournal: a journal whose structure is damaged is not built upon, and one with a damaged record is, which is said; a
// copy of what is readable can be made, and what is missing is said.
func TestJournal(t *testing.T) {
	folder := t.TempDir()
	manifest := filepath.Join(folder, "w.yaml")
	require.NoError(t, os.WriteFile(manifest, []byte("apiVersion: pbxhook.io/v1alpha1\nkind: PBXWebhook\nmetadata: {name: pbx}\nspec:\n  provider: Simotel\n  credentials: {anonymous: {}}\n  targets: [{name: crm, url: \"http://127.0.0.1:9/\"}]\n"), 0o600))
	data := filepath.Join(folder, "data")
	p := start(t, manifest, data)
	_, err := run(t, "", "simulate", "simotel", "--to", "http://"+p.address+"/hooks/default/pbx", "--calls", "3", "--scenario", "answered")
	require.NoError(t, err)
	require.NoError(t, p.Process.Signal(syscall.SIGTERM))
	require.NoError(t, p.Wait())
	file := filepath.Join(data, "default", "pbx", "journal.db")
	out, err := run(t, "", "journal", "check", file)
	require.NoError(t, err)
	require.Contains(t, out, "15 events, 1 targets, 0 dead letters\nthe journal is whole")

	text, err := os.ReadFile(file)
	require.NoError(t, err)
	recording := regexp.MustCompile(`\.3\.mp3`) // of one event, also in pages that are free by now
	require.True(t, recording.Match(text))
	text = recording.ReplaceAll(text, []byte(".3.mp4"))
	require.NoError(t, os.WriteFile(file, text, 0o600))
	out, err = run(t, "", "journal", "check", file)
	require.ErrorContains(t, err, "a receiver starts with it")
	require.Contains(t, out, "its checksum does not match")
	out, err = run(t, "", "journal", "repair", file, "--to", filepath.Join(folder, "copy.db"))
	require.ErrorContains(t, err, "not everything could be read")
	require.Regexp(t, `missing: events \d+ to \d+`, out)

	p = start(t, manifest, data)
	require.NoError(t, p.Process.Kill())
	_ = p.Wait() // killed
	log, err := os.ReadFile(journal.LogFile(file))
	require.NoError(t, err)
	require.NoError(t, os.Remove(journal.LogFile(file)))
	out, err = run(t, "", "journal", "check", file)
	require.ErrorContains(t, err, "pbxhook journal repair")
	require.Contains(t, out, "journal.wal")
	_, err = run(t, "", "run", "-f", manifest, "--data-dir", data, "--listen", loopback.Free(t), "--admin", "", "--metrics", "")
	require.ErrorContains(t, err, "is damaged")
	require.ErrorContains(t, err, "journal.wal")
	require.NoError(t, os.WriteFile(journal.LogFile(file), log, 0o600))
	out, err = run(t, "", "journal", "repair", file)
	if err != nil { // the damaged event was not given up yet when the receiver was killed
		require.ErrorContains(t, err, "not everything could be read")
		require.Regexp(t, `missing: events \d+ to \d+`, out)
	}
	require.Contains(t, out, "remove "+journal.LogFile(file))
	require.NoError(t, os.Rename(file+".repaired", file))
	require.NoError(t, os.Remove(journal.LogFile(file)))
	out, err = run(t, "", "journal", "check", file)
	require.NoError(t, err, out)
	require.Contains(t, out, "14 events")
	start(t, manifest, data)
}

// TestOnlyThisMachineMayAsk: a web page in somebody's browser reaches loopback addresses too.
func TestOnlyThisMachineMayAsk(t *testing.T) {
	folder := t.TempDir()
	file := filepath.Join(folder, "w.yaml")
	require.NoError(t, os.WriteFile(file, []byte("apiVersion: pbxhook.io/v1alpha1\nkind: PBXWebhook\nmetadata: {name: pbx}\nspec:\n  provider: Simotel\n  credentials: {anonymous: {}}\n  targets: [{name: crm, url: \"http://127.0.0.1:9/\"}]\n"), 0o600))
	p := start(t, file, filepath.Join(folder, "data"))
	for name, tc := range map[string]struct {
		method, host, contentType string
		want                      int
	}{
		"this machine":              {"POST", p.admin, "application/json", http.StatusOK},
		"by name":                   {"POST", "localhost:9091", "application/json", http.StatusOK},
		"a name that leads here":    {"POST", "evil.example:9091", "application/json", http.StatusForbidden},
		"a form":                    {"POST", p.admin, "application/x-www-form-urlencoded", http.StatusUnsupportedMediaType},
		"text, sent without asking": {"POST", p.admin, "text/plain", http.StatusUnsupportedMediaType},
		"a method that is not":      {"DELETE", p.admin, "application/json", http.StatusMethodNotAllowed},
	} {
		t.Run(name, func(t *testing.T) {
			request, err := http.NewRequest(tc.method, "http://"+p.admin+"/api/v1/webhooks/default/pbx/replay", strings.NewReader(`{"event":"x"}`))
			require.NoError(t, err)
			request.Host = tc.host
			request.Header.Set("Content-Type", tc.contentType)
			response, err := http.DefaultClient.Do(request)
			require.NoError(t, err)
			require.NoError(t, response.Body.Close())
			require.Equal(t, tc.want, response.StatusCode)
		})
	}
}

func TestSend(t *testing.T) {
	var got *http.Request
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		if _, password, _ := r.BasicAuth(); password != "right" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer server.Close()
	to := strings.Replace(server.URL, "http://", "http://pbx:right@", 1)
	_, err := run(t, "", "send", "simotel", "newstate", "--to", to+"/hooks/a/b", "--version", "Rest3", "--method", "get", "--set", "exten=5", "--call", "1.2")
	require.NoError(t, err)
	require.Equal(t, "/hooks/a/b/newstate", got.URL.Path)
	require.Equal(t, "5", got.URL.Query().Get("exten"))
	require.Equal(t, "1.2", got.URL.Query().Get("unique_id"))
	_, err = run(t, "", "send", "simotel", "NewState", "--to", server.URL)
	require.ErrorContains(t, err, "401")
	_, err = run(t, "", "send", "simotel", "Dance", "--to", server.URL)
	require.ErrorContains(t, err, "expected one of")
	_, err = run(t, "", "send", "simotel", "Cdr", "--to", server.URL, "--set", "nonsense")
	require.ErrorContains(t, err, "name=value")
}
