package bgp

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"k0s.io/k0s/internal/network/kuberouter/routes"
)

// heard is what a peer says: there is a way to a destination.
type heard struct {
	routes.Path
	from netip.Addr
}

// chooser decides which of the ways that are known the kernel is to take.
type chooser struct {
	plan plan
	// services are the networks of service addresses.
	services []netip.Prefix
	// podNetworks are those of all pods.
	podNetworks []netip.Prefix
	// offered are the service addresses that this node offers itself.
	offered []netip.Addr
	// told tells whether a peer is there and has told all that it knows, for that long at least.
	told func(peer netip.Addr, ago time.Duration) bool
	// waiting: peers outside of the cluster may still have to tell what they told before a restart.
	waiting bool
}

// choose returns the ways to take: by destination the first acceptable of those heard, which are in the order
// of preference. What was taken before is kept as long as the one who told it is silent: k0s restarts there,
// pods run on. But it goes with its Node object.
func (c chooser) choose(heardOf map[netip.Prefix][]heard, before map[netip.Prefix]routes.Path) []routes.Path {
	chosen := map[netip.Prefix]routes.Path{}
	pods := map[netip.Prefix]remoteNode{}
	for _, node := range c.plan.nodes {
		for _, path := range node.paths {
			pods[path.Destination] = node
		}
	}
	for destination, all := range heardOf {
		for _, h := range all {
			way, ok := c.accept(h, pods)
			if _, known := chosen[destination]; ok && (!known || !way.Outside) {
				chosen[destination] = way
			}
			if ok && !way.Outside {
				break // a node knows better where pods are than a router, which BGP would prefer
			}
		}
	}
	for destination, path := range before {
		if _, known := chosen[destination]; known {
			continue
		}
		if node, isNodes := pods[destination]; isNodes {
			if c.silent(node) {
				chosen[destination] = node.to(destination)
			}
			continue
		}
		if c.waiting && !overlaps(c.podNetworks, destination) && slices.ContainsFunc(c.plan.outside(), func(p peer) bool { return !c.told(p.Address, 0) }) {
			path.Outside = true
			chosen[destination] = path
		}
	}
	return slices.SortedFunc(maps.Values(chosen), func(a, b routes.Path) int {
		if order := a.Destination.Addr().Compare(b.Destination.Addr()); order != 0 {
			return order
		}
		return a.Destination.Bits() - b.Destination.Bits()
	})
}

// hearsay is how long one may take to tell what others say: it may have to meet them first.
const hearsay = 20 * time.Second

// silent tells whether whoever knows of a node's pods has not told it (yet).
func (c chooser) silent(node remoteNode) bool {
	direct := false
	for _, p := range c.plan.peers {
		if p.node == node.name {
			direct = true
			if !c.told(p.Address, 0) {
				return true
			}
		}
	}
	if direct {
		return false
	}
	return slices.ContainsFunc(slices.Collect(maps.Values(c.plan.peers)), func(p peer) bool { return !c.told(p.Address, hearsay) })
}

// accept returns the way to take when a peer says that. Nodes speak of the pods of nodes only, and where those
// are is the word of the Node object: who says it of another's pods leads nobody astray, nor hides the true
// way. Others may say what they like.
func (c chooser) accept(h heard, pods map[netip.Prefix]remoteNode) (routes.Path, bool) {
	from, isPeer := c.plan.peers[h.from]
	if !isPeer {
		return routes.Path{}, false
	}
	if from.node == "" {
		h.Outside = true
		return h.Path, c.acceptable(h)
	}
	node, ok := pods[h.Destination]
	if !ok {
		return routes.Path{}, false
	}
	return node.to(h.Destination), true
}

// acceptable tells whether a router may say that: nothing that would lead this node's pods, services or all
// else astray.
func (c chooser) acceptable(h heard) bool {
	if h.Destination.Bits() == 0 || overlapsInside(c.services, h.Destination) {
		return false
	}
	for _, own := range c.plan.pods {
		if own.Destination.Contains(h.Destination.Addr()) && own.Destination.Bits() <= h.Destination.Bits() {
			return false
		}
	}
	if h.Destination.IsSingleIP() && (slices.Contains(c.offered, h.Destination.Addr()) || slices.Contains(c.plan.addresses, h.Destination.Addr())) {
		return false
	}
	if slices.ContainsFunc(c.plan.importReject, func(r netip.Prefix) bool {
		return r.Bits() <= h.Destination.Bits() && r.Contains(h.Destination.Addr())
	}) {
		return false
	}
	return !slices.Contains(c.plan.addresses, h.NextHop) && h.NextHop.Is4() == h.Destination.Addr().Is4()
}

func overlaps(networks []netip.Prefix, p netip.Prefix) bool {
	return slices.ContainsFunc(networks, p.Overlaps)
}

// overlapsInside tells whether p is a part of one of the networks.
func overlapsInside(networks []netip.Prefix, p netip.Prefix) bool {
	return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Bits() <= p.Bits() && n.Contains(p.Addr()) })
}
