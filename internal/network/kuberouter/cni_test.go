package kuberouter

import (
	"encoding/json"
	"net"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestCNIConfig(t *testing.T) {
	n, err := ParseNode("10.244.3.0/24", "10.244.0.0/16")
	if err != nil {
		t.Fatal(err)
	}
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
			IPAM             struct {
				DataDir string
				Ranges  [][]struct{ Subnet string }
			}
			Capabilities map[string]bool
		}
	}
	if err := json.Unmarshal(content, &config); err != nil {
		t.Fatal(err)
	}
	if len(config.Plugins) != 2 {
		t.Fatalf("got %s", content)
	}
	bridge, portmap := config.Plugins[0], config.Plugins[1]
	if bridge.Type != "bridge" || bridge.Bridge != "kube-bridge" || bridge.MTU != 1400 || !bridge.HairpinMode || !bridge.IsDefaultGateway ||
		bridge.IPAM.Ranges[0][0].Subnet != "10.244.3.0/24" || bridge.IPAM.DataDir != "/run/k0s/cni" {
		t.Errorf("got %+v", bridge)
	}
	if portmap.Type != "portmap" || !portmap.Capabilities["portMappings"] {
		t.Errorf("got %+v", portmap)
	}
}

func TestParseNode(t *testing.T) {
	if _, err := ParseNode("", "10.244.0.0/16"); err == nil {
		t.Error("a node without pod CIDR must be refused")
	}
}

func TestDefaultLinks(t *testing.T) {
	_, everywhere, _ := net.ParseCIDR("0.0.0.0/0")
	_, lan, _ := net.ParseCIDR("192.0.2.0/24")
	for _, tc := range []struct {
		name   string
		routes []netlink.Route
		want   []int
	}{
		{"none", []netlink.Route{{Dst: lan, LinkIndex: 2}}, nil},
		{"plain", []netlink.Route{{Dst: lan, LinkIndex: 2}, {Dst: everywhere, LinkIndex: 3}}, []int{3}},
		{"without destination", []netlink.Route{{LinkIndex: 3}}, []int{3}},
		{"several next hops", []netlink.Route{{MultiPath: []*netlink.NexthopInfo{{LinkIndex: 4}, {LinkIndex: 5}}}}, []int{4, 5}},
		{"unreachable", []netlink.Route{{Dst: everywhere}}, nil},
	} {
		if got := defaultLinks(tc.routes); !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %v, want %v", tc.name, got, tc.want)
		}
	}
}
