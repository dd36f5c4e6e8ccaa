package networks_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pbxhook/pbxhook/api/networks"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.0/8": "10.0.0.0/8", "10.1.2.3/8": "10.0.0.0/8", " 10.1.2.3": "10.1.2.3/32", "::ffff:10.1.2.3": "10.1.2.3/32", "fd00::/8": "fd00::/8", "::1": "::1/128",
		"::/0": "::/0", "::/96": "::/96", "0.0.0.0/0": "0.0.0.0/0", "2000::/3": "2000::/3", "64:ff9b::/32": "64:ff9b::/32", "fe80::1": "fe80::1/128",
	} {
		got, err := networks.Parse([]string{text})
		require.NoError(t, err, text)
		require.Equal(t, want, got[0].String(), text)
	}
	for _, text := range []string{
		"::ffff:10.0.0.0/104", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b::a00:1", "64:ff9b:1::/48", "64:ff9b:1:2::/64", "2002::/16", "2002:a00::/24", "2001::/32", "::10.0.0.0/104", "::ffff:0:10.1.2.3",
	} {
		_, err := networks.Parse([]string{text})
		require.ErrorContains(t, err, "matches nothing", text)
	}
	for _, text := range []string{"", "the office", "10.0.0.0/33", "10.0.0/8", "fe80::%eth0/64"} {
		_, err := networks.Parse([]string{text})
		require.ErrorContains(t, err, "expected networks", text)
	}
}

func TestLeads(t *testing.T) {
	for text, want := range map[string][]string{
		"192.0.2.1": {"192.0.2.1"}, "::ffff:192.0.2.1": {"192.0.2.1"}, "::192.0.2.1": {"192.0.2.1"}, "::ffff:0:192.0.2.1": {"192.0.2.1"}, "64:ff9b::192.0.2.1": {"192.0.2.1"},
		"2002:c000:201::1": {"192.0.2.1"}, "2001:0:c000:202:8000:63bf:3fff:fdfe": {"192.0.2.1", "192.0.2.2"},
		"64:ff9b:1::192.0.2.1": {"192.0.2.1"}, "64:ff9b:1:c000:2:100::": {"192.0.2.1", "2.1.0.0"},
		"::1": {"::1"}, "::": {"::"}, "fe80::1%eth0": {"fe80::1"}, "2001:db8::1": {"2001:db8::1"}, "64:ff9b:1::": {"0.0.0.0"}, "2001::1": {"255.255.255.254"},
	} {
		var got []string
		for _, address := range networks.Leads(netip.MustParseAddr(text)) {
			got = append(got, address.String())
		}
		require.Equal(t, want, got, text)
	}
}
