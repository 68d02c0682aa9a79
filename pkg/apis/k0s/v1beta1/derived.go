package v1beta1

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// URL returns the URL nodes and users reach the Kubernetes API at: that of the
// external address if there is one, else of this controller, whose address must
// have been filled by [ClusterConfig.Complete].
func (a APISpec) URL() string { return a.url(a.Port) }

// JoinURL returns the URL of the join API, in the same way as URL.
func (a APISpec) JoinURL() string { return a.url(a.K0sAPIPort) }

// LocalURL returns the URL of the Kubernetes API for programs on this host.
func (a APISpec) LocalURL() string {
	host := "localhost"
	if a.OnlyBindToAddress {
		host = a.Address
	}
	return httpsURL(host, a.Port)
}

func (a APISpec) url(port int) string {
	if a.ExternalAddress == "" {
		return httpsURL(a.Address, port)
	}
	host, externalPort := splitHostPort(a.ExternalAddress)
	if externalPort != 0 {
		port = externalPort
	}
	return httpsURL(host, port)
}

// ExternalHostPort returns the external address and port of the Kubernetes API.
// It must only be called if there is one.
func (a APISpec) ExternalHostPort() (string, int) {
	host, port := splitHostPort(a.ExternalAddress)
	return strings.Trim(host, "[]"), cmp.Or(port, a.Port)
}

// ExternalHost returns the external address without port; empty if there is none.
func (a APISpec) ExternalHost() string {
	host, _ := splitHostPort(a.ExternalAddress)
	return host
}

// WorkersGoExternally tells whether nodes and pods reach the API by the external
// address alone: there is one, and nodeLocalLoadBalancing does not ask for the
// controllers' own addresses.
func (c *ClusterConfig) WorkersGoExternally() bool {
	return c.Spec.API.ExternalAddress != "" && !c.Spec.Network.NodeLocalLoadBalancing.Enabled
}

// TunnelAddress returns the HOST:PORT by which nodes reach all controllers' ends
// of the tunnel, by turns; empty if they go to each controller's own address.
func (c *ClusterConfig) TunnelAddress() string {
	host, port := splitHostPort(c.Spec.Konnectivity.ExternalAddress)
	if host == "" && c.WorkersGoExternally() {
		host = c.Spec.API.ExternalHost()
	}
	if host == "" {
		return ""
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), strconv.Itoa(cmp.Or(port, c.Spec.Konnectivity.AgentPort)))
}

// BalancerPort returns the port on a worker's loopback that leads to the API.
func (n NodeLocalLoadBalancingSpec) BalancerPort() int {
	if n.Type == "Traefik" {
		return n.Traefik.APIServerBindPort
	}
	return n.EnvoyProxy.APIServerBindPort
}

func httpsURL(host string, port int) string {
	return "https://" + net.JoinHostPort(host, strconv.Itoa(port))
}

// splitHostPort splits host, host:port, [IPv6]:port or IPv6 with or without brackets. The
// port is 0 if there is none, -1 if it is not a number from 1 to 65535.
func splitHostPort(address string) (string, int) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		if bare, ok := strings.CutPrefix(address, "["); ok && strings.HasSuffix(bare, "]") {
			return strings.TrimSuffix(bare, "]"), 0
		}
		return address, 0
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		return host, -1
	}
	return host, int(number)
}

// PrimaryFamily returns the family of the networks of pods and services; of both,
// spec.network.primaryAddressFamily, or what it is by default: the family of the
// external address if that is an IP address, else of this controller's address.
func (c *ClusterConfig) PrimaryFamily() AddressFamily {
	network := c.Spec.Network
	if services, err := netip.ParsePrefix(network.ServiceCIDR); !network.DualStack.Enabled && err == nil {
		return familyOf(services.Addr())
	}
	if network.PrimaryAddressFamily != AutoFamily {
		return network.PrimaryAddressFamily
	}
	for _, host := range []string{c.Spec.API.ExternalHost(), c.Spec.API.Address} {
		if address, err := netip.ParseAddr(host); err == nil {
			return familyOf(address)
		} else if host != "" {
			return IPv4Family
		}
	}
	return IPv4Family
}

func familyOf(address netip.Addr) AddressFamily {
	if address.Unmap().Is4() {
		return IPv4Family
	}
	return IPv6Family
}

// HasFamily tells whether pods and services have addresses of a family.
func (c *ClusterConfig) HasFamily(family AddressFamily) bool {
	return c.Spec.Network.DualStack.Enabled || c.PrimaryFamily() == family
}

// PodCIDRs returns the networks of the pods, that of the primary family first.
func (c *ClusterConfig) PodCIDRs() []string {
	return c.ordered(c.Spec.Network.PodCIDR, c.Spec.Network.DualStack.IPv6PodCIDR)
}

// ServiceCIDRs returns the networks of the services, that of the primary family
// first.
func (c *ClusterConfig) ServiceCIDRs() []string {
	return c.ordered(c.Spec.Network.ServiceCIDR, c.Spec.Network.DualStack.IPv6ServiceCIDR)
}

// ordered returns main, with dual stack also the IPv6 one.
func (c *ClusterConfig) ordered(main, six string) []string {
	switch {
	case !c.Spec.Network.DualStack.Enabled:
		return []string{main}
	case c.PrimaryFamily() == IPv6Family:
		return []string{six, main}
	}
	return []string{main, six}
}

// InternalAPIAddresses returns the first address of each service CIDR, the primary
// family's first: that one is the address of the service "kubernetes".
func (c *ClusterConfig) InternalAPIAddresses() []netip.Addr {
	return c.serviceAddresses(func(netip.Prefix) int { return 1 })
}

// DNSAddresses returns the addresses of the cluster DNS, the primary family's
// first: the tenth of each service CIDR, or the second if that has no more than 3
// host bits.
func (c *ClusterConfig) DNSAddresses() []netip.Addr {
	return c.serviceAddresses(func(services netip.Prefix) int {
		if services.Addr().BitLen()-services.Bits() <= 3 {
			return 2
		}
		return 10
	})
}

// serviceAddresses leaves out service CIDRs that are invalid.
func (c *ClusterConfig) serviceAddresses(offset func(netip.Prefix) int) []netip.Addr {
	var addresses []netip.Addr
	for _, cidr := range c.ServiceCIDRs() {
		services, err := netip.ParsePrefix(cidr)
		if err != nil {
			continue
		}
		address := services.Masked().Addr()
		for range offset(services) {
			address = address.Next()
		}
		addresses = append(addresses, address)
	}
	return addresses
}

// NodeMaskSizes returns the prefix lengths of a node's parts of [ClusterConfig.PodCIDRs],
// which must be valid: for IPv4 24, for IPv6 117, or 16 more than that of the pod
// CIDR if that is less, for Kubernetes does not divide it further. The
// controller manager's extraArgs may say otherwise.
func (c *ClusterConfig) NodeMaskSizes() []int {
	var sizes []int
	for _, cidr := range c.PodCIDRs() {
		if pods, err := netip.ParsePrefix(cidr); err == nil {
			sizes = append(sizes, c.nodeMaskSize(pods))
		}
	}
	return sizes
}

// SANs returns the names and addresses the API server certificate must be valid
// for, each once. Hostname and hostIPs are those of this host; empty ones are
// left out.
func (c *ClusterConfig) SANs(hostname string, hostIPs []string) []string {
	sans := []string{
		"kubernetes",
		"kubernetes.default",
		"kubernetes.default.svc",
		fmt.Sprintf("kubernetes.default.svc.%s", c.Spec.Network.ClusterDomain),
		"localhost",
		"127.0.0.1",
	}
	for _, address := range c.InternalAPIAddresses() {
		sans = append(sans, address.String())
	}
	sans = append(sans, c.Spec.API.Address, c.Spec.API.ExternalHost(), hostname)
	sans = append(sans, hostIPs...)
	sans = append(sans, c.Spec.API.SANs...)
	var unique []string
	for _, san := range sans {
		if san != "" && !slices.Contains(unique, san) {
			unique = append(unique, san)
		}
	}
	return unique
}
