package validation

import (
	"testing"

	"github.com/stretchr/testify/require"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
)

// TestEveryPatternHasWords: nobody reads a regular expression.
func TestEveryPatternHasWords(t *testing.T) {
	judge, err := New()
	require.NoError(t, err)
	var walk func(path string, s *structuralschema.Structural)
	seen := map[string]bool{}
	walk = func(path string, s *structuralschema.Structural) {
		if s == nil {
			return
		}
		if s.ValueValidation != nil && s.ValueValidation.Pattern != "" {
			seen[s.ValueValidation.Pattern] = true
			require.Contains(t, patterns, s.ValueValidation.Pattern, "%s: give its pattern words in patterns", path)
		}
		for name, child := range s.Properties {
			walk(path+"."+name, &child)
		}
		walk(path+"[]", s.Items)
		if s.AdditionalProperties != nil {
			walk(path+"{}", s.AdditionalProperties.Structural)
		}
	}
	walk("", judge.structural)
	require.Len(t, patterns, len(seen), "words of patterns that no field has any more")
}

func TestSteps(t *testing.T) {
	for path, want := range map[string][]string{
		"": nil, "spec": {"spec"}, "spec.targets[0].url": {"spec", "targets", "0", "url"},
		"spec.fields[call.id]": {"spec", "fields", "call.id"}, "spec.targets[crm].auth.basic": {"spec", "targets", "crm", "auth", "basic"},
	} {
		require.Equal(t, want, Steps(path), path)
	}
}
