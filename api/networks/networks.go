// Package networks reads lists of networks, as flags of the operator and of the receiver have them, and says which
// addresses an address leads to.
package networks

import (
	"fmt"
	"net/netip"
	"strings"
)

// Parse reads networks such as 10.0.0.0/8 and fd00::/8; an address stands for itself. One that can match nothing is an
// error: an IPv6 network that only holds IPv4 addresses, as these are judged as IPv4.
func Parse(texts []string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, text := range texts {
		text = strings.TrimSpace(text)
		if address, err := netip.ParseAddr(text); err == nil && address.Zone() == "" {
			text = netip.PrefixFrom(address.Unmap(), address.Unmap().BitLen()).String()
		}
		network, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("expected networks such as 10.0.0.0/8, separated by commas, got %q", text)
		}
		if matchesNothing(network) {
			return nil, fmt.Errorf("expected networks that an address can be in, got %s, which matches nothing: its addresses lead to IPv4 addresses and are judged as these, so write it as IPv4", network)
		}
		all = append(all, network.Masked())
	}
	return all, nil
}
