package v1beta1

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
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

// ExternalHost returns the external address without port; empty if there is none.
func (a APISpec) ExternalHost() string {
	host, _ := splitHostPort(a.ExternalAddress)
	return host
}

func httpsURL(host string, port int) string {
	return "https://" + net.JoinHostPort(host, strconv.Itoa(port))
}

// splitHostPort splits host, host:port, [IPv6]:port or a bare IPv6 address. The
// port is 0 if there is none, -1 if it is not a number from 1 to 65535.
func splitHostPort(address string) (string, int) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
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

// InternalAPIAddress returns the address of the service "kubernetes": the first
// of the service CIDR. It is the zero Addr if the CIDR is invalid.
func (n NetworkSpec) InternalAPIAddress() netip.Addr { return n.serviceAddress(1) }

// DNSAddress returns the address of the cluster DNS: the tenth of the service
// CIDR, or the second if it has no more than 3 host bits. It is the zero Addr if
// the CIDR is invalid.
func (n NetworkSpec) DNSAddress() netip.Addr {
	prefix, err := netip.ParsePrefix(n.ServiceCIDR)
	if err == nil && prefix.Addr().BitLen()-prefix.Bits() <= 3 {
		return n.serviceAddress(2)
	}
	return n.serviceAddress(10)
}

func (n NetworkSpec) serviceAddress(offset int) netip.Addr {
	prefix, err := netip.ParsePrefix(n.ServiceCIDR)
	if err != nil {
		return netip.Addr{}
	}
	address := prefix.Masked().Addr()
	for range offset {
		address = address.Next()
	}
	return address
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
		c.Spec.Network.InternalAPIAddress().String(),
		c.Spec.API.Address,
		c.Spec.API.ExternalHost(),
		hostname,
	}
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
