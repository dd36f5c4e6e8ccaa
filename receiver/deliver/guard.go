package deliver

import (
	"context"
	"fmt"
	"net/netip"
	"syscall"
)

// guard refuses addresses at dial time, after DNS: who may write a webhook must not reach the cloud's
// metadata service or the receiver's own admin port through it. IPv4 addresses written as IPv6 count
// as what they are.
func guard(allowLoopback bool) func(ctx context.Context, network, address string, _ syscall.RawConn) error {
	return func(_ context.Context, _, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("read the address to dial: %w", err)
		}
		ip := to.Addr().Unmap()
		if ip.IsLoopback() && allowLoopback {
			return nil
		}
		if ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsUnspecified() || ip.IsMulticast() {
			return &refusedAddressError{address: ip}
		}
		return nil
	}
}
