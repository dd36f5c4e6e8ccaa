package admin_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/admin"
)

func TestMask(t *testing.T) {
	mask := admin.Mask{Keep: []string{"1610782193.391", ""}, Hide: []string{"rec-902.wav", ""}}
	for _, tt := range []struct{ name, text, want string }{
		{"E.164", `{"from":"+442035141598"}`, `{"from":"+•••••••••598"}`},
		{"national, with spaces", "call 0203 514-1598 now", "call •••• •••-•598 now"},
		{"in a query", "src=%2B442035141598&x=1", "src=%2B•••••••••598&x=1"},
		{"extension", `{"exten":"902","pin":"123456"}`, `{"exten":"902","pin":"123456"}`},
		{"id of the call", `{"unique_id":"1610782193.391","n":9123456789}`, `{"unique_id":"1610782193.391","n":•••••••789}`},
		{"times", "2026-11-22 08:00:19 2026-11-22T08:00:19.123 2026-11-22%2008%3A00%3A19 2026-11-22", "2026-11-22 08:00:19 2026-11-22T08:00:19.123 2026-11-22%2008%3A00%3A19 2026-11-22"},
		{"link", `"url":"https://rec.example.com/a?token=s3cret&b=c"`, `"url":"https://rec.example.com/•••"`},
		{"escaped link", `"url":"https:\/\/rec.example.com\/a\/s3cret"`, `"url":"https:\/\/rec.example.com/•••"`},
		{"link in a query", `u=https%3A%2F%2Frec.example.com%2Fs3cret`, `u=https%3A%2F%2Frec.example.com/•••`},
		{"recording", `{"record":"rec-902.wav"}`, `{"record":"•••"}`},
		{"nothing", "", ""},
		{"not UTF-8", "\xff\xfe 9123456789", "\xff\xfe •••••••789"},
	} {
		t.Run(tt.name, func(t *testing.T) { require.Equal(t, tt.want, mask.Text(tt.text)) })
	}
	require.Equal(t, "902", admin.MaskNumber("902"))
	require.Equal(t, "", admin.MaskNumber(""))
	require.Equal(t, "+•••••••••598", admin.MaskNumber("+442035141598"))
}
