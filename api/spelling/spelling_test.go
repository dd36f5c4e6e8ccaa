package spelling

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestClosest(t *testing.T) {
	known := []string{"timeZone", "targets", "method", "maxAge", "maxDelay"}
	for name, want := range map[string]string{
		"timezone": "timeZone", "time_zone": "timeZone", "tiemZone": "timeZone", "target": "targets", "tragets": "targets",
		"maxage": "maxAge", "methods": "method", "retention": "", "": "", "x": "", strings.Repeat("m", 100): "",
	} {
		require.Equal(t, want, Closest(name, known), name)
	}
	require.Equal(t, "; did you mean timeZone?", DidYouMean("timezone", known))
	require.Empty(t, DidYouMean("retention", known))
	long := strings.Repeat("a", 100)
	require.Equal(t, long, Closest(long, []string{long}))
}
