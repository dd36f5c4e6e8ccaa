package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/pbxhook/pbxhook/receiver/admin"
)

// answerAs has somebody sit at the terminal of commands, for one test.
func answerAs(t *testing.T, there *atomic.Bool) {
	t.Helper()
	before := isTerminal
	isTerminal = func(io.Reader) bool { return there.Load() }
	t.Cleanup(func() { isTerminal = before })
}

// TestReplayIsAnOperation: it says what it would do and asks, has an id, a list, a rate, and an end; what not all
// webhooks have is refused before anything is done.
func TestReplayIsAnOperation(t *testing.T) {
	var status atomic.Int64
	status.Store(http.StatusTeapot)
	var taken atomic.Int64
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(int(status.Load()))
		if status.Load() == http.StatusOK {
			taken.Add(1)
		}
	}))
	defer target.Close()
	folder := t.TempDir()
	file := filepath.Join(folder, "w.yaml")
	manifest := "apiVersion: pbxhook.io/v1alpha1\nkind: PBXWebhook\nmetadata: {name: %s}\nspec:\n  provider: Simotel\n  credentials: {anonymous: {}}\n  targets: [{name: crm, url: %[2]q}%[3]s]\n---\n"
	require.NoError(t, os.WriteFile(file, fmt.Appendf(fmt.Appendf(nil, manifest, "first", target.URL, fmt.Sprintf(", {name: erp, url: %q}", target.URL)), manifest, "second", target.URL, ""), 0o600))
	p := start(t, file, filepath.Join(folder, "data"))
	pbxhook := func(in string, args ...string) (string, error) {
		return run(t, in, append(args, "--admin", "http://"+p.admin)...)
	}
	must := func(args ...string) string {
		t.Helper()
		out, err := pbxhook("", args...)
		require.NoError(t, err)
		return out
	}
	letters := func() (n int) {
		var all []any
		require.NoError(t, json.Unmarshal([]byte(must("dead-letters", "-o", "json")), &all))
		return len(all)
	}
	for _, webhook := range []string{"first", "second"} {
		_, err := run(t, "", "simulate", "simotel", "--to", "http://"+p.address+"/hooks/default/"+webhook, "--calls", "2", "--scenario", "answered")
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool { return letters() == 30 }, patience, 20*time.Millisecond)
	status.Store(http.StatusOK)

	var there atomic.Bool
	answerAs(t, &there)
	for name, tc := range map[string]struct {
		in   string
		asks bool
		want string // of the error
		args []string
	}{
		"nobody can be asked":                 {want: "replay of 30 events: expected --yes", args: []string{"replay", "--dead-letters"}},
		"nobody can be asked, drop":           {want: "drop of 30 events: expected --yes", args: []string{"dead-letters", "drop", "--all"}},
		"nobody can be asked, replay of all":  {want: "expected --yes", args: []string{"dead-letters", "replay", "--all"}},
		"no":                                  {in: "n\n", asks: true, want: "nothing was done", args: []string{"replay", "--dead-letters"}},
		"no answer":                           {asks: true, want: "nothing was done", args: []string{"dead-letters", "drop", "--all"}},
		"not all have the target":             {want: "webhook default/second has no target erp; nothing was done", args: []string{"replay", "--dead-letters", "--target", "erp", "--yes"}},
		"not all have the target, drop":       {want: "webhook default/second has no target erp; nothing was done", args: []string{"dead-letters", "drop", "--all", "--target", "erp", "--yes"}},
		"not all have the target, replay all": {want: "webhook default/second has no target erp; nothing was done", args: []string{"dead-letters", "replay", "--all", "--target", "erp", "--yes"}},
		"a dry run":                           {args: []string{"replay", "--dead-letters", "--dry-run"}},
		"a dry run of a drop":                 {args: []string{"dead-letters", "drop", "--all", "--dry-run"}},
		"a rate":                              {want: "expected a rate", args: []string{"replay", "--dead-letters", "--yes", "--rate", "-1"}},
		"no such replay":                      {want: "no replay nothing", args: []string{"replay", "cancel", "nothing"}},
		"both":                                {want: "none of the others can be", args: []string{"replay", "--dead-letters", "--yes", "--dry-run"}},
	} {
		t.Run(name, func(t *testing.T) {
			there.Store(tc.asks)
			out, err := pbxhook(tc.in, tc.args...)
			if tc.want != "" {
				require.ErrorContains(t, err, tc.want)
			} else {
				require.NoError(t, err)
				require.Contains(t, out, "10 events")
			}
			require.Equal(t, 30, letters())
			require.Zero(t, taken.Load())
		})
	}
	require.Equal(t, "[]\n", must("replay", "list", "-o", "json"))

	there.Store(true)
	out, err := pbxhook("y\n", "replay", "--dead-letters", "--target", "erp", "--rate", "0.01", "first")
	require.NoError(t, err)
	require.Contains(t, out, "Replay 10 events? [y/N]")
	require.Contains(t, out, "10 events to erp")
	var list []admin.ReplayState
	require.NoError(t, json.Unmarshal([]byte(must("replay", "list", "first", "-o", "json")), &list))
	require.Len(t, list, 1)
	r := list[0]
	require.Equal(t, admin.ReplayRunning, r.Phase)
	require.EqualValues(t, 10, r.Total)
	require.Equal(t, []string{"erp"}, r.Names())
	require.Equal(t, "dead letters", r.What)
	require.InDelta(t, 0.01, r.Rate, 0)
	require.Equal(t, userName(), r.By)
	var second []admin.ReplayState
	require.NoError(t, yaml.Unmarshal([]byte(must("replay", "list", "second", "-o", "yaml")), &second))
	require.Empty(t, second)
	require.Contains(t, must("replay", "list"), "0.01/s")
	require.Contains(t, must("replay", "cancel", r.ID), "canceled")
	require.Contains(t, must("replay", "list"), "canceled")
	before := letters()
	require.GreaterOrEqual(t, before, 29)

	require.Contains(t, must("replay", "--dead-letters", "--yes", "--wait", "second"), "finished: 10 done, 0 given up, 0 not sent")
	require.Contains(t, must("dead-letters", "drop", "--all", "--yes"), "dropped")
	require.Zero(t, letters())
}
