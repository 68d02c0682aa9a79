package testhost

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"sync/atomic"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// CutLink pulls the host's network cable out. It stays out when the host is killed and booted.
func (h *Host) CutLink(ctx context.Context) error { return h.setLink(ctx, true) }

// JoinLink plugs the host's network cable in again.
func (h *Host) JoinLink(ctx context.Context) error { return h.setLink(ctx, false) }

func (h *Host) setLink(ctx context.Context, cut bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cut = cut
	if h.init == nil {
		return nil
	}
	return h.plug(ctx)
}

// plug has the host's cable in or out, as it should be.
func (h *Host) plug(ctx context.Context) error {
	state := "up"
	if h.cut {
		state = "down"
	}
	return run(ctx, "ip", "link", "set", h.veth, state)
}

// SlowLink lets no more than so many kilobits a second through the host's network cable, in each
// direction; 0 is as many as there are. A reboot ends it. (This says nothing of delay: that takes the
// kernel's netem, which not every machine has.)
func (h *Host) SlowLink(ctx context.Context, kilobits int) error {
	command := func(dev string) []string {
		if kilobits == 0 {
			return []string{"tc", "qdisc", "replace", "dev", dev, "root", "noqueue"}
		}
		return []string{"tc", "qdisc", "replace", "dev", dev, "root", "tbf",
			"rate", strconv.Itoa(kilobits) + "kbit", "burst", "16kb", "latency", "200ms"}
	}
	_, err := h.Output(ctx, command("eth0")...)
	return errors.Join(err, run(ctx, command(h.veth)...))
}

// Traffic is a kind of packets. Every field narrows it down; the zero value is all packets.
type Traffic struct {
	// Peer is the address, or a prefix (10.77.0.0/24), at the other end.
	Peer string
	// Protocol is tcp or udp. Default: tcp if a port is given, else any.
	Protocol string
	// Port is the one that the packets go to, SourcePort the one they come from.
	Port, SourcePort int
	// SparesReplies leaves those packets out that belong to connections begun in the other direction.
	SparesReplies bool
}

// Drop is traffic that is lost on its way, until Mend.
type Drop struct {
	h     *Host
	pid   int
	table string
}

var drops atomic.Int64

// DropIncoming loses packets that arrive at the host from its network, for it or its pods. A reboot ends it.
func (h *Host) DropIncoming(t Traffic) (*Drop, error) { return h.drop(t, true) }

// DropOutgoing loses packets that the host or its pods send to its network. A reboot ends it.
func (h *Host) DropOutgoing(t Traffic) (*Drop, error) { return h.drop(t, false) }

func (h *Host) drop(t Traffic, incoming bool) (*Drop, error) {
	match, err := t.match(incoming)
	if err != nil {
		return nil, err
	}
	// After connections are tracked, and where packets still, or again, have the addresses of the wire.
	hook, priority := nftables.ChainHookPostrouting, nftables.ChainPriorityRef(300)
	if incoming {
		hook, priority = nftables.ChainHookPrerouting, nftables.ChainPriorityRef(-150)
	}
	d := &Drop{h: h, pid: h.Pid(), table: fmt.Sprintf("testhost-%d", drops.Add(1))}
	err = d.change(func(c *nftables.Conn) {
		table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: d.table})
		chain := c.AddChain(&nftables.Chain{
			Name: "drop", Table: table, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: priority,
		})
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(match, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop})})
	})
	if err != nil {
		return nil, fmt.Errorf("dropping %+v on %s: %w", t, h.Name, err)
	}
	return d, nil
}

// Mend lets the traffic through again.
func (d *Drop) Mend() error {
	if d.h.Pid() != d.pid {
		return nil // has rebooted
	}
	err := d.change(func(c *nftables.Conn) {
		c.DelTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: d.table})
	})
	if err != nil {
		return fmt.Errorf("mending the network of %s: %w", d.h.Name, err)
	}
	return nil
}

func (d *Drop) change(with func(*nftables.Conn)) error {
	ns, err := netns.GetFromPid(d.pid)
	if err != nil {
		return err
	}
	defer ns.Close()
	c, err := nftables.New(nftables.WithNetNSFd(int(ns)))
	if err != nil {
		return err
	}
	with(c)
	return c.Flush()
}

// match is what nftables recognizes the traffic by, on a host's eth0.
func (t Traffic) match(incoming bool) ([]expr.Any, error) {
	equal := func(load expr.Any, value []byte) []expr.Any {
		return []expr.Any{load, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: value}}
	}
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, "eth0")
	device := expr.MetaKeyOIFNAME
	if incoming {
		device = expr.MetaKeyIIFNAME
	}
	match := equal(&expr.Meta{Key: device, Register: 1}, name)
	if t.Peer != "" {
		peer, err := netip.ParsePrefix(t.Peer)
		if err != nil {
			addr, notAddr := netip.ParseAddr(t.Peer)
			if notAddr != nil {
				return nil, fmt.Errorf("the peer %q is neither an address nor a prefix", t.Peer)
			}
			peer = netip.PrefixFrom(addr, addr.BitLen())
		}
		if !peer.Addr().Is4() || peer.Bits() == 0 {
			return nil, fmt.Errorf("the peer %q: must be IPv4, and everybody is the empty Peer", t.Peer)
		}
		match = append(match, equal(&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, []byte{unix.NFPROTO_IPV4})...)
		offset := uint32(16) // destination
		if incoming {
			offset = 12 // source
		}
		mask := binaryutil.BigEndian.PutUint32(^uint32(0) << (32 - peer.Bits()))
		match = append(match,
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: peer.Masked().Addr().AsSlice()})
	}
	if t.Protocol == "" && t.Port+t.SourcePort > 0 {
		t.Protocol = "tcp"
	}
	if t.Protocol != "" {
		number, ok := map[string]byte{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP}[t.Protocol]
		if !ok {
			return nil, fmt.Errorf("the protocol %q is neither tcp nor udp", t.Protocol)
		}
		match = append(match, equal(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, []byte{number})...)
	}
	for offset, port := range []int{t.SourcePort, t.Port} {
		if port != 0 {
			match = append(match, equal(
				&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: uint32(2 * offset), Len: 2},
				binaryutil.BigEndian.PutUint16(uint16(port)))...)
		}
	}
	if t.SparesReplies {
		const original = 0 // IP_CT_DIR_ORIGINAL
		match = append(match, equal(&expr.Ct{Key: expr.CtKeyDIRECTION, Register: 1}, []byte{original})...)
	}
	return match, nil
}

// ChangeAddress gives the host another address, as a new lease does: the old one is gone at once, with what
// used it. It stays through reboots.
func (h *Host) ChangeAddress(ctx context.Context) error {
	h.network.mu.Lock()
	h.network.count++
	address := fmt.Sprintf("10.77.%d.%d", h.network.number, 9+h.network.count)
	h.network.mu.Unlock()
	if h.Pid() != 0 {
		_, err := h.Output(ctx, "sh", "-ec", `ip addr flush dev eth0 scope global
			ip addr add "$1" dev eth0; ip route replace default via "$2"`, "sh", address+"/24", h.network.Gateway)
		if err := errors.Join(err, h.addRoutes(ctx)); err != nil {
			return fmt.Errorf("changing the address of %s: %w", h.Name, err)
		}
	}
	h.IP = address
	return nil
}
