package install

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/pbxhook/pbxhook/test/testenv"
)

func file(t *testing.T, path ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(append([]string{testenv.Root()}, path...)...))
	require.NoError(t, err)
	return data
}

type rules struct {
	Spec struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr         string
				Labels, Annotations map[string]string
			}
		}
	}
}

func alertRules(t *testing.T) (r rules) {
	t.Helper()
	require.NoError(t, yaml.Unmarshal(file(t, "config", "prometheus", "rules.yaml"), &r))
	require.NotEmpty(t, r.Spec.Groups)
	return r
}

// metric finds the names of the receiver's metrics in an expression.
var metric = regexp.MustCompile(`\bpbxhook_[a-z_]+`)

// exist is whether the receiver has the metrics that an expression names.
func exist(t *testing.T, expression string) {
	t.Helper()
	source := string(file(t, "receiver", "metrics.go"))
	for _, name := range metric.FindAllString(expression, -1) {
		base := regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")
		require.Contains(t, source, `"`+base+`"`, "no metric is called %s", name)
	}
}

// TestAlertsHaveAPage that says what to do, and are about metrics that there are.
func TestAlertsHaveAPage(t *testing.T) {
	pages, err := filepath.Glob(filepath.Join(testenv.Root(), "docs", "runbooks", "*.md"))
	require.NoError(t, err)
	n := 0
	for _, rule := range alertRules(t).Spec.Groups[0].Rules {
		n++
		require.Equal(t, "https://github.com/pbxhook/pbxhook/blob/main/docs/runbooks/"+rule.Alert+".md", rule.Annotations["runbook_url"])
		require.Contains(t, string(file(t, "docs", "runbooks", rule.Alert+".md")), "## What to do")
		require.Contains(t, []string{"critical", "warning", "info"}, rule.Labels["severity"])
		require.NotEmpty(t, rule.Annotations["summary"])
		require.NotEmpty(t, metric.FindAllString(rule.Expr, -1))
		exist(t, rule.Expr)
	}
	require.Len(t, pages, n, "a page without an alert")
}

// TestAlertsFire where they must, and are still where they must be, by Prometheus' own judgement.
func TestAlertsFire(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("no promtool: install Debian's package prometheus")
	}
	folder := t.TempDir()
	var r struct{ Spec any }
	require.NoError(t, yaml.Unmarshal(file(t, "config", "prometheus", "rules.yaml"), &r))
	plain, err := yaml.Marshal(r.Spec)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(folder, "rules.yaml"), plain, 0o600))
	cases := file(t, "config", "prometheus", "tests", "alerts.yaml")
	require.NoError(t, os.WriteFile(filepath.Join(folder, "alerts.yaml"), cases, 0o600))
	for _, args := range [][]string{{"check", "rules", "rules.yaml"}, {"test", "rules", "alerts.yaml"}} {
		cmd := exec.Command(promtool, args...)
		cmd.Dir = folder
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	for _, rule := range alertRules(t).Spec.Groups[0].Rules {
		require.True(t, bytes.Contains(cases, []byte(rule.Alert)), "no test of %s", rule.Alert)
	}
}

// TestDashboardShowsWhatThereIs.
func TestDashboardShowsWhatThereIs(t *testing.T) {
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
		Templating struct{ List []struct{ Query any } }
	}
	require.NoError(t, json.Unmarshal(file(t, "config", "prometheus", "dashboard.json"), &dashboard))
	require.NotEmpty(t, dashboard.Panels)
	for _, panel := range dashboard.Panels {
		require.NotEmpty(t, panel.Targets, panel.Title)
		for _, target := range panel.Targets {
			require.NotEmpty(t, metric.FindAllString(target.Expr, -1))
			exist(t, target.Expr)
		}
	}
}

// TestChartHasTheRules as they are, and the dashboard.
func TestChartHasTheRules(t *testing.T) {
	all := objects(t, template(t, "--set=metrics.rules.enabled=true,metrics.dashboard.enabled=true", "--show-only=templates/monitoring.yaml"))
	require.Len(t, all, 2)
	slices.SortFunc(all, func(a, b *unstructured.Unstructured) int { return strings.Compare(b.GetKind(), a.GetKind()) })
	var want map[string]any
	require.NoError(t, yaml.Unmarshal(file(t, "config", "prometheus", "rules.yaml"), &want))
	require.Equal(t, want["spec"], all[0].Object["spec"])
	require.JSONEq(t, string(file(t, "config", "prometheus", "dashboard.json")), all[1].Object["data"].(map[string]any)["pbxhook.json"].(string))
}
