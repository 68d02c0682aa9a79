package routes

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// watchKernel notifies t of all that may have changed what it made: a route of ours or to where ours lead,
// any address, any interface, a neighbour at the other end of a tunnel. The channel tells that it has ended.
func (t *Table) watchKernel() (stop func(), failed <-chan error, err error) {
	socket, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
	if err != nil {
		return nil, nil, fmt.Errorf("subscribing to the kernel's events of routes: %w", err)
	}
	done, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(done)
		for {
			messages, _, err := socket.Receive()
			switch {
			case errors.Is(err, unix.ENOBUFS): // some were lost
				t.notify()
			case err != nil:
				ended <- fmt.Errorf("receiving the kernel's events of routes: %w", err)
				return
			case slices.ContainsFunc(messages, t.concerns):
				t.notify()
			}
		}
	}()
	return func() { socket.Close(); <-done }, ended, nil
}

// concerns tells whether an event may be about what t made.
func (t *Table) concerns(m syscall.NetlinkMessage) bool {
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK, unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return true
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		// Neighbours come and go all the time: only permanent ones are as ours.
		const stateOffset = 8
		return len(m.Data) >= stateOffset+2 && binary.NativeEndian.Uint16(m.Data[stateOffset:])&unix.NUD_PERMANENT != 0 ||
			m.Header.Type == unix.RTM_DELNEIGH
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		if len(m.Data) < unix.SizeofRtMsg {
			return false
		}
		const bitsOffset, protocolOffset = 1, 5
		if m.Data[protocolOffset] == Protocol {
			return true
		}
		attributes, err := nl.ParseRouteAttr(m.Data[unix.SizeofRtMsg:])
		if err != nil {
			return true
		}
		for _, a := range attributes {
			if a.Attr.Type == unix.RTA_DST {
				addr, _ := netip.AddrFromSlice(a.Value)
				return t.leadsTo(netip.PrefixFrom(addr, int(m.Data[bitsOffset])))
			}
		}
	}
	return false
}

// leadsTo tells whether there is a path to a destination.
func (t *Table) leadsTo(destination netip.Prefix) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.ContainsFunc(t.remote, func(p Path) bool { return p.Destination == destination })
}

// subnet is one that an interface of this host is in.
type subnet struct {
	prefix  netip.Prefix
	address netip.Addr
	link    netlink.LinkAttrs
}

type subnetList []subnet

// subnets are those of this host, without the addresses of its tunnels.
func subnets() (subnetList, error) {
	links, err := dump(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("listing interfaces: %w", err)
	}
	addresses, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("listing addresses: %w", err)
	}
	byIndex := map[int]netlink.LinkAttrs{}
	for _, link := range links {
		byIndex[link.Attrs().Index] = *link.Attrs()
	}
	var list subnetList
	for _, a := range addresses {
		link := byIndex[a.LinkIndex]
		if link.Name == tunnelName(netlink.FAMILY_V4) || link.Name == tunnelName(netlink.FAMILY_V6) || a.IP.IsLoopback() {
			continue
		}
		n := a.IPNet
		if a.Peer != nil {
			n = a.Peer
		}
		if prefix := prefixOf(n); prefix.IsValid() && !prefix.Addr().IsLinkLocalUnicast() {
			list = append(list, subnet{prefix, addrOf(a.IP), link})
		}
	}
	return list, nil
}

// to finds the interface, by its index, in whose subnet an address is: the narrowest one.
func (l subnetList) to(a netip.Addr) (link int, ok bool) {
	bits := -1
	for _, s := range l {
		if s.prefix.Contains(a) && s.prefix.Bits() > bits {
			link, bits = s.link.Index, s.prefix.Bits()
		}
	}
	return link, bits >= 0
}

// own finds the subnet of this host that a route to a destination would take away from it, whole or the part with
// the host's address.
func (l subnetList) own(destination netip.Prefix) (subnet, bool) {
	i := slices.IndexFunc(l, func(s subnet) bool {
		return s.prefix == destination || s.prefix.Bits() <= destination.Bits() && destination.Contains(s.address)
	})
	if i < 0 {
		return subnet{}, false
	}
	return l[i], true
}

// mtu is that of the interface that has an address; for one on the loopback interface, as where routers tell of
// hosts, the smallest of all others.
func (l subnetList) mtu(address netip.Addr) (int, bool) {
	i := slices.IndexFunc(l, func(s subnet) bool { return s.address == address })
	if i < 0 {
		return 0, false
	}
	mtu := l[i].link.MTU
	if l[i].link.Flags&net.FlagLoopback != 0 {
		for _, s := range l {
			mtu = min(mtu, s.link.MTU)
		}
	}
	return mtu, true
}

// dump lists something, once more when it changed meanwhile.
func dump[T any](list func() ([]T, error)) (all []T, err error) {
	for range 10 {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
	}
	return all, err
}

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(addrOf(n.IP), ones).Masked()
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
