package v1beta1

import (
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

func TestForWorkers(t *testing.T) {
	c, err := Parse([]byte(`
spec:
  api: {externalAddress: lb.example.org, port: 7443, sans: [secret-san], extraArgs: {secret: secret}, address: 192.0.2.1}
  storage: {type: kine, kine: {dataSource: "postgres://k0s:secret@192.0.2.30/k0s"}, etcd: {peerAddress: 192.0.2.1}}
  installConfig: {users: {etcdUser: secret}}
  network:
    serviceCIDR: 10.43.0.0/16
    kubeProxy: {mode: iptables}
    controlPlaneLoadBalancing: {keepalived: {vrrpInstances: [{virtualIPs: [192.0.2.9/24], authPass: secret}]}}
  workerProfiles: [{name: a, values: {maxPods: 7}}, {name: secret, values: {maxPods: 8}}]
  featureGates: [{name: A, enabled: true}]
`), nil)
	if err != nil {
		t.Fatal(err)
	}
	w := c.ForWorkers("a")
	text, err := yaml.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "secret") {
		t.Errorf("workers are told secrets:\n%s", text)
	}
	for _, want := range []string{"serviceCIDR: 10.43.0.0/16", "mode: iptables", "maxPods: 7", "name: A", "externalAddress: lb.example.org", "port: 7443"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("workers are not told %q:\n%s", want, text)
		}
	}
	roundTrip(t, w)
	if got := c.ForWorkers("none").Spec.WorkerProfiles; got != nil {
		t.Errorf("got %v", got)
	}
}
