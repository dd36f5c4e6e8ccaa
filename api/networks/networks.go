// Package networks reads lists of networks, as flags of the operator and of the receiver have them.
package networks

import (
	"fmt"
	"net/netip"
	"strings"
)

// Parse reads networks such as 10.0.0.0/8 and fd00::/8; an address stands for itself.
func Parse(texts []string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, text := range texts {
		text = strings.TrimSpace(text)
		if address, err := netip.ParseAddr(text); err == nil {
			all = append(all, netip.PrefixFrom(address.Unmap(), address.Unmap().BitLen()))
			continue
		}
		network, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("expected networks such as 10.0.0.0/8, separated by commas, got %q", text)
		}
		all = append(all, network.Masked())
	}
	return all, nil
}
