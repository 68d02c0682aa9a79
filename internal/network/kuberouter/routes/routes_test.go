package routes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"k0s.io/k0s/internal/journal"
)

// host is a network namespace of its own for the test's goroutine: with eth0, which has the addresses.
func host(t *testing.T, addresses ...string) {
	t.Helper()
	runtime.LockOSThread() // for good: the thread ends with the test's goroutine
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	ip(t, "link add eth0 type veth peer name far")
	ip(t, "link set lo up")
	ip(t, "link set far up")
	for _, a := range addresses {
		ip(t, "addr add %s dev eth0 nodad", a)
	}
	ip(t, "link set eth0 up")
}

// ip runs a command of iproute2 and returns its lines, trimmed.
func ip(t *testing.T, format string, args ...any) []string {
	t.Helper()
	words := strings.Fields(fmt.Sprintf(format, args...))
	out, err := exec.CommandContext(t.Context(), "ip", words...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %s: %v: %s", strings.Join(words, " "), err, out)
	}
	return lines(string(out))
}

func lines(text string) []string {
	var all []string
	for line := range strings.Lines(text) {
		if line = strings.Join(strings.Fields(line), " "); line != "" {
			all = append(all, line)
		}
	}
	return all
}

func table(t *testing.T, o Options) *Table {
	t.Helper()
	j, err := journal.Open(filepath.Join(t.TempDir(), "journal"))
	if err != nil {
		t.Fatal(err)
	}
	o.Journal, o.Log = j, slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	return New(o)
}

func path(destination, via string) Path {
	return Path{Destination: netip.MustParsePrefix(destination), NextHop: netip.MustParseAddr(via)}
}

func outside(destination, via string) Path {
	p := path(destination, via)
	p.Outside = true
	return p
}

// kernelRoutes lists the kernel's routes of our protocol.
func kernelRoutes(t *testing.T) []string {
	t.Helper()
	all := append(ip(t, "-4 route show proto %d", Protocol), ip(t, "-6 route show proto %d", Protocol)...)
	for i := range all {
		all[i], _, _ = strings.Cut(all[i], " metric")
	}
	slices.Sort(all)
	return all
}

func want(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}

var (
	local = []Path{path("10.244.1.0/24", "192.0.2.1"), path("fd01:0:0:1::/64", "2001:db8::1")}
	near  = []Path{path("10.244.2.0/24", "192.0.2.2"), path("fd01:0:0:2::/64", "2001:db8::2")}
	far   = []Path{path("10.244.3.0/24", "198.51.100.3"), path("fd01:0:0:3::/64", "2001:db8:1::3")}
)

func TestApply(t *testing.T) {
	direct := []string{"10.244.2.0/24 via 192.0.2.2 dev eth0", "fd01:0:0:2::/64 via 2001:db8::2 dev eth0"}
	across := []string{"10.244.3.0/24 via 198.51.100.3 dev kube-overlay onlink", "fd01:0:0:3::/64 via fe80::2c6:7603:3847 dev kube-overlay6"}
	for _, tc := range []struct {
		overlay Overlay
		remote  []Path
		want    []string
		status  Status
	}{
		{Subnet, near, direct, Status{Direct: 2}},
		{Subnet, slices.Concat(near, far), slices.Concat(direct, across), Status{Encapsulation: VXLAN, Direct: 2, Tunnelled: 2}},
		{Off, slices.Concat(near, far), direct, Status{Direct: 2, Elsewhere: 2}},
		{Full, near, []string{"10.244.2.0/24 via 192.0.2.2 dev kube-overlay onlink", "fd01:0:0:2::/64 via fe80::249:44ea:2320 dev kube-overlay6"},
			Status{Encapsulation: VXLAN, Tunnelled: 2}},
		{Full, []Path{outside("203.0.113.0/24", "192.0.2.5"), outside("0.0.0.0/0", "198.51.100.5")},
			[]string{"203.0.113.0/24 via 192.0.2.5 dev eth0"}, Status{Direct: 1, Elsewhere: 1}},
		{Subnet, nil, nil, Status{}},
	} {
		t.Run(fmt.Sprintf("%s, %d paths", tc.overlay, len(tc.remote)), func(t *testing.T) {
			host(t, "192.0.2.1/24", "2001:db8::1/64")
			x := table(t, Options{Overlay: tc.overlay, Encapsulation: VXLAN})
			if got := x.apply(local, tc.remote); got != tc.status {
				t.Fatalf("got %+v, want %+v", got, tc.status)
			}
			want(t, "routes", kernelRoutes(t), tc.want...)
			before := everything(t)
			if got := table(t, Options{Overlay: tc.overlay, Encapsulation: VXLAN}).apply(local, tc.remote); got != tc.status {
				t.Fatalf("the second time: got %+v, want %+v", got, tc.status)
			}
			want(t, "what a second run changes", everything(t), before...)
			x.apply(local, nil)
			want(t, "routes to nobody", kernelRoutes(t))
			if left := ip(t, "link show type vxlan"); len(left) > 0 {
				t.Errorf("there is a tunnel to nobody: %q", left)
			}
			want(t, "filter for nobody", filter(t))
		})
	}
}

// everything is all that we make in the kernel, so that it shows when it is made anew.
func everything(t *testing.T) []string {
	t.Helper()
	all := append(kernelRoutes(t), filter(t)...)
	all = append(all, ip(t, "-d link show type vxlan")...)
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		link, err := netlink.LinkByName(tunnelName(family))
		if err != nil {
			continue
		}
		addresses, err1 := netlink.AddrList(link, netlink.FAMILY_ALL)
		neighbours, err2 := netlink.NeighList(link.Attrs().Index, family)
		forwarding, err3 := netlink.NeighList(link.Attrs().Index, unix.AF_BRIDGE)
		if err := errors.Join(err1, err2, err3); err != nil {
			t.Fatal(err)
		}
		for _, a := range addresses {
			all = append(all, a.IP.String())
		}
		for _, n := range append(neighbours, forwarding...) {
			if n.State == unix.NUD_PERMANENT { // others are the kernel's own
				all = append(all, n.String())
			}
		}
	}
	slices.Sort(all)
	return all
}

// filter is what is in our nftables table, with the handles of the rules, which are others when it is made anew.
func filter(t *testing.T) []string {
	t.Helper()
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	tables, err := c.ListTables()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, table := range tables {
		sets, err := c.GetSets(table)
		if err != nil {
			t.Fatal(err)
		}
		for _, set := range sets {
			elements, err := c.GetSetElements(set)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range elements {
				node, _ := netip.AddrFromSlice(e.Key)
				all = append(all, set.Name+" "+node.String())
			}
		}
		rules, err := c.GetRules(table, &nftables.Chain{Name: "input", Table: table})
		if err != nil {
			t.Fatal(err)
		}
		for _, rule := range rules {
			comment, _ := userdata.GetString(rule.UserData, userdata.TypeComment)
			all = append(all, fmt.Sprintf("%s %d %s", table.Name, rule.Handle, comment))
		}
	}
	slices.Sort(all)
	return all
}

func TestTunnel(t *testing.T) {
	host(t, "192.0.2.1/24", "2001:db8::1/64")
	x := table(t, Options{Encapsulation: VXLAN})
	if s := x.apply(local, far); s.Err != nil {
		t.Fatal(s.Err)
	}
	for name, mtu := range map[string]int{"kube-overlay": 1450, "kube-overlay6": 1430} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		if link.Attrs().MTU != mtu {
			t.Errorf("the MTU of %s is %d, want %d", name, link.Attrs().MTU, mtu)
		}
		if filter, err := os.ReadFile("/proc/sys/net/ipv4/conf/" + name + "/rp_filter"); err != nil || string(filter) != "2\n" {
			t.Errorf("rp_filter of %s is %s (%v)", name, filter, err)
		}
	}
	want(t, "neighbours", ip(t, "-4 neigh show dev kube-overlay"), "198.51.100.3 lladdr 02:6b:c6:33:64:03 PERMANENT")
	want(t, "filter", slices.DeleteFunc(filter(t), func(s string) bool { return strings.HasPrefix(s, filterTable) }),
		"nodes4 198.51.100.3", "nodes6 2001:db8:1::3")
	want(t, "addresses", ip(t, "-br -4 addr show dev kube-overlay"), "kube-overlay UNKNOWN 10.244.1.0/32")

	// The node gets another address, and the other one leaves for a third.
	ip(t, "addr add 192.0.2.9/24 dev eth0")
	moved := []Path{path("10.244.1.0/24", "192.0.2.9")}
	if s := x.apply(moved, []Path{path("10.244.3.0/24", "198.51.100.4")}); s.Err != nil {
		t.Fatal(s.Err)
	}
	want(t, "routes", kernelRoutes(t), "10.244.3.0/24 via 198.51.100.4 dev kube-overlay onlink")
	want(t, "neighbours", ip(t, "-4 neigh show dev kube-overlay"), "198.51.100.4 lladdr 02:6b:c6:33:64:04 PERMANENT")
	if got := strings.Join(ip(t, "-d link show dev kube-overlay"), " "); !strings.Contains(got, "local 192.0.2.9") || !strings.Contains(got, "02:6b:c0:00:02:09") {
		t.Errorf("the tunnel begins elsewhere: %s", got)
	}
	if left := ip(t, "-6 route show proto %d", Protocol); len(left) > 0 {
		t.Errorf("left: %q", left)
	}

	if s := x.apply([]Path{path("10.244.1.0/24", "192.0.2.77")}, far[:1]); s.Err == nil || !strings.Contains(s.Err.Error(), "no interface of this host has the address 192.0.2.77") {
		t.Errorf("got %v", s.Err)
	}
	if s := x.apply(nil, far[:1]); s.Err == nil || !strings.Contains(s.Err.Error(), "this node's own address") {
		t.Errorf("got %v", s.Err)
	}
	if s := x.apply(local, []Path{path("fd01::/64", "192.0.2.2")}); s.Err == nil || !strings.Contains(s.Err.Error(), "the other family") {
		t.Errorf("got %v", s.Err)
	}
}

// Routers may say what leads elsewhere, but the host's own networks and routes stay its own.
func TestHostsOwnRoutes(t *testing.T) {
	host(t, "192.0.2.1/24", "2001:db8::1/64")
	ip(t, "addr add 198.51.100.1/24 dev eth0 noprefixroute")
	ip(t, "addr add 203.0.113.1/24 dev eth0 metric 100")
	ip(t, "route add 10.1.0.0/16 via 192.0.2.9")
	ip(t, "route add 10.2.0.0/16 via 192.0.2.9 metric 50")
	ip(t, "route add blackhole 10.3.0.0/16")
	ip(t, "-6 route add 2001:db8:9::/48 via 2001:db8::9")
	all := func() []string {
		routes := append(ip(t, "-4 -N route show"), ip(t, "-6 -N route show")...)
		slices.Sort(routes)
		return slices.DeleteFunc(routes, func(r string) bool { return strings.HasPrefix(r, "fe80::") }) // come when they like
	}
	before := all()
	x := table(t, Options{Encapsulation: VXLAN})
	var said []Path
	for _, destination := range []string{
		"192.0.2.0/24", "192.0.2.0/25", "198.51.100.0/24", "203.0.113.0/24", "10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16",
	} {
		said = append(said, outside(destination, "192.0.2.5"))
	}
	for _, destination := range []string{"2001:db8::/64", "2001:db8::/127", "2001:db8:9::/48"} {
		said = append(said, outside(destination, "2001:db8::5"))
	}
	if s, want := x.apply(local, said), (Status{Refused: len(said)}); s != want {
		t.Errorf("got %+v, want %+v", s, want)
	}
	want(t, "routes", all(), before...)

	taken := []Path{
		outside("192.0.0.0/16", "192.0.2.5"), outside("192.0.2.128/25", "192.0.2.5"), outside("10.1.7.0/24", "192.0.2.5"), outside("10.4.0.0/16", "192.0.2.5"),
	}
	if s, want := x.apply(local, append(said, taken...)), (Status{Refused: len(said), Direct: len(taken)}); s != want {
		t.Errorf("got %+v, want %+v", s, want)
	}
	if got := kernelRoutes(t); len(got) != len(taken) {
		t.Errorf("routes: %q", got)
	}
	// It gives way to one that an administrator adds.
	ip(t, "route append 10.4.0.0/16 via 192.0.2.9")
	x.apply(local, taken[3:])
	want(t, "routes of ours", kernelRoutes(t))
	ip(t, "route del 10.4.0.0/16 via 192.0.2.9")
	want(t, "routes when all is withdrawn", all(), before...)

	// A pod network that is this host's own network cannot work, and must not cut it off.
	if s := x.apply(local, []Path{path("192.0.2.0/24", "192.0.2.2")}); s.Err == nil || !strings.Contains(s.Err.Error(), "eth0") {
		t.Errorf("got %v", s.Err)
	}
	want(t, "routes", all(), before...)
}

// The filter guards the port that is in use, also after it was changed.
func TestAnotherPort(t *testing.T) {
	host(t, "192.0.2.1/24")
	for _, port := range []int{DefaultPort, 8472} {
		if s := table(t, Options{Encapsulation: VXLAN, Port: port}).apply(local[:1], far[:1]); s.Err != nil {
			t.Fatal(s.Err)
		}
		if all := strings.Join(filter(t), "\n"); !strings.Contains(all, fmt.Sprintf("port %d", port)) {
			t.Errorf("port %d is not guarded: %s", port, all)
		}
	}
}

// Behind the address of their node, pods would pass for it: what only nodes may say to each other they may not.
func TestPodsAreNoNodes(t *testing.T) {
	host(t, "192.0.2.1/24")
	ip(t, "route add default via 192.0.2.254")
	ip(t, "link add kube-bridge type veth peer name pod")
	ip(t, "addr add 10.244.1.1/24 dev kube-bridge")
	ip(t, "link set kube-bridge up")
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
		t.Fatal(err)
	}
	x := table(t, Options{Encapsulation: VXLAN, Bridge: "kube-bridge", BGPPort: 179})
	if s := x.apply(local[:1], []Path{near[0], far[0], outside("203.0.113.0/24", "192.0.2.5")}); s.Err != nil {
		t.Fatal(s.Err)
	}
	node, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	pod, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer pod.Close()
	if err := netns.Set(node); err != nil {
		t.Fatal(err)
	}
	link, err := netlink.LinkByName("pod")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(netlink.LinkSetNsFd(link, int(pod)), netns.Set(pod)); err != nil {
		t.Fatal(err)
	}
	ip(t, "link set pod up")
	ip(t, "addr add 10.244.1.2/24 dev pod")
	ip(t, "route add default via 10.244.1.1")
	say := func(kind int, to string, text ...byte) {
		socket, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(socket) //nolint:errcheck // of no consequence
		peer := netip.MustParseAddrPort(to)
		err = unix.Connect(socket, &unix.SockaddrInet4{Addr: peer.Addr().As4(), Port: int(peer.Port())})
		if kind == unix.SOCK_DGRAM && err == nil {
			_, err = unix.Write(socket, text)
		}
		if err != nil && !errors.Is(err, unix.EINPROGRESS) {
			t.Fatal(err)
		}
	}
	// First what may pass, and last what may not: when that is counted, all has been.
	ours, others := []byte{8, 0, 0, 0, 0, 0x6b, 0x30, 0}, []byte{8, 0, 0, 0, 0, 0, 1, 0}
	say(unix.SOCK_DGRAM, "198.51.100.3:4789", others...)
	say(unix.SOCK_DGRAM, "198.51.100.3:4790", ours...)
	say(unix.SOCK_DGRAM, "198.51.100.77:4789", ours...)
	say(unix.SOCK_STREAM, "192.0.2.5:179") // a router may be whom pods talk to
	say(unix.SOCK_DGRAM, "198.51.100.3:4789", ours...)
	say(unix.SOCK_STREAM, "198.51.100.3:179")
	say(unix.SOCK_STREAM, "192.0.2.2:179")
	if err := netns.Set(node); err != nil {
		t.Fatal(err)
	}
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	filter := &nftables.Table{Family: nftables.TableFamilyINet, Name: filterTable}
	for begin, dropped := time.Now(), []uint64(nil); !slices.Equal(dropped, []uint64{1, 2}); {
		if time.Since(begin) > 20*time.Second {
			t.Fatalf("dropped of the tunnel and of BGP: %d", dropped)
		}
		dropped = nil
		rules, err := c.GetRules(filter, &nftables.Chain{Name: "forward", Table: filter})
		if err != nil {
			t.Fatal(err)
		}
		for _, rule := range rules {
			for _, e := range rule.Exprs {
				if counter, ok := e.(*expr.Counter); ok {
					dropped = append(dropped, counter.Packets)
				}
			}
		}
	}
	// Without a tunnel there is still BGP to guard.
	if s := x.apply(local[:1], near[:1]); s.Err != nil {
		t.Fatal(s.Err)
	}
	if rules, err := c.GetRules(filter, &nftables.Chain{Name: "forward", Table: filter}); err != nil || len(rules) != 1 {
		t.Errorf("%d rules (%v)", len(rules), err)
	}
	x.apply(local[:1], nil)
	if left := ip(t, "link show type vxlan"); len(left) > 0 || tableThere(t) {
		t.Errorf("left: %q", left)
	}
}

func tableThere(t *testing.T) bool {
	t.Helper()
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	tables, err := c.ListTables()
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(tables, func(x *nftables.Table) bool { return x.Name == filterTable })
}

func TestProbe(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want Encapsulation
	}{
		{nil, IPIP}, {unix.EEXIST, IPIP}, {unix.EOPNOTSUPP, VXLAN}, {unix.EPERM, ""},
	} {
		got, err := probe(func(netlink.Link) error { return tc.err })
		if got != tc.want || (err == nil) != (tc.want != "") {
			t.Errorf("when the kernel says %v: %q, %v; want %q", tc.err, got, err, tc.want)
		}
	}
}

// What others do to the kernel is undone, by its events alone.
func TestRun(t *testing.T) {
	host(t, "192.0.2.1/24", "2001:db8::1/64")
	x := table(t, Options{Encapsulation: VXLAN})
	ip(t, "route add 10.244.9.0/24 via 192.0.2.9 proto %d", Protocol) // of a node that is gone
	ctx, cancel := context.WithCancel(t.Context())
	ns, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- errors.Join(netns.Set(ns), x.Run(ctx))
	}()
	x.Set(local, slices.Concat(near, far))
	all := []string{"10.244.2.0/24 via 192.0.2.2 dev eth0", "10.244.3.0/24 via 198.51.100.3 dev kube-overlay onlink",
		"fd01:0:0:2::/64 via 2001:db8::2 dev eth0", "fd01:0:0:3::/64 via fe80::2c6:7603:3847 dev kube-overlay6"}
	neighbour := "198.51.100.3 lladdr 02:6b:c6:33:64:03 PERMANENT"
	eventually := func(after string) {
		t.Helper()
		begin := time.Now()
		for {
			link, err := netlink.LinkByName("kube-overlay")
			if err == nil && link.Attrs().OperState != netlink.OperDown && slices.Equal(kernelRoutes(t), all) && slices.Equal(ip(t, "-4 neigh show dev kube-overlay"), []string{neighbour}) {
				t.Logf("%s: as it should be after %v", after, time.Since(begin).Round(time.Millisecond))
				return
			}
			if time.Since(begin) > 20*time.Second {
				t.Fatalf("after %s: %q, %v", after, kernelRoutes(t), x.Status().Err)
			}
		}
	}
	eventually("the start")
	for _, deed := range []string{
		"route del 10.244.2.0/24", "route del 10.244.3.0/24", "-6 route del fd01:0:0:2::/64",
		"route replace 10.244.2.0/24 via 192.0.2.7", "route flush proto 107",
		"link set eth0 down", "link set eth0 up", "link del kube-overlay", "link set kube-overlay down", "neigh flush dev kube-overlay nud permanent",
		"addr flush dev eth0",
	} {
		ip(t, "%s", deed)
		switch deed {
		case "link set eth0 down":
			continue
		case "addr flush dev eth0":
			ip(t, "addr add 192.0.2.1/24 dev eth0")
			ip(t, "addr add 2001:db8::1/64 dev eth0 nodad")
		case "link set eth0 up":
			ip(t, "addr replace 2001:db8::1/64 dev eth0 nodad")
		}
		eventually(deed)
	}
	// The filter, as `nft flush ruleset` does.
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	c.FlushRuleset()
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); len(filter(t)) != 4; {
		if time.Since(begin) > 20*time.Second {
			t.Fatalf("the filter was flushed, and is %q", filter(t))
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	want(t, "routes after the end", kernelRoutes(t), all...)
	if err := Remove(); err != nil {
		t.Error(err)
	}
	want(t, "routes after they were taken back", kernelRoutes(t))
}

// A node's address may be on the loopback interface, where routers know the way to it.
func TestAddressOnLoopback(t *testing.T) {
	host(t, "192.0.2.1/31")
	ip(t, "addr add 203.0.113.1/32 dev lo")
	x := table(t, Options{Encapsulation: VXLAN})
	if s := x.apply([]Path{path("10.244.1.0/24", "203.0.113.1")}, []Path{path("10.244.2.0/24", "203.0.113.2")}); s.Err != nil {
		t.Fatal(s.Err)
	}
	want(t, "routes", kernelRoutes(t), "10.244.2.0/24 via 203.0.113.2 dev kube-overlay onlink")
	if got := strings.Join(ip(t, "-d link show dev kube-overlay"), " "); !strings.Contains(got, "mtu 1450") || !strings.Contains(got, "local 203.0.113.1") {
		t.Errorf("got %s", got)
	}
}

func TestPortInUse(t *testing.T) {
	host(t, "192.0.2.1/24")
	taken, err := net.ListenUDP("udp4", &net.UDPAddr{Port: DefaultPort})
	if err != nil {
		t.Fatal(err)
	}
	x := table(t, Options{Encapsulation: VXLAN})
	if s := x.apply(local[:1], far[:1]); s.Err == nil || !strings.Contains(s.Err.Error(), "overlay-encap-port") {
		t.Errorf("got %v", s.Err)
	}
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	if s := x.apply(local[:1], far[:1]); s.Err != nil {
		t.Error(s.Err)
	}
}

// This machine's kernel may be without IPIP: what is asked of it, at least, and when it is asked anew.
func TestDevice(t *testing.T) {
	one, two := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	attrs := netlink.LinkAttrs{Name: "kube-overlay", MTU: 1480}
	ipip, ok := device(IPIP, one, 4789, attrs).(*netlink.Iptun)
	if !ok || !ipip.Local.Equal(one.AsSlice()) || ipip.Remote != nil || ipip.PMtuDisc != 1 || ipip.Name != "kube-overlay" || ipip.HardwareAddr != nil {
		t.Errorf("got %+v", ipip)
	}
	// The kernel says 0.0.0.0 where nothing was asked for.
	told := *ipip
	told.Remote = netip.IPv4Unspecified().AsSlice()
	for _, tc := range []struct {
		name    string
		present netlink.Link
		want    bool
	}{
		{"the same", &told, true},
		{"from another address", device(IPIP, two, 4789, attrs), false},
		{"VXLAN", device(VXLAN, one, 4789, attrs), false},
		{"somebody's", &netlink.Dummy{LinkAttrs: attrs}, false},
	} {
		if got := sameTunnel(tc.present, ipip); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
	vxlan := device(VXLAN, one, 4789, attrs)
	for other, want := range map[netlink.Link]bool{
		device(VXLAN, one, 4789, attrs): true, device(VXLAN, one, 8472, attrs): false, device(VXLAN, two, 4789, attrs): false,
	} {
		if got := sameTunnel(other, vxlan); got != want {
			t.Errorf("%+v: %v", other, got)
		}
	}
	for node, want := range map[netip.Addr][2]int{one: {20, 50}, netip.MustParseAddr("2001:db8::1"): {40, 70}} {
		if got := [2]int{Overhead(IPIP, node), Overhead(VXLAN, node)}; got != want {
			t.Errorf("the overhead between nodes such as %s is %v, not %v", node, got, want)
		}
	}
}
