package v1beta1

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"slices"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestDefaults lists every field that can be set: a new one must be added here.
func TestDefaults(t *testing.T) {
	want := []string{
		"spec.api.address= node restart",
		"spec.api.onlyBindToAddress=false node restart",
		"spec.api.externalAddress= cluster restart",
		"spec.api.port=6443 node restart",
		"spec.api.k0sApiPort=9443 node restart",
		"spec.api.sans=[] node restart",
		"spec.api.extraArgs=map[] node restart",
		"spec.api.rawArgs=[] node restart",
		"spec.api.ca.expiresAfter={87600h0m0s} cluster redeploy",
		"spec.api.ca.certificatesExpireAfter={8760h0m0s} node renewal",
		"spec.controllerManager.extraArgs=map[] cluster restart",
		"spec.controllerManager.rawArgs=[] cluster restart",
		"spec.scheduler.extraArgs=map[] cluster restart",
		"spec.scheduler.rawArgs=[] cluster restart",
		"spec.storage.type=etcd cluster redeploy",
		"spec.storage.etcd.peerAddress= node restart",
		"spec.storage.etcd.extraArgs=map[] node restart",
		"spec.storage.etcd.rawArgs=[] node restart",
		"spec.storage.etcd.ca.expiresAfter={87600h0m0s} cluster redeploy",
		"spec.storage.etcd.ca.certificatesExpireAfter={8760h0m0s} node renewal",
		"spec.network.provider=kuberouter cluster redeploy",
		"spec.network.podCIDR=10.244.0.0/16 cluster redeploy",
		"spec.network.serviceCIDR=10.96.0.0/12 cluster redeploy",
		"spec.network.clusterDomain=cluster.local cluster redeploy",
		"spec.network.kubeProxy.disabled=false cluster restart",
		"spec.network.kubeProxy.mode= cluster restart",
		"spec.network.kubeProxy.metricsBindAddress=127.0.0.1:10249 cluster restart",
		"spec.network.kubeProxy.healthzBindAddress=127.0.0.1:10256 cluster restart",
		"spec.network.kubeProxy.iptables.masqueradeBit=<nil> cluster restart",
		"spec.network.kubeProxy.iptables.masqueradeAll=false cluster restart",
		"spec.network.kubeProxy.iptables.localhostNodePorts=<nil> cluster restart",
		"spec.network.kubeProxy.iptables.syncPeriod={0s} cluster restart",
		"spec.network.kubeProxy.iptables.minSyncPeriod={0s} cluster restart",
		"spec.network.kubeProxy.nftables.masqueradeAll=false cluster restart",
		"spec.network.kubeProxy.nodePortAddresses=[] cluster restart",
		"spec.network.kubeProxy.extraArgs=map[] cluster restart",
		"spec.network.kubeProxy.rawArgs=[] cluster restart",
		"spec.network.kuberouter.autoMTU=true cluster restart",
		"spec.network.kuberouter.mtu=0 cluster restart",
		"spec.network.kuberouter.hairpin=Disabled cluster restart",
		"spec.network.kuberouter.ipMasq=false cluster restart",
		"spec.images.coredns.image=" + CoreDNSImage + " cluster restart",
		"spec.images.coredns.version=" + CoreDNSVersion + " cluster restart",
		"spec.images.metricsserver.image=" + MetricsServerImage + " cluster restart",
		"spec.images.metricsserver.version=" + MetricsServerVersion + " cluster restart",
		"spec.images.pause.image=" + PauseImage + " cluster restart",
		"spec.images.pause.version=" + PauseVersion + " cluster restart",
		"spec.images.default_pull_policy=IfNotPresent cluster restart",
		"spec.telemetry.enabled=false cluster none",
		"spec.installConfig.users.etcdUser=etcd node restart",
		"spec.installConfig.users.kineUser=kube-apiserver node restart",
		"spec.installConfig.users.konnectivityUser=konnectivity-server node restart",
		"spec.installConfig.users.kubeAPIserverUser=kube-apiserver node restart",
		"spec.installConfig.users.kubeSchedulerUser=kube-scheduler node restart",
		"spec.konnectivity.adminPort=8133 node restart",
		"spec.konnectivity.agentPort=8132 cluster restart",
	}
	var got []string
	for _, f := range Fields() {
		got = append(got, fmt.Sprintf("%s=%v %s %s", f.Path, f.Default, f.Scope, f.Change))
	}
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Fatalf("field %d:\n got %q\nwant %q", i, got[min(i, len(got)):], want[min(i, len(want)):])
		}
	}

	d := Default()
	if d.APIVersion != APIVersion || d.Kind != Kind || d.Name != "k0s" || d.Namespace != "kube-system" {
		t.Errorf("wrong type or name: %+v %+v", d.TypeMeta, d.ObjectMeta)
	}
	if errs := d.Validate(); len(errs) > 0 {
		t.Errorf("the defaults are invalid: %v", errs)
	}
}

// TestFieldsAreDocumented: the comments are the source of the documentation.
func TestFieldsAreDocumented(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "types.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		if section, ok := spec.Type.(*ast.StructType); ok {
			for _, f := range section.Fields.List {
				for _, name := range f.Names {
					checked++
					if f.Doc == nil {
						t.Errorf("%s.%s has no comment", spec.Name, name)
					}
				}
			}
		}
		return true
	})
	if checked < 50 {
		t.Errorf("found only %d fields", checked)
	}
}

// TestUnsupportedIsDisjoint: a field is supported or not, never both.
func TestUnsupportedIsDisjoint(t *testing.T) {
	var tree any
	if err := yaml.Unmarshal(unsupportedFields, &tree); err != nil {
		t.Fatal(err)
	}
	supported := map[string]bool{}
	for _, f := range Fields() {
		supported[f.Path] = true
	}
	leaves := 0
	var walk func(path string, rule any)
	walk = func(path string, rule any) {
		if section, ok := rule.(map[string]any); ok {
			for name, child := range section {
				walk(join(path, name), child)
			}
			return
		}
		leaves++
		if supported[path] {
			t.Errorf("%s is both supported and unsupported", path)
		}
		switch rule := rule.(type) {
		case nil, []any:
		case string:
			if !slices.Contains([]string{"any", "never"}, rule) {
				t.Errorf("%s has an unknown rule %q", path, rule)
			}
		default:
			t.Errorf("%s has an unknown rule %v", path, rule)
		}
	}
	walk("", tree)
	if leaves < 60 {
		t.Errorf("found only %d unsupported fields", leaves)
	}
}

func TestComplete(t *testing.T) {
	for _, test := range []struct {
		name, api, peer, host string
		wantAPI, wantPeer     string
		wantErr               string
	}{
		{name: "both empty", host: "192.0.2.1", wantAPI: "192.0.2.1", wantPeer: "192.0.2.1"},
		{name: "api given", api: "192.0.2.2", host: "192.0.2.1", wantAPI: "192.0.2.2", wantPeer: "192.0.2.2"},
		{name: "peer given", peer: "192.0.2.3", host: "192.0.2.1", wantAPI: "192.0.2.1", wantPeer: "192.0.2.3"},
		{name: "in the pod network", host: "10.244.1.1",
			wantErr: `spec.network.podCIDR: invalid value "10.244.0.0/16": contains the host's address 10.244.1.1 (spec.api.address): choose another network`},
		{name: "in the service network", host: "10.100.1.1", wantAPI: "10.100.1.1", wantPeer: "10.100.1.1"}, // see TestWarnings
		{name: "the cluster DNS's address", host: "10.96.0.10",
			wantErr: `spec.network.serviceCIDR: invalid value "10.96.0.0/12": contains the host's address 10.96.0.10 (spec.api.address): choose another network`},
		{name: "no address", wantErr: "spec.api.address: required: no usable IPv4 address was found on this host"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := Default()
			c.Spec.API.Address, c.Spec.Storage.Etcd.PeerAddress = test.api, test.peer
			err := c.Complete(test.host)
			if test.wantErr != "" {
				if err == nil || err.Error() != test.wantErr {
					t.Fatalf("got %v, want %v", err, test.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if c.Spec.API.Address != test.wantAPI || c.Spec.Storage.Etcd.PeerAddress != test.wantPeer {
				t.Errorf("got %q, %q", c.Spec.API.Address, c.Spec.Storage.Etcd.PeerAddress)
			}
		})
	}
}

func TestURLs(t *testing.T) {
	for _, test := range []struct {
		name             string
		api              APISpec
		url, join, local string
	}{
		{"address", APISpec{Address: "192.0.2.1", Port: 6443, K0sAPIPort: 9443},
			"https://192.0.2.1:6443", "https://192.0.2.1:9443", "https://localhost:6443"},
		{"bound", APISpec{Address: "192.0.2.1", OnlyBindToAddress: true, Port: 7443, K0sAPIPort: 9743},
			"https://192.0.2.1:7443", "https://192.0.2.1:9743", "https://192.0.2.1:7443"},
		{"external", APISpec{Address: "192.0.2.1", ExternalAddress: "lb.example.org", Port: 6443, K0sAPIPort: 9443},
			"https://lb.example.org:6443", "https://lb.example.org:9443", "https://localhost:6443"},
		{"external port", APISpec{Address: "192.0.2.1", ExternalAddress: "lb.example.org:443", Port: 6443, K0sAPIPort: 9443},
			"https://lb.example.org:443", "https://lb.example.org:443", "https://localhost:6443"},
		{"external IPv6", APISpec{Address: "192.0.2.1", ExternalAddress: "2001:db8::1", Port: 6443, K0sAPIPort: 9443},
			"https://[2001:db8::1]:6443", "https://[2001:db8::1]:9443", "https://localhost:6443"},
		{"external IPv6 port", APISpec{Address: "192.0.2.1", ExternalAddress: "[2001:db8::1]:443", Port: 6443, K0sAPIPort: 9443},
			"https://[2001:db8::1]:443", "https://[2001:db8::1]:443", "https://localhost:6443"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := test.api.URL(); got != test.url {
				t.Errorf("URL: got %s, want %s", got, test.url)
			}
			if got := test.api.JoinURL(); got != test.join {
				t.Errorf("JoinURL: got %s, want %s", got, test.join)
			}
			if got := test.api.LocalURL(); got != test.local {
				t.Errorf("LocalURL: got %s, want %s", got, test.local)
			}
		})
	}
}

func TestServiceAddresses(t *testing.T) {
	for _, test := range []struct{ cidr, api, dns string }{
		{"10.96.0.0/12", "10.96.0.1", "10.96.0.10"},
		{"10.152.184.0/24", "10.152.184.1", "10.152.184.10"},
		{"10.0.0.16/28", "10.0.0.17", "10.0.0.26"},
		{"10.0.0.8/29", "10.0.0.9", "10.0.0.10"},
		{"nonsense", "invalid IP", "invalid IP"},
	} {
		n := NetworkSpec{ServiceCIDR: test.cidr}
		if got := n.InternalAPIAddress().String(); got != test.api {
			t.Errorf("%s: API address %s, want %s", test.cidr, got, test.api)
		}
		if got := n.DNSAddress().String(); got != test.dns {
			t.Errorf("%s: DNS address %s, want %s", test.cidr, got, test.dns)
		}
	}
}

func TestSANs(t *testing.T) {
	c := Default()
	c.Spec.API.Address = "192.0.2.1"
	c.Spec.API.ExternalAddress = "lb.example.org:443"
	c.Spec.API.SANs = []string{"api.example.org", "localhost"}
	c.Spec.Network.ClusterDomain = "example.net"
	got := c.SANs("host1", []string{"192.0.2.1", "198.51.100.1"})
	want := []string{
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.example.net",
		"localhost", "127.0.0.1", "10.96.0.1", "192.0.2.1", "lb.example.org", "host1", "198.51.100.1", "api.example.org",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if got := (Image{"example.org/a", "1"}).String(); got != "example.org/a:1" {
		t.Errorf("image: %s", got)
	}
}

func TestWarnings(t *testing.T) {
	for address, want := range map[string]int{"": 0, "192.0.2.1": 0, "10.100.1.1": 1} {
		c := Default()
		c.Spec.API.Address = address
		if got := c.Warnings(); len(got) != want {
			t.Errorf("%q: got %q", address, got)
		}
	}
}
