package v1beta1

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/netip"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
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
		"spec.api.ca.expiresAfter={87600h0m0s} cluster founding",
		"spec.api.ca.certificatesExpireAfter={8760h0m0s} node renewal",
		"spec.controllerManager.extraArgs=map[] cluster restart",
		"spec.controllerManager.rawArgs=[] cluster restart",
		"spec.scheduler.extraArgs=map[] cluster restart",
		"spec.scheduler.rawArgs=[] cluster restart",
		"spec.storage.type=etcd cluster redeploy",
		"spec.storage.etcd.peerAddress= node restart",
		"spec.storage.etcd.externalCluster.endpoints=[] cluster restart",
		"spec.storage.etcd.externalCluster.etcdPrefix= cluster redeploy",
		"spec.storage.etcd.externalCluster.caFile= node restart",
		"spec.storage.etcd.externalCluster.clientCertFile= node restart",
		"spec.storage.etcd.externalCluster.clientKeyFile= node restart",
		"spec.storage.etcd.extraArgs=map[] node restart",
		"spec.storage.etcd.rawArgs=[] node restart",
		"spec.storage.etcd.ca.expiresAfter={87600h0m0s} cluster founding",
		"spec.storage.etcd.ca.certificatesExpireAfter={8760h0m0s} node renewal",
		"spec.storage.kine.dataSource= cluster restart",
		"spec.storage.kine.extraArgs=map[] node restart",
		"spec.storage.kine.rawArgs=[] node restart",
		"spec.network.provider=kuberouter cluster redeploy",
		"spec.network.podCIDR=10.244.0.0/16 cluster redeploy",
		"spec.network.serviceCIDR=10.96.0.0/12 cluster redeploy",
		"spec.network.clusterDomain=cluster.local cluster redeploy",
		"spec.network.primaryAddressFamily= cluster redeploy",
		"spec.network.dualStack.enabled=false cluster redeploy",
		"spec.network.dualStack.IPv6podCIDR= cluster redeploy",
		"spec.network.dualStack.IPv6serviceCIDR= cluster redeploy",
		"spec.network.kubeProxy.disabled=false cluster restart",
		"spec.network.kubeProxy.mode= cluster restart",
		"spec.network.kubeProxy.metricsBindAddress=127.0.0.1:10249 cluster restart",
		"spec.network.kubeProxy.healthzBindAddress=127.0.0.1:10256 cluster restart",
		"spec.network.kubeProxy.iptables.masqueradeBit=<nil> cluster restart",
		"spec.network.kubeProxy.iptables.masqueradeAll=false cluster restart",
		"spec.network.kubeProxy.iptables.localhostNodePorts=<nil> cluster restart",
		"spec.network.kubeProxy.iptables.syncPeriod={0s} cluster restart",
		"spec.network.kubeProxy.iptables.minSyncPeriod={0s} cluster restart",
		"spec.network.kubeProxy.ipvs.syncPeriod={0s} cluster restart later",
		"spec.network.kubeProxy.ipvs.minSyncPeriod={0s} cluster restart later",
		"spec.network.kubeProxy.ipvs.scheduler= cluster restart later",
		"spec.network.kubeProxy.ipvs.excludeCIDRs=[] cluster restart later",
		"spec.network.kubeProxy.ipvs.strictARP=false cluster restart later",
		"spec.network.kubeProxy.ipvs.tcpTimeout={0s} cluster restart later",
		"spec.network.kubeProxy.ipvs.tcpFinTimeout={0s} cluster restart later",
		"spec.network.kubeProxy.ipvs.udpTimeout={0s} cluster restart later",
		"spec.network.kubeProxy.nftables.masqueradeBit=<nil> cluster none never",
		"spec.network.kubeProxy.nftables.masqueradeAll=false cluster restart",
		"spec.network.kubeProxy.nftables.syncPeriod={0s} cluster restart",
		"spec.network.kubeProxy.nftables.minSyncPeriod={0s} cluster restart",
		"spec.network.kubeProxy.nodePortAddresses=[] cluster restart",
		"spec.network.kubeProxy.extraArgs=map[] cluster restart",
		"spec.network.kubeProxy.rawArgs=[] cluster restart",
		"spec.network.kubeProxy.patches=[] cluster none never",
		"spec.network.kubeProxy.patches[].target.kind= cluster restart",
		"spec.network.kubeProxy.patches[].target.name= cluster restart",
		"spec.network.kubeProxy.patches[].target.namespace= cluster restart",
		"spec.network.kubeProxy.patches[].patch.type= cluster restart",
		"spec.network.kubeProxy.patches[].patch.content= cluster restart",
		"spec.network.coreDNS.patches=[] cluster restart",
		"spec.network.coreDNS.patches[].target.kind= cluster restart",
		"spec.network.coreDNS.patches[].target.name= cluster restart",
		"spec.network.coreDNS.patches[].target.namespace= cluster restart",
		"spec.network.coreDNS.patches[].patch.type= cluster restart",
		"spec.network.coreDNS.patches[].patch.content= cluster restart",
		"spec.network.kuberouter.autoMTU=true cluster restart",
		"spec.network.kuberouter.mtu=0 cluster restart",
		"spec.network.kuberouter.metricsPort=0 cluster restart",
		"spec.network.kuberouter.hairpin=Disabled cluster restart",
		"spec.network.kuberouter.hairpinMode=<nil> cluster restart",
		"spec.network.kuberouter.ipMasq=false cluster restart",
		"spec.network.kuberouter.peerRouterIPs= cluster restart",
		"spec.network.kuberouter.peerRouterASNs= cluster restart",
		"spec.network.kuberouter.extraArgs=map[] cluster restart",
		"spec.network.kuberouter.rawArgs=[] cluster restart",
		"spec.network.kuberouter.patches=[] cluster none never",
		"spec.network.kuberouter.patches[].target.kind= cluster restart",
		"spec.network.kuberouter.patches[].target.name= cluster restart",
		"spec.network.kuberouter.patches[].target.namespace= cluster restart",
		"spec.network.kuberouter.patches[].patch.type= cluster restart",
		"spec.network.kuberouter.patches[].patch.content= cluster restart",
		"spec.network.calico.mode= cluster redeploy later",
		"spec.network.calico.overlay= cluster redeploy later",
		"spec.network.calico.vxlanPort=0 cluster restart later",
		"spec.network.calico.vxlanVNI=0 cluster restart later",
		"spec.network.calico.mtu=0 cluster restart later",
		"spec.network.calico.wireguard=false cluster restart later",
		"spec.network.calico.flexVolumeDriverPath= cluster none gone",
		"spec.network.calico.ipAutodetectionMethod= cluster restart later",
		"spec.network.calico.ipV6AutodetectionMethod= cluster restart later",
		"spec.network.calico.envVars=map[] cluster restart later",
		"spec.network.calico.patches=[] cluster restart later",
		"spec.network.calico.patches[].target.kind= cluster restart",
		"spec.network.calico.patches[].target.name= cluster restart",
		"spec.network.calico.patches[].target.namespace= cluster restart",
		"spec.network.calico.patches[].patch.type= cluster restart",
		"spec.network.calico.patches[].patch.content= cluster restart",
		"spec.network.nodeLocalLoadBalancing.enabled=false cluster restart",
		"spec.network.nodeLocalLoadBalancing.type=EnvoyProxy cluster restart",
		"spec.network.nodeLocalLoadBalancing.envoyProxy.image.image= cluster none gone",
		"spec.network.nodeLocalLoadBalancing.envoyProxy.image.version= cluster none gone",
		"spec.network.nodeLocalLoadBalancing.envoyProxy.imagePullPolicy= cluster none gone",
		"spec.network.nodeLocalLoadBalancing.envoyProxy.apiServerBindPort=7443 cluster restart",
		"spec.network.nodeLocalLoadBalancing.envoyProxy.konnectivityServerBindPort=7132 cluster none gone",
		"spec.network.nodeLocalLoadBalancing.traefik.image.image= cluster none gone",
		"spec.network.nodeLocalLoadBalancing.traefik.image.version= cluster none gone",
		"spec.network.nodeLocalLoadBalancing.traefik.imagePullPolicy= cluster none gone",
		"spec.network.nodeLocalLoadBalancing.traefik.apiServerBindPort=7443 cluster restart",
		"spec.network.nodeLocalLoadBalancing.traefik.konnectivityServerBindPort=7132 cluster none gone",
		"spec.network.controlPlaneLoadBalancing.enabled=false node restart later",
		"spec.network.controlPlaneLoadBalancing.type= node restart",
		"spec.network.controlPlaneLoadBalancing.keepalived.vrrpInstances=[] node restart",
		"spec.network.controlPlaneLoadBalancing.keepalived.vrrpInstances[].virtualIPs=[] node restart",
		"spec.network.controlPlaneLoadBalancing.keepalived.vrrpInstances[].interface= node restart",
		"spec.network.controlPlaneLoadBalancing.keepalived.vrrpInstances[].virtualRouterID=0 node restart",
		"spec.network.controlPlaneLoadBalancing.keepalived.vrrpInstances[].advertIntervalSeconds=0 node restart",
		"spec.network.controlPlaneLoadBalancing.keepalived.vrrpInstances[].authPass= node restart",
		"spec.network.controlPlaneLoadBalancing.keepalived.vrrpInstances[].unicastPeers=[] node restart",
		"spec.network.controlPlaneLoadBalancing.keepalived.vrrpInstances[].unicastSourceIP= node restart",
		"spec.network.controlPlaneLoadBalancing.keepalived.vrrpInstances[].addressLabel=0 node restart",
		"spec.network.controlPlaneLoadBalancing.keepalived.virtualServers=[] node restart",
		"spec.network.controlPlaneLoadBalancing.keepalived.virtualServers[].ipAddress= node restart",
		"spec.network.controlPlaneLoadBalancing.keepalived.virtualServers[].delayLoop=nil node restart",
		"spec.network.controlPlaneLoadBalancing.keepalived.virtualServers[].lbAlgo= node restart",
		"spec.network.controlPlaneLoadBalancing.keepalived.virtualServers[].lbKind= node restart",
		"spec.network.controlPlaneLoadBalancing.keepalived.virtualServers[].persistenceTimeoutSeconds=<nil> node restart",
		"spec.network.controlPlaneLoadBalancing.keepalived.userSpaceProxyBindPort=0 node restart",
		"spec.network.controlPlaneLoadBalancing.keepalived.disableLoadBalancer=false node restart",
		"spec.network.controlPlaneLoadBalancing.keepalived.configTemplateVRRP= node restart",
		"spec.network.controlPlaneLoadBalancing.keepalived.configTemplateVS= node restart",
		"spec.workerProfiles=[] cluster restart",
		"spec.workerProfiles[].name= cluster restart",
		"spec.workerProfiles[].values=nil cluster restart",
		"spec.featureGates=[] cluster restart",
		"spec.featureGates[].name= cluster restart",
		"spec.featureGates[].enabled=false cluster restart",
		"spec.featureGates[].components=[] cluster restart",
		"spec.images.repository= cluster restart",
		"spec.images.default_pull_policy=IfNotPresent cluster restart",
		"spec.images.coredns.image=" + CoreDNSImage + " cluster restart",
		"spec.images.coredns.version=" + CoreDNSVersion + " cluster restart",
		"spec.images.metricsserver.image=" + MetricsServerImage + " cluster restart",
		"spec.images.metricsserver.version=" + MetricsServerVersion + " cluster restart",
		"spec.images.pause.image=" + PauseImage + " cluster restart",
		"spec.images.pause.version=" + PauseVersion + " cluster restart",
		"spec.images.konnectivity.image= cluster none gone",
		"spec.images.konnectivity.version= cluster none gone",
		"spec.images.pushgateway.image= cluster none gone",
		"spec.images.pushgateway.version= cluster none gone",
		"spec.images.kubeproxy.image= cluster none gone",
		"spec.images.kubeproxy.version= cluster none gone",
		"spec.images.kuberouter.cni.image= cluster none gone",
		"spec.images.kuberouter.cni.version= cluster none gone",
		"spec.images.kuberouter.cniInstaller.image= cluster none gone",
		"spec.images.kuberouter.cniInstaller.version= cluster none gone",
		"spec.images.calico.cni.image= cluster none gone",
		"spec.images.calico.cni.version= cluster none gone",
		"spec.images.calico.node.image= cluster none gone",
		"spec.images.calico.node.version= cluster none gone",
		"spec.images.calico.kubecontrollers.image= cluster none gone",
		"spec.images.calico.kubecontrollers.version= cluster none gone",
		"spec.images.calico.windows.cni.image= cluster none gone",
		"spec.images.calico.windows.cni.version= cluster none gone",
		"spec.images.calico.windows.node.image= cluster none gone",
		"spec.images.calico.windows.node.version= cluster none gone",
		"spec.images.windows.kubeproxy.image= cluster none gone",
		"spec.images.windows.kubeproxy.version= cluster none gone",
		"spec.images.windows.pause.image= cluster none gone",
		"spec.images.windows.pause.version= cluster none gone",
		"spec.extensions.helm.concurrencyLevel=5 cluster restart later",
		"spec.extensions.helm.repositories=[] cluster restart later",
		"spec.extensions.helm.repositories[].name= cluster restart",
		"spec.extensions.helm.repositories[].url= cluster restart",
		"spec.extensions.helm.repositories[].insecure=false cluster restart",
		"spec.extensions.helm.repositories[].caFile= cluster restart",
		"spec.extensions.helm.repositories[].certFile= cluster restart",
		"spec.extensions.helm.repositories[].keyfile= cluster restart",
		"spec.extensions.helm.repositories[].username= cluster restart",
		"spec.extensions.helm.repositories[].password= cluster restart",
		"spec.extensions.helm.charts=[] cluster restart later",
		"spec.extensions.helm.charts[].name= cluster restart",
		"spec.extensions.helm.charts[].chartname= cluster restart",
		"spec.extensions.helm.charts[].version= cluster restart",
		"spec.extensions.helm.charts[].values= cluster restart",
		"spec.extensions.helm.charts[].namespace= cluster restart",
		"spec.extensions.helm.charts[].timeout={{0s}} cluster restart",
		"spec.extensions.helm.charts[].forceUpgrade=<nil> cluster restart",
		"spec.extensions.helm.charts[].order=0 cluster restart",
		"spec.extensions.storage.type= cluster none gone",
		"spec.extensions.storage.create_default_storage_class=false cluster none gone",
		"spec.konnectivity.adminPort=8133 node restart",
		"spec.konnectivity.agentPort=8132 cluster restart",
		"spec.konnectivity.externalAddress= cluster restart",
		"spec.installConfig.users.etcdUser=etcd node restart",
		"spec.installConfig.users.kineUser=kube-apiserver node restart",
		"spec.installConfig.users.konnectivityUser=konnectivity-server node restart",
		"spec.installConfig.users.kubeAPIserverUser=kube-apiserver node restart",
		"spec.installConfig.users.kubeSchedulerUser=kube-scheduler node restart",
		"spec.metricsServer.patches=[] cluster restart",
		"spec.metricsServer.patches[].target.kind= cluster restart",
		"spec.metricsServer.patches[].target.name= cluster restart",
		"spec.metricsServer.patches[].target.namespace= cluster restart",
		"spec.metricsServer.patches[].patch.type= cluster restart",
		"spec.metricsServer.patches[].patch.content= cluster restart",
		"spec.telemetry.enabled=false cluster none gone",
		"spec.telemetry.interval={0s} cluster none gone",
		"spec.podSecurityPolicy.defaultPolicy= cluster none gone",
	}
	var got []string
	for _, f := range Fields() {
		if f.Section && f.Type.Kind() != reflect.Slice {
			continue
		}
		line := fmt.Sprintf("%s=%v %s %s", f.Path, f.Default, f.Scope(), f.Change())
		for _, rule := range []string{"later", "never", "gone"} {
			if _, ok := f.Tag.Lookup(rule); ok {
				line += " " + rule
			}
		}
		got = append(got, line)
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
	sources, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, source := range sources {
		checked += checkDocumented(t, source)
	}
	if checked < 150 {
		t.Errorf("found only %d fields", checked)
	}
}

// checkDocumented returns how many fields of exported structs a file has.
func checkDocumented(t *testing.T, source string) (checked int) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), source, nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok || !spec.Name.IsExported() {
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
	return checked
}

func TestComplete(t *testing.T) {
	for _, test := range []struct {
		name, api, peer, host string
		external              string
		network               func(*ClusterConfig)
		wantAPI, wantPeer     string
		wantErr               string
	}{
		{name: "IPv4 first", host: "192.0.2.1 2001:db8::1", wantAPI: "192.0.2.1", wantPeer: "192.0.2.1"},
		{name: "IPv4 on a host with IPv6", host: "2001:db8::1", wantErr: "spec.api.address: required: no usable IPv4 address was found on this host"},
		{name: "IPv6", host: "192.0.2.1 2001:db8::1", network: onlyIPv6, wantAPI: "2001:db8::1", wantPeer: "2001:db8::1"},
		{name: "IPv6 on a host with IPv4", host: "192.0.2.1", network: onlyIPv6, wantErr: "spec.api.address: required: no usable IPv6 address was found on this host"},
		{name: "IPv6 and an IPv4 address", api: "192.0.2.1", network: onlyIPv6,
			wantErr: `spec.api.address: invalid value "192.0.2.1": must be an IPv6 address, as spec.network.serviceCIDR is`},
		{name: "both", host: "192.0.2.1 2001:db8::1", network: bothFamilies(AutoFamily), wantAPI: "192.0.2.1", wantPeer: "192.0.2.1"},
		{name: "both on a host with IPv6", host: "2001:db8::1", network: bothFamilies(AutoFamily), wantAPI: "2001:db8::1", wantPeer: "2001:db8::1"},
		{name: "both behind IPv6", host: "192.0.2.1 2001:db8::1", external: "2001:db8::9", network: bothFamilies(AutoFamily), wantAPI: "2001:db8::1", wantPeer: "2001:db8::1"},
		{name: "both, IPv6 first", host: "192.0.2.1 2001:db8::1", network: bothFamilies(IPv6Family), wantAPI: "2001:db8::1", wantPeer: "2001:db8::1"},
		{name: "both, IPv6 first, and an IPv4 address", api: "192.0.2.1", network: bothFamilies(IPv6Family),
			wantErr: `spec.api.address: invalid value "192.0.2.1": must be an IPv6 address, because that is the primary family (spec.network.primaryAddressFamily)`},
		{name: "IPv6 in the pod network", host: "fd00::1", network: onlyIPv6,
			wantErr: `spec.network.podCIDR: invalid value "fd00::/108": contains the host's address fd00::1 (spec.api.address): choose another network`},
		{name: "both empty", host: "192.0.2.1", wantAPI: "192.0.2.1", wantPeer: "192.0.2.1"},
		{name: "api given", api: "192.0.2.2", host: "192.0.2.1", wantAPI: "192.0.2.2", wantPeer: "192.0.2.2"},
		{name: "peer given", peer: "192.0.2.3", host: "192.0.2.1", wantAPI: "192.0.2.1", wantPeer: "192.0.2.3"},
		{name: "in the pod network", host: "10.244.1.1",
			wantErr: `spec.network.podCIDR: invalid value "10.244.0.0/16": contains the host's address 10.244.1.1 (spec.api.address): choose another network`},
		{name: "in the service network", host: "10.100.1.1", wantAPI: "10.100.1.1", wantPeer: "10.100.1.1"}, // see TestWarnings
		{name: "the cluster DNS's address", host: "10.96.0.10",
			wantErr: `spec.network.serviceCIDR: invalid value "10.96.0.0/12": contains the host's address 10.96.0.10 (spec.api.address): choose another network`},
		{name: "no address", wantErr: "spec.api.address: required: this host has no address but loopback, which nobody else can use, not even its pods: " +
			"bring a network interface up, or name the address here"},
		{name: "a network that is wrong, too", host: "2001:db8::1", network: func(c *ClusterConfig) { c.Spec.Network.PodCIDR = "x" },
			wantErr: "spec.api.address: required: no usable IPv4 address was found on this host\n" +
				`spec.network.podCIDR: invalid value "x": must be a CIDR such as 10.244.0.0/16`},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := Default()
			c.Spec.API.Address, c.Spec.Storage.Etcd.PeerAddress = test.api, test.peer
			var addresses []netip.Addr
			for _, address := range strings.Fields(test.host) {
				addresses = append(addresses, netip.MustParseAddr(address))
			}
			c.Spec.API.ExternalAddress = test.external
			if test.network != nil {
				test.network(c)
			}
			err := c.Complete(addresses, "/d")
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

// onlyIPv6 has networks of IPv6.
func onlyIPv6(c *ClusterConfig) {
	c.Spec.Network.PodCIDR, c.Spec.Network.ServiceCIDR = "fd00::/108", "fd01::/108"
}

// bothFamilies has networks of both families.
func bothFamilies(primary AddressFamily) func(*ClusterConfig) {
	return func(c *ClusterConfig) {
		c.Spec.Network.PrimaryAddressFamily = primary
		c.Spec.Network.DualStack = DualStackSpec{Enabled: true, IPv6PodCIDR: "fd00::/108", IPv6ServiceCIDR: "fd01::/108"}
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
		{"fd01::/108", "fd01::1", "fd01::a"},
		{"fd01::8/125", "fd01::9", "fd01::a"},
		{"10.96.0.0/12", "10.96.0.1", "10.96.0.10"},
		{"10.152.184.0/24", "10.152.184.1", "10.152.184.10"},
		{"10.0.0.16/28", "10.0.0.17", "10.0.0.26"},
		{"10.0.0.8/29", "10.0.0.9", "10.0.0.10"},
	} {
		c := Default()
		c.Spec.Network.ServiceCIDR = test.cidr
		if got := c.InternalAPIAddresses(); len(got) != 1 || got[0].String() != test.api {
			t.Errorf("%s: API address %s, want %s", test.cidr, got, test.api)
		}
		if got := c.DNSAddresses(); len(got) != 1 || got[0].String() != test.dns {
			t.Errorf("%s: DNS address %s, want %s", test.cidr, got, test.dns)
		}
	}
	c := Default()
	if c.Spec.Network.ServiceCIDR = "nonsense"; len(c.DNSAddresses()) != 0 {
		t.Errorf("got %s", c.DNSAddresses())
	}
	bothFamilies(IPv6Family)(c)
	c.Spec.Network.ServiceCIDR = "10.96.0.0/12"
	if got := fmt.Sprint(c.InternalAPIAddresses(), c.DNSAddresses()); got != "[fd01::1 10.96.0.1] [fd01::a 10.96.0.10]" {
		t.Errorf("got %s", got)
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
