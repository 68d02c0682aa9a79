package kuberouter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"k0s.io/k0s/internal/journal"
)

// RouteProtocol marks our routes in the kernel: a number that rt_protos gives to nobody.
const RouteProtocol = 107

// Routes leads to the pods of other nodes: a plain route to each node's pod CIDR by the node's address,
// taken from the Node objects.
type Routes struct {
	Client kubernetes.Interface
	// NodeName is this node, which needs no route to itself.
	NodeName string
	Journal  *journal.Journal
	Log      *slog.Logger
}

// Run keeps the routes until ctx ends. They stay then: pods go on talking while k0s restarts.
func (r Routes) Run(ctx context.Context) error {
	if err := r.Journal.Add(journal.Entry{Kind: journal.Routes, Name: fmt.Sprint(RouteProtocol)}); err != nil {
		return err
	}
	changed := make(chan struct{}, 1)
	notify := func() {
		select {
		case changed <- struct{}{}:
		default: // it will be seen with the change before
		}
	}
	nodes, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(cache.NewListWatchFromClient(
			r.Client.CoreV1().RESTClient(), "nodes", metav1.NamespaceAll, fields.Everything()), r.Client),
		ObjectType: &corev1.Node{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc: func(any) { notify() }, DeleteFunc: func(any) { notify() },
			UpdateFunc: func(before, after any) {
				old, _ := before.(*corev1.Node)
				now, _ := after.(*corev1.Node)
				// Nodes report every few seconds, and rarely anything that matters here.
				if routeTo(old) != routeTo(now) {
					notify()
				}
			},
		},
	})
	done := make(chan struct{})
	go func() { defer close(done); informer.RunWithContext(ctx) }()
	defer func() { <-done }()
	select { // with half of the nodes known, the routes to the others would be lost
	case <-informer.HasSyncedChecker().Done():
	case <-ctx.Done():
		return nil
	}
	for {
		if err := r.apply(nodes.List()); err != nil {
			r.Log.Error("Pods of other nodes cannot be reached as they should", "error", err)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// route is where the pods of a node are, and by which address they are reached.
type route struct {
	pods netip.Prefix
	via  netip.Addr
}

// routeTo is the zero route for a node that has no pod CIDR or no address yet.
func routeTo(node *corev1.Node) route {
	if node == nil {
		return route{}
	}
	pods, err := netip.ParsePrefix(node.Spec.PodCIDR)
	if err != nil {
		return route{}
	}
	for _, address := range node.Status.Addresses {
		via, err := netip.ParseAddr(address.Address)
		if address.Type == corev1.NodeInternalIP && err == nil && via.Is4() == pods.Addr().Is4() {
			return route{pods, via}
		}
	}
	return route{}
}

// apply makes the kernel's routes those to nodes.
func (r Routes) apply(nodes []any) error {
	wanted := map[route]bool{}
	for _, object := range nodes {
		node, ok := object.(*corev1.Node)
		if to := routeTo(node); ok && node.Name != r.NodeName && to != (route{}) {
			wanted[to] = true
		}
	}
	present, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: RouteProtocol}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return fmt.Errorf("listing routes: %w", err)
	}
	var errs []error
	for _, p := range present {
		via, _ := netip.AddrFromSlice(p.Gw.To4())
		pods, _ := netip.ParsePrefix(p.Dst.String())
		if to := (route{pods, via}); wanted[to] {
			delete(wanted, to)
		} else if err := netlink.RouteDel(&p); err != nil && !errors.Is(err, syscall.ESRCH) {
			errs = append(errs, fmt.Errorf("removing the route to %s: %w", p.Dst, err))
		}
	}
	for to := range wanted {
		if err := netlink.RouteReplace(&netlink.Route{
			Dst: &net.IPNet{IP: to.pods.Addr().AsSlice(), Mask: net.CIDRMask(to.pods.Bits(), to.pods.Addr().BitLen())},
			Gw:  to.via.AsSlice(), Protocol: RouteProtocol,
		}); err != nil {
			errs = append(errs, fmt.Errorf("route to %s by %s: %w (nodes must be on one network: there is no overlay yet)", to.pods, to.via, err))
		} else {
			r.Log.Debug("New route", "pods", to.pods, "via", to.via)
		}
	}
	return errors.Join(errs...)
}

// RemoveRoutes takes all routes back.
func RemoveRoutes() error {
	present, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Protocol: RouteProtocol}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return fmt.Errorf("listing routes: %w", err)
	}
	var errs []error
	for _, p := range present {
		if err := netlink.RouteDel(&p); err != nil && !errors.Is(err, syscall.ESRCH) {
			errs = append(errs, fmt.Errorf("removing the route to %s: %w", p.Dst, err))
		}
	}
	return errors.Join(errs...)
}
