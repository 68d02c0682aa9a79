package node

import (
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime"

	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

func TestChanged(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*v1beta1.ClusterSpec)
		want   []string
		same   bool
	}{
		{"nothing", func(*v1beta1.ClusterSpec) {}, nil, true},
		{"the default profile", func(s *v1beta1.ClusterSpec) {
			s.WorkerProfiles = []v1beta1.WorkerProfile{{Name: "default", Values: &runtime.RawExtension{Raw: []byte(`{"maxPods":7}`)}}}
		}, []string{"kubelet"}, true},
		{"another profile", func(s *v1beta1.ClusterSpec) {
			s.WorkerProfiles = []v1beta1.WorkerProfile{{Name: "other", Values: &runtime.RawExtension{Raw: []byte(`{"maxPods":7}`)}}}
		}, nil, true},
		{"the pause image", func(s *v1beta1.ClusterSpec) { s.Images.Pause.Version = "9" }, []string{"containerd"}, true},
		{"kube-proxy's arguments", func(s *v1beta1.ClusterSpec) { s.Network.KubeProxy.RawArgs = []string{"--v=1"} }, []string{"kube-proxy"}, true},
		{"kube-proxy's mode", func(s *v1beta1.ClusterSpec) { s.Network.KubeProxy.Mode = v1beta1.IPTablesProxyMode }, []string{"kube-proxy"}, true},
		{"kube-proxy's periods in whatever mode it finds", func(s *v1beta1.ClusterSpec) {
			s.Network.KubeProxy.NFTables.SyncPeriod.Duration = 20 * time.Second
		}, []string{"kube-proxy"}, true},
		{"the pod network", func(s *v1beta1.ClusterSpec) { s.Network.KubeRouter.Hairpin = v1beta1.HairpinEnabled }, []string{"pod-network"}, true},
		{"BGP", func(s *v1beta1.ClusterSpec) {
			s.Network.KubeRouter.ExtraArgs = map[string]string{"cluster-asn": "64600"}
		}, []string{"routing"}, true},
		{"all through the tunnel, which takes a part of each packet", func(s *v1beta1.ClusterSpec) {
			s.Network.KubeRouter.ExtraArgs = map[string]string{"overlay-type": "full"}
		}, []string{"pod-network", "routing"}, true},
		{"no BGP", func(s *v1beta1.ClusterSpec) { s.Network.KubeRouter.RawArgs = []string{"--run-router=false"} }, nil, false},
		{"feature gates", func(s *v1beta1.ClusterSpec) {
			s.FeatureGates = []v1beta1.FeatureGate{{Name: "A", Enabled: true}}
		}, []string{"kubelet", "kube-proxy"}, true},
		{"the tunnel's port", func(s *v1beta1.ClusterSpec) { s.Konnectivity.AgentPort = 9132 }, []string{"tunnel"}, true},
		{"an external address", func(s *v1beta1.ClusterSpec) { s.API.ExternalAddress = "k.example.org" }, []string{"tunnel"}, true},
		{"an external address for users", func(s *v1beta1.ClusterSpec) {
			s.API.ExternalAddress, s.Network.NodeLocalLoadBalancing.Enabled = "k.example.org", true
		}, nil, true},
		{"no kube-proxy", func(s *v1beta1.ClusterSpec) { s.Network.KubeProxy.Disabled = true }, nil, false},
	} {
		before := options(t, nil)
		after := options(t, nil)
		tc.change(&after.Config.Spec)
		got, same, err := Changed(before, after)
		if err != nil {
			t.Fatal(err)
		}
		if same != tc.same || !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %q, %t", tc.name, got, same)
		}
	}
}
