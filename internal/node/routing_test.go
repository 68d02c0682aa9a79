package node

import (
	"runtime"
	"slices"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/network/kuberouter/routes"
)

// Without routing, what it has made before is taken back.
func TestWithoutRouting(t *testing.T) {
	runtime.LockOSThread() // for good: the thread ends with the test's goroutine
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	tunnel := &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "kube-overlay"}, VxlanId: routes.VNI, Port: routes.DefaultPort}
	if err := netlink.LinkAdd(tunnel); err != nil {
		t.Fatal(err)
	}
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "kuberouter-overlay"})
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
	pods, err := netlink.ParseIPNet("10.244.2.0/24")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.RouteAdd(&netlink.Route{Dst: pods, LinkIndex: lo.Attrs().Index, Scope: unix.RT_SCOPE_LINK, Protocol: routes.Protocol}); err != nil {
		t.Fatal(err)
	}

	o := options(t, func(o *Options) {
		o.Config.Spec.Network.KubeRouter.ExtraArgs = map[string]string{"run-router": "false"}
	})
	set := Worker(o, Needs{})
	i := slices.IndexFunc(set, func(c component.Component) bool { return c.Name == "routing" })
	if i < 0 {
		t.Fatal("nobody takes it back")
	}
	if err := set[i].Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Protocol: routes.Protocol}, netlink.RT_FILTER_PROTOCOL); err != nil || len(left) > 0 {
		t.Errorf("routes: %v (%v)", left, err)
	}
	if _, err := netlink.LinkByName("kube-overlay"); err == nil {
		t.Error("the tunnel is there")
	}
	if tables, err := c.ListTables(); err != nil || len(tables) > 0 {
		t.Errorf("tables: %v (%v)", tables, err)
	}
}
