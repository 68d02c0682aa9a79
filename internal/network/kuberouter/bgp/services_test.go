package bgp

import (
	"fmt"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"k0s.io/k0s/internal/network/kuberouter/settings"
)

func TestServiceAddresses(t *testing.T) {
	none := func(*settings.BGP) {}
	all := func(s *settings.BGP) {
		s.AdvertiseClusterIP, s.AdvertiseExternalIP, s.AdvertiseLoadBalancerIP, s.AnyExternalIP = true, true, true, true
	}
	annotated := func(pairs ...string) func(*corev1.Service) {
		return func(s *corev1.Service) {
			for i := 0; i < len(pairs); i += 2 {
				s.Annotations["kube-router.io/"+pairs[i]] = pairs[i+1]
			}
		}
	}
	local := corev1.ServiceInternalTrafficPolicyLocal
	for _, test := range []struct {
		name   string
		change func(*corev1.Service)
		with   func(*settings.BGP)
		ready  string // the node that has an endpoint
		want   string
	}{
		{"nothing", annotated(), none, "n1", "[]"},
		{"everything", annotated(), all, "n2", "[10.96.0.9 198.51.100.9 203.0.113.9]"},
		{"cluster", annotated(), func(s *settings.BGP) { s.AdvertiseClusterIP = true }, "n2", "[10.96.0.9]"},
		{"by annotation", annotated("service.advertise.clusterip", "true", "service.advertise.loadbalancerip", "true"), none, "n2", "[10.96.0.9 203.0.113.9]"},
		{"not by annotation", annotated("service.advertise.clusterip", "false", "service.advertise.externalip", "false"), all, "n2", "[203.0.113.9]"},
		{"older annotation", annotated("service.skiplbips", "true"), all, "n2", "[10.96.0.9 198.51.100.9]"},
		{"an annotation does not open external IPs", annotated("service.advertise.externalip", "true"), none, "n2", "[]"},
		{"in a range", annotated(), func(s *settings.BGP) {
			s.AdvertiseExternalIP, s.ExternalIPRanges = true, []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
		}, "n2", "[198.51.100.9]"},
		{"outside of the ranges", annotated(), func(s *settings.BGP) {
			s.AdvertiseExternalIP, s.ExternalIPRanges = true, []netip.Prefix{netip.MustParsePrefix("198.51.101.0/24")}
			s.AdvertiseLoadBalancerIP, s.LoadBalancerIPRanges = true, []netip.Prefix{netip.MustParsePrefix("203.0.114.0/24")}
		}, "n2", "[]"},
		{"outside local, elsewhere", func(s *corev1.Service) { s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal }, all, "n2", "[10.96.0.9]"},
		{"outside local, here", func(s *corev1.Service) { s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal }, all, "n1", "[10.96.0.9 198.51.100.9 203.0.113.9]"},
		{"inside local, elsewhere", func(s *corev1.Service) { s.Spec.InternalTrafficPolicy = &local }, all, "n2", "[198.51.100.9 203.0.113.9]"},
		{"local by annotation, elsewhere", annotated("service.local", "true"), all, "n2", "[]"},
		{"local by annotation, here", annotated("service.local", "true"), all, "n1", "[10.96.0.9 198.51.100.9 203.0.113.9]"},
		{"local, nowhere ready", annotated("service.local", "true"), all, "", "[]"},
		{"headless", func(s *corev1.Service) { s.Spec.ClusterIP, s.Spec.ClusterIPs = "None", []string{"None"} }, all, "n1", "[]"},
		{"a name", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeExternalName }, all, "n1", "[]"},
		{"nobody's", func(s *corev1.Service) { s.Spec.ExternalIPs = []string{"127.0.0.1", "0.0.0.0", "224.0.0.1", "x"} }, all, "n1", "[10.96.0.9 203.0.113.9]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := settings.Default().BGP
			test.with(&s)
			service := &corev1.Service{
				ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", Annotations: map[string]string{}},
				Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, ClusterIP: "10.96.0.9", ClusterIPs: []string{"10.96.0.9"}, ExternalIPs: []string{"198.51.100.9"}},
				Status:     corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: "203.0.113.9"}, {Hostname: "x"}}}},
			}
			test.change(service)
			yes, no, other := true, false, "n1"
			slices := []*discoveryv1.EndpointSlice{{
				ObjectMeta: metav1.ObjectMeta{Namespace: "default", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
				Endpoints:  []discoveryv1.Endpoint{{NodeName: &other, Conditions: discoveryv1.EndpointConditions{Ready: &no}}, {NodeName: &test.ready, Conditions: discoveryv1.EndpointConditions{Ready: &yes}}},
			}}
			if got := fmt.Sprint(serviceAddresses("n1", []*corev1.Service{service}, byService(slices), s)); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}
