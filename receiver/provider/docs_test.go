package provider_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/config/crd"
	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/provider"
	"github.com/pbxhook/pbxhook/receiver/provider/wire"
	"github.com/pbxhook/pbxhook/test/golden"
)

func docs(page string) string { return filepath.Join("..", "..", "docs", page) }

func page(p v1alpha1.Provider) string {
	return docs(filepath.Join("providers", strings.ToLower(string(p))+".md"))
}

// TestMappingTables: the tables of each provider's page are what its rules say.
func TestMappingTables(t *testing.T) {
	for _, p := range providers {
		t.Run(string(p), func(t *testing.T) {
			golden.Section(t, page(p), "events", eventTable(p))
			golden.Section(t, page(p), "mapping", mappingTable(p))
			golden.Section(t, page(p), "simulator", simulatorTable(t, p))
		})
	}
}

func eventTable(p v1alpha1.Provider) string {
	var out strings.Builder
	out.WriteString("| event | becomes |\n| --- | --- |\n")
	for _, m := range provider.Events(p) {
		fmt.Fprintf(&out, "| `%s` | %s |\n", m.Name, wire.First(m.Becomes, string(m.Type)))
	}
	return out.String()
}

// mappingTable has a row for each rule, with the events that share it.
func mappingTable(p v1alpha1.Provider) string {
	var rows []string
	shared := map[string][]string{}
	mappings := provider.Events(p)
	for _, m := range mappings {
		for _, rule := range m.Rules {
			row := mappingRow(rule)
			if shared[row] == nil {
				rows = append(rows, row)
			}
			shared[row] = append(shared[row], m.Name)
		}
	}
	slices.SortStableFunc(rows, func(a, b string) int { return strings.Compare(root(a), root(b)) })
	var out strings.Builder
	out.WriteString("| canonical field | from | how | events |\n| --- | --- | --- | --- |\n")
	for _, row := range rows {
		events := "all"
		if len(shared[row]) < len(mappings) {
			events = strings.Join(shared[row], ", ")
		}
		fmt.Fprintf(&out, "| %s | %s |\n", row, events)
	}
	return out.String()
}

// root is the object that a row's field belongs to.
func root(row string) string {
	field, _, _ := strings.Cut(strings.Trim(row, "`"), "`")
	object, _, _ := strings.Cut(field, ".")
	return object
}

func mappingRow(rule wire.Rule) string {
	var how []string
	if rule.Const != "" {
		how = append(how, "always "+rule.Const)
	}
	for _, word := range slices.Sorted(maps.Keys(rule.Values)) {
		how = append(how, word+" → "+rule.Values[word])
	}
	if rule.Note != "" {
		how = append(how, rule.Note)
	}
	keys := make([]string, len(rule.Keys))
	for i, key := range rule.Keys {
		keys[i] = "`" + key + "`"
	}
	return fmt.Sprintf("`%s` | %s | %s", rule.Field, strings.Join(keys, ", "), strings.Join(how, "; "))
}

func simulatorTable(t *testing.T, p v1alpha1.Provider) string {
	s := way{p, "", "POST", false}.simulator(t)
	var out strings.Builder
	out.WriteString("| `--scenario` | the call |\n| --- | --- |\n")
	for _, scenario := range s.Scenarios() {
		fmt.Fprintf(&out, "| `%s` | %s |\n", scenario.Name, scenario.About)
	}
	out.WriteString("\n| `--quirk` | what is odd |\n| --- | --- |\n")
	for _, quirk := range s.Quirks() {
		fmt.Fprintf(&out, "| `%s` | %s |\n", quirk.Name, quirk.About)
	}
	return out.String()
}

// TestCoverageTable: docs/providers/coverage.md lists the test of each event in each version and method,
// and the samples.
func TestCoverageTable(t *testing.T) {
	shown := map[string][]string{}
	for _, s := range samples(t) {
		e := provider.Decode(s.Provider, s.request(), s.settings(t))
		versions := []v1alpha1.Version{s.Version}
		if s.Provider == v1alpha1.Simotel && s.Version == "" && s.ContentType == "application/json" {
			versions = []v1alpha1.Version{v1alpha1.G4, v1alpha1.Rest4} // the pages do not say which
		}
		for _, version := range versions {
			key := strings.Join([]string{string(s.Provider), string(version), s.Method, e.Name}, " ")
			shown[key] = append(shown[key], s.Name)
		}
	}
	var out strings.Builder
	out.WriteString("| provider | event | version | method | test | samples |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, p := range providers {
		for _, w := range ways(p) {
			method := w.method
			if w.form {
				method += " (form)"
			}
			for _, name := range w.simulator(t).Events() {
				key := strings.Join([]string{string(p), string(w.version), w.method, name}, " ")
				fmt.Fprintf(&out, "| %s | %s | %s | %s | `TestEveryEvent/%s/%s` | %s |\n", p, name, w.version, method, w, name, strings.Join(shown[key], ", "))
			}
		}
	}
	golden.Section(t, docs("providers/coverage.md"), "coverage", out.String())
}

// schema is the published one.
func schema(t testing.TB) *jsonschema.Schema {
	compiled, err := jsonschema.NewCompiler().Compile(docs("event.schema.json"))
	require.NoError(t, err)
	return compiled
}

// requireSchema shows that an event is what the published schema says.
func requireSchema(t *testing.T, schema *jsonschema.Schema, e *event.Event) {
	t.Helper()
	text, err := json.Marshal(e)
	require.NoError(t, err)
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(string(text)))
	require.NoError(t, err)
	require.NoError(t, schema.Validate(value))
}

// TestFieldsOfTheSpec: each canonical field that spec.fields takes is one that Acefone's rules fill.
func TestFieldsOfTheSpec(t *testing.T) {
	list := regexp.MustCompile(`keys are the canonical fields (call\.[a-zA-Z.]+,?\s+)+`).Find(crd.YAML)
	fields := regexp.MustCompile(`call\.[a-zA-Z.]+`).FindAllString(string(list), -1)
	require.Greater(t, len(fields), 10)
	for _, field := range fields {
		t.Run(field, func(t *testing.T) {
			value := map[string]string{
				"call.direction": "inbound", "call.startTime": "2026-07-11 21:13:52", "call.answerTime": "2026-07-11 21:13:52", "call.endTime": "2026-07-11 21:13:52",
				"call.disposition": "answered", "call.agents": "Asha Rao", "call.from.number": "+919876500014", "call.to.number": "+919876500014", "call.did": "+919876500014",
			}[field]
			if value == "" {
				value = "42"
			}
			r := &event.Request{Method: "POST", Path: "/call-hangup", Body: []byte(`{"own_key": ` + fmt.Sprintf("%q", value) + `}`)}
			e := provider.Decode(v1alpha1.Acefone, r, wire.Settings{Fields: map[string]string{field: "own_key"}})
			require.NotEmpty(t, canonicalText(&e, field))
			without := provider.Decode(v1alpha1.Acefone, r, wire.Settings{})
			require.Empty(t, canonicalText(&without, field))
		})
	}
}
