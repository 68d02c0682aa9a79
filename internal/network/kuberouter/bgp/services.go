package bgp

import (
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"k0s.io/k0s/internal/network/kuberouter/settings"
)

// serviceAddresses are those that this node offers to routers outside of the cluster. endpoints are the
// slices of a service, by namespace and name.
func serviceAddresses(own string, services []*corev1.Service, endpoints map[string][]*discoveryv1.EndpointSlice, s settings.BGP) []netip.Addr {
	all := map[netip.Addr]bool{}
	for _, service := range services {
		if service.Spec.Type == corev1.ServiceTypeExternalName || service.Spec.ClusterIP == corev1.ClusterIPNone || service.Spec.ClusterIP == "" {
			continue
		}
		slices := endpoints[service.Namespace+"/"+service.Name]
		local := func() bool { return readyHere(own, slices) }
		cluster := service.Spec.InternalTrafficPolicy != nil && *service.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal
		outside := service.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
		if service.Annotations[annotationServiceLocal] == "true" {
			cluster, outside = true, true
		}
		if asked(service, annotationAdvertiseClusterIP, s.AdvertiseClusterIP) && (!cluster || local()) {
			add(all, nil, service.Spec.ClusterIPs...)
		}
		if outside && !local() {
			continue
		}
		if asked(service, annotationAdvertiseExternalIP, s.AdvertiseExternalIP) {
			if s.AnyExternalIP {
				add(all, nil, service.Spec.ExternalIPs...)
			} else if len(s.ExternalIPRanges) > 0 {
				add(all, s.ExternalIPRanges, service.Spec.ExternalIPs...)
			}
		}
		if asked(service, annotationAdvertiseLoadBalance, s.AdvertiseLoadBalancerIP) && service.Annotations[annotationSkipLoadBalancerIPs] != "true" {
			for _, ingress := range service.Status.LoadBalancer.Ingress {
				add(all, s.LoadBalancerIPRanges, ingress.IP)
			}
		}
	}
	return slices.SortedFunc(maps.Keys(all), netip.Addr.Compare)
}

// asked: a service's own annotation wins over the settings.
func asked(service *corev1.Service, annotation string, otherwise bool) bool {
	switch service.Annotations[annotation] {
	case "true":
		return true
	case "false":
		return false
	}
	return otherwise
}

// add takes addresses that are in one of the ranges; without ranges all.
func add(all map[netip.Addr]bool, ranges []netip.Prefix, addresses ...string) {
	for _, text := range addresses {
		address, err := netip.ParseAddr(text)
		if err != nil || address.IsUnspecified() || address.IsLoopback() || address.IsMulticast() || address.IsLinkLocalUnicast() {
			continue
		}
		if len(ranges) == 0 || slices.ContainsFunc(ranges, func(r netip.Prefix) bool { return r.Contains(address) }) {
			all[address] = true
		}
	}
}

// readyHere tells whether a service has an endpoint on this node that takes connections.
func readyHere(own string, endpoints []*discoveryv1.EndpointSlice) bool {
	return slices.ContainsFunc(endpoints, func(slice *discoveryv1.EndpointSlice) bool {
		return slices.ContainsFunc(slice.Endpoints, func(e discoveryv1.Endpoint) bool {
			return e.NodeName != nil && *e.NodeName == own && (e.Conditions.Ready == nil || *e.Conditions.Ready)
		})
	})
}
