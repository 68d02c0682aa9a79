package policy

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Names in the table of what each pod may send. Policies know pods by their addresses: here a pod is held to its own.
const (
	sendersChain    = "senders"    // frames that ports of bridges get
	neighboursChain = "neighbours" // IPv6 from a pod's own address
	forgedChain     = "forged"     // what a pod may not send

	portsSet = "ports"
)

// ownSet are ports, with the hardware address and the addresses of the pod at each.
func ownSet(f Family) string { return "own-" + string(f) }

// Where things are in headers: Ethernet's, ARP's for it (RFC 826) and neighbour discovery's (RFC 4861).
const (
	etherSource, etherType    = 6, 12
	arpSenderMAC, arpSenderIP = 8, 14
	ndTarget                  = 8
)

// Types of ICMPv6 messages, RFC 4861 and RFC 2710.
const (
	icmp6ListenerQuery      = 130
	icmp6ListenerReport     = 131
	icmp6ListenerDone       = 132
	icmp6RouterAdvert       = 134
	icmp6NeighbourSolicit   = 135
	icmp6NeighbourAdvert    = 136
	icmp6ListenerReportNext = 143 // RFC 3810
)

// senderLayout is the table without pods. It sees frames before the packets in them are looked at or changed, and
// before the bridge learns whose hardware address is where. Ports that are not in it belong to others, or to pods
// that run nothing yet.
func senderLayout() layout {
	port := []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: register}}
	own := func(f Family, mac, address []expr.Any) []expr.Any {
		return join(port, mac, address, lookup(ownSet(f), false))
	}
	// A name takes four registers, a hardware address two.
	const macRegister, addressRegister = register + 4, register + 6
	sourceMAC := payload(expr.PayloadBaseLLHeader, etherSource, 6, macRegister)
	ownTarget := own(IPv6, sourceMAC, payload(expr.PayloadBaseTransportHeader, ndTarget, 16, addressRegister))
	nobody := join(etherTypeIs(unix.ETH_P_IPV6), load(IPv6, source), []expr.Any{equal(netip.IPv6Unspecified().AsSlice()...)}, protocolIs(protocolICMPv6))
	forged := verdict(expr.VerdictGoto, forgedChain)
	drop := verdict(expr.VerdictDrop, "")

	senders := [][]expr.Any{
		join(etherTypeIs(unix.ETH_P_IP), own(IPv4, sourceMAC, loadTo(addressRegister, IPv4, source)), accept()),
		join(etherTypeIs(unix.ETH_P_IPV6), own(IPv6, sourceMAC, loadTo(addressRegister, IPv6, source)), verdict(expr.VerdictGoto, neighboursChain)),
		join(port, lookup(portsSet, true), accept()),
		join(etherTypeIs(unix.ETH_P_ARP),
			own(IPv4, sourceMAC, payload(expr.PayloadBaseNetworkHeader, arpSenderIP, 4, addressRegister)),
			own(IPv4, payload(expr.PayloadBaseNetworkHeader, arpSenderMAC, 6, macRegister), payload(expr.PayloadBaseNetworkHeader, arpSenderIP, 4, addressRegister)),
			accept()),
		// A pod asks whether somebody else has its address. Of listeners the kernel tells before that is answered.
		join(nobody, icmpTypeBetween(icmp6NeighbourSolicit, icmp6NeighbourSolicit), ownTarget, accept()),
		join(nobody, icmpTypeBetween(icmp6ListenerReport, icmp6ListenerDone), drop),
		join(nobody, icmpTypeBetween(icmp6ListenerReportNext, icmp6ListenerReportNext), drop),
		forged,
	}
	neighbours := [][]expr.Any{
		join(protocolIs(protocolICMPv6), icmpTypeBetween(icmp6NeighbourAdvert, icmp6NeighbourAdvert), ownTarget, accept()),
	}
	for _, t := range []byte{icmp6NeighbourAdvert, icmp6RouterAdvert, icmp6Redirect, icmp6ListenerQuery} {
		neighbours = append(neighbours, join(protocolIs(protocolICMPv6), icmpTypeBetween(t, t), forged))
	}
	const priority = -200 // that of filters on bridges; br_netfilter's is 0
	return layout{
		name: SenderTable, family: nftables.TableFamilyBridge,
		sets: senderModel(nil).Sets,
		chains: []*nftables.Chain{
			{Name: forgedChain}, {Name: neighboursChain}, filterChain(sendersChain, nftables.ChainHookPrerouting, priority),
		},
		rules: map[string][][]expr.Any{
			forgedChain: {join(counter(), drop)}, neighboursChain: neighbours, sendersChain: senders,
		},
	}
}

func payload(base expr.PayloadBase, offset, length, to uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: to, Base: base, Offset: offset, Len: length}}
}

// etherTypeIs is false for a tagged frame.
func etherTypeIs(t uint16) []expr.Any {
	return append(payload(expr.PayloadBaseLLHeader, etherType, 2, register), equal(byte(t>>8), byte(t)))
}

// showReserved has the bridge treat what a pod sends to 01:80:c2:00:00:00 to …:0f (IEEE 802.1D) as any other frames. Else
// the host takes these as if they did not come by the bridge, and the table does not see them.
func showReserved(port string) error {
	link, err := netlink.LinkByName(port)
	if err == nil {
		const allButPause = 0xffff &^ (1 << 1) // which is for the hardware, and always dropped
		err = netlink.LinkSetBRSlaveGroupFwdMask(link, allButPause)
	}
	if err != nil {
		return fmt.Errorf("having all that comes by the pod's port %s filtered: %w", port, err)
	}
	return nil
}

// senderModel holds pods to the addresses that they have been given, and to the link-local one that comes with
// their hardware address.
func senderModel(claims []Claim) *Model {
	ports := &Set{Kind: Interfaces, Elements: map[Element]string{}}
	own := map[Family]*Set{}
	for _, f := range []Family{IPv4, IPv6} {
		own[f] = &Set{Kind: Senders, Family: f, Elements: map[Element]string{}}
	}
	for _, c := range claims {
		if c.Port == "" {
			continue
		}
		mac := [6]byte(c.MAC)
		ports.Elements[Element{Interface: c.Port}] = ""
		for _, a := range append([]netip.Addr{linkLocal(mac)}, c.Addresses...) {
			own[FamilyOf(a)].Elements[Element{Interface: c.Port, MAC: mac, Address: a}] = ""
		}
	}
	return &Model{Sets: map[string]*Set{portsSet: ports, ownSet(IPv4): own[IPv4], ownSet(IPv6): own[IPv6]}}
}

// linkLocal is the address that an interface gives itself, RFC 4291 (2.5.6).
func linkLocal(mac [6]byte) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5]})
}
