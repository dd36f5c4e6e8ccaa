package wire_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/provider/wire"
)

func TestDurations(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "24": 24, " 24 ": 24, "24.0": 24, "24.9": 24, "7e1": 70, "24 sec": 24, "24sec": 24, "24s": 24, "24 Seconds": 24, "1 second": 1,
		"1 min 10 sec": 70, "1m10s": 70, "1 minute, 10 seconds": 70, "1 hour 1 min and 1 sec": 3661, "2 min": 120, "1.5 min": 90, "1h": 3600, "1500 ms": 1,
		"00:01:10": 70, "0:01:10": 70, "01:10": 70, "1:02:03": 3723, "00:01:10.500": 70, "90:15": 5415, "PT1M10S": 70, "PT70S": 70,
		"۷۰": 70, "٧٠": 70, "۰۰:۰۱:۱۰": 70, "७०": 70, "\u200e70": 70,
	} {
		got := wire.ParseSeconds(text)
		require.NotNil(t, got, text)
		require.Equal(t, want, *got, text)
	}
	for _, text := range []string{
		"", "-1", "-1.5", "-00:01:10", "- 5 sec", "-5 sec", "NaN", "Inf", "soon", "1 fortnight", "00:60:00", "00:01:70", "1:2", "1:2:3:4", "12:", ":12", "sec", "1 2", "P1D", "1783784576231",
		"0x10", strings.Repeat("1", 65), "24 sec ago", "true",
	} {
		require.Nil(t, wire.ParseSeconds(text), text)
	}
}
