package kuberouter

import (
	"encoding/json"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"testing"

	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestCNIConfig(t *testing.T) {
	n, err := ParseNode([]string{"10.244.3.0/24", "fd00:0:0:3::/117"}, []string{"10.244.0.0/16", "fd00::/48"})
	if err != nil {
		t.Fatal(err)
	}
	n.PolicySocket = "/run/k0s/policy/cni.sock"
	n.MTU, n.Hairpin, n.IPAMDir = 1400, true, "/run/k0s/cni"
	content, err := n.cniConfig()
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Plugins []struct {
			Type             string
			Bridge           string
			MTU              int
			HairpinMode      bool
			IsDefaultGateway bool
			ForceAddress     bool
			IPAM             struct {
				DataDir string
				Ranges  [][]struct{ Subnet string }
			}
			Capabilities map[string]bool
			Socket       string
		}
	}
	if err := json.Unmarshal(content, &config); err != nil {
		t.Fatal(err)
	}
	if len(config.Plugins) != 3 {
		t.Fatalf("got %s", content)
	}
	bridge, portmap, last := config.Plugins[0], config.Plugins[1], config.Plugins[2]
	if bridge.Type != "bridge" || bridge.Bridge != "kube-bridge" || bridge.MTU != 1400 || !bridge.HairpinMode || !bridge.IsDefaultGateway || !bridge.ForceAddress ||
		len(bridge.IPAM.Ranges) != 2 || bridge.IPAM.Ranges[0][0].Subnet != "10.244.3.0/24" || bridge.IPAM.Ranges[1][0].Subnet != "fd00:0:0:3::/117" || bridge.IPAM.DataDir != "/run/k0s/cni" {
		t.Errorf("got %+v", bridge)
	}
	if portmap.Type != "portmap" || !portmap.Capabilities["portMappings"] {
		t.Errorf("got %+v", portmap)
	}
	if last.Type != "k0s-policy" || last.Socket != n.PolicySocket || last.Bridge != Bridge {
		t.Errorf("got %+v", last)
	}
}

// A node that was deleted and comes back with other pod CIDRs has no gateway of before.
func TestRemoveOldGateways(t *testing.T) {
	runtime.LockOSThread() // and never unlocked: the network goes with the thread
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	n, err := ParseNode([]string{"10.244.3.0/24", "fd00:0:0:3::/64"}, []string{"10.244.0.0/16", "fd00::/48"})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.removeOldGateways(); err != nil {
		t.Fatalf("without a bridge: %v", err)
	}
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: Bridge}}
	if err := netlink.LinkAdd(bridge); err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"10.244.2.1/24", "10.244.3.1/24", "192.0.2.1/24", "fd00:0:0:2::1/64", "fd00:0:0:3::1/64", "2001:db8::1/64", "fe80::1/64"} {
		a, err := netlink.ParseAddr(address)
		if err == nil {
			err = netlink.AddrAdd(bridge, a)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := n.removeOldGateways(); err != nil {
		t.Fatal(err)
	}
	present, err := netlink.AddrList(bridge, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, a := range present {
		left = append(left, a.IPNet.String())
	}
	slices.Sort(left)
	if want := []string{"10.244.3.1/24", "192.0.2.1/24", "2001:db8::1/64", "fd00:0:0:3::1/64", "fe80::1/64"}; !slices.Equal(left, want) {
		t.Errorf("left are %v, not %v", left, want)
	}
}

func TestParseNode(t *testing.T) {
	for _, tc := range []struct {
		node, cluster []string
		ok            bool
	}{
		{[]string{"10.244.3.0/24"}, []string{"10.244.0.0/16"}, true},
		{[]string{"fd00::800/117"}, []string{"fd00::/108"}, true},
		{[]string{"fd00::800/117", "10.244.3.0/24"}, []string{"fd00::/108", "10.244.0.0/16"}, true},
		{nil, []string{"10.244.0.0/16"}, false},
		{[]string{"10.244.3.0/24"}, nil, false},
		{[]string{"10.244.3.0"}, []string{"10.244.0.0/16"}, false},
	} {
		if _, err := ParseNode(tc.node, tc.cluster); (err == nil) != tc.ok {
			t.Errorf("%v of %v: %v", tc.node, tc.cluster, err)
		}
	}
}

// TestMasquerade: each family compares its own addresses only, at their place in the header.
func TestMasquerade(t *testing.T) {
	type match struct {
		offset  uint32
		op      expr.CmpOp
		address string
	}
	inside := []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00::/48")}
	for pods, want := range map[string][]match{
		"10.244.3.0/24":     {{12, expr.CmpOpEq, "10.244.3.0"}, {16, expr.CmpOpNeq, "10.244.0.0"}},
		"fd00:0:0:3::/64":   {{8, expr.CmpOpEq, "fd00:0:0:3::"}, {24, expr.CmpOpNeq, "fd00::"}},
		"fd00:0:0:3::5/128": {{8, expr.CmpOpEq, "fd00:0:0:3::5"}, {24, expr.CmpOpNeq, "fd00::"}},
	} {
		prefix := netip.MustParsePrefix(pods)
		f := families[slices.IndexFunc(families, func(f family) bool { return f.of(prefix) })]
		exprs := f.masquerade(prefix, inside)
		var got []match
		for i := range exprs {
			payload, ok := exprs[i].(*expr.Payload)
			if !ok {
				continue
			}
			mask, _ := exprs[i+1].(*expr.Bitwise)
			cmp, _ := exprs[i+2].(*expr.Cmp)
			address, _ := netip.AddrFromSlice(cmp.Data)
			if int(payload.Len) != f.addressLen || len(mask.Mask) != f.addressLen {
				t.Errorf("%s: compares %d bytes under %v", pods, payload.Len, mask.Mask)
			}
			got = append(got, match{payload.Offset, cmp.Op, address.String()})
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", pods, got, want)
		}
		if _, ok := exprs[len(exprs)-1].(*expr.Masq); !ok {
			t.Errorf("%s: ends with %T", pods, exprs[len(exprs)-1])
		}
	}
}

func TestDefaultLinks(t *testing.T) {
	_, everywhere, _ := net.ParseCIDR("0.0.0.0/0")
	_, everywhere6, _ := net.ParseCIDR("::/0")
	_, compatible, _ := net.ParseCIDR("::/96") // as hosts have it, unreachable
	_, lan, _ := net.ParseCIDR("192.0.2.0/24")
	for _, tc := range []struct {
		name   string
		routes []netlink.Route
		want   []int
	}{
		{"none", []netlink.Route{{Dst: lan, LinkIndex: 2}}, nil},
		{"plain", []netlink.Route{{Dst: lan, LinkIndex: 2}, {Dst: everywhere, LinkIndex: 3}}, []int{3}},
		{"IPv6", []netlink.Route{{Dst: compatible, LinkIndex: 1}, {Dst: everywhere6, LinkIndex: 3}}, []int{3}},
		{"without destination", []netlink.Route{{LinkIndex: 3}}, []int{3}},
		{"several next hops", []netlink.Route{{MultiPath: []*netlink.NexthopInfo{{LinkIndex: 4}, {LinkIndex: 5}}}}, []int{4, 5}},
		{"unreachable", []netlink.Route{{Dst: everywhere}}, nil},
	} {
		if got := defaultLinks(tc.routes); !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %v, want %v", tc.name, got, tc.want)
		}
	}
}
