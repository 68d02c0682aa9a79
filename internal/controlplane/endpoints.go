package controlplane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

// externalEndpoints tells whether Service kubernetes leads to the external address, rather than to the API
// servers that say of themselves that they are there. A controller that is alone is the only way there is.
func (o Options) externalEndpoints() bool { return !o.Alone && o.Config.WorkersGoExternally() }

// endpointReconciler has Service default/kubernetes lead to the external address; without one, to where the API
// servers say, who do not mend the port by themselves.
func endpointReconciler(o Options) component.Component {
	log := o.Log.With("component", "endpoint-reconciler")
	with := func(run func(*endpoints, context.Context) error) func(context.Context) error {
		return func(ctx context.Context) error {
			config, err := o.adminConfig()
			if err != nil {
				return err
			}
			config.WarningHandlerWithContext = rest.NoWarnings{} // that Endpoints are old is known
			client, err := kubernetes.NewForConfig(config)
			if err != nil {
				return err
			}
			return run(&endpoints{client: client, log: log, family: o.Config.PrimaryFamily(), lookup: net.DefaultResolver.LookupNetIP}, ctx)
		}
	}
	if !o.externalEndpoints() {
		return component.Background("endpoint-reconciler", with(func(e *endpoints, ctx context.Context) error {
			e.port = int32(o.Config.Spec.API.Port) //nolint:gosec // it is a port
			return e.giveBack(ctx)
		}), log)
	}
	return component.Background("endpoint-reconciler", o.elected("k0s-endpoint-reconciler", with(func(e *endpoints, ctx context.Context) error {
		host, port := o.Config.Spec.API.ExternalHostPort()
		e.host, e.port = host, int32(port) //nolint:gosec // as above
		return e.run(ctx)
	})), log)
}

const (
	// lookupInterval is how often a name is resolved.
	lookupInterval = 10 * time.Second
	lookupTimeout  = 5 * time.Second
	// endpointsRetry is when what could not be written is tried again.
	endpointsRetry = time.Second
)

// endpoints are where Service default/kubernetes leads to.
type endpoints struct {
	client kubernetes.Interface
	// host is a name or an address.
	host   string
	port   int32
	family v1beta1.AddressFamily
	lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)
	log    *slog.Logger

	last    []string // addresses that were found
	failing bool     // the name could not be resolved the last time
}

// run writes them whenever they have changed, or somebody else has changed them, until ctx ends.
func (e *endpoints) run(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	own := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, serviceName).String()}
	old, current := e.client.CoreV1().Endpoints(metav1.NamespaceDefault), e.client.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault)
	go notifyOf(ctx, changed, &corev1.Endpoints{}, &cache.ListWatch{ //nolint:staticcheck // see writeEndpoints
		ListWithContextFunc: func(ctx context.Context, _ metav1.ListOptions) (runtime.Object, error) { return old.List(ctx, own) },
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = own.FieldSelector
			return old.Watch(ctx, o)
		},
	})
	go notifyOf(ctx, changed, &discoveryv1.EndpointSlice{}, &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, _ metav1.ListOptions) (runtime.Object, error) { return current.List(ctx, own) },
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = own.FieldSelector
			return current.Watch(ctx, o)
		},
	})
	lookup := time.NewTicker(lookupInterval)
	defer lookup.Stop()
	e.resolve(ctx)
	for {
		retry := make(<-chan time.Time)
		if err := e.write(ctx); err != nil && ctx.Err() == nil {
			e.log.Error("Cannot say where the API is, trying again", "service", "default/kubernetes", "addresses", e.last, "error", err)
			retry = time.After(endpointsRetry)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-retry:
		case <-lookup.C:
			e.resolve(ctx)
		}
	}
}

// notifyOf tells of all changes of what is listed.
func notifyOf(ctx context.Context, changed chan<- struct{}, like runtime.Object, from *cache.ListWatch) {
	notify := func(any) {
		select {
		case changed <- struct{}{}:
		default: // it will be seen with what came before
		}
	}
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: from, ObjectType: like,
		Handler: cache.ResourceEventHandlerFuncs{AddFunc: notify, UpdateFunc: func(_, object any) { notify(object) }, DeleteFunc: notify},
	})
	informer.RunWithContext(ctx)
}

// resolve looks the host up. While that fails, what was found before stays.
func (e *endpoints) resolve(ctx context.Context) {
	found, err := e.find(ctx)
	switch {
	case ctx.Err() != nil:
	case err == nil:
		if !slices.Equal(found, e.last) {
			e.log.Info("Service default/kubernetes leads to the external address", "host", e.host, "addresses", found, "port", e.port)
		}
		e.last, e.failing = found, false
	case !e.failing:
		e.log.Warn("Cannot find out where spec.api.externalAddress is: pods and workers go on with what they know", "host", e.host, "known", e.last, "error", err)
		e.failing = true
	}
}

// find returns the addresses of the host that pods can use, sorted.
func (e *endpoints) find(ctx context.Context) ([]string, error) {
	all, network := []netip.Addr{}, "ip4"
	if e.family == v1beta1.IPv6Family {
		network = "ip6"
	}
	if address, err := netip.ParseAddr(e.host); err == nil {
		all = append(all, address)
	} else {
		ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
		defer cancel()
		if all, err = e.lookup(ctx, network, e.host); err != nil {
			return nil, err
		}
	}
	var usable []string
	for _, address := range all {
		address = address.Unmap().WithZone("")
		if address.IsGlobalUnicast() && address.Is6() == (network == "ip6") {
			usable = append(usable, address.String())
		}
	}
	if len(usable) == 0 {
		return nil, fmt.Errorf("%s has no %s address that others can connect to: it has %v", e.host, e.family, all)
	}
	slices.Sort(usable)
	return slices.Compact(usable), nil
}

// The names are those that an API server has for its own endpoints, so that either takes over from the other.
const (
	serviceName = "kubernetes"
	portName    = "https"
	// externalMark is an annotation: the external address that the objects were written for.
	externalMark = "k0s.k0sproject.io/external-address"
)

// write makes the objects what they should be.
func (e *endpoints) write(ctx context.Context) error {
	if len(e.last) == 0 {
		return nil // nothing is known that were better
	}
	return errors.Join(e.writeSlice(ctx), e.writeEndpoints(ctx))
}

func (e *endpoints) writeSlice(ctx context.Context) error {
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: serviceName, Namespace: metav1.NamespaceDefault, Labels: map[string]string{discoveryv1.LabelServiceName: serviceName}, Annotations: e.mark()},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: new(portName), Protocol: new(corev1.ProtocolTCP), Port: &e.port}},
	}
	if e.family == v1beta1.IPv6Family {
		slice.AddressType = discoveryv1.AddressTypeIPv6
	}
	for _, address := range e.last {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{address}, Conditions: discoveryv1.EndpointConditions{Ready: new(true)}})
	}
	slices := e.client.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault)
	there, err := slices.Get(ctx, serviceName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		_, err = slices.Create(ctx, slice, metav1.CreateOptions{})
		return err
	case err != nil:
		return err
	case there.AddressType != slice.AddressType: // which never changes
		if err := slices.Delete(ctx, serviceName, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &there.UID}}); err != nil {
			return err
		}
		_, err = slices.Create(ctx, slice, metav1.CreateOptions{})
		return err
	case apiequality.Semantic.DeepEqual(there.Endpoints, slice.Endpoints) && apiequality.Semantic.DeepEqual(there.Ports, slice.Ports) &&
		there.Labels[discoveryv1.LabelServiceName] == serviceName && there.Annotations[externalMark] == e.host:
		return nil
	}
	slice.ResourceVersion = there.ResourceVersion
	_, err = slices.Update(ctx, slice, metav1.UpdateOptions{})
	return err
}

// writeEndpoints writes the old kind of object, for those who still read it.
func (e *endpoints) writeEndpoints(ctx context.Context) error {
	//nolint:staticcheck // the API servers write it, too
	old := &corev1.Endpoints{
		// Or there would be a second slice, made of this.
		ObjectMeta: metav1.ObjectMeta{Name: serviceName, Namespace: metav1.NamespaceDefault, Labels: map[string]string{discoveryv1.LabelSkipMirror: "true"}, Annotations: e.mark()},
		Subsets:    []corev1.EndpointSubset{{Ports: []corev1.EndpointPort{{Name: portName, Protocol: corev1.ProtocolTCP, Port: e.port}}}},
	}
	for _, address := range e.last {
		old.Subsets[0].Addresses = append(old.Subsets[0].Addresses, corev1.EndpointAddress{IP: address}) //nolint:staticcheck // as above
	}
	all := e.client.CoreV1().Endpoints(metav1.NamespaceDefault)
	there, err := all.Get(ctx, serviceName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		_, err = all.Create(ctx, old, metav1.CreateOptions{})
		return err
	case err != nil:
		return err
	case apiequality.Semantic.DeepEqual(there.Subsets, old.Subsets) && there.Labels[discoveryv1.LabelSkipMirror] == "true" &&
		there.Annotations[externalMark] == e.host:
		return nil
	}
	old.ResourceVersion = there.ResourceVersion
	_, err = all.Update(ctx, old, metav1.UpdateOptions{})
	return err
}

func (e *endpoints) mark() map[string]string { return map[string]string{externalMark: e.host} }

// giveBack gives objects that were written for an external address the port of the API servers, which put in
// only their addresses.
func (e *endpoints) giveBack(ctx context.Context) error {
	all := e.client.CoreV1().Endpoints(metav1.NamespaceDefault)
	old, err := all.Get(ctx, serviceName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || (err == nil && old.Annotations[externalMark] == "") {
		return nil
	}
	if err != nil {
		return err
	}
	slices := e.client.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault)
	slice, err := slices.Get(ctx, serviceName, metav1.GetOptions{})
	if err == nil {
		for i := range slice.Ports {
			slice.Ports[i].Port = &e.port
		}
		delete(slice.Annotations, externalMark)
		_, err = slices.Update(ctx, slice, metav1.UpdateOptions{})
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	for _, subset := range old.Subsets {
		for i := range subset.Ports {
			subset.Ports[i].Port = e.port
		}
	}
	delete(old.Annotations, externalMark) // last: until then it is to be done again
	_, err = all.Update(ctx, old, metav1.UpdateOptions{})
	return err
}
