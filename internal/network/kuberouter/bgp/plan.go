package bgp

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"k0s.io/k0s/internal/network/kuberouter/routes"
	"k0s.io/k0s/internal/network/kuberouter/settings"
)

// plan is what the speaker of a node is to be, as the Node objects and the settings say.
type plan struct {
	asn      uint32
	routerID netip.Addr
	// listen are the addresses to listen on.
	listen []netip.Addr
	peers  map[netip.Addr]peer
	// nodes are all others, whether they are peers or not.
	nodes map[string]remoteNode
	// pods are where this node's own pods are.
	pods []routes.Path
	// addresses are this node's own, of each family.
	addresses []netip.Addr
	// reflector: this node passes on what others say; reflected: what it knows comes from those.
	reflector, reflected     bool
	prependASN, prependTimes uint32
	communities              []string
	importReject             []netip.Prefix
	problems                 []string
}

// peer is whom the speaker talks to: a node if it has a name, else a router outside of the cluster.
type peer struct {
	settings.Peer
	node string
	// client: what others say is passed on to it, under this cluster id.
	client netip.Addr
}

// remoteNode is another node: where its pods are.
type remoteNode struct {
	name  string
	paths []routes.Path
}

// to is the path to one of the networks of the node's pods.
func (n remoteNode) to(destination netip.Prefix) routes.Path {
	i := slices.IndexFunc(n.paths, func(p routes.Path) bool { return p.Destination == destination })
	return n.paths[i]
}

// outside are the peers that are no nodes.
func (p plan) outside() []peer {
	var outside []peer
	for _, peer := range p.peers {
		if peer.node == "" {
			outside = append(outside, peer)
		}
	}
	slices.SortFunc(outside, func(a, b peer) int { return a.Address.Compare(b.Address) })
	return outside
}

// makePlan is for the node of that name, which may not be among the nodes: then there is nothing to do.
func makePlan(own string, nodes []*corev1.Node, s settings.BGP) plan {
	p := plan{asn: s.ASN, peers: map[netip.Addr]peer{}, nodes: map[string]remoteNode{}}
	i := slices.IndexFunc(nodes, func(n *corev1.Node) bool { return n.Name == own })
	if i < 0 {
		return p
	}
	self := readAnnotations(nodes[i])
	p.problems = self.problems
	p.addresses = internalAddresses(nodes[i])
	p.pods = pathsTo(nodes[i])
	if len(p.addresses) == 0 {
		return p
	}
	p.listen = p.addresses
	if len(self.localAddresses) > 0 {
		p.listen = self.localAddresses
	}
	p.routerID = routerID(p.addresses)
	p.reflector, p.reflected = self.reflector.IsValid(), self.reflected.IsValid()
	p.prependASN, p.prependTimes, p.communities, p.importReject = self.prependASN, self.prependTimes, self.communities, self.importReject
	if !s.FullMesh && self.asn != 0 {
		p.asn = self.asn
	}
	// Those of the settings, and those of the node, which know better.
	for _, outside := range append(slices.Clone(s.Peers), self.peers...) {
		if outside.TTL == 0 && len(s.Peers) > 0 {
			outside.TTL = s.Peers[0].TTL
		}
		p.peers[outside.Address] = peer{Peer: outside}
	}
	// A host that was renamed leaves a Node with its address: the newest is the host's.
	nodes = slices.SortedFunc(slices.Values(nodes), func(a, b *corev1.Node) int {
		return cmp.Or(b.CreationTimestamp.Compare(a.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	for _, node := range nodes {
		if node.Name == own {
			continue
		}
		if address, shared := common(internalAddresses(node), p.addresses); shared {
			p.problems = append(p.problems, fmt.Sprintf("node %s has the address %s of this one: its pods are not reached: "+
				"if this host was renamed, delete that Node", node.Name, address))
			continue
		}
		p.nodes[node.Name] = remoteNode{node.Name, pathsTo(node)}
		if s.Internal {
			p.addNode(node, self, s)
		}
	}
	return p
}

// addNode makes a node a peer, if it is to be one.
func (p *plan) addNode(node *corev1.Node, self annotated, s settings.BGP) {
	// One session for both families, that of the primary one.
	primary := p.addresses[0]
	addresses := internalAddresses(node)
	i := slices.IndexFunc(addresses, func(a netip.Addr) bool { return a.Is4() == primary.Is4() })
	if i < 0 {
		return
	}
	other := readAnnotations(node)
	asn := s.ASN
	if !s.FullMesh && other.asn != 0 {
		asn = other.asn
	}
	if asn != p.asn {
		return
	}
	// Clients of reflectors talk to reflectors only.
	if p.reflected && !other.reflector.IsValid() || other.reflected.IsValid() && !p.reflector {
		return
	}
	n := peer{node: node.Name, Peer: settings.Peer{Address: addresses[i], ASN: asn, Port: s.Port, LocalAddress: primary}}
	if other.reflected.IsValid() {
		n.client = self.reflector
	}
	if before, taken := p.peers[n.Address]; taken {
		who := "of " + cmp.Or(before.node, "a router outside of the cluster")
		p.problems = append(p.problems, fmt.Sprintf("node %s has the address %s %s: it gets no session", node.Name, n.Address, who))
		return
	}
	p.peers[n.Address] = n
}

// common returns the first address that is in both.
func common(a, b []netip.Addr) (netip.Addr, bool) {
	i := slices.IndexFunc(a, func(x netip.Addr) bool { return slices.Contains(b, x) })
	if i < 0 {
		return netip.Addr{}, false
	}
	return a[i], true
}

// internalAddresses are those that the other nodes know a node by, the first of each family.
func internalAddresses(node *corev1.Node) []netip.Addr {
	var all []netip.Addr
	for _, a := range node.Status.Addresses {
		address, err := netip.ParseAddr(a.Address)
		if a.Type != corev1.NodeInternalIP || err != nil ||
			slices.ContainsFunc(all, func(other netip.Addr) bool { return other.Is4() == address.Is4() }) {
			continue
		}
		all = append(all, address)
	}
	return all
}

// pathsTo are those to the pods of a node: for each family that it has both a pod CIDR and an address of.
func pathsTo(node *corev1.Node) []routes.Path {
	cidrs := node.Spec.PodCIDRs
	if len(cidrs) == 0 && node.Spec.PodCIDR != "" {
		cidrs = []string{node.Spec.PodCIDR}
	}
	addresses := internalAddresses(node)
	var paths []routes.Path
	for _, cidr := range cidrs {
		pods, err := netip.ParsePrefix(cidr)
		if err != nil {
			continue
		}
		for _, address := range addresses {
			if address.Is4() == pods.Addr().Is4() {
				paths = append(paths, routes.Path{Destination: pods.Masked(), NextHop: address})
			}
		}
	}
	return paths
}

// routerID is a speaker's name for the others: the node's IPv4 address, else a number made of its IPv6 address.
func routerID(addresses []netip.Addr) netip.Addr {
	for _, a := range addresses {
		if a.Is4() {
			return a
		}
	}
	h := fnv.New32a()
	h.Write(addresses[0].AsSlice()) //nolint:errcheck // a hash takes everything
	sum := h.Sum(nil)
	if [4]byte(sum) == [4]byte{} {
		sum[3] = 1 // 0.0.0.0 is nobody's
	}
	return netip.AddrFrom4([4]byte(sum))
}
