package balancer

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// Watch follows which API servers there are, as the API itself tells (the EndpointSlices of Service
// default/kubernetes), and calls set with the list each time it changes, until ctx ends. config is to
// lead through the balancer; whoever it names must be allowed to list and watch endpointslices in the
// namespace default. No servers at all is never taken for an answer.
func Watch(ctx context.Context, config *rest.Config, set func(addresses []string) error, log *slog.Logger) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("following the API servers: %w", err)
	}
	return follow(ctx, client, set, log)
}

func follow(ctx context.Context, client kubernetes.Interface, set func([]string) error, log *slog.Logger) error {
	changed := make(chan struct{}, 1)
	notify := func() {
		select {
		case changed <- struct{}{}:
		default: // will be seen with what came before
		}
	}
	endpoints := client.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault)
	selector := discoveryv1.LabelServiceName + "=kubernetes"
	store, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
				o.LabelSelector = selector
				return endpoints.List(ctx, o)
			},
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
				o.LabelSelector = selector
				return endpoints.Watch(ctx, o)
			},
		}, client),
		ObjectType: &discoveryv1.EndpointSlice{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { notify() },
			UpdateFunc: func(any, any) { notify() },
			DeleteFunc: func(any) { notify() },
		},
	})
	done := make(chan struct{})
	go func() { defer close(done); informer.RunWithContext(ctx) }()
	defer func() { <-done }()
	select { // half the list is not to be taken for all of it
	case <-informer.HasSyncedChecker().Done():
	case <-ctx.Done():
		return nil
	}
	for {
		if servers := addresses(store.List()); len(servers) > 0 {
			if err := set(servers); err != nil {
				log.Error("The API servers have changed, but", "servers", servers, "error", err)
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// addresses are those of all endpoints that take connections, sorted.
func addresses(objects []any) []string {
	var all []string
	for _, object := range objects {
		slice, ok := object.(*discoveryv1.EndpointSlice)
		if !ok {
			continue
		}
		for _, port := range slice.Ports {
			if port.Port == nil || (port.Name != nil && *port.Name != "https") {
				continue
			}
			for _, endpoint := range slice.Endpoints {
				if endpoint.Conditions.Ready != nil && !*endpoint.Conditions.Ready {
					continue
				}
				for _, address := range endpoint.Addresses {
					all = append(all, net.JoinHostPort(address, strconv.Itoa(int(*port.Port))))
				}
			}
		}
	}
	return slices.Compact(slices.Sorted(slices.Values(all)))
}
