// Package worker is the command `k0s worker`.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"

	"k0s.io/k0s/cmd/internal/cli"
	"k0s.io/k0s/cmd/internal/daemon"
	"k0s.io/k0s/internal/balancer"
	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/internal/identity"
	"k0s.io/k0s/internal/instance"
	"k0s.io/k0s/internal/node"
	"k0s.io/k0s/internal/status"
	"k0s.io/k0s/internal/version"
	"k0s.io/k0s/internal/workerconfig"
	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
	"k0s.io/k0s/pkg/token"
)

type flags struct {
	cli.Flags
	worker cli.WorkerFlags
	token  cli.TokenFlags
}

// Command returns `k0s worker`. The programs know their flags.
func Command(programs v1beta1.Programs) *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "worker [TOKEN]",
		Short: "Run a worker: a node of a cluster that is controlled elsewhere",
		Long: "Runs a worker: a node of a cluster that is controlled elsewhere.\n\n" +
			"The join token comes from `k0s token create` on a controller. It is needed once: a worker that has joined\n" +
			"starts without. It may be the argument, in a file, or in the environment variable " + cli.TokenVariable + ".",
		Example: "  k0s worker --token-file /etc/k0s/token\n  k0s worker --profile dense --labels disk=fast \"$TOKEN\"",
		Args:    f.token.Arg,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer cancel()
			return run(ctx, f, programs, cmd)
		},
	}
	fs := cmd.Flags()
	f.AddTo(fs)
	f.worker.AddTo(fs)
	f.token.AddTo(fs)
	return cmd
}

func run(ctx context.Context, f flags, programs v1beta1.Programs, cmd *cobra.Command) error {
	begin := time.Now()
	if os.Geteuid() != 0 {
		return errors.New("k0s worker must run as root: use sudo")
	}
	if err := f.token.Hide(); err != nil {
		return err
	}
	log := f.Logger(cmd.OutOrStdout(), true)
	f.ServeProfiles(log)
	layout, err := host.NewLayout(f.DataDir, f.worker.KubeletRoot)
	if err != nil {
		return err
	}
	addresses, err := host.Addresses()
	if err != nil {
		return err
	}
	worker, err := f.worker.Node(layout, addresses, nil, nil, programs, log)
	if err != nil {
		return err
	}
	// What an old unit file still names is looked at only where it is needed.
	join, tokenErr := f.token.Take(token.Worker)

	socket := f.Socket(layout)
	release, err := daemon.Hold(layout, instance.RuntimeSpec{Role: identity.Worker, StatusSocket: socket}, log)
	if err != nil {
		return err
	}
	defer release()
	if known, err := identity.Read(layout.DataDir); err != nil {
		return err
	} else if (known == nil || known.State != identity.Member) && tokenErr != nil {
		return tokenErr
	}
	if err := daemon.Fit(errors.Join(daemon.FreeSpace(layout), cli.FitForWorkloads()), f.worker.IgnorePreflight, log); err != nil {
		return err
	}
	id, err := identity.Joined(layout.DataDir, worker.NodeName)
	if err != nil {
		return err
	}
	if worker.Journal, err = daemon.OpenJournal(layout, true); err != nil {
		return err
	}
	w := &running{id: id, node: worker, join: join, log: log, renew: make(chan struct{}, 1)}
	return w.run(ctx, socket, begin)
}

// running is a worker at work: first it joins, then it is a node.
type running struct {
	id   *identity.Identity
	node node.Options
	join *token.Join
	log  *slog.Logger

	joining, working atomic.Pointer[component.Engine]
	balance          atomic.Pointer[balancer.Balancer]
	settings         atomic.Pointer[workerconfig.Settings]
	addresses        atomic.Pointer[[]netip.Addr] // that the host has by now, if they have changed
	renew            chan struct{}                // tells that the settings or the addresses have changed
	port             int                          // of the balancer
}

func (w *running) run(ctx context.Context, socket string, begin time.Time) error {
	adapted := host.Warnings()
	if len(adapted) > 0 {
		w.log.Warn("This host is not perfect, k0s adapts to it", "because", strings.Join(adapted, "; "))
	}

	stopStatus := daemon.ServeStatus(ctx, socket, func() status.Status { return w.status(begin, adapted) }, w.log)
	defer func() {
		stopStatus()
		w.log.Info("k0s has stopped")
	}()

	w.log.Info("Starting k0s", "version", version.String(), "role", identity.Worker, "node", w.node.NodeName,
		"addresses", w.node.Addresses, "data-dir", w.node.Layout.DataDir)
	for {
		moves, err := w.joinAndWork(ctx, begin)
		if err != nil || !moves {
			return err
		}
		w.log.Info("The way to the API is to have another port of this host: starting anew", "instead-of", w.port)
	}
}

// joinAndWork is a member of the cluster, and a node of it, until ctx ends; or, said by true, until the balancer
// is to have another port.
func (w *running) joinAndWork(ctx context.Context, begin time.Time) (moves bool, err error) {
	w.working.Store(nil)
	joining, err := w.joiningSet(ctx)
	if err != nil {
		return false, err
	}
	engine, err := component.NewEngine(joining, w.log)
	if err != nil {
		return false, err
	}
	w.joining.Store(engine)
	// What joins goes on until all else has stopped: the kubelet's way to the API is part of it.
	joinCtx, stopJoining := context.WithCancel(context.WithoutCancel(ctx))
	defer stopJoining()
	stopOnSignal := context.AfterFunc(ctx, func() {
		if w.working.Load() == nil {
			stopJoining()
		}
	})
	defer stopOnSignal()
	ended := make(chan error, 1)
	go func() { ended <- engine.Run(joinCtx, daemon.StopTimeout) }()
	select {
	case err := <-ended:
		return false, err
	case <-engine.Ready():
	}
	moves, err = w.work(ctx, begin)
	stopJoining()
	return moves, errors.Join(err, <-ended)
}

// joiningSet is what brings a worker into its cluster, and keeps it in touch.
func (w *running) joiningSet(ctx context.Context) (component.Set, error) {
	layout := w.node.Layout
	settings := &node.Settings{Profile: w.node.Profile, Layout: layout, ClusterID: w.id.ClusterID, Changed: w.changed, Log: w.log}
	known, err := settings.Known()
	if err != nil {
		w.log.Warn("The settings of the last time are lost, asking the API", "error", err)
	}
	if current := w.settings.Load(); current != nil {
		known = current
	}
	if w.port, err = w.firstPort(ctx, known); err != nil {
		return nil, err
	}
	if w.join != nil && w.id.State != identity.Member {
		server, err := hostPort(w.join.URL)
		if err != nil {
			return nil, err
		}
		if err := w.id.SetAPIServers(server); err != nil {
			return nil, err
		}
	}
	bootstrap := node.Bootstrap{NodeName: w.node.NodeName, Layout: layout, Token: w.join, Server: "https://" + loopback(w.port), Log: w.log}
	if len(w.id.APIServers) == 0 {
		// Without token and without past, there is nothing to balance between: the bootstrap says so.
		return component.Set{bootstrap.Component()}, nil
	}
	fallback := slices.Clone(w.id.APIServers)
	if known != nil && known.Config.Spec.API.ExternalAddress != "" {
		host, port := known.Config.Spec.API.ExternalHostPort()
		fallback = append(fallback, net.JoinHostPort(host, strconv.Itoa(port)))
	}
	balance, err := balancer.New(balancer.Options{
		Listen: loopback(w.port), File: layout.DataDir + "/api-servers.json", Fallback: fallback,
		TLS: balancer.Credentials(layout.KubeletConf()), Log: w.log.With("component", "api-balancer"),
	})
	if err != nil {
		return nil, err
	}
	w.balance.Store(balance)
	servers := w.log.With("component", "api-servers")
	return component.Set{
		bootstrap.Component(),
		balance.Component().Needs("bootstrap"),
		settings.Component().Needs("bootstrap"),
		component.Background("api-servers", func(ctx context.Context) error {
			config, err := clientcmd.BuildConfigFromFlags("", layout.KubeletConf())
			if err != nil {
				return err
			}
			return balancer.Watch(ctx, config, balance.SetServers, servers)
		}, servers).Needs("bootstrap", "api-balancer"),
	}, nil
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// firstPort is the balancer's: that of the settings of the last time, else the default one; where something else
// has that, or is to have it, any.
func (w *running) firstPort(ctx context.Context, known *workerconfig.Settings) (int, error) {
	port := balancer.DefaultPort
	var others []host.Port
	if known != nil {
		port, others = known.Config.Spec.Network.NodeLocalLoadBalancing.BalancerPort(), w.otherPorts(known)
	}
	if portOf(port, others) == nil && host.FreeAddress(ctx, loopback(port), "") == nil {
		return port, nil
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", loopback(0))
	if err != nil {
		return 0, err
	}
	defer l.Close()
	address, err := netip.ParseAddrPort(l.Addr().String())
	return int(address.Port()), err
}

// otherPorts are those of the worker's other programs. What is wrong with the settings is said by checkPorts.
func (w *running) otherPorts(settings *workerconfig.Settings) []host.Port {
	ports, _ := node.Ports(w.optionsWith(settings))
	return ports
}

// portOf is an error if one of the worker's other programs is to have the port.
func portOf(port int, others []host.Port) error {
	i := slices.IndexFunc(others, func(p host.Port) bool { return p.Number == port })
	if i < 0 {
		return nil
	}
	return fmt.Errorf("port %d is also that of %s: choose another one (spec.network.nodeLocalLoadBalancing)", port, others[i].Usage)
}

func (w *running) wantedPort() int {
	return w.settings.Load().Config.Spec.Network.NodeLocalLoadBalancing.BalancerPort()
}

// moves tells whether the balancer is to have another port, and can.
func (w *running) moves(ctx context.Context) bool {
	others := w.otherPorts(w.settings.Load())
	if err := portOf(w.port, others); err != nil {
		w.log.Error("The way to the API cannot keep its port", "error", err)
		return true
	}
	if w.wantedPort() == w.port {
		return false
	}
	err := portOf(w.wantedPort(), others)
	if err == nil {
		err = host.FreeAddress(ctx, loopback(w.wantedPort()), "the way to the API (spec.network.nodeLocalLoadBalancing)")
	}
	if err != nil {
		w.log.Error("The way to the API cannot have the port that the controllers want, it has another", "port", w.port, "error", err)
		return false
	}
	return true
}

func hostPort(server string) (string, error) {
	u, err := url.Parse(server)
	if err != nil {
		return "", fmt.Errorf("the join token's server: %w", err)
	}
	if u.Port() == "" {
		return net.JoinHostPort(u.Hostname(), "443"), nil
	}
	return u.Host, nil
}

// changed is called with the first settings, and with all that differ from them later.
func (w *running) changed(settings *workerconfig.Settings) error {
	if w.settings.Swap(settings) == nil {
		return w.id.JoinedCluster(settings.ClusterID)
	}
	select {
	case w.renew <- struct{}{}:
	default: // it will be seen with the change before
	}
	return nil
}

// moved is called when the addresses of the host have changed, with those to go by from now on.
func (w *running) moved(to []netip.Addr) {
	present, err := host.AllAddresses()
	if b := w.balance.Load(); b != nil && err == nil {
		b.CloseFrom(func(a netip.Addr) bool { return !slices.Contains(present, a) })
	}
	w.addresses.Store(&to)
	select {
	case w.renew <- struct{}{}:
	default: // it will be seen with the change before
	}
}

// options are what the controllers make of this worker.
func (w *running) options() node.Options { return w.optionsWith(w.settings.Load()) }

func (w *running) optionsWith(settings *workerconfig.Settings) node.Options {
	o := w.node
	o.Config, o.WithoutTunnel, o.Moved = settings.Config, settings.WithoutTunnel, w.moved
	if addresses := w.addresses.Load(); addresses != nil {
		o.Addresses = *addresses
	}
	return o
}

// work is a node until ctx ends; or, said by true, until the balancer is to have another port. A change of the
// settings starts those of its components anew that it touches, and all of them if it is to consist of others.
func (w *running) work(ctx context.Context, begin time.Time) (moves bool, err error) {
	for {
		if w.moves(ctx) {
			return true, nil
		}
		current := w.options()
		if err := checkPorts(ctx, current); err != nil {
			return false, err
		}
		again, err := w.workWith(ctx, current, begin)
		if err != nil || !again {
			return false, err
		}
	}
}

// set is what a worker with these settings consists of.
func set(o node.Options) component.Set {
	return append(component.Set{{Name: "joined"}}, node.Worker(o, node.Needs{Credentials: "joined", APIAnswers: "joined", APIReady: "joined"})...)
}

// workWith is a node with given settings; again tells that it is to be one with others.
func (w *running) workWith(ctx context.Context, current node.Options, begin time.Time) (again bool, err error) {
	engine, err := component.NewEngine(set(current), w.log)
	if err != nil {
		return false, err
	}
	w.working.Store(engine)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- engine.Run(ctx, daemon.StopTimeout) }()
	select {
	case err := <-ended:
		return false, err
	case <-engine.Ready():
	}
	daemon.Ready(begin, w.log)
	for {
		select {
		case err := <-ended:
			return false, err
		case <-w.renew:
		}
		next := w.options()
		touched, sameSet, err := node.Changed(current, next)
		switch {
		case err != nil:
			w.log.Error("The controllers' settings are of no use to this worker", "error", err)
			continue
		case w.moves(ctx):
			stop()
			return true, <-ended
		case !sameSet:
			w.log.Info("The settings of the controllers make another worker of this one: starting it anew")
			stop()
			return true, <-ended
		case len(touched) > 0:
			if slices.Equal(current.Addresses, next.Addresses) {
				w.log.Info("The controllers' settings have changed", "restarting", touched)
			} else {
				w.log.Info("This host's addresses have changed, the node follows", "before", current.Addresses, "now", next.Addresses, "restarting", touched)
			}
			if err := engine.Replace(ctx, set(next), touched...); err != nil && ctx.Err() == nil {
				w.log.Error("With what has changed this worker does not work: starting it anew", "error", err)
				stop()
				return true, <-ended
			}
		}
		current = next
	}
}

func checkPorts(ctx context.Context, o node.Options) error {
	ports, err := node.Ports(o)
	if err != nil {
		return err
	}
	var errs []error
	for _, port := range ports {
		errs = append(errs, host.FreeAddress(ctx, port.String(), port.Usage))
	}
	return errors.Join(errs...)
}

func (w *running) status(begin time.Time, warnings []string) status.Status {
	s := daemon.Status(identity.Worker, w.node.Layout, begin, warnings)
	s.Workloads = true
	joining := w.joining.Load()
	if joining != nil {
		s.Components = joining.Status()
	}
	if settings := w.settings.Load(); settings != nil {
		s.ClusterID = settings.ClusterID
	}
	working := w.working.Load()
	if working != nil {
		s.Components = append(s.Components, working.Status()...)
	}
	s.Ready = joining != nil && working != nil && !component.AnyNot(s.Components, component.Ready)
	return s
}
