package v1beta1

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

func ptr[T any](v T) *T { return &v }

// TestParse: what a file says, and nothing else, differs from the defaults.
func TestParse(t *testing.T) {
	for _, test := range []struct {
		name, file string
		want       func(c *ClusterConfig)
	}{
		{"empty", "", nil},
		{"comment only", "# nothing\n", nil},
		{"empty documents", "---\n---\n...\n", nil},
		{"empty mapping", "{}", nil},
		{"null sections", "spec:\n  api:\n  network: ~\n  storage: {etcd: null}\n", nil},
		{"null spec", "apiVersion: k0s.k0sproject.io/v1beta1\nkind: ClusterConfig\nspec:\n", nil},
		{"null values", "spec: {api: {port: ~, sans: ~, extraArgs: ~}, network: {kubeProxy: {iptables: {masqueradeBit: ~}}}}", nil},
		{"empty lists", "spec: {api: {sans: [], extraArgs: {}, rawArgs: []}}", nil},
		{"one document and an empty one", "---\nspec: {api: {port: 1}}\n---\n", func(c *ClusterConfig) { c.Spec.API.Port = 1 }},
		{"JSON", `{"spec": {"api": {"port": 443}}}`, func(c *ClusterConfig) { c.Spec.API.Port = 443 }},
		{"metadata", "metadata: {name: mine, labels: {a: b}, creationTimestamp: 2026-01-02T03:04:05Z}", func(c *ClusterConfig) {
			c.Name = "mine"
			c.Labels = map[string]string{"a": "b"}
			c.CreationTimestamp = metav1.Time{Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Local()}
		}},
		{"anchors", "spec: {controllerManager: {extraArgs: &a {v: 4}}, scheduler: {extraArgs: *a}}", func(c *ClusterConfig) {
			c.Spec.ControllerManager.ExtraArgs = map[string]string{"v": "4"}
			c.Spec.Scheduler.ExtraArgs = map[string]string{"v": "4"}
		}},
		{"a part of a section", "spec: {network: {podCIDR: 10.1.0.0/16}, images: {pause: {version: 1@sha256:" + strings.Repeat("a", 64) + "}}}", func(c *ClusterConfig) {
			c.Spec.Network.PodCIDR = "10.1.0.0/16"
			c.Spec.Images.Pause.Version = "1@sha256:" + strings.Repeat("a", 64)
		}},
		{"arguments keep their text", "spec: {api: {extraArgs: {v: 5, profiling: true, ratio: 1.10, zero: 007, off: off, empty: '', none: , date: 2026-01-01}, rawArgs: [--a=1, --a=2, 3]}}", func(c *ClusterConfig) {
			c.Spec.API.ExtraArgs = map[string]string{"v": "5", "profiling": "true", "ratio": "1.10", "zero": "007", "off": "off", "empty": "", "date": "2026-01-01"}
			c.Spec.API.RawArgs = []string{"--a=1", "--a=2", "3"}
		}},
		{"custom provider without kube-proxy", "spec: {network: {provider: custom, kubeProxy: {disabled: true, mode: ipvs}}}", func(c *ClusterConfig) {
			c.Spec.Network.Provider = CustomProvider
			c.Spec.Network.KubeProxy.Disabled = true
			c.Spec.Network.KubeProxy.Mode = "ipvs"
		}},
		{"small networks", "spec: {network: {podCIDR: 10.1.0.0/26, serviceCIDR: 10.2.0.0/29}, controllerManager: {extraArgs: {node-cidr-mask-size: 27}}}", func(c *ClusterConfig) {
			c.Spec.Network.PodCIDR, c.Spec.Network.ServiceCIDR = "10.1.0.0/26", "10.2.0.0/29"
			c.Spec.ControllerManager.ExtraArgs = map[string]string{"node-cidr-mask-size": "27"}
		}},
		{"mask size in raw arguments", "spec: {network: {podCIDR: 10.1.0.0/26}, controllerManager: {rawArgs: [--node-cidr-mask-size=27]}}", func(c *ClusterConfig) {
			c.Spec.Network.PodCIDR = "10.1.0.0/26"
			c.Spec.ControllerManager.RawArgs = []string{"--node-cidr-mask-size=27"}
		}},
		{"everything", `
apiVersion: k0s.k0sproject.io/v1beta1
kind: ClusterConfig
metadata: {name: k0s, namespace: kube-system}
spec:
  api:
    address: 192.0.2.1
    onlyBindToAddress: yes
    externalAddress: lb.example.org:443
    port: 7443
    sans: [api.example.org, 192.0.2.9, "2001:db8::1"]
    ca: {expiresAfter: 100h, certificatesExpireAfter: 1h30m}
  controllerManager: {extraArgs: {a: b}, rawArgs: [--c]}
  scheduler: {extraArgs: {a: b}, rawArgs: [--c]}
  storage:
    type: etcd
    etcd: {peerAddress: 192.0.2.2, extraArgs: {a: b}, rawArgs: [--c], ca: {expiresAfter: 2h, certificatesExpireAfter: 1h}}
  network:
    provider: kuberouter
    podCIDR: 10.1.0.0/16
    serviceCIDR: 10.2.0.0/16
    clusterDomain: example.net
    kubeProxy:
      mode: nftables
      metricsBindAddress: 127.0.0.1:1
      healthzBindAddress: "[::]:2"
      iptables: {masqueradeBit: 0, masqueradeAll: true, localhostNodePorts: false, syncPeriod: 10s, minSyncPeriod: 2s}
      nftables: {masqueradeAll: true, syncPeriod: 20s, minSyncPeriod: 3s}
      nodePortAddresses: [192.0.2.0/24]
      extraArgs: {a: b}
      rawArgs: [--c]
    kuberouter: {autoMTU: false, mtu: 1400, hairpin: Allowed, ipMasq: true}
    coreDNS: {patches: [{target: {kind: Deployment, name: coredns}, patch: {type: MergePatch, content: "{spec: {replicas: 2}}"}}]}
  images:
    repository: registry.example.org/mirror
    coredns: {image: example.org:5000/dns, version: v1}
    metricsserver: {image: example.org/metrics, version: v2}
    pause: {image: example.org/pause, version: v3}
    default_pull_policy: Never
  telemetry: {enabled: true}
  installConfig: {users: {etcdUser: a, kineUser: b, konnectivityUser: c, kubeAPIserverUser: d, kubeSchedulerUser: e}}
  konnectivity: {adminPort: 9133, agentPort: 9132, externalAddress: "k.example.org:8132"}
  workerProfiles: [{name: dense, values: {maxPods: 250, evictionHard: {memory.available: 100Mi}}}, {name: empty}]
  featureGates: [{name: A, enabled: true}, {name: B, enabled: false, components: [kubelet]}]
  metricsServer: {patches: [{target: {kind: Deployment, name: a, namespace: b}, patch: {type: JSON, content: "[]"}}]}
`, func(c *ClusterConfig) {
			args := Args{ExtraArgs: map[string]string{"a": "b"}, RawArgs: []string{"--c"}}
			hours := func(n time.Duration) metav1.Duration { return metav1.Duration{Duration: n * time.Hour} }
			seconds := func(n time.Duration) metav1.Duration { return metav1.Duration{Duration: n * time.Second} }
			spec := &c.Spec
			spec.API.Address, spec.API.OnlyBindToAddress, spec.API.ExternalAddress, spec.API.Port = "192.0.2.1", true, "lb.example.org:443", 7443
			spec.API.SANs = []string{"api.example.org", "192.0.2.9", "2001:db8::1"}
			spec.API.CA = CASpec{hours(100), metav1.Duration{Duration: 90 * time.Minute}}
			spec.ControllerManager.Args, spec.Scheduler.Args = args, args
			spec.Storage.Etcd = EtcdSpec{PeerAddress: "192.0.2.2", Args: args, CA: CASpec{hours(2), hours(1)}}
			network := &spec.Network
			network.PodCIDR, network.ServiceCIDR, network.ClusterDomain = "10.1.0.0/16", "10.2.0.0/16", "example.net"
			network.KubeProxy = KubeProxySpec{
				Mode: NFTablesProxyMode, MetricsBindAddress: "127.0.0.1:1", HealthzBindAddress: "[::]:2",
				IPTables:          KubeProxyIPTables{ptr(int32(0)), true, ptr(false), seconds(10), seconds(2)},
				NFTables:          KubeProxyNFTables{MasqueradeAll: true, SyncPeriod: seconds(20), MinSyncPeriod: seconds(3)},
				NodePortAddresses: []string{"192.0.2.0/24"}, Args: args,
			}
			network.KubeRouter = KubeRouterSpec{MTU: 1400, Hairpin: HairpinAllowed, IPMasq: true}
			network.CoreDNS.Patches = []Patch{{PatchTarget{Kind: "Deployment", Name: "coredns"}, PatchSpec{MergePatch, "{spec: {replicas: 2}}"}}}
			spec.Images.Repository = "registry.example.org/mirror"
			spec.Images.CoreDNS, spec.Images.MetricsServer, spec.Images.Pause = Image{"example.org:5000/dns", "v1"}, Image{"example.org/metrics", "v2"}, Image{"example.org/pause", "v3"}
			spec.Images.DefaultPullPolicy = PullNever
			spec.Telemetry.Enabled = true
			spec.InstallConfig.Users = UsersSpec{"a", "b", "c", "d", "e"}
			spec.Konnectivity = KonnectivitySpec{9133, 9132, "k.example.org:8132"}
			spec.WorkerProfiles = []WorkerProfile{
				{"dense", &runtime.RawExtension{Raw: []byte(`{"evictionHard":{"memory.available":"100Mi"},"maxPods":250}`)}}, {Name: "empty"},
			}
			spec.FeatureGates = []FeatureGate{{Name: "A", Enabled: true}, {"B", false, []string{"kubelet"}}}
			spec.MetricsServer.Patches = []Patch{{PatchTarget{"Deployment", "a", "b"}, PatchSpec{JSONPatch, "[]"}}}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := Parse([]byte(test.file), nil)
			if err != nil {
				t.Fatal(err)
			}
			want := Default()
			if test.want != nil {
				test.want(want)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
			roundTrip(t, got)
		})
	}
}

// roundTrip checks that writing a configuration and parsing it again changes nothing.
func roundTrip(t *testing.T, c *ClusterConfig) {
	t.Helper()
	data, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse(data, nil)
	if err != nil {
		t.Fatalf("the written file is refused: %v\n%s", err, data)
	}
	if !reflect.DeepEqual(again, c) {
		t.Errorf("round trip:\n got %+v\nwant %+v\n%s", again, c, data)
	}
}

// TestFine: what looks wrong and works, or is warned of.
func TestFine(t *testing.T) {
	for _, test := range []struct{ name, file, warning string }{
		{"no etcd", `spec: {api: {port: 2379}, storage: {type: kine}}`, ""},
		{"an external one", `spec: {api: {port: 2379}, storage: {etcd: {externalCluster: {endpoints: ["http://e:2379"], etcdPrefix: /a}}}}`, ""},
		{"moved by an argument", `spec: {konnectivity: {adminPort: 10259, agentPort: 10257}, scheduler: {extraArgs: {secure-port: 1}}, controllerManager: {rawArgs: [--secure-port=2]}}`, ""},
		{"other addresses", `spec: {api: {port: 2379, address: 192.0.2.1, onlyBindToAddress: true}, network: {kubeProxy: {metricsBindAddress: "127.0.0.2:10256"}}}`, ""},
		{"a worker's balancer", `spec: {api: {port: 7443}}`, ""},
		{"link-local services", `spec: {network: {serviceCIDR: 169.254.128.0/20}}`,
			"spec.network.serviceCIDR (169.254.128.0/20) has link-local addresses, of 169.254.0.0/16, which not every program goes out by: choose another network before you have workloads"},
		{"the network of class E", `spec: {network: {podCIDR: 240.0.0.0/12}}`, ""},
		{"external etcd without the files", `spec: {storage: {etcd: {externalCluster: {endpoints: ["https://e:2379/", "https://f:2379"], etcdPrefix: /a}}}}`, ""},
		{"the only mark", `spec: {network: {kubeProxy: {nftables: {masqueradeBit: 14}}}}`, ""},
		{"both hairpins", `spec: {network: {kuberouter: {hairpin: Enabled, hairpinMode: true}}}`, ""},
		{"the old hairpin", `spec: {network: {kuberouter: {hairpinMode: true}}}`, ""},
		{"beside an external etcd", `spec: {storage: {etcd: {peerAddress: 192.0.2.1, ca: {expiresAfter: 20000h}, externalCluster: {endpoints: ["http://e:2379"], etcdPrefix: /a}}}}`,
			"spec.storage.etcd.peerAddress has no effect: with externalCluster, k0s runs no etcd\n" +
				"spec.storage.etcd.ca has no effect: with externalCluster, k0s runs no etcd"},
		{"the other family", `spec: {network: {primaryAddressFamily: IPv6}}`,
			"spec.network.primaryAddressFamily has no effect: pods and services have addresses of one family, IPv4"},
		{"the family there is", `spec: {network: {primaryAddressFamily: IPv4}}`, ""},
		{"no kube-proxy", `spec: {network: {kubeProxy: {disabled: true, mode: iptables, nftables: {masqueradeAll: true}}}}`,
			"all else in spec.network.kubeProxy has no effect: spec.network.kubeProxy.disabled is true"},
		{"nothing but that", `spec: {network: {kubeProxy: {disabled: true}}}`, ""},
		{"lives of certificates", `spec: {api: {ca: {expiresAfter: 1h}}, storage: {etcd: {ca: {expiresAfter: 10m, certificatesExpireAfter: 11m}}}}`,
			"spec.api.ca.certificatesExpireAfter (8760h0m0s) is longer than expiresAfter (1h0m0s): no certificate outlives its authority\n" +
				"spec.storage.etcd.ca.certificatesExpireAfter (11m0s) is longer than expiresAfter (10m0s): no certificate outlives its authority"},
		{"as long as the authority", `spec: {api: {ca: {expiresAfter: 1h, certificatesExpireAfter: 1h}}}`, ""},
		{"no node", `spec: {api: {port: 10250}}`,
			"spec.api.port (10250) is also the port of the kubelet (of profile default): with it, this controller cannot be a node, too"},
	} {
		c, err := Parse([]byte(test.file), nil)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
		} else if got := strings.Join(c.Warnings(), "\n"); got != test.warning {
			t.Errorf("%s: warns %q, want %q", test.name, got, test.warning)
		}
	}
}

// TestAccepted: fields of features that do not exist may say what asks for nothing.
func TestAccepted(t *testing.T) {
	c, err := Parse([]byte(`
spec:
  extensions: {storage: {type: external_storage, create_default_storage_class: true}, helm: {concurrencyLevel: 5, charts: [], repositories: null}}
  featureGates: []
  workerProfiles: []
  podSecurityPolicy: {defaultPolicy: 00-k0s-privileged}
  telemetry: {enabled: true, interval: 2m}
  images: {repository: "", kubeproxy: {image: a, version: b}, calico: {windows: {cni: {version: c}}}, windows: {pause: {image: d}}}
  network:
    calico: {mode: vxlan, overlay: Always, vxlanPort: 4789, vxlanVNI: 4096, mtu: 1450, flexVolumeDriverPath: /x}
    primaryAddressFamily: IPv4
    dualStack: {enabled: false, IPv6podCIDR: "fd00::/108"}
    nodeLocalLoadBalancing: {type: EnvoyProxy, envoyProxy: {apiServerBindPort: 7443, image: {image: a, version: b}}}
    controlPlaneLoadBalancing: {enabled: false}
    kuberouter: {metricsPort: 8080, peerRouterIPs: "", hairpinMode: null}
    kubeProxy: {ipvs: {minSyncPeriod: 0s, strictARP: false, tcpTimeout: 0s}}
  storage: {kine: null, etcd: {externalCluster: null}}
`), nil)
	if err != nil {
		t.Fatal(err)
	}
	roundTrip(t, c)
	want := []string{
		"spec.network.calico.flexVolumeDriverPath has no effect: Calico has no FlexVolume driver any more",
		"spec.network.nodeLocalLoadBalancing.envoyProxy.image.image has no effect: this is inside k0s, not a pod with an image",
		"spec.network.nodeLocalLoadBalancing.envoyProxy.image.version has no effect: this is inside k0s, not a pod with an image",
		"spec.images.kubeproxy.image has no effect: this is inside k0s, not a pod with an image",
		"spec.images.kubeproxy.version has no effect: this is inside k0s, not a pod with an image",
		"spec.images.calico.windows.cni.version has no effect: k0s has no Windows nodes",
		"spec.images.windows.pause.image has no effect: k0s has no Windows nodes",
		"spec.extensions.storage.type has no effect: k0s installs no storage",
		"spec.extensions.storage.create_default_storage_class has no effect: k0s installs no storage",
		"spec.telemetry.enabled has no effect: k0s sends no telemetry",
		"spec.telemetry.interval has no effect: k0s sends no telemetry",
		"spec.podSecurityPolicy.defaultPolicy has no effect: Kubernetes has no pod security policies any more",
		"spec.network.dualStack has no effect: spec.network.dualStack.enabled is false",
	}
	if got := c.Warnings(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// TestRefused: every problem of a file, with its line and path. Each line of
// want is one line of the error.
func TestRefused(t *testing.T) {
	sha := strings.Repeat("a", 63)
	for _, test := range []struct{ name, file, want string }{
		// The file
		{"not YAML", "spec: [", "line 1: not valid YAML from this line on: did not find expected node content"},
		{"tabs", "spec:\n\tapi: {}", "line 2: not valid YAML from this line on: found character that cannot start any token: indent with spaces, not with tabs"},
		{"not YAML on the first line", "a: b: c\n", "line 1: not valid YAML from this line on: mapping values are not allowed in this context"},
		{"not YAML on the last line", "spec: {\n\n", "line 1: not valid YAML from this line on: did not find expected node content"},
		{"a mapping that does not go on", "spec:\n  api:\n    port: 1\n   sans: []\n", "line 2: not valid YAML from this line on: did not find expected key"},
		{"a list that does not end", "spec:\n  a: [1\n  b: 2\n", "line 2: not valid YAML from this line on: did not find expected ',' or ']'"},
		{"not UTF-8", "a: \xff", "not valid YAML: invalid leading UTF-8 octet"},
		{"a list", "- a", "line 1: must be a mapping of names to values, not a list"},
		{"a word", "hello", `line 1: must be a mapping of names to values, not "hello"`},
		{"two documents", "spec: {}\n---\nspec: {}", "line 3: a second YAML document: k0s.yaml must have only one"},
		{"kind", "kind: Cluster", `line 1: kind: invalid value "Cluster": must be ClusterConfig`},
		{"apiVersion", "apiVersion: v1", `line 1: apiVersion: invalid value "v1": must be k0s.k0sproject.io/v1beta1`},
		{"too large", "#" + strings.Repeat("x", maxSize), "larger than 1048576 bytes: this is not a k0s.yaml"},
		{"metadata", "metadata: {nmae: x, generation: many}", `line 1: metadata.nmae: unknown field: did you mean "name"?` + "\n" +
			`line 1: metadata.generation: invalid value "many": must be a whole number`},

		// Keys
		{"misspelt", "spec:\n  api:\n    prot: 1", `line 3: spec.api.prot: unknown field: did you mean "port"?`},
		{"wrong case", "spec: {network: {podCidr: 10.0.0.0/16}}", `line 1: spec.network.podCidr: unknown field: did you mean "podCIDR"?`},
		{"misplaced", "spec: {podCIDR: 10.0.0.0/16}", `line 1: spec.podCIDR: unknown field: did you mean spec.network.podCIDR?`},
		{"unheard of", "spec: {konnectivity: {whatever: 1}}", `line 1: spec.konnectivity.whatever: unknown field: valid here: adminPort, agentPort, externalAddress`},
		{"misspelt unsupported", "spec: {network: {dualStack: {enabeld: true}}}", `line 1: spec.network.dualStack.enabeld: unknown field: did you mean "enabled"?`},
		{"removed", `spec: {api: {tunneledNetworkingMode: true}, network: {calico: {withWindowsNodes: false}}}`,
			"line 1: spec.api.tunneledNetworkingMode: was removed, from upstream k0s, too: leave it out\n" +
				"line 1: spec.network.calico.withWindowsNodes: was removed, from upstream k0s, too: leave it out"},
		{"misspelt section", "spec: {workerProfile: []}", `line 1: spec.workerProfile: unknown field: did you mean "workerProfiles"?`},
		{"legacy keys only where they were", "spec: {konnectivity: {interval: 1}}", `line 1: spec.konnectivity.interval: unknown field: did you mean spec.telemetry.interval?`},
		{"duplicate", "spec:\n  api:\n    port: 1\n    port: 2", "line 4: spec.api.port: duplicate key: already set on line 3"},
		{"duplicate section", "spec:\n  api: {}\n  api: {}", "line 3: spec.api: duplicate key: already set on line 2"},
		{"duplicate argument", "spec: {api: {extraArgs: {a: 1, a: 2}}}", "line 1: spec.api.extraArgs.a: duplicate key: already set on line 1"},
		{"duplicate unsupported", "spec: {network: {dualStack: {enabled: false, enabled: false}}}", "line 1: spec.network.dualStack.enabled: duplicate key: already set on line 1"},
		{"what else is wrong with a duplicate", "spec:\n  api: {port: 1}\n  api:\n    prot: 1\n    extraArgs: {a: [], a: []}\n",
			"line 3: spec.api: duplicate key: already set on line 2\n" +
				"line 4: spec.api.prot: unknown field: did you mean \"port\"?\n" +
				"line 5: spec.api.extraArgs.a: duplicate key: already set on line 5\n" +
				"line 5: spec.api.extraArgs[a]: must be a string, not a list\n" +
				"line 5: spec.api.extraArgs[a]: must be a string, not a list"},
		{"duplicate in a profile", "spec:\n workerProfiles:\n - name: a\n   values:\n    maxPods: 1\n    maxPods: {a: 1, a: 2}\n    <<: {}\n    clusterDomain: x\n    kind: y\n",
			"line 6: spec.workerProfiles[0].values.maxPods: duplicate key: already set on line 5\n" +
				"line 6: spec.workerProfiles[0].values.maxPods.a: duplicate key: already set on line 6\n" +
				"line 7: spec.workerProfiles[0].values: merge keys (<<) are not supported: write the fields out\n" +
				"line 8: spec.workerProfiles[0].values.clusterDomain: is for k0s to set: it is spec.network.clusterDomain\n" +
				"line 9: spec.workerProfiles[0].values.kind: invalid value \"y\": must be KubeletConfiguration"},
		{"another document, and another problem", "spec: {api: {prot: 1}}\n---\nspec: {}",
			"line 1: spec.api.prot: unknown field: did you mean \"port\"?\nline 3: a second YAML document: k0s.yaml must have only one"},
		{"merge key", "spec: {scheduler: &a {}, controllerManager: {<<: *a}}", "line 1: spec.controllerManager: merge keys (<<) are not supported: write the fields out"},
		{"a very long key", "spec: {konnectivity: {? " + strings.Repeat("x", 100_000) + " : 1}}",
			"line 1: spec.konnectivity." + strings.Repeat("x", 100_000) + ": unknown field: valid here: adminPort, agentPort, externalAddress"},
		{"null key", "spec: {~: 1}", "line 1: spec: a key must be a name, not null"},
		{"list as key", "spec: {[a]: 1}", "line 1: spec: a key must be a name, not a list"},

		// Types
		{"section is a list", "spec: {api: []}", "line 1: spec.api: must be a mapping of names to values, not a list"},
		{"unsupported section is a word", "spec: {network: {calico: yes}}", `line 1: spec.network.calico: must be a mapping of names to values, not "yes"`},
		{"port is a string", `spec: {api: {port: "6443"}}`, `line 1: spec.api.port: invalid value "6443": must be a whole number, without quotes`},
		{"port is a word", `spec: {api: {port: "x"}}`, `line 1: spec.api.port: invalid value "x": must be a whole number`},
		{"port is octal", `spec: {api: {port: 06443}}`, `line 1: spec.api.port: invalid value "06443": must be a whole number without zeros before it, with which YAML takes it to be octal: did you mean 6443?`},
		{"bool is a string", `spec: {api: {onlyBindToAddress: "true"}}`, `line 1: spec.api.onlyBindToAddress: invalid value "true": must be true or false, without quotes`},
		{"bool is an old word as a string", `spec: {api: {onlyBindToAddress: "yes"}}`, `line 1: spec.api.onlyBindToAddress: invalid value "yes": must be true or false`},
		{"CIDRs are missing", `spec: {network: {podCIDR: "", dualStack: {enabled: true}}}`,
			"line 1: spec.network.podCIDR: required: a CIDR such as 10.244.0.0/16\n" +
				"line 1: spec.network.dualStack.IPv6podCIDR: required: a CIDR such as fd00::/108\n" +
				"line 1: spec.network.dualStack.IPv6serviceCIDR: required: a CIDR such as fd00::/108"},
		{"port is a list", `spec: {api: {port: [1]}}`, `line 1: spec.api.port: must be a whole number, not a list`},
		{"port is a fraction", `spec: {api: {port: 1.5}}`, `line 1: spec.api.port: invalid value "1.5": must be a whole number`},
		{"number overflows", `spec: {network: {kubeProxy: {iptables: {masqueradeBit: 4294967296}}}}`, `line 1: spec.network.kubeProxy.iptables.masqueradeBit: invalid value "4294967296": must be a whole number`},
		{"bool", `spec: {api: {onlyBindToAddress: maybe}}`, `line 1: spec.api.onlyBindToAddress: invalid value "maybe": must be true or false`},
		{"string is a mapping", `spec: {network: {podCIDR: {a: b}}}`, `line 1: spec.network.podCIDR: must be a string, not a mapping`},
		{"list is a word", `spec: {api: {sans: a.b}}`, `line 1: spec.api.sans: must be a list, not "a.b"`},
		{"argument is a list", `spec: {api: {extraArgs: {a: [b]}}}`, `line 1: spec.api.extraArgs[a]: must be a string, not a list`},
		{"arguments are a list", `spec: {api: {extraArgs: [a]}}`, `line 1: spec.api.extraArgs: must be a mapping of names to values, not a list`},
		{"duration", `spec: {api: {ca: {expiresAfter: 10 years}}}`, `line 1: spec.api.ca.expiresAfter: invalid value "10 years": must be a duration such as 8760h or 1m30s`},
		{"duration without unit", `spec: {api: {ca: {expiresAfter: 10}}}`, `line 1: spec.api.ca.expiresAfter: invalid value "10": must be a duration such as 8760h or 1m30s`},
		{"duration is a list", `spec: {api: {ca: {expiresAfter: []}}}`, `line 1: spec.api.ca.expiresAfter: must be a duration such as 8760h or 1m30s, not a list`},

		// spec.api
		{"address", `spec: {api: {address: host}}`, `line 1: spec.api.address: invalid value "host": must be an IP address of this host`},
		{"unspecified address", `spec: {api: {address: 0.0.0.0}}`, `line 1: spec.api.address: invalid value "0.0.0.0": must be an address others can connect to`},
		{"unspecified IPv6 address", `spec: {api: {address: "::"}}`, `line 1: spec.api.address: invalid value "::": must be an address others can connect to`},
		{"IPv6 address", `spec: {api: {address: "2001:db8::1"}}`, `line 1: spec.api.address: invalid value "2001:db8::1": must be an IPv4 address, as spec.network.serviceCIDR is`},
		{"external address", `spec: {api: {externalAddress: "a b"}}`, `line 1: spec.api.externalAddress: invalid value "a b": must be an IP address or DNS name, with or without :port`},
		{"external port", `spec: {api: {externalAddress: "lb:0"}}`, `line 1: spec.api.externalAddress: invalid value "lb:0": must have a port from 1 to 65535, or none`},
		{"external URL", `spec: {api: {externalAddress: "https://lb"}}`, `line 1: spec.api.externalAddress: invalid value "https://lb": must have a port from 1 to 65535, or none`},
		{"unspecified external address", `spec: {api: {externalAddress: 0.0.0.0}}`, `line 1: spec.api.externalAddress: invalid value "0.0.0.0": must be an address others can connect to`},
		{"external addresses that are none", `spec: {api: {externalAddress: "10.0.0.999:6443", sans: [10.0.0.300, 1, 1.2.3, "fe80::1%eth0", 0.0.0.0, 1.example.org]}, konnectivity: {externalAddress: 10.0.0.256}}`,
			`line 1: spec.api.externalAddress: invalid value "10.0.0.999:6443": must be an IP address or DNS name, with or without :port` + "\n" +
				`line 1: spec.api.sans[0]: invalid value "10.0.0.300": must be an IP address or DNS name` + "\n" +
				`line 1: spec.api.sans[1]: invalid value "1": must be an IP address or DNS name` + "\n" +
				`line 1: spec.api.sans[2]: invalid value "1.2.3": must be an IP address or DNS name` + "\n" +
				`line 1: spec.api.sans[3]: invalid value "fe80::1%eth0": must be an IP address or DNS name` + "\n" +
				`line 1: spec.konnectivity.externalAddress: invalid value "10.0.0.256": must be an IP address or DNS name, with or without :port`},
		{"external address of a pod", `spec: {api: {externalAddress: "10.244.0.5:6443"}}`,
			`line 1: spec.network.podCIDR: invalid value "10.244.0.0/16": contains the address 10.244.0.5 of all controllers (spec.api.externalAddress): choose another network`},
		{"external address of a service", `spec: {api: {externalAddress: 10.96.0.1}}`,
			`line 1: spec.network.serviceCIDR: invalid value "10.96.0.0/12": contains the address 10.96.0.1 of all controllers (spec.api.externalAddress): choose another network`},
		{"networks for something else", "spec:\n network:\n  podCIDR: 127.0.0.0/16\n  serviceCIDR: 0.0.0.0/12",
			`line 3: spec.network.podCIDR: invalid value "127.0.0.0/16": has addresses of 127.0.0.0/8, loopback, which cannot be those of pods or services` + "\n" +
				`line 4: spec.network.serviceCIDR: invalid value "0.0.0.0/12": has addresses of 0.0.0.0/8, this network, which cannot be those of pods or services`},
		{"networks for many", "spec:\n network:\n  podCIDR: 224.0.0.0/8\n  serviceCIDR: ff00::/108",
			`line 3: spec.network.podCIDR: invalid value "224.0.0.0/8": has addresses of 224.0.0.0/4, multicast, which cannot be those of pods or services` + "\n" +
				`line 4: spec.network.serviceCIDR: invalid value "ff00::/108": is not of the family of spec.network.podCIDR, 224.0.0.0/8: for both families, see spec.network.dualStack` + "\n" +
				`line 4: spec.network.serviceCIDR: invalid value "ff00::/108": has addresses of ff00::/8, multicast, which cannot be those of pods or services`},
		{"link-local pods", `spec: {network: {podCIDR: 169.254.0.0/16}}`,
			`line 1: spec.network.podCIDR: invalid value "169.254.0.0/16": has link-local addresses, of 169.254.0.0/16, with which no pod can be behind a service`},
		{"port 0", `spec: {api: {port: 0}}`, `line 1: spec.api.port: invalid value 0: must be a port from 1 to 65535`},
		{"port 65536", `spec: {api: {k0sApiPort: 65536}}`, `line 1: spec.api.k0sApiPort: invalid value 65536: must be a port from 1 to 65535`},
		{"same port", `spec: {api: {port: 9443}}`, `line 1: spec.api.k0sApiPort: invalid value 9443: is also the port of spec.api.port`},
		{"ports of our own", `spec: {api: {port: 2379, k0sApiPort: 2380}, konnectivity: {agentPort: 10257, adminPort: 10259}}`,
			"line 1: spec.api.port: invalid value 2379: is also the port of etcd's clients\n" +
				"line 1: spec.api.k0sApiPort: invalid value 2380: is also the port of etcd's peers\n" +
				"line 1: spec.konnectivity.adminPort: invalid value 10259: is also the port of kube-scheduler\n" +
				"line 1: spec.konnectivity.agentPort: invalid value 10257: is also the port of kube-controller-manager"},
		{"kine's port", `spec: {api: {port: 2380}, storage: {type: kine}}`, "line 1: spec.api.port: invalid value 2380: is also the port of kine's metrics"},
		{"etcd's port on this host's address", `spec: {api: {port: 2380, address: 192.0.2.1, onlyBindToAddress: true}}`, "line 1: spec.api.port: invalid value 2380: is also the port of etcd's peers"},
		{"two of kube-proxy", `spec: {network: {kubeProxy: {metricsBindAddress: "0.0.0.0:10256"}}}`, "line 1: spec.network.kubeProxy.healthzBindAddress: invalid value 10256: is also the port of spec.network.kubeProxy.metricsBindAddress"},
		{"kube-proxy on the kubelet's port", `spec: {network: {kubeProxy: {metricsBindAddress: "127.0.0.1:10250"}}}`, "line 1: spec.network.kubeProxy.metricsBindAddress: invalid value 10250: is also the port of the kubelet (of profile default)"},
		{"balancer on the kubelet's port", `spec: {network: {nodeLocalLoadBalancing: {envoyProxy: {apiServerBindPort: 10250}}}}`, `line 1: spec.network.nodeLocalLoadBalancing.envoyProxy.apiServerBindPort: invalid value 10250: is also the port of the kubelet (of profile default)`},
		{"balancer on the port of the kubelet's health", `spec: {network: {nodeLocalLoadBalancing: {envoyProxy: {apiServerBindPort: 10248}}}}`, `line 1: spec.network.nodeLocalLoadBalancing.envoyProxy.apiServerBindPort: invalid value 10248: is also the port of the kubelet's health (of profile default)`},
		{"balancer on a port of kube-proxy", `spec: {network: {nodeLocalLoadBalancing: {envoyProxy: {apiServerBindPort: 10249}}}}`, `line 1: spec.network.nodeLocalLoadBalancing.envoyProxy.apiServerBindPort: invalid value 10249: is also the port of spec.network.kubeProxy.metricsBindAddress`},
		{"balancer on the other port of kube-proxy", `spec: {network: {kubeProxy: {healthzBindAddress: "0.0.0.0:7443"}, nodeLocalLoadBalancing: {type: Traefik}}}`, `line 1: spec.network.nodeLocalLoadBalancing.traefik.apiServerBindPort: invalid value 7443: is also the port of spec.network.kubeProxy.healthzBindAddress`},
		{"balancer on the port of BGP", `spec: {network: {nodeLocalLoadBalancing: {envoyProxy: {apiServerBindPort: 179}}}}`, `line 1: spec.network.nodeLocalLoadBalancing.envoyProxy.apiServerBindPort: invalid value 179: is also the port of BGP (spec.network.kuberouter)`},
		{"balancer on the port of the network's health", `spec: {network: {nodeLocalLoadBalancing: {envoyProxy: {apiServerBindPort: 20244}}}}`, `line 1: spec.network.nodeLocalLoadBalancing.envoyProxy.apiServerBindPort: invalid value 20244: is also the port of the pod network's health (spec.network.kuberouter)`},
		{"balancer on the port of the network's metrics", `spec: {network: {nodeLocalLoadBalancing: {envoyProxy: {apiServerBindPort: 8080}}, kuberouter: {metricsPort: 8080}}}`, `line 1: spec.network.nodeLocalLoadBalancing.envoyProxy.apiServerBindPort: invalid value 8080: is also the port of the pod network's metrics (spec.network.kuberouter)`},
		{"balancer on a port of a profile", `spec: {workerProfiles: [{name: a, values: {maxPods: 9}}, {name: b, values: {port: 7443}}]}`, `line 1: spec.network.nodeLocalLoadBalancing.envoyProxy.apiServerBindPort: invalid value 7443: is also the port of the kubelet (of profile b)`},
		{"wildcard in the wrong place", `spec: {api: {sans: ["a.*.b", "*.*.b", "*.a.b"]}}`, `line 1: spec.api.sans[0]: invalid value "a.*.b": must be an IP address or DNS name` + "\n" +
			`line 1: spec.api.sans[1]: invalid value "*.*.b": must be an IP address or DNS name`},
		{"san", "spec:\n  api:\n    sans:\n    - a.b\n    - '*'\n    -", `line 5: spec.api.sans[1]: invalid value "*": must be an IP address or DNS name` + "\n" +
			`line 6: spec.api.sans[2]: must not be null: leave it out`},
		{"dashes", `spec: {api: {extraArgs: {--v: 1}}}`, `line 1: spec.api.extraArgs[--v]: invalid value "--v": must be the name of a flag, without leading dashes, "=" or blanks`},
		{"equals sign", `spec: {scheduler: {extraArgs: {v=1: 1}}}`, `line 1: spec.scheduler.extraArgs[v=1]: invalid value "v=1": must be the name of a flag, without leading dashes, "=" or blanks`},
		{"NUL", `spec: {controllerManager: {extraArgs: {v: "a\0"}, rawArgs: ["\0"]}}`,
			`line 1: spec.controllerManager.extraArgs[v]: invalid value "a\x00": must not contain a NUL byte` + "\n" +
				`line 1: spec.controllerManager.rawArgs[0]: invalid value "\x00": must not contain a NUL byte`},
		{"CA lifetime", `spec: {api: {ca: {expiresAfter: 0s, certificatesExpireAfter: -1h}}}`, `line 1: spec.api.ca.expiresAfter: invalid value "0s": must be at least 10m0s` + "\n" +
			`line 1: spec.api.ca.certificatesExpireAfter: invalid value "-1h0m0s": must be at least 10m0s`},

		// spec.storage
		{"no storage type", `spec: {storage: {type: ""}}`, `line 1: spec.storage.type: required: must be etcd or kine`},
		{"storage type", `spec: {storage: {type: sqlite}}`, `line 1: spec.storage.type: invalid value "sqlite": must be etcd or kine`},
		{"peer address", `spec: {storage: {etcd: {peerAddress: "::1"}}}`, `line 1: spec.storage.etcd.peerAddress: invalid value "::1": must be an address others can connect to`},
		{"etcd CA", `spec: {storage: {etcd: {ca: {expiresAfter: -1s}}}}`, `line 1: spec.storage.etcd.ca.expiresAfter: invalid value "-1s": must be at least 10m0s`},
		{"etcd arguments", `spec: {storage: {etcd: {extraArgs: {"": a}}}}`, `line 1: spec.storage.etcd.extraArgs[]: invalid value "": must be the name of a flag, without leading dashes, "=" or blanks`},
		{"external etcd", `spec: {storage: {etcd: {externalCluster: {endpoints: [a], etcdPrefix: b, caFile: c, clientCertFile: d, clientKeyFile: e}}}}`,
			`line 1: spec.storage.etcd.externalCluster.endpoints[0]: invalid value "a": must be a URL such as https://192.0.2.21:2379` + "\n" +
				`line 1: spec.storage.etcd.externalCluster.caFile: invalid value "c": must be an absolute path` + "\n" +
				`line 1: spec.storage.etcd.externalCluster.clientCertFile: invalid value "d": must be an absolute path` + "\n" +
				`line 1: spec.storage.etcd.externalCluster.clientKeyFile: invalid value "e": must be an absolute path`},
		{"etcd's learners", `spec: {storage: {etcd: {extraArgs: {max-learners: 4}, rawArgs: [--max-learners=4, -max-learners, "4", --max-learners-x]}}}`,
			"line 1: spec.storage.etcd.extraArgs[max-learners]: it must be the same on all controllers, or their data may come to differ for good: k0s sets it, leave it out\n" +
				"line 1: spec.storage.etcd.rawArgs[0]: it must be the same on all controllers, or their data may come to differ for good: k0s sets it, leave it out\n" +
				"line 1: spec.storage.etcd.rawArgs[1]: it must be the same on all controllers, or their data may come to differ for good: k0s sets it, leave it out"},
		{"external etcd without anything", `spec: {storage: {etcd: {extraArgs: {a: b}, rawArgs: [--c], externalCluster: {}}}}`,
			"line 1: spec.storage.etcd.externalCluster.endpoints: required: the URLs of etcd's members\n" +
				"line 1: spec.storage.etcd.externalCluster.etcdPrefix: required: what this cluster's keys begin with, such as /k0s\n" +
				"line 1: spec.storage.etcd.extraArgs: does nothing beside externalCluster, where k0s runs no etcd: leave it out\n" +
				"line 1: spec.storage.etcd.rawArgs: does nothing beside externalCluster, where k0s runs no etcd: leave it out"},
		{"external etcd with an empty endpoint", `spec: {storage: {etcd: {externalCluster: {endpoints: [""], etcdPrefix: /}}}}`,
			`line 1: spec.storage.etcd.externalCluster.endpoints[0]: invalid value "": must be a URL such as https://192.0.2.21:2379` + "\n" +
				`line 1: spec.storage.etcd.externalCluster.etcdPrefix: invalid value "/": must be a path such as /k0s`},
		{"external etcd with some of the files", `spec: {storage: {etcd: {externalCluster: {endpoints: ["https://e:2379"], etcdPrefix: /a, caFile: /ca}}}}`,
			"line 1: spec.storage.etcd.externalCluster.clientCertFile: required: caFile, clientCertFile and clientKeyFile go together\n" +
				"line 1: spec.storage.etcd.externalCluster.clientKeyFile: required: caFile, clientCertFile and clientKeyFile go together"},
		{"kine source", `spec: {storage: {kine: {dataSource: "oracle://a:secret@b"}}}`, `line 1: spec.storage.kine.dataSource: must begin with sqlite://, postgres://, mysql:// or nats://`},
		{"kine endpoint", `spec: {storage: {kine: {extraArgs: {endpoint: "postgres://a:secret@b/c"}}}}`, `line 1: spec.storage.kine.extraArgs[endpoint]: everybody on the host could read the password in it: use dataSource`},
		{"kine without kine", `spec: {storage: {kine: {dataSource: "http://etcd:2379"}}}`, `line 1: spec.storage.kine.dataSource: must begin with sqlite://, postgres://, mysql:// or nats://`},
		{"kine source without place", `spec: {storage: {kine: {dataSource: "mysql://"}}}`, `line 1: spec.storage.kine.dataSource: must say where the database is, such as postgres://user:password@192.0.2.30/k0s`},

		// spec.network
		{"calico", `spec: {network: {provider: calico}}`, `line 1: spec.network.provider: invalid value "calico": not supported yet`},
		{"no provider", `spec: {network: {provider: ""}}`, `line 1: spec.network.provider: required: must be kuberouter or custom`},
		{"provider", `spec: {network: {provider: flannel}}`, `line 1: spec.network.provider: invalid value "flannel": must be kuberouter or custom`},
		{"podCIDR", `spec: {network: {podCIDR: 10.0.0.0}}`, `line 1: spec.network.podCIDR: invalid value "10.0.0.0": must be a CIDR such as 10.244.0.0/16`},
		{"empty podCIDR", `spec: {network: {podCIDR: ""}}`, `line 1: spec.network.podCIDR: required: a CIDR such as 10.244.0.0/16`},
		{"serviceCIDR", `spec: {network: {serviceCIDR: 10.0.0.0/33}}`, `line 1: spec.network.serviceCIDR: invalid value "10.0.0.0/33": must be a CIDR such as 10.244.0.0/16`},
		{"IPv6 pod network too small", `spec: {network: {podCIDR: "fd00::/118", serviceCIDR: "fd01::/108"}}`,
			`line 1: spec.network.podCIDR: invalid value "fd00::/118": is too small: each node gets a /117 of it (node-cidr-mask-size in spec.controllerManager.extraArgs)`},
		{"IPv6 pod network too large", `spec: {network: {podCIDR: "fd00::/48", serviceCIDR: "fd01::/108"}, controllerManager: {extraArgs: {node-cidr-mask-size: "80"}}}`,
			`line 1: spec.network.podCIDR: invalid value "fd00::/48": is too large: each node gets a /80 of it (node-cidr-mask-size in spec.controllerManager.extraArgs), ` +
				`and Kubernetes makes no more than 65536 such parts: must be /64 or smaller`},
		{"IPv6 service network too large", `spec: {network: {podCIDR: "fd00::/64", serviceCIDR: "fd01::/107"}}`, `line 1: spec.network.serviceCIDR: invalid value "fd01::/107": is too large: must be /108 or smaller, such as /112`},
		{"IPv6 service network too small", `spec: {network: {podCIDR: "fd00::/64", serviceCIDR: "fd01::/126"}}`, `line 1: spec.network.serviceCIDR: invalid value "fd01::/126": is too small: must be /125 or larger`},
		{"IPv6 overlap", `spec: {network: {podCIDR: "fd00::/64", serviceCIDR: "fd00::/108"}}`, `line 1: spec.network.serviceCIDR: invalid value "fd00::/108": overlaps spec.network.podCIDR, fd00::/64`},
		{"mapped", `spec: {network: {podCIDR: "::ffff:10.244.0.0/112"}}`, `line 1: spec.network.podCIDR: invalid value "::ffff:10.244.0.0/112": must be a CIDR such as 10.244.0.0/16`},
		{"small MTU for IPv6", `spec: {network: {podCIDR: "fd00::/64", serviceCIDR: "fd01::/108", kuberouter: {autoMTU: false, mtu: 1279}}}`, `line 1: spec.network.kuberouter.mtu: invalid value 1279: must be at least 1280 for IPv6`},
		{"host bits", `spec: {network: {podCIDR: 10.1.2.3/16}}`, `line 1: spec.network.podCIDR: invalid value "10.1.2.3/16": must be a network, not an address in it: did you mean 10.1.0.0/16?`},
		{"podCIDR too small", `spec: {network: {podCIDR: 10.1.0.0/25}}`, `line 1: spec.network.podCIDR: invalid value "10.1.0.0/25": is too small: each node gets a /24 of it (node-cidr-mask-size in spec.controllerManager.extraArgs)`},
		{"serviceCIDR too small", `spec: {network: {serviceCIDR: 10.1.0.0/30}}`, `line 1: spec.network.serviceCIDR: invalid value "10.1.0.0/30": is too small: must be /29 or larger`},
		{"overlap", `spec: {network: {podCIDR: 10.100.0.0/16}}`, `line 1: spec.network.serviceCIDR: invalid value "10.96.0.0/12": overlaps spec.network.podCIDR, 10.100.0.0/16`},
		{"overlap with address", `spec: {api: {address: 10.244.0.1}}`, `line 1: spec.network.podCIDR: invalid value "10.244.0.0/16": contains the host's address 10.244.0.1 (spec.api.address): choose another network`},
		{"overlap with peer address", `spec: {storage: {etcd: {peerAddress: 10.96.0.1}}}`, `line 1: spec.network.serviceCIDR: invalid value "10.96.0.0/12": contains the host's address 10.96.0.1 (spec.storage.etcd.peerAddress): choose another network`},
		{"clusterDomain", `spec: {network: {clusterDomain: A_b}}`, `line 1: spec.network.clusterDomain: invalid value "A_b": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`},
		{"dual stack of one family", `spec: {network: {podCIDR: "fd00::/64", serviceCIDR: "fd01::/108", dualStack: {enabled: true, IPv6podCIDR: 10.1.0.0/16}}}`,
			`line 1: spec.network.podCIDR: invalid value "fd00::/64": must be IPv4 when dualStack is enabled: IPv6 goes into dualStack` + "\n" +
				`line 1: spec.network.serviceCIDR: invalid value "fd01::/108": must be IPv4 when dualStack is enabled: IPv6 goes into dualStack` + "\n" +
				`line 1: spec.network.dualStack.IPv6podCIDR: invalid value "10.1.0.0/16": must be an IPv6 CIDR such as fd00::/108` + "\n" +
				`line 1: spec.network.dualStack.IPv6serviceCIDR: required: a CIDR such as fd00::/108`},
		{"dual stack that overlaps", `spec: {network: {dualStack: {enabled: true, IPv6podCIDR: "fd00::/64", IPv6serviceCIDR: "fd00::/107"}}}`,
			`line 1: spec.network.dualStack.IPv6serviceCIDR: invalid value "fd00::/107": overlaps spec.network.dualStack.IPv6podCIDR, fd00::/64` + "\n" +
				`line 1: spec.network.dualStack.IPv6serviceCIDR: invalid value "fd00::/107": is too large: must be /108 or smaller, such as /112`},
		{"one size for both families", `spec: {network: {dualStack: {enabled: true, IPv6podCIDR: "fd00::/64", IPv6serviceCIDR: "fd01::/112"}}, controllerManager: {extraArgs: {node-cidr-mask-size: "80"}}}`,
			`line 1: spec.controllerManager.extraArgs[node-cidr-mask-size]: invalid value "80": cannot be for both families: use node-cidr-mask-size-ipv4 and node-cidr-mask-size-ipv6`},
		{"dual stack over VXLAN", `spec: {network: {provider: calico, dualStack: {enabled: true, IPv6podCIDR: "fd00::/108", IPv6serviceCIDR: "fd01::/108"}}}`,
			`line 1: spec.network.provider: invalid value "calico": not supported yet` + "\n" +
				`line 1: spec.network.calico.mode: must be bird when dualStack is enabled`},
		{"families", `spec: {network: {podCIDR: "fd00::/64"}}`, `line 1: spec.network.serviceCIDR: invalid value "10.96.0.0/12": is not of the family of spec.network.podCIDR, fd00::/64: for both families, see spec.network.dualStack`},
		{"address family", `spec: {network: {primaryAddressFamily: ipv4}}`, `line 1: spec.network.primaryAddressFamily: invalid value "ipv4": must be IPv4, IPv6 or empty`},
		{"external address of the other family", `spec: {api: {externalAddress: "[2001:db8::1]:443"}}`,
			`line 1: spec.api.externalAddress: invalid value "[2001:db8::1]:443": is IPv6, but services are IPv4: pods could not reach the API by it (with spec.network.nodeLocalLoadBalancing.enabled they need not)`},
		{"node-local load balancers, also when disabled", `spec: {network: {nodeLocalLoadBalancing: {type: HAProxy, envoyProxy: {imagePullPolicy: maybe, apiServerBindPort: 0, image: {image: "a ", version: ""}}, traefik: {konnectivityServerBindPort: 65536}}}}`,
			`line 1: spec.network.nodeLocalLoadBalancing.type: invalid value "HAProxy": must be EnvoyProxy or Traefik` + "\n" +
				`line 1: spec.network.nodeLocalLoadBalancing.envoyProxy.imagePullPolicy: invalid value "maybe": must be IfNotPresent, Always, Never or empty` + "\n" +
				`line 1: spec.network.nodeLocalLoadBalancing.envoyProxy.apiServerBindPort: invalid value 0: must be a port from 1 to 65535` + "\n" +
				`line 1: spec.network.nodeLocalLoadBalancing.traefik.konnectivityServerBindPort: invalid value 65536: must be a port from 1 to 65535`},
		{"control plane load balancing", `spec: {network: {controlPlaneLoadBalancing: {enabled: true, type: Keepalived}}}`, `line 1: spec.network.controlPlaneLoadBalancing.enabled: not supported yet`},
		{"virtual addresses, also when disabled", `
spec:
  network:
    controlPlaneLoadBalancing:
      type: VRRP
      keepalived:
        userSpaceProxyBindPort: 65536
        vrrpInstances:
        - {virtualRouterID: 256, unicastPeers: [192.0.2.1]}
        - {virtualIPs: [192.0.2.9], authPass: toolongtoo, addressLabel: 4294967295, unicastSourceIP: 192.0.2.1, unicastPeers: [192.0.2.1, a]}
        virtualServers:
        - {delayLoop: 1ns, lbAlgo: xx, lbKind: yy, persistenceTimeoutSeconds: 0}
        - {ipAddress: 192.0.2.9, persistenceTimeoutSeconds: 2678401}
`,
			`line 5: spec.network.controlPlaneLoadBalancing.type: invalid value "VRRP": must be Keepalived or empty` + "\n" +
				`line 7: spec.network.controlPlaneLoadBalancing.keepalived.userSpaceProxyBindPort: invalid value 65536: must be from 0 to 65535` + "\n" +
				`line 9: spec.network.controlPlaneLoadBalancing.keepalived.vrrpInstances[0].virtualIPs: required: at least one address such as 192.0.2.100/24` + "\n" +
				`line 9: spec.network.controlPlaneLoadBalancing.keepalived.vrrpInstances[0].authPass: required: a password of one to eight characters` + "\n" +
				`line 9: spec.network.controlPlaneLoadBalancing.keepalived.vrrpInstances[0].unicastSourceIP: invalid value "": must be an IP address of this controller when there are unicastPeers` + "\n" +
				`line 9: spec.network.controlPlaneLoadBalancing.keepalived.vrrpInstances[0].virtualRouterID: invalid value 256: must be from 0 to 255` + "\n" +
				`line 10: spec.network.controlPlaneLoadBalancing.keepalived.vrrpInstances[1].virtualIPs[0]: invalid value "192.0.2.9": must be an address with prefix length, such as 192.0.2.100/24` + "\n" +
				`line 10: spec.network.controlPlaneLoadBalancing.keepalived.vrrpInstances[1].authPass: has 10 characters: must not have more than eight` + "\n" +
				`line 10: spec.network.controlPlaneLoadBalancing.keepalived.vrrpInstances[1].unicastPeers[0]: invalid value "192.0.2.1": is unicastSourceIP: list only the others` + "\n" +
				`line 10: spec.network.controlPlaneLoadBalancing.keepalived.vrrpInstances[1].unicastPeers[1]: invalid value "a": must be an IP address` + "\n" +
				`line 10: spec.network.controlPlaneLoadBalancing.keepalived.vrrpInstances[1].addressLabel: invalid value 4294967295: must be at most 4294967294` + "\n" +
				`line 12: spec.network.controlPlaneLoadBalancing.keepalived.virtualServers[0].ipAddress: invalid value "": must be an IP address` + "\n" +
				`line 12: spec.network.controlPlaneLoadBalancing.keepalived.virtualServers[0].delayLoop: invalid value "1ns": must be at least 1µs` + "\n" +
				`line 12: spec.network.controlPlaneLoadBalancing.keepalived.virtualServers[0].lbAlgo: invalid value "xx": must be rr, wrr, lc, wlc, lblc, dh, sh, sed, nq or empty` + "\n" +
				`line 12: spec.network.controlPlaneLoadBalancing.keepalived.virtualServers[0].lbKind: invalid value "yy": must be NAT, DR, TUN or empty` + "\n" +
				`line 12: spec.network.controlPlaneLoadBalancing.keepalived.virtualServers[0].persistenceTimeoutSeconds: invalid value 0: must be from 1 to 2678400` + "\n" +
				`line 13: spec.network.controlPlaneLoadBalancing.keepalived.virtualServers[1].persistenceTimeoutSeconds: invalid value 2678401: must be from 1 to 2678400`},
		{"too many virtual addresses", "spec: {network: {controlPlaneLoadBalancing: {keepalived: {vrrpInstances: [" + strings.Repeat("{virtualIPs: [192.0.2.1/32], authPass: a},", 256) + "]}}}}",
			`line 1: spec.network.controlPlaneLoadBalancing.keepalived.vrrpInstances: invalid value 256: must have at most 255 items`},
		{"calico section", `spec: {network: {calico: {mode: bird, envVars: {a: b}}}}`, "line 1: spec.network.calico.mode: not supported yet\nline 1: spec.network.calico.envVars: not supported yet"},
		{"calico values", `spec: {network: {calico: {mode: bgp, overlay: Sometimes, vxlanPort: 65536}}}`,
			`line 1: spec.network.calico.mode: invalid value "bgp": must be vxlan, bird, ipip or empty` + "\n" +
				`line 1: spec.network.calico.overlay: invalid value "Sometimes": must be Always, Never, CrossSubnet or empty` + "\n" +
				`line 1: spec.network.calico.vxlanPort: invalid value 65536: must be from 0 to 65535`},
		{"patches", `spec: {network: {coreDNS: {patches: [{}]}}}`,
			`line 1: spec.network.coreDNS.patches[0].target.kind: required: the kind of the object to be changed, such as Deployment` + "\n" +
				`line 1: spec.network.coreDNS.patches[0].target.name: required: the name of the object to be changed` + "\n" +
				`line 1: spec.network.coreDNS.patches[0].patch.content: required: the patch itself, as a string of YAML or JSON` + "\n" +
				`line 1: spec.network.coreDNS.patches[0].patch.type: required: must be JSON, MergePatch or StrategicMergePatch`},
		{"contents of patches", `spec: {network: {coreDNS: {patches: [{target: {kind: A, name: a}, patch: {type: JSON, content: "{}"}}, {target: {kind: A, name: a}, patch: {type: YAML, content: "[}"}}]}}}`,
			`line 1: spec.network.coreDNS.patches[0].patch.content: must be a list of operations, such as [{op: replace, path: /spec/replicas, value: 2}]` + "\n" +
				`line 1: spec.network.coreDNS.patches[1].patch.content: must be YAML or JSON: did not find expected node content` + "\n" +
				`line 1: spec.network.coreDNS.patches[1].patch.type: invalid value "YAML": must be JSON, MergePatch or StrategicMergePatch`},
		{"kuberouter", `spec: {network: {kuberouter: {metricsPort: 65536, extraArgs: {cluster-ans: b, ipvs-sync-period: 1m}, rawArgs: [a, --bgp-holdtime=1s], patches: [a]}}}`,
			"line 1: spec.network.kuberouter.patches[0]: must be a mapping of names to values, not \"a\"\n" +
				"line 1: spec.network.kuberouter.extraArgs[cluster-ans]: kube-router has no such flag: did you mean \"cluster-asn\"?\n" +
				"line 1: spec.network.kuberouter.extraArgs[ipvs-sync-period]: invalid value \"1m\": services are kube-proxy's here: see spec.network.kubeProxy\n" +
				"line 1: spec.network.kuberouter.rawArgs[0]: invalid value \"a\": must be --NAME=VALUE\n" +
				"line 1: spec.network.kuberouter.rawArgs[1]: invalid value \"1s\": must be from 3s to 65535s, in whole seconds\n" +
				"line 1: spec.network.kuberouter.metricsPort: invalid value 65536: must be from 0 to 65535\n" +
				"line 1: spec.network.kuberouter.patches: not supported: the provider is part of the worker here, not a DaemonSet that could be patched"},
		{"peers without numbers", `spec: {network: {kuberouter: {peerRouterIPs: 192.0.2.1}}}`,
			`line 1: spec.network.kuberouter.peerRouterIPs: invalid value "192.0.2.1": must have as many items as peer-router-ips: peer-router-asns has 0, peer-router-ips 1`},
		{"two hairpins", `spec: {network: {kuberouter: {hairpin: Enabled, hairpinMode: false}}}`, `line 1: spec.network.kuberouter.hairpinMode: invalid value false: contradicts hairpin, Enabled: leave hairpinMode out`},
		{"a hairpin that is the default", `spec: {network: {kuberouter: {hairpin: Disabled, hairpinMode: true}}}`, `line 1: spec.network.kuberouter.hairpinMode: invalid value true: contradicts hairpin, Disabled: leave hairpinMode out`},
		{"mtu", `spec: {network: {kuberouter: {autoMTU: false, mtu: 100}}}`, `line 1: spec.network.kuberouter.mtu: invalid value 100: must be from 576 to 65535, or 0 for the kernel's default`},
		{"mtu and autoMTU", `spec: {network: {kuberouter: {mtu: 1400}}}`, `line 1: spec.network.kuberouter.mtu: invalid value 1400: is used only with autoMTU: false`},
		{"hairpin", `spec: {network: {kuberouter: {hairpin: "yes"}}}`, `line 1: spec.network.kuberouter.hairpin: invalid value "yes": must be Enabled, Allowed or Disabled`},
		{"ipvs", `spec: {network: {kubeProxy: {mode: ipvs, ipvs: {strictARP: true}}}}`,
			`line 1: spec.network.kubeProxy.mode: invalid value "ipvs": not supported yet; Kubernetes itself advises nftables in its place` + "\n" +
				`line 1: spec.network.kubeProxy.ipvs.strictARP: not supported yet`},
		{"kube-proxy patches", `spec: {network: {kubeProxy: {patches: [{target: {kind: DaemonSet, name: kube-proxy}, patch: {type: JSON, content: "[]"}}]}}}`,
			`line 1: spec.network.kubeProxy.patches: not supported: kube-proxy is a process here, not a DaemonSet that could be patched: use extraArgs`},
		{"userspace", `spec: {network: {kubeProxy: {mode: userspace}}}`, `line 1: spec.network.kubeProxy.mode: invalid value "userspace": was removed from Kubernetes: use iptables or nftables`},
		{"proxy mode", `spec: {network: {kubeProxy: {mode: ebpf}}}`, `line 1: spec.network.kubeProxy.mode: invalid value "ebpf": must be iptables, nftables or empty`},
		{"bind addresses", `spec: {network: {kubeProxy: {metricsBindAddress: 0.0.0.0, healthzBindAddress: "a:1"}}}`,
			`line 1: spec.network.kubeProxy.metricsBindAddress: invalid value "0.0.0.0": must be IP:port, such as 0.0.0.0:10249` + "\n" +
				`line 1: spec.network.kubeProxy.healthzBindAddress: invalid value "a:1": must be IP:port, such as 0.0.0.0:10249`},
		{"node ports", `spec: {network: {kubeProxy: {nodePortAddresses: [primary, 10.0.0.0/8]}}}`,
			`line 1: spec.network.kubeProxy.nodePortAddresses[0]: invalid value "primary": must be a CIDR such as 192.0.2.0/24, or "primary" alone`},
		{"iptables", `spec: {network: {kubeProxy: {iptables: {masqueradeBit: 32, syncPeriod: 1s, minSyncPeriod: 2s}}}}`,
			`line 1: spec.network.kubeProxy.iptables.minSyncPeriod: invalid value "2s": must not be longer than syncPeriod, 1s` + "\n" +
				`line 1: spec.network.kubeProxy.iptables.masqueradeBit: invalid value 32: must be from 0 to 31`},
		{"nftables", `spec: {network: {kubeProxy: {nftables: {syncPeriod: -1s, minSyncPeriod: -1s, masqueradeBit: 15}}}}`,
			`line 1: spec.network.kubeProxy.nftables.syncPeriod: invalid value "-1s": must not be negative` + "\n" +
				`line 1: spec.network.kubeProxy.nftables.minSyncPeriod: invalid value "-1s": must not be negative` + "\n" +
				`line 1: spec.network.kubeProxy.nftables.masqueradeBit: not supported: kube-proxy has no flag for it`},

		// The other sections
		{"helm", `spec: {extensions: {helm: {concurrencyLevel: 3, repositories: [{}], charts: [{timeout: -1}, {name: A_b, namespace: a, values: "["}]}}}`,
			`line 1: spec.extensions.helm.repositories[0].name: required: charts refer to the repository by it` + "\n" +
				`line 1: spec.extensions.helm.repositories[0].url: required: where the repository is` + "\n" +
				`line 1: spec.extensions.helm.charts[0].name: required: the name of the release` + "\n" +
				`line 1: spec.extensions.helm.charts[0].namespace: required: where the release is installed` + "\n" +
				`line 1: spec.extensions.helm.charts[0].timeout: invalid value "-1ns": must not be negative` + "\n" +
				`line 1: spec.extensions.helm.charts[1].name: invalid value "A_b": must be a Helm release name: at most 53 small letters, digits, dashes and dots` + "\n" +
				`line 1: spec.extensions.helm.charts[1].values: must be YAML: line 1: did not find expected node content` + "\n" +
				`line 1: spec.extensions.helm.concurrencyLevel: not supported yet` + "\n" +
				`line 1: spec.extensions.helm.repositories: not supported yet` + "\n" +
				`line 1: spec.extensions.helm.charts: not supported yet`},
		{"metrics-server patches", `spec: {metricsServer: {patches: [a]}}`, `line 1: spec.metricsServer.patches[0]: must be a mapping of names to values, not "a"`},
		{"konnectivity", `spec: {konnectivity: {externalAddress: "a:0", agentPort: -1, adminPort: 8134}}`, `line 1: spec.konnectivity.externalAddress: invalid value "a:0": must have a port from 1 to 65535, or none` + "\n" +
			"line 1: spec.konnectivity.agentPort: invalid value -1: must be a port from 1 to 65535"},
		{"image name", `spec: {images: {pause: {image: " a"}}}`, `line 1: spec.images.pause.image: invalid value " a": invalid reference format`},
		{"image name with tag", `spec: {images: {coredns: {image: a:b}}}`, `line 1: spec.images.coredns.image: invalid value "a:b": must not have a tag or digest: that goes into version`},
		{"empty image", `spec: {images: {metricsserver: {image: "", version: ""}}}`,
			`line 1: spec.images.metricsserver.image: invalid value "": invalid reference format` + "\n" +
				`line 1: spec.images.metricsserver.version: invalid value "": must be an image tag, with or without @sha256:…`},
		{"image digest", `spec: {images: {pause: {version: "1@sha256:` + sha + `"}}}`, `line 1: spec.images.pause.version: invalid value "1@sha256:` + sha + `": must be an image tag, with or without @sha256:…`},
		{"pull policy", `spec: {images: {default_pull_policy: Sometimes}}`, `line 1: spec.images.default_pull_policy: invalid value "Sometimes": must be IfNotPresent, Always or Never`},
		{"repository", `spec: {images: {repository: "https://a"}}`, `line 1: spec.images.repository: invalid value "https://a": must be a registry with or without a path, such as registry.example.org:5000/mirror`},
		{"users", `spec: {installConfig: {users: {etcdUser: "", kubeSchedulerUser: "a:b"}}}`,
			`line 1: spec.installConfig.users.etcdUser: invalid value "": must be a user name: 1 to 32 characters, no leading dash, no colon, slash or blank` + "\n" +
				`line 1: spec.installConfig.users.kubeSchedulerUser: invalid value "a:b": must be a user name: 1 to 32 characters, no leading dash, no colon, slash or blank`},

		{"everything at once, in the order of the file", "kind: A\nspec:\n  api: {prot: 1}\n  network: {calico: {mtu: 1}, podCIDR: 1}\n  api: {}\n  storage: {type: nothing}\n",
			`line 1: kind: invalid value "A": must be ClusterConfig` + "\n" +
				`line 3: spec.api.prot: unknown field: did you mean "port"?` + "\n" +
				`line 4: spec.network.podCIDR: invalid value "1": must be a CIDR such as 10.244.0.0/16` + "\n" +
				`line 4: spec.network.calico.mtu: not supported yet` + "\n" +
				`line 5: spec.api: duplicate key: already set on line 3` + "\n" +
				`line 6: spec.storage.type: invalid value "nothing": must be etcd or kine`},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := Parse([]byte(test.file), nil)
			if c != nil || err == nil || err.Error() != test.want {
				t.Errorf("\n got %v\nwant %s", err, test.want)
			}
			if _, ok := errors.AsType[*Error](err); !ok {
				t.Errorf("is a %T", err)
			}
		})
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := write("good.yaml", "spec: {api: {port: 7443}}")
	bad := write("bad.yaml", "spec:\n  api: {port: 0}\n")
	missing := filepath.Join(dir, "missing.yaml")

	for _, test := range []struct {
		name, path, defaultPath, stdin string
		wantPort                       int
		wantErr                        string
	}{
		{name: "given", path: good, defaultPath: missing, wantPort: 7443},
		{name: "default", defaultPath: good, wantPort: 7443},
		{name: "no default", defaultPath: missing, wantPort: 6443},
		{name: "stdin", path: "-", stdin: "spec: {api: {port: 1}}", wantPort: 1},
		{name: "empty stdin", path: "-", wantPort: 6443},
		{name: "given and missing", path: missing, defaultPath: good,
			wantErr: "read the configuration: open " + missing + ": no such file or directory: name a file that exists, or - for the standard input"},
		{name: "a directory", path: dir, wantErr: "read the configuration from " + dir + ": read " + dir + ": is a directory"},
		{name: "bad file", path: bad, wantErr: bad + ":2: spec.api.port: invalid value 0: must be a port from 1 to 65535"},
		{name: "bad stdin", path: "-", stdin: "[", wantErr: "stdin:1: not valid YAML from this line on: did not find expected node content"},
		{name: "default beside", path: "-", stdin: "spec: {network: {podCIDR: 10.96.0.0/16}}",
			wantErr: `stdin:1: spec.network.serviceCIDR: invalid value "10.96.0.0/12": overlaps spec.network.podCIDR, 10.96.0.0/16`},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := load(test.path, test.defaultPath, strings.NewReader(test.stdin), nil)
			if test.wantErr != "" {
				if c != nil || err == nil || err.Error() != test.wantErr {
					t.Fatalf("\n got %v\nwant %s", err, test.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if c.Spec.API.Port != test.wantPort {
				t.Errorf("port %d", c.Spec.API.Port)
			}
		})
	}
}

// FuzzParse: no input panics, a refusal names its problems, and what is
// accepted survives a round trip.
func FuzzParse(f *testing.F) {
	defaults, err := yaml.Marshal(Default())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(defaults)
	for _, pattern := range []string{"*.yaml", "testdata/*.yaml", "../../../../docs/examples/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	corpus, err := os.ReadFile("testdata/corpus.txt")
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.Lines(string(corpus)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		seed, err := strconv.Unquote(strings.TrimSpace(line))
		if err != nil {
			f.Fatalf("testdata/corpus.txt: %q: %v", line, err)
		}
		f.Add([]byte(seed))
	}
	for _, seed := range []string{
		"", "a: &a [*a]", "spec: &a {api: *a}", "{}\n---\n{}", "spec: {api: {<<: {port: 1}}}", "? [a]\n: b",
		"spec: {api: {sans: [a, 1.2.3.4], extraArgs: {v: 0x5, a: '\\n'}, ca: {expiresAfter: 1h}}}",
		"metadata: {labels: {a: b}, creationTimestamp: 2026-01-01, managedFields: [{fieldsV1: {a: b}}]}",
		"spec: {network: {kubeProxy: {iptables: {masqueradeBit: 3}}, kuberouter: {autoMTU: no, mtu: 1400}}}",
		"spec: {workerProfiles: [{name: a, values: {maxPods: 1e3, evictionHard: {memory.available: 5%}, x: [1, .5, ~, {}]}}]}",
		"spec: {featureGates: [{name: A, enabled: yes, components: [kubelet]}], images: {repository: a.b/c}}",
		"spec: {storage: {type: kine, kine: {dataSource: 'postgres://a:b@c/d?e=f'}, etcd: {externalCluster: {endpoints: ['https://e'], etcdPrefix: /a}}}}",
		"spec: {network: {coreDNS: {patches: [{target: {kind: A, name: b}, patch: {type: JSON, content: '[{op: add, path: /a}]'}}]}}}",
		"spec: {network: {controlPlaneLoadBalancing: {keepalived: {vrrpInstances: [{virtualIPs: [1.2.3.4/5], authPass: a}], virtualServers: [{ipAddress: '::1', delayLoop: 1s}]}}}}",
		"spec: {extensions: {helm: {charts: [{name: a, namespace: b, timeout: 5, values: 'a: b'}]}}}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse(data, nil)
		if err != nil {
			problems, ok := errors.AsType[*Error](err)
			if c != nil || !ok || len(problems.Problems) == 0 || err.Error() == "" {
				t.Fatalf("got %v, %v", c, err)
			}
			return
		}
		roundTrip(t, c)
	})
}
