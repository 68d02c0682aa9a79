package v1beta1

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"
)

func TestRef(t *testing.T) {
	for _, test := range []struct{ repository, image, want string }{
		{"", "k0s.io/coredns", "k0s.io/coredns:1"},
		{"registry.example.org", "k0s.io/coredns", "registry.example.org/coredns:1"},
		{"registry.example.org/", "k0s.io/a/b", "registry.example.org/a/b:1"},
		{"registry.example.org:5000/mirror", "k0s.io/coredns", "registry.example.org:5000/mirror/coredns:1"},
		{"registry.example.org/mirror", "registry.example.org/mirror/coredns", "registry.example.org/mirror/coredns:1"},
		{"registry.example.org", "localhost/coredns", "registry.example.org/coredns:1"},
		{"registry.example.org", "library/coredns", "registry.example.org/library/coredns:1"},
		{"registry.example.org", "coredns", "registry.example.org/coredns:1"},
	} {
		if got := (ImagesSpec{Repository: test.repository}).Ref(Image{test.image, "1"}); got != test.want {
			t.Errorf("%s in %q: got %s, want %s", test.image, test.repository, got, test.want)
		}
	}
}

func TestJoinable(t *testing.T) {
	for _, test := range []struct {
		typ    StorageType
		source string
		want   bool
	}{
		{EtcdStorage, "", true},
		{KineStorage, "sqlite:///x", false},
		{KineStorage, "nonsense", false},
		{KineStorage, "postgres://a@b/c", true},
		{KineStorage, "mysql://a@tcp(b)/c", true},
		{KineStorage, "nats://a:4222", true},
		{KineStorage, "", false},
	} {
		if got := (StorageSpec{Type: test.typ, Kine: KineSpec{DataSource: test.source}}).Joinable(); got != test.want {
			t.Errorf("%s %s: got %t", test.typ, test.source, got)
		}
	}
}

func TestHairpin(t *testing.T) {
	for said, want := range map[string]HairpinMode{
		"":                                      HairpinDisabled,
		"hairpin: Allowed":                      HairpinAllowed,
		"hairpinMode: true":                     HairpinEnabled,
		"hairpinMode: false":                    HairpinDisabled,
		"hairpin: ~, hairpinMode: true":         HairpinEnabled,
		"hairpin: Enabled, hairpinMode: true":   HairpinEnabled,
		"hairpin: Enabled, hairpinMode: ~":      HairpinEnabled,
		"hairpinMode: false, hairpin: Disabled": HairpinDisabled,
	} {
		c, err := Parse([]byte("spec: {network: {kuberouter: {"+said+"}}}"), nil)
		if err != nil || c.Spec.Network.KubeRouter.Hairpin != want {
			t.Errorf("%s: got %+v, %v", said, c, err)
		}
	}
}

func TestDefaultDataSource(t *testing.T) {
	c := Default()
	c.Spec.Storage.Type = KineStorage
	if err := c.Complete([]netip.Addr{netip.MustParseAddr("192.0.2.1")}, "/other"); err != nil {
		t.Fatal(err)
	}
	if got, want := c.Spec.Storage.Kine.DataSource, defaultDataSource("/other"); got != want || got[:len("sqlite://file:/other/db/state.db?")] != "sqlite://file:/other/db/state.db?" {
		t.Errorf("got %s", got)
	}
	if got := c.Warnings(); len(got) != 0 {
		t.Errorf("the defaults are warned of: %q", got)
	}
}

// TestInert: a section that another field leaves without effect is warned of.
func TestInert(t *testing.T) {
	for file, want := range map[string][]string{
		"spec: {storage: {kine: {dataSource: 'sqlite:///x'}}}":                                              {"spec.storage.kine has no effect: spec.storage.type is etcd"},
		"spec: {storage: {type: kine, etcd: {peerAddress: 192.0.2.1}}}":                                     nil,
		"spec: {storage: {type: kine, etcd: {rawArgs: [-a]}}}":                                              {"spec.storage.etcd has no effect: spec.storage.type is kine"},
		"spec: {network: {provider: custom, kuberouter: {ipMasq: true}}}":                                   {"spec.network.kuberouter has no effect: spec.network.provider is custom"},
		"spec: {network: {kubeProxy: {mode: iptables, nftables: {masqueradeAll: true}}}}":                   {"spec.network.kubeProxy.nftables has no effect: spec.network.kubeProxy.mode is iptables"},
		"spec: {network: {kubeProxy: {mode: nftables, iptables: {masqueradeAll: true}}}}":                   {"spec.network.kubeProxy.iptables has no effect: spec.network.kubeProxy.mode is nftables"},
		"spec: {network: {nodeLocalLoadBalancing: {enabled: true, type: Traefik}}}":                         nil,
		"spec: {network: {nodeLocalLoadBalancing: {traefik: {apiServerBindPort: 7444}}}}":                   {"spec.network.nodeLocalLoadBalancing.traefik has no effect: spec.network.nodeLocalLoadBalancing.type is EnvoyProxy"},
		"spec: {network: {nodeLocalLoadBalancing: {type: Traefik, envoyProxy: {apiServerBindPort: 7444}}}}": {"spec.network.nodeLocalLoadBalancing.envoyProxy has no effect: spec.network.nodeLocalLoadBalancing.type is Traefik"},
		"spec: {network: {kubeProxy: {iptables: {syncPeriod: 9s}, nftables: {syncPeriod: 9s}}}}":            nil,
	} {
		c, err := Parse([]byte(file), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Warnings(); !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %q\nwant %q", file, got, want)
		}
	}
}

func TestPrimaryFamily(t *testing.T) {
	for _, test := range []struct {
		family                  AddressFamily
		external, address, want string
	}{
		{AutoFamily, "", "", "IPv4"},
		{AutoFamily, "", "192.0.2.1", "IPv4"},
		{AutoFamily, "", "2001:db8::1", "IPv6"},
		{AutoFamily, "[2001:db8::1]:443", "192.0.2.1", "IPv6"},
		{AutoFamily, "lb.example.org", "2001:db8::1", "IPv4"},
		{IPv4Family, "2001:db8::1", "2001:db8::1", "IPv4"},
		{IPv6Family, "", "192.0.2.1", "IPv6"},
	} {
		c := Default()
		bothFamilies(test.family)(c)
		c.Spec.API.ExternalAddress, c.Spec.API.Address = test.external, test.address
		if got := c.PrimaryFamily(); string(got) != test.want {
			t.Errorf("%+v: got %s", test, got)
		}
		pods, services := []string{"10.244.0.0/16", "fd00::/108"}, []string{"10.96.0.0/12", "fd01::/108"}
		if test.want == "IPv6" {
			slices.Reverse(pods)
			slices.Reverse(services)
		}
		if !slices.Equal(c.PodCIDRs(), pods) || !slices.Equal(c.ServiceCIDRs(), services) {
			t.Errorf("%+v: got %v and %v", test, c.PodCIDRs(), c.ServiceCIDRs())
		}
		// With networks of one family there is no choice.
		c.Spec.Network.DualStack.Enabled = false
		if got := c.PrimaryFamily(); got != IPv4Family || !slices.Equal(c.PodCIDRs(), []string{"10.244.0.0/16"}) {
			t.Errorf("%+v without dual stack: got %s, %v", test, got, c.PodCIDRs())
		}
		c.Spec.Network.ServiceCIDR = "fd01::/108"
		if got := c.PrimaryFamily(); got != IPv6Family {
			t.Errorf("%+v with IPv6 only: got %s", test, got)
		}
	}
}

// TestWays: which way nodes take to the API and to the tunnel's servers.
func TestWays(t *testing.T) {
	for _, test := range []struct {
		spec       string
		externally bool
		tunnel     string
		balancer   int
	}{
		{"{}", false, "", 7443},
		{"{network: {nodeLocalLoadBalancing: {enabled: true}}}", false, "", 7443},
		{"{network: {nodeLocalLoadBalancing: {type: Traefik, envoyProxy: {apiServerBindPort: 10250}, traefik: {apiServerBindPort: 7444}}}}", false, "", 7444},
		// Free, where who has them by default is elsewhere or not there.
		{"{network: {provider: custom, nodeLocalLoadBalancing: {envoyProxy: {apiServerBindPort: 179}}}}", false, "", 179},
		{"{network: {kubeProxy: {disabled: true}, nodeLocalLoadBalancing: {envoyProxy: {apiServerBindPort: 10249}}}}", false, "", 10249},
		{"{workerProfiles: [{name: default, values: {port: 10350}}], network: {nodeLocalLoadBalancing: {envoyProxy: {apiServerBindPort: 10250}}}}", false, "", 10250},
		{"{api: {externalAddress: k.example.org}}", true, "k.example.org:8132", 7443},
		{"{api: {externalAddress: 'k.example.org:443'}, konnectivity: {agentPort: 9132}}", true, "k.example.org:9132", 7443},
		{"{api: {externalAddress: '2001:db8::1'}, network: {podCIDR: 'fd00::/104', serviceCIDR: 'fd01::/108'}}", true, "[2001:db8::1]:8132", 7443},
		{"{api: {externalAddress: '[2001:db8::1]:443'}, network: {podCIDR: 'fd00::/104', serviceCIDR: 'fd01::/108'}}", true, "[2001:db8::1]:8132", 7443},
		{"{api: {externalAddress: k.example.org}, konnectivity: {externalAddress: t.example.org}}", true, "t.example.org:8132", 7443},
		{"{konnectivity: {externalAddress: 't.example.org:1'}}", false, "t.example.org:1", 7443},
		{"{api: {externalAddress: k.example.org}, network: {nodeLocalLoadBalancing: {enabled: true}}}", false, "", 7443},
	} {
		c, err := Parse([]byte("spec: "+test.spec), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.WorkersGoExternally(); got != test.externally {
			t.Errorf("%s: externally: %t", test.spec, got)
		}
		if got := c.TunnelAddress(); got != test.tunnel {
			t.Errorf("%s: the tunnel's server is %q, want %q", test.spec, got, test.tunnel)
		}
		if got := c.Spec.Network.NodeLocalLoadBalancing.BalancerPort(); got != test.balancer {
			t.Errorf("%s: the balancer's port is %d", test.spec, got)
		}
	}
}
