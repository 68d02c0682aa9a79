package tunnelserver

import "github.com/prometheus/client_golang/prometheus"

// metrics are few: most of what happens here, the API server counts, too.
type metrics struct {
	registry            *prometheus.Registry
	agents, connections prometheus.Gauge
	failures            prometheus.Counter
}

func newMetrics() *metrics {
	m := &metrics{
		registry:    prometheus.NewRegistry(),
		agents:      prometheus.NewGauge(prometheus.GaugeOpts{Name: "k0s_tunnel_agents", Help: "Connections of nodes."}),
		connections: prometheus.NewGauge(prometheus.GaugeOpts{Name: "k0s_tunnel_connections", Help: "Connections of the API server through the tunnel."}),
		failures:    prometheus.NewCounter(prometheus.CounterOpts{Name: "k0s_tunnel_failures_total", Help: "Connections of the API server that did not come about."}),
	}
	m.registry.MustRegister(m.agents, m.connections, m.failures)
	return m
}
