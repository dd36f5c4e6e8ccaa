package networks

import "net/netip"

// embedding is a network whose addresses hold IPv4 addresses, and lead to these.
type embedding struct {
	network netip.Prefix
	ipv4    func(all [16]byte) [][4]byte
}

// at returns the four bytes of an address from one on.
func at(from int) func(all [16]byte) [][4]byte {
	return func(all [16]byte) [][4]byte { return [][4]byte{[4]byte(all[from:])} }
}

// embeddings are those that are assigned, and those that some system still understands.
var embeddings = []embedding{
	{netip.MustParsePrefix("::ffff:0:0/96"), at(12)},   // IPv4-mapped (RFC 4291)
	{netip.MustParsePrefix("::/96"), at(12)},           // IPv4-compatible (RFC 4291, deprecated)
	{netip.MustParsePrefix("::ffff:0:0:0/96"), at(12)}, // IPv4-translated (RFC 7915)
	{netip.MustParsePrefix("64:ff9b::/96"), at(12)},    // NAT64 (RFC 6052)
	{netip.MustParsePrefix("64:ff9b:1::/48"), nat64},   // local NAT64 (RFC 8215)
	{netip.MustParsePrefix("2002::/16"), at(2)},        // 6to4 (RFC 3056)
	{netip.MustParsePrefix("2001::/32"), teredo},       // Teredo (RFC 4380)
}

// nat64 returns all IPv4 addresses that a local NAT64 may read in an address: where they are depends on the length of
// its prefix (RFC 6052, 2.2), which nobody tells. Byte 8 is never part of one.
func nat64(all [16]byte) [][4]byte {
	return [][4]byte{
		{all[6], all[7], all[9], all[10]},   // prefix of 48 bits
		{all[7], all[9], all[10], all[11]},  // 56
		{all[9], all[10], all[11], all[12]}, // 64
		{all[12], all[13], all[14], all[15]},
	}
}

// teredo returns the server's address and the client's, whose bits are inverted.
func teredo(all [16]byte) [][4]byte {
	client := [4]byte(all[12:])
	for i := range client {
		client[i] ^= 0xff
	}
	return [][4]byte{client, [4]byte(all[4:])}
}

// Leads returns the addresses that an address leads to: the IPv4 addresses that it holds where it is of a network that
// embeds them, else itself, without a zone. There is at least one.
func Leads(address netip.Addr) []netip.Addr {
	address = address.WithZone("")
	if address.Is4() || isOwn(address) {
		return []netip.Addr{address}
	}
	for _, e := range embeddings {
		if !e.network.Contains(address) {
			continue
		}
		var all []netip.Addr
		for _, ipv4 := range e.ipv4(address.As16()) {
			if ipv4[0] != 0 { // else nothing is there: 0.0.0.0/8 is no host's
				all = append(all, netip.AddrFrom4(ipv4))
			}
		}
		if len(all) == 0 {
			return []netip.Addr{netip.IPv4Unspecified()}
		}
		return all
	}
	return []netip.Addr{address}
}

// isOwn reports whether an address is one of the two within ::/96 that hold no IPv4 address.
func isOwn(address netip.Addr) bool {
	return address == netip.IPv6Unspecified() || address == netip.IPv6Loopback()
}

// matchesNothing reports whether a network has no address that is judged as itself: all of it leads to IPv4.
func matchesNothing(network netip.Prefix) bool {
	if network.Contains(netip.IPv6Unspecified()) || network.Contains(netip.IPv6Loopback()) {
		return false
	}
	for _, e := range embeddings {
		if network.Bits() >= e.network.Bits() && network.Addr().Is6() && e.network.Masked().Overlaps(network) {
			return true
		}
	}
	return false
}
