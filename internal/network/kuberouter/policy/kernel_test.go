package policy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"k0s.io/k0s/internal/network/kuberouter/tablewatch"
	"k0s.io/k0s/inttest/frame"
)

// alone runs test, a whole test function, in a process with a network of its own.
func alone(t *testing.T, test func(*testing.T)) {
	t.Helper()
	const inside = "K0S_TEST_ALONE"
	if os.Getenv(inside) != "" {
		test(t)
		return
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1")
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	} else if testing.Verbose() {
		t.Logf("%s", out)
	}
}

// guest is a pod: a network of its own, which the bridge connects.
type guest struct {
	addresses []netip.Addr
	work      chan func()
}

// do runs f in the pod's network.
func (g *guest) do(f func()) {
	done := make(chan struct{})
	g.work <- func() { defer close(done); f() }
	<-done
}

const bridge = "kube-bridge"

var guard = Guard{Bridge: bridge, Families: []Family{IPv4, IPv6}}

// bridged makes a node's bridge.
func bridged(t testing.TB) {
	t.Helper()
	for path, value := range map[string]string{
		"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1",
		"net/bridge/bridge-nf-call-iptables": "1", "net/bridge/bridge-nf-call-ip6tables": "1",
		"net/bridge/bridge-nf-filter-vlan-tagged": "1",
		"net/ipv6/conf/default/accept_dad":        "0", "net/ipv6/conf/default/dad_transmits": "0",
	} {
		if err := os.WriteFile(filepath.Join("/proc/sys", path), []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	link := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridge}}
	must(t, netlink.LinkAdd(link))
	must(t, netlink.LinkSetUp(link))
	must(t, netlink.AddrAdd(link, address("10.244.0.1/24")))
	must(t, netlink.AddrAdd(link, address("fd00:244::1/64")))
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	must(t, netlink.LinkSetUp(lo))
}

// join makes a pod number n.
func newGuest(t testing.TB, n int) *guest {
	t.Helper()
	g := &guest{work: make(chan func()), addresses: []netip.Addr{
		netip.MustParseAddr(fmt.Sprint("10.244.0.", n)), netip.MustParseAddr(fmt.Sprintf("fd00:244::%x", n)),
	}}
	ready := make(chan error)
	var tid int
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			ready <- err
			return
		}
		tid = unix.Gettid()
		ready <- nil
		for f := range g.work {
			f()
		}
	}()
	must(t, <-ready)
	ns, err := netns.GetFromThread(os.Getpid(), tid)
	must(t, err)
	outside, inside := fmt.Sprint("veth", n), fmt.Sprint("peer", n)
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: outside}, PeerName: inside, PeerNamespace: netlink.NsFd(int(ns))}))
	port, err := netlink.LinkByName(outside)
	must(t, err)
	br, err := netlink.LinkByName(bridge)
	must(t, err)
	must(t, netlink.LinkSetMaster(port, br))
	must(t, netlink.LinkSetHairpin(port, true))
	must(t, netlink.LinkSetUp(port))
	g.do(func() {
		for _, name := range []string{"lo", inside} {
			link, err := netlink.LinkByName(name)
			must(t, err)
			must(t, netlink.LinkSetUp(link))
			if name != inside {
				continue
			}
			must(t, netlink.AddrAdd(link, address(g.addresses[0].String()+"/24")))
			a := address(g.addresses[1].String() + "/64")
			a.Flags = unix.IFA_F_NODAD
			must(t, netlink.AddrAdd(link, a))
			for _, via := range []string{"10.244.0.1", "fd00:244::1"} {
				must(t, netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(via), LinkIndex: link.Attrs().Index}))
			}
		}
	})
	t.Cleanup(func() { close(g.work); ns.Close() })
	return g
}

// serve answers on a TCP port, at all addresses.
func (g *guest) serve(t testing.TB, port int) {
	t.Helper()
	g.do(func() {
		l, err := net.Listen("tcp", fmt.Sprint(":", port))
		must(t, err)
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					buffer := make([]byte, 64)
					for {
						n, err := c.Read(buffer)
						if err != nil {
							return
						}
						if _, err := c.Write(buffer[:n]); err != nil {
							return
						}
					}
				}()
			}
		}()
	})
}

// dial connects; the answer to a refused one comes at once.
func (g *guest) dial(to netip.Addr, port int) (c net.Conn, err error) {
	g.do(func() { c, err = net.DialTimeout("tcp", netip.AddrPortFrom(to, uint16(port)).String(), 3*time.Second) })
	return c, err
}

// reaches tells whether a connection can be made.
func (g *guest) reaches(to netip.Addr, port int) bool {
	c, err := g.dial(to, port)
	if err == nil {
		c.Close()
	}
	return err == nil
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func address(text string) *netlink.Addr {
	a, err := netlink.ParseAddr(text)
	if err != nil {
		panic(err)
	}
	return a
}

func TestKernel(t *testing.T) {
	alone(t, func(t *testing.T) {
		bridged(t)
		k := NewKernel(guard)
		must(t, k.Prepare())
		a, b, c := newGuest(t, 11), newGuest(t, 12), newGuest(t, 13)
		for _, g := range []*guest{a, b, c} {
			g.serve(t, 80)
			g.serve(t, 81)
		}
		pod := func(name string, g *guest) *Pod {
			p := on("here", "default", name)
			p.Addresses = g.addresses
			p.Ports = []Port{{"web", protocolTCP, 81}}
			return p
		}
		pods := []*Pod{pod("a", a), pod("b", b), pod("c", c)}
		guests := map[string]*guest{"a": a, "b": b, "c": c}

		if a.reaches(b.addresses[0], 80) {
			t.Error("a pod that has not been entered is reached")
		}
		for _, tc := range []struct{ name, policies string }{
			{"none", ""},
			{"narrow in, wide out", `
spec:
  podSelector: {matchExpressions: [{key: app, operator: In, values: [a, b]}]}
  policyTypes: [Ingress, Egress]
  ingress: [{from: [{podSelector: {matchLabels: {app: c}}}], ports: [{port: 80}]}]
  egress: [{}]
`},
			{"deny all", "spec: {podSelector: {}, policyTypes: [Ingress, Egress]}"},
			{"named port", `
spec:
  podSelector: {matchLabels: {app: a}}
  ingress: [{from: [{podSelector: {matchLabels: {app: c}}}], ports: [{port: web}]}]
`},
			{"named port out", `
spec:
  podSelector: {matchLabels: {app: a}}
  policyTypes: [Egress]
  egress: [{to: [{podSelector: {matchLabels: {app: c}}}], ports: [{port: web}]}]
`},
			{"blocks", `
spec:
  podSelector: {matchLabels: {app: a}}
  policyTypes: [Egress, Ingress]
  egress:
  - to: [{ipBlock: {cidr: 10.244.0.0/16, except: [10.244.0.12/32]}}, {ipBlock: {cidr: 10.244.0.0/24, except: [10.244.0.8/29]}}, {ipBlock: {cidr: "::/0"}}]
    ports: [{port: 80, endPort: 81}]
  ingress:
  - from: [{ipBlock: {cidr: 0.0.0.0/0}}, {ipBlock: {cidr: "fd00:244::d/128"}}]
`},
		} {
			var list = policies(t, tc.policies)
			if tc.policies == "" {
				list = nil
			}
			m := compile(t, Objects{Pods: pods, Policies: list})
			if err := k.Apply(m); err != nil {
				t.Fatalf("%s: %v", tc.name, err)
			}
			for from, f := range guests {
				for to, g := range guests {
					for i := range 2 {
						for _, port := range []int{80, 81} {
							want := m.Allows(Flow{f.addresses[i], g.addresses[i], protocolTCP, uint16(port)})
							if got := f.reaches(g.addresses[i], port); got != want {
								t.Errorf("%s: %s to %s, %v, port %d: got %v", tc.name, from, to, g.addresses[i], port, got)
								return
							}
						}
					}
				}
			}
			// The node reaches all of its pods.
			for _, g := range guests {
				for _, to := range g.addresses {
					conn, err := net.DialTimeout("tcp", netip.AddrPortFrom(to, 80).String(), 3*time.Second)
					if err != nil {
						t.Errorf("%s: node to %v: %v", tc.name, to, err)
						continue
					}
					conn.Close()
				}
			}
		}
	})
}

// What is written to a large table at once is not taken for somebody else's change of it.
func TestOwnChangesOfALargeTable(t *testing.T) {
	alone(t, func(t *testing.T) {
		k := NewKernel(guard)
		must(t, k.Prepare())
		large := compile(t, Objects{})
		elements := map[Element]string{}
		for i := range 50_000 {
			elements[Element{Address: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}] = ""
		}
		large.Sets["large"] = &Set{Kind: Addresses, Family: IPv4, Elements: elements}
		mistaken, others := false, make(chan struct{})
		seen := sync.OnceFunc(func() { close(others) })
		_, stop, err := tablewatch.WatchOthers(tableName, func(port uint32) bool {
			if !k.owns(port) {
				seen()
			}
			return k.owns(port)
		}, func() {
			select {
			case <-others:
			default:
				mistaken = true
			}
		})
		must(t, err)
		must(t, k.Apply(large))
		n, err := nftables.New()
		must(t, err)
		n.AddChain(&nftables.Chain{Name: "foreign", Table: &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}})
		must(t, n.Flush())
		select {
		case <-others:
		case <-time.After(20 * time.Second):
			t.Error("somebody else's change is not told of")
		}
		if stop(); mistaken {
			t.Error("our own change is told of as somebody else's")
		}
	})
}

// Pods that run while there is no table are not cut off by one that knows none of them.
func TestPrepareWithPods(t *testing.T) {
	alone(t, func(t *testing.T) {
		bridged(t)
		newGuest(t, 11)
		must(t, NewKernel(guard).Prepare())
		if there, err := TableExists(); there || err != nil {
			t.Errorf("a table without pods is there: %t, %v", there, err)
		}
	})
}

// The answers to one transaction have a deadline, which does not matter to the next one, however much later that is.
func TestApplyMuchLater(t *testing.T) {
	alone(t, func(t *testing.T) {
		k := NewKernel(guard)
		must(t, k.Prepare())
		must(t, k.socket.SetDeadline(time.Unix(1, 0)))
		if err := k.apply(compile(t, Objects{}), (*transaction).takeOver); err != nil {
			t.Errorf("taking the table over: %v", err)
		}
	})
}

// A connection to a service is judged by the pod that it leads to, and is refused at once.
func TestService(t *testing.T) {
	alone(t, func(t *testing.T) {
		bridged(t)
		a, b := newGuest(t, 11), newGuest(t, 12)
		b.serve(t, 80)
		service := netip.MustParseAddr("10.96.0.10")
		redirect(t, service, 8080, b.addresses[0], 80)
		k := NewKernel(guard)
		pods := []*Pod{on("here", "default", "a"), on("here", "default", "b")}
		pods[0].Addresses, pods[1].Addresses = a.addresses, b.addresses
		for _, tc := range []struct {
			policies string
			want     error
		}{
			{`spec: {podSelector: {matchLabels: {app: nobody}}}`, nil},
			{`spec: {podSelector: {matchLabels: {app: b}}}`, unix.ECONNREFUSED},
			{`spec: {podSelector: {matchLabels: {app: b}}, ingress: [{from: [{podSelector: {matchLabels: {app: a}}}], ports: [{port: 80}]}]}`, nil},
			{`spec: {podSelector: {matchLabels: {app: b}}, ingress: [{ports: [{port: 8080}]}]}`, unix.ECONNREFUSED},
			{`spec: {podSelector: {matchLabels: {app: a}}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}]}]}`, nil},
			{`spec: {podSelector: {matchLabels: {app: a}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.96.0.0/16}}]}]}`, unix.ECONNREFUSED},
		} {
			must(t, k.Apply(compile(t, Objects{Pods: pods, Policies: policies(t, tc.policies)})))
			conn, err := a.dial(service, 8080)
			if err == nil {
				conn.Close()
			}
			if !errors.Is(err, tc.want) {
				t.Errorf("%s: got %v", tc.policies, err)
			}
		}
	})
}

// Addresses that are not those of pods are no way around policies, from one pod of a node to another.
func TestWaysAround(t *testing.T) {
	alone(t, func(t *testing.T) {
		bridged(t)
		a, b := newGuest(t, 11), newGuest(t, 12)
		pods := []*Pod{on("here", "default", "a"), on("here", "default", "b")}
		pods[0].Addresses, pods[1].Addresses = a.addresses, b.addresses
		k := NewKernel(guard)
		must(t, k.Apply(compile(t, Objects{Pods: pods, Policies: policies(t, `spec: {podSelector: {matchLabels: {app: b}}}`)})))
		received := make(chan string, 100)
		var mac net.HardwareAddr
		const linkLocal = "fe80::90"
		b.do(func() {
			link, err := netlink.LinkByName("peer12")
			must(t, err)
			mac = link.Attrs().HardwareAddr
			own := address(linkLocal + "/64")
			own.Flags = unix.IFA_F_NODAD
			must(t, netlink.AddrAdd(link, own))
			server, err := frame.Receive(90, received)
			must(t, err)
			t.Cleanup(func() { server.Close() })
		})
		a.do(func() {
			for what, to := range map[string]string{
				"link-local": "[" + linkLocal + "%peer11]:90", "all nodes": "[ff02::1%peer11]:90", "multicast": "224.0.0.1:90", "unicast": "10.244.0.12:90",
			} {
				conn, err := net.Dial("udp", to)
				must(t, err)
				defer conn.Close()
				_, err = conn.Write([]byte(what))
				must(t, err)
			}
			link, err := netlink.LinkByName("peer11")
			must(t, err)
			for what, tag := range map[string][]byte{"plain": nil, "tagged": frame.Tag} {
				send(t, link, frame.Ethernet(mac, link.Attrs().HardwareAddr, tag, frame.Datagram(a.addresses[0], b.addresses[0], 90, what)))
			}
		})
		must(t, k.Apply(compile(t, Objects{Pods: pods, Policies: policies(t, `spec: {podSelector: {matchLabels: {app: a}}, policyTypes: [Egress]}`)})))
		a.do(func() {
			link, err := netlink.LinkByName("peer11")
			must(t, err)
			send(t, link, frame.Ethernet(mac, link.Attrs().HardwareAddr, nil, frame.Datagram(netip.MustParseAddr("192.0.2.1"), b.addresses[0], 90, "by another address")))
		})
		// From the node it may come, and last.
		conn, err := net.Dial("udp", netip.AddrPortFrom(b.addresses[0], 90).String())
		must(t, err)
		defer conn.Close()
		_, err = conn.Write([]byte("end"))
		must(t, err)
		for got := <-received; got != "end"; got = <-received {
			t.Errorf("received: %s", got)
		}
	})
}

// send sends a frame from the network that link is in.
func send(t *testing.T, link netlink.Link, content []byte) {
	t.Helper()
	must(t, frame.Send(link.Attrs().Index, content))
}

// redirect makes a service of one pod, as kube-proxy does.
func redirect(t *testing.T, service netip.Addr, port uint16, pod netip.Addr, podPort uint16) {
	t.Helper()
	n, err := nftables.New()
	must(t, err)
	table := n.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "services"})
	chain := n.AddChain(&nftables.Chain{
		Name: "prerouting", Table: table, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest,
	})
	n.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: join(
		load(IPv4, destination), []expr.Any{equal(service.AsSlice()...)}, protocolIs(protocolTCP), portBetween(port, port),
		[]expr.Any{
			&expr.Immediate{Register: 1, Data: pod.AsSlice()}, &expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(podPort)},
			&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2},
		})})
	must(t, n.Flush())
}

// What a packet costs from its sender to its receiver, with few pods and with many. Nobody answers: each one is a
// first one for the policies. inttest/bench prints it.
func BenchmarkPacket(b *testing.B) {
	for _, pods := range []int{10, 100, 1000} {
		b.Run(fmt.Sprint(pods), func(b *testing.B) {
			runtime.LockOSThread() // and never unlocked: the network goes with the thread
			must(b, unix.Unshare(unix.CLONE_NEWNET))
			bridged(b)
			from, to := newGuest(b, 252), newGuest(b, 253)
			objects, list := scale(pods, 60)
			o := Objects{Policies: list, Namespaces: map[string]map[string]string{"default": nil}}
			objects = append(objects, apiPod("from", map[string]string{"app": "app1", "tier": "tier1"}, from.addresses[0]),
				apiPod("to", map[string]string{"app": "app1"}, to.addresses[0]))
			for _, p := range objects {
				trimmed, err := trimPod(p)
				must(b, err)
				k, _ := trimmed.(*known)
				o.Pods = append(o.Pods, &k.pod)
			}
			must(b, NewKernel(guard).Apply(compile(b, o)))
			claims := []Claim{from.claim(b, "from"), to.claim(b, "to")}
			for i, p := range objects[:pods] {
				claims = append(claims, Claim{Port: fmt.Sprintf("veth%08x", i), MAC: MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}, Addresses: []netip.Addr{netip.MustParseAddr(p.Status.PodIPs[0].IP)}})
			}
			must(b, NewSenders().Apply(senderModel(claims)))
			var receiver net.PacketConn
			var sender net.Conn
			var err error
			to.do(func() { receiver, err = net.ListenPacket("udp4", ":99") })
			must(b, err)
			defer receiver.Close()
			from.do(func() { sender, err = net.Dial("udp4", netip.AddrPortFrom(to.addresses[0], 99).String()) })
			must(b, err)
			defer sender.Close()
			packet := make([]byte, 100)
			for b.Loop() {
				_, err := sender.Write(packet)
				must(b, err)
				_, _, err = receiver.ReadFrom(packet)
				must(b, err)
			}
		})
	}
}
