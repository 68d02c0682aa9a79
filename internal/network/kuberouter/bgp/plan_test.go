package bgp

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"k0s.io/k0s/internal/network/kuberouter/settings"
)

// newNode is nI: its address is 192.0.2.I, its pods are 10.244.I.0/24. annotations are pairs, without prefix.
func newNode(i int, annotations ...string) *corev1.Node {
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("n%d", i), Annotations: map[string]string{}},
		Spec:       corev1.NodeSpec{PodCIDRs: []string{fmt.Sprintf("10.244.%d.0/24", i)}},
		Status:     corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("192.0.2.%d", i)}}},
	}
	for i := 0; i < len(annotations); i += 2 {
		node.Annotations["kube-router.io/"+annotations[i]] = annotations[i+1]
	}
	return node
}

// at gives a node the address 192.0.2.I.
func at(i int, node *corev1.Node) *corev1.Node {
	node.Status.Addresses[0].Address = fmt.Sprintf("192.0.2.%d", i)
	return node
}

func TestPeers(t *testing.T) {
	standard := func(*settings.BGP) {}
	byASN := func(s *settings.BGP) { s.FullMesh = false }
	for _, test := range []struct {
		name  string
		nodes []*corev1.Node // the first is this one
		with  func(*settings.BGP)
		want  string // ADDRESS/ASN[:PORT][ client of ID][ from ADDRESS], and the problems
	}{
		{"alone", []*corev1.Node{newNode(1)}, standard, ""},
		{"full mesh", []*corev1.Node{newNode(1), newNode(2), newNode(3)}, standard, "192.0.2.2/64512 from 192.0.2.1, 192.0.2.3/64512 from 192.0.2.1"},
		{"an ASN of the cluster's and another port", []*corev1.Node{newNode(1), newNode(2)}, func(s *settings.BGP) { s.ASN, s.Port = 64600, 1179 }, "192.0.2.2/64600:1179 from 192.0.2.1"},
		{"in a full mesh nodes have no ASN of their own", []*corev1.Node{newNode(1, "node.asn", "64601"), newNode(2)}, standard, "192.0.2.2/64512 from 192.0.2.1"},
		{"without internal sessions", []*corev1.Node{newNode(1), newNode(2)}, func(s *settings.BGP) { s.Internal = false }, ""},
		{"by ASN", []*corev1.Node{newNode(1, "node.asn", "64601"), newNode(2, "node.asn", "64601"), newNode(3, "node.asn", "64602"), newNode(4)}, byASN, "192.0.2.2/64601 from 192.0.2.1"},
		{"reflector", []*corev1.Node{newNode(1, "rr.server", "42"), newNode(2, "rr.client", "42"), newNode(3, "rr.server", "0.0.0.42"), newNode(4)}, standard,
			"192.0.2.2/64512 client of 0.0.0.42 from 192.0.2.1, 192.0.2.3/64512 from 192.0.2.1, 192.0.2.4/64512 from 192.0.2.1"},
		{"client of a reflector", []*corev1.Node{newNode(1, "rr.client", "42"), newNode(2, "rr.client", "42"), newNode(3, "rr.server", "42"), newNode(4)}, standard, "192.0.2.3/64512 from 192.0.2.1"},
		{"neither", []*corev1.Node{newNode(1), newNode(2, "rr.client", "42"), newNode(3, "rr.server", "42")}, standard, "192.0.2.3/64512 from 192.0.2.1"},
		{"both", []*corev1.Node{newNode(1, "rr.server", "42", "rr.client", "42"), newNode(2, "rr.client", "42")}, standard,
			"192.0.2.2/64512 client of 0.0.0.42 from 192.0.2.1 | annotation kube-router.io/rr.client of node n1 is ignored: the node has kube-router.io/rr.server, too"},
		{"peers of the settings", []*corev1.Node{newNode(1)}, func(s *settings.BGP) {
			s.Peers = []settings.Peer{{Address: netip.MustParseAddr("198.51.100.1"), ASN: 64513, Port: 179}}
		}, "198.51.100.1/64513"},
		{"peers of the node", []*corev1.Node{newNode(1, "peers", "- {remoteip: 198.51.100.1, remoteasn: 64513, port: 1790, localip: 192.0.2.1, password: Z2VoZWlt}\n- {remoteip: \"2001:db8::1\", remoteasn: 4200000000}")}, standard,
			"198.51.100.1/64513:1790 from 192.0.2.1 with geheim, 2001:db8::1/4200000000"},
		{"older annotations", []*corev1.Node{newNode(1, "peer.ips", "198.51.100.1, 198.51.100.2", "peer.asns", "64513,64514", "peer.ports", "1790,", "peer.passwords", ",Z2VoZWlt", "peer.localips", "192.0.2.1")}, standard,
			"198.51.100.1/64513:1790 from 192.0.2.1, 198.51.100.2/64514 with geheim"},
		{"peers of others are theirs", []*corev1.Node{newNode(1), newNode(2, "peer.ips", "198.51.100.1", "peer.asns", "64513")}, standard, "192.0.2.2/64512 from 192.0.2.1"},
		{"no number", []*corev1.Node{newNode(1, "peer.ips", "198.51.100.1")}, standard,
			" | annotation kube-router.io/peer.ips of node n1 is ignored: kube-router.io/peer.asns must have as many items"},
		{"a password that is none does not show", []*corev1.Node{newNode(1, "peers", "- {remoteip: 198.51.100.1, remoteasn: 64513, password: geheim!}")}, standard,
			" | annotation kube-router.io/peers of node n1 is ignored: peer 1: its password is not in base64"},
		{"no YAML", []*corev1.Node{newNode(1, "peers", "- password: [geheim")}, standard,
			" | annotation kube-router.io/peers of node n1 is ignored: it must be a YAML list of peers with remoteip, remoteasn, localip, port and password"},
		{"an address taken", []*corev1.Node{newNode(1, "peer.ips", "192.0.2.2", "peer.asns", "64513"), newNode(2)}, standard,
			"192.0.2.2/64513 | node n2 has the address 192.0.2.2 of a router outside of the cluster: it gets no session"},
		{"a host renamed", []*corev1.Node{newNode(1), at(1, newNode(7)), newNode(2)}, standard,
			"192.0.2.2/64512 from 192.0.2.1 | node n7 has the address 192.0.2.1 of this one: its pods are not reached: if this host was renamed, delete that Node"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := settings.Default().BGP
			test.with(&s)
			p := makePlan("n1", test.nodes, s)
			var got []string
			for _, address := range slices.SortedFunc(maps.Keys(p.peers), netip.Addr.Compare) {
				peer := p.peers[address]
				text := fmt.Sprintf("%s/%d", peer.Address, peer.ASN)
				if peer.Port != 179 {
					text += fmt.Sprintf(":%d", peer.Port)
				}
				if peer.client.IsValid() {
					text += " client of " + peer.client.String()
				}
				if peer.LocalAddress.IsValid() {
					text += " from " + peer.LocalAddress.String()
				}
				if peer.Password != "" {
					text += " with " + string(peer.Password)
				}
				got = append(got, text)
			}
			all := strings.Join(got, ", ")
			if len(p.problems) > 0 {
				all += " | " + strings.Join(p.problems, " | ")
			}
			if all != test.want {
				t.Errorf("got  %s\nwant %s", all, test.want)
			}
		})
	}
}

func TestPlanOfBothFamilies(t *testing.T) {
	six := func(i int) *corev1.Node {
		node := newNode(i)
		node.Spec.PodCIDRs = append(node.Spec.PodCIDRs, fmt.Sprintf("fd00:%d::/64", i))
		node.Status.Addresses = append(node.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("2001:db8::%d", i)})
		return node
	}
	four := newNode(3) // has no address of the other family
	four.Spec.PodCIDRs = append(four.Spec.PodCIDRs, "fd00:3::/64")
	p := makePlan("n1", []*corev1.Node{six(1), six(2), four}, settings.Default().BGP)
	if len(p.peers) != 2 || p.routerID.String() != "192.0.2.1" || fmt.Sprint(p.listen) != "[192.0.2.1 2001:db8::1]" {
		t.Errorf("peers %v, id %s, listening on %s", p.peers, p.routerID, p.listen)
	}
	for name, want := range map[string]string{"n2": "[{10.244.2.0/24 192.0.2.2 false} {fd00:2::/64 2001:db8::2 false}]", "n3": "[{10.244.3.0/24 192.0.2.3 false}]"} {
		if got := fmt.Sprint(p.nodes[name].paths); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	only := six(4)
	only.Status.Addresses = only.Status.Addresses[1:]
	if id := makePlan("n4", []*corev1.Node{only}, settings.Default().BGP).routerID; !id.Is4() || id.IsUnspecified() {
		t.Errorf("without an IPv4 address the id is %s", id)
	}
}

func TestOtherAnnotations(t *testing.T) {
	for _, test := range []struct {
		annotations []string
		want        string // PREPEND COMMUNITIES REJECT LISTEN, and the problems
	}{
		{nil, "0x0 [] [] [192.0.2.1]"},
		{[]string{"path-prepend.as", "64600"}, "64600x1 [] [] [192.0.2.1]"},
		{[]string{"path-prepend.as", "64600", "path-prepend.repeat-n", "5"}, "64600x5 [] [] [192.0.2.1]"},
		{[]string{"path-prepend.repeat-n", "5"}, "0x0 [] [] [192.0.2.1] | annotation kube-router.io/path-prepend.repeat-n of node n1 is ignored: there is no kube-router.io/path-prepend.as"},
		{[]string{"node.bgp.communities", "64512:100, no-export,4227858532"}, "0x0 [64512:100 no-export 64512:100] [] [192.0.2.1]"},
		{[]string{"node.bgp.communities", "64512:100000"}, "0x0 [] [] [192.0.2.1] | annotation kube-router.io/node.bgp.communities of node n1 is ignored: \"64512:100000\" is not a community such as 64512:100"},
		{[]string{"node.bgp.customimportreject", "198.51.100.7/24,2001:db8::/32"}, "0x0 [] [198.51.100.0/24 2001:db8::/32] [192.0.2.1]"},
		{[]string{"bgp-local-addresses", "192.0.2.101,2001:db8::1"}, "0x0 [] [] [192.0.2.101 2001:db8::1]"},
	} {
		p := makePlan("n1", []*corev1.Node{newNode(1, test.annotations...)}, settings.Default().BGP)
		got := fmt.Sprintf("%dx%d %v %v %v", p.prependASN, p.prependTimes, p.communities, p.importReject, p.listen)
		if len(p.problems) > 0 {
			got += " | " + strings.Join(p.problems, " | ")
		}
		if got != test.want {
			t.Errorf("%v:\ngot  %s\nwant %s", test.annotations, got, test.want)
		}
	}
}

// Of nodes with one address the newest is the host's, in whatever order they are listed; of this node's nobody is.
func TestSharedAddress(t *testing.T) {
	born := func(second int64, node *corev1.Node) *corev1.Node {
		node.CreationTimestamp = metav1.Unix(second, 0)
		return node
	}
	older, newer, same := born(1, at(9, newNode(2))), born(2, at(9, newNode(4))), born(2, at(9, newNode(5)))
	for _, nodes := range [][]*corev1.Node{
		{newNode(1), older, newer, same}, {same, newer, older, newNode(1)}, {newer, newNode(1), same, older},
	} {
		p := makePlan("n1", nodes, settings.Default().BGP)
		if got := p.peers[netip.MustParseAddr("192.0.2.9")].node; got != "n4" || len(p.peers) != 1 {
			t.Errorf("the peer is %s of %v", got, p.peers)
		}
	}
	p := makePlan("n1", []*corev1.Node{newNode(1), at(1, newNode(7))}, settings.Default().BGP)
	if len(p.nodes) > 0 {
		t.Errorf("there are ways to %v", p.nodes)
	}
}
