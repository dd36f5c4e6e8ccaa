package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/admin"
)

// TestHabits: what users of kubectl and gh expect of any command.
func TestHabits(t *testing.T) {
	target := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer target.Close()
	folder := t.TempDir()
	file := filepath.Join(folder, "w.yaml")
	manifest := "apiVersion: pbxhook.io/v1alpha1\nkind: PBXWebhook\nmetadata: {name: NAME, namespace: crm}\nspec:\n  provider: VoIPstudio\n  credentials: {anonymous: {}}\n  targets: [{name: crm, url: \"" + target.URL + "\"}]\n"
	require.NoError(t, os.WriteFile(file, []byte(strings.Replace(manifest, "NAME", "sales", 1)+"---\n"+strings.Replace(manifest, "NAME", "support", 1)), 0o600))
	p := start(t, file, filepath.Join(folder, "data"))
	pbxhook := func(args ...string) (string, error) { return run(t, "", append(args, "--admin", "http://"+p.admin)...) }

	out, err := run(t, "", "--version")
	require.NoError(t, err)
	require.Regexp(t, `^pbxhook version \S+`, out)

	out, err = pbxhook("calls")
	require.NoError(t, err)
	require.Equal(t, "No calls found.\n", out)

	probed = "http://" + p.admin
	out, err = run(t, "", "calls")
	probed = "http://127.0.0.1:9"
	require.NoError(t, err, "a local receiver is found without --admin")
	require.Equal(t, "No calls found.\n", out)

	out, err = pbxhook("status", "crm/support")
	require.NoError(t, err)
	require.Contains(t, out, "crm/support")
	require.NotContains(t, out, "crm/sales", "a name as tables print it")

	for want, args := range map[string][]string{
		`--type: expected one of`:                                               {"calls", "--type", "call.mised"},
		`did you mean call.missed?`:                                             {"calls", "--type", "call.mised"},
		`--outcome: expected one of`:                                            {"calls", "--outcome", "lost"},
		`crm/sales: --target: expected one of crm, got "crn"`:                   {"calls", "--target", "crn"},
		`this receiver serves crm/sales, crm/support; did you mean`:             {"calls", "supports"},
		`crm/sales has an embedded journal, whose cursors are part of its file`: {"journal", "reset-cursor", "sales"},
		`leave one of them out`:                                                 {"status", "crm/sales", "-n", "other"},
	} {
		_, err := pbxhook(args...)
		require.ErrorContains(t, err, want)
	}

	_, err = run(t, "", "simulate", "voipstudio", "--to", "http://"+p.address+"/hooks/crm/sales", "--calls", "3", "--scenario", "answered")
	require.NoError(t, err)
	out, err = pbxhook("calls", "--limit", "2")
	require.NoError(t, err)
	require.Contains(t, out, "There are more calls than these 2: --all lists all of them")
	out, err = pbxhook("calls", "--all")
	require.NoError(t, err)
	require.NotContains(t, out, "There are more")
	require.Equal(t, 4, strings.Count(out, "\n"), "a head and three calls")
}

// TestResetCursors: what is damaged is said, nothing is done without a yes, and a cursor that can be read is left alone.
func TestResetCursors(t *testing.T) {
	damaged := []admin.DamagedCursor{{Target: "crm", Partition: 3}, {Target: "crm", Partition: 7}}
	var requests []admin.ResetRequest
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/webhooks", func(w http.ResponseWriter, _ *http.Request) {
		assert.NoError(t, json.NewEncoder(w).Encode([]admin.Webhook{{Namespace: "crm", Name: "sales"}}))
	})
	mux.HandleFunc("POST /api/v1/webhooks/crm/sales/cursors/reset", func(w http.ResponseWriter, r *http.Request) {
		var request admin.ResetRequest
		assert.NoError(t, json.NewDecoder(r.Body).Decode(&request))
		requests = append(requests, request)
		assert.NoError(t, json.NewEncoder(w).Encode(admin.Reset{Cursors: damaged}))
	})
	receiver := httptest.NewServer(mux)
	defer receiver.Close()
	reset := func(flags ...string) (string, error) {
		requests = nil
		return run(t, "", append([]string{"journal", "reset-cursor", "--admin", receiver.URL, "--target", "crm"}, flags...)...)
	}
	_, err := reset()
	require.ErrorContains(t, err, "reset of 2 cursors: expected --yes")
	require.Equal(t, []admin.ResetRequest{{Target: "crm", DryRun: true}}, requests)
	out, err := reset("--dry-run")
	require.NoError(t, err)
	require.Contains(t, out, "crm/sales: the cursor of target crm in partition 3 is damaged")
	require.Len(t, requests, 1)
	out, err = reset("--yes")
	require.NoError(t, err)
	require.Contains(t, out, "crm/sales: the cursor of target crm in partition 7 was reset")
	require.Equal(t, []admin.ResetRequest{{Target: "crm", DryRun: true}, {Target: "crm"}}, requests)
	damaged = nil
	_, err = reset("--yes")
	require.ErrorContains(t, err, "no cursor is damaged")
}

func TestColours(t *testing.T) {
	const table = "Ready  False  it said delivered\ncrm    true   0\ncall   x=delivered y=pending\n"
	require.Equal(t, "Ready  \x1b[31mFalse\x1b[0m  it said delivered\ncrm    \x1b[32mtrue\x1b[0m   0\ncall   x=\x1b[32mdelivered\x1b[0m y=\x1b[33mpending\x1b[0m\n", string(colour([]byte(table))))
	require.Equal(t, table, string(paint(&strings.Builder{}, []byte(table))), "no terminal, no colours")
}
