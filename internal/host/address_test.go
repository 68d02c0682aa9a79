package host

import "testing"

func TestPodInterfaces(t *testing.T) {
	for name, want := range map[string]bool{"kube-bridge": true, "kube-overlay": true, "kube-overlay6": true, "veth1234": true, "eth0": false, "bond0": false} {
		if got := isPodInterface(name); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
