// Package enableworker runs a controller that is a node, too: it keeps ordinary pods off, and expects
// other controllers to come. Its kube-proxy runs in the mode for kernels without nftables.
package enableworker

import (
	"context"
	"strings"
	"testing"
	"time"

	"k0s.io/k0s/inttest/cluster"
	"k0s.io/k0s/inttest/testhost"
)

const config = `
spec:
  network:
    kubeProxy:
      mode: iptables
      extraArgs: {config-sync-period: 14m0s}
`

func TestEnableWorker(t *testing.T) {
	host := testhost.NewNetwork(t).Host(t, "a")
	if err := cluster.Install(host); err != nil {
		t.Fatal(err)
	}
	before := cluster.Snapshot(t, host)
	host.Run(t, "mkdir", "-p", "/etc/k0s")
	if err := host.WriteFile("/etc/k0s/k0s.yaml", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	c := cluster.New(host, "--enable-worker", "--labels", "disk=fast")
	c.Run(t)

	for what, want := range map[string]string{
		"taints": "node-role.kubernetes.io/control-plane",
		"labels": `"disk":"fast"`,
	} {
		path := map[string]string{"taints": "{.items[0].spec.taints}", "labels": "{.items[0].metadata.labels}"}[what]
		if got := c.Must(t, "kubectl", "get", "nodes", "-o", "jsonpath="+path); !strings.Contains(got, want) {
			t.Errorf("the node's %s: want %s in %s", what, want, got)
		}
	}
	if err := c.Eventually(t.Context(), 10*time.Second, "the node to have its role", func(ctx context.Context) error {
		_, err := c.K0s(ctx, "kubectl", "wait", "node", "--all", "--timeout=1s", "--for=jsonpath={.metadata.labels.node-role\\.kubernetes\\.io/control-plane}=true")
		return err
	}); err != nil {
		t.Error(err)
	}
	if got := c.Must(t, "kubectl", "get", "leases", "-n", "kube-system", "-o", "name"); !strings.Contains(got, "kube-scheduler") || !strings.Contains(got, "kube-controller-manager") {
		t.Errorf("nobody was elected: %s", got)
	}
	if got := host.Run(t, "ps", "-C", "kube-proxy", "-o", "args="); !strings.Contains(got, "--proxy-mode=iptables") || !strings.Contains(got, "--config-sync-period=14m0s") {
		t.Errorf("kube-proxy runs as %s", got)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := c.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	c.Must(t, "reset")
	host.Run(t, "rm", "-r", "/etc/k0s")
	cluster.MustBeAsBefore(t, host, before)
}
