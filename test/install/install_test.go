// Package install tries what people install pbxhook with: the Helm chart, the one manifest, the samples, and
// the examples of the GitOps page.
package install

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/pbxhook/pbxhook/test/golden"
	"github.com/pbxhook/pbxhook/test/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// tool runs a pinned tool in the repository's root.
func tool(args ...string) (stdout, stderr string, err error) {
	cmd := exec.Command("go", append([]string{"tool", "-modfile=hack/tools/go.mod"}, args...)...)
	cmd.Dir = testenv.Root()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

func template(t *testing.T, args ...string) string {
	t.Helper()
	out, errs, err := tool(append([]string{"helm", "template", "pbxhook", "charts/pbxhook", "--namespace=pbxhook-system"}, args...)...)
	require.NoError(t, err, errs)
	return out
}

// TestChart shows what each of the main switches does.
func TestChart(t *testing.T) {
	for name, args := range map[string][]string{
		"default":    nil,
		"namespaced": {"--set=watchNamespaces={crm,sales}"},
		"selected":   {"--set=watchNamespaceSelector=team=voice,receivers.denyNetworks={10.0.0.0/8,192.0.2.1,fd00::/8,::1}"},
		"replicas":   {"--set=replicas=2,priorityClassName=system-cluster-critical"},
		"plain":      {"--set=metrics.enabled=false,networkPolicy.enabled=false,rbac.userRoles=false"},
		"monitored":  {"--set=metrics.serviceMonitor.enabled=true,metrics.serviceMonitor.labels.release=prometheus", "--set=extraEnv[0].name=OTEL_EXPORTER_OTLP_ENDPOINT,extraEnv[0].value=http://collector:4318"},
		"digest":     {"--set=image.repository=registry.example.com/pbxhook,image.digest=sha256:" + strings.Repeat("ab", 32), "--set=imagePullSecrets[0].name=pull"},
		"openshift":  {"--set=receivers.setUser=false,receivers.denyNetworks={10.0.0.0/8},receivers.allowNetworks={10.1.0.0/16},receivers.poll=false"},
		"no-rbac":    {"--set=rbac.create=false,serviceAccount.create=false,serviceAccount.name=mine"},
	} {
		t.Run(name, func(t *testing.T) {
			golden.Equal(t, name+".yaml", []byte(template(t, append(args, "--set=crds.install=false")...)))
		})
	}
}

// TestChartHasTheCRD: as it is generated, and so that it outlives the release.
func TestChartHasTheCRD(t *testing.T) {
	only := func(args ...string) map[string]any {
		crd := map[string]any{}
		require.NoError(t, yaml.Unmarshal([]byte(template(t, append(args, "--show-only=templates/crd.yaml")...)), &crd))
		return crd
	}
	data, err := os.ReadFile(filepath.Join(testenv.Root(), "config", "crd", "pbxhook.io_pbxwebhooks.yaml"))
	require.NoError(t, err)
	generated := map[string]any{}
	require.NoError(t, yaml.Unmarshal(data, &generated))
	crd := only()
	require.Equal(t, generated["spec"], crd["spec"])
	annotations := func(crd map[string]any) map[string]any {
		return crd["metadata"].(map[string]any)["annotations"].(map[string]any)
	}
	require.Equal(t, "keep", annotations(crd)["helm.sh/resource-policy"])
	require.NotContains(t, annotations(only("--set=crds.keep=false")), "helm.sh/resource-policy")
}

func TestChartRefusesWrongValues(t *testing.T) {
	for name, tc := range map[string]struct{ value, want string }{
		"unknown":     {"replica=2", "additional properties 'replica' not allowed"},
		"pull policy": {"image.pullPolicy=Sometimes", "/image/pullPolicy"},
		"digest":      {"image.digest=latest", "/image/digest"},
		"replicas":    {"replicas=0", "/replicas"},
		"level":       {"logs.level=loud", "/logs/level"},
		"network":     {"receivers.denyNetworks={10.0.0.0/8,10.0.0.0/99}", "/receivers/denyNetworks/1"},
		"no network":  {"receivers.allowNetworks={example.com}", "/receivers/allowNetworks/0"},
		"roll":        {"receivers.rollPercent=0", "/receivers/rollPercent"},
		"interval":    {"receivers.pollInterval=often", "/receivers/pollInterval"},
		"both":        {"watchNamespaces={crm},watchNamespaceSelector=a=b", "one of watchNamespaces and watchNamespaceSelector"},
	} {
		t.Run(name, func(t *testing.T) {
			_, errs, err := tool("helm", "template", "pbxhook", "charts/pbxhook", "--set="+tc.value)
			require.Error(t, err)
			require.Contains(t, errs, tc.want)
		})
	}
}

// objects reads the objects of a manifest.
func objects(t *testing.T, manifest string) []*unstructured.Unstructured {
	t.Helper()
	var all []*unstructured.Unstructured
	for _, document := range strings.Split(manifest, "\n---\n") {
		object := &unstructured.Unstructured{}
		require.NoError(t, yaml.Unmarshal([]byte(document), &object.Object))
		if len(object.Object) > 0 {
			all = append(all, object)
		}
	}
	return all
}

// TestTheAPIServerTakesIt: every object of each way to install, without a field that nobody knows.
func TestTheAPIServerTakesIt(t *testing.T) {
	installer, errs, err := tool("kustomize", "build", "config/default")
	require.NoError(t, err, errs)
	samples, errs, err := tool("kustomize", "build", "config/samples")
	require.NoError(t, err, errs)
	c, err := client.New(testenv.Config, client.Options{})
	require.NoError(t, err)
	strict := client.WithFieldValidation(c, "Strict")
	namespace := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": "pbxhook-system"}}}
	require.NoError(t, c.Create(t.Context(), namespace))
	for name, manifest := range map[string]string{
		"dist/install.yaml": installer,
		"chart":             template(t),
		"chart, namespaced": template(t, "--set=watchNamespaces={default},replicas=2"),
		"samples":           samples,
	} {
		t.Run(name, func(t *testing.T) {
			all := objects(t, manifest)
			require.NotEmpty(t, all)
			for _, object := range all {
				if object.GetNamespace() == "" && name == "samples" {
					object.SetNamespace("default")
				}
				err := strict.Patch(t.Context(), object, client.Apply, client.FieldOwner("test"), client.ForceOwnership, client.DryRunAll) //nolint:staticcheck // unstructured objects of any kind
				require.NoError(t, err, "%s %s", object.GetKind(), object.GetName())
			}
		})
	}
}

// TestChartAndManifestsGiveTheSameRights: one is generated, and the other must not be behind.
func TestChartAndManifestsGiveTheSameRights(t *testing.T) {
	want, err := testenv.OperatorRole()
	require.NoError(t, err)
	rules := func(kind, name string, objects []*unstructured.Unstructured) []rbacv1.PolicyRule {
		for _, object := range objects {
			if object.GetKind() == kind && object.GetName() == name {
				data, err := yaml.Marshal(object.Object)
				require.NoError(t, err)
				role := &rbacv1.ClusterRole{}
				require.NoError(t, yaml.Unmarshal(data, role))
				return role.Rules
			}
		}
		return nil
	}
	require.Equal(t, want.Rules, rules("ClusterRole", "pbxhook", objects(t, template(t))))
	namespaced := objects(t, template(t, "--set=watchNamespaces={crm}"))
	both := append(rules("ClusterRole", "pbxhook", namespaced), rules("Role", "pbxhook", namespaced)...)
	require.ElementsMatch(t, want.Rules, both)
	for _, rule := range rules("ClusterRole", "pbxhook", namespaced) {
		require.Contains(t, []string{"authentication.k8s.io", "authorization.k8s.io"}, rule.APIGroups[0], "in the whole cluster nothing but who asks for metrics")
	}
}
