package policy

import (
	"errors"
	"fmt"
	"net"
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
	return deleteFlows(denied{m, own}, families)
}

// forgetFlows forgets the flows of these addresses: those of the pods that had them before.
func forgetFlows(addresses map[netip.Addr]bool, families []Family) error {
	if len(addresses) == 0 {
		return nil
	}
	_, err := deleteFlows(of(addresses), families)
	return err
}

func deleteFlows(which netlink.CustomConntrackFilter, families []Family) (uint, error) {
	var count uint
	var errs []error
	for _, f := range families {
		family := netlink.InetFamily(unix.AF_INET)
		if f == IPv6 {
			family = unix.AF_INET6
		}
		n, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, which)
		count += n
		if err != nil {
			errs = append(errs, fmt.Errorf("deleting flows: %w", err))
		}
	}
	return count, errors.Join(errs...)
}

// of matches the flows from or to addresses.
type of map[netip.Addr]bool

// MatchConntrackFlow looks at both directions: what a service's address stands for is only in the answer.
func (o of) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	for _, ip := range []net.IP{f.Forward.SrcIP, f.Forward.DstIP, f.Reverse.SrcIP, f.Reverse.DstIP} {
		if a, ok := netip.AddrFromSlice(ip); ok && o[a.Unmap()] {
			return true
		}
	}
	return false
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
