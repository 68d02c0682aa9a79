package policy

import (
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Names of the chains that are always there.
const (
	egressChain  = "egress"      // packets that pods send on
	ingressChain = "ingress"     // packets that pods are to get
	inputChain   = "egress-node" // packets from pods to their node
	refuseChain  = "refuse"      // packets that no policy allows
)

// Guard is what the table knows without policies.
type Guard struct {
	// Bridge is the interface that pods are connected by.
	Bridge string
	// Families that this node's pods have addresses of.
	Families []Family
}

// base are the rules of the chains that are always there, in the order in which packets meet the chains.
// A packet that is accepted in one base chain still has to pass the next one.
func (g Guard) base() map[string][][]expr.Any {
	// Replies, and errors about known flows. Neighbour discovery crosses the bridge as a packet does.
	start := [][]expr.Any{
		join(ctState(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), accept()),
		join(protocolIs(protocolICMPv6), icmpTypeBetween(icmp6RouterSolicit, icmp6Redirect), accept()),
	}
	egress := append([][]expr.Any{}, start...)
	ingress := append([][]expr.Any{}, start...)
	// Over the bridge goes what is from and to pods that have been entered: nothing with addresses that
	// somebody made up, and nothing by link-local or multicast addresses, which belong to no pod's chain.
	for _, f := range []Family{IPv4, IPv6} {
		fromBridge := join(iface(expr.MetaKeyIIFNAME, g.Bridge), familyIs(f))
		toBridge := join(iface(expr.MetaKeyOIFNAME, g.Bridge), familyIs(f))
		if slices.Contains(g.Families, f) {
			fromBridge = join(fromBridge, load(f, source), lookup(podsSet(f), true))
			toBridge = join(toBridge, load(f, destination), lookup(podsSet(f), true))
		}
		egress = append(egress, join(fromBridge, counter(), verdict(expr.VerdictDrop, "")))
		ingress = append(ingress, join(toBridge, counter(), verdict(expr.VerdictDrop, "")))
	}
	var refuse [][]expr.Any
	for _, f := range g.Families {
		// What the pod's chain has not accepted comes back. That the pod is isolated is asked apart from
		// where its chain is: the answer is the same at any moment of a change.
		egress = append(egress,
			join(familyIs(f), load(f, source), jumpByMap(verdictMap(Egress, f))),
			join(familyIs(f), load(f, source), lookup(isolatedSet(Egress, f), false), verdict(expr.VerdictGoto, refuseChain)))
		ingress = append(ingress,
			join(familyIs(f), load(f, destination), jumpByMap(verdictMap(Ingress, f))),
			join(familyIs(f), load(f, destination), lookup(isolatedSet(Ingress, f), false), verdict(expr.VerdictGoto, refuseChain)))
		// A pod reaches itself, by way of a service too.
		refuse = append(refuse, join(familyIs(f), loadPair(f), lookup(selfSet(f), false), accept()))
	}
	for _, t := range []byte{icmpEchoRequest, icmpUnreachable, icmpTimeExceeded} {
		refuse = append(refuse, join(protocolIs(protocolICMP), icmpTypeBetween(t, t), accept()))
	}
	refuse = append(refuse,
		join(protocolIs(protocolICMPv6), icmpTypeBetween(icmp6Unreachable, icmp6TimeExceeded), accept()),
		join(protocolIs(protocolICMPv6), icmpTypeBetween(icmp6EchoRequest, icmp6EchoReply), accept()),
		// Answering a stray packet would end a connection that goes on.
		join(ctState(expr.CtStateBitINVALID), counter(), verdict(expr.VerdictDrop, "")),
		// TCP is told by a reset, for of ICMP messages the kernel sends few a second. But a reset across the
		// bridge has the address of the pod, not that of the service that was called.
		join(ctStatus(statusDNAT), counter(), unreachable()),
		join(protocolIs(protocolTCP), counter(), []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}),
		join(counter(), unreachable()))
	return map[string][][]expr.Any{egressChain: egress, ingressChain: ingress, inputChain: egress, refuseChain: refuse}
}

// Types of ICMP messages, RFC 792 and RFC 4443. The first two are those of neighbour discovery, RFC 4861.
const (
	icmp6RouterSolicit = 133
	icmp6Redirect      = 137

	icmpUnreachable   = 3
	icmpEchoRequest   = 8
	icmpTimeExceeded  = 11
	icmp6Unreachable  = 1 // 2 is packet too big
	icmp6TimeExceeded = 3
	icmp6EchoRequest  = 128
	icmp6EchoReply    = 129
)

// layout is the table without policies.
func (g Guard) layout() layout {
	empty, _ := Compile(Objects{Families: g.Families}) // without objects there is none that cannot be understood
	return layout{
		name: Table, family: nftables.TableFamilyINet, sets: empty.Sets, rules: g.base(),
		chains: []*nftables.Chain{
			{Name: refuseChain},
			filterChain(inputChain, nftables.ChainHookInput, *nftables.ChainPriorityFilter),
			filterChain(egressChain, nftables.ChainHookForward, *nftables.ChainPriorityFilter-1), // before ingress
			filterChain(ingressChain, nftables.ChainHookForward, *nftables.ChainPriorityFilter),
		},
	}
}

func filterChain(name string, hook *nftables.ChainHook, priority nftables.ChainPriority) *nftables.Chain {
	return &nftables.Chain{Name: name, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: nftables.ChainPriorityRef(priority)}
}

// exprs of a rule of a chain of direction d.
func (r Rule) exprs(d Direction) []expr.Any {
	if r.Jump != "" {
		return verdict(expr.VerdictJump, r.Jump)
	}
	var e []expr.Any
	if r.Family != "" {
		e = append(e, familyIs(r.Family)...)
	}
	if r.Protocol != 0 {
		e = append(e, protocolIs(r.Protocol)...)
	}
	if r.Last != 0 {
		e = append(e, portBetween(r.First, r.Last)...)
	}
	if r.Peers != "" {
		peer := source
		if d == Egress {
			peer = destination
		}
		e = append(e, join(load(r.Family, peer), lookup(r.Peers, false))...)
	}
	if r.Endpoints != "" {
		e = append(e, join(loadEndpoint(r.Family), lookup(r.Endpoints, false))...)
	}
	return append(e, accept()...)
}

// end of a packet's way.
type end int

const (
	source end = iota
	destination
)

// Registers of 4 bytes each; an address of IPv6 takes four.
const register = unix.NFT_REG32_00

func join(parts ...[]expr.Any) []expr.Any {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func accept() []expr.Any  { return verdict(expr.VerdictAccept, "") }
func counter() []expr.Any { return []expr.Any{&expr.Counter{}} }

func verdict(k expr.VerdictKind, chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: k, Chain: chain}}
}

func equal(data ...byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: data}
}

func familyIs(f Family) []expr.Any {
	number := byte(unix.NFPROTO_IPV4)
	if f == IPv6 {
		number = unix.NFPROTO_IPV6
	}
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: register}, equal(number)}
}

func protocolIs(number byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register}, equal(number)}
}

func iface(k expr.MetaKey, name string) []expr.Any {
	return []expr.Any{&expr.Meta{Key: k, Register: register}, equal(paddedName(name)...)}
}

// paddedName is the name of an interface as the kernel compares it.
func paddedName(name string) []byte {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return padded
}

// ctState is true for packets of any of these states.
func ctState(states uint32) []expr.Any { return ctBits(expr.CtKeySTATE, states) }

// statusDNAT is IPS_DST_NAT of the kernel: the flow's destination has been replaced.
const statusDNAT = 1 << 5

func ctStatus(status uint32) []expr.Any { return ctBits(expr.CtKeySTATUS, status) }

func ctBits(k expr.CtKey, bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: k, Register: register},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: make([]byte, 4)},
	}
}

func unreachable() []expr.Any {
	return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH}}
}

func icmpTypeBetween(first, last byte) []expr.Any {
	load := &expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1}
	return append([]expr.Any{load}, between([]byte{first}, []byte{last})...)
}

func portBetween(first, last uint16) []expr.Any {
	return append(loadPort(register), between(binaryutil.BigEndian.PutUint16(first), binaryutil.BigEndian.PutUint16(last))...)
}

func between(first, last []byte) []expr.Any {
	if string(first) == string(last) {
		return []expr.Any{equal(first...)}
	}
	return []expr.Any{
		&expr.Cmp{Op: expr.CmpOpGte, Register: register, Data: first},
		&expr.Cmp{Op: expr.CmpOpLte, Register: register, Data: last},
	}
}

// loadPort loads the receiver's port, which is at the same place in TCP, UDP and SCTP.
func loadPort(to uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: to, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}}
}

// load loads the address of one end.
func load(f Family, e end) []expr.Any { return loadTo(register, f, e) }

func loadTo(to uint32, f Family, e end) []expr.Any {
	offset, length := uint32(12), uint32(4) // RFC 791
	if f == IPv6 {
		offset, length = 8, 16 // RFC 8200
	}
	if e == destination {
		offset += length
	}
	return []expr.Any{&expr.Payload{DestRegister: to, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length}}
}

// registers that an address takes.
func registers(f Family) uint32 {
	if f == IPv6 {
		return 4
	}
	return 1
}

func loadPair(f Family) []expr.Any {
	return join(load(f, source), loadTo(register+registers(f), f, destination))
}

func loadEndpoint(f Family) []expr.Any {
	after := register + registers(f)
	return join(load(f, destination), []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: after}}, loadPort(after+1))
}

// lookup goes on if what was loaded is in the set, or not in it.
func lookup(set string, invert bool) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: register, SetName: set, Invert: invert}}
}

// jumpByMap jumps to where the map says, if what was loaded is in it.
func jumpByMap(name string) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: register, SetName: name, IsDestRegSet: true, DestRegister: unix.NFT_REG_VERDICT}}
}
