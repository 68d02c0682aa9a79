// Package overlay runs a cluster across two subnets, with a router between them that knows nothing of pods:
// pods reach each other directly within a subnet, and through a tunnel across.
package overlay

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"k0s.io/k0s/inttest/cluster"
	"k0s.io/k0s/inttest/testhost"
)

// The parts are in the order of a cluster's life; each goes on where the one before ended.
func TestTwoSubnets(t *testing.T) {
	netA, netB := testhost.NewNetwork(t), testhost.NewNetwork(t)
	a, b := cluster.Hosts(t, netA, "c0", "a1", "a2"), cluster.Hosts(t, netB, "b1", "b2")
	router := testhost.Router(t, "router", netA, netB)
	b2 := b[1]
	forwardPolicy(t, b2, nftables.ChainPolicyAccept)
	before := cluster.Snapshot(t, b2)
	c := cluster.New(a[0])
	must(t, c.Start())
	ctx := deadline(t, 150*time.Second)
	must(t, c.WaitAPI(ctx))
	near := c.MustJoin(t, cluster.Worker, a[1:]...)
	must(t, c.WaitNodes(ctx, near...))
	pods := startPods(ctx, t, c, near...)
	exchangeAll(ctx, t, c, pods)
	for _, n := range near {
		if names := overlays(t, n.Host); len(names) > 0 {
			t.Errorf("all nodes are on one network, and %s has the tunnel %q", n.Host.Name, names)
		}
	}

	distant := c.MustJoin(t, cluster.Worker, b...)
	must(t, c.WaitNodes(ctx, distant...))
	pods = append(pods, startPods(ctx, t, c, distant...)...)
	exchangeAll(ctx, t, c, pods)

	t.Run("DirectOrWrapped", func(t *testing.T) {
		for _, from := range pods {
			for _, to := range pods {
				if from == to {
					continue
				}
				sent, arrived := wrapped(t, from.node.Host), wrapped(t, to.node.Host)
				must(t, from.exchange(ctx, to))
				sent, arrived = wrapped(t, from.node.Host)-sent, wrapped(t, to.node.Host)-arrived
				// The last packets of the pair before may come late; an exchange is a thousand and more.
				const few = 100
				if across := from.network != to.network; (sent > few) != across || (arrived > few) != across {
					t.Errorf("from %s to %s, across: %v: %d and %d packets were wrapped", from.name, to.name, across, sent, arrived)
				}
			}
		}
	})
	t.Run("HostsReachPods", func(t *testing.T) {
		for _, from := range append(near, distant...) {
			for _, to := range pods {
				must(t, testhost.InNetwork(from.Host.Pid(), func() error { return exchange(ctx, to.address) }))
			}
		}
		for _, from := range pods {
			for _, to := range append(near, distant...) {
				must(t, testhost.InNetwork(from.pid, func() error {
					conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(to.Host.IP, "10250"))
					if err != nil {
						return fmt.Errorf("from the pod on %s to the kubelet of %s: %w", from.name, to.Host.Name, err)
					}
					return conn.Close()
				}))
			}
		}
	})
	t.Run("OthersDelete", func(t *testing.T) {
		for _, to := range pods[1:] { // as seen from a1: on the same network, and across
			took := deleteRoute(t, near[0].Host, to.network24())
			t.Logf("the route to %s is back %v after it was deleted", to.name, took)
			if took > 10*time.Second {
				t.Errorf("that is too long")
			}
		}
		exchangeAll(ctx, t, c, pods)
	})
	t.Run("StrangersAreRefused", func(t *testing.T) {
		// The controller is no node: what it wraps is for nobody.
		h := a[0]
		index := wrapped(t, distant[0].Host)
		h.Run(t, "sh", "-ec", fmt.Sprintf(`ip link add stranger type vxlan id 27440 local %[1]s dstport 4789 nolearning
			ip link set stranger up; ip addr add 10.244.77.1/32 dev stranger
			ip route add %[2]s dev stranger
			ip neigh add %[2]s lladdr %[3]s dev stranger; bridge fdb add %[3]s dev stranger dst %[4]s`,
			h.IP, pods[2].address.Addr(), hardwareAddr(t, distant[0].Host), distant[0].Host.IP))
		must(t, testhost.InNetwork(h.Pid(), func() error {
			conn, err := dial(ctx, "udp", pods[2].address)
			if err != nil {
				return err
			}
			defer conn.Close()
			for range 10 {
				if _, err := conn.Write([]byte("let me in")); err != nil {
					return err
				}
			}
			return nil
		}))
		// What is refused is counted, and then has not been let in.
		must(t, c.Eventually(ctx, cluster.Patience, "the stranger to be refused", func(context.Context) error {
			if n := refused(t, distant[0].Host); n < 10 {
				return fmt.Errorf("%d packets were", n)
			}
			return nil
		}))
		h.Run(t, "ip", "link", "del", "stranger")
		if more := wrapped(t, distant[0].Host) - index; more >= 10 { // one or two may be the end of an exchange before
			t.Errorf("%d packets of a stranger came through the tunnel", more)
		}
	})
	t.Run("ForwardPolicyDrop", func(t *testing.T) {
		forwardPolicy(t, b2, nftables.ChainPolicyDrop)
		exchangeAll(ctx, t, c, pods)
		must(t, c.Eventually(ctx, cluster.Patience, "the rules", func(context.Context) error {
			if n := forwardRules(t, b2); n != 2 {
				return fmt.Errorf("there are %d", n)
			}
			return nil
		}))
	})
	t.Run("RestartTouchesNothing", func(t *testing.T) {
		h := near[0].Host
		was := kernel(t, h)
		_, err := near[0].Stop(ctx)
		must(t, err)
		if now := kernel(t, h); now != was {
			t.Errorf("without k0s there is\n%s\nnot\n%s", now, was)
		}
		near[0].Token = ""
		must(t, near[0].Start())
		must(t, near[0].WaitReady(ctx))
		if now := kernel(t, h); now != was {
			t.Errorf("after a restart there is\n%s\nnot\n%s", now, was)
		}
	})
	t.Run("NodeMoves", func(t *testing.T) {
		n := distant[0]
		old := n.Host.IP
		begin := time.Now()
		must(t, n.Host.ChangeAddress(ctx))
		must(t, c.Eventually(ctx, cluster.Patience, "all to know it by its new address", func(context.Context) error {
			for _, w := range append(near, distant...) {
				if now := kernel(t, w.Host); strings.Contains(now, old+" ") || (w != n) != strings.Contains(now, n.Host.IP+" ") {
					return fmt.Errorf("%s has\n%s", w.Host.Name, now)
				}
			}
			if tunnel := n.Host.Run(t, "ip", "-d", "link", "show", "kube-overlay"); !strings.Contains(tunnel, "local "+n.Host.IP+" ") {
				return fmt.Errorf("its tunnel is\n%s", tunnel)
			}
			return nil
		}))
		t.Logf("all know it by its new address after %.1f s", time.Since(begin).Seconds())
		exchangeAll(ctx, t, c, pods)
	})
	t.Run("NodeLeaves", func(t *testing.T) {
		gone := distant[1]
		pods[3].close(t)
		c.Must(t, "kubectl", "drain", "b2", "--ignore-daemonsets", "--force", "--grace-period=0")
		_, err := gone.Stop(ctx)
		must(t, err)
		c.Must(t, "kubectl", "delete", "node", "b2")
		c.Remove(gone)
		must(t, c.Eventually(ctx, cluster.Patience, "the others to forget b2", func(context.Context) error {
			for _, n := range append(near, distant[0]) {
				if now := kernel(t, n.Host); strings.Contains(now, gone.Host.IP+" ") || strings.Contains(now, pods[3].network24().String()) {
					return fmt.Errorf("%s has\n%s", n.Host.Name, now)
				}
			}
			return nil
		}))
		_, err = gone.K0s(ctx, "reset")
		must(t, err)
		if n := forwardRules(t, b2); n != 0 {
			t.Errorf("%d rules for pods are left", n)
		}
		cluster.MustBeAsBefore(t, gone.Host, before)
		exchangeAll(ctx, t, c, pods[:3])
	})
	// Neither did a pod's address ever get to the router.
	for _, counter := range []string{"Ip: OutNoRoutes", "IpExt: InNoRoutes", "TcpExt: IPReversePathFilter"} {
		if n := netstat(t, router, counter); n != 0 {
			t.Errorf("the router dropped %d packets: %s", n, counter)
		}
	}
}

// With overlay-type full, what stays on one network is wrapped, too, and pods' packets are smaller from the start.
func TestFull(t *testing.T) {
	hosts := cluster.Hosts(t, testhost.NewNetwork(t), "c0", "w1", "w2")
	hosts[0].Run(t, "mkdir", "-p", "/etc/k0s")
	must(t, hosts[0].WriteFile("/etc/k0s/k0s.yaml", []byte("spec: {network: {kuberouter: {extraArgs: {overlay-type: full}}}}"), 0o600))
	c := cluster.New(hosts[0])
	must(t, c.Start())
	ctx := deadline(t, time.Minute)
	must(t, c.WaitAPI(ctx))
	workers := c.MustJoin(t, cluster.Worker, hosts[1:]...)
	must(t, c.WaitNodes(ctx, workers...))
	pods := startPods(ctx, t, c, workers...)
	exchangeAll(ctx, t, c, pods)
	for _, p := range pods {
		must(t, p.in(func() error {
			link, err := netlink.LinkByName("eth0")
			if err == nil && link.Attrs().MTU != 1450 {
				t.Errorf("the MTU of the pod %s is %d", p.name, link.Attrs().MTU)
			}
			return err
		}))
	}
	sent := wrapped(t, hosts[1])
	must(t, pods[0].exchange(ctx, pods[1]))
	if wrapped(t, hosts[1]) == sent {
		t.Error("packets went unwrapped")
	}
}

// Both families go across, each by a tunnel of its own.
func TestDualStack(t *testing.T) {
	netA, netB := testhost.NewNetwork(t), testhost.NewNetwork(t)
	must(t, netA.Use(t.Context(), testhost.DualStack))
	must(t, netB.Use(t.Context(), testhost.DualStack))
	a, b := cluster.Hosts(t, netA, "c0", "a1"), cluster.Hosts(t, netB, "b1")
	testhost.Router(t, "router", netA, netB)
	a[0].Run(t, "mkdir", "-p", "/etc/k0s")
	must(t, a[0].WriteFile("/etc/k0s/k0s.yaml", []byte(
		"spec: {network: {dualStack: {enabled: true, IPv6podCIDR: 'fd00:10:244::/56', IPv6serviceCIDR: 'fd00:10:96::/112'}}}"), 0o600))
	c := cluster.New(a[0])
	must(t, c.Start())
	ctx := deadline(t, time.Minute)
	must(t, c.WaitAPI(ctx))
	workers := c.MustJoin(t, cluster.Worker, a[1], b[0])
	must(t, c.WaitNodes(ctx, workers...))
	pods := startPods(ctx, t, c, workers...)
	for _, p := range pods {
		if len(p.others) != 1 {
			t.Fatalf("the pod %s has no second address", p.name)
		}
	}
	exchangeAll(ctx, t, c, pods)
	if got := overlays(t, a[1]); !slices.Equal(got, []string{"kube-overlay", "kube-overlay6"}) {
		t.Errorf("the tunnels are %q", got)
	}
	for _, address := range append(pods[1].others, pods[1].address) {
		must(t, testhost.InNetwork(a[1].Pid(), func() error { return exchange(ctx, address) }))
	}
}

// overlays are the tunnels that a host has.
func overlays(t *testing.T, h *testhost.Host) []string {
	t.Helper()
	return strings.Fields(h.Run(t, "sh", "-c", "cd /sys/class/net; ls | grep -e kube-overlay -e tunl -e vxlan || true"))
}

// wrapped is how many packets a host has sent to or received from its tunnel.
func wrapped(t *testing.T, h *testhost.Host) (packets int) {
	t.Helper()
	for _, n := range strings.Fields(h.Run(t, "sh", "-ec", "cd /sys/class/net/kube-overlay/statistics; cat tx_packets rx_packets")) {
		count, err := strconv.Atoi(n)
		must(t, err)
		packets += count
	}
	return packets
}

// forwardPolicy makes the chain FORWARD as the nft variant of iptables has it; with the policy drop, as Docker does.
func forwardPolicy(t *testing.T, h *testhost.Host, policy nftables.ChainPolicy) {
	t.Helper()
	must(t, testhost.InNetwork(h.Pid(), func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		c.AddChain(&nftables.Chain{
			Name: "FORWARD", Table: c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "filter"}), Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &policy,
		})
		return c.Flush()
	}))
}

// forwardRules counts the rules in that chain.
func forwardRules(t *testing.T, h *testhost.Host) (count int) {
	t.Helper()
	must(t, testhost.InNetwork(h.Pid(), func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		table := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: "filter"}
		rules, err := c.GetRules(table, &nftables.Chain{Name: "FORWARD", Table: table})
		count = len(rules)
		return err
	}))
	return count
}

// refused is how many packets from others than nodes a host has not let in.
func refused(t *testing.T, h *testhost.Host) (packets uint64) {
	t.Helper()
	must(t, testhost.InNetwork(h.Pid(), func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		table := &nftables.Table{Family: nftables.TableFamilyINet, Name: "kuberouter-overlay"}
		rules, err := c.GetRules(table, &nftables.Chain{Name: "input", Table: table})
		if err != nil {
			return err
		}
		for _, rule := range rules {
			for _, e := range rule.Exprs {
				if counter, ok := e.(*expr.Counter); ok {
					packets += counter.Packets
				}
			}
		}
		return nil
	}))
	return packets
}

func hardwareAddr(t *testing.T, h *testhost.Host) string {
	t.Helper()
	return strings.TrimSpace(h.Run(t, "cat", "/sys/class/net/kube-overlay/address"))
}

// kernel is what a host's kernel knows of the pods of other nodes.
func kernel(t *testing.T, h *testhost.Host) string {
	t.Helper()
	return h.Run(t, "sh", "-ec", `ip route show proto 107 | sort
		if [ -e /sys/class/net/kube-overlay ]; then
			ip neigh show dev kube-overlay | sort; bridge fdb show dev kube-overlay | sort; ip addr show dev kube-overlay
		fi`)
}

// deleteRoute has somebody delete a route, and measures how long it is gone.
func deleteRoute(t *testing.T, h *testhost.Host, destination netip.Prefix) (took time.Duration) {
	t.Helper()
	must(t, testhost.InNetwork(h.Pid(), func() error {
		updates, done := make(chan netlink.RouteUpdate, 100), make(chan struct{})
		defer close(done)
		if err := netlink.RouteSubscribe(updates, done); err != nil {
			return err
		}
		to := &net.IPNet{IP: destination.Addr().AsSlice(), Mask: net.CIDRMask(destination.Bits(), 32)}
		begin := time.Now()
		if err := netlink.RouteDel(&netlink.Route{Dst: to}); err != nil {
			return err
		}
		for {
			select {
			case u := <-updates:
				if u.Type == unix.RTM_NEWROUTE && u.Dst != nil && u.Dst.String() == to.String() {
					took = time.Since(begin)
					return nil
				}
			case <-time.After(20 * time.Second):
				return fmt.Errorf("the route to %s is not back", destination)
			}
		}
	}))
	return took
}

// netstat reads one of the kernel's counters.
func netstat(t *testing.T, h *testhost.Host, counter string) int {
	t.Helper()
	group, name, _ := strings.Cut(counter, " ")
	var names []string
	for line := range strings.Lines(h.Run(t, "cat", "/proc/net/snmp", "/proc/net/netstat")) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != group {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		n, err := strconv.Atoi(fields[slices.Index(names, name)])
		must(t, err)
		return n
	}
	t.Fatalf("there is no counter %s", counter)
	return 0
}

func deadline(t *testing.T, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
