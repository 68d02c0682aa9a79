package applet

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/klog/v2"

	"k0s.io/k0s/internal/applet/name"
	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

func TestFlags(t *testing.T) {
	// As main leaves it.
	before := pflag.CommandLine
	pflag.CommandLine = pflag.NewFlagSet("k0s", pflag.ContinueOnError)
	defer func() { pflag.CommandLine = before }()
	for program, want := range map[string][]string{
		name.KubeAPIServer:         {"advertise-address", "audit-log-path", "enable-admission-plugins", "etcd-servers", "feature-gates", "oidc-issuer-url", "v", "vmodule"},
		name.KubeControllerManager: {"allocate-node-cidrs", "controllers", "feature-gates", "kubeconfig", "node-cidr-mask-size", "v"},
		name.KubeScheduler:         {"bind-address", "config", "feature-gates", "kubeconfig", "leader-elect", "v"},
		name.Kubelet:               {"config", "hostname-override", "max-pods", "node-ip", "node-labels", "housekeeping-interval", "v"},
		name.KubeProxy:             {"cluster-cidr", "conntrack-min", "feature-gates", "iptables-sync-period", "proxy-mode", "v"},
		name.Etcd:                  {"auto-compaction-retention", "data-dir", "initial-cluster-state", "listen-client-urls", "quota-backend-bytes", "snapshot-count"},
		name.Kine:                  {"endpoint", "listen-address", "compact-interval"},
	} {
		got := Programs{}.Flags(program)
		for _, flag := range want {
			if !slices.Contains(got, flag) {
				t.Errorf("%s: --%s is missing in %q", program, flag, got)
			}
		}
		for _, flag := range []string{"", "version", "no-such-flag"} {
			if slices.Contains(got, flag) {
				t.Errorf("%s has no flag %q", program, flag)
			}
		}
	}
	if got := (Programs{}).Flags(name.Containerd); got != nil {
		t.Errorf("nobody may set flags of containerd: got %q", got)
	}
}

func TestCheckFlags(t *testing.T) {
	for _, test := range []struct{ program, flag, value, want string }{
		{name.KubeAPIServer, "v", "abc", "must be a whole number, not negative"},
		{name.KubeAPIServer, "v", "", "must be a whole number, not negative"},
		{name.KubeAPIServer, "v", "4", ""},
		{name.KubeAPIServer, "vmodule", "a=1,b=2", ""},
		{name.KubeAPIServer, "vmodule", "a", `kube-apiserver refuses it: "a" does not have the pattern=N format`},
		{name.KubeAPIServer, "max-requests-inflight", "lots", "must be a whole number"},
		{name.KubeAPIServer, "max-requests-inflight", "4000", ""},
		{name.KubeAPIServer, "service-node-port-range", "30000-", "kube-apiserver refuses it: strconv.Atoi: parsing \"\": invalid syntax"},
		{name.KubeAPIServer, "service-node-port-range", "30000-31000", ""},
		{name.KubeAPIServer, "profiling", "no", "must be true or false"},
		{name.KubeAPIServer, "profiling", "false", ""},
		{name.KubeAPIServer, "event-ttl", "1d", "must be a duration such as 1m30s"},
		{name.KubeAPIServer, "advertise-address", "", ""},
		{name.KubeAPIServer, "advertise-address", "10.0.0.256", "must be an IP address"},
		{name.KubeAPIServer, "enable-admission-plugins", "NodeRestriction,Whatever", ""},
		{name.KubeAPIServer, "runtime-config", "api/all=true", ""},
		{name.KubeAPIServer, "feature-gates", "nonsense", ""},
		{name.KubeAPIServer, "emulated-version", "kube=1.36", ""},
		{name.KubeAPIServer, "default-not-ready-toleration-seconds", "soon", "must be a whole number"},
		{name.KubeControllerManager, "node-cidr-mask-size", "abc", "must be a whole number"},
		{name.KubeControllerManager, "unhealthy-zone-threshold", "half", "must be a number"},
		{name.KubeControllerManager, "controllers", "*,-nodeipam", ""},
		{name.KubeScheduler, "leader-elect", "true", ""},
		{name.KubeScheduler, "kube-api-qps", "x", "must be a number"},
		{name.KubeScheduler, "logging-format", "json", ""},
		{name.KubeProxy, "proxy-mode", "nftables", ""},
		{name.KubeProxy, "metrics-bind-address", "127.0.0.1", ""},
		{name.KubeProxy, "metrics-bind-address", "localhost:1", `kube-proxy refuses it: "localhost" is not a valid IP address`},
		{name.Kubelet, "max-pods", "7x", "must be a whole number"},
		{name.Kubelet, "node-labels", "a=b,c=d", ""},
		{name.Kubelet, "register-with-taints", "a=b:Nope", "kubelet refuses it: invalid taint effect: Nope, unsupported taint effect"},
		{name.Kubelet, "housekeeping-interval", "20s", ""},
		{name.Etcd, "snapshot-count", "many", "must be a whole number, not negative"},
		{name.Etcd, "snapshot-count", "0x10", ""},
		{name.Etcd, "listen-metrics-urls", "127.0.0.1:2381", `etcd refuses it: parse "127.0.0.1:2381": first path segment in URL cannot contain colon`},
		{name.Etcd, "listen-metrics-urls", "http://127.0.0.1:2381,http://127.0.0.1:2382", ""},
		{name.Etcd, "initial-cluster-state", "new", ""},
		{name.Kine, "compact-interval", "never", "must be a duration such as 1m30s"},
		{name.Kine, "compact-interval", "5m", ""},
		{name.Kine, "datastore-max-open-connections", "", "must be a whole number"},
		{name.Kine, "endpoint", "whatever", ""},
		{name.Containerd, "whatever", "x", ""},
	} {
		got := Programs{}.CheckFlags(test.program, map[string]string{test.flag: test.value})[test.flag]
		if got != test.want {
			t.Errorf("%s --%s=%s: got %q, want %q", test.program, test.flag, test.value, got, test.want)
		}
	}
}

// Asking must not change what the next one to ask, or anything else in the process, starts from.
func TestCheckFlagsHasNoEffect(t *testing.T) {
	programs := []string{name.KubeAPIServer, name.KubeControllerManager, name.KubeScheduler, name.Kubelet, name.KubeProxy, name.Etcd, name.Kine}
	defaults := func() map[string]string {
		values := map[string]string{}
		for _, program := range programs {
			for flag, value := range flagsOf(program) {
				values[program+" --"+flag] = fmt.Sprint(value)
			}
		}
		flag.VisitAll(func(f *flag.Flag) { values["--"+f.Name] = f.Value.String() })
		return values
	}
	verbosity := klog.V(3).Enabled()
	before := defaults()
	for _, program := range programs {
		for _, value := range []string{"", "true", "7", "7s", "a=b", "http://192.0.2.1:7", "192.0.2.1"} {
			values := map[string]string{}
			for flag := range flagsOf(program) {
				values[flag] = value
			}
			(Programs{}).CheckFlags(program, values)
		}
	}
	after := defaults()
	for flag, value := range before {
		if after[flag] != value {
			t.Errorf("%s: was %q, is %q", flag, value, after[flag])
		}
	}
	if klog.V(3).Enabled() != verbosity {
		t.Error("checking --v has made klog verbose")
	}
}

func TestFeatures(t *testing.T) {
	for _, component := range v1beta1.GatedComponents() {
		features := Programs{}.Features(component)
		for _, want := range []string{"AllAlpha", "NodeSwap", "WatchList", "ContextualLogging", "CustomResourceFieldSelectors", "WatchListClient", "RotateKubeletServerCertificate"} {
			if !slices.Contains(features, want) {
				t.Errorf("%s: %s is missing", component, want)
			}
		}
	}
}

func TestCheckFeatures(t *testing.T) {
	for _, test := range []struct {
		name  string
		gates map[string]bool
		want  map[string]string
	}{
		{"none", nil, nil},
		{"good", map[string]bool{"RotateKubeletServerCertificate": true, "AllBeta": true, "NodeSwap": true}, nil},
		{"locked on", map[string]bool{"NodeSwap": false, "AllBeta": true}, map[string]string{"NodeSwap": "is locked: Kubernetes has it always on, leave it out"}},
		{"needs another", map[string]bool{"WorkloadWithJob": true}, map[string]string{
			"WorkloadWithJob": "cannot be: WorkloadWithJob is enabled, but depends on features that are disabled: [GenericWorkload]"}},
		{"with what it needs", map[string]bool{"WorkloadWithJob": true, "GenericWorkload": true}, nil},
		{"on by another gate", map[string]bool{"AllAlpha": true}, map[string]string{
			"AllAlpha": "cannot be: CompositePodGroup is enabled, but depends on features that are disabled: [GenericWorkload]"}},
	} {
		if got := (Programs{}).CheckFeatures(name.Kubelet, test.gates); !maps.Equal(got, test.want) {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
	if utilfeature.DefaultMutableFeatureGate.ExplicitlySet("AllAlpha") || utilfeature.DefaultFeatureGate.Enabled("AllAlpha") {
		t.Error("checking a gate has set it in this process")
	}
}

func TestCheckKubelet(t *testing.T) {
	for _, test := range []struct {
		name, settings string
		want           []string
	}{
		{"what k0s sets is fine", `{}`, nil},
		{"good settings", `{"maxPods": 250, "evictionHard": {"memory.available": "5%", "nodefs.available": "1Gi"}, "kubeReserved": {"cpu": "500m"},
			"featureGates": {"AllBeta": true}, "imageGCHighThresholdPercent": 90, "logging": {"format": "json"}, "staticPodPath": "/etc/manifests",
			"authentication": {"anonymous": {"enabled": false}}, "memoryThrottlingFactor": 0.9, "tlsCipherSuites": ["TLS_AES_128_GCM_SHA256"]}`, nil},
		{"not a mapping", `[]`, []string{"must be a mapping of names to values"}},

		// Decoding
		{"misspelt", `{"maxPod": 250}`, []string{`maxPod: unknown field: did you mean "maxPods"?`}},
		{"wrong case", `{"MaxPods": 250}`, []string{`MaxPods: unknown field: did you mean "maxPods"?`}},
		{"unheard of", `{"whatever": 250}`, []string{`whatever: unknown field`}},
		{"misspelt below", `{"authentication": {"x509": {"clientCAfile": "x"}}}`, []string{`authentication.x509.clientCAfile: unknown field: did you mean "clientCAFile"?`}},
		{"misspelt in a list", `{"reservedMemory": [{"numaNode": 0, "limts": {}}]}`, []string{`reservedMemory[0].limts: unknown field: did you mean "limits"?`}},
		{"every mistake is reported", `{"maxPods": "x", "registryBurst": 1.5, "evictionHard": {"a": 5}, "clusterDNS": "x", "failSwapOn": "no", "syncFrequency": "x",
			"fileCheckFrequency": 60, "memoryThrottlingFactor": "a", "authentication": 3, "reservedMemory": [{"numaNode": "x"}], "enforceNodeAllocatable": [1]}`, []string{
			"authentication: must be a mapping, not a number",
			"clusterDNS: must be a list, not a string",
			"enforceNodeAllocatable: each value must be a string, not a number",
			"evictionHard: each value must be a string, not a number",
			"failSwapOn: must be true or false, not a string",
			"fileCheckFrequency: must be a duration such as 1m30s, not a number",
			"maxPods: must be a whole number (int32), not a string",
			"memoryThrottlingFactor: must be a number, not a string",
			"registryBurst: must be a whole number (int32), not 1.5",
			"reservedMemory.numaNode: must be a whole number (int32), not a string",
			"syncFrequency: must be a duration such as 1m30s",
		}},
		{"too large", `{"maxPods": 99999999999}`, []string{"maxPods: must be a whole number (int32), not 99999999999"}},

		// Feature gates
		{"no such gate", `{"featureGates": {"NodeSwp": true}}`, []string{`featureGates[NodeSwp]: the kubelet has no such feature: did you mean "NodeSwap"?`}},
		{"locked gate", `{"featureGates": {"NodeSwap": false}}`, []string{"featureGates[NodeSwap]: is locked: Kubernetes has it always on, leave it out"}},
		{"gate that needs another", `{"featureGates": {"AllAlpha": true}}`, []string{
			"featureGates[AllAlpha]: cannot be: CompositePodGroup is enabled, but depends on features that are disabled: [GenericWorkload]"}},
		{"gate that k0s needs", `{"featureGates": {"RotateKubeletServerCertificate": false}}`, []string{"serverTLSBootstrap: true requires feature gate RotateKubeletServerCertificate"}},
		{"a field needs a gate", `{"memoryReservationPolicy": "TieredReservation", "featureGates": {"MemoryQoS": false}}`, []string{`memoryReservationPolicy: "TieredReservation" requires MemoryQoS feature gate to be enabled`}},
		{"and has it", `{"memoryReservationPolicy": "TieredReservation"}`, nil},

		// The kubelet's validation
		{"values", `{"maxPods": -1, "imageGCHighThresholdPercent": 101, "containerLogMaxFiles": 1, "crashLoopBackOff": {"maxContainerRestartPeriod": "1h"},
			"logging": {"format": "xml"}, "memorySwap": {"swapBehavior": "x"}}`, []string{
			"crashLoopBackOff.maxContainerRestartPeriod: (got: 3600 seconds) must be set between 1s and 300s",
			"containerLogMaxFiles: must be greater than 1",
			"imageGCHighThresholdPercent: 101 must be between 0 and 100, inclusive",
			"maxPods: -1 must not be a negative number",
			`memorySwap.swapBehavior: "x" must be one of: "", "LimitedSwap" or "NoSwap"`,
			`logging.format: Invalid value: "xml": Unsupported log format`,
		}},
		{"together", `{"imageGCHighThresholdPercent": 50, "imageGCLowThresholdPercent": 60}`, []string{
			"imageGCLowThresholdPercent: 60 must be less than imageGCHighThresholdPercent 50"}},

		// What it looks at before it runs
		{"eviction", `{"evictionHard": {"memory.availabl": "5%"}, "evictionSoft": {"memory.available": "5%"}}`, []string{
			"evictionHard: unsupported eviction signal memory.availabl",
			"evictionSoft: grace period must be specified for the soft eviction threshold memory.available"}},
		{"reservations", `{"kubeReserved": {"cpu": "x", "gpu": "1", "memory": "1Gi"}, "qosReserved": {"memory": "x"}}`, []string{
			`qosReserved: failed to parse percentage "x" for "memory" resource: percentage expected, got 'x'`,
			"kubeReserved[cpu]: must be a quantity such as 500m or 1Gi, not negative",
			"kubeReserved[gpu]: nothing can be reserved of it, but of cpu, ephemeral-storage, memory, pid"}},
		{"negative reservation", `{"systemReserved": {"memory": "-1"}}`, []string{"systemReserved[memory]: must be a quantity such as 500m or 1Gi, not negative"}},
		{"TLS", `{"tlsMinVersion": "VersionTLS9", "tlsCipherSuites": ["x"]}`, []string{
			`tlsMinVersion: unknown tls version "VersionTLS9"`, "tlsCipherSuites: Cipher suite x not supported or doesn't exist"}},
		{"policies", `{"cpuManagerPolicy": "dynamic", "memoryManagerPolicy": "none"}`, []string{
			"cpuManagerPolicy: must be none or static", "memoryManagerPolicy: must be None or Static"}},
		{"sizes, addresses and periods", `{"containerLogMaxSize": "10MBB", "address": "300.1.1.1", "syncFrequency": "-5s", "runtimeRequestTimeout": "-1m"}`, []string{
			"containerLogMaxSize: must be a quantity such as 10Mi", "address: must be an IP address",
			"runtimeRequestTimeout: must not be negative", "syncFrequency: must not be negative"}},
		{"a part of a byte", `{"containerLogMaxSize": "0.5"}`, []string{"containerLogMaxSize: must be a quantity such as 10Mi"}},
		{"what may be negative", `{"volumeStatsAggPeriod": "-1s", "nodeStatusMaxImages": -1, "address": "::", "containerLogMaxSize": "-1"}`, nil},
		{"policy options", `{"cpuManagerPolicy": "static", "cpuManagerPolicyOptions": {"full-pcpus-onl": "true", "strict-cpu-reservation": "x"},
			"topologyManagerPolicy": "restricted", "topologyManagerPolicyOptions": {"nope": "1"}}`, []string{
			`cpuManagerPolicyOptions[full-pcpus-onl]: unknown CPU Manager Policy option: "full-pcpus-onl"`,
			`cpuManagerPolicyOptions[strict-cpu-reservation]: bad value for option "strict-cpu-reservation": strconv.ParseBool: parsing "x": invalid syntax`,
			`topologyManagerPolicyOptions[nope]: unknown Topology Manager Policy option: "nope"`}},
		{"policy options that exclude each other", `{"cpuManagerPolicy": "static", "cpuManagerPolicyOptions": {"prefer-align-cpus-by-uncorecache": "true", "distribute-cpus-across-numa": "true"}}`, []string{
			"cpuManagerPolicyOptions: static policy options prefer-align-cpus-by-uncorecache and distribute-cpus-across-numa can not be used at the same time"}},
		{"options of no policy", `{"cpuManagerPolicyOptions": {"full-pcpus-only": "true"}, "topologyManagerPolicyOptions": {"nope": "1"}}`, []string{
			"cpuManagerPolicyOptions: the cpuManagerPolicy none has no options: they are for static"}},
		{"good policy options", `{"cpuManagerPolicy": "static", "systemReserved": {"cpu": "1"}, "featureGates": {"CPUManagerPolicyAlphaOptions": true},
			"cpuManagerPolicyOptions": {"full-pcpus-only": "true", "align-by-socket": "true"},
			"topologyManagerPolicy": "restricted", "topologyManagerPolicyOptions": {"max-allowable-numa-nodes": "16"}}`, nil},
		{"processors", `{"reservedSystemCPUs": "0-1,8,1023", "cpuManagerPolicy": "static"}`, nil},
		{"processors that nobody has", `{"reservedSystemCPUs": "0-9999999999"}`, []string{"reservedSystemCPUs: must be a list of the host's processors such as 0-1,8"}},
		{"not from the first on", `{"reservedSystemCPUs": "+9999999999-9223372036854775807"}`, []string{"reservedSystemCPUs: must be a list of the host's processors such as 0-1,8"}},
		{"more than can be counted", `{"reservedSystemCPUs": "0-65535,7,0-65535"}`, []string{"reservedSystemCPUs: must be a list of the host's processors such as 0-1,8"}},
		{"no list of processors", `{"reservedSystemCPUs": "two"}`, []string{`reservedSystemCPUs: unable to parse reservedSystemCPUs two, error: strconv.Atoi: parsing "two": invalid syntax`}},

		// One thing wrong does not hide another, nor make one up.
		{"misspelt and wrong", `{"maxPods": -1, "maxPod": 3, "imageGCLowThresholdPercent": 90, "imageGCHighThresholdPercent": "95"}`, []string{
			"imageGCHighThresholdPercent: must be a whole number (int32), not a string", `maxPod: unknown field: did you mean "maxPods"?`, "maxPods: -1 must not be a negative number"}},
		{"a gate and more", `{"featureGates": {"Nope": true, "NodeSwap": true}, "maxPods": -1, "systemReserved": {"cpu": "100mm"}, "memoryReservationPolicy": "TieredReservation"}`, []string{
			"featureGates[Nope]: the kubelet has no such feature", "maxPods: -1 must not be a negative number",
			"systemReserved[cpu]: must be a quantity such as 500m or 1Gi, not negative"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			for _, err := range (Programs{}).CheckKubelet([]byte(test.settings)) {
				got = append(got, strings.TrimPrefix(err.Field+": "+err.Detail, ": "))
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("\n got %s\nwant %s", strings.Join(got, "\n     "), strings.Join(test.want, "\n     "))
			}
		})
	}
	if utilfeature.DefaultMutableFeatureGate.ExplicitlySet("MemoryQoS") {
		t.Error("checking a profile has set a gate in this process")
	}
}

// The whole way of a file.
func TestParseWithPrograms(t *testing.T) {
	const file = `
spec:
  api:
    extraArgs:
      audit-log-pth: /x
      max-requests-inflight: lots
  featureGates:
  - name: NodeSwp
    enabled: true
  workerProfiles:
  - name: dense
    values:
      maxPods: 250
      evictionHard:
        memory.availble: 5%
`
	const want = `line 5: spec.api.extraArgs[audit-log-pth]: kube-apiserver has no such flag: did you mean "audit-log-path"?
line 6: spec.api.extraArgs[max-requests-inflight]: invalid value "lots": must be a whole number
line 8: spec.featureGates[0].name: invalid value "NodeSwp": Kubernetes has no such feature: did you mean "NodeSwap"?
line 14: spec.workerProfiles[0].values.evictionHard: unsupported eviction signal memory.availble`
	if _, err := v1beta1.Parse([]byte(file), Programs{}); err == nil || err.Error() != want {
		t.Errorf("\n got %v\nwant %s", err, want)
	}
}

func BenchmarkPrograms(b *testing.B) {
	for b.Loop() {
		for _, program := range []string{name.KubeAPIServer, name.KubeControllerManager, name.KubeScheduler, name.KubeProxy, name.Etcd} {
			(Programs{}).Flags(program)
		}
		(Programs{}).Features(name.Kubelet)
		(Programs{}).CheckKubelet([]byte(`{"maxPods": 250}`))
	}
}
