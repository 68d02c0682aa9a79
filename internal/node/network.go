package node

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/network/kuberouter/bgp"
	"k0s.io/k0s/internal/network/kuberouter/metrics"
	"k0s.io/k0s/internal/network/kuberouter/policy"
	"k0s.io/k0s/internal/network/kuberouter/routes"
	"k0s.io/k0s/internal/network/kuberouter/settings"
)

// Network is what runs of the built-in network: those who tell of it outlive a change of settings that starts
// parts of it anew.
type Network struct {
	policies atomic.Pointer[policy.Controller] // nil until the table is there
	router   atomic.Pointer[router]            // nil while it does not run
	running  sync.Map                          // by the names of components: func() error, their trouble
}

// heard is a component whose trouble is known while it runs.
func (n *Network) heard(c component.Component) component.Component {
	if c.Trouble == nil {
		return c
	}
	start, stop := c.Start, c.Stop
	c.Start = func(ctx context.Context) error {
		n.running.Store(c.Name, c.Trouble)
		return start(ctx)
	}
	c.Stop = func(ctx context.Context) error {
		n.running.Delete(c.Name)
		return stop(ctx)
	}
	return c
}

// troubles tell what is wrong with those parts that run.
func (n *Network) troubles(parts component.Set) func() error {
	return func() error {
		var errs []error
		for _, part := range parts {
			running, _ := n.running.Load(part.Name)
			if trouble, ok := running.(func() error); ok {
				errs = append(errs, trouble())
			}
		}
		return errors.Join(errs...)
	}
}

// policy tells how network policies stand; all zero until there is a table.
func (n *Network) policy() policy.Snapshot {
	if c := n.policies.Load(); c != nil {
		return c.Snapshot()
	}
	return policy.Snapshot{}
}

func (n *Network) bgp(ctx context.Context) (bgp.Status, error) {
	if r := n.router.Load(); r != nil {
		return r.speaker.Status(ctx)
	}
	return bgp.Status{}, errors.New("the BGP speaker does not run")
}

func (n *Network) routes() routes.Status {
	if r := n.router.Load(); r != nil {
		return r.table.Status()
	}
	return routes.Status{}
}

// networkReports tell Prometheus and load balancers how the network is. parts are what it consists of.
func networkReports(o Options, s settings.Settings, parts component.Set) component.Set {
	source := metrics.Source{Trouble: o.Network.troubles(parts)}
	if s.Policy.Enabled {
		source.Policy = o.Network.policy
	}
	if !o.Alone && s.BGP.Enabled {
		source.BGP, source.Routes = o.Network.bgp, o.Network.routes
	}
	var set component.Set
	if s.Metrics.Port != 0 {
		log := o.Log.With("component", networkMetrics)
		set = append(set, component.Background(networkMetrics, func(ctx context.Context) error {
			return metrics.Serve(ctx, s.Metrics, s.MetricsPath, metrics.Handler(source))
		}, log))
	}
	if s.Health.Port != 0 {
		log := o.Log.With("component", networkHealth)
		set = append(set, component.Background(networkHealth, func(ctx context.Context) error {
			return metrics.Serve(ctx, s.Health, "/healthz", metrics.Health(source))
		}, log))
	}
	return set
}

// The components that answer over HTTP.
const (
	networkMetrics = "network-metrics"
	networkHealth  = "network-health"
)
