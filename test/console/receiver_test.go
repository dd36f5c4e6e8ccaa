package console

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/receiver"
	"github.com/pbxhook/pbxhook/receiver/config"
	"github.com/pbxhook/pbxhook/receiver/deliver"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/journal"
	"github.com/pbxhook/pbxhook/test/loopback"
)

const manifest = `apiVersion: pbxhook.io/v1alpha1
kind: PBXWebhook
metadata: {name: callcenter, namespace: crm}
spec:
  provider: Simotel
  credentials: {secretRef: {name: pbx}}
  targets: [{name: crm, url: %q}]
---
apiVersion: v1
kind: Secret
metadata: {name: pbx, namespace: crm}
stringData: {username: pbx, password: secret}
`

// serve runs a receiver of a webhook crm/callcenter, with its journals in a folder.
func serve(t *testing.T, data, target string) (hooks, console string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "manifest.yaml")
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, manifest, target), 0o600))
	serving, ended := make(chan string, 1), make(chan error, 1)
	admin := loopback.Free(t)
	ctx, stop := context.WithCancel(context.Background())
	options := receiver.Options{
		Listen: "127.0.0.1:0", Admin: admin, DataDir: data, Networks: deliver.Networks{Loopback: true}, Grace: time.Second, LockWait: time.Second,
		Load:    func() (*config.Manifests, error) { return config.Load([]string{file}, nil) },
		Serving: func(address, _ string, _ []*v1alpha1.PBXWebhook) { serving <- address },
		Log:     slog.New(slog.DiscardHandler),
	}
	go func() { ended <- receiver.New(options).Run(ctx) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-ended)
	})
	select {
	case hooks = <-serving:
	case err := <-ended:
		require.NoError(t, err)
	}
	return "http://pbx:secret@" + hooks + "/hooks/crm/callcenter", "http://" + admin + "/"
}

const manyEvents = 100_000

// fill makes a journal with many events, five a call, all delivered.
func fill(t *testing.T, data string) {
	t.Helper()
	j, err := journal.Open(context.Background(), filepath.Join(data, "crm", "callcenter", "journal.db"), journal.Options{})
	require.NoError(t, err)
	_, err = j.OpenCursor("crm")
	require.NoError(t, err)
	begin := time.Now().Add(-24 * time.Hour)
	const writers = 100
	for batch := 0; batch < manyEvents; batch += writers {
		var wg sync.WaitGroup
		for n := batch; n < batch+writers; n++ {
			wg.Go(func() {
				call := fmt.Sprintf("%d.1", n/5)
				_, err := j.Append(context.Background(), journal.Record{
					ID: fmt.Sprintf("event-%d", n), Type: event.CallEnded, Lane: call, Request: event.Request{
						Method: "POST", Path: "/Cdr", Header: http.Header{"Content-Type": {"application/json"}}, ReceivedAt: begin.Add(time.Duration(n) * time.Millisecond),
						Body: fmt.Appendf(nil, `{"event_name":"Cdr","unique_id":%q,"src":"09%09d","dst":"902","disposition":"ANSWERED","note":%q}`, call, n/5, strings.Repeat("x", 450)),
					},
				}, nil)
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		attempts := make([]journal.Attempt, 0, writers)
		for n := batch; n < batch+writers; n++ {
			attempts = append(attempts, journal.Attempt{Seq: uint64(n + 1), Time: begin, Result: journal.Delivered, Status: 204})
		}
		require.NoError(t, j.Save("crm", journal.Progress{Cursor: journal.Cursor{Floor: uint64(batch + writers)}, Attempts: attempts}))
	}
	require.NoError(t, j.Close())
}

// TestManyEvents: with many events in the journal pages still come at once; how fast is printed.
func TestManyEvents(t *testing.T) {
	data := t.TempDir()
	fill(t, data)
	_, console := serve(t, data, "http://127.0.0.1:1/")
	for _, tt := range []struct{ what, query, want string }{
		{"first page", "", "call 19999.1"},
		{"first page again", "", "call 19999.1"},
		{"oldest call by its number", "?q=09000000000", "call 0.1"},
		{"a call in the middle by number", "?q=09000010000", "call 10000.1"},
		{"a call by its id", "?q=123.1&type=call.ended", "call 123.1"},
		{"what was given up (nothing)", "?outcome=deadLettered", "No call is like that"},
		{"a type that never came", "?type=fax.sent", "No call is like that"},
		{"an old call's page", "call?webhook=crm%2Fcallcenter&id=42.1", "call 42.1"},
	} {
		start := time.Now()
		text := get(t, console+tt.query)
		t.Logf("%-35s %4d ms", tt.what, time.Since(start).Milliseconds())
		for pages := 1; !strings.Contains(text, tt.want); pages++ { // on a slow machine, what was not reached in time is found by going on
			next := older(text)
			require.NotEmpty(t, next, "%s: not found", tt.what)
			require.Less(t, pages, 100)
			text = get(t, console+next)
		}
	}
}

// older is where a page's button for older calls leads, or empty.
func older(page string) string {
	_, rest, ok := strings.Cut(page, `<a class="button" href="/?`)
	if !ok {
		return ""
	}
	next, _, _ := strings.Cut(rest, `"`)
	return "?" + strings.ReplaceAll(next, "&amp;", "&")
}

func get(t *testing.T, url string) string {
	t.Helper()
	response, err := http.Get(url)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, response.StatusCode, "%s", data)
	return string(data)
}

// hostile is what somebody may put where others see it.
const hostile = `<script>window.hacked=1</script><img src=x onerror="window.hacked=1">"><svg onload=window.hacked=1>`

// TestHostileTexts: a script in a caller's name, in the PBX's header, in a call's id and in a target's reply is text
// everywhere.
func TestHostileTexts(t *testing.T) {
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(http.StatusUnprocessableEntity)
		_, _ = io.WriteString(w, hostile)
	}))
	t.Cleanup(target.Close)
	hooks, console := serve(t, t.TempDir(), target.URL)
	body := fmt.Sprintf(`{"event_name":"Cdr","unique_id":%q,"src":%q,"dst":"902","cid_name":%q,"disposition":%q,"record":%q}`, hostile, hostile, hostile, hostile, hostile)
	for _, path := range []string{"", "/<script>window.hacked=1<%2Fscript>"} {
		request, err := http.NewRequest(http.MethodPost, hooks+strings.ReplaceAll(strings.ReplaceAll(path, "<", "%3C"), ">", "%3E"), strings.NewReader(body))
		require.NoError(t, err)
		request.Header.Set("X-Name", hostile)
		request.Header.Set("User-Agent", hostile)
		response, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		_ = response.Body.Close()
		require.Equal(t, http.StatusAccepted, response.StatusCode)
	}
	request, err := http.NewRequest(http.MethodPost, strings.Replace(hooks, "pbx:secret@", "", 1), strings.NewReader(body))
	require.NoError(t, err)
	request.Header.Set("User-Agent", hostile)
	request.Header.Set("Content-Type", hostile)
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	_ = response.Body.Close()
	require.Equal(t, http.StatusUnauthorized, response.StatusCode)

	b := open(t, 1600, 1000, false)
	host := strings.Trim(strings.TrimPrefix(console, "http://"), "/")
	safe := func() {
		t.Helper()
		require.Equal(t, "undefined", b.eval(`window.hacked`))
		require.Equal(t, "1", b.eval(`document.scripts.length`))
		require.Equal(t, "0", b.eval(`document.images.length`))
		require.Equal(t, "true", b.eval(`document.body.innerText.includes("<script>")`), "it is shown as it came")
	}
	require.Eventually(t, func() bool { return strings.Contains(get(t, console+"dead-letters"), "confirm") }, patience, 50*time.Millisecond)
	for _, page := range []string{"", "rejected", "?q=%3Cscript%3E", "dead-letters"} {
		b.do(chromedp.Navigate(console+page), visible(`h1`))
		safe()
	}
	b.do(chromedp.Navigate(console), visible(`a.call`), click(`a.call`), visible(`.ladder .row`))
	b.arrived("/call?")
	safe()
	b.eval(`document.querySelectorAll("details").forEach(d => d.open = true)`)
	safe()
	require.Equal(t, "true", b.eval(`[...document.querySelectorAll("pre")].filter(p => p.textContent.includes("window.hacked")).length > 2`))
	b.fits()
	b.calm(host)
}
