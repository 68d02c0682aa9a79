package host

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
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

// AllAddresses are those of all interfaces, whatever they are for.
func AllAddresses() ([]netip.Addr, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("listing addresses: %w", err)
	}
	var all []netip.Addr
	for _, a := range addrs {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			all = append(all, prefix.Addr())
		}
	}
	return all, nil
}

// WatchAddresses calls changed whenever an address of any interface has, or may have, come, gone or changed, but for
// link-local ones, until stop. The channel tells when it can no longer do so.
func WatchAddresses(changed func()) (failed <-chan error, stop func(), err error) {
	socket, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR)
	if err != nil {
		return nil, nil, fmt.Errorf("subscribing to the kernel's events of addresses: %w", err)
	}
	ended, done := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(done)
		for {
			messages, _, err := socket.Receive()
			switch {
			case errors.Is(err, unix.ENOBUFS): // some were lost
				changed()
			case err != nil:
				ended <- fmt.Errorf("receiving the kernel's events of addresses: %w", err)
				return
			case slices.ContainsFunc(messages, isGlobal):
				changed()
			}
		}
	}()
	return ended, func() { socket.Close(); <-done }, nil
}

// isGlobal tells whether an event is of an address that others may know: each pod comes with one that they do not.
func isGlobal(m syscall.NetlinkMessage) bool {
	const scopeOffset = 3
	return len(m.Data) > scopeOffset && m.Data[scopeOffset] < unix.RT_SCOPE_LINK
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
