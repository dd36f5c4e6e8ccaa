package deliver

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"github.com/pbxhook/pbxhook/api/networks"
)

// Networks say which addresses may be dialled, beside what is always refused: loopback, link-local, unspecified and
// multicast ones, and those of clouds' metadata services.
type Networks struct {
	// Loopback allows this machine; only for `pbxhook run`.
	Loopback bool
	// Private allows this machine and private networks, whatever is in Deny: for a journal's servers, which are where
	// the receiver is.
	Private bool
	// Deny refuses more.
	Deny []netip.Prefix
	// Allow allows what would be refused.
	Allow []netip.Prefix
}

// metadata are the addresses of clouds' metadata services, and what else only a machine itself should ask, that are
// not link-local. They give away the machine's credentials.
var metadata = []netip.Addr{
	netip.MustParseAddr("fd00:ec2::254"),   // AWS
	netip.MustParseAddr("fd00:ec2::23"),    // AWS, EKS Pod Identity
	netip.MustParseAddr("fd20:ce::254"),    // Google Cloud
	netip.MustParseAddr("100.100.100.200"), // Alibaba Cloud
	netip.MustParseAddr("168.63.129.16"),   // Azure
	netip.MustParseAddr("192.0.0.192"),     // Oracle Cloud
}

// Allows reports whether an address may be dialled: all that it leads to must be allowed.
func (n Networks) Allows(address netip.Addr) bool {
	return !slices.ContainsFunc(networks.Leads(address), func(ip netip.Addr) bool { return !n.allows(ip) })
}

func (n Networks) allows(ip netip.Addr) bool {
	contains := func(network netip.Prefix) bool { return network.Contains(ip) }
	switch {
	case slices.ContainsFunc(n.Allow, contains):
		return true
	case slices.Contains(metadata, ip), ip.IsLinkLocalUnicast(), ip.IsUnspecified(), ip.IsMulticast():
		return false
	case n.Private && (ip.IsLoopback() || ip.IsPrivate()):
		return true
	case slices.ContainsFunc(n.Deny, contains):
		return false
	}
	return n.Loopback || !ip.IsLoopback()
}

// Guard refuses addresses at dial time, after DNS, as a net.Dialer's ControlContext: who may write a webhook must not
// reach the cloud's metadata service or the receiver's own admin port through it.
func (n Networks) Guard(_ context.Context, _, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("read the address to dial: %w", err)
	}
	if !n.Allows(to.Addr()) {
		return &refusedAddressError{address: to.Addr().Unmap()}
	}
	return nil
}
