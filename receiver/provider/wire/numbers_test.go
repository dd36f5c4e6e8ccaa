package wire_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/receiver/event"
	"github.com/pbxhook/pbxhook/receiver/provider/wire"
)

// TestNumbersInTheField: what is around a number does not count.
func TestNumbersInTheField(t *testing.T) {
	abroad, india, iran, none := wire.Settings{International: true}, wire.Settings{Region: "IN"}, wire.Settings{Region: "IR"}, wire.Settings{}
	for _, tc := range []struct {
		settings wire.Settings
		raw      string
		want     string
	}{
		{abroad, "00447854000947", "+447854000947"},
		{none, "00447854000947", "+447854000947"},
		{iran, "00447854000947", "+447854000947"},
		{abroad, "sip:447854000947@sip.example.com", "+447854000947"},
		{abroad, "SIPS:%2B447854000947@sip.example.com;transport=tls", "+447854000947"},
		{abroad, "447854000947@sip.example.com", "+447854000947"},
		{abroad, "<447854000947>", "+447854000947"},
		{abroad, `"John Smith" <447854000947>`, "+447854000947"},
		{abroad, `"John" <sip:447854000947@sip.example.com>`, "+447854000947"},
		{none, "tel:+919876500042", "+919876500042"},
		{none, "TEL:+91-98765-00042;ext=2", "+919876500042"},
		{india, "tel:09876500042", "+919876500042"},
		{abroad, "447854000947.0", "+447854000947"},
		{india, "9876500042.00", "+919876500042"},
		{india, "9.876500042e9", "+919876500042"},
		{none, "+9.19876500042E+11", "+919876500042"},
		{india, "9.88E+09", ""},
		{india, "9876500042.5", ""},
		{iran, "۰۹۱۲۱۲۳۴۵۶۷", "+989121234567"},
		{iran, "٠٩١٢١٢٣٤٥٦٧", "+989121234567"},
		{iran, "०९१२१२३४५६७", "+989121234567"},
		{none, "＋９８９１２１２３４５６７", "+989121234567"},
		{none, "\u202a+98 912 123 4567\u202c", "+989121234567"},
		{none, "\u200e+989121234567", "+989121234567"},
		{none, "+98\u00a0912\u00a01234567", "+989121234567"},
		{none, " 919876500042", "+919876500042"},
		{india, " 9876500042", "+919876500042"},
		{wire.Settings{Region: "GB"}, " 2071234567", "+442071234567"},
		{none, "+44 (0)20 3514 1598", "+442035141598"},
		{none, "anonymous", ""},
		{none, "sip:john@example.com", ""},
		{none, "", ""},
		{none, "<>", ""},
	} {
		require.Equal(t, tc.want, tc.settings.Party(tc.raw).Number, "%q in %q", tc.raw, tc.settings.Region)
	}
	for raw, want := range map[string]string{"sip:1001@sip.example.com": "1001", "<1001>": "1001", "۱۰۱": "101", "101.0": "101", " 2002 ": "2002", "+1001": "", "tel:1001": "1001"} {
		require.Equal(t, want, none.Party(raw).Extension, raw)
	}
	require.Equal(t, "sip:1001@x", none.Party(" sip:1001@x ").Raw, "as sent")
}

// TestChoiceAmongNumbers: of several for one party, the one that says its country counts.
func TestChoiceAmongNumbers(t *testing.T) {
	india := wire.Settings{Region: "IN"}
	for _, tc := range []struct {
		raws []string
		want event.Party
	}{
		{[]string{"2125550143", "+12125550143"}, event.Party{Raw: "2125550143", Number: "+12125550143"}},
		{[]string{"02125550143", "0012125550143"}, event.Party{Raw: "02125550143", Number: "+12125550143"}},
		{[]string{"", "+12125550143"}, event.Party{Raw: "+12125550143", Number: "+12125550143"}},
		{[]string{"+12125550143", "9876500042"}, event.Party{Raw: "+12125550143", Number: "+12125550143"}},
		{[]string{"9876500042", "9876500042"}, event.Party{Raw: "9876500042", Number: "+919876500042"}},
		{[]string{"9876500042", "+12125550143"}, event.Party{Raw: "9876500042", Number: "+919876500042"}}, // another number altogether
		{[]string{"101", "+12125550101"}, event.Party{Raw: "101", Extension: "101"}},
		{[]string{"", " "}, event.Party{}},
		{nil, event.Party{}},
	} {
		require.Equal(t, tc.want, india.Choose(tc.raws...), tc.raws)
	}
	prefixed := wire.Settings{Region: "IN", International: true}.Party("12125550143")
	require.Equal(t, "+12125550143", wire.Prefer(india.Party("2125550143"), prefixed, true).Number, "its key says so")
	require.Equal(t, "+912125550143", wire.Prefer(india.Party("2125550143"), prefixed, false).Number)
}
