package controlplane

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"

	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

func addressesOf(list ...string) []netip.Addr {
	var all []netip.Addr
	for _, a := range list {
		all = append(all, netip.MustParseAddr(a))
	}
	return all
}

func TestFind(t *testing.T) {
	for _, test := range []struct {
		name, host string
		family     v1beta1.AddressFamily
		resolved   []netip.Addr
		want       []string // none: an error
	}{
		{"an address", "192.0.2.9", v1beta1.IPv4Family, nil, []string{"192.0.2.9"}},
		{"of the other family", "2001:db8::1", v1beta1.IPv4Family, nil, nil},
		{"IPv6", "2001:db8::1", v1beta1.IPv6Family, nil, []string{"2001:db8::1"}},
		{"a name", "k", v1beta1.IPv4Family, addressesOf("192.0.2.9", "192.0.2.10", "::ffff:192.0.2.9"), []string{"192.0.2.10", "192.0.2.9"}},
		{"a name of this host", "k", v1beta1.IPv4Family, addressesOf("127.0.1.1"), nil},
		{"one that also is", "k", v1beta1.IPv4Family, addressesOf("127.0.1.1", "192.0.2.9"), []string{"192.0.2.9"}},
		{"nothing", "k", v1beta1.IPv6Family, nil, nil},
	} {
		e := &endpoints{host: test.host, family: test.family, lookup: func(_ context.Context, network, host string) ([]netip.Addr, error) {
			if want := map[v1beta1.AddressFamily]string{v1beta1.IPv4Family: "ip4", v1beta1.IPv6Family: "ip6"}[test.family]; network != want || host != "k" {
				t.Errorf("%s: looked up %s %s", test.name, network, host)
			}
			return test.resolved, nil
		}}
		got, err := e.find(t.Context())
		if !slices.Equal(got, test.want) || (err == nil) != (test.want != nil) {
			t.Errorf("%s: got %q, %v", test.name, got, err)
		}
	}
}

// led is where Service kubernetes leads to, by the one and by the other object.
func led(t *testing.T, client kubernetes.Interface) (bySlice, byEndpoints []string, port int32) {
	t.Helper()
	list, err := client.DiscoveryV1().EndpointSlices("default").List(t.Context(), metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=kubernetes"})
	if err != nil || len(list.Items) > 1 {
		t.Fatalf("%v, %v", list, err)
	}
	for _, s := range list.Items {
		for _, e := range s.Endpoints {
			bySlice = append(bySlice, e.Addresses...)
		}
		port = *s.Ports[0].Port
	}
	old, err := client.CoreV1().Endpoints("default").Get(t.Context(), "kubernetes", metav1.GetOptions{})
	if err == nil {
		for _, a := range old.Subsets[0].Addresses {
			byEndpoints = append(byEndpoints, a.IP)
		}
		if old.Subsets[0].Ports[0].Port != port || old.Labels[discoveryv1.LabelSkipMirror] != "true" {
			t.Errorf("the Endpoints are %+v", old)
		}
	}
	return bySlice, byEndpoints, port
}

// The name changes its address, cannot be resolved for a while, and somebody else writes the objects.
func TestEndpoints(t *testing.T) {
	client := fake.NewClientset(&discoveryv1.EndpointSlice{ // of a cluster that was IPv6
		ObjectMeta:  metav1.ObjectMeta{Name: "kubernetes", Namespace: "default", UID: "1", Labels: map[string]string{discoveryv1.LabelServiceName: "kubernetes"}},
		AddressType: discoveryv1.AddressTypeIPv6, Ports: []discoveryv1.EndpointPort{{Port: new(int32(1))}},
	})
	resolved, failure := addressesOf("192.0.2.9"), error(nil)
	e := &endpoints{client: client, host: "k", port: 443, family: v1beta1.IPv4Family, log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		lookup: func(context.Context, string, string) ([]netip.Addr, error) {
			return resolved, failure
		}}
	ctx := t.Context()
	expect := func(want ...string) {
		t.Helper()
		if err := e.write(ctx); err != nil {
			t.Fatal(err)
		}
		if a, b, port := led(t, client); !slices.Equal(a, want) || !slices.Equal(b, want) || port != 443 {
			t.Fatalf("it leads to %q and %q, port %d; want %q", a, b, port, want)
		}
	}
	e.resolve(ctx)
	expect("192.0.2.9")
	resolved = addressesOf("192.0.2.10", "192.0.2.11")
	e.resolve(ctx)
	expect("192.0.2.10", "192.0.2.11")
	failure = errors.New("no DNS")
	e.resolve(ctx)
	expect("192.0.2.10", "192.0.2.11")

	// Running, it mends what others write, at once.
	failure = nil
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- e.run(ctx) }()
	right := func() bool {
		a, b, _ := led(t, client)
		return slices.Equal(a, []string{"192.0.2.10", "192.0.2.11"}) && slices.Equal(a, b)
	}
	for limit := time.Now().Add(30 * time.Second); ; { // what is written before the watch begins is not seen
		old, err := client.CoreV1().Endpoints("default").Get(ctx, "kubernetes", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		old.Subsets[0].Addresses = []corev1.EndpointAddress{{IP: "192.0.2.1"}}
		if _, err = client.CoreV1().Endpoints("default").Update(ctx, old, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		for next := time.Now().Add(time.Second); !right() && time.Now().Before(next); {
			time.Sleep(5 * time.Millisecond)
		}
		if right() {
			break
		}
		if time.Now().After(limit) {
			t.Fatal("nobody mends it")
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// When the external address is given up, the API servers put in their addresses, and we the port.
func TestGiveBack(t *testing.T) {
	client := fake.NewClientset()
	e := &endpoints{client: client, host: "192.0.2.9", port: 443, family: v1beta1.IPv4Family, log: slog.New(slog.DiscardHandler)}
	ctx := t.Context()
	e.resolve(ctx)
	if err := e.write(ctx); err != nil {
		t.Fatal(err)
	}
	e.port = 6443
	for range 2 { // the second time there is nothing to do
		if err := e.giveBack(ctx); err != nil {
			t.Fatal(err)
		}
		if a, b, port := led(t, client); port != 6443 || !slices.Equal(a, b) {
			t.Errorf("it leads to %q and %q, port %d", a, b, port)
		}
	}
	e.port = 7443
	if err := e.giveBack(ctx); err != nil {
		t.Fatal(err)
	}
	if _, _, port := led(t, client); port != 6443 {
		t.Errorf("what the API servers have written was changed: port %d", port)
	}
}

// Without anything found, what is there is better than nothing.
func TestEndpointsUnknown(t *testing.T) {
	client := fake.NewClientset()
	e := &endpoints{client: client, host: "k", port: 443, family: v1beta1.IPv4Family, log: slog.New(slog.DiscardHandler),
		lookup: func(context.Context, string, string) ([]netip.Addr, error) { return nil, errors.New("no DNS") }}
	e.resolve(t.Context())
	if err := e.write(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a, b, _ := led(t, client); a != nil || b != nil {
		t.Errorf("it leads to %q and %q", a, b)
	}
}

func TestExternalEndpoints(t *testing.T) {
	for _, test := range []struct {
		change func(*Options)
		want   bool
	}{
		{func(o *Options) { o.Alone = false }, false},
		{func(o *Options) { o.Alone = false; o.Config.Spec.API.ExternalAddress = "k" }, true},
		{func(o *Options) { o.Config.Spec.API.ExternalAddress = "k" }, false},
		{func(o *Options) {
			o.Alone = false
			o.Config.Spec.API.ExternalAddress = "k"
			o.Config.Spec.Network.NodeLocalLoadBalancing.Enabled = true
		}, false},
	} {
		o := options(t, test.change)
		if got := slices.Contains(apiServerArgs(o), "--endpoint-reconciler-type=none"); got != test.want {
			t.Errorf("%+v: the API server leaves it to us: %t", o.Config.Spec.API, got)
		}
	}
}
