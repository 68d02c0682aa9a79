package balancer

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

// slice is an EndpointSlice of a Service in the namespace default.
func slice(service string, port int32, addresses ...string) *discoveryv1.EndpointSlice {
	name := "https"
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Name: service, Namespace: "default", Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		Ports:      []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
	}
	for _, address := range addresses {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{address}})
	}
	return s
}

func TestWatch(t *testing.T) {
	client := fake.NewClientset(slice("kubernetes", 6443, "10.0.0.2", "10.0.0.1"), slice("other", 443, "10.9.9.9"))
	lists := make(chan []string, 100)
	failing := true
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- follow(ctx, client, func(servers []string) error {
			lists <- servers
			if failing {
				failing = false
				return errors.New("disk full")
			}
			return nil
		}, slog.New(slog.DiscardHandler))
	}()
	expect := func(want ...string) {
		t.Helper()
		deadline := time.After(10 * time.Second)
		for {
			select {
			case got := <-lists:
				if slices.Equal(got, want) {
					return
				}
				if len(got) == 0 {
					t.Fatal("it was told that there are no servers")
				}
			case <-deadline:
				t.Fatalf("it was never told of %v", want)
			}
		}
	}
	update := func(s *discoveryv1.EndpointSlice) {
		t.Helper()
		if _, err := client.DiscoveryV1().EndpointSlices("default").Update(ctx, s, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	expect("10.0.0.1:6443", "10.0.0.2:6443")
	update(slice("kubernetes", 6443, "10.0.0.1", "10.0.0.2", "10.0.0.3"))
	expect("10.0.0.1:6443", "10.0.0.2:6443", "10.0.0.3:6443")
	update(slice("kubernetes", 6443))
	leaving := slice("kubernetes", 6444, "10.0.0.3", "fd00::1", "10.0.0.4")
	no := false
	leaving.Endpoints[2].Conditions.Ready = &no
	update(leaving)
	expect("10.0.0.3:6444", "[fd00::1]:6444")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
