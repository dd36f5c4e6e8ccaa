package deliver

import (
	"context"
	"fmt"
	"net/netip"
	"syscall"
)

// Networks say which addresses targets may have, beside what is always refused: loopback, link-local,
// unspecified and multicast ones.
type Networks struct {
	// Loopback allows targets on this machine; only for `pbxhook run`.
	Loopback bool
	// Deny refuses more.
	Deny []netip.Prefix
	// Allow allows what would be refused.
	Allow []netip.Prefix
}

// nat64 is the network whose addresses hold an IPv4 address in their last 32 bits (RFC 6052).
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// plainAddress is an address as what it leads to: IPv4 written as IPv6 is IPv4.
func plainAddress(ip netip.Addr) netip.Addr {
	ip = ip.Unmap().WithZone("")
	if nat64.Contains(ip) {
		all := ip.As16()
		return netip.AddrFrom4([4]byte(all[12:]))
	}
	return ip
}

// Allows is whether a target may have an address.
func (n Networks) Allows(address netip.Addr) bool {
	ip := plainAddress(address)
	for _, network := range n.Allow {
		if network.Contains(ip) {
			return true
		}
	}
	for _, network := range n.Deny {
		if network.Contains(ip) {
			return false
		}
	}
	if ip.IsLoopback() {
		return n.Loopback
	}
	return !ip.IsLinkLocalUnicast() && !ip.IsUnspecified() && !ip.IsMulticast()
}

// guard refuses addresses at dial time, after DNS: who may write a webhook must not reach the cloud's
// metadata service or the receiver's own admin port through it.
func (n Networks) guard(_ context.Context, _, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("read the address to dial: %w", err)
	}
	if !n.Allows(to.Addr()) {
		return &refusedAddressError{address: plainAddress(to.Addr())}
	}
	return nil
}
