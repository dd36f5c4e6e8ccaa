package install

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/pbxhook/pbxhook/api/v1alpha1"
	"github.com/pbxhook/pbxhook/test/testenv"
)

// pages are what people read.
func pages(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(testenv.Root(), "docs", "*.md"))
	require.NoError(t, err)
	all := map[string]string{}
	for _, path := range append(paths, filepath.Join(testenv.Root(), "README.md")) {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		all[filepath.Base(path)] = string(data)
	}
	return all
}

// TestExamplesInDocs: every block of YAML reads, and the API server takes every whole PBXWebhook.
func TestExamplesInDocs(t *testing.T) {
	c, err := client.New(testenv.Config, client.Options{})
	require.NoError(t, err)
	strict := client.WithFieldValidation(c, "Strict")
	block := regexp.MustCompile("(?s)```yaml\n(.*?)```")
	webhooks := 0
	for page, text := range pages(t) {
		for _, match := range block.FindAllStringSubmatch(text, -1) {
			for _, document := range strings.Split(match[1], "\n---\n") {
				object := &unstructured.Unstructured{}
				require.NoError(t, yaml.Unmarshal([]byte(document), &object.Object), "%s: %s", page, document)
				if object.GetKind() != v1alpha1.Kind {
					continue
				}
				webhooks++
				object.SetNamespace("default")
				require.NoError(t, strict.Create(t.Context(), object, client.DryRunAll), "%s: %s", page, document)
			}
		}
	}
	require.Greater(t, webhooks, 3, "there are examples")
}

// TestNamedTestsExist: where a page says which test proves something, there is one of that name.
func TestNamedTestsExist(t *testing.T) {
	tests := map[string]bool{}
	function := regexp.MustCompile(`(?m)^func (Test\w+|Fuzz\w+)\(`)
	require.NoError(t, filepath.WalkDir(testenv.Root(), func(path string, _ os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		data, err := os.ReadFile(path)
		for _, match := range function.FindAllStringSubmatch(string(data), -1) {
			tests[match[1]] = true
		}
		return err
	}))
	named := regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w+)")
	for page, text := range pages(t) {
		for _, match := range named.FindAllStringSubmatch(text, -1) {
			require.True(t, tests[match[1]], "%s names %s, which does not exist", page, match[1])
		}
	}
}
