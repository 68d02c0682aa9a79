package controlplane

import (
	"encoding/pem"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"k8s.io/client-go/util/certificate"
	"sigs.k8s.io/yaml"

	"k0s.io/k0s/internal/flags/flagstest"
	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/internal/identity"
	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

// options is a controller with default configuration, changed by change.
func options(t *testing.T, change func(*Options)) Options {
	t.Helper()
	config := v1beta1.Default()
	if err := config.Complete([]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}, "/d"); err != nil {
		t.Fatal(err)
	}
	o := Options{
		NodeName: "n1", Identity: &identity.Identity{MemberName: "m1"}, Config: config, Alone: true, Log: slog.New(slog.DiscardHandler),
		Layout:    host.Layout{DataDir: "/d", RunDir: "/r", KubeletRoot: "/d/kubelet"},
		LogLevels: map[string]string{"etcd": "info", "kube-apiserver": "0", "kube-controller-manager": "0", "kube-scheduler": "0", "konnectivity-server": "0"},
	}
	if change != nil {
		change(&o)
	}
	return o
}

func withKine(dataSource string) func(*Options) {
	return func(o *Options) {
		o.Config.Spec.Storage.Type = v1beta1.KineStorage
		o.Config.Spec.Storage.Kine.DataSource = dataSource
	}
}

func withExternalEtcd(o *Options) {
	o.Config.Spec.Storage.Etcd.ExternalCluster = &v1beta1.ExternalCluster{
		Endpoints: []string{"https://192.0.2.7:2379", "https://192.0.2.8:2379"}, EtcdPrefix: "/one",
		CAFile: "/c/ca.crt", ClientCertFile: "/c/client.crt", ClientKeyFile: "/c/client.key",
	}
}

func withGates(o *Options) {
	o.Config.Spec.FeatureGates = []v1beta1.FeatureGate{
		{Name: "ForScheduler", Enabled: true, Components: []string{"kube-scheduler"}}, {Name: "All", Enabled: true},
		{Name: "ForAPI", Components: []string{"kubelet", "kube-apiserver"}},
	}
}

func TestArgs(t *testing.T) {
	for _, tc := range []struct {
		name   string
		args   func(Options) []string
		change func(*Options)
		want   []string // all of these
		absent []string // none that starts with one of these
	}{
		{"etcd serves clients on loopback only, with mutual TLS", etcdArgs, nil, []string{
			"--name=m1", "--data-dir=/d/etcd", "--listen-client-urls=https://127.0.0.1:2379", "--client-cert-auth=true",
			"--listen-peer-urls=https://192.0.2.1:2380", "--peer-client-cert-auth=true", "--peer-trusted-ca-file=/d/pki/etcd/ca.crt",
			"--initial-cluster=m1=https://192.0.2.1:2380", "--election-timeout=250",
		}, nil},
		{"etcd with peers keeps its own election time-out", etcdArgs, func(o *Options) { o.Alone = false }, nil, []string{"--election-timeout", "--heartbeat"}},
		{"etcd: extraArgs and rawArgs", etcdArgs, func(o *Options) {
			o.Config.Spec.Storage.Etcd.Args = v1beta1.Args{ExtraArgs: map[string]string{"name": "x"}, RawArgs: []string{"--a", "--a"}}
		}, []string{"--name=x", "--a"}, []string{"--name=m1"}},
		{"API server", apiServerArgs, nil, []string{
			"--advertise-address=192.0.2.1", "--secure-port=6443", "--authorization-mode=Node,RBAC", "--anonymous-auth=false",
			"--enable-admission-plugins=NodeRestriction", "--service-cluster-ip-range=10.96.0.0/12", "--tls-min-version=VersionTLS12",
			"--etcd-servers=https://127.0.0.1:2379", "--kubelet-certificate-authority=/d/pki/ca.crt",
			"--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname",
		}, []string{"--bind-address"}},
		{"API server with etcd of its own", apiServerArgs, nil, []string{
			"--etcd-servers=https://127.0.0.1:2379", "--etcd-cafile=/d/pki/etcd/ca.crt",
			"--etcd-certfile=/d/pki/apiserver-etcd-client.crt", "--etcd-keyfile=/d/pki/apiserver-etcd-client.key",
		}, []string{"--etcd-prefix"}},
		{"API server with kine", apiServerArgs, withKine("postgres://u:secret@192.0.2.9/k"), []string{
			"--etcd-servers=unix:///r/kine/kine.sock",
		}, []string{"--etcd-cafile", "--etcd-certfile", "--etcd-keyfile", "--etcd-prefix"}},
		{"API server with an external etcd", apiServerArgs, withExternalEtcd, []string{
			"--etcd-servers=https://192.0.2.7:2379,https://192.0.2.8:2379", "--etcd-cafile=/c/ca.crt",
			"--etcd-certfile=/c/client.crt", "--etcd-keyfile=/c/client.key", "--etcd-prefix=/one",
		}, nil},
		{"API server with an external etcd without TLS", apiServerArgs, func(o *Options) {
			o.Config.Spec.Storage.Etcd.ExternalCluster = &v1beta1.ExternalCluster{Endpoints: []string{"http://192.0.2.7:2379"}, EtcdPrefix: "one"}
		}, []string{"--etcd-servers=http://192.0.2.7:2379", "--etcd-prefix=one"}, []string{"--etcd-cafile", "--etcd-certfile", "--etcd-keyfile"}},
		{"kine: no password, metrics on loopback only, compacted by the API server alone", kineArgs, withKine("postgres://u:secret@192.0.2.9/k"), []string{
			"--listen-address=unix:///r/kine/kine.sock", "--metrics-bind-address=127.0.0.1:2380", "--compact-interval=0s", "--log-format=json",
		}, []string{"--endpoint", "--debug"}},
		{"kine: extraArgs, rawArgs and log level", kineArgs, func(o *Options) {
			withKine("postgres://u:secret@192.0.2.9/k")(o)
			o.Config.Spec.Storage.Kine.Args = v1beta1.Args{ExtraArgs: map[string]string{"ca-file": "/c/ca.crt", "metrics-bind-address": "0"}, RawArgs: []string{"--skip-verify", "--skip-verify"}}
			o.LogLevels["kine"] = "debug"
		}, []string{"--ca-file=/c/ca.crt", "--metrics-bind-address=0", "--skip-verify", "--debug=true"}, []string{"--metrics-bind-address=127.0.0.1"}},
		{"API server on one address and another port", apiServerArgs, func(o *Options) {
			o.Config.Spec.API.OnlyBindToAddress, o.Config.Spec.API.Port = true, 443
		}, []string{"--bind-address=192.0.2.1", "--secure-port=443"}, nil},
		{"API server: extraArgs override", apiServerArgs, func(o *Options) {
			o.Config.Spec.API.ExtraArgs = map[string]string{"anonymous-auth": "true"}
		}, []string{"--anonymous-auth=true"}, []string{"--anonymous-auth=false"}},
		{"API server alone has no tunnel", apiServerArgs, nil, nil, []string{"--egress-selector-config-file"}},
		{"API server reaches nodes through the tunnel", apiServerArgs, func(o *Options) { o.Alone = false }, []string{
			"--egress-selector-config-file=/r/egress-selector.yaml",
		}, nil},
		{"API server without tunnel", apiServerArgs, func(o *Options) { o.Alone, o.WithoutTunnel = false, true }, nil, []string{"--egress-selector-config-file"}},
		{"konnectivity-server", tunnelArgs, nil, []string{
			"--agent-address=:8132", "--admin-address=127.0.0.1:8133", "--client-ca-file=/d/pki/ca.crt", "--socket-uid=4242",
			"--nodes-file=/r/konnectivity-server/nodes.json", "--socket=/r/konnectivity-server/konnectivity-server.sock",
			"--tls-cert-file=/d/pki/konnectivity-server.crt", "--tls-private-key-file=/d/pki/konnectivity-server.key", "--v=0",
		}, []string{"--patience"}},
		{"konnectivity-server of a controller that the agents know", tunnelArgs, func(o *Options) { o.Identity.State = identity.Member }, []string{"--patience=3s"}, nil},
		{"konnectivity-server on one address and other ports", tunnelArgs, func(o *Options) {
			o.Config.Spec.API.OnlyBindToAddress = true
			o.Config.Spec.Konnectivity.AgentPort, o.Config.Spec.Konnectivity.AdminPort = 9132, 9133
		}, []string{"--agent-address=192.0.2.1:9132", "--admin-address=127.0.0.1:9133"}, nil},
		{"controller manager alone", controllerManagerArgs, nil, []string{
			"--leader-elect=false", "--bind-address=127.0.0.1", "--cluster-cidr=10.244.0.0/16", "--node-cidr-mask-size-ipv4=24",
			"--use-service-account-credentials=true", "--controllers=*,bootstrapsigner,tokencleaner",
		}, nil},
		{"controller manager: extraArgs win over the flag", controllerManagerArgs, func(o *Options) {
			o.ControllerManagerArgs = map[string]string{"node-cidr-mask-size": "25", "v": "3"}
			o.Config.Spec.ControllerManager.ExtraArgs = map[string]string{"node-cidr-mask-size": "26"}
		}, []string{"--node-cidr-mask-size=26", "--v=3"}, []string{"--node-cidr-mask-size=25"}},
		{"controller manager with IPv6", controllerManagerArgs, onlyIPv6, []string{
			"--cluster-cidr=fd00::/108", "--service-cluster-ip-range=fd01::/108", "--node-cidr-mask-size-ipv6=117",
		}, []string{"--node-cidr-mask-size=", "--node-cidr-mask-size-ipv4"}},
		{"controller manager with both families", controllerManagerArgs, dual(v1beta1.AutoFamily), []string{
			"--cluster-cidr=10.244.0.0/16,fd00::/108", "--service-cluster-ip-range=10.96.0.0/12,fd01::/108",
			"--node-cidr-mask-size-ipv4=24", "--node-cidr-mask-size-ipv6=117",
		}, []string{"--node-cidr-mask-size="}},
		{"controller manager with both families, IPv6 first, a large one", controllerManagerArgs, func(o *Options) {
			dual(v1beta1.IPv6Family)(o)
			o.Config.Spec.Network.DualStack.IPv6PodCIDR = "fd00::/48"
			o.Config.Spec.ControllerManager.ExtraArgs = map[string]string{"node-cidr-mask-size-ipv4": "26"}
		}, []string{
			"--cluster-cidr=fd00::/48,10.244.0.0/16", "--service-cluster-ip-range=fd01::/108,10.96.0.0/12",
			"--node-cidr-mask-size-ipv4=26", "--node-cidr-mask-size-ipv6=64",
		}, nil},
		{"controller manager: rawArgs choose the size for one family", controllerManagerArgs, func(o *Options) {
			o.Config.Spec.ControllerManager.RawArgs = []string{"--node-cidr-mask-size=25"}
		}, []string{"--node-cidr-mask-size=25"}, []string{"--node-cidr-mask-size-ipv4"}},
		{"API server with IPv6", apiServerArgs, onlyIPv6, []string{
			"--service-cluster-ip-range=fd01::/108", "--advertise-address=2001:db8::1",
		}, []string{"--bind-address"}},
		{"API server on one IPv6 address", apiServerArgs, func(o *Options) {
			onlyIPv6(o)
			o.Config.Spec.API.OnlyBindToAddress = true
		}, []string{"--bind-address=2001:db8::1"}, nil},
		{"API server with both families", apiServerArgs, dual(v1beta1.AutoFamily), []string{
			"--service-cluster-ip-range=10.96.0.0/12,fd01::/108", "--advertise-address=192.0.2.1",
		}, nil},
		{"API server with both families, IPv6 first", apiServerArgs, dual(v1beta1.IPv6Family), []string{"--service-cluster-ip-range=fd01::/108,10.96.0.0/12"}, nil},
		{"etcd with IPv6", etcdArgs, onlyIPv6, []string{
			"--listen-peer-urls=https://[2001:db8::1]:2380", "--initial-cluster=m1=https://[2001:db8::1]:2380", "--listen-client-urls=https://127.0.0.1:2379",
		}, nil},
		{"konnectivity-server on one IPv6 address", tunnelArgs, func(o *Options) {
			onlyIPv6(o)
			o.Config.Spec.API.OnlyBindToAddress = true
		}, []string{"--agent-address=[2001:db8::1]:8132"}, nil},
		{"scheduler among others", schedulerArgs, func(o *Options) { o.Alone = false }, []string{"--leader-elect=true", "--bind-address=127.0.0.1"}, nil},
		{"feature gates of kube-apiserver", apiServerArgs, withGates, []string{"--feature-gates=All=true,ForAPI=false"}, nil},
		{"feature gates of kube-controller-manager", controllerManagerArgs, withGates, []string{"--feature-gates=All=true"}, nil},
		{"feature gates of kube-scheduler, of which extraArgs override one", schedulerArgs, func(o *Options) {
			withGates(o)
			o.Config.Spec.Scheduler.ExtraArgs = map[string]string{"feature-gates": "kube:ForScheduler=false,Extra=true"}
		}, []string{"--feature-gates=All=true,Extra=true,ForScheduler=false"}, nil},
		{"no feature gates", apiServerArgs, nil, nil, []string{"--feature-gates"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			flagstest.Check(t, tc.args(options(t, tc.change)), tc.want, tc.absent)
		})
	}
}

func tunnelArgs(o Options) []string { return konnectivityServerArgs(o, 4242) }

// onlyIPv6 is a cluster with networks of IPv6.
func onlyIPv6(o *Options) {
	o.Config.Spec.Network.PodCIDR, o.Config.Spec.Network.ServiceCIDR = "fd00::/108", "fd01::/108"
	o.Config.Spec.API.Address, o.Config.Spec.Storage.Etcd.PeerAddress = "2001:db8::1", "2001:db8::1"
}

// dual is a cluster with networks of both families.
func dual(primary v1beta1.AddressFamily) func(*Options) {
	return func(o *Options) {
		o.Config.Spec.Network.PrimaryAddressFamily = primary
		o.Config.Spec.Network.DualStack = v1beta1.DualStackSpec{Enabled: true, IPv6PodCIDR: "fd00::/108", IPv6ServiceCIDR: "fd01::/108"}
	}
}

func TestDNSAddresses(t *testing.T) {
	for _, tc := range []struct {
		change func(*Options)
		want   []string
	}{
		{onlyIPv6, []string{"fd01::a"}},
		{dual(v1beta1.IPv4Family), []string{"10.96.0.10", "fd01::a"}},
		{dual(v1beta1.IPv6Family), []string{"fd01::a", "10.96.0.10"}},
	} {
		if p := stackParams(options(t, tc.change), nil); !slices.Equal(p.DNSIPs, tc.want) {
			t.Errorf("got %q, want %q", p.DNSIPs, tc.want)
		}
	}
}

func TestEgressSelector(t *testing.T) {
	var config struct {
		Kind             string
		EgressSelections []struct {
			Name       string
			Connection struct {
				ProxyProtocol string
				Transport     struct{ UDS struct{ UDSName string } }
			}
		}
	}
	if err := yaml.Unmarshal(egressSelector(options(t, nil)), &config); err != nil {
		t.Fatal(err)
	}
	if len(config.EgressSelections) != 1 || config.EgressSelections[0].Name != "cluster" || config.EgressSelections[0].Connection.ProxyProtocol != "HTTPConnect" ||
		config.EgressSelections[0].Connection.Transport.UDS.UDSName != "/r/konnectivity-server/konnectivity-server.sock" {
		t.Errorf("got %+v", config)
	}
}

func TestTunnelNames(t *testing.T) {
	for external, want := range map[string]string{"": "", "a.example": "a.example", "a.example:1": "a.example", "192.0.2.9:1": "192.0.2.9", "[2001:db8::1]:2": "2001:db8::1"} {
		o := options(t, func(o *Options) { o.Config.Spec.Konnectivity.ExternalAddress = external })
		if got := o.tunnelNames(); len(got) != 1 || got[0] != want {
			t.Errorf("%q: got %q", external, got)
		}
	}
}

func TestSocketDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	for range 2 {
		if err := makeSocketDir(dir, 4242, 4243); err != nil {
			t.Fatal(err)
		}
	}
	st, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	sys := st.Sys().(*syscall.Stat_t)
	if st.Mode() != fs.ModeDir|fs.ModeSetgid|0o710 || sys.Uid != 4242 || sys.Gid != 4243 {
		t.Errorf("got %v of user %d, group %d", st.Mode(), sys.Uid, sys.Gid)
	}
}

func TestStackParams(t *testing.T) {
	for _, tc := range []struct {
		name        string
		nameservers []string
		want        []string
	}{
		{"the kubelet's resolv.conf does", []string{"192.0.2.53", "2001:db8::53"}, []string{"/etc/resolv.conf"}},
		{"no name server: nothing to forward to", nil, nil},
		{"loopback is not there in a pod", []string{"127.0.0.1", "192.0.2.53"}, []string{"192.0.2.53"}},
		{"only loopback", []string{"127.0.0.1", "::1"}, nil},
	} {
		p := stackParams(options(t, nil), tc.nameservers)
		if !slices.Equal(p.DNSUpstreams, tc.want) {
			t.Errorf("%s: got %q, want %q", tc.name, p.DNSUpstreams, tc.want)
		}
		if !slices.Equal(p.DNSIPs, []string{"10.96.0.10"}) || p.ClusterDomain != "cluster.local" {
			t.Errorf("%s: got %+v", tc.name, p)
		}
	}
}

func TestCertificates(t *testing.T) {
	dir := t.TempDir()
	o := options(t, func(o *Options) {
		o.Layout = host.Layout{DataDir: dir, RunDir: dir, KubeletRoot: filepath.Join(dir, "kubelet")}
	})
	// Twice: nothing is to change the second time.
	var before map[string]string
	for range 2 {
		if err := makeCertificates(o); err != nil {
			t.Fatal(err)
		}
		if err := makeNodeCredentials(o); err != nil {
			t.Fatal(err)
		}
		after := contents(t, dir)
		for file, content := range before {
			if after[file] != content {
				t.Errorf("%s changed without a reason", file)
			}
		}
		before = after
	}
	for _, file := range []string{"admin.conf", "ccm.conf", "scheduler.conf", "kube-proxy.conf", "etcd/peer.key"} {
		st, err := os.Stat(o.Layout.PKI(file))
		if err != nil || st.Mode().Perm()&0o007 != 0 {
			t.Errorf("%s: %v, %v: others must not read it", file, st, err)
		}
	}
	// The kubelet must be able to renew what we made.
	pki := filepath.Join(o.Layout.KubeletRoot, "pki")
	current := filepath.Join(pki, "kubelet-client-current.pem")
	store, err := certificate.NewFileStore("kubelet-client", pki, pki, current, current)
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(current)
	if err != nil {
		t.Fatal(err)
	}
	cert, key := pem.Decode(content)
	if _, err := store.Update(pem.EncodeToMemory(cert), key); err != nil {
		t.Errorf("the kubelet cannot renew its certificate: %v", err)
	}
	// An address more: the server's certificate is made anew, the authority is kept.
	o.Config.Spec.API.SANs = []string{"k0s.example"}
	if err := makeCertificates(o); err != nil {
		t.Fatal(err)
	}
	after := contents(t, dir)
	if after["pki/server.crt"] == before["pki/server.crt"] || after["pki/ca.crt"] != before["pki/ca.crt"] {
		t.Error("want a new server certificate from the same authority")
	}
}

func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	if err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		files[name] = string(content)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return files
}

func TestRootsAreNotMadeTwice(t *testing.T) {
	for _, lost := range roots(options(t, nil)) {
		dir := t.TempDir()
		o := options(t, func(o *Options) { o.Layout = host.Layout{DataDir: dir, RunDir: dir, KubeletRoot: dir + "/kubelet"} })
		if err := makeCertificates(o); err != nil {
			t.Fatal(err)
		}
		o.Identity.State, o.Identity.ClusterID = identity.Member, "c1"
		if err := makeCertificates(o); err != nil {
			t.Errorf("nothing is lost: %v", err)
		}
		for _, file := range []string{lost, strings.Replace(lost, ".crt", ".key", 1), strings.Replace(lost, ".key", ".pub", 1)} {
			os.Remove(o.Layout.PKI(file))
		}
		if err := makeCertificates(o); err == nil || !strings.Contains(err.Error(), lost+" is gone") || !strings.Contains(err.Error(), "cluster c1") {
			t.Errorf("%s: got %v", lost, err)
		}
	}
}
