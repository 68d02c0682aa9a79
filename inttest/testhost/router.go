package testhost

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// route is a way out of a network.
type route struct{ prefix, via string }

// Prefix is that of the IPv4 addresses of the network's hosts, Prefix6 that of the IPv6 ones.
func (n *Network) Prefix() string { return fmt.Sprintf("10.77.%d.0/24", n.number) }

// Prefix6 is as Prefix.
func (n *Network) Prefix6() string { return n.address6(0) + "/64" }

// Join adds a host, and starts it, that is a router between the network and another one of the same families. It
// forwards what goes to hosts and nothing else: for all other addresses, such as those of pods, it has no route;
// and no IPv4 packets that come from other addresses. It cannot be rebooted.
func (n *Network) Join(ctx context.Context, name string, other *Network) (*Host, error) {
	h, err := n.Boot(ctx, name)
	if err != nil {
		return nil, err
	}
	other.mu.Lock()
	other.count++
	number := other.count
	other.mu.Unlock()
	cable := fmt.Sprintf("%sh%d", other.bridge, number)
	for _, command := range [][]string{
		{"ip", "link", "add", cable, "type", "veth", "peer", "name", "eth1", "netns", strconv.Itoa(h.Pid())},
		{"ip", "link", "set", cable, "master", other.bridge, "up"},
	} {
		if err := run(ctx, command...); err != nil {
			return nil, err
		}
	}
	if _, err := h.Output(ctx, "sh", "-ec", `ip link set eth1 up; ip -4 route flush default; ip -6 route flush default
		for name in all eth0 eth1; do echo 1 >/proc/sys/net/ipv4/conf/$name/rp_filter; done
		echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding`); err != nil {
		return nil, fmt.Errorf("making %s a router: %w", name, err)
	}
	for _, near := range []string{h.IP, h.IPv6} {
		if near == "" {
			continue
		}
		here, there, far, length := n.Prefix(), other.Prefix(), fmt.Sprintf("10.77.%d.%d", other.number, 9+number), "/24"
		if strings.Contains(near, ":") {
			here, there, far, length = n.Prefix6(), other.Prefix6(), other.address6(9+number), "/64"
		}
		if _, err := h.Output(ctx, "ip", "addr", "add", far+length, "dev", "eth1"); err != nil {
			return nil, err
		}
		if err := errors.Join(n.addRoute(ctx, route{there, near}, h), other.addRoute(ctx, route{here, far}, h)); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// addRoute tells all hosts of the network, but the router, and those to come.
func (n *Network) addRoute(ctx context.Context, r route, router *Host) error {
	n.mu.Lock()
	n.routes = append(n.routes, r)
	n.mu.Unlock()
	for _, h := range n.Hosts() {
		if h == router || h.Pid() == 0 {
			continue
		}
		if err := h.addRoutes(ctx); err != nil {
			return err
		}
	}
	return nil
}

// addRoutes gives the host its network's routes.
func (h *Host) addRoutes(ctx context.Context) error {
	h.network.mu.Lock()
	routes := h.network.routes
	h.network.mu.Unlock()
	for _, r := range routes {
		if _, err := h.Output(ctx, "ip", "route", "replace", r.prefix, "via", r.via); err != nil {
			return err
		}
	}
	return nil
}
