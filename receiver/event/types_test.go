package event_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/event"
)

// TestTypesAreThoseOfTheKind: what a target can ask for is what there is.
func TestTypesAreThoseOfTheKind(t *testing.T) {
	source, err := os.ReadFile("../../api/v1alpha1/target_types.go")
	require.NoError(t, err)
	found := regexp.MustCompile(`Enum=(call\.started\S*)`).FindSubmatch(source)
	require.NotNil(t, found)
	var all []string
	for _, one := range event.Types {
		all = append(all, string(one))
	}
	require.Equal(t, strings.Split(string(found[1]), ";"), all)
}
