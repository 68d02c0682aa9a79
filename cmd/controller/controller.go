// Package controller is the command `k0s controller`.
package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"k0s.io/k0s/cmd/internal/cli"
	"k0s.io/k0s/cmd/internal/daemon"
	"k0s.io/k0s/internal/applet/name"
	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/controlplane"
	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/internal/identity"
	"k0s.io/k0s/internal/instance"
	"k0s.io/k0s/internal/manifests"
	"k0s.io/k0s/internal/node"
	"k0s.io/k0s/internal/status"
	"k0s.io/k0s/internal/version"
	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
	"k0s.io/k0s/pkg/token"
)

// flags of the command, beside the common ones.
type flags struct {
	cli.Flags
	worker            cli.WorkerFlags
	token             cli.TokenFlags
	programs          v1beta1.Programs
	thisHost          func(dataDir string) (v1beta1.Host, error)
	config            string
	single            bool
	enableWorker      bool
	noTaints          bool
	disableComponents []string
	managerArgs       string
}

// Command returns `k0s controller`. The programs check what k0s.yaml says about them.
func Command(programs v1beta1.Programs) *cobra.Command {
	f := flags{programs: programs, thisHost: cli.ThisHost}
	cmd := &cobra.Command{
		Use:     "controller [TOKEN]",
		Aliases: []string{"server"},
		Short:   "Run a controller: the control plane, with --single or --enable-worker a node, too",
		Long: "Runs a controller. Without a join token it founds a cluster, with one it joins the cluster that the token is of.\n\n" +
			"The token comes from `k0s token create --role controller` on another controller. It is needed once: a controller\n" +
			"that has joined starts without. It may be the argument, in a file, or in the environment variable " + cli.TokenVariable + ".",
		Example: "  k0s controller --single\n  k0s controller --config /etc/k0s/k0s.yaml --enable-worker\n  k0s controller --token-file /etc/k0s/token",
		Args:    f.token.Arg,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer cancel()
			return run(ctx, f, cmd)
		},
	}
	fs := cmd.Flags()
	f.AddTo(fs)
	f.worker.AddTo(fs)
	f.token.AddTo(fs)
	fs.StringVarP(&f.config, "config", "c", "", "k0s.yaml, or - for standard input (default /etc/k0s/k0s.yaml, if it is there)")
	fs.BoolVar(&f.single, "single", false, "be a cluster of one node: control plane and worker, nobody joins")
	fs.BoolVar(&f.enableWorker, "enable-worker", false, "be a node of the cluster, too")
	fs.BoolVar(&f.noTaints, "no-taints", false, "with --enable-worker: let any pod run here")
	fs.StringSliceVar(&f.disableComponents, "disable-components", nil, "leave these out: "+strings.Join(disableable(), ", "))
	fs.StringVar(&f.managerArgs, "kube-controller-manager-extra-args", "", "flags that override the controller manager's, as one string")
	return cmd
}

func run(ctx context.Context, f flags, cmd *cobra.Command) error {
	begin := time.Now()
	if os.Geteuid() != 0 {
		return errors.New("k0s controller must run as root: use sudo")
	}
	if err := f.token.Hide(); err != nil {
		return err
	}
	log := f.Logger(cmd.OutOrStdout(), true)
	f.ServeProfiles(log)
	// What an old unit file still names is looked at only where it is needed.
	join, tokenErr := f.token.Take(token.Controller)
	plan, err := f.plan(cmd, log)
	if err != nil {
		return err
	}
	layout := plan.controller.Layout
	socket := f.Socket(layout)
	release, err := daemon.Hold(layout, instance.RuntimeSpec{
		Role: identity.Controller, StatusSocket: socket, APIURL: plan.controller.Config.Spec.API.URL(),
		JoinURL: controlplane.JoinURL(plan.controller), SingleNode: f.single,
	}, log)
	if err != nil {
		return err
	}
	defer release()
	if err := daemon.Fit(preflight(ctx, plan), f.worker.IgnorePreflight, log); err != nil {
		return err
	}
	id, err := identify(ctx, plan.controller, plan.controller.StoreData(), join, tokenErr)
	if err != nil {
		return err
	}
	plan.controller.Identity, plan.controller.Join = id, join
	running, left := context.WithCancel(ctx)
	defer left()
	plan.controller.Left = left
	if plan.node.Journal, err = daemon.OpenJournal(layout, plan.workloads); err != nil {
		return err
	}
	engine, err := component.NewEngine(plan.components(), log)
	if err != nil {
		return err
	}
	warnings := append(plan.controller.Config.Warnings(), plan.controller.Warnings()...)
	for _, warning := range warnings {
		log.Warn("Configuration", "warning", warning)
	}
	if adapted := host.Warnings(); len(adapted) > 0 && plan.workloads {
		log.Warn("This host is not perfect, k0s adapts to it", "because", strings.Join(adapted, "; "))
		warnings = append(warnings, adapted...)
	}
	current := func() status.Status {
		s := daemon.Status(identity.Controller, layout, begin, warnings)
		s.Workloads, s.SingleNode, s.ClusterID, s.Components = plan.workloads, f.single, id.Cluster(), engine.Status()
		s.Ready = !component.AnyNot(s.Components, component.Ready)
		return s
	}
	stopStatus := daemon.ServeStatus(ctx, socket, current, log)
	log.Info("Starting k0s", "version", version.String(), "cluster", id.Cluster(), "node", plan.controller.NodeName,
		"address", plan.controller.Config.Spec.API.Address, "data-dir", layout.DataDir)
	go func() {
		select {
		case <-engine.Ready():
			daemon.Ready(begin, log)
		case <-ctx.Done():
		}
	}()
	err = engine.Run(running, daemon.StopTimeout)
	if id.State == identity.Left && ctx.Err() == nil {
		// Not ended: whatever keeps k0s running would start it again and again.
		log.Warn("This controller has left its cluster, and waits: stop k0s and run `k0s reset` here, then it may join again", "error", err)
		<-ctx.Done()
	}
	stopStatus()
	log.Info("k0s has stopped")
	return err
}

// plan is what is to be run.
type plan struct {
	controller controlplane.Options
	node       node.Options
	workloads  bool
	without    []string // components to leave out
}

// plan turns flags and configuration into what is to be run, refusing what makes no sense before
// anything is touched.
func (f *flags) plan(cmd *cobra.Command, log *slog.Logger) (*plan, error) {
	layout, err := host.NewLayout(f.DataDir, f.worker.KubeletRoot)
	if err != nil {
		return nil, err
	}
	here, err := f.thisHost(layout.DataDir)
	if err != nil {
		return nil, err
	}
	config, err := v1beta1.Load(f.config, cmd.InOrStdin(), f.programs, manifests.CheckPatches, controlplane.CheckKineUser, v1beta1.OnHost(here))
	if err != nil {
		return nil, err
	}
	managerArgs, err := cli.ExtraArgs("--kube-controller-manager-extra-args", f.managerArgs, name.KubeControllerManager, f.programs)
	if err != nil {
		return nil, err
	}
	workloads := f.single || f.enableWorker
	var taints []string
	if workloads && !f.single && !f.noTaints {
		taints = []string{"node-role.kubernetes.io/control-plane:NoSchedule"}
	}
	worker, err := f.worker.Node(layout, append([]netip.Addr{netip.MustParseAddr(config.Spec.API.Address)}, here.Addresses...), map[string]string{controlplane.RoleLabel: "control-plane"}, taints, f.programs, log)
	if err != nil {
		return nil, err
	}
	if _, err := config.KubeletSettings(f.worker.Profile); err != nil {
		return nil, fmt.Errorf("--profile: %w", err)
	}
	without, stacks, err := disabled(f.disableComponents, config, log)
	if err != nil {
		return nil, err
	}
	worker.Config, worker.Alone = config, f.single
	worker.Controller = config.Spec.API.Address
	worker.WithoutTunnel = slices.Contains(without, name.KonnectivityServer)
	return &plan{
		workloads: workloads,
		without:   without,
		controller: controlplane.Options{
			NodeName: worker.NodeName, Config: config, Layout: layout, LogLevels: worker.LogLevels, Alone: f.single,
			ControllerManagerArgs: managerArgs, WithoutTunnel: worker.WithoutTunnel, DisabledStacks: stacks, Log: log,
		},
		node: worker,
	}, nil
}

// identify returns what this node is, and refuses a configuration that its cluster cannot have any more.
// Until the cluster is founded, anything may change.
func identify(ctx context.Context, o controlplane.Options, store string, join *token.Join, tokenErr error) (*identity.Identity, error) {
	known, err := identity.Read(o.Layout.DataDir)
	if err != nil {
		return nil, err
	}
	if known != nil && known.State == identity.Left {
		if err := controlplane.Resume(ctx, o.Layout, known); err != nil {
			return nil, err
		}
	}
	// First: with another spec.storage, the data would be looked for in the wrong place.
	if known != nil && known.State == identity.Member {
		if err := o.Config.CheckFixed(known.Founded); err != nil {
			return nil, err
		}
	}
	if isNew := known == nil || known.State == identity.Joining; isNew && tokenErr != nil {
		return nil, tokenErr
	}
	begin := identity.Found
	switch {
	case join == nil:
	case o.Alone:
		return nil, errors.New("a controller with --single is a cluster of its own: give it no join token, or leave --single out")
	case known != nil && known.State == identity.Founding:
		return nil, fmt.Errorf("this host has begun to found a cluster of its own (%s): run `k0s reset` before it joins another", known.ClusterID)
	default:
		begin = identity.JoinedController
	}
	id, err := begin(o.Layout.DataDir, o.NodeName, store)
	if err != nil {
		return nil, err
	}
	return id, id.SetFounded(o.Config.Fixed())
}

// components is all that this controller consists of.
func (p *plan) components() component.Set {
	set := controlplane.Controller(p.controller)
	if p.workloads {
		set = append(set, controlplane.NodeCredentials(p.controller).Needs("certificates"))
		set = append(set, node.Worker(p.node, node.Needs{
			Credentials: "node-credentials", APIAnswers: "kube-apiserver", APIReady: controlplane.API,
		})...)
	}
	return set.Without(p.without...)
}

// preflight checks what would otherwise fail half-way.
func preflight(ctx context.Context, p *plan) error {
	errs := []error{daemon.FreeSpace(p.controller.Layout)}
	ports := controlplane.Ports(p.controller.Config, p.controller.Alone, p.without)
	if p.workloads {
		workers, err := node.Ports(p.node)
		if err != nil {
			return err
		}
		ports = append(ports, workers...)
		errs = append(errs, cli.FitForWorkloads())
	}
	errs = append(errs, collisions(ports))
	for _, port := range ports {
		errs = append(errs, host.FreeAddress(ctx, port.String(), port.Usage))
	}
	return errors.Join(errs...)
}

// collisions are ports of our own that are the same: what each of them is alone, free, says nothing of that.
func collisions(ports []host.Port) error {
	var errs []error
	for i, port := range ports {
		for _, other := range ports[:i] {
			if port.Collides(other) {
				errs = append(errs, fmt.Errorf("port %d is to be of both %s and %s: give one of them another port", port.Number, other.Usage, port.Usage))
			}
		}
	}
	return errors.Join(errs...)
}
