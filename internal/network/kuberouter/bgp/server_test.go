package bgp

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"k0s.io/k0s/internal/network/kuberouter/settings"
)

// speaking is a speaker at 127.77.0.I, whose pods are 10.244.I.0/24.
type speaking struct {
	*speaker
	t       *testing.T
	plan    plan
	offers  map[netip.Prefix]netip.Addr
	changed chan struct{}
}

func newSpeaking(t *testing.T, i int, port uint16) *speaking {
	t.Helper()
	own := netip.AddrFrom4([4]byte{127, 77, 0, byte(i)})
	s := &speaking{t: t, changed: make(chan struct{}, 1)}
	s.speaker = &speaker{
		settings: settings.Default().BGP, families: []bgp.Family{bgp.RF_IPv4_UC, bgp.RF_IPv6_UC},
		podNetworks: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00::/16")},
		log:         slog.New(slog.NewTextHandler(t.Output(), nil)), sessions: map[netip.Addr]*session{},
		changed: func() {
			select {
			case s.changed <- struct{}{}:
			default:
			}
		},
	}
	s.settings.Port, s.settings.AdvertiseClusterIP = port, true
	s.plan = plan{asn: 64512, routerID: own, listen: []netip.Addr{own}, peers: map[netip.Addr]peer{}}
	s.offers = map[netip.Prefix]netip.Addr{
		netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", i)): own,
		netip.MustParsePrefix(fmt.Sprintf("fd00:%d::/64", i)):   netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", i)),
		netip.MustParsePrefix(fmt.Sprintf("10.96.0.%d/32", i)):  own,
	}
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// knows makes others its peers, as nodes or with a name of "" as routers outside of the cluster.
func (s *speaking) knows(node string, others ...*speaking) {
	for _, o := range others {
		p := peer{node: node, Peer: settings.Peer{Address: o.plan.routerID, ASN: o.plan.asn, Port: o.settings.Port, LocalAddress: s.plan.routerID}}
		s.plan.peers[p.Address] = p
	}
}

// reflects makes it the reflector of others.
func (s *speaking) reflects(clients ...*speaking) {
	s.plan.reflector = true
	s.knows("client", clients...)
	for address, p := range s.plan.peers {
		p.client = netip.MustParseAddr("0.0.0.42")
		s.plan.peers[address] = p
	}
	for _, c := range clients {
		c.knows("reflector", s)
	}
}

func (s *speaking) follow(restarted bool) {
	s.t.Helper()
	if err := s.apply(s.t.Context(), s.plan, s.offers, restarted); err != nil {
		s.t.Fatal(err)
	}
}

// hears waits until it knows exactly these ways: DESTINATION by HOP from PEER.
func (s *speaking) hears(want ...string) {
	s.t.Helper()
	s.until(fmt.Sprintf("hear %q", want), func() string {
		all, err := s.heard()
		if err != nil {
			return err.Error()
		}
		var got []string
		for _, ways := range all {
			for _, h := range ways {
				got = append(got, fmt.Sprintf("%s by %s from %s", h.Destination, h.NextHop, h.from))
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			return fmt.Sprintf("it hears %q", got)
		}
		return ""
	})
}

// until waits for what says an empty string: what is missing otherwise.
func (s *speaking) until(what string, missing func() string) {
	s.t.Helper()
	limit := time.After(30 * time.Second)
	for {
		text := missing()
		if text == "" {
			return
		}
		select {
		case <-s.changed:
		case <-limit:
			s.t.Fatalf("it does not %s: %s", what, text)
		}
	}
}

// freePort is one that nobody listens on.
func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.77.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return netip.MustParseAddrPort(l.Addr().String()).Port()
}

func TestSpeakers(t *testing.T) {
	port := freePort(t)
	one, two, router := newSpeaking(t, 1, port), newSpeaking(t, 2, port), newSpeaking(t, 3, port)
	router.plan.asn = 64513
	one.knows("n2", two)
	one.knows("", router)
	two.knows("n1", one)
	router.knows("", one)
	one.plan.communities, one.plan.prependASN, one.plan.prependTimes = []string{"64512:100"}, 64600, 2
	for _, s := range []*speaking{one, two, router} {
		s.follow(false)
	}
	// Nodes tell nodes of pods only, routers of services, too, and nobody what others have said.
	two.hears("10.244.1.0/24 by 127.77.0.1 from 127.77.0.1", "fd00:1::/64 by 2001:db8::1 from 127.77.0.1")
	router.hears("10.244.1.0/24 by 127.77.0.1 from 127.77.0.1", "fd00:1::/64 by 2001:db8::1 from 127.77.0.1", "10.96.0.1/32 by 127.77.0.1 from 127.77.0.1")
	one.hears("10.244.2.0/24 by 127.77.0.2 from 127.77.0.2", "fd00:2::/64 by 2001:db8::2 from 127.77.0.2",
		"10.244.3.0/24 by 127.77.0.3 from 127.77.0.3", "fd00:3::/64 by 2001:db8::3 from 127.77.0.3", "10.96.0.3/32 by 127.77.0.3 from 127.77.0.3")
	if text := attributes(t, router, "10.96.0.1/32"); !strings.Contains(text, "64600 64600 64512") || !strings.Contains(text, "64512:100") {
		t.Errorf("the router was told %s", text)
	}
	if text := attributes(t, two, "10.244.1.0/24"); strings.Contains(text, "64600") || strings.Contains(text, "64512:100") {
		t.Errorf("a node was told %s", text)
	}
	two.until("be told all", func() string { return unless(two.hasTold(one.plan.routerID, 0), "not yet") })

	// What is withdrawn goes; other attributes are told at once.
	delete(one.offers, netip.MustParsePrefix("10.96.0.1/32"))
	one.offers[netip.MustParsePrefix("10.96.0.11/32")] = one.plan.routerID
	one.plan.communities = []string{"64512:200"}
	one.follow(false)
	router.hears("10.244.1.0/24 by 127.77.0.1 from 127.77.0.1", "fd00:1::/64 by 2001:db8::1 from 127.77.0.1", "10.96.0.11/32 by 127.77.0.1 from 127.77.0.1")
	router.until("be told the new community", func() string {
		text := attributes(t, router, "10.244.1.0/24")
		return unless(strings.Contains(text, "64512:200") && !strings.Contains(text, "64512:100"), text)
	})
	sessions, err := one.list(t.Context())
	if err != nil || len(sessions) != 2 || sessions[0].State != "established" || sessions[0].Received != 2 || sessions[0].Advertised != 2 || sessions[1].Advertised != 3 {
		t.Errorf("sessions: %+v, %v", sessions, err)
	}

	// Stopped, it is remembered, and when it is there again, too.
	if err := one.stop(); err != nil {
		t.Fatal(err)
	}
	two.until("miss it", func() string { return unless(!two.hasTold(one.plan.routerID, 0), "it is there") })
	two.hears("10.244.1.0/24 by 127.77.0.1 from 127.77.0.1", "fd00:1::/64 by 2001:db8::1 from 127.77.0.1")
	delete(one.offers, netip.MustParsePrefix("fd00:1::/64")) // what it no longer says goes then
	one.follow(true)
	two.until("be told all again", func() string { return unless(two.hasTold(one.plan.routerID, 0), "not yet") })
	two.hears("10.244.1.0/24 by 127.77.0.1 from 127.77.0.1")

	// A peer that is none any more is forgotten at once.
	delete(two.plan.peers, one.plan.routerID)
	two.plan.peers[router.plan.routerID] = peer{Peer: settings.Peer{Address: router.plan.routerID, ASN: 64513, Port: port}}
	two.follow(false)
	two.hears()
}

// TestReflection: two clients know each other by their reflector only.
// Each table costs 200 KiB, and the library makes one for each family that it knows, unless told of those in use.
func TestTables(t *testing.T) {
	port := freePort(t)
	s := newSpeaking(t, 1, port)
	s.knows("b", newSpeaking(t, 2, port)) // alone it does not speak
	s.follow(false)
	for family, wanted := range map[bgp.Family]bool{bgp.RF_IPv4_UC: true, bgp.RF_IPv6_UC: true, bgp.RF_IPv4_VPN: false, bgp.RF_EVPN: false} {
		_, err := s.server.GetTable(t.Context(), &api.GetTableRequest{
			TableType: api.TableType_TABLE_TYPE_GLOBAL,
			Family:    &api.Family{Afi: api.Family_Afi(family.Afi()), Safi: api.Family_Safi(family.Safi())},
		})
		if (err == nil) != wanted {
			t.Errorf("the table for %s: %v", family, err)
		}
	}
}

func TestReflection(t *testing.T) {
	port := freePort(t)
	reflector, one, two := newSpeaking(t, 1, port), newSpeaking(t, 2, port), newSpeaking(t, 3, port)
	reflector.reflects(one, two)
	for _, s := range []*speaking{reflector, one, two} {
		s.follow(false)
	}
	one.hears("10.244.1.0/24 by 127.77.0.1 from 127.77.0.1", "fd00:1::/64 by 2001:db8::1 from 127.77.0.1",
		"10.244.3.0/24 by 127.77.0.3 from 127.77.0.1", "fd00:3::/64 by 2001:db8::3 from 127.77.0.1")
}

// A reflector that has restarted tells its clients what it knows although one of them is dead.
func TestReflectorRestartsWithoutAClient(t *testing.T) {
	port := freePort(t)
	reflector, one, two, dead := newSpeaking(t, 1, port), newSpeaking(t, 2, port), newSpeaking(t, 3, port), newSpeaking(t, 4, port)
	reflector.settings.DeferralTime = 2 * time.Second
	reflector.reflects(one, two, dead)
	for _, s := range []*speaking{reflector, one, two} {
		s.follow(true)
	}
	one.hears("10.244.1.0/24 by 127.77.0.1 from 127.77.0.1", "fd00:1::/64 by 2001:db8::1 from 127.77.0.1",
		"10.244.3.0/24 by 127.77.0.3 from 127.77.0.1", "fd00:3::/64 by 2001:db8::3 from 127.77.0.1")
}

func TestDeferral(t *testing.T) {
	node, router := peer{node: "n2"}, peer{}
	for _, tc := range []struct {
		name      string
		setting   time.Duration
		to        peer
		reflector bool
		want      time.Duration
	}{
		{"node to node", 360 * time.Second, node, false, time.Second},
		{"node to router", 360 * time.Second, router, false, time.Second},
		{"reflector to node", 360 * time.Second, node, true, 30 * time.Second},
		{"reflector to node, shorter", 10 * time.Second, node, true, 10 * time.Second},
		{"reflector to router, which hears nothing of others", 360 * time.Second, router, true, time.Second},
	} {
		s := &speaker{settings: settings.BGP{DeferralTime: tc.setting}}
		if got := s.deferral(tc.to, plan{reflector: tc.reflector}); got != tc.want {
			t.Errorf("%s: %s, not %s", tc.name, got, tc.want)
		}
	}
}

// What a peer tells while ways are read does not count: the ways that it told of may not be among them.
func TestToldByNow(t *testing.T) {
	peer := netip.MustParseAddr("192.0.2.1")
	s := &speaker{changed: func() {}, sessions: map[netip.Addr]*session{
		peer: {state: bgp.BGP_FSM_ESTABLISHED, awaited: []bgp.Family{bgp.RF_IPv4_UC}, told: map[bgp.Family]time.Time{}},
	}}
	before := s.toldByNow()
	s.heardEnd(&apiutil.Path{PeerAddress: peer, Family: bgp.RF_IPv4_UC})
	if before(peer, 0) || !s.toldByNow()(peer, 0) {
		t.Error("the state of before has changed, or the new one is not seen")
	}
}

// TestPasswords: nothing is said to one who has another, or who is no peer.
func TestPasswords(t *testing.T) {
	port := freePort(t)
	one, two, stranger := newSpeaking(t, 1, port), newSpeaking(t, 2, port), newSpeaking(t, 3, port)
	withPassword := func(s, of *speaking, password settings.Secret) {
		s.plan.peers = map[netip.Addr]peer{}
		s.knows("node", of)
		p := s.plan.peers[of.plan.routerID]
		p.Password = password
		s.plan.peers[of.plan.routerID] = p
		s.follow(false)
	}
	withPassword(one, two, "right")
	withPassword(two, one, "wrong")
	stranger.knows("node", one)
	stranger.follow(false)
	// Longer than a session takes: what is to be seen is that there is none.
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	<-ctx.Done()
	for _, s := range []*speaking{one, two, stranger} {
		if s.trouble() == nil {
			t.Error("there is a session")
		}
	}
	withPassword(two, one, "right")
	two.hears("10.244.1.0/24 by 127.77.0.1 from 127.77.0.1", "fd00:1::/64 by 2001:db8::1 from 127.77.0.1")
}

func unless(met bool, missing string) string {
	if met {
		return ""
	}
	return missing
}

// attributes puts into words what the best way to a destination comes with.
func attributes(t *testing.T, s *speaking, destination string) string {
	t.Helper()
	var words []string
	for _, a := range best(t, s, netip.MustParsePrefix(destination)) {
		words = append(words, a.String())
	}
	return strings.Join(words, " ")
}

func best(t *testing.T, s *speaking, destination netip.Prefix) []bgp.PathAttributeInterface {
	t.Helper()
	var found []bgp.PathAttributeInterface
	err := s.server.ListPath(apiutil.ListPathRequest{TableType: api.TableType_TABLE_TYPE_GLOBAL, Family: familyOf(destination.Addr())}, func(nlri bgp.NLRI, paths []*apiutil.Path) {
		if p, ok := nlri.(*bgp.IPAddrPrefix); ok && p.Prefix == destination && len(paths) > 0 {
			found = paths[0].Attrs
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestWhatRoutersAreTold: of pods only if wanted, and by the address of the session if wanted.
func TestWhatRoutersAreTold(t *testing.T) {
	port := freePort(t)
	one, router := newSpeaking(t, 1, port), newSpeaking(t, 2, port)
	router.plan.asn = 64513
	one.knows("", router)
	router.knows("", one)
	another := netip.MustParseAddr("192.0.2.1") // of the same node
	for prefix := range one.offers {
		if prefix.Addr().Is4() {
			one.offers[prefix] = another
		}
	}
	one.settings.AdvertisePodCIDR = false
	one.follow(false)
	router.follow(false)
	router.hears("10.96.0.1/32 by 192.0.2.1 from 127.77.0.1")
	one.settings.AdvertisePodCIDR, one.settings.OverrideNextHop = true, true
	one.follow(false)
	router.hears("10.96.0.1/32 by 127.77.0.1 from 127.77.0.1", "10.244.1.0/24 by 127.77.0.1 from 127.77.0.1", "fd00:1::/64 by 2001:db8::1 from 127.77.0.1")
}
