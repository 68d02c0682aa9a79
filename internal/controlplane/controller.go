// Package controlplane holds the components of a controller.
package controlplane

import (
	"context"
	"log/slog"
	"slices"

	"k0s.io/k0s/internal/applet/name"
	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/internal/identity"
	"k0s.io/k0s/internal/joinapi"
	"k0s.io/k0s/internal/process"
	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
	"k0s.io/k0s/pkg/token"
)

// Options say what a controller is to be.
type Options struct {
	// NodeName is this machine's name.
	NodeName string
	// Identity is what this controller is meant to be; it becomes a member when its store has answered.
	Identity *identity.Identity
	Config   *v1beta1.ClusterConfig
	Layout   host.Layout
	// LogLevels of the programs, by name, as each understands them.
	LogLevels map[string]string
	// Alone: this is the only controller there is; nothing needs to be elected.
	Alone bool
	// Join is the token of a controller that is to join a cluster; nil if it was given none.
	Join *token.Join
	// ControllerManagerArgs come before spec.controllerManager.extraArgs.
	ControllerManagerArgs map[string]string
	// WithoutTunnel: the API server reaches nodes, pods and services by routes that there are.
	WithoutTunnel bool
	// Left is called when this controller has left its cluster: nothing of it has any use then.
	Left func()
	// DisabledStacks are those of our own stacks that the cluster is not to have.
	DisabledStacks []string
	Log            *slog.Logger
}

// Controller is what a controller consists of.
func Controller(o Options) component.Set {
	set := component.Set{
		join(o),
		certificates(o).Needs("join"),
		theStore(o).Needs("certificates"), // etcd, kine, or external-etcd
		membership(o).Needs(storeName(o.Config.Spec.Storage)),
		konnectivityServer(o).Needs("certificates"),
		apiServer(o).Needs("certificates", "membership", name.KonnectivityServer),
		apiReady(o).Needs(name.KubeAPIServer),
		controllerManager(o).Needs(API),
		scheduler(o).Needs(API),
		csrApprover(o).Needs(API),
		nodeRole(o).Needs(API),
		manifestDeployer(o).Needs(API),
	}
	if o.tunnel() {
		set = append(set, tunnelNodes(o).Needs(API))
	} else {
		set = set.Without(name.KonnectivityServer)
	}
	if !o.Alone {
		set = append(set, endpointReconciler(o).Needs(API))
	}
	if JoinURL(o) != "" {
		set = append(set, joinAPI(o).Needs(API))
	}
	if o.etcdGrows() {
		set = append(set, etcdPromoter(o).Needs("membership"), memberObjects(o).Needs(API))
	}
	return set
}

// Ports lists what a controller listens on that does without some components.
func Ports(c *v1beta1.ClusterConfig, alone bool, without []string) []host.Port {
	api := host.Port{Number: c.Spec.API.Port, Usage: "kube-apiserver (spec.api.port)"}
	if c.Spec.API.OnlyBindToAddress {
		api.Address = c.Spec.API.Address
	}
	ports := append([]host.Port{api}, storePorts(c.Spec.Storage)...)
	if !slices.Contains(without, name.KubeControllerManager) {
		ports = append(ports, host.Port{Address: "127.0.0.1", Number: v1beta1.ControllerManagerPort, Usage: name.KubeControllerManager})
	}
	if c.Spec.Storage.Joinable() && !alone && !slices.Contains(without, joinapi.Name) {
		join := host.Port{Number: c.Spec.API.K0sAPIPort, Usage: "the join API (spec.api.k0sApiPort)"}
		if c.Spec.API.OnlyBindToAddress {
			join.Address = c.Spec.API.Address
		}
		ports = append(ports, join)
	}
	if !alone && !slices.Contains(without, name.KonnectivityServer) {
		ports = append(ports, tunnelPorts(c)...)
	}
	if !slices.Contains(without, name.KubeScheduler) {
		ports = append(ports, host.Port{Address: "127.0.0.1", Number: v1beta1.SchedulerPort, Usage: name.KubeScheduler})
	}
	return ports
}

type check = func(context.Context) error

// spec is what all of a controller's programs have in common. user is the account that the program
// runs as; root where there is none of the default name.
func (o Options) spec(program, user string, args []string) (process.Spec, error) {
	u, err := o.lookupUser(user)
	return process.Spec{
		Args: args, Dir: o.Layout.DataDir, UID: u.UID, GID: u.GID,
		PIDFile: o.Layout.PIDFile(program), Log: o.Log.With("component", program),
	}, err
}

func (o Options) lookupUser(name string) (host.User, error) {
	u, ok, err := host.LookupUser(name)
	if err == nil && !ok {
		o.Log.Debug("No such user: its programs run as root", "user", name)
	}
	return u, err
}
