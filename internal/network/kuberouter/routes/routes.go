// Package routes keeps the kernel's routes to the pods of other nodes: plain ones to nodes on the same
// network, and through a tunnel to those behind a router, which need know nothing of pods.
package routes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/journal"
	"k0s.io/k0s/internal/network/kuberouter/tablewatch"
)

// Protocol marks our routes in the kernel: a number that rt_protos gives to nobody.
const Protocol = 107

// Path says that the pods (or other addresses) of Destination are reached by the node address NextHop.
// Both are of one family.
type Path struct {
	Destination netip.Prefix
	NextHop     netip.Addr
	// Outside: the next hop is no node, and knows nothing of our tunnel.
	Outside bool
}

// Overlay is when packets to the pods of other nodes are wrapped into packets between nodes.
type Overlay string

const (
	// Off is never: the routers between the nodes' subnets have to know the pods' networks.
	Off Overlay = "off"
	// Subnet is when the other node is in another subnet.
	Subnet Overlay = "subnet"
	// Full is always.
	Full Overlay = "full"
)

// Options of a Table.
type Options struct {
	// Overlay is Subnet by default.
	Overlay Overlay
	// Encapsulation is that between IPv4 addresses, the same on all nodes; between IPv6 addresses it is VXLAN.
	// Default: IPIP where the kernel has it, else VXLAN.
	Encapsulation Encapsulation
	// Port is the UDP port of VXLAN. Default: DefaultPort.
	Port int
	// Bridge is the interface of this node's pods, and BGPPort where nodes talk BGP to each other: pods may not talk
	// to other nodes there, nor by wrapped packets. Default: nothing is refused.
	Bridge  string
	BGPPort int
	// Journal learns of all that is made in the kernel.
	Journal *journal.Journal
	Log     *slog.Logger
}

// Table is what the kernel should know of the pods of other nodes, and what keeps it so.
type Table struct {
	Options
	changed chan struct{} // holds one
	refused []netip.Prefix

	mu            sync.Mutex
	set           bool
	local, remote []Path
	status        Status
	encapsulation map[int]Encapsulation // by family, once it was needed
}

// Status is what a Table has made of the paths.
type Status struct {
	Overlay Overlay `json:"overlay"`
	// Encapsulation is that in use; empty while no path needs one.
	Encapsulation Encapsulation `json:"encapsulation,omitempty"`
	// Direct, Tunnelled and Elsewhere count the paths: by plain routes, through the tunnel, and by an address in
	// another subnet without the tunnel, which is left to the host's other routes.
	Direct    int `json:"direct"`
	Tunnelled int `json:"tunnelled"`
	Elsewhere int `json:"elsewhere"`
	// Refused counts what routers say of this host's own networks, and of where it has other routes to.
	Refused int `json:"refused,omitempty"`
	// Err is why not all of it is as it should be.
	Err error `json:"-"`
}

// New is a Table that knows no paths yet.
func New(o Options) *Table {
	if o.Overlay == "" {
		o.Overlay = Subnet
	}
	if o.Port == 0 {
		o.Port = DefaultPort
	}
	return &Table{Options: o, changed: make(chan struct{}, 1), encapsulation: map[int]Encapsulation{},
		status: Status{Overlay: o.Overlay}}
}

// Set gives all paths, of both families. The local ones are this node's own: their destinations are its pods,
// their next hops the addresses that other nodes know it by. Before the first Set nothing is touched.
func (t *Table) Set(local, remote []Path) {
	t.mu.Lock()
	t.set, t.local, t.remote = true, slices.Clone(local), slices.Clone(remote)
	t.mu.Unlock()
	t.notify()
}

func (t *Table) notify() {
	select {
	case t.changed <- struct{}{}:
	default: // it will be seen with the change before
	}
}

// Status is how things stand.
func (t *Table) Status() Status {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.status
}

// Run keeps the kernel as Set says until ctx ends, also against others that change it. All of it stays then:
// pods go on talking while k0s restarts.
func (t *Table) Run(ctx context.Context) error {
	if err := t.Journal.Add(journal.Entry{Kind: journal.Routes, Name: fmt.Sprint(Protocol)}); err != nil {
		return err
	}
	stop, failed, err := t.watchKernel()
	if err != nil {
		return err
	}
	defer stop()
	filterFailed, stopFilter, err := tablewatch.Watch(filterTable, t.notify)
	if err != nil {
		return err
	}
	defer stopFilter()
	var backoff component.Backoff
	var again <-chan time.Time // as not everything that was in the way tells when it is gone
	for {
		select {
		case <-again:
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case err := <-filterFailed:
			return err
		case <-t.changed:
		}
		t.mu.Lock()
		set, local, remote := t.set, t.local, t.remote
		t.mu.Unlock()
		if !set {
			continue
		}
		status := t.apply(local, remote)
		t.report(status)
		if again = nil; status.Err != nil {
			again = time.After(backoff.Next(0))
		} else {
			backoff = component.Backoff{}
		}
	}
}

// report keeps the outcome for Status, and logs an error that was not there before.
func (t *Table) report(s Status) {
	s.Overlay = t.Overlay
	t.mu.Lock()
	before := t.status
	t.status = s
	t.mu.Unlock()
	switch {
	case s.Err != nil && (before.Err == nil || before.Err.Error() != s.Err.Error()):
		t.Log.Error("Pods of other nodes cannot be reached as they should", "error", s.Err)
	case s.Err == nil && before.Err != nil:
		t.Log.Info("Pods of other nodes can be reached again")
	}
	if s.Encapsulation != before.Encapsulation && s.Encapsulation != "" {
		t.Log.Info("Pods of other nodes are reached through a tunnel", "encapsulation", s.Encapsulation, "nodes", s.Tunnelled)
	}
}

// reportRefused logs what was not refused before.
func (t *Table) reportRefused(refused []netip.Prefix) {
	for _, destination := range refused {
		if !slices.Contains(t.refused, destination) {
			t.Log.Warn("A router tells the way to a network that this host is in or has a route to of its own, which stays", "network", destination)
		}
	}
	t.refused = refused
}

// route is one of ours as far as it matters.
type route struct {
	destination netip.Prefix
	via         netip.Addr
	link        int
	onlink      bool
}

// apply makes the kernel what the paths say. What is right already is not touched.
func (t *Table) apply(local, remote []Path) Status {
	var s Status
	links, err := subnets()
	if err != nil {
		s.Err = err
		return s
	}
	foreign, err := foreign()
	if err != nil {
		s.Err = err
		return s
	}
	var errs []error
	var refused []netip.Prefix
	wanted := map[netip.Prefix]route{}
	tunnelled := map[int][]Path{}
	others := map[int][]netip.Addr{} // nodes
	for _, p := range remote {
		family := familyOf(p.NextHop)
		if family != familyOf(p.Destination.Addr()) {
			errs = append(errs, fmt.Errorf("the pods of %s cannot be reached by %s: that is an address of the other family; "+
				"a node needs an address of each family that its pods have", p.Destination, p.NextHop))
			continue
		}
		own, isOwn := links.own(p.Destination)
		switch {
		case p.Outside && (isOwn || foreign[p.Destination]):
			refused = append(refused, p.Destination)
			continue
		case isOwn:
			errs = append(errs, fmt.Errorf("the pods of %s by node %s cannot be reached: interface %s of this host has the address %s in that network: "+
				"the networks of pods (spec.network.podCIDR) and of hosts must be apart", p.Destination, p.NextHop, own.link.Name, own.address))
			continue
		}
		if !p.Outside {
			others[family] = append(others[family], p.NextHop)
		}
		link, near := links.to(p.NextHop)
		switch {
		case near && (t.Overlay != Full || p.Outside):
			wanted[p.Destination] = route{p.Destination, p.NextHop, link, false}
			s.Direct++
		case t.Overlay == Off || p.Outside:
			s.Elsewhere++
		default:
			tunnelled[family] = append(tunnelled[family], p)
			s.Tunnelled++
		}
	}
	s.Refused = len(refused)
	t.reportRefused(refused)
	nodes := map[int][]netip.Addr{} // at the other ends of tunnels
	for family, paths := range tunnelled {
		for _, p := range paths {
			nodes[family] = append(nodes[family], p.NextHop)
		}
	}
	for family := range tunnelled {
		if err := t.choose(family); err != nil {
			errs = append(errs, err)
		}
	}
	if len(tunnelled) > 0 {
		errs = append(errs, t.applyFilter(nodes, others)) // before there is what it guards
	}
	for family, paths := range tunnelled {
		if t.encapsulation[family] == "" {
			continue
		}
		link, err := t.applyTunnel(family, local, nodes[family], links)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s.Encapsulation = t.encapsulation[family]
		for _, p := range paths {
			wanted[p.Destination] = route{p.Destination, gateway(p.NextHop), link, family == netlink.FAMILY_V4}
		}
	}
	errs = append(errs, t.applyRoutes(wanted))
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		if len(tunnelled[family]) == 0 {
			errs = append(errs, removeLink(tunnelName(family)))
		}
	}
	if len(tunnelled) == 0 {
		errs = append(errs, t.applyFilter(nil, others))
	}
	s.Err = errors.Join(errs...)
	return s
}

// applyRoutes makes the kernel's routes of our protocol those wanted.
func (t *Table) applyRoutes(wanted map[netip.Prefix]route) error {
	present, err := ours()
	if err != nil {
		return err
	}
	missing := map[netip.Prefix]route{}
	for destination, r := range wanted {
		missing[destination] = r
	}
	var stale []netlink.Route
	for _, p := range present {
		if r := routeOf(p); missing[r.destination] == r {
			delete(missing, r.destination)
		} else {
			stale = append(stale, p)
		}
	}
	var errs []error
	for _, r := range missing {
		n := &netlink.Route{Dst: ipNet(r.destination), Gw: r.via.AsSlice(), LinkIndex: r.link, Protocol: Protocol}
		if r.onlink {
			n.SetFlag(netlink.FLAG_ONLINK)
		}
		if err := netlink.RouteReplace(n); err != nil {
			errs = append(errs, fmt.Errorf("the route to the pods of %s by node %s: %w: is the interface of that network up?", r.destination, r.via, err))
			continue
		}
		t.Log.Debug("New route", "pods", r.destination, "via", r.via, "interface", r.link)
	}
	// One that was replaced is gone already.
	return errors.Join(append(errs, remove(stale))...)
}

// Remove takes all routes back.
func Remove() error {
	present, err := ours()
	if err != nil {
		return err
	}
	return remove(present)
}

// Clear takes back all that tables make: routes, tunnels and their filter.
func Clear() error {
	return errors.Join(Remove(), removeLink(tunnelName(netlink.FAMILY_V4)), removeLink(tunnelName(netlink.FAMILY_V6)), removeFilter())
}

func remove(routes []netlink.Route) error {
	var errs []error
	for _, r := range routes {
		if err := netlink.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("removing the route to %s: %w", r.Dst, err))
		}
	}
	return errors.Join(errs...)
}

// ours are the routes of our protocol.
func ours() ([]netlink.Route, error) {
	routes, err := dump(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Protocol: Protocol}, netlink.RT_FILTER_PROTOCOL)
	})
	if err != nil {
		return nil, fmt.Errorf("listing routes: %w", err)
	}
	return routes, nil
}

// foreign are the destinations of all routes but ours.
func foreign() (map[netip.Prefix]bool, error) {
	routes, err := dump(func() ([]netlink.Route, error) { return netlink.RouteList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("listing routes: %w", err)
	}
	destinations := map[netip.Prefix]bool{}
	for _, r := range routes {
		if r.Protocol != Protocol {
			destinations[prefixOf(r.Dst)] = true
		}
	}
	return destinations, nil
}

func routeOf(r netlink.Route) route {
	return route{prefixOf(r.Dst), addrOf(r.Gw), r.LinkIndex, r.Flags&int(netlink.FLAG_ONLINK) != 0}
}
