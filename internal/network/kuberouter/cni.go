// Package kuberouter is the built-in network provider. So far it connects the pods of one node: a
// bridge with addresses from the node's pod CIDR, and source NAT for what leaves the pod network.
package kuberouter

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"

	"k0s.io/k0s/internal/file"
	"k0s.io/k0s/internal/journal"
)

const (
	// Bridge connects the pods of a node.
	Bridge = "kube-bridge"
	// CNIConfig is where the container runtime finds the network.
	CNIConfig = "/etc/cni/net.d/10-kuberouter.conflist"
)

// Network is what a node's pod network depends on.
type Network struct {
	// PodCIDR is this node's share of ClusterCIDR.
	PodCIDR, ClusterCIDR netip.Prefix
	// MTU of the pods' interfaces; 0 is the kernel's default.
	MTU int
	// Hairpin lets a pod reach itself through its own service.
	Hairpin bool
	// Masquerade hides pods also from pods of other nodes (spec.network.kuberouter.ipMasq).
	Masquerade bool
	// IPAMDir keeps the addresses handed out. It is best lost at a reboot, as the pods are.
	IPAMDir string
}

// Apply makes the network: first the rules, then the configuration that tells the container runtime
// to go on. All of it is recorded in j.
func (n Network) Apply(j *journal.Journal) error {
	for _, e := range []journal.Entry{
		{Kind: journal.Link, Name: Bridge},
		{Kind: journal.NFTTable, Name: tableFamily + " " + tableName},
		// The portmap plugin's own tables.
		{Kind: journal.NFTTable, Name: "ip cni_hostport"},
		{Kind: journal.NFTTable, Name: "ip6 cni_hostport"},
		{Kind: journal.NFTTable, Name: "inet cni_hostport"},
	} {
		if err := j.Add(e); err != nil {
			return err
		}
	}
	if err := n.applyEgress(); err != nil {
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
	return json.MarshalIndent(object{
		"cniVersion": "1.0.0",
		"name":       "k0s",
		"plugins": []object{
			{
				"type": "bridge", "bridge": Bridge, "isDefaultGateway": true, "hairpinMode": n.Hairpin, "mtu": n.MTU,
				"ipMasq": n.Masquerade, "ipMasqBackend": "nftables",
				"ipam": object{
					"type": "host-local", "dataDir": n.IPAMDir,
					"ranges": [][]object{{{"subnet": n.PodCIDR.String()}}},
				},
			},
			{"type": "portmap", "backend": "nftables", "capabilities": object{"portMappings": true}},
		},
	}, "", "  ")
}

// UplinkMTU is the smallest MTU of the interfaces that default routes leave by; 0, for the kernel's
// default, when there is none.
func UplinkMTU() (int, error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return 0, fmt.Errorf("listing routes: %w", err)
	}
	smallest := 0
	for _, index := range defaultLinks(routes) {
		link, err := netlink.LinkByIndex(index)
		if err != nil {
			return 0, fmt.Errorf("the interface of the default route: %w", err)
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
		if route.Dst != nil && !route.Dst.IP.IsUnspecified() {
			continue
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
// kernel, as after a reboot: else pods would start without them.
func RemoveStaleConfig() error {
	there, err := tableExists()
	if err != nil || there {
		return err
	}
	if err := os.Remove(CNIConfig); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// ParseNode reads a node's pod CIDR.
func ParseNode(podCIDR, clusterCIDR string) (Network, error) {
	pod, err1 := netip.ParsePrefix(podCIDR)
	cluster, err2 := netip.ParsePrefix(clusterCIDR)
	return Network{PodCIDR: pod, ClusterCIDR: cluster}, errors.Join(err1, err2)
}
