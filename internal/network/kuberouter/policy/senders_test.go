package policy

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"k0s.io/k0s/inttest/frame"
)

// claim is what the CNI plugin says of a guest.
func (g *guest) claim(t testing.TB, name string) Claim {
	t.Helper()
	return Claim{
		Container: "c-" + name, Namespace: "default", Name: name, UID: types.UID("uid-" + name), Addresses: g.addresses,
		Port: fmt.Sprint("veth", g.addresses[0].As4()[3]), MAC: MAC(g.link(t).Attrs().HardwareAddr),
	}
}

// held tells whether the pod behind a port is held to its own addresses.
func held(t testing.TB, port string) bool {
	t.Helper()
	c, err := nftables.New()
	must(t, err)
	elements, err := c.GetSetElements(&nftables.Set{Name: portsSet, Table: &nftables.Table{Name: tableName, Family: nftables.TableFamilyBridge}})
	return err == nil && slices.ContainsFunc(elements, func(e nftables.SetElement) bool { return string(bytes.TrimRight(e.Key, "\x00")) == port })
}

// link is the guest's interface.
func (g *guest) link(t testing.TB) (link netlink.Link) {
	t.Helper()
	g.do(func() {
		var err error
		link, err = netlink.LinkByName(fmt.Sprint("peer", g.addresses[0].As4()[3]))
		must(t, err)
	})
	return link
}

// forgeries are how many frames were dropped.
func forgeries(t testing.TB) (packets uint64) {
	t.Helper()
	c, err := nftables.New()
	must(t, err)
	table := &nftables.Table{Name: tableName, Family: nftables.TableFamilyBridge}
	rules, err := c.GetRules(table, &nftables.Chain{Name: forgedChain, Table: table})
	must(t, err)
	for _, r := range rules {
		for _, e := range r.Exprs {
			if counter, ok := e.(*expr.Counter); ok {
				packets += counter.Packets
			}
		}
	}
	return packets
}

// Whatever a pod does to be taken for another one of its node works without the table, and not with it.
func TestSenders(t *testing.T) {
	alone(t, func(t *testing.T) {
		bridged(t)
		forger, target, friend := newGuest(t, 11), newGuest(t, 12), newGuest(t, 13)
		own, mac, friendMAC := forger.link(t), target.link(t).Attrs().HardwareAddr, friend.link(t).Attrs().HardwareAddr
		ownMAC := own.Attrs().HardwareAddr
		node, err := netlink.LinkByName(bridge)
		must(t, err)
		nodeMAC := node.Attrs().HardwareAddr
		pods := []*Pod{on("here", "default", "forger"), on("here", "default", "target"), on("here", "default", "friend")}
		for i, g := range []*guest{forger, target, friend} {
			pods[i].Addresses = g.addresses
			g.serve(t, 80)
		}
		k := NewKernel(guard)
		must(t, k.Apply(compile(t, Objects{Pods: pods, Policies: policies(t, `
spec: {podSelector: {matchLabels: {app: target}}, ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}]}]}`)})))

		// The kernel takes a moment to connect a new interface.
		for i := range 2 {
			eventually(t, "pods are connected", func() bool { return friend.reaches(target.addresses[i], 80) && forger.reaches(friend.addresses[i], 80) })
		}

		received := make(chan string, 100)
		listen := func() {
			server, err := frame.Receive(90, received)
			must(t, err)
			t.Cleanup(func() { server.Close() })
		}
		listen()
		target.do(listen)

		// All of these are for the target, or for the node, by UDP.
		nodeIP := netip.MustParseAddr("10.244.0.1")
		const reserved = "to the node by an address reserved for bridges"
		datagrams := map[string][]byte{
			reserved: frame.Ethernet(net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 0xe}, ownMAC, nil, frame.Datagram(friend.addresses[0], nodeIP, 90, reserved)),
		}
		for i, to := range target.addresses {
			for _, f := range []struct {
				what      string
				mac       net.HardwareAddr
				tags      []byte
				addresses []netip.Addr
			}{
				{"another pod's address", ownMAC, nil, friend.addresses},
				{"another pod's address and hardware", friendMAC, nil, friend.addresses},
				{"another pod's address after a tag", ownMAC, frame.Tag, friend.addresses},
				{"two tags", ownMAC, frame.TwoTags, forger.addresses},
				{"two tags of different kinds", ownMAC, frame.Stacked, forger.addresses},
			} {
				what := fmt.Sprintf("%s, by %v", f.what, f.addresses[i])
				datagrams[what] = frame.Ethernet(mac, f.mac, f.tags, frame.Datagram(f.addresses[i], to, 90, what))
			}
		}
		// These are to have it believe that the friend, or the way to all, is at the forger's hardware address.
		forgerLocal := linkLocal([6]byte(ownMAC))
		arp := frame.ARP(ownMAC, friend.addresses[0], target.addresses[0])
		nd := func(from netip.Addr, message ...[]byte) []byte {
			return frame.Ethernet(mac, ownMAC, nil, frame.Packet(from, target.addresses[1], protocolICMPv6, slices.Concat(message...), 2))
		}
		about := func(a netip.Addr, option byte) []byte { return slices.Concat(a.AsSlice(), []byte{option, 1}, ownMAC) }
		override := []byte{icmp6NeighbourAdvert, 0, 0, 0, 0x20, 0, 0, 0}
		lies := map[string][]byte{
			"ARP":                    frame.Ethernet(mac, ownMAC, nil, arp),
			"ARP in another's frame": frame.Ethernet(mac, friendMAC, nil, arp),
			"solicitation":           nd(friend.addresses[1], []byte{icmp6NeighbourSolicit, 0, 0, 0, 0, 0, 0, 0}, about(target.addresses[1], 1)),
			"advertisement":          nd(forger.addresses[1], override, about(friend.addresses[1], 2)),
			"another's":              nd(friend.addresses[1], override, about(friend.addresses[1], 2)),
			"router":                 nd(forgerLocal, []byte{icmp6RouterAdvert, 0, 0, 0, 64, 0, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0}),
		}
		believes := func() (lied bool) {
			target.do(func() {
				link, err := netlink.LinkByName("peer12")
				must(t, err)
				neighbours, err := netlink.NeighList(link.Attrs().Index, 0)
				must(t, err)
				for _, n := range neighbours {
					lied = lied || slices.ContainsFunc(friend.addresses, func(a netip.Addr) bool { return n.IP.Equal(a.AsSlice()) }) && bytes.Equal(n.HardwareAddr, ownMAC)
				}
				routes, err := netlink.RouteList(link, netlink.FAMILY_V6)
				must(t, err)
				lied = lied || slices.ContainsFunc(routes, func(r netlink.Route) bool { return r.Gw.Equal(forgerLocal.AsSlice()) })
			})
			return lied
		}
		// forget has the target know the truth, and nothing else.
		forget := func() {
			target.do(func() {
				link, err := netlink.LinkByName("peer12")
				must(t, err)
				for _, a := range friend.addresses {
					must(t, netlink.NeighSet(&netlink.Neigh{LinkIndex: link.Attrs().Index, IP: a.AsSlice(), HardwareAddr: friendMAC, State: netlink.NUD_STALE}))
				}
				routes, err := netlink.RouteList(link, netlink.FAMILY_V6)
				must(t, err)
				for _, r := range routes {
					if r.Gw.Equal(forgerLocal.AsSlice()) {
						must(t, netlink.RouteDel(&r))
					}
				}
			})
		}
		// end is what may pass, and comes after what was sent before it.
		end := func(what string) {
			t.Helper()
			forger.do(func() {
				send(t, own, frame.Ethernet(nodeMAC, ownMAC, nil, frame.Datagram(forger.addresses[0], nodeIP, 90, what)))
			})
		}

		for what, content := range datagrams {
			forger.do(func() { send(t, own, content) })
			if got := receive(t, received); got != what {
				t.Errorf("without the table %q is received, not %q", got, what)
			}
		}
		for what, content := range lies {
			forget()
			if believes() {
				t.Fatal("what is true is taken for a lie")
			}
			forger.do(func() { send(t, own, content) })
			eventually(t, "without the table is believed: "+what, believes)
		}
		forget()

		senders := NewSenders()
		must(t, senders.Prepare())
		claims := []Claim{forger.claim(t, "forger"), target.claim(t, "target"), friend.claim(t, "friend")}
		must(t, senders.Apply(senderModel(claims)))
		must(t, showReserved("veth11"))
		for what, content := range datagrams {
			before := forgeries(t)
			forger.do(func() { send(t, own, content) })
			end(what + ": end")
			if got := receive(t, received); got != what+": end" {
				t.Errorf("received: %s", got)
				receive(t, received)
			}
			eventually(t, "counted: "+what, func() bool { return forgeries(t) == before+1 })
		}
		for what, content := range lies {
			before := forgeries(t)
			forger.do(func() { send(t, own, content) })
			end("end")
			receive(t, received)
			if believes() {
				t.Errorf("believed: %s", what)
				forget()
			}
			eventually(t, "counted: "+what, func() bool { return forgeries(t) == before+1 })
		}

		// What pods do of their own accord is none of it: they ask for each other, for their own addresses, and
		// whether these are free; nor is what comes by ports that are in no claim.
		before := forgeries(t)
		newcomer := newGuest(t, 14)
		newcomer.serve(t, 80)
		must(t, senders.Apply(senderModel(append(claims, newcomer.claim(t, "newcomer")))))
		stranger := newGuest(t, 15)
		stranger.serve(t, 80)
		must(t, k.Apply(compile(t, Objects{Pods: append(pods, &Pod{Node: "here", Addresses: newcomer.addresses}, &Pod{Node: "here", Addresses: stranger.addresses})})))
		for i := range 2 {
			for _, g := range []*guest{newcomer, stranger, friend} {
				if !g.reaches(target.addresses[i], 80) || !g.reaches(g.addresses[i], 80) || g != friend && !friend.reaches(g.addresses[i], 80) {
					t.Errorf("%v is cut off", g.addresses[i])
				}
			}
		}
		newcomer.do(func() {
			link, err := netlink.LinkByName("peer14")
			must(t, err)
			eventually(t, "a pod finds its own address free", func() bool {
				list, err := netlink.AddrList(link, netlink.FAMILY_V6)
				must(t, err)
				return len(list) == 2 && !slices.ContainsFunc(list, func(a netlink.Addr) bool { return a.Flags&unix.IFA_F_TENTATIVE != 0 })
			})
		})
		if after := forgeries(t); after != before {
			t.Errorf("%d of the frames that pods send of their own accord are dropped", after-before)
		}
	})
}

// receive what is received next.
func receive(t *testing.T, from <-chan string) string {
	t.Helper()
	select {
	case text := <-from:
		return text
	case <-time.After(20 * time.Second):
		t.Fatal("nothing is received")
		return ""
	}
}
