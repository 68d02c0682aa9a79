package policy

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// cutFlows forgets the known flows that the model does not allow: their next packet is judged as a first
// one. It returns how many there were.
func cutFlows(m *Model, families []Family) (uint, error) {
	own, err := nodeAddresses()
	if err != nil {
		return 0, err
	}
	var count uint
	var errs []error
	for _, f := range families {
		family := netlink.InetFamily(unix.AF_INET)
		if f == IPv6 {
			family = unix.AF_INET6
		}
		n, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, denied{m, own})
		count += n
		if err != nil {
			errs = append(errs, fmt.Errorf("cutting flows that policies no longer allow: %w", err))
		}
	}
	return count, errors.Join(errs...)
}

// nodeAddresses are those of all interfaces of this node.
func nodeAddresses() (map[netip.Addr]bool, error) {
	list, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("listing this node's addresses: %w", err)
	}
	own := map[netip.Addr]bool{}
	for _, a := range list {
		if address, ok := netip.AddrFromSlice(a.IP); ok {
			own[address.Unmap()] = true
		}
	}
	return own, nil
}

// denied matches the flows that a model does not allow.
type denied struct {
	*Model
	// node is always allowed to reach its own pods.
	node map[netip.Addr]bool
}

// MatchConntrackFlow looks at a flow as the table does: from its sender to the one who answers, who is
// not whom it was sent to if that was a service.
func (d denied) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	from, ok1 := netip.AddrFromSlice(f.Forward.SrcIP)
	to, ok2 := netip.AddrFromSlice(f.Reverse.SrcIP)
	if !ok1 || !ok2 || f.Forward.Protocol == protocolICMP || f.Forward.Protocol == protocolICMPv6 {
		return false
	}
	if d.node[from.Unmap()] {
		return false
	}
	return !d.Allows(Flow{from.Unmap(), to.Unmap(), f.Forward.Protocol, f.Reverse.SrcPort})
}
