// Package metrics tells Prometheus, and whoever asks /healthz, how the built-in network is on this node.
package metrics

import (
	"context"
	"net/http"
	"runtime"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"k0s.io/k0s/internal/network/kuberouter/bgp"
	"k0s.io/k0s/internal/network/kuberouter/policy"
	"k0s.io/k0s/internal/network/kuberouter/routes"
	"k0s.io/k0s/internal/version"
)

// Source is asked each time. What is nil does not run on this node.
type Source struct {
	BGP    func(context.Context) (bgp.Status, error)
	Routes func() routes.Status
	Policy func() policy.Snapshot
	// Trouble is why the network is not as it should be; nil if it is.
	Trouble func() error
}

// Handler serves the metrics.
func Handler(s Source) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{s})
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}

// Health answers 200, or 500 and what is wrong.
func Health(s Source) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if err := s.Trouble(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = w.Write([]byte("OK\n"))
	})
}

// Names are kube-router's where the meaning is the same; others begin with k0s_network_.
var (
	buildInfo = describe("kube_router_build_info", "Which k0s this is.", "goversion", "version")
	peerInfo  = describe("kube_router_bgp_peer_info", "A BGP peer, and the state of the session with it.", "address", "asn", "node", "state")
	sent      = describe("kube_router_controller_bgp_advertisements_sent", "Routes that a BGP peer has been told of.", "address")
	received  = describe("kube_router_controller_bgp_advertisements_received", "Routes that a BGP peer has told of.", "address")
	synced    = describe("kube_router_host_routes_synced", "Routes of ours in the kernel.")

	byWay       = describe("k0s_network_routes", "Routes to other nodes' pods: direct, tunnelled, or left to other routers (elsewhere).", "way")
	policies    = describe("k0s_network_policies", "NetworkPolicy objects in the cluster.")
	pods        = describe("k0s_network_policy_pods", "Pods of this node that the table of network policies knows.")
	isolated    = describe("k0s_network_policy_isolated_pods", "Those of them that a policy selects.", "direction")
	policySyncs = describe("k0s_network_policy_syncs_total", "How often the table was compared with the API.")
	restored    = describe("k0s_network_policy_restored_total", "How often the table was put right after somebody else had changed it.")
	policySync  = describe("k0s_network_policy_last_sync_seconds", "How long the table took to follow the API, last time.")
)

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

type collector struct{ Source }

// Describe names what Collect may send.
func (c collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{buildInfo, peerInfo, sent, received, synced, byWay, policies, pods, isolated, policySyncs, restored, policySync} {
		out <- d
	}
}

// Collect asks everybody.
func (c collector) Collect(out chan<- prometheus.Metric) {
	is := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	count := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, value, labels...)
	}
	is(buildInfo, 1, runtime.Version(), version.String())
	if c.BGP != nil {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if status, err := c.BGP(ctx); err != nil {
			out <- prometheus.NewInvalidMetric(peerInfo, err)
		} else {
			for _, s := range status.Sessions {
				is(peerInfo, 1, s.Peer.String(), strconv.FormatUint(uint64(s.ASN), 10), s.Node, s.State)
				is(sent, float64(s.Advertised), s.Peer.String())
				is(received, float64(s.Received), s.Peer.String())
			}
		}
	}
	if c.Routes != nil {
		s := c.Routes()
		is(synced, float64(s.Direct+s.Tunnelled))
		is(byWay, float64(s.Direct), "direct")
		is(byWay, float64(s.Tunnelled), "tunnelled")
		is(byWay, float64(s.Elsewhere), "elsewhere")
	}
	if c.Policy != nil {
		s := c.Policy()
		is(policies, float64(s.Policies))
		is(pods, float64(s.Pods))
		is(isolated, float64(s.IsolatedIngress), "ingress")
		is(isolated, float64(s.IsolatedEgress), "egress")
		count(policySyncs, float64(s.Syncs))
		count(restored, float64(s.Restored))
		is(policySync, s.LastDuration.Seconds())
	}
}
