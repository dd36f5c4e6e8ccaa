package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
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
		`--type: expected one of`:                                   {"calls", "--type", "call.mised"},
		`did you mean call.missed?`:                                 {"calls", "--type", "call.mised"},
		`--outcome: expected one of`:                                {"calls", "--outcome", "lost"},
		`crm/sales: --target: expected one of crm, got "crn"`:       {"calls", "--target", "crn"},
		`this receiver serves crm/sales, crm/support; did you mean`: {"calls", "supports"},
		`leave one of them out`:                                     {"status", "crm/sales", "-n", "other"},
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

func TestColours(t *testing.T) {
	const table = "Ready  False  it said delivered\ncrm    true   0\ncall   x=delivered y=pending\n"
	require.Equal(t, "Ready  \x1b[31mFalse\x1b[0m  it said delivered\ncrm    \x1b[32mtrue\x1b[0m   0\ncall   x=\x1b[32mdelivered\x1b[0m y=\x1b[33mpending\x1b[0m\n", string(colour([]byte(table))))
	require.Equal(t, table, string(paint(&strings.Builder{}, []byte(table))), "no terminal, no colours")
}
