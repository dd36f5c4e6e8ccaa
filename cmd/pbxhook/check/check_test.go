package check_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/api/validation"
	"github.com/pbxhook/pbxhook/cmd/pbxhook/check"
	"github.com/pbxhook/pbxhook/test/golden"
)

const head = "apiVersion: pbxhook.io/v1alpha1\nkind: PBXWebhook\nmetadata: {name: a}\n"

// webhook is a good one; spec is added to it, in YAML that is indented by two blanks.
func webhook(spec string) string {
	return head + "spec:\n  provider: Simotel\n  credentials: {secretRef: {name: pbx}}\n  targets:\n  - name: crm\n    url: https://crm.example.com/\n" + spec
}

const secret = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: pbx}\nstringData: {token: secret-of-the-pbx}\n"

// wrong are manifests with one fault each, as people make them.
var wrong = []struct{ name, text string }{
	// YAML
	{"tab", "apiVersion: pbxhook.io/v1alpha1\nkind: PBXWebhook\nspec:\n\tprovider: Simotel\n"},
	{"tab in a list", head + "spec:\n  targets:\n  \t- name: crm\n"},
	{"key indented too far", head + "spec:\n  provider: Simotel\n   timeZone: UTC\n"},
	{"key indented too little", head + "spec:\n    provider: Simotel\n  timeZone: UTC\n"},
	{"colon in a text", webhook("    expression: event.call.queue == a: b\n")},
	{"quote that is not closed", webhook("    expression: \"event.call.queue\n")},
	{"bracket that is not closed", webhook("  events: [Cdr, NewState\n")},
	{"brace that is not closed", head + "spec: {provider: Simotel\n"},
	{"escape", webhook("    expression: \"a\\d\"\n")},
	{"star", webhook("  version: *rest4\n")},
	{"at sign", webhook("  version: @rest4\n")},
	{"key twice", webhook("  provider: Acefone\n")},
	{"not text", "\x00\x01\x02"},
	{"not UTF-8", "kind: \"\xff\xfe\"\n"},
	{"a list", "- apiVersion: pbxhook.io/v1alpha1\n"},
	{"no kind", "apiVersion: pbxhook.io/v1alpha1\nmetadata: {name: a}\n"},
	{"kind in another case", strings.Replace(webhook(""), "PBXWebhook", "PbxWebHook", 1)},
	{"version of the API", strings.Replace(webhook(""), "v1alpha1", "v1", 1)},
	{"group of the API", strings.Replace(webhook(""), "pbxhook.io/v1alpha1", "v1", 1)},
	{"second document", webhook("") + secret + "---\nkind: {\n"},
	// Schema
	{"no spec", head},
	{"name in capitals", strings.Replace(webhook(""), "name: a", "name: CallCentre", 1)},
	{"key in another case", webhook("  timezone: UTC\n")},
	{"key misspelt", webhook("    expresion: \"true\"\n")},
	{"key of another place", webhook("  timeout: 10s\n")},
	{"provider in lower case", strings.Replace(webhook(""), "Simotel", "simotel", 1)},
	{"provider unknown", strings.Replace(webhook(""), "Simotel", "Twilio", 1)},
	{"version unknown", webhook("  version: Rest5\n")},
	{"time zone", webhook("  timeZone: Asia/Teheran\n")},
	{"time zone as an offset", webhook("  timeZone: \"+03:30\"\n")},
	{"region in lower case", webhook("  defaultRegion: ir\n")},
	{"region as a name", webhook("  defaultRegion: Iran\n")},
	{"event misspelt", webhook("  events: [Cdrs]\n")},
	{"events as a text", webhook("  events: Cdr\n")},
	{"enabled as a text", webhook("  enabled: \"yes\"\n")},
	{"URL without a scheme", strings.Replace(webhook(""), "https://crm", "crm", 1)},
	{"URL with a password", strings.Replace(webhook(""), "https://crm", "https://u:very-secret@crm", 1)},
	{"URL with a port that is none", strings.Replace(webhook(""), "example.com", "example.com:99999", 1)},
	{"URL of this machine", strings.Replace(webhook(""), "crm.example.com", "127.0.0.1:9000", 1) + secret},
	{"URL of localhost", strings.Replace(webhook(""), "https://crm.example.com", "http://localhost:9000", 1) + secret},
	{"no targets", head + "spec:\n  provider: Simotel\n  credentials: {anonymous: {}}\n"},
	{"targets as an object", head + "spec:\n  provider: Simotel\n  credentials: {anonymous: {}}\n  targets: {name: crm}\n"},
	{"url and service", webhook("    service: {name: crm}\n")},
	{"time-out without a unit", webhook("    timeout: 10\n")},
	{"time-out in days", webhook("    timeout: 1d\n")},
	{"maxAge in words", webhook("    retry: {maxAge: 1 day}\n")},
	{"concurrency as a text", webhook("    concurrency: \"16\"\n")},
	{"concurrency of 0", webhook("    concurrency: 0\n")},
	{"size with a wrong unit", webhook("  journal: {embedded: {maxBytes: 1GB}}\n")},
	{"journal larger than its claim", webhook("  journal: {embedded: {maxBytes: 3Gi}}\n")},
	{"replicas without NATS", webhook("  receiver: {replicas: 2}\n")},
	{"header that the receiver sets", webhook("    headers: [{name: Host, value: x}]\n")},
	{"header with a blank", webhook("    headers: [{name: X Tenant, value: x}]\n")},
	{"host with a scheme", webhook("  expose: {ingress: {host: \"https://pbx.example.com\"}}\n")},
	{"target twice", webhook("  - name: crm\n    url: https://b.example.com/\n")},
	{"credentials as a text", strings.Replace(webhook(""), "{secretRef: {name: pbx}}", "pbx", 1)},
	{"credentials in the manifest", strings.Replace(webhook(""), "{secretRef: {name: pbx}}", "{username: pbx, password: very-secret}", 1)},
	// CEL
	{"expression of a field that is none", webhook("    expression: event.call.que == \"1\"\n")},
	{"expression with one =", webhook("    expression: event.call.queue = \"1\"\n")},
	{"expression of a number as a text", webhook("    expression: event.call.talkSeconds > \"10\"\n")},
	{"filter that is no condition", webhook("  filter: {expression: event.call.queue}\n")},
	{"template in Go", webhook("    format: Template\n    template: '{\"phone\": \"{{ .From }}\"}'\n")},
	{"template that ends early", webhook("    format: Template\n    template: '{\"phone\": event.call.from.number'\n")},
	{"template without its format", webhook("    template: event.call\n")},
	// references, and other kinds
	{"Secret that is not there", webhook("")},
	{"Secret without a password", webhook("") + strings.Replace(secret, "token", "username", 1)},
	{"Secret not in base64", webhook("") + strings.Replace(secret, "stringData", "data", 1)},
	{"the same twice", webhook("") + "---\n" + webhook("") + secret},
	{"other kinds", webhook("") + secret + "---\napiVersion: v1\nkind: Service\nmetadata: {name: crm}\n"},
	{"three faults in one", webhook("  timezone: UTC\n  defaultRegion: ir\n  filter: {expression: event.call.que}\n")},
}

var judges = sync.OnceValues(validation.New)

func examine(t *testing.T, text string, local bool) *check.Report {
	t.Helper()
	judge, err := judges()
	require.NoError(t, err)
	report, err := check.Examine(t.Context(), judge, check.Options{Files: []string{"-"}, Stdin: strings.NewReader(text), Local: local})
	require.NoError(t, err)
	return report
}

// TestWrongManifests holds what people read about each fault: what was expected, what came, where.
func TestWrongManifests(t *testing.T) {
	var out strings.Builder
	for _, tc := range wrong {
		report := examine(t, tc.text, false)
		require.NotEmpty(t, report.Findings, tc.name)
		fmt.Fprintf(&out, "== %s\n", tc.name)
		for _, f := range report.Findings {
			fmt.Fprintln(&out, f)
			require.NotContains(t, f.String(), "\n", "one finding a line")
			require.NotContains(t, f.Message, "very-secret")
			require.NotContains(t, f.Message, "secret-of-the-pbx")
			for _, raw := range []string{"should match", "in body", "expecting", "<nil>", "<EOF>", "protobuf", "unmarshal", "Invalid value", "^["} {
				require.NotContains(t, f.Message, raw, tc.name)
			}
		}
	}
	golden.Equal(t, "wrong.txt", []byte(out.String()))
}

func TestGoodManifest(t *testing.T) {
	report := examine(t, webhook("")+secret, false)
	require.Empty(t, report.Findings)
	require.Equal(t, []check.Object{{File: "standard input", ID: "default/a"}}, report.Objects)
	require.Zero(t, report.Errors())
}

func TestLocalTargets(t *testing.T) {
	text := strings.Replace(webhook(""), "crm.example.com", "127.0.0.1:9000", 1) + secret
	require.Len(t, examine(t, text, false).Findings, 1)
	require.Zero(t, examine(t, text, false).Errors(), "a warning changes no exit status")
	require.Empty(t, examine(t, text, true).Findings)
}

// TestAllFilesAreExamined: a fault in one file hides none in another; a Secret serves webhooks of all files.
func TestAllFilesAreExamined(t *testing.T) {
	folder := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(folder, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	broken := write("1.yaml", "kind: {\n")
	first := write("2.yaml", strings.Replace(webhook("  timezone: UTC\n"), "name: a", "name: b", 1))
	second := write("3.yaml", "# a comment\n---\n"+webhook("  defaultRegion: ir\n"))
	write("4.yml", secret)
	judge, err := judges()
	require.NoError(t, err)
	report, err := check.Examine(t.Context(), judge, check.Options{Files: []string{folder}})
	require.NoError(t, err)
	var places []string
	for _, f := range report.Findings {
		places = append(places, fmt.Sprintf("%s:%d:%d %s", f.File, f.Line, f.Column, f.Field))
	}
	require.Equal(t, []string{broken + ":1:1 ", first + ":10:3 spec.timezone", second + ":12:3 spec.defaultRegion"}, places)

	_, err = check.Examine(t.Context(), judge, check.Options{Files: []string{filepath.Join(folder, "none.yaml")}})
	require.ErrorContains(t, err, "none.yaml")
	_, err = check.Examine(t.Context(), judge, check.Options{Files: []string{filepath.Join(folder, "4.yml")}})
	require.ErrorContains(t, err, "expected a PBXWebhook in")
}

// FuzzExamine: whatever a file holds, there are findings or an object, and no panic.
func FuzzExamine(f *testing.F) {
	for _, tc := range wrong {
		f.Add([]byte(tc.text))
	}
	judge, err := judges()
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, text []byte) {
		report, err := check.Examine(t.Context(), judge, check.Options{Files: []string{"-"}, Stdin: strings.NewReader(string(text))})
		if err != nil {
			return
		}
		require.NotEmpty(t, len(report.Findings)+len(report.Objects))
		for _, finding := range report.Findings {
			require.NotContains(t, finding.String(), "\n")
		}
	})
}
