package bgp

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"k0s.io/k0s/internal/network/kuberouter/routes"
	"k0s.io/k0s/internal/network/kuberouter/settings"
)

func path(text string) routes.Path {
	destination, hop, _ := strings.Cut(text, " by ")
	return routes.Path{Destination: netip.MustParsePrefix(destination), NextHop: netip.MustParseAddr(hop)}
}

// TestChoose: this is n1 of three nodes, with the router 198.51.100.1.
func TestChoose(t *testing.T) {
	const router = "198.51.100.1"
	mesh := []*corev1.Node{newNode(1, "node.bgp.customimportreject", "203.0.113.128/25"), newNode(2), newNode(3)}
	reflected := []*corev1.Node{newNode(1, "rr.client", "1"), newNode(2, "rr.server", "1"), newNode(3, "rr.client", "1")}
	for _, test := range []struct {
		name    string
		nodes   []*corev1.Node
		heard   []string // DESTINATION by HOP from PEER
		before  []string // DESTINATION by HOP
		silent  []string // peers
		settled bool
		want    string
	}{
		{"from whom they are", mesh, []string{"10.244.2.0/24 by 192.0.2.2 from 192.0.2.2", "10.244.3.0/24 by 192.0.2.3 from 192.0.2.3"}, nil, nil, false,
			"10.244.2.0/24 by 192.0.2.2, 10.244.3.0/24 by 192.0.2.3"},
		{"in another's name", mesh, []string{"10.244.2.0/24 by 192.0.2.3 from 192.0.2.3"}, nil, nil, false, "10.244.2.0/24 by 192.0.2.2"},
		{"a part of another's", mesh, []string{"10.244.2.0/25 by 192.0.2.3 from 192.0.2.3", "10.244.2.7/32 by 192.0.2.3 from 192.0.2.3"}, nil, nil, false, ""},
		{"this node's own", mesh, []string{"10.244.1.0/24 by 192.0.2.3 from 192.0.2.3", "10.244.1.0/24 by 198.51.100.1 from " + router, "10.244.1.128/25 by 198.51.100.1 from " + router}, nil, nil, false, ""},
		{"all pods", mesh, []string{"10.244.0.0/16 by 192.0.2.3 from 192.0.2.3"}, nil, nil, false, ""},
		{"anything else of a node", mesh, []string{"203.0.113.0/24 by 192.0.2.3 from 192.0.2.3", "0.0.0.0/0 by 192.0.2.3 from 192.0.2.3"}, nil, nil, false, ""},
		{"from a stranger", mesh, []string{"10.244.2.0/24 by 192.0.2.2 from 192.0.2.9"}, nil, nil, false, ""},
		{"passed on", reflected, []string{"10.244.3.0/24 by 192.0.2.3 from 192.0.2.2"}, nil, nil, false, "10.244.3.0/24 by 192.0.2.3"},
		{"passed on, and led astray", reflected, []string{"10.244.3.0/24 by 192.0.2.2 from 192.0.2.2"}, nil, nil, false, "10.244.3.0/24 by 192.0.2.3"},

		{"of a router", mesh, []string{"203.0.113.0/25 by 198.51.100.1 from " + router, "10.0.0.0/8 by 198.51.100.1 from " + router}, nil, nil, false,
			"10.0.0.0/8 by 198.51.100.1 outside, 203.0.113.0/25 by 198.51.100.1 outside"},
		{"a node's pods, of a router and of the node", mesh, []string{"10.244.2.0/24 by 198.51.100.1 from " + router, "10.244.2.0/24 by 192.0.2.2 from 192.0.2.2"}, nil, nil, false, "10.244.2.0/24 by 192.0.2.2"},
		{"a node's pods, of a router only", mesh, []string{"10.244.2.0/24 by 198.51.100.1 from " + router, "10.244.2.0/24 by 198.51.100.2 from " + router}, nil, nil, false, "10.244.2.0/24 by 198.51.100.1 outside"},
		{"not wanted of a router", mesh, []string{
			"0.0.0.0/0 by 198.51.100.1 from " + router, "10.96.0.10/32 by 198.51.100.1 from " + router, "203.0.113.192/26 by 198.51.100.1 from " + router,
			"203.0.113.5/32 by 198.51.100.1 from " + router, "192.0.2.1/32 by 198.51.100.1 from " + router, "203.0.113.0/26 by 192.0.2.1 from " + router,
		}, nil, nil, false, ""},

		{"a node that is silent stays", mesh, nil, []string{"10.244.2.0/24 by 192.0.2.2"}, []string{"192.0.2.2"}, true, "10.244.2.0/24 by 192.0.2.2"},
		{"at its new address", mesh, nil, []string{"10.244.2.0/24 by 192.0.2.77"}, []string{"192.0.2.2"}, true, "10.244.2.0/24 by 192.0.2.2"},
		{"a node that has told and does not say so", mesh, nil, []string{"10.244.2.0/24 by 192.0.2.2"}, []string{"192.0.2.3"}, false, ""},
		{"a node that is gone", mesh, nil, []string{"10.244.4.0/24 by 192.0.2.4"}, []string{"192.0.2.2", "192.0.2.3", router}, false, ""},
		{"silent, and was not there before", mesh, nil, nil, []string{"192.0.2.2"}, false, ""},
		{"while the reflector is silent", reflected, nil, []string{"10.244.3.0/24 by 192.0.2.3"}, []string{"192.0.2.2"}, true, "10.244.3.0/24 by 192.0.2.3"},
		{"when the reflector has just told", reflected, nil, []string{"10.244.3.0/24 by 192.0.2.3"}, []string{"just now"}, true, "10.244.3.0/24 by 192.0.2.3"},
		{"when the reflector has told", reflected, nil, []string{"10.244.3.0/24 by 192.0.2.3"}, nil, true, ""},
		{"while the router is silent", mesh, nil, []string{"203.0.113.0/25 by 198.51.100.1"}, []string{router}, false, "203.0.113.0/25 by 198.51.100.1 outside"},
		{"when the router has told", mesh, nil, []string{"203.0.113.0/25 by 198.51.100.1"}, nil, false, ""},
		{"when the router was silent for long", mesh, nil, []string{"203.0.113.0/25 by 198.51.100.1"}, []string{router}, true, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := settings.Default().BGP
			s.Peers = []settings.Peer{{Address: netip.MustParseAddr(router), ASN: 64513, Port: 179}}
			c := chooser{
				plan: makePlan("n1", test.nodes, s), services: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")},
				podNetworks: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}, offered: []netip.Addr{netip.MustParseAddr("203.0.113.5")},
				told: func(a netip.Addr, ago time.Duration) bool {
					return !slices.Contains(test.silent, a.String()) && (ago == 0 || !slices.Contains(test.silent, "just now"))
				},
				waiting: !test.settled,
			}
			all, before := map[netip.Prefix][]heard{}, map[netip.Prefix]routes.Path{}
			for _, text := range test.heard {
				way, from, _ := strings.Cut(text, " from ")
				h := heard{path(way), netip.MustParseAddr(from)}
				all[h.Destination] = append(all[h.Destination], h)
			}
			for _, text := range test.before {
				before[path(text).Destination] = path(text)
			}
			var got []string
			for _, p := range c.choose(all, before) {
				text := fmt.Sprintf("%s by %s", p.Destination, p.NextHop)
				if p.Outside {
					text += " outside"
				}
				got = append(got, text)
			}
			if text := strings.Join(got, ", "); text != test.want {
				t.Errorf("got  %s\nwant %s", text, test.want)
			}
		})
	}
}
