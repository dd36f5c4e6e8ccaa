package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/pbxhook/pbxhook/receiver/admin"
	"github.com/pbxhook/pbxhook/test/loopback"
	"github.com/pbxhook/pbxhook/test/output"
)

// TestWatching: what the commands say of calls, of deliveries as they happen, and of how all fares.
func TestWatching(t *testing.T) {
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/lab") {
			w.WriteHeader(http.StatusTeapot)
		}
	}))
	defer target.Close()
	folder := t.TempDir()
	file := filepath.Join(folder, "w.yaml")
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, "apiVersion: pbxhook.io/v1alpha1\nkind: PBXWebhook\nmetadata: {name: pbx}\nspec:\n  provider: VoIPstudio\n  credentials: {anonymous: {}}\n  targets: [{name: crm, url: %q}, {name: lab, url: %q, eventTypes: [call.missed]}]\n", target.URL, target.URL+"/lab"), 0o600))
	p := start(t, file, filepath.Join(folder, "data"))
	pbxhook := func(args ...string) (string, error) { return run(t, "", append(args, "--admin", "http://"+p.admin)...) }

	told := &output.Text{}
	tail := root()
	tail.SetArgs([]string{"tail", "pbx", "--admin", "http://" + p.admin})
	tail.SetOut(told)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- tail.ExecuteContext(ctx) }()
	time.Sleep(500 * time.Millisecond) // it tells what happens after it began

	_, err := run(t, "", "simulate", "voipstudio", "--to", "http://"+p.address+"/hooks/default/pbx", "--calls", "2", "--scenario", "answered", "--scenario", "missed")
	require.NoError(t, err)
	var calls []admin.Call
	require.Eventually(t, func() bool {
		out, err := pbxhook("calls", "-o", "json")
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal([]byte(out), &calls))
		slices.SortFunc(calls, func(a, b admin.Call) int {
			return strings.Compare(string(a.Outcomes["lab"]), string(b.Outcomes["lab"]))
		})
		return len(calls) == 2 && calls[0].Outcomes["lab"] == admin.DeadLettered && calls[0].Outcomes["crm"] == admin.Delivered
	}, patience, 50*time.Millisecond)
	require.Contains(t, calls[0].From, "+", "programs get numbers as they are")

	out, err := pbxhook("calls", "--outcome", "deadLettered")
	require.NoError(t, err)
	require.Contains(t, out, calls[0].ID)
	require.NotContains(t, out, calls[1].ID)
	require.Contains(t, out, "crm=delivered lab=deadLettered")
	require.NotContains(t, out, calls[0].From)
	require.Contains(t, out, "•"+calls[0].From[len(calls[0].From)-3:])
	out, err = pbxhook("calls", "--search", calls[0].From, "--show-numbers", "--type", "call.missed", "--from", "1h")
	require.NoError(t, err)
	require.Contains(t, out, calls[0].From)
	out, err = pbxhook("calls", "--to", "1h", "-o", "yaml")
	require.NoError(t, err)
	require.Equal(t, "[]\n", out)

	out, err = pbxhook("calls", "show", calls[0].ID)
	require.NoError(t, err)
	require.Contains(t, out, "VoIPstudio → pbxhook")
	require.Regexp(t, `pbxhook → lab +418 deadLettered in [0-9.]+ ms`, out)
	require.Contains(t, out, "not sent")
	var detail admin.CallDetail
	out, err = pbxhook("calls", "show", calls[0].ID, "-o", "yaml")
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal([]byte(out), &detail))
	byEvent, err := pbxhook("calls", "show", detail.Events[0].ID)
	require.NoError(t, err)
	require.Contains(t, byEvent, calls[0].ID)

	out, err = pbxhook("status")
	require.NoError(t, err, "a dead letter is no trouble of the target as a whole")
	require.Regexp(t, `WEBHOOK +default/pbx +VoIPstudio`, out)
	require.Regexp(t, `crm +true +0 `, out)
	require.Eventually(t, func() bool {
		out, err := pbxhook("status", "pbx", "-o", "json")
		require.NoError(t, err)
		var status []webhookStatus
		require.NoError(t, json.Unmarshal([]byte(out), &status))
		return status[0].Journal.DeadLetters == 1
	}, patience, 50*time.Millisecond)
	target.Close()
	_, err = run(t, "", "simulate", "voipstudio", "--to", "http://"+p.address+"/hooks/default/pbx", "--calls", "3", "--seed", "2")
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		_, err := pbxhook("status")
		return err != nil && strings.Contains(err.Error(), "default/pbx: target crm: ")
	}, patience, 50*time.Millisecond)

	require.Eventually(t, func() bool {
		text := told.String()
		return strings.Contains(text, "→ crm") && strings.Contains(text, "200 delivered in") && strings.Contains(text, "418 deadLettered") && strings.Contains(text, "call.missed")
	}, patience, 50*time.Millisecond, "%s", told)
	require.NotContains(t, told.String(), calls[0].From)
	stop()
	require.NoError(t, <-ended)

	out, err = pbxhook("console")
	require.NoError(t, err)
	require.Equal(t, "console  http://"+p.admin+"/\n", out)
	nobody := loopback.Free(t)
	for want, args := range map[string][]string{
		"expected a time such as":                                         {"calls", "--from", "yesterday", "--admin", "http://" + p.admin},
		"--outcome: expected one of":                                      {"calls", "--outcome", "lost", "--admin", "http://" + p.admin},
		"no call or event 9 is kept":                                      {"calls", "show", "9", "--admin", "http://" + p.admin},
		"-o: expected json or yaml (or table, the default), got \"wide\"": {"status", "-o", "wide", "--admin", "http://" + p.admin},
		"-o: expected json, got \"yaml\"":                                 {"tail", "-o", "yaml", "--admin", "http://" + p.admin},
		"nobody listens at http://" + nobody:                              {"status", "--admin", "http://" + nobody},
		"expected the webhook's name":                                     {"console"},
	} {
		_, err := run(t, "", args...)
		require.ErrorContains(t, err, want)
	}
}

// TestCompletion: a shell can complete commands, and what a flag takes.
func TestCompletion(t *testing.T) {
	out, err := run(t, "", "__complete", "calls", "--outcome", "de")
	require.NoError(t, err)
	require.Contains(t, out, "deadLettered")
	out, err = run(t, "", "completion", "bash")
	require.NoError(t, err)
	require.Contains(t, out, "__complete")
}
