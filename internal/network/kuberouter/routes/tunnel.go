package routes

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"k0s.io/k0s/internal/journal"
)

// Encapsulation is how packets of pods are wrapped.
type Encapsulation string

const (
	// IPIP puts an IP header before the packet.
	IPIP Encapsulation = "ipip"
	// VXLAN puts IP, UDP, VXLAN and Ethernet headers before it.
	VXLAN Encapsulation = "vxlan"
)

const (
	// DefaultPort is the UDP port of VXLAN, as registered.
	DefaultPort = 4789
	// VNI is the network number of ours, apart from other users of the port on the same host.
	VNI = 0x6b30
)

// tunnelName is the name of the tunnel's interface: one for all nodes with addresses of a family.
func tunnelName(family int) string {
	if family == netlink.FAMILY_V4 {
		return "kube-overlay"
	}
	return "kube-overlay6"
}

// Overhead is how many bytes wrapping a packet adds, with nodes that have addresses like node.
func Overhead(e Encapsulation, node netip.Addr) int {
	header := 20
	if node.Is6() {
		header = 40
	}
	if e == IPIP {
		return header
	}
	return header + 8 + 8 + 14 // UDP, VXLAN, Ethernet
}

// applyTunnel makes the tunnel from this node to others of its family, and returns the interface's index.
func (t *Table) applyTunnel(family int, local []Path, nodes []netip.Addr, links subnetList) (int, error) {
	i := slices.IndexFunc(local, func(p Path) bool { return familyOf(p.NextHop) == family })
	if i < 0 {
		return 0, fmt.Errorf("there can be no tunnel to nodes in other subnets (%s, …): this node's own address and pod CIDR of that family are not known", nodes[0])
	}
	own := local[i]
	mtu, there := links.mtu(own.NextHop)
	if !there {
		return 0, fmt.Errorf("there can be no tunnel to nodes in other subnets (%s, …): no interface of this host has the address %s that they know it by, until they are told of another one", nodes[0], own.NextHop)
	}
	e, name := t.encapsulation[family], tunnelName(family)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = name, mtu-Overhead(e, own.NextHop)
	want := device(e, own.NextHop, t.Port, attrs)
	index, err := t.applyLink(want)
	if err != nil {
		return 0, fmt.Errorf("the tunnel %s to nodes in other subnets: %w", name, err)
	}
	if err := applyTunnelAddress(index, own.Destination.Masked().Addr()); err != nil {
		return 0, fmt.Errorf("the address of the tunnel %s: %w", name, err)
	}
	if e == VXLAN {
		if err := applyNeighbours(family, index, nodes); err != nil {
			return 0, fmt.Errorf("the other ends of the tunnel %s: %w", name, err)
		}
	}
	return index, nil
}

// choose takes IPIP if the kernel can make such a tunnel, unless the Options say what to take.
func (t *Table) choose(family int) (err error) {
	switch {
	case t.encapsulation[family] != "":
	case family == netlink.FAMILY_V6:
		t.encapsulation[family] = VXLAN
	case t.Encapsulation != "":
		t.encapsulation[family] = t.Encapsulation
	default:
		t.encapsulation[family], err = probe(func(link netlink.Link) error {
			if err := t.Journal.Add(journal.Entry{Kind: journal.Link, Name: link.Attrs().Name}); err != nil {
				return err
			}
			if err := netlink.LinkAdd(link); err != nil {
				return err
			}
			return netlink.LinkDel(link)
		})
	}
	return err
}

// probe tries to make an IPIP tunnel.
func probe(try func(netlink.Link) error) (Encapsulation, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "kube-probe"
	err := try(device(IPIP, netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0, attrs))
	switch {
	case err == nil, errors.Is(err, unix.EEXIST):
		return IPIP, nil
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENODEV):
		return VXLAN, nil
	}
	return "", fmt.Errorf("trying whether the kernel has IPIP tunnels: %w", err)
}

// device is the tunnel's interface, which has no single other end: that is the next hop of a route.
func device(e Encapsulation, local netip.Addr, port int, attrs netlink.LinkAttrs) netlink.Link {
	if e == IPIP {
		return &netlink.Iptun{LinkAttrs: attrs, Local: local.AsSlice(), PMtuDisc: 1}
	}
	attrs.HardwareAddr = hardwareAddr(local)
	return &netlink.Vxlan{LinkAttrs: attrs, VxlanId: VNI, SrcAddr: local.AsSlice(), Port: port}
}

// hardwareAddr is that of the tunnel's interface on the node that has an address: no node has to ask for it.
func hardwareAddr(node netip.Addr) net.HardwareAddr {
	const local = 2 // administered
	if node.Is4() {
		return append(net.HardwareAddr{local, 0x6b}, node.AsSlice()...)
	}
	sum := sha256.Sum256(node.AsSlice())
	return append(net.HardwareAddr{local}, sum[:5]...)
}

// gateway is what the routes through the tunnel to a node lead to: the node itself, or, as IPv6 wants one that
// no other interface leads to, a link-local address.
func gateway(node netip.Addr) netip.Addr {
	if node.Is4() {
		return node
	}
	address := [16]byte{0: 0xfe, 1: 0x80}
	copy(address[10:], hardwareAddr(node))
	return netip.AddrFrom16(address)
}

// applyLink makes the interface, anew if it is another than wanted, and returns its index.
func (t *Table) applyLink(want netlink.Link) (int, error) {
	name := want.Attrs().Name
	present, err := netlink.LinkByName(name)
	if err != nil && !errors.As(err, new(netlink.LinkNotFoundError)) {
		return 0, err
	}
	if err == nil && !sameTunnel(present, want) {
		if err := netlink.LinkDel(present); err != nil {
			return 0, err
		}
		present = nil
	}
	if err != nil || present == nil {
		if err := t.Journal.Add(journal.Entry{Kind: journal.Link, Name: name}); err != nil {
			return 0, err
		}
		if err := netlink.LinkAdd(want); err != nil {
			return 0, fmt.Errorf("making an interface of type %s: %w: if the kernel does not have that, load its module, or set enable-overlay: "+
				"\"false\" in spec.network.kuberouter.extraArgs and tell the routers between the subnets where pods are", want.Type(), err)
		}
		if present, err = netlink.LinkByName(name); err != nil {
			return 0, err
		}
	}
	if present.Attrs().MTU != want.Attrs().MTU {
		if err := netlink.LinkSetMTU(present, want.Attrs().MTU); err != nil {
			return 0, err
		}
	}
	for file, value := range map[string]string{
		// Loose: what nodes send to pods may come by the tunnel with an address that is reached another way.
		"/proc/sys/net/ipv4/conf/" + name + "/rp_filter": "2",
		// No address of its own making: nobody is there to talk to by it.
		"/proc/sys/net/ipv6/conf/" + name + "/addr_gen_mode": "1",
	} {
		if err := os.WriteFile(file, []byte(value), 0o644); err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, err
		}
	}
	if present.Attrs().Flags&net.FlagUp == 0 {
		if err := netlink.LinkSetUp(present); err != nil {
			return 0, fmt.Errorf("setting it up: %w: if UDP port %d is somebody else's, choose another one for all nodes: "+
				"overlay-encap-port in spec.network.kuberouter.extraArgs", err, t.Port)
		}
	}
	return present.Attrs().Index, nil
}

// sameTunnel compares what can not be changed.
func sameTunnel(a, b netlink.Link) bool {
	switch a := a.(type) {
	case *netlink.Iptun:
		b, ok := b.(*netlink.Iptun)
		return ok && a.Local.Equal(b.Local) && unspecified(a.Remote)
	case *netlink.Vxlan:
		b, ok := b.(*netlink.Vxlan)
		return ok && a.SrcAddr.Equal(b.SrcAddr) && a.VxlanId == b.VxlanId && a.Port == b.Port && !a.Learning && unspecified(a.Group) &&
			bytes.Equal(a.HardwareAddr, b.HardwareAddr)
	}
	return false
}

func unspecified(ip net.IP) bool { return len(ip) == 0 || ip.IsUnspecified() }

// applyTunnelAddress gives the tunnel the one address that this host talks to pods behind it by: their answers
// find the way back, because it is in the network of this node's pods (its first, which no pod gets).
func applyTunnelAddress(index int, address netip.Addr) error {
	link, err := netlink.LinkByIndex(index)
	if err != nil {
		return err
	}
	want := netip.PrefixFrom(address, address.BitLen())
	present, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(link, familyOf(address)) })
	if err != nil {
		return err
	}
	there := false
	for _, a := range present {
		switch p := prefixOf(a.IPNet); {
		case p == want:
			there = true
		case !p.Addr().IsLinkLocalUnicast():
			if err := netlink.AddrDel(link, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
				return err
			}
		}
	}
	if there {
		return nil
	}
	a := &netlink.Addr{IPNet: ipNet(want)}
	if address.Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return netlink.AddrReplace(link, a)
}

// applyNeighbours tells a VXLAN interface which nodes there are: which hardware address each has (neighbours),
// and where packets for a hardware address go (forwarding database).
func applyNeighbours(family, index int, nodes []netip.Addr) error {
	for _, kind := range []int{family, unix.AF_BRIDGE} {
		missing := map[netip.Addr]net.HardwareAddr{}
		for _, node := range nodes {
			if kind == unix.AF_BRIDGE {
				missing[node] = hardwareAddr(node)
			} else {
				missing[gateway(node)] = hardwareAddr(node)
			}
		}
		present, err := dump(func() ([]netlink.Neigh, error) { return netlink.NeighList(index, kind) })
		if err != nil {
			return err
		}
		for _, n := range present {
			address := addrOf(n.IP)
			hardware, known := missing[address]
			switch {
			case address.IsMulticast() || address.IsUnspecified():
			case known && n.State&unix.NUD_PERMANENT != 0 && bytes.Equal(n.HardwareAddr, hardware):
				delete(missing, address)
			case !known:
				if err := netlink.NeighDel(&n); err != nil && !errors.Is(err, unix.ENOENT) {
					return fmt.Errorf("removing %s: %w", address, err)
				}
			}
		}
		for address, hardware := range missing {
			n := &netlink.Neigh{LinkIndex: index, Family: kind, State: unix.NUD_PERMANENT, IP: address.AsSlice(), HardwareAddr: hardware}
			if kind == unix.AF_BRIDGE {
				n.Flags = unix.NTF_SELF
			}
			if err := netlink.NeighSet(n); err != nil {
				return fmt.Errorf("adding %s: %w", address, err)
			}
		}
	}
	return nil
}

// removeLink deletes an interface, if it is there.
func removeLink(name string) error {
	link, err := netlink.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil {
		return fmt.Errorf("removing the interface %s: %w", name, err)
	}
	return nil
}
