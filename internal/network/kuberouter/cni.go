// Package kuberouter is the built-in network provider. It connects the pods of a node by a bridge, with
// addresses from the node's pod CIDRs, gives source NAT to what leaves the pod network, and leads to the
// pods of other nodes.
package kuberouter

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"k0s.io/k0s/internal/file"
	"k0s.io/k0s/internal/journal"
	"k0s.io/k0s/internal/network/kuberouter/policy"
)

const (
	// Bridge connects the pods of a node.
	Bridge = "kube-bridge"
	// CNIConfig is where the container runtime finds the network.
	CNIConfig = "/etc/cni/net.d/10-kuberouter.conflist"
)

// Network is what a node's pod network depends on.
type Network struct {
	// PodCIDRs are this node's shares of ClusterCIDRs, the primary family first.
	PodCIDRs, ClusterCIDRs []netip.Prefix
	// MTU of the pods' interfaces; 0 is the kernel's default.
	MTU int
	// Hairpin lets a pod reach itself through its own service.
	Hairpin bool
	// Masquerade hides pods also from the pods of other nodes (spec.network.kuberouter.ipMasq).
	Masquerade bool
	// PolicySocket is where the plugin that waits for a pod's network policies finds the worker. Empty: they
	// are not enforced.
	PolicySocket string
	// Shown: pods keep their address also where they leave the pod network, whose routers know it
	// (enable-pod-egress: "false").
	Shown bool
	// IPAMDir keeps the addresses handed out. It is best lost at a reboot, as the pods are.
	IPAMDir string
}

// Apply makes the network: first the rules, then the configuration that tells the container runtime
// to go on. All of it is recorded in j.
func (n Network) Apply(j *journal.Journal) error {
	entries := []journal.Entry{
		{Kind: journal.Link, Name: Bridge},
		// The portmap plugin's own tables.
		{Kind: journal.NFTTable, Name: "ip cni_hostport"},
		{Kind: journal.NFTTable, Name: "ip6 cni_hostport"},
		{Kind: journal.NFTTable, Name: "inet cni_hostport"},
	}
	for _, f := range families {
		entries = append(entries, journal.Entry{Kind: journal.NFTTable, Name: f.name + " " + tableName})
	}
	for _, e := range entries {
		if err := j.Add(e); err != nil {
			return err
		}
	}
	if err := n.applyEgress(); err != nil {
		return err
	}
	if err := setHairpin(n.Hairpin); err != nil {
		return err
	}
	if err := n.removeOldGateways(); err != nil {
		return err
	}
	content, err := n.cniConfig()
	if err != nil {
		return err
	}
	if err := j.MakeDir(filepath.Dir(CNIConfig)); err != nil {
		return err
	}
	if present, err := os.ReadFile(CNIConfig); err == nil && string(present) == string(content) {
		return nil
	}
	if err := j.Add(journal.Entry{Kind: journal.File, Name: CNIConfig}); err != nil {
		return err
	}
	return file.Write(CNIConfig, content, 0o644, file.Options{})
}

func (n Network) cniConfig() ([]byte, error) {
	type object = map[string]any
	var ranges [][]object
	for _, pods := range n.PodCIDRs {
		ranges = append(ranges, []object{{"subnet": pods.String()}})
	}
	plugins := []object{
		{
			"type": "bridge", "bridge": Bridge, "isDefaultGateway": true, "hairpinMode": n.Hairpin, "mtu": n.MTU,
			"forceAddress": true, // a node that was deleted and comes back has other pod CIDRs
			"ipam":         object{"type": "host-local", "dataDir": n.IPAMDir, "ranges": ranges},
		},
		{"type": "portmap", "backend": "nftables", "capabilities": object{"portMappings": true}},
	}
	if n.PolicySocket != "" { // the last one: a pod starts when its rules are in the kernel
		plugins = append(plugins, object{"type": "k0s-policy", "socket": n.PolicySocket, "bridge": Bridge})
	}
	return json.MarshalIndent(object{"cniVersion": "1.0.0", "name": "k0s", "plugins": plugins}, "", "  ")
}

// UplinkMTU is the smallest MTU of the interfaces that default routes leave by and of those that have the node's
// addresses; 0, for the kernel's default, when there is none.
func UplinkMTU(node []netip.Addr) (int, error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return 0, fmt.Errorf("listing routes: %w", err)
	}
	addresses, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return 0, fmt.Errorf("listing addresses: %w", err)
	}
	uplinks := defaultLinks(routes)
	for _, a := range addresses {
		if address, ok := netip.AddrFromSlice(a.IP); ok && slices.Contains(node, address.Unmap()) {
			uplinks = append(uplinks, a.LinkIndex)
		}
	}
	smallest := 0
	for _, index := range uplinks {
		link, err := netlink.LinkByIndex(index)
		if err != nil {
			return 0, fmt.Errorf("the interface to other hosts: %w", err)
		}
		if mtu := link.Attrs().MTU; smallest == 0 || mtu < smallest {
			smallest = mtu
		}
	}
	return smallest, nil
}

// defaultLinks are the interfaces that default routes leave by: none for an unreachable one, several
// for one with several next hops.
func defaultLinks(routes []netlink.Route) []int {
	var links []int
	for _, route := range routes {
		if route.Dst != nil {
			if bits, _ := route.Dst.Mask.Size(); bits > 0 {
				continue
			}
		}
		if route.LinkIndex != 0 {
			links = append(links, route.LinkIndex)
		}
		for _, hop := range route.MultiPath {
			links = append(links, hop.LinkIndex)
		}
	}
	return links
}

// RemoveStaleConfig removes the CNI configuration when the rules that go before it are not in the
// kernel, as after a reboot: else pods would start without them. With policies, theirs belong to them.
func RemoveStaleConfig(policies bool) error {
	there, err := tableExists()
	if err == nil && there && policies {
		there, err = policy.TableExists()
	}
	if err != nil || there {
		return err
	}
	if err := os.Remove(CNIConfig); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// setHairpin has the pods that are there follow a change of the setting; the plugin sees to the others.
func setHairpin(on bool) error {
	bridge, err := netlink.LinkByName(Bridge)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil // no pod yet
	}
	if err != nil {
		return fmt.Errorf("looking for %s: %w", Bridge, err)
	}
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("listing network interfaces: %w", err)
	}
	for _, link := range links {
		if link.Attrs().MasterIndex != bridge.Attrs().Index {
			continue
		}
		// A pod may end meanwhile.
		if err := netlink.LinkSetHairpin(link, on); err != nil && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("setting hairpin of %s: %w", link.Attrs().Name, err)
		}
	}
	return nil
}

// removeOldGateways takes the addresses from the bridge that are of the node's pod CIDRs of before, if it was deleted
// and has come back: of IPv6 ones, the plugin adds the new to the old.
func (n Network) removeOldGateways() error {
	bridge, err := netlink.LinkByName(Bridge)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil // no pod yet
	}
	if err != nil {
		return fmt.Errorf("looking for %s: %w", Bridge, err)
	}
	present, err := netlink.AddrList(bridge, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("listing the addresses of %s: %w", Bridge, err)
	}
	for _, a := range present {
		address, _ := netip.AddrFromSlice(a.IP)
		holds := func(p netip.Prefix) bool { return p.Contains(address.Unmap()) }
		if !slices.ContainsFunc(n.ClusterCIDRs, holds) || slices.ContainsFunc(n.PodCIDRs, holds) {
			continue
		}
		if err := netlink.AddrDel(bridge, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("removing the address %s from %s: %w", a.IPNet, Bridge, err)
		}
	}
	return nil
}

// ParseNode reads a node's pod CIDRs, and those of the cluster.
func ParseNode(podCIDRs, clusterCIDRs []string) (n Network, err error) {
	if n.PodCIDRs, err = parsePrefixes(podCIDRs); err != nil {
		return n, fmt.Errorf("pod CIDRs of the node: %w", err)
	}
	if n.ClusterCIDRs, err = parsePrefixes(clusterCIDRs); err != nil {
		return n, fmt.Errorf("pod CIDRs of the cluster: %w", err)
	}
	return n, nil
}

func parsePrefixes(cidrs []string) ([]netip.Prefix, error) {
	if len(cidrs) == 0 {
		return nil, errors.New("there are none")
	}
	var prefixes []netip.Prefix
	for _, cidr := range cidrs {
		prefix, err := netip.ParsePrefix(cidr)
		if err != nil {
			return nil, err
		}
		prefixes = append(prefixes, prefix.Masked())
	}
	return prefixes, nil
}
