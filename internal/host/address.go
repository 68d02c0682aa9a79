package host

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// podInterfaces are links made by pod networks; their addresses are not the host's own.
var podInterfaces = []string{"kube-bridge", "kube-overlay", "vxlan.calico", "dummyvip0", "veth", "cali", "tun-", "cni", "docker", "virbr"}

// Addresses lists the addresses of the host's own interfaces: IPv4 before IPv6, and last those that are
// secondary, or temporary as the ones of privacy extensions; without loopback, link-local, pod networks, and
// IPv6 addresses that another host has.
func Addresses() ([]netip.Addr, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("listing network interfaces: %w", err)
	}
	var four, six, secondary []netip.Addr
	for _, link := range links {
		if link.Attrs().Flags&net.FlagLoopback != 0 || isPodInterface(link.Attrs().Name) {
			continue
		}
		addrs, err := netlink.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			return nil, fmt.Errorf("listing addresses of %s: %w", link.Attrs().Name, err)
		}
		for _, a := range addrs {
			ip, ok := netip.AddrFromSlice(a.IP)
			if ip = ip.Unmap(); !ok || !ip.IsGlobalUnicast() {
				continue
			}
			switch {
			case a.Flags&unix.IFA_F_DADFAILED != 0:
			case a.Flags&(unix.IFA_F_SECONDARY|unix.IFA_F_TENTATIVE|unix.IFA_F_DEPRECATED) != 0: // temporary is the same flag as secondary
				secondary = append(secondary, ip)
			case ip.Is4():
				four = append(four, ip)
			default:
				six = append(six, ip)
			}
		}
	}
	return append(append(four, six...), secondary...), nil
}

func isPodInterface(name string) bool {
	for _, prefix := range podInterfaces {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// NodeName is the name this machine has as a node: its host name, trimmed and in lower case, as the
// kubelet does it.
func NodeName() (string, error) {
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("reading the host name: %w", err)
	}
	name = strings.ToLower(strings.TrimSpace(name))
	if name == "" {
		return "", fmt.Errorf("this host has no name: set one with `hostname NAME`")
	}
	return name, nil
}
