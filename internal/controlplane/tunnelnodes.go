package controlplane

import (
	"cmp"
	"context"
	"encoding/json"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/tools/cache"

	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/file"
	"k0s.io/k0s/internal/tunnelserver"
)

// tunnelNodes tells the server of the tunnel which addresses are which node's, in a file: the server itself can
// ask nobody.
func tunnelNodes(o Options) component.Component {
	log := o.Log.With("component", "tunnel-nodes")
	return component.Background("tunnel-nodes", func(ctx context.Context) error {
		client, err := o.adminClient()
		if err != nil {
			return err
		}
		u, err := o.users()
		if err != nil {
			return err
		}
		changed := make(chan struct{}, 1)
		notify := func(any) {
			select {
			case changed <- struct{}{}:
			default: // it will be seen with what came before
			}
		}
		store, informer := cache.NewInformerWithOptions(cache.InformerOptions{
			ListerWatcher: cache.ToListWatcherWithWatchListSemantics(
				cache.NewListWatchFromClient(client.CoreV1().RESTClient(), "nodes", metav1.NamespaceAll, fields.Everything()), client),
			ObjectType: &corev1.Node{},
			Transform:  onlyAddresses,
			Handler:    cache.ResourceEventHandlerFuncs{AddFunc: notify, UpdateFunc: func(_, node any) { notify(node) }, DeleteFunc: notify},
		})
		done := make(chan struct{})
		ctx, cancel := context.WithCancel(ctx)
		go func() { defer close(done); informer.RunWithContext(ctx) }()
		defer func() { cancel(); <-done }()
		select { // half of them are not all
		case <-informer.HasSyncedChecker().Done():
		case <-ctx.Done():
			return nil
		}
		services := o.serviceNetworks()
		var written []byte
		for {
			content, err := json.Marshal(tunnelOwners(store.List(), services))
			if err != nil {
				return err
			}
			if !slices.Equal(content, written) {
				if err := file.Write(o.tunnelNodesFile(), content, 0o600, file.Options{UID: int(u.konnectivity.UID)}); err != nil {
					return err
				}
				written = content
			}
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
			}
		}
	}, log)
}

func (o Options) tunnelNodesFile() string { return o.Layout.Run("konnectivity-server", "nodes.json") }

func (o Options) serviceNetworks() []netip.Prefix {
	var all []netip.Prefix
	for _, cidr := range []string{o.Config.Spec.Network.ServiceCIDR, o.Config.Spec.Network.DualStack.IPv6ServiceCIDR} {
		if prefix, err := netip.ParsePrefix(cidr); err == nil {
			all = append(all, prefix)
		}
	}
	return all
}

// onlyAddresses leaves of a node what is looked at here.
func onlyAddresses(object any) (any, error) {
	node, ok := object.(*corev1.Node)
	if !ok {
		return object, nil
	}
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: node.Name, UID: node.UID, ResourceVersion: node.ResourceVersion, CreationTimestamp: node.CreationTimestamp},
		Spec:       corev1.NodeSpec{PodCIDR: node.Spec.PodCIDR, PodCIDRs: node.Spec.PodCIDRs},
		Status:     corev1.NodeStatus{Addresses: node.Status.Addresses},
	}, nil
}

// tunnelOwners are the nodes, the oldest first: a node may say of itself which addresses it has, so who came
// later has none that another has. No node has the services'.
func tunnelOwners(objects []any, services []netip.Prefix) tunnelserver.Addresses {
	var nodes []*corev1.Node
	for _, object := range objects {
		if node, ok := object.(*corev1.Node); ok {
			nodes = append(nodes, node)
		}
	}
	slices.SortFunc(nodes, func(a, b *corev1.Node) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	owners := tunnelserver.Addresses{Services: services}
	for _, node := range nodes {
		owner := tunnelserver.Node{Name: node.Name}
		for _, address := range node.Status.Addresses {
			ip, err := netip.ParseAddr(address.Address)
			if err != nil || !slices.ContainsFunc(services, func(s netip.Prefix) bool { return s.Contains(ip) }) {
				owner.Addresses = append(owner.Addresses, address.Address)
			}
		}
		for _, cidr := range node.Spec.PodCIDRs {
			prefix, err := netip.ParsePrefix(cidr)
			if err == nil && !slices.ContainsFunc(services, prefix.Overlaps) {
				owner.PodCIDRs = append(owner.PodCIDRs, prefix)
			}
		}
		owners.Nodes = append(owners.Nodes, owner)
	}
	return owners
}
