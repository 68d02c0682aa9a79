// Package node holds the components of a worker.
package node

import (
	"log/slog"
	"net/netip"
	"strings"

	"k0s.io/k0s/internal/applet/name"
	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/internal/journal"
	"k0s.io/k0s/internal/process"
	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

// Options say what a worker is to be.
type Options struct {
	// NodeName is this machine's name as a node.
	NodeName string
	// Addresses are this machine's. The first of each family is its address as a node. Without any, the
	// kubelet asks the DNS for its own name, which takes 10 s, twice, where no DNS answers.
	Addresses []netip.Addr
	// Moved is called with what Addresses are to be from now on, which may be the same, when those of the host
	// have changed. Without it, the node does not follow.
	Moved func(to []netip.Addr)
	// Config is that of the cluster.
	Config *v1beta1.ClusterConfig
	Layout host.Layout
	// Labels and Taints the node registers with.
	Labels map[string]string
	Taints []string
	// Controller is the address of the controller that this worker is a part of; empty if it is of none.
	Controller string
	// WithoutTunnel: the controllers reach this node and its pods by routes that there are.
	WithoutTunnel bool
	// Alone: there is no other node, and never will be.
	Alone bool
	// Profile names the worker profile; empty for the default one.
	Profile string
	// KubeletArgs override the kubelet's flags.
	KubeletArgs map[string]string
	// CloudProvider leaves initialising the node to an external cloud provider.
	CloudProvider bool
	// LogLevels of the programs, by name, as each understands them.
	LogLevels map[string]string
	// Network is what runs of the built-in network: the same one for all settings of a worker.
	Network *Network
	// Journal remembers what is changed on the host.
	Journal *journal.Journal
	Log     *slog.Logger
}

// Needs are the names of components, not of the worker's own, that a worker waits for.
type Needs struct {
	// Credentials provides the kubeconfigs of kubelet and kube-proxy.
	Credentials string
	// APIAnswers and APIReady are the API that these lead to, before and after it has its roles.
	APIAnswers, APIReady string
}

// Worker is what a worker consists of.
func Worker(o Options, needs Needs) component.Set {
	set := component.Set{
		helpers(o),
		kernel(o),
		containerd(o).Needs("helpers", "kernel"),
		images(o).Needs(name.Containerd),
		// Started before the API answers, the kubelet sits out time-outs of 10 s.
		kubelet(o).Needs(needs.Credentials, needs.APIAnswers, "images", "kernel"),
		registration(o).Needs(needs.Credentials, needs.APIAnswers),
		nodeAddress(o).Needs("registration"),
		kubeProxy(o).Needs("helpers", "registration", needs.APIReady),
	}
	if !o.Alone && !o.WithoutTunnel {
		set = append(set, controlTunnel(o).Needs(needs.Credentials, needs.APIAnswers))
	}
	if o.Config.Spec.Network.Provider == v1beta1.KubeRouterProvider {
		set = append(set, builtInNetwork(o, needs)...)
	}
	if o.Config.Spec.Network.KubeProxy.Disabled {
		set = append(set.Without(name.KubeProxy), withoutKubeProxy(o).Needs("helpers"))
	}
	return set
}

// builtInNetwork is what the provider kuberouter consists of.
func builtInNetwork(o Options, needs Needs) component.Set {
	settings, _ := o.Config.Spec.Network.KubeRouter.Settings()
	policies := &networkPolicies{Options: o, settings: settings.Policy}
	before := []string{"helpers", "kernel", "registration"}
	var set component.Set
	if settings.Policy.Enabled {
		set = append(set,
			policies.table().Needs("kernel", "registration"),
			policies.enforcement().Needs(policyTable, needs.APIReady))
		before = append(before, policyTable)
	} else {
		set = append(set, policies.none())
	}
	set = append(set, podNetwork(o).Needs(before...), podForwarding(o).Needs("helpers", "kernel"))
	if !o.Alone && settings.BGP.Enabled {
		set = append(set, routing(o).Needs("kernel", "registration", needs.APIReady))
	} else if !o.Alone {
		set = append(set, withoutRouting())
	}
	for i := range set {
		set[i] = o.Network.heard(set[i])
	}
	return append(set, networkReports(o, settings, set)...)
}

// Ports lists what a worker listens on.
func Ports(o Options) ([]host.Port, error) {
	kubelet, healthz, err := kubeletListens(o)
	if err != nil {
		return nil, err
	}
	ports := []host.Port{kubelet, healthz}
	if s, _ := o.Config.Spec.Network.KubeRouter.Settings(); o.Config.Spec.Network.Provider == v1beta1.KubeRouterProvider && !o.Alone && s.BGP.Enabled {
		for _, address := range strings.Split(o.nodeIPs(), ",") {
			ports = append(ports, host.Port{Address: address, Number: int(s.BGP.Port), Usage: "BGP (bgp-port in spec.network.kuberouter.extraArgs)"})
		}
	}
	if proxy := o.Config.Spec.Network.KubeProxy; !proxy.Disabled {
		for _, l := range []struct{ address, usage string }{
			{proxy.MetricsBindAddress, "kube-proxy's metrics (spec.network.kubeProxy.metricsBindAddress)"},
			{proxy.HealthzBindAddress, "kube-proxy's health (spec.network.kubeProxy.healthzBindAddress)"},
		} {
			if p, err := netip.ParseAddrPort(l.address); err == nil {
				ports = append(ports, host.Port{Address: p.Addr().String(), Number: int(p.Port()), Usage: l.usage})
			}
		}
	}
	return ports, nil
}

// spec is what all of a worker's programs have in common. Helpers are found before the host's
// programs of the same name.
func (o Options) spec(program string, args []string) process.Spec {
	return process.Spec{
		Args: args, Env: []string{"PATH=" + o.path()}, Dir: o.Layout.DataDir,
		PIDFile: o.Layout.PIDFile(program), Log: o.Log.With("component", program),
	}
}
