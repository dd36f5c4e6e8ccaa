package clients_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2/event"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/test/loopback"
	"github.com/pbxhook/pbxhook/test/output"
)

const (
	patience = 2 * time.Minute
	secret   = "whsec_cGJ4aG9vay10ZXN0LXNlY3JldC1vZi0zMi1ieXRlcyE="
)

// formats of targets, by the last segment of their URL's path.
var formats = map[string]string{
	"structured": "CloudEvents", "binary": "CloudEventsBinary", "batch": "CloudEventsBatch", "original": "Original", "template": "Template",
}

// taken is what a receiver understood of one request.
type taken struct {
	Receiver string
	Format   string
	ID       string          // header webhook-id
	Event    *understood     // by an SDK of CloudEvents
	Body     json.RawMessage // by a framework's JSON parser
	Error    string
}

// understood is an event as an SDK gives it.
type understood struct {
	ID, Source, Type, Subject, PBXEvent string
	Time                                time.Time
	Data                                json.RawMessage
}

// results are what all receivers understood, by receiver/format and webhook-id.
type results struct {
	mu     sync.Mutex
	taken  map[string]map[string]taken
	failed []string
}

func (r *results) add(one taken) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if one.Error != "" {
		r.failed = append(r.failed, fmt.Sprintf("%s/%s %q: %s", one.Receiver, one.Format, one.ID, one.Error))
	}
	key := one.Receiver + "/" + one.Format
	if r.taken[key] == nil {
		r.taken[key] = map[string]taken{}
	}
	r.taken[key][one.ID] = one
}

// count returns how many requests came that differ, and what went wrong.
func (r *results) count() (n int, failed []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, byID := range r.taken {
		n += len(byID)
	}
	return n, r.failed
}

// inJavaScript starts the receivers of receivers.cjs, and returns their addresses by name.
func inJavaScript(t *testing.T, all *results) map[string]string {
	t.Helper()
	modules := os.Getenv("PBXHOOK_CLIENTS")
	if modules == "" {
		t.Skip("PBXHOOK_CLIENTS is not set, or there is no npm: run `make test`, or export PBXHOOK_CLIENTS=$(hack/clients)")
	}
	cmd := exec.Command("node", "receivers.cjs")
	cmd.Env = append(os.Environ(), "NODE_PATH="+filepath.Join(modules, "node_modules"), "SIGNING_SECRET="+secret)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 1<<20)
	var first struct{ Ports map[string]int }
	require.True(t, lines.Scan(), "node says where its servers are")
	require.NoError(t, json.Unmarshal(lines.Bytes(), &first))
	var reading sync.WaitGroup
	reading.Go(func() { // until node ends
		for lines.Scan() {
			var one taken
			if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
				one = taken{Receiver: "node", Error: err.Error()}
			}
			all.add(one)
		}
	})
	t.Cleanup(func() {
		_ = stdin.Close() // which tells it to end
		reading.Wait()
		require.NoError(t, cmd.Wait())
	})
	addresses := map[string]string{}
	for name, port := range first.Ports {
		addresses[name] = fmt.Sprintf("http://127.0.0.1:%d", port)
	}
	return addresses
}

// inGo starts a receiver with the SDKs for Go, and returns its address.
func inGo(t *testing.T, all *results) string {
	t.Helper()
	webhook, err := standardwebhooks.NewWebhook(secret)
	require.NoError(t, err)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		one := taken{Receiver: "go", Format: strings.TrimPrefix(r.URL.Path, "/"), ID: r.Header.Get("Webhook-Id")}
		if err := read(webhook, r, &one); err != nil {
			one.Error = err.Error()
			w.WriteHeader(http.StatusUnprocessableEntity)
		}
		all.add(one)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// read verifies a request and reads its event.
func read(webhook *standardwebhooks.Webhook, r *http.Request, one *taken) error {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	if err := webhook.Verify(raw, r.Header); err != nil {
		return err
	}
	r.Body = io.NopCloser(bytes.NewReader(raw))
	var event *cloudevents.Event
	switch one.Format {
	case "structured", "binary":
		event, err = cehttp.NewEventFromHTTPRequest(r)
	case "batch":
		var events []cloudevents.Event
		if events, err = cehttp.NewEventsFromHTTPRequest(r); err == nil && len(events) != 1 {
			err = fmt.Errorf("expected one event, got %d", len(events))
		}
		if err == nil {
			event = &events[0]
		}
	default:
		one.Body = raw
		return nil
	}
	if err != nil {
		return err
	}
	name, _ := event.Extensions()["pbxevent"].(string)
	one.Event = &understood{ID: event.ID(), Source: event.Source(), Type: event.Type(), Subject: event.Subject(), Time: event.Time(), PBXEvent: name, Data: event.Data()}
	return event.Validate()
}

// hostile are texts that a caller may choose, and that must come out of every SDK as they went in.
var hostile = []string{
	"plain", "<b>&amp;</b> 'quoted' \"twice\"", `back\slash \u0041 \n`, "line\r\nSet-Cookie: a=b\r\n\r\n", "tab\tand bell\x07", "nul\x00end", "José Ñandú ü",
	"علی رضایی", "\u202eright to left\u202c", "\u2028\u2029\ufeff", "😀👨‍👩‍👧 𝕏", "%41%0d%0a%", "${jndi:ldap://x}{{7*7}}", strings.Repeat("long ", 2000),
}

// request is the PBX's, with a text wherever a caller or a user of the PBX may choose one.
func request(t *testing.T, n int, text string) []byte {
	t.Helper()
	short := text[:min(len(text), 60)]
	body, err := json.Marshal(map[string]any{
		"id": fmt.Sprintf("%d %s", n, strings.ToValidUTF8(short, "")), "event_time": "2021-04-28 08:46:13", "event_name": "call.hangup", "call_id": fmt.Sprintf("call %d %s", n, short),
		"destination": "in", "src": "447854740947", "src_name": text, "dst": "441183211001", "dst_name": text, "context": text,
	})
	require.NoError(t, err)
	return body
}

// run starts `pbxhook run` with a target for each receiver and format, and returns the webhook's URL.
func run(t *testing.T, receivers map[string]string, formatsOf func(receiver string) []string) string {
	t.Helper()
	var targets strings.Builder
	for receiver, address := range receivers {
		for _, format := range formatsOf(receiver) {
			fmt.Fprintf(&targets, "  - {name: %s-%s, url: %q, format: %s, retry: {maxAttempts: 1}, signing: {secretKeyRef: {name: keys, key: signing}}", receiver, format, address+"/"+format, formats[format])
			if format == "template" {
				targets.WriteString(`, template: '{"name": event.call.from.name, "list": [event.call.id, 1, null]}'`)
			}
			targets.WriteString("}\n")
		}
	}
	folder := t.TempDir()
	manifest := filepath.Join(folder, "webhook.yaml")
	require.NoError(t, os.WriteFile(manifest, []byte("apiVersion: pbxhook.io/v1alpha1\nkind: PBXWebhook\nmetadata: {name: pbx}\nspec:\n  provider: VoIPstudio\n"+
		"  credentials: {anonymous: {}}\n  targets:\n"+targets.String()+"---\napiVersion: v1\nkind: Secret\nmetadata: {name: keys}\nstringData: {signing: "+secret+"}\n"), 0o600))

	program := filepath.Join(folder, "pbxhook")
	out, err := exec.Command("go", "build", "-o", program, "../../cmd/pbxhook").CombinedOutput()
	require.NoError(t, err, "%s", out)
	hooks, log := loopback.Free(t), &output.Text{}
	cmd := exec.Command(program, "run", "-f", manifest, "--data-dir", filepath.Join(folder, "data"), "--listen", hooks, "--admin", "", "--metrics", "")
	cmd.Stdout, cmd.Stderr = log, log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		_ = cmd.Wait()                          // by the signal
		if t.Failed() {
			t.Log(log.String())
		}
	})
	address := "http://" + hooks + "/hooks/default/pbx"
	require.Eventually(t, func() bool {
		response, err := http.Get(address)
		if err == nil {
			_ = response.Body.Close()
		}
		return err == nil && response.StatusCode == http.StatusOK
	}, patience, 20*time.Millisecond, "pbxhook run answers")
	return address
}

// TestOfficialSDKs: what pbxhook sends in every format is verified and understood by the official SDKs, and all of
// them understand the same.
func TestOfficialSDKs(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program")
	}
	all := &results{taken: map[string]map[string]taken{}}
	receivers := inJavaScript(t, all)
	receivers["go"] = inGo(t, all)
	formatsOf := func(receiver string) []string {
		if receiver == "cloudevents" { // which reads no other ones
			return []string{"structured", "binary", "batch"}
		}
		return []string{"structured", "binary", "batch", "original", "template"}
	}
	address := run(t, receivers, formatsOf)
	sent := map[string][]byte{}
	for n, text := range hostile {
		body := request(t, n, text)
		response, err := http.Post(address, "application/json", bytes.NewReader(body))
		require.NoError(t, err)
		var reply struct{ ID string }
		require.NoError(t, json.NewDecoder(response.Body).Decode(&reply))
		require.NoError(t, response.Body.Close())
		require.Equal(t, http.StatusAccepted, response.StatusCode)
		sent[reply.ID] = body
	}
	want := 0
	for receiver := range receivers {
		want += len(hostile) * len(formatsOf(receiver))
	}
	require.Eventually(t, func() bool {
		n, failed := all.count()
		return n == want || len(failed) > 0
	}, patience, 20*time.Millisecond, "every receiver gets every event")
	_, failed := all.count()
	require.Empty(t, failed)

	all.mu.Lock()
	defer all.mu.Unlock()
	for header, reference := range all.taken["go/structured"] {
		event := reference.Event
		id, err := url.PathUnescape(header)
		require.NoError(t, err)
		require.Equal(t, id, event.ID, "webhook-id is the event's id, percent-encoded where a header cannot have it")
		body := sent[event.ID]
		require.NotNil(t, body, "an id that was answered: %q", event.ID)
		require.Equal(t, "io.pbxhook.call.ended", event.Type)
		var data struct{ Payload json.RawMessage }
		require.NoError(t, json.Unmarshal(event.Data, &data))
		require.JSONEq(t, string(body), string(data.Payload), "the PBX's own fields")
		for key, byID := range all.taken {
			same(t, key, byID[header], event, body)
		}
	}
}

// same compares what one receiver understood with the event and with the PBX's own body.
func same(t *testing.T, key string, one taken, event *understood, body []byte) {
	t.Helper()
	what := fmt.Sprintf("%s of %q", key, event.ID)
	if one.Event != nil {
		decoded := *one.Event
		if one.Format == "binary" { // the binding percent-encodes headers; not every SDK decodes them
			for _, text := range []*string{&decoded.ID, &decoded.Subject} {
				if plain, err := url.PathUnescape(*text); err == nil && *text != event.ID && *text != event.Subject {
					*text = plain
				}
			}
		}
		require.JSONEq(t, string(event.Data), string(decoded.Data), what)
		decoded.Data = event.Data
		decoded.Time = decoded.Time.UTC()
		require.Equal(t, *event, decoded, what)
		return
	}
	switch one.Format {
	case "original":
		require.JSONEq(t, string(body), string(one.Body), what)
	case "template":
		var data struct {
			Call struct {
				ID   string
				From struct{ Name string }
			}
		}
		require.NoError(t, json.Unmarshal(event.Data, &data))
		want, err := json.Marshal(map[string]any{"name": data.Call.From.Name, "list": []any{data.Call.ID, 1, nil}})
		require.NoError(t, err)
		require.JSONEq(t, string(want), string(one.Body), what)
	case "binary":
		require.JSONEq(t, string(event.Data), string(one.Body), what)
	default:
		var envelope, list = struct{ Data json.RawMessage }{}, one.Body
		if one.Format == "batch" {
			list = bytes.TrimSuffix(bytes.TrimPrefix(bytes.TrimSpace(list), []byte("[")), []byte("]"))
		}
		require.NoError(t, json.Unmarshal(list, &envelope), what)
		require.JSONEq(t, string(event.Data), string(envelope.Data), what)
	}
}
