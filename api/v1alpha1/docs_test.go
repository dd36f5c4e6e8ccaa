package v1alpha1_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"

	"github.com/pbxhook/pbxhook/test/golden"
)

// TestTheKindIsDocumented: the reference page is what the generated CustomResourceDefinition says.
func TestTheKindIsDocumented(t *testing.T) {
	crd := definition(t)
	version := crd.Spec.Versions[0]
	schema := version.Schema.OpenAPIV3Schema
	var page bytes.Buffer
	fmt.Fprintf(&page, "<!-- written by go test ./api/v1alpha1 -update; the text is in the types -->\n# %s\n\n`%s/%s`, short name `%s`. `kubectl explain %s.spec` says the same.\n", crd.Spec.Names.Kind, crd.Spec.Group, version.Name, crd.Spec.Names.ShortNames[0], crd.Spec.Names.ShortNames[0])
	for _, part := range []string{"spec", "status"} {
		properties := schema.Properties[part]
		fmt.Fprintf(&page, "\n## %s\n\n| field | type | what it is for |\n| --- | --- | --- |\n", part)
		describe(&page, "", &properties)
	}
	golden.File(t, "../../docs/reference/pbxwebhook.md", page.Bytes())
}

// describe writes a line for each field below a schema.
func describe(page *bytes.Buffer, prefix string, schema *apiextensionsv1.JSONSchemaProps) {
	for _, name := range slices.Sorted(maps.Keys(schema.Properties)) {
		field := schema.Properties[name]
		path := prefix + name
		required := ""
		if slices.Contains(schema.Required, name) {
			required = ", required"
		}
		fmt.Fprintf(page, "| `%s` | %s%s | %s |\n", path, kind(&field), required, cell(&field))
		switch {
		case field.Items != nil && field.Items.Schema != nil && len(field.Items.Schema.Properties) > 0:
			describe(page, path+"[].", field.Items.Schema)
		case len(field.Properties) > 0:
			describe(page, path+".", &field)
		}
	}
}

func definition(t *testing.T) apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	data, err := os.ReadFile("../../config/crd/pbxhook.io_pbxwebhooks.yaml")
	require.NoError(t, err)
	var crd apiextensionsv1.CustomResourceDefinition
	require.NoError(t, yaml.Unmarshal(data, &crd))
	return crd
}

// TestDescriptionsStateDefaults: kubectl explain shows descriptions, and no defaults.
func TestDescriptionsStateDefaults(t *testing.T) {
	var walk func(path string, schema *apiextensionsv1.JSONSchemaProps)
	walk = func(path string, schema *apiextensionsv1.JSONSchemaProps) {
		if schema.Default != nil && path != ".status" {
			value := strings.Trim(string(schema.Default.Raw), `"`)
			if strings.HasPrefix(value, `{"`) {
				value = "" // in words
			}
			require.Contains(t, strings.Join(strings.Fields(schema.Description), " "), "Default: "+value, path)
		}
		for name, child := range schema.Properties {
			walk(path+"."+name, &child)
		}
		if schema.Items != nil && schema.Items.Schema != nil {
			walk(path+"[]", schema.Items.Schema)
		}
	}
	walk("", definition(t).Spec.Versions[0].Schema.OpenAPIV3Schema)
}

func kind(field *apiextensionsv1.JSONSchemaProps) string {
	switch {
	case field.XIntOrString:
		return "number or string"
	case field.Type == "array":
		return "list of " + kind(field.Items.Schema)
	case field.Type == "object" && field.AdditionalProperties != nil:
		return "map of " + kind(field.AdditionalProperties.Schema)
	}
	return field.Type
}

// cell is a field's description, with its values and bounds.
func cell(field *apiextensionsv1.JSONSchemaProps) string {
	text := strings.Join(strings.Fields(field.Description), " ")
	add := func(format string, args ...any) { text += " " + fmt.Sprintf(format, args...) }
	values := field.Enum
	if field.Items != nil && field.Items.Schema != nil {
		values = append(values, field.Items.Schema.Enum...)
	}
	if len(values) > 0 {
		var all []string
		for _, value := range values {
			all = append(all, strings.Trim(string(value.Raw), `"`))
		}
		add("One of `%s`.", strings.Join(all, "`, `"))
	}
	if field.MaxItems != nil {
		add("At most %d.", *field.MaxItems)
	}
	if field.Minimum != nil && field.Maximum != nil && *field.Maximum < 1<<40 {
		add("%g to %g.", *field.Minimum, *field.Maximum)
	}
	return strings.ReplaceAll(text, "|", `\|`)
}

// TestEveryReasonHasItsCure: docs/operations.md has a row for each reason.
func TestEveryReasonHasItsCure(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "operations.md"))
	require.NoError(t, err)
	file, err := parser.ParseFile(token.NewFileSet(), "status_types.go", nil, 0)
	require.NoError(t, err)
	var reasons int
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, "Reason") {
			return true
		}
		reason := strings.Trim(spec.Values[0].(*ast.BasicLit).Value, `"`)
		reasons++
		require.Regexp(t, "(?m)^\\| `"+reason+"` \\| .+ \\| .+ \\|$", string(page), "a row for %s in docs/operations.md", reason)
		return true
	})
	require.Greater(t, reasons, 30)
}
