package v1beta1

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Ports that have no field of their own.
const (
	EtcdClientPort        = 2379
	EtcdPeerPort          = 2380
	KineMetricsPort       = 2380
	ControllerManagerPort = 10257
	SchedulerPort         = 10259
	kubeletPort           = 10250
	kubeletHealthPort     = 10248
)

const loopback = "127.0.0.1"

// listener is a port that something on a host listens on.
type listener struct {
	path    *field.Path // of the field that chooses the port; nil if none does
	address string      // empty: all addresses
	port    int
	who     string
}

func (l listener) collides(other listener) bool {
	return l.port == other.port && (l.address == other.address || isEverywhere(l.address) || isEverywhere(other.address))
}

func isEverywhere(address string) bool {
	ip, err := netip.ParseAddr(address)
	return address == "" || err == nil && ip.IsUnspecified()
}

// validatePorts checks the ports of a controller against each other, and those of a worker.
func (c *ClusterConfig) validatePorts(spec *field.Path) field.ErrorList {
	return append(collisions(c.controllerListeners(spec)), collisions(append(c.workerListeners(spec), c.balancer(spec)))...)
}

// collisions blames the later one of two with the same port; of one with a port of its own, the one that can be
// changed.
func collisions(listeners []listener) field.ErrorList {
	var errs field.ErrorList
	for i, l := range listeners {
		if l.path == nil {
			continue
		}
		isInTheWay := func(other listener) bool { return l.collides(other) }
		earlier := slices.IndexFunc(listeners[:i], isInTheWay)
		fixed := slices.IndexFunc(listeners, func(other listener) bool { return other.path == nil && isInTheWay(other) })
		if j := max(earlier, fixed); j >= 0 && l.port != 0 {
			errs = append(errs, field.Invalid(l.path, l.port, "is also the port of "+listeners[j].who))
		}
	}
	return errs
}

// controllerListeners lists what listens on every controller.
func (c *ClusterConfig) controllerListeners(spec *field.Path) []listener {
	var all string
	if c.Spec.API.OnlyBindToAddress {
		all = cmp.Or(c.Spec.API.Address, "this host's")
	}
	var listeners []listener
	for _, l := range []listener{
		{spec.Child("api", "port"), all, c.Spec.API.Port, ""},
		{spec.Child("api", "k0sApiPort"), all, c.Spec.API.K0sAPIPort, ""},
		{spec.Child("konnectivity", "adminPort"), loopback, c.Spec.Konnectivity.AdminPort, ""},
		{spec.Child("konnectivity", "agentPort"), all, c.Spec.Konnectivity.AgentPort, ""},
	} {
		l.who = l.path.String()
		listeners = append(listeners, l)
	}
	storage := c.Spec.Storage
	for _, l := range []struct {
		listener
		args Args
		flag string // that would choose another port
		runs bool
	}{
		{listener{nil, loopback, EtcdClientPort, "etcd's clients"}, storage.Etcd.Args, "listen-client-urls", storage.runsEtcd()},
		{listener{nil, cmp.Or(storage.Etcd.PeerAddress, c.Spec.API.Address, "this host's"), EtcdPeerPort, "etcd's peers"}, storage.Etcd.Args, "listen-peer-urls", storage.runsEtcd()},
		{listener{nil, loopback, KineMetricsPort, "kine's metrics"}, storage.Kine.Args, "metrics-bind-address", storage.Type == KineStorage},
		{listener{nil, loopback, ControllerManagerPort, "kube-controller-manager"}, c.Spec.ControllerManager.Args, "secure-port", true},
		{listener{nil, loopback, SchedulerPort, "kube-scheduler"}, c.Spec.Scheduler.Args, "secure-port", true},
	} {
		if l.runs && !l.args.sets(l.flag) {
			listeners = append(listeners, l.listener)
		}
	}
	return listeners
}

// sets tells whether the arguments have a flag.
func (a Args) sets(flag string) bool {
	_, extra := a.ExtraArgs[flag]
	return extra || slices.ContainsFunc(a.RawArgs, func(arg string) bool { return strings.HasPrefix(strings.TrimLeft(arg, "-"), flag) })
}

// balancer is that of a worker that is no controller.
func (c *ClusterConfig) balancer(spec *field.Path) listener {
	balancer, section := c.Spec.Network.NodeLocalLoadBalancing, "envoyProxy"
	if balancer.Type == "Traefik" {
		section = "traefik"
	}
	path := spec.Child("network", "nodeLocalLoadBalancing", section, "apiServerBindPort")
	return listener{path, loopback, balancer.BalancerPort(), path.String()}
}

// notANode warns of a controller that cannot be a worker, too: the workers' ports are taken.
func (c *ClusterConfig) notANode() []string {
	spec := field.NewPath("spec")
	var warnings []string
	for _, l := range c.controllerListeners(spec) {
		workers := c.workerListeners(spec)
		if i := slices.IndexFunc(workers, l.collides); i >= 0 && l.path != nil {
			warnings = append(warnings, fmt.Sprintf("%s (%d) is also the port of %s: with it, this controller cannot be a node, too", l.path, l.port, workers[i].who))
		}
	}
	return warnings
}

// workerListeners lists what listens on every node, whichever profile that has.
func (c *ClusterConfig) workerListeners(spec *field.Path) []listener {
	var listeners []listener
	if proxy := c.Spec.Network.KubeProxy; !proxy.Disabled {
		for _, field := range []struct{ name, address string }{
			{"metricsBindAddress", proxy.MetricsBindAddress}, {"healthzBindAddress", proxy.HealthzBindAddress},
		} {
			if bind, err := netip.ParseAddrPort(field.address); err == nil {
				path := spec.Child("network", "kubeProxy", field.name)
				listeners = append(listeners, listener{path, bind.Addr().String(), int(bind.Port()), path.String()})
			}
		}
	}
	if s, _ := c.Spec.Network.KubeRouter.Settings(); c.Spec.Network.Provider == KubeRouterProvider {
		listeners = append(listeners,
			listener{nil, "", int(s.Metrics.Port), "the pod network's metrics (spec.network.kuberouter)"},
			listener{nil, "", int(s.Health.Port), "the pod network's health (spec.network.kuberouter)"})
		if s.BGP.Enabled {
			listeners = append(listeners, listener{nil, "", int(s.BGP.Port), "BGP (spec.network.kuberouter)"})
		}
	}
	for _, name := range c.ProfileNames() {
		var kubelet struct{ Port, HealthzPort int }
		if settings, err := c.KubeletSettings(name); err == nil {
			_ = json.Unmarshal(settings, &kubelet) // what is no number is for the kubelet to refuse
		}
		listeners = append(listeners,
			listener{nil, "", cmp.Or(kubelet.Port, kubeletPort), fmt.Sprintf("the kubelet (of profile %s)", name)},
			listener{nil, loopback, cmp.Or(kubelet.HealthzPort, kubeletHealthPort), fmt.Sprintf("the kubelet's health (of profile %s)", name)})
	}
	return listeners
}
