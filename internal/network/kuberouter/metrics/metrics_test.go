package metrics

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"k0s.io/k0s/internal/network/kuberouter/bgp"
	"k0s.io/k0s/internal/network/kuberouter/policy"
	"k0s.io/k0s/internal/network/kuberouter/routes"
	"k0s.io/k0s/internal/network/kuberouter/settings"
)

func get(t *testing.T, h http.Handler) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", http.NoBody))
	return w.Code, w.Body.String()
}

func TestMetrics(t *testing.T) {
	source := Source{
		BGP: func(context.Context) (bgp.Status, error) {
			return bgp.Status{Sessions: []bgp.Session{{Peer: netip.MustParseAddr("192.0.2.2"), Node: "n2", ASN: 64512, State: "established", Received: 3, Advertised: 2}}}, nil
		},
		Routes: func() routes.Status { return routes.Status{Direct: 4, Tunnelled: 1, Elsewhere: 2} },
		Policy: func() policy.Snapshot {
			return policy.Snapshot{Policies: 7, Pods: 5, IsolatedIngress: 2, IsolatedEgress: 1, Syncs: 9, Restored: 1, LastDuration: 20 * time.Millisecond}
		},
	}
	code, text := get(t, Handler(source))
	for _, want := range []string{
		`kube_router_bgp_peer_info{address="192.0.2.2",asn="64512",node="n2",state="established"} 1`,
		`kube_router_controller_bgp_advertisements_received{address="192.0.2.2"} 3`,
		`kube_router_controller_bgp_advertisements_sent{address="192.0.2.2"} 2`,
		`kube_router_host_routes_synced 5`,
		`k0s_network_routes{way="elsewhere"} 2`,
		`k0s_network_policies 7`,
		`k0s_network_policy_pods 5`,
		`k0s_network_policy_isolated_pods{direction="egress"} 1`,
		`k0s_network_policy_syncs_total 9`,
		`k0s_network_policy_restored_total 1`,
		`k0s_network_policy_last_sync_seconds 0.02`,
		`kube_router_build_info{`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	if code != http.StatusOK {
		t.Errorf("status %d", code)
	}

	source.BGP = func(context.Context) (bgp.Status, error) { return bgp.Status{}, errors.New("busy") }
	if _, text := get(t, Handler(source)); !strings.Contains(text, "k0s_network_policies 7") || strings.Contains(text, "peer_info") {
		t.Errorf("when one does not answer, the others are not heard:\n%s", text)
	}
	if _, text := get(t, Handler(Source{})); strings.Contains(text, "k0s_network") || !strings.Contains(text, "build_info") {
		t.Errorf("of what does not run:\n%s", text)
	}
}

func TestServe(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := netip.MustParseAddrPort(free.Addr().String())
	at := settings.Endpoint{Address: address.Addr(), Port: address.Port()}
	var trouble error
	health := Health(Source{Trouble: func() error { return trouble }})
	if err := Serve(t.Context(), at, "/healthz", health); err == nil || !strings.Contains(err.Error(), address.String()) {
		t.Errorf("a port that is taken: %v", err)
	}
	free.Close()

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, at, "/healthz", health) }()
	ask := func() (int, string) {
		for {
			resp, err := http.Get("http://" + address.String() + "/healthz")
			if err != nil { // not yet
				select {
				case err := <-done:
					t.Fatal(err)
				case <-time.After(time.Millisecond):
				}
				continue
			}
			defer resp.Body.Close()
			text, _ := io.ReadAll(resp.Body)
			return resp.StatusCode, string(text)
		}
	}
	if code, text := ask(); code != http.StatusOK || text != "OK\n" {
		t.Errorf("all is well: %d %q", code, text)
	}
	trouble = errors.New("no route")
	if code, text := ask(); code != http.StatusInternalServerError || text != "no route\n" {
		t.Errorf("in trouble: %d %q", code, text)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("ended with %v", err)
	}
}
