// Package bgp tells other nodes and routers outside of the cluster where this node's pods and services are,
// and learns from them where theirs are.
package bgp

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"k0s.io/k0s/internal/network/kuberouter/routes"
	"k0s.io/k0s/internal/network/kuberouter/settings"
)

// Options of a Speaker.
type Options struct {
	Client kubernetes.Interface
	// NodeName is this node.
	NodeName string
	Settings settings.BGP
	// PodNetworks and ServiceNetworks are those of the cluster, one for each family that it has.
	PodNetworks, ServiceNetworks []netip.Prefix
	// Routes is told all paths whenever they have changed.
	Routes interface {
		Set(local, remote []routes.Path)
	}
	// Before are the paths that the kernel still has from a run before this one.
	Before []routes.Path
	// Restarted: peers may still have routes to this node, which they are to keep.
	Restarted bool
	Log       *slog.Logger
}

// Speaker exchanges routes by BGP.
type Speaker struct {
	Options
	changed  chan struct{} // holds one
	status   chan chan Status
	speaker  *speaker
	before   map[netip.Prefix]routes.Path
	waiting  bool
	problems []string
	offered  []netip.Addr
}

// Status is how things stand.
type Status struct {
	ASN      uint32    `json:"asn"`
	Sessions []Session `json:"sessions"`
	// Advertised are the prefixes that this node tells others of its own.
	Advertised []netip.Prefix `json:"advertised"`
	// Routes counts the ways that others told, and that are taken.
	Routes int `json:"routes"`
}

// New is a Speaker that speaks to nobody yet.
func New(o Options) *Speaker {
	s := &Speaker{Options: o, changed: make(chan struct{}, 1), status: make(chan chan Status), before: map[netip.Prefix]routes.Path{}, waiting: true}
	s.speaker = &speaker{
		settings: o.Settings, podNetworks: o.PodNetworks, changed: s.notify, log: o.Log, sessions: map[netip.Addr]*session{},
	}
	for _, network := range o.PodNetworks {
		s.speaker.families = append(s.speaker.families, familyOf(network.Addr()))
	}
	for _, path := range o.Before {
		s.before[path.Destination] = path
	}
	return s
}

func (s *Speaker) notify() {
	select {
	case s.changed <- struct{}{}:
	default: // it will be seen with the change before
	}
}

// Run speaks until ctx ends. With graceful restart, peers then keep what they were told until this node is
// back, or for as long as that may take.
func (s *Speaker) Run(ctx context.Context) error {
	passwords, err := readPasswords(s.Settings)
	if err != nil {
		return err
	}
	for i, password := range passwords {
		s.speaker.settings.Peers[i].Password = password
	}
	nodes := watch[*corev1.Node](ctx, s.Client.CoreV1().RESTClient(), s.Client, "nodes", s.notify, nodeMatters)
	select { // with half of the nodes known, the ways to the others would be lost
	case <-nodes.synced:
	case <-ctx.Done():
		return nil
	}
	defer func() {
		if err := s.speaker.stop(); err != nil {
			s.Log.Warn("BGP sessions have not ended as they should", "error", err)
		}
	}()
	deferral := time.NewTimer(s.Settings.DeferralTime)
	defer deferral.Stop()
	var services *watched[*corev1.Service]
	var endpoints *watched[*discoveryv1.EndpointSlice]
	for {
		p := makePlan(s.NodeName, nodes.list(), s.speaker.settings)
		if len(p.outside()) > 0 && services == nil {
			// Only routers outside of the cluster are told of services.
			services = watch[*corev1.Service](ctx, s.Client.CoreV1().RESTClient(), s.Client, "services", s.notify, serviceMatters)
			endpoints = watch[*discoveryv1.EndpointSlice](ctx, s.Client.DiscoveryV1().RESTClient(), s.Client, "endpointslices", s.notify, endpointsMatter)
		}
		if services != nil {
			select {
			case <-services.synced:
			case <-ctx.Done():
				return nil
			}
			select {
			case <-endpoints.synced:
			case <-ctx.Done():
				return nil
			}
			s.offered = serviceAddresses(s.NodeName, services.list(), byService(endpoints.list()), s.Settings)
		}
		if err := s.follow(ctx, p); err != nil {
			return err
		}
		for again := false; !again; {
			select {
			case <-ctx.Done():
				return nil
			case <-s.changed:
				again = true
			case <-deferral.C:
				s.waiting = false
				again = true
			case answer := <-s.status:
				answer <- s.statusOf(ctx, p)
			}
		}
	}
}

// follow does what the plan says: speaks to the peers, and has the kernel take the ways that they tell.
func (s *Speaker) follow(ctx context.Context, p plan) error {
	s.reportProblems(p.problems)
	if len(p.addresses) == 0 {
		return nil // this node is not there yet
	}
	// All that is said before is heard before it is chosen from: what changes meanwhile notifies again.
	if err := s.speaker.apply(ctx, p, s.offers(p), s.Restarted); err != nil {
		if s.speaker.server == nil {
			return err
		}
		s.Log.Error("BGP is not as it should be", "error", err)
	}
	told := s.speaker.toldByNow() // first: who tells all while it is read is not taken for one who left something out
	all, err := s.speaker.heard()
	if err != nil {
		return err
	}
	c := chooser{plan: p, services: s.ServiceNetworks, podNetworks: s.PodNetworks, offered: s.offered, told: told, waiting: s.waiting}
	chosen := c.choose(all, s.before)
	s.before = map[netip.Prefix]routes.Path{}
	for _, path := range chosen {
		s.before[path.Destination] = path
	}
	s.Routes.Set(p.pods, chosen)
	return nil
}

// offers are what others are told of this node, by the next hop to say.
func (s *Speaker) offers(p plan) map[netip.Prefix]netip.Addr {
	offers := map[netip.Prefix]netip.Addr{}
	for _, path := range p.pods {
		offers[path.Destination] = path.NextHop
	}
	for _, address := range s.offered {
		for _, own := range p.addresses {
			if own.Is4() == address.Is4() {
				offers[netip.PrefixFrom(address, address.BitLen())] = own
			}
		}
	}
	return offers
}

// reportProblems logs those that were not there before.
func (s *Speaker) reportProblems(problems []string) {
	for _, problem := range problems {
		if !slices.Contains(s.problems, problem) {
			s.Log.Warn("BGP: " + problem)
		}
	}
	s.problems = problems
}

// Trouble tells whether there are peers, and none of them is there.
func (s *Speaker) Trouble() error { return s.speaker.trouble() }

// Status asks a running Speaker how things stand.
func (s *Speaker) Status(ctx context.Context) (Status, error) {
	answer := make(chan Status, 1)
	select {
	case s.status <- answer:
	case <-ctx.Done():
		return Status{}, fmt.Errorf("asking the BGP speaker: %w", context.Cause(ctx))
	}
	return <-answer, nil
}

func (s *Speaker) statusOf(ctx context.Context, p plan) Status {
	sessions, err := s.speaker.list(ctx)
	if err != nil {
		s.Log.Warn("BGP sessions cannot be listed", "error", err)
	}
	status := Status{ASN: p.asn, Sessions: sessions, Routes: len(s.before)}
	if s.speaker.server != nil {
		status.Advertised = slices.SortedFunc(maps.Keys(s.speaker.offers), func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	}
	return status
}

// readPasswords reads those of the peers in the settings, if they are in a file.
func readPasswords(s settings.BGP) ([]settings.Secret, error) {
	if s.PeerPasswordsFile == "" {
		return nil, nil
	}
	text, err := os.ReadFile(s.PeerPasswordsFile)
	if err != nil {
		return nil, fmt.Errorf("the passwords of BGP peers (peer-router-passwords-file in spec.network.kuberouter.extraArgs): %w", err)
	}
	passwords, err := settings.ParsePasswords(string(text))
	if err == nil && len(passwords) != len(s.Peers) {
		err = fmt.Errorf("it has %d passwords for %d peers", len(passwords), len(s.Peers))
	}
	if err != nil {
		return nil, fmt.Errorf("the passwords of BGP peers in %s: %w", s.PeerPasswordsFile, err)
	}
	return passwords, nil
}

// watched are the objects of a kind.
type watched[T runtime.Object] struct {
	store  cache.Store
	synced <-chan struct{}
}

func (w watched[T]) list() []T {
	var all []T
	for _, object := range w.store.List() {
		if o, ok := object.(T); ok {
			all = append(all, o)
		}
	}
	return all
}

// watch follows the objects of a kind until ctx ends, and notifies of changes that matter.
func watch[T runtime.Object](ctx context.Context, api rest.Interface, client kubernetes.Interface, resource string, notify func(), matters func(before, after T) bool) *watched[T] {
	var kind T
	store, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(cache.NewListWatchFromClient(api, resource, metav1.NamespaceAll, fields.Everything()), client),
		ObjectType:    kind,
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc: func(any) { notify() }, DeleteFunc: func(any) { notify() },
			UpdateFunc: func(old, now any) {
				before, _ := old.(T)
				after, ok := now.(T)
				if !ok || matters(before, after) {
					notify()
				}
			},
		},
	})
	go informer.RunWithContext(ctx)
	return &watched[T]{store, informer.HasSyncedChecker().Done()}
}

// nodeMatters: nodes report every few seconds, and rarely anything that matters here.
func nodeMatters(before, after *corev1.Node) bool {
	return !maps.Equal(before.Annotations, after.Annotations) || !slices.Equal(pathsTo(before), pathsTo(after)) ||
		!slices.Equal(internalAddresses(before), internalAddresses(after))
}

func serviceMatters(before, after *corev1.Service) bool {
	return !equality.Semantic.DeepEqual(before.Spec, after.Spec) || !equality.Semantic.DeepEqual(before.Status.LoadBalancer, after.Status.LoadBalancer) ||
		!maps.Equal(before.Annotations, after.Annotations)
}

func endpointsMatter(before, after *discoveryv1.EndpointSlice) bool {
	return !equality.Semantic.DeepEqual(before.Endpoints, after.Endpoints)
}

// byService groups slices by the namespace and name of their service.
func byService(all []*discoveryv1.EndpointSlice) map[string][]*discoveryv1.EndpointSlice {
	grouped := map[string][]*discoveryv1.EndpointSlice{}
	for _, slice := range all {
		name := slice.Namespace + "/" + slice.Labels[discoveryv1.LabelServiceName]
		grouped[name] = append(grouped[name], slice)
	}
	return grouped
}
