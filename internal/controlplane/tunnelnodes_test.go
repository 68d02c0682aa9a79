package controlplane

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestTunnelOwners(t *testing.T) {
	begin := time.Now()
	node := func(name string, age time.Duration, podCIDR string, addresses ...string) *corev1.Node {
		n := &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(begin.Add(-age))},
			Spec:       corev1.NodeSpec{PodCIDR: podCIDR, PodCIDRs: []string{podCIDR}},
		}
		for _, a := range addresses {
			n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Address: a})
		}
		return n
	}
	got, err := json.Marshal(tunnelOwners([]any{
		node("new", 0, "10.244.1.0/24", "192.0.2.1", "10.96.0.1", "new"),
		node("grabs", time.Minute, "0.0.0.0/0", "192.0.2.3"),
		node("old", time.Hour, "10.244.0.0/24", "192.0.2.1", "old"),
		"not a node",
	}, []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")}))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"nodes":[{"name":"old","addresses":["192.0.2.1","old"],"podCIDRs":["10.244.0.0/24"]},` +
		`{"name":"grabs","addresses":["192.0.2.3"]},` +
		`{"name":"new","addresses":["192.0.2.1","new"],"podCIDRs":["10.244.1.0/24"]}],` +
		`"services":["10.96.0.0/12"]}`
	if string(got) != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}
