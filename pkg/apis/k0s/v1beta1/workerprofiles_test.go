package v1beta1

import (
	"strings"
	"testing"
)

func TestWorkerProfiles(t *testing.T) {
	label := "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character " +
		"(e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
	for _, test := range []struct{ name, profiles, want string }{
		{"no name", "[{values: {maxPods: 1}}]", "line 1: spec.workerProfiles[0].name: required: workers choose a profile by it"},
		{"not a label", "[{name: A_b}]", `line 1: spec.workerProfiles[0].name: invalid value "A_b": ` + label},
		{"too long", "[{name: " + strings.Repeat("a", 64) + "}]", `line 1: spec.workerProfiles[0].name: invalid value "` + strings.Repeat("a", 64) + `": must be no more than 63 characters`},
		{"twice", "[{name: a}, {name: b}, {name: a}]", `line 1: spec.workerProfiles[2].name: invalid value "a": is the name of another profile, too`},
		{"unknown key", "[{name: a, value: {}}]", `line 1: spec.workerProfiles[0].value: unknown field: did you mean "values"?`},
		{"not a mapping", "[{name: a, values: 3}, {name: b, values: []}]",
			"line 1: spec.workerProfiles[0].values: must be a mapping of names to values\nline 1: spec.workerProfiles[1].values: must be a mapping of names to values"},
		{"another API", "[{name: a, values: {apiVersion: kubelet.config.k8s.io/v1, kind: KubeletConfig}}]",
			`line 1: spec.workerProfiles[0].values.apiVersion: invalid value "kubelet.config.k8s.io/v1": must be kubelet.config.k8s.io/v1beta1` + "\n" +
				`line 1: spec.workerProfiles[0].values.kind: invalid value "KubeletConfig": must be KubeletConfiguration`},
		{"the API", "[{name: a, values: {apiVersion: kubelet.config.k8s.io/v1beta1, kind: KubeletConfiguration}}]", ""},
		{"reserved", "[{name: a, values: {clusterDNS: [192.0.2.1], clusterDomain: x, staticPodURL: \"http://x\", containerRuntimeEndpoint: x, cgroupDriver: systemd, registerNode: false, registerWithTaints: []}}]",
			"line 1: spec.workerProfiles[0].values.cgroupDriver: is for k0s to set: the kubelet and containerd must use the same\n" +
				"line 1: spec.workerProfiles[0].values.clusterDNS: is for k0s to set: it follows from spec.network.serviceCIDR\n" +
				"line 1: spec.workerProfiles[0].values.clusterDomain: is for k0s to set: it is spec.network.clusterDomain\n" +
				"line 1: spec.workerProfiles[0].values.containerRuntimeEndpoint: is for k0s to set: it is that of k0s' own containerd\n" +
				"line 1: spec.workerProfiles[0].values.registerNode: is for k0s to set: k0s waits for the node it registers\n" +
				"line 1: spec.workerProfiles[0].values.registerWithTaints: is for k0s to set: give --taints to the node instead\n" +
				"line 1: spec.workerProfiles[0].values.staticPodURL: is for k0s to set: k0s serves its own pods there; use staticPodPath for yours"},
		{"reserved, by null above", "[{name: a, values: {authentication: {x509: {clientCAFile: /x}}}}, {name: b, values: {authentication: {x509: null}}}, {name: c, values: {authentication: null}}]",
			"line 1: spec.workerProfiles[0].values.authentication.x509.clientCAFile: is for k0s to set: the kubelet must trust the cluster's own authority\n" +
				"line 1: spec.workerProfiles[1].values.authentication.x509.clientCAFile: is for k0s to set: the kubelet must trust the cluster's own authority\n" +
				"line 1: spec.workerProfiles[2].values.authentication.x509.clientCAFile: is for k0s to set: the kubelet must trust the cluster's own authority"},
		{"beside what is reserved", "[{name: a, values: {authentication: {anonymous: {enabled: true}}}}]", ""},
		{"no health", "[{name: a, values: {healthzPort: 0}}]", "line 1: spec.workerProfiles[0].values.healthzPort: invalid value 0: k0s asks the kubelet there how it is: choose a port"},
		{"a key twice", "[{name: a, values: {maxPods: 1, maxPods: 2}}]", "line 1: spec.workerProfiles[0].values.maxPods: duplicate key: already set on line 1"},
		{"a key twice, deeper", "[{name: a, values: {reservedMemory: [{numaNode: 0, numaNode: 1}]}}]", "line 1: spec.workerProfiles[0].values.reservedMemory[0].numaNode: duplicate key: already set on line 1"},
		{"ordinary names", "[{name: default, values: {maxPods: 1}}, {name: default-windows}, {name: dense, values: {}}]", ""},
	} {
		got := ""
		if _, err := Parse([]byte("spec: {workerProfiles: "+test.profiles+"}"), nil); err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%s:\n got %s\nwant %s", test.name, got, test.want)
		}
	}
}

func TestKubeletSettings(t *testing.T) {
	c, err := Parse([]byte(`
spec:
  workerProfiles:
  - {name: dense, values: {maxPods: 250, featureGates: {B: true}}}
  - {name: empty}
  - {name: default-windows}
  featureGates:
  - {name: A, enabled: true}
  - {name: B, enabled: false, components: [kubelet]}
  - {name: C, enabled: true, components: [kube-proxy]}
`), nil)
	if err != nil {
		t.Fatal(err)
	}
	for profile, want := range map[string]string{
		"dense":   `{"featureGates":{"A":true,"B":true},"maxPods":250}`,
		"empty":   `{"featureGates":{"A":true,"B":false}}`,
		"default": `{"featureGates":{"A":true,"B":false}}`,
		"":        `{"featureGates":{"A":true,"B":false}}`,
	} {
		if got, err := c.KubeletSettings(profile); err != nil || string(got) != want {
			t.Errorf("%q: got %s, %v", profile, got, err)
		}
	}
	if got, err := Default().KubeletSettings("default"); err != nil || string(got) != "{}" {
		t.Errorf("nothing set: got %s, %v", got, err)
	}
	const want = `there is no worker profile "dnse"; there are: default, dense, empty, default-windows (spec.workerProfiles)`
	if _, err := c.KubeletSettings("dnse"); err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	if got := inertProfiles(c.Spec.WorkerProfiles); len(got) != 1 || !strings.HasPrefix(got[0], "spec.workerProfiles[2] (default-windows) has no effect unless") {
		t.Errorf("got warnings %q", got)
	}
}
