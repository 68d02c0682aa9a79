package bgp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/config/oc"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"
	"golang.org/x/sys/unix"

	"k0s.io/k0s/internal/network/kuberouter/routes"
	"k0s.io/k0s/internal/network/kuberouter/settings"
)

// identity is what a speaker cannot change while it runs.
type identity struct {
	asn      uint32
	routerID netip.Addr
	listen   []netip.Addr
}

// session is how things stand with a peer.
type session struct {
	state bgp.FSMState
	since time.Time
	// awaited are the families of which the peer says when it has told all, told those of which it has.
	awaited []bgp.Family
	told    map[bgp.Family]time.Time
}

// speaker is GoBGP, told what to be. It is not running until there is somebody to talk to.
type speaker struct {
	settings settings.BGP
	families []bgp.Family
	// podNetworks are those of all nodes.
	podNetworks []netip.Prefix
	// changed is called whenever something was heard.
	changed func()
	log     *slog.Logger

	server   *server.BgpServer // nil while it is not running
	identity identity
	stopping context.CancelFunc
	ended    *atomic.Bool
	peers    map[netip.Addr]peer
	offers   map[netip.Prefix]netip.Addr // what it tells others, by which next hop
	policies []*api.DefinedSet           // and the policy made of them
	policy   *api.Policy

	mu       sync.Mutex
	sessions map[netip.Addr]*session
}

// apply makes the speaker what the plan says. restarted: peers may still have routes of a speaker before this
// one, which they are to keep.
func (s *speaker) apply(ctx context.Context, p plan, offers map[netip.Prefix]netip.Addr, restarted bool) error {
	wanted := identity{p.asn, p.routerID, p.listen}
	if s.server != nil && (len(p.peers) == 0 || !reflect.DeepEqual(s.identity, wanted)) {
		restarted = true
		if err := s.stop(); err != nil {
			return err
		}
	}
	if len(p.peers) == 0 {
		return nil
	}
	began := s.server == nil
	if began {
		if err := s.start(ctx, wanted); err != nil {
			return err
		}
	}
	var errs []error
	changed, err := s.applyPolicy(ctx, p)
	if err != nil {
		return err
	}
	errs = append(errs, s.applyOffers(offers))
	for address, before := range s.peers {
		if now, stays := p.peers[address]; !stays || now != before {
			errs = append(errs, s.removePeer(ctx, before))
		}
	}
	for address, now := range p.peers {
		if _, there := s.peers[address]; !there {
			errs = append(errs, s.addPeer(ctx, now, p, began && restarted))
		}
	}
	if changed && !began {
		errs = append(errs, s.server.ResetPeer(ctx, &api.ResetPeerRequest{Address: "all", Soft: true, Direction: api.ResetPeerRequest_DIRECTION_OUT}))
	}
	return errors.Join(errs...)
}

func (s *speaker) start(ctx context.Context, id identity) error {
	s.ended = &atomic.Bool{}
	s.server = server.NewBgpServer(server.LoggerOption(slog.New(quiet{s.log.Handler(), s.ended}), &slog.LevelVar{}))
	s.identity, s.peers, s.offers, s.policy, s.policies = id, map[netip.Addr]peer{}, map[netip.Prefix]netip.Addr{}, nil, nil
	go s.server.Serve()
	global := &api.Global{Asn: id.asn, RouterId: id.routerID.String(), ListenPort: int32(s.settings.Port)}
	for _, f := range s.families { // else it makes tables for the thirty that it knows, which take 10 MiB
		global.Families = append(global.Families, uint32(oc.AfiSafiType(f.String()).ToInt()))
	}
	for _, address := range id.listen {
		global.ListenAddresses = append(global.ListenAddresses, address.String())
	}
	err := s.server.StartBgp(ctx, &api.StartBgpRequest{Global: global})
	if err != nil {
		err = fmt.Errorf("listening for BGP on port %d of %s: %w", s.settings.Port, strings.Join(global.ListenAddresses, " and "), err)
	} else {
		watching, cancel := context.WithCancel(context.WithoutCancel(ctx))
		s.stopping = cancel
		err = s.server.WatchEvent(watching, server.WatchEventMessageCallbacks{
			OnBestPath:   func([]*apiutil.Path, time.Time) { s.changed() },
			OnPeerUpdate: func(e *apiutil.WatchEventMessage_PeerEvent, at time.Time) { s.heardOf(e.Peer, at) },
			OnPathEor:    func(end *apiutil.Path, _ time.Time) { s.heardEnd(end) },
		}, server.WatchBestPath(false), server.WatchPeer(), server.WatchEor(false))
	}
	if err != nil {
		return errors.Join(err, s.stop())
	}
	s.log.Info("Speaking BGP", "asn", id.asn, "id", id.routerID, "addresses", global.ListenAddresses, "port", s.settings.Port)
	return nil
}

// stop ends all sessions: with graceful restart so that the peers keep what they were told for a while.
func (s *speaker) stop() error {
	if s.server == nil {
		return nil
	}
	s.mu.Lock()
	s.sessions = map[netip.Addr]*session{}
	s.mu.Unlock()
	err := s.server.StopBgp(context.Background(), &api.StopBgpRequest{AllowGracefulRestart: s.settings.GracefulRestart})
	s.ended.Store(true)
	s.server.Stop() // what BGP is not; it complains that BGP has stopped
	if s.stopping != nil {
		s.stopping()
	}
	s.server, s.stopping = nil, nil
	return err
}

func (s *speaker) addPeer(ctx context.Context, p peer, of plan, restarted bool) error {
	if p.Password != "" {
		if err := checkPasswords(); err != nil {
			return fmt.Errorf("no session with %s: %w", p.Address, err)
		}
	}
	n := &api.Peer{
		Conf: &api.PeerConf{
			NeighborAddress: p.Address.String(), PeerAsn: p.ASN, AuthPassword: string(p.Password), Description: p.node,
		},
		Timers: &api.Timers{Config: &api.TimersConfig{
			HoldTime: uint64(s.settings.HoldTime / time.Second), KeepaliveInterval: uint64(s.settings.HoldTime / time.Second / 3),
			ConnectRetry: 5, IdleHoldTimeAfterReset: 1,
		}},
		Transport: &api.Transport{RemotePort: uint32(p.Port)},
		GracefulRestart: &api.GracefulRestart{
			Enabled: s.settings.GracefulRestart, RestartTime: uint32(s.settings.RestartTime / time.Second),
			DeferralTime: uint32(s.deferral(p, of) / time.Second), LocalRestarting: s.settings.GracefulRestart && restarted,
		},
	}
	if p.LocalAddress.IsValid() {
		n.Transport.LocalAddress = p.LocalAddress.String()
	}
	if p.TTL > 1 && p.ASN != of.asn {
		n.EbgpMultihop = &api.EbgpMultihop{Enabled: true, MultihopTtl: uint32(p.TTL)}
	}
	if p.client.IsValid() {
		n.RouteReflector = &api.RouteReflector{RouteReflectorClient: true, RouteReflectorClusterId: p.client.String()}
	}
	for _, family := range s.families {
		n.AfiSafis = append(n.AfiSafis, &api.AfiSafi{
			Config:            &api.AfiSafiConfig{Family: apiFamily(family), Enabled: true},
			MpGracefulRestart: &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: s.settings.GracefulRestart}},
		})
	}
	s.mu.Lock()
	s.sessions[p.Address] = &session{since: time.Now(), told: map[bgp.Family]time.Time{}}
	s.mu.Unlock()
	if err := s.server.AddPeer(ctx, &api.AddPeerRequest{Peer: n}); err != nil {
		return fmt.Errorf("adding the peer %s: %w", p.Address, err)
	}
	s.peers[p.Address] = p
	return nil
}

// reflectorDeferral is longer than a k0s takes to be back: a node whose k0s restarts with the reflector's keeps its
// routes. One that takes longer has booted, with no pod left that anybody may talk to.
const reflectorDeferral = 30 * time.Second

// deferral is how long a speaker that has restarted waits for all others before it tells a peer anything, unless
// they are all there: a single one that is dead keeps it waiting.
func (s *speaker) deferral(p peer, of plan) time.Duration {
	if !of.reflector || p.node == "" {
		return time.Second // there is nothing to wait for: what this peer is told is the node's own
	}
	return min(s.settings.DeferralTime, reflectorDeferral)
}

func (s *speaker) removePeer(ctx context.Context, p peer) error {
	delete(s.peers, p.Address)
	s.mu.Lock()
	delete(s.sessions, p.Address)
	s.mu.Unlock()
	if err := s.server.DeletePeer(ctx, &api.DeletePeerRequest{Address: p.Address.String()}); err != nil {
		return fmt.Errorf("removing the peer %s: %w", p.Address, err)
	}
	return nil
}

// checkPasswords tells whether this kernel can check passwords of TCP connections.
func checkPasswords() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // it was never connected
	key := &unix.TCPMD5Sig{Keylen: 1}
	key.Addr.Family = unix.AF_INET
	if err := unix.SetsockoptTCPMD5Sig(fd, unix.IPPROTO_TCP, unix.TCP_MD5SIG, key); err != nil {
		return fmt.Errorf("this kernel cannot check passwords of TCP connections (%w): it needs CONFIG_TCP_MD5SIG, and not be in FIPS mode", err)
	}
	return nil
}

// Names in GoBGP's policy.
const (
	setNodes    = "nodes"
	setPods4    = "pods4"
	setPods6    = "pods6"
	setOutside4 = "outside4"
	setOutside6 = "outside6"
	policyName  = "tell"
	globalTable = "global"
)

// applyPolicy says who is told what: nodes of pods only, routers outside of the cluster only of this node's
// pods and services. It tells whether peers may have to be told something else now.
func (s *speaker) applyPolicy(ctx context.Context, p plan) (changed bool, err error) {
	sets, policy := s.exports(p)
	if reflect.DeepEqual(sets, s.policies) && reflect.DeepEqual(policy, s.policy) {
		return false, nil
	}
	first := s.policy == nil
	// A policy of no statements is none: the default holds.
	if err := s.server.SetPolicies(ctx, &api.SetPoliciesRequest{DefinedSets: sets, Policies: []*api.Policy{policy}}); err != nil {
		return false, fmt.Errorf("setting GoBGP's policy: %w", err)
	}
	if first {
		for _, a := range []*api.PolicyAssignment{
			{Name: globalTable, Direction: api.PolicyDirection_POLICY_DIRECTION_EXPORT, Policies: []*api.Policy{{Name: policyName}}, DefaultAction: api.RouteAction_ROUTE_ACTION_REJECT},
			{Name: globalTable, Direction: api.PolicyDirection_POLICY_DIRECTION_IMPORT, DefaultAction: api.RouteAction_ROUTE_ACTION_ACCEPT},
		} {
			if err := s.server.SetPolicyAssignment(ctx, &api.SetPolicyAssignmentRequest{Assignment: a}); err != nil {
				return false, fmt.Errorf("assigning GoBGP's policy: %w", err)
			}
		}
	}
	changed = !reflect.DeepEqual(policy, s.policy)
	s.policies, s.policy = sets, policy
	return changed, nil
}

func (s *speaker) exports(p plan) ([]*api.DefinedSet, *api.Policy) {
	members := map[string][]string{}
	for _, peer := range p.peers {
		set := setNodes
		switch {
		case peer.node != "":
		case peer.Address.Is4():
			set = setOutside4
		default:
			set = setOutside6
		}
		members[set] = append(members[set], netip.PrefixFrom(peer.Address, peer.Address.BitLen()).String())
	}
	var sets []*api.DefinedSet
	for _, name := range []string{setNodes, setOutside4, setOutside6} {
		if slices.Sort(members[name]); len(members[name]) > 0 {
			sets = append(sets, &api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_NEIGHBOR, Name: name, List: members[name]})
		}
	}
	var pods []string // the sets of them
	for _, name := range []string{setPods4, setPods6} {
		set := &api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_PREFIX, Name: name}
		for _, network := range s.podNetworks {
			if network.Addr().Is4() == (name == setPods4) {
				set.Prefixes = append(set.Prefixes, &api.Prefix{IpPrefix: network.String(), MaskLengthMin: uint32(network.Bits()), MaskLengthMax: uint32(network.Addr().BitLen())})
			}
		}
		if len(set.Prefixes) > 0 {
			sets = append(sets, set)
			pods = append(pods, name)
		}
	}
	anyOf := func(name string) *api.MatchSet { return &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: name} }
	policy := &api.Policy{Name: policyName}
	say := func(c *api.Conditions, a *api.Actions) {
		policy.Statements = append(policy.Statements, &api.Statement{Name: fmt.Sprintf("%s-%d", policyName, len(policy.Statements)), Conditions: c, Actions: a})
	}
	accept := func() *api.Actions { return &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_ACCEPT} }
	ours := api.Conditions_ROUTE_TYPE_LOCAL
	if p.reflector {
		ours = api.Conditions_ROUTE_TYPE_UNSPECIFIED
	}
	for _, name := range pods {
		if len(members[setNodes]) > 0 {
			say(&api.Conditions{NeighborSet: anyOf(setNodes), PrefixSet: anyOf(name), RouteType: ours}, accept())
		}
	}
	for _, set := range []string{setOutside4, setOutside6} {
		if len(members[set]) == 0 {
			continue
		}
		if !s.settings.AdvertisePodCIDR {
			for _, name := range pods {
				say(&api.Conditions{NeighborSet: anyOf(set), PrefixSet: anyOf(name)}, &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_REJECT})
			}
		}
		for _, family := range s.families {
			a := accept()
			if len(p.communities) > 0 {
				a.Community = &api.CommunityAction{Type: api.CommunityAction_TYPE_ADD, Communities: p.communities}
			}
			if p.prependTimes > 0 {
				a.AsPrepend = &api.AsPrependAction{Asn: p.prependASN, Repeat: p.prependTimes}
			}
			// The address of a session is none for destinations of the other family.
			if s.settings.OverrideNextHop && (family == bgp.RF_IPv4_UC) == (set == setOutside4) {
				a.Nexthop = &api.NexthopAction{Self: true}
			}
			say(&api.Conditions{NeighborSet: anyOf(set), AfiSafiIn: []*api.Family{apiFamily(family)}, RouteType: api.Conditions_ROUTE_TYPE_LOCAL}, a)
		}
	}
	return sets, policy
}

// applyOffers makes what the speaker tells others of its own what is wanted.
func (s *speaker) applyOffers(wanted map[netip.Prefix]netip.Addr) error {
	var errs []error
	for prefix, nextHop := range s.offers {
		if now, stays := wanted[prefix]; stays && now == nextHop {
			continue
		} else if stays {
			delete(s.offers, prefix) // it is replaced
			continue
		}
		path, err := newPath(prefix, nextHop)
		if err == nil {
			err = s.server.DeletePath(apiutil.DeletePathRequest{Paths: []*apiutil.Path{path}})
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("withdrawing %s: %w", prefix, err))
			continue
		}
		delete(s.offers, prefix)
	}
	for prefix, nextHop := range wanted {
		if _, there := s.offers[prefix]; there {
			continue
		}
		path, err := newPath(prefix, nextHop)
		if err == nil {
			_, err = s.server.AddPath(apiutil.AddPathRequest{Paths: []*apiutil.Path{path}})
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("advertising %s: %w", prefix, err))
			continue
		}
		s.offers[prefix] = nextHop
	}
	return errors.Join(errs...)
}

func newPath(prefix netip.Prefix, nextHop netip.Addr) (*apiutil.Path, error) {
	nlri, err := bgp.NewIPAddrPrefix(prefix)
	if err != nil {
		return nil, err
	}
	path := &apiutil.Path{Family: familyOf(prefix.Addr()), Nlri: nlri, Age: time.Now().Unix()}
	const originIGP = 0
	var hop bgp.PathAttributeInterface
	if prefix.Addr().Is4() {
		hop, err = bgp.NewPathAttributeNextHop(nextHop)
	} else {
		hop, err = bgp.NewPathAttributeMpReachNLRI(path.Family, []bgp.PathNLRI{{NLRI: nlri}}, nextHop)
	}
	path.Attrs = []bgp.PathAttributeInterface{bgp.NewPathAttributeOrigin(originIGP), hop}
	return path, err
}

// heard lists what the peers say, by destination in the order of preference.
func (s *speaker) heard() (map[netip.Prefix][]heard, error) {
	all := map[netip.Prefix][]heard{}
	if s.server == nil {
		return all, nil
	}
	for _, family := range s.families {
		err := s.server.ListPath(apiutil.ListPathRequest{TableType: api.TableType_TABLE_TYPE_GLOBAL, Family: family}, func(nlri bgp.NLRI, paths []*apiutil.Path) {
			prefix, ok := nlri.(*bgp.IPAddrPrefix)
			if !ok {
				return
			}
			destination := prefix.Prefix.Masked()
			for _, path := range paths {
				if hop := nextHop(path); path.PeerAddress.IsValid() && hop.IsValid() && !path.Withdrawal {
					all[destination] = append(all[destination], heard{routes.Path{Destination: destination, NextHop: hop}, path.PeerAddress})
				}
			}
		})
		if err != nil {
			return nil, fmt.Errorf("reading what peers say: %w", err)
		}
	}
	return all, nil
}

func nextHop(path *apiutil.Path) netip.Addr {
	for _, a := range path.Attrs {
		switch a := a.(type) {
		case *bgp.PathAttributeNextHop:
			return a.Value.Unmap()
		case *bgp.PathAttributeMpReachNLRI:
			return a.Nexthop.Unmap()
		}
	}
	return netip.Addr{}
}

// heardOf notes how a session stands.
func (s *speaker) heardOf(p apiutil.Peer, at time.Time) {
	address := p.State.NeighborAddress
	s.mu.Lock()
	known, ok := s.sessions[address]
	if !ok || known.state == p.State.SessionState {
		s.mu.Unlock()
		return
	}
	was := known.state
	known.state, known.since = p.State.SessionState, at
	known.awaited = s.saysEnd(p.State.RemoteCap)
	if was == bgp.BGP_FSM_ESTABLISHED {
		known.told = map[bgp.Family]time.Time{}
	}
	s.mu.Unlock()
	switch {
	case p.State.SessionState == bgp.BGP_FSM_ESTABLISHED:
		s.log.Info("BGP session is established", "peer", address, "asn", p.State.PeerASN)
		time.AfterFunc(hearsay, s.changed)
	case was == bgp.BGP_FSM_ESTABLISHED:
		s.log.Warn("BGP session has ended", "peer", address, "reason", p.State.DisconnectMessage)
	default:
		return
	}
	s.changed()
}

// heardEnd notes that a peer has told all that it knows of a family.
func (s *speaker) heardEnd(end *apiutil.Path) {
	s.mu.Lock()
	if known, ok := s.sessions[end.PeerAddress]; ok {
		known.told[end.Family] = time.Now()
	}
	s.mu.Unlock()
	s.changed()
	time.AfterFunc(hearsay, s.changed)
}

// hasTold tells whether a peer is there and has told all it knows, for that long at least.
func (s *speaker) hasTold(address netip.Addr, ago time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, ok := s.sessions[address]
	if !ok || known.state != bgp.BGP_FSM_ESTABLISHED || time.Since(known.since) < ago {
		return false
	}
	return !slices.ContainsFunc(known.awaited, func(f bgp.Family) bool {
		at, told := known.told[f]
		return !told || time.Since(at) < ago
	})
}

// toldByNow is hasTold as it is now, whatever the peers tell from now on.
func (s *speaker) toldByNow() func(address netip.Addr, ago time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := &speaker{sessions: map[netip.Addr]*session{}}
	for address, known := range s.sessions {
		now.sessions[address] = &session{state: known.state, since: known.since, awaited: known.awaited, told: maps.Clone(known.told)}
	}
	return now.hasTold
}

// trouble tells whether there are peers, and none of them is there.
func (s *speaker) trouble() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, known := range s.sessions {
		if known.state == bgp.BGP_FSM_ESTABLISHED {
			return nil
		}
	}
	if len(s.sessions) == 0 {
		return nil
	}
	return fmt.Errorf("no BGP session with any of %d peers: does a firewall let TCP port %d pass?", len(s.sessions), s.settings.Port)
}

// saysEnd lists the families of which a peer with these capabilities says when it has told all.
func (s *speaker) saysEnd(capabilities []bgp.ParameterCapabilityInterface) []bgp.Family {
	var families []bgp.Family
	graceful := false
	for _, c := range capabilities {
		switch c := c.(type) {
		case *bgp.CapGracefulRestart:
			graceful = true
		case *bgp.CapMultiProtocol:
			if slices.Contains(s.families, c.CapValue) {
				families = append(families, c.CapValue)
			}
		}
	}
	if !graceful || !s.settings.GracefulRestart {
		return nil
	}
	return families
}

// Session is how things stand with a peer.
type Session struct {
	// Peer is its address, Node its name if it is a node.
	Peer netip.Addr `json:"peer"`
	Node string     `json:"node,omitempty"`
	ASN  uint32     `json:"asn"`
	// State is idle, connect, active, opensent, openconfirm or established.
	State string    `json:"state"`
	Since time.Time `json:"since"`
	// Received and Advertised count routes of both families.
	Received   uint64 `json:"received"`
	Advertised uint64 `json:"advertised"`
}

// list returns the sessions in the order of their addresses.
func (s *speaker) list(ctx context.Context) ([]Session, error) {
	if s.server == nil {
		return nil, nil
	}
	counts := map[string][2]uint64{}
	err := s.server.ListPeer(ctx, &api.ListPeerRequest{EnableAdvertised: true}, func(p *api.Peer) {
		var received, advertised uint64
		for _, family := range p.AfiSafis {
			received += family.GetState().GetReceived()
			advertised += family.GetState().GetAdvertised()
		}
		counts[p.GetConf().GetNeighborAddress()] = [2]uint64{received, advertised}
	})
	if err != nil {
		return nil, fmt.Errorf("listing BGP sessions: %w", err)
	}
	var all []Session
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, address := range slices.SortedFunc(maps.Keys(s.sessions), netip.Addr.Compare) {
		known, count := s.sessions[address], counts[address.String()]
		all = append(all, Session{
			Peer: address, Node: s.peers[address].node, ASN: s.peers[address].ASN,
			State: strings.ToLower(strings.TrimPrefix(known.state.String(), "BGP_FSM_")), Since: known.since,
			Received: count[0], Advertised: count[1],
		})
	}
	return all, nil
}

func familyOf(a netip.Addr) bgp.Family {
	if a.Is4() {
		return bgp.RF_IPv4_UC
	}
	return bgp.RF_IPv6_UC
}

func apiFamily(f bgp.Family) *api.Family {
	if f == bgp.RF_IPv4_UC {
		return &api.Family{Afi: api.Family_AFI_IP, Safi: api.Family_SAFI_UNICAST}
	}
	return &api.Family{Afi: api.Family_AFI_IP6, Safi: api.Family_SAFI_UNICAST}
}

// quiet is GoBGP's log: what matters of it is said in our own words, the rest is for --debug.
type quiet struct {
	slog.Handler
	ended *atomic.Bool // from then on nothing matters
}

// Handle passes warnings of what has failed, and nothing else, above the debug level.
func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	if q.ended.Load() {
		return nil
	}
	failed := r.Level == slog.LevelWarn && strings.HasPrefix(strings.ToLower(r.Message), "failed")
	if r.Level < slog.LevelError && !failed {
		r.Level = slog.LevelDebug
	}
	if !q.Enabled(ctx, r.Level) {
		return nil
	}
	return q.Handler.Handle(ctx, r)
}

// WithAttrs keeps it quiet.
func (q quiet) WithAttrs(attrs []slog.Attr) slog.Handler {
	return quiet{q.Handler.WithAttrs(attrs), q.ended}
}

// WithGroup keeps it quiet.
func (q quiet) WithGroup(name string) slog.Handler { return quiet{q.Handler.WithGroup(name), q.ended} }
