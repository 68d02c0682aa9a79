package kuberouter

import (
	"context"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"k0s.io/k0s/internal/network/kuberouter/routes"
)

// NodePaths learns from the Node objects where the pods of nodes are.
type NodePaths struct {
	Client kubernetes.Interface
	// NodeName is this node.
	NodeName string
	// Set is told all paths whenever they have changed: those to this node's own pods, and all others.
	Set func(local, remote []routes.Path)
}

// Run watches the nodes until ctx ends.
func (p NodePaths) Run(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	notify := func() {
		select {
		case changed <- struct{}{}:
		default: // it will be seen with the change before
		}
	}
	nodes, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(cache.NewListWatchFromClient(
			p.Client.CoreV1().RESTClient(), "nodes", metav1.NamespaceAll, fields.Everything()), p.Client),
		ObjectType: &corev1.Node{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc: func(any) { notify() }, DeleteFunc: func(any) { notify() },
			UpdateFunc: func(before, after any) {
				// Nodes report every few seconds, and rarely anything that matters here.
				if !slices.Equal(pathsTo(before), pathsTo(after)) {
					notify()
				}
			},
		},
	})
	done := make(chan struct{})
	go func() { defer close(done); informer.RunWithContext(ctx) }()
	defer func() { <-done }()
	select { // with half of the nodes known, the paths to the others would be lost
	case <-informer.HasSyncedChecker().Done():
	case <-ctx.Done():
		return nil
	}
	for {
		var local, remote []routes.Path
		for _, node := range nodes.List() {
			if n, ok := node.(*corev1.Node); ok && n.Name == p.NodeName {
				local = pathsTo(node)
			} else {
				remote = append(remote, pathsTo(node)...)
			}
		}
		p.Set(local, remote)
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// pathsTo are those to the pods of a node, one for each family that it has both a pod CIDR and an address of.
func pathsTo(object any) []routes.Path {
	node, ok := object.(*corev1.Node)
	if !ok {
		return nil
	}
	var paths []routes.Path
	cidrs := node.Spec.PodCIDRs
	if len(cidrs) == 0 {
		cidrs = []string{node.Spec.PodCIDR}
	}
	for _, cidr := range cidrs {
		pods, err := netip.ParsePrefix(cidr)
		if err != nil {
			continue
		}
		for _, address := range node.Status.Addresses {
			via, err := netip.ParseAddr(address.Address)
			if address.Type == corev1.NodeInternalIP && err == nil && via.Is4() == pods.Addr().Is4() {
				paths = append(paths, routes.Path{Destination: pods.Masked(), NextHop: via})
				break
			}
		}
	}
	return paths
}
