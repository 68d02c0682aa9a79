package node

import (
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	"sigs.k8s.io/yaml"

	"k0s.io/k0s/internal/flags/flagstest"
	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

func options(t *testing.T, change func(*Options)) Options {
	t.Helper()
	config, addresses := v1beta1.Default(), []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
	if err := config.Complete(addresses, "/d"); err != nil {
		t.Fatal(err)
	}
	o := Options{
		NodeName: "n1", Addresses: addresses, Config: config, Log: slog.New(slog.DiscardHandler),
		Layout:    host.Layout{DataDir: "/d", RunDir: "/r", KubeletRoot: "/k"},
		LogLevels: map[string]string{"kubelet": "2", "kube-proxy": "0", "containerd": "info"},
	}
	if change != nil {
		change(&o)
	}
	return o
}

var gates = []v1beta1.FeatureGate{
	{Name: "All", Enabled: true}, {Name: "Proxy", Components: []string{"kube-proxy"}}, {Name: "Kubelet", Enabled: true, Components: []string{"kubelet"}},
}

func TestArgs(t *testing.T) {
	proxy := func(mode v1beta1.KubeProxyMode) func(Options) []string {
		return func(o Options) []string { return kubeProxyArgs(o, mode) }
	}
	for _, tc := range []struct {
		name   string
		args   func(Options) []string
		change func(*Options)
		want   []string // all of these
		absent []string // none that starts with one of these
	}{
		{"kubelet", kubeletArgs, nil, []string{
			"--hostname-override=n1", "--node-ip=192.0.2.1", "--root-dir=/k", "--cert-dir=/k/pki", "--kubeconfig=/d/kubelet.conf",
			"--config=/r/kubelet/config.yaml", "--v=2",
		}, []string{"--node-labels", "--cloud-provider"}},
		{"kubelet with both families", kubeletArgs, dual(v1beta1.IPv4Family), []string{"--node-ip=192.0.2.1,2001:db8::1"}, nil},
		{"kubelet with both families, IPv6 first", kubeletArgs, dual(v1beta1.IPv6Family), []string{"--node-ip=2001:db8::1,192.0.2.1"}, nil},
		{"kubelet with both families on a host with one", kubeletArgs, func(o *Options) {
			dual(v1beta1.IPv4Family)(o)
			o.Addresses = o.Addresses[:1]
		}, []string{"--node-ip=192.0.2.1"}, nil},
		{"kubelet with IPv6", kubeletArgs, onlyIPv6, []string{"--node-ip=2001:db8::1"}, nil},
		{"kube-proxy with both families", proxy(v1beta1.NFTablesProxyMode), dual(v1beta1.IPv6Family), []string{"--cluster-cidr=fd00::/108,10.244.0.0/16"}, nil},
		{"kube-proxy with IPv6", proxy(v1beta1.NFTablesProxyMode), onlyIPv6, []string{"--cluster-cidr=fd00::/108"}, nil},
		{"kubelet with labels, cloud provider and extra args", kubeletArgs, func(o *Options) {
			o.Labels = map[string]string{"b": "2", "a": "1"}
			o.CloudProvider = true
			o.KubeletArgs = map[string]string{"node-ip": "::1"}
		}, []string{"--node-labels=a=1,b=2", "--cloud-provider=external", "--node-ip=::1"}, []string{"--node-ip=192"}},
		{"kube-proxy", proxy(v1beta1.NFTablesProxyMode), nil, []string{
			"--proxy-mode=nftables", "--cluster-cidr=10.244.0.0/16", "--hostname-override=n1", "--kubeconfig=/d/pki/kube-proxy.conf",
			"--metrics-bind-address=127.0.0.1:10249", "--healthz-bind-address=127.0.0.1:10256", "--conntrack-max-per-core=0",
		}, []string{"--config", "--iptables", "--masquerade-all", "--nodeport-addresses"}},
		{"kube-proxy in nftables mode leaves iptables' settings alone", proxy(v1beta1.NFTablesProxyMode), func(o *Options) {
			o.Config.Spec.Network.KubeProxy.IPTables.MasqueradeAll = true
			o.Config.Spec.Network.KubeProxy.NodePortAddresses = []string{"192.0.2.0/24", "198.51.100.0/24"}
		}, []string{"--nodeport-addresses=192.0.2.0/24,198.51.100.0/24"}, []string{"--masquerade-all"}},
		{"kube-proxy's periods in nftables mode", proxy(v1beta1.NFTablesProxyMode), func(o *Options) {
			o.Config.Spec.Network.KubeProxy.IPTables.SyncPeriod.Duration = time.Minute
			o.Config.Spec.Network.KubeProxy.NFTables.SyncPeriod.Duration = 20 * time.Second
			o.Config.Spec.Network.KubeProxy.NFTables.MinSyncPeriod.Duration = 3 * time.Second
		}, []string{"--iptables-sync-period=20s", "--iptables-min-sync-period=3s"}, []string{"--iptables-sync-period=1m"}},
		{"kube-proxy in iptables mode", proxy(v1beta1.IPTablesProxyMode), func(o *Options) {
			o.Config.Spec.Network.KubeProxy.IPTables = v1beta1.KubeProxyIPTables{MasqueradeBit: new(int32(15)), MasqueradeAll: true, LocalhostNodePorts: new(false)}
		}, []string{"--proxy-mode=iptables", "--iptables-masquerade-bit=15", "--masquerade-all=true", "--iptables-localhost-nodeports=false"}, []string{"--iptables-sync"}},
		{"kube-proxy's feature gates", proxy(v1beta1.NFTablesProxyMode), func(o *Options) {
			o.Config.Spec.FeatureGates = gates
			o.Config.Spec.Network.KubeProxy.ExtraArgs = map[string]string{"feature-gates": "All=false,Extra=true"}
		}, []string{"--feature-gates=All=false,Extra=true,Proxy=false"}, nil},
		{"the kubelet's feature gates are in its configuration", kubeletArgs, func(o *Options) { o.Config.Spec.FeatureGates = gates }, nil, []string{"--feature-gates"}},
		{"kube-proxy: extraArgs override, rawArgs follow", proxy(v1beta1.NFTablesProxyMode), func(o *Options) {
			o.Config.Spec.Network.KubeProxy.Args = v1beta1.Args{ExtraArgs: map[string]string{"conntrack-min": "7"}, RawArgs: []string{"--v=9"}}
		}, []string{"--conntrack-min=7", "--v=9"}, []string{"--conntrack-min=0"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			flagstest.Check(t, tc.args(options(t, tc.change)), tc.want, tc.absent)
		})
	}
}

// onlyIPv6 is a cluster with networks of IPv6.
func onlyIPv6(o *Options) {
	o.Config.Spec.Network.PodCIDR, o.Config.Spec.Network.ServiceCIDR = "fd00::/108", "fd01::/108"
}

// dual is a cluster with networks of both families.
func dual(primary v1beta1.AddressFamily) func(*Options) {
	return func(o *Options) {
		o.Config.Spec.Network.PrimaryAddressFamily = primary
		o.Config.Spec.Network.DualStack = v1beta1.DualStackSpec{Enabled: true, IPv6PodCIDR: "fd00::/108", IPv6ServiceCIDR: "fd01::/108"}
	}
}

// TestFamilies: what a node needs of its host, and which cluster DNS its pods ask.
func TestFamilies(t *testing.T) {
	for _, tc := range []struct {
		name      string
		change    func(*Options)
		addresses []string
		dns       string
		refused   bool
	}{
		{"both", dual(v1beta1.IPv4Family), []string{"192.0.2.1", "2001:db8::1"}, "10.96.0.10", false},
		{"both, IPv6 first", dual(v1beta1.IPv6Family), []string{"192.0.2.1", "2001:db8::1"}, "fd01::a", false},
		{"both, IPv4 first, on a host without IPv6", dual(v1beta1.IPv4Family), []string{"192.0.2.1"}, "10.96.0.10", false},
		{"both, IPv6 first, on a host without IPv6", dual(v1beta1.IPv6Family), []string{"192.0.2.1"}, "fd01::a", true},
		{"IPv6 on a host without", onlyIPv6, []string{"192.0.2.1"}, "fd01::a", true},
		{"IPv6 on a host whose address the user names", func(o *Options) {
			onlyIPv6(o)
			o.KubeletArgs = map[string]string{"node-ip": "2001:db8::9"}
		}, nil, "fd01::a", false},
	} {
		o := options(t, tc.change)
		o.Addresses = nil
		for _, address := range tc.addresses {
			o.Addresses = append(o.Addresses, netip.MustParseAddr(address))
		}
		if err := o.checkNodeIPs(); (err != nil) != tc.refused {
			t.Errorf("%s: %v", tc.name, err)
		}
		if c, err := KubeletConfig(o, false, ""); err != nil || !slices.Equal(c.ClusterDNS, []string{tc.dns}) {
			t.Errorf("%s: got DNS %v, %v", tc.name, c.ClusterDNS, err)
		}
	}
}

func TestKubeletConfig(t *testing.T) {
	o := options(t, func(o *Options) { o.Taints = []string{"a=b:NoSchedule", "c:NoExecute"} })
	c, err := KubeletConfig(o, false, "/etc/resolv.conf")
	if err != nil {
		t.Fatal(err)
	}
	if *c.Authentication.Anonymous.Enabled || !*c.Authentication.Webhook.Enabled || c.Authorization.Mode != "Webhook" {
		t.Error("the kubelet must ask who calls, and whether they may")
	}
	if c.CgroupDriver != "cgroupfs" || *c.FailCgroupV1 || !c.RotateCertificates || !c.ServerTLSBootstrap {
		t.Errorf("got %+v", c)
	}
	if !slices.Equal(c.ClusterDNS, []string{"10.96.0.10"}) || c.ClusterDomain != "cluster.local" {
		t.Errorf("got DNS %v, %s", c.ClusterDNS, c.ClusterDomain)
	}
	want := []corev1.Taint{{Key: "a", Value: "b", Effect: "NoSchedule"}, {Key: "c", Effect: "NoExecute"}}
	if !slices.Equal(c.RegisterWithTaints, want) {
		t.Errorf("got taints %v", c.RegisterWithTaints)
	}
	if c, err := KubeletConfig(options(t, nil), true, ""); err != nil || c.CgroupDriver != "systemd" || *c.ResolverConfig != "" {
		t.Errorf("got %+v, %v", c, err)
	}
}

func TestWorkerProfile(t *testing.T) {
	profile := func(profile, values string) func(*Options) {
		return func(o *Options) {
			o.Profile = "a"
			o.Taints = []string{"a=b:NoSchedule"}
			o.Config.Spec.WorkerProfiles = []v1beta1.WorkerProfile{
				{Name: "b", Values: &runtime.RawExtension{Raw: []byte(`{"maxPods": 1}`)}},
				{Name: profile, Values: &runtime.RawExtension{Raw: []byte(values)}},
			}
		}
	}
	for _, test := range []struct {
		name   string
		change func(*Options)
		want   func(*kubeletv1beta1.KubeletConfiguration)
	}{
		{"no values", profile("a", ""), nil},
		{"empty values", profile("a", "{}"), nil},
		{"added", profile("a", `{"maxPods": 250, "evictionHard": {"memory.available": "5%"}}`), func(c *kubeletv1beta1.KubeletConfiguration) {
			c.MaxPods, c.EvictionHard = 250, map[string]string{"memory.available": "5%"}
		}},
		{"replaced", profile("a", `{"failSwapOn": true, "eventRecordQPS": 5, "tlsMinVersion": "VersionTLS13"}`), func(c *kubeletv1beta1.KubeletConfiguration) {
			c.FailSwapOn, c.EventRecordQPS, c.TLSMinVersion = new(true), new(int32(5)), "VersionTLS13"
		}},
		{"mappings are merged", profile("a", `{"authentication": {"anonymous": {"enabled": true}}}`), func(c *kubeletv1beta1.KubeletConfiguration) {
			c.Authentication.Anonymous.Enabled = new(true)
		}},
		{"null takes back", profile("a", `{"makeIPTablesUtilChains": null, "authorization": {"mode": null}, "maxPods": null}`), func(c *kubeletv1beta1.KubeletConfiguration) {
			c.MakeIPTablesUtilChains, c.Authorization.Mode = nil, ""
		}},
		{"the default one", func(o *Options) {
			profile("default", `{"maxPods": 7}`)(o)
			o.Profile = ""
		}, func(c *kubeletv1beta1.KubeletConfiguration) { c.MaxPods = 7 }},
		{"a named one does not build on the default one", func(o *Options) {
			profile("default", `{"maxPods": 7}`)(o)
			o.Config.Spec.WorkerProfiles = append(o.Config.Spec.WorkerProfiles, v1beta1.WorkerProfile{Name: "a", Values: &runtime.RawExtension{Raw: []byte(`{"podsPerCore": 5}`)}})
		}, func(c *kubeletv1beta1.KubeletConfiguration) { c.PodsPerCore = 5 }},
		{"feature gates", func(o *Options) {
			profile("a", `{"featureGates": {"Own": true, "All": false}}`)(o)
			o.Config.Spec.FeatureGates = gates
		}, func(c *kubeletv1beta1.KubeletConfiguration) {
			c.FeatureGates = map[string]bool{"All": false, "Kubelet": true, "Own": true}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := options(t, test.change)
			want, err := builtinKubeletConfig(o, false, "/etc/resolv.conf")
			if err != nil {
				t.Fatal(err)
			}
			if test.want != nil {
				test.want(want)
			}
			got, err := KubeletConfig(o, false, "/etc/resolv.conf")
			if err != nil {
				t.Fatal(err)
			}
			if got, want := asYAML(t, got), asYAML(t, want); got != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
	if _, err := KubeletConfig(options(t, func(o *Options) { o.Profile = "none" }), false, ""); err == nil || !strings.Contains(err.Error(), `no worker profile "none"`) {
		t.Errorf("got %v", err)
	}
}

func asYAML(t *testing.T, c *kubeletv1beta1.KubeletConfiguration) string {
	t.Helper()
	text, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestTaints(t *testing.T) {
	for _, taint := range []string{"", "a", "a=b", "=b:NoSchedule", "a:nosuch", ":NoSchedule"} {
		if err := CheckTaints([]string{taint}); err == nil {
			t.Errorf("%q must be refused", taint)
		}
	}
}

func TestContainerdConfig(t *testing.T) {
	content, err := containerdConfig(containerdFacts{
		BinDir: "/d/bin", RuncRoot: "/r/runc", PauseImage: "k0s.io/pause:1", SystemdCgroup: true, RestrictOOMScoreAdj: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"# k0s_managed=true\nversion = 3\n", `sandbox = "k0s.io/pause:1"`, `bin_dirs = ["/d/bin/cni", "/opt/cni/bin"]`,
		`BinaryName = "/d/bin/runc"`, `Root = "/r/runc"`, "SystemdCgroup = true", "restrict_oom_score_adj = true", "netns_mounts_under_state_dir = true",
	} {
		if !strings.Contains(string(content), want) {
			t.Errorf("missing %q in\n%s", want, content)
		}
	}
}

func TestPorts(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*Options)
		want   []string
	}{
		{"default", nil, []string{":10250", "127.0.0.1:10248", "127.0.0.1:10249", "127.0.0.1:10256", "192.0.2.1:179"}},
		{"both families", dual(v1beta1.IPv4Family), []string{":10250", "127.0.0.1:10248", "127.0.0.1:10249", "127.0.0.1:10256", "192.0.2.1:179", "[2001:db8::1]:179"}},
		{"without kube-proxy", func(o *Options) { o.Config.Spec.Network.KubeProxy.Disabled = true }, []string{":10250", "127.0.0.1:10248", "192.0.2.1:179"}},
		{"alone", func(o *Options) { o.Alone = true; o.Config.Spec.Network.KubeProxy.Disabled = true }, []string{":10250", "127.0.0.1:10248"}},
		{"by the profile", func(o *Options) {
			o.Config.Spec.Network.KubeProxy.Disabled = true
			o.Config.Spec.WorkerProfiles = []v1beta1.WorkerProfile{{Name: "default", Values: &runtime.RawExtension{
				Raw: []byte(`{"address": "192.0.2.1", "port": 11250, "healthzPort": 11248, "healthzBindAddress": "0.0.0.0"}`)}}}
		}, []string{"192.0.2.1:11250", "0.0.0.0:11248", "192.0.2.1:179"}},
	} {
		ports, err := Ports(options(t, test.change))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, port := range ports {
			got = append(got, port.String())
		}
		slices.Sort(got[min(2, len(got)):])
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}
