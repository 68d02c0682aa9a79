// Package etcd is the command `k0s etcd`.
package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"k0s.io/k0s/cmd/internal/cli"
	"k0s.io/k0s/internal/controlplane"
	"k0s.io/k0s/internal/etcdmembers"
	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/internal/identity"
)

// timeout of a command: a cluster without a majority does not answer at all.
const timeout = 30 * time.Second

// Command returns `k0s etcd`.
func Command() *cobra.Command {
	return cli.Group(&cobra.Command{Use: "etcd", Short: "See and change who is a member of the cluster's etcd"},
		memberList(), leave())
}

func memberList() *cobra.Command {
	var flags cli.Flags
	cmd := &cobra.Command{
		Use:   "member-list",
		Short: "Print the members of etcd, with their peer addresses, as JSON",
		Args:  cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withMembers(cmd.Context(), &flags, func(ctx context.Context, m *etcdmembers.Members, _ host.Layout) error {
				all, err := m.List(ctx)
				if err != nil {
					return err
				}
				list := struct {
					Members map[string]string `json:"members"`
				}{map[string]string{}}
				for _, member := range all {
					name := member.Name
					switch {
					case name == "":
						name = fmt.Sprintf("%x (never started)", member.ID)
					case member.Learner:
						name += " (learner)"
					}
					list.Members[name] = strings.Join(member.PeerURLs, ",")
				}
				return json.NewEncoder(cmd.OutOrStdout()).Encode(list)
			})
		},
	}
	flags.AddTo(cmd.Flags())
	return cmd
}

func leave() *cobra.Command {
	var (
		flags cli.Flags
		peer  string
	)
	cmd := &cobra.Command{
		Use:   "leave",
		Short: "Take a controller out of etcd for good",
		Long: "Takes a controller out of etcd for good: this one, or one that is lost, by its peer address. A controller that\n" +
			"has left cannot come back with its data: stop it and run `k0s reset` there; then it may join again.",
		Example: "  k0s etcd leave\n  k0s etcd leave --peer-address 192.0.2.12",
		Args:    cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withMembers(cmd.Context(), &flags, func(ctx context.Context, m *etcdmembers.Members, layout host.Layout) error {
				return remove(ctx, cmd, m, layout, peer, flags.Logger(cmd.ErrOrStderr(), false))
			})
		},
	}
	flags.AddTo(cmd.Flags())
	cmd.Flags().StringVar(&peer, "peer-address", "", "the peer address, or DNS name, of the controller (default: this one)")
	return cmd
}

func remove(ctx context.Context, cmd *cobra.Command, m *etcdmembers.Members, layout host.Layout, peer string, log *slog.Logger) error {
	dataDir := layout.DataDir
	self, err := identity.Read(dataDir)
	if err != nil {
		return err
	}
	if self == nil {
		return fmt.Errorf("there is no controller's data in %s: run this on a controller, with its --data-dir", dataDir)
	}
	all, err := m.List(ctx)
	if err != nil {
		return err
	}
	is := func(member etcdmembers.Member) bool { return member.Name == self.MemberName }
	wanted := is
	if peer != "" {
		url, err := etcdmembers.PeerURL(peer)
		if err != nil {
			return err
		}
		wanted = func(member etcdmembers.Member) bool { return slices.Contains(member.PeerURLs, url) }
	}
	i := slices.IndexFunc(all, wanted)
	switch {
	case i < 0 && peer == "":
		return errors.New("this controller is no member of etcd any more: stop it and run `k0s reset`")
	case i < 0:
		return fmt.Errorf("etcd has no member with the peer address %s: `k0s etcd member-list` shows all", peer)
	case len(all) == 1:
		return errors.New("this is the only member of etcd: without it there is no cluster; `k0s reset` gives it up")
	}
	if is(all[i]) {
		err = controlplane.LeaveEtcd(ctx, layout, m, self, all, all[i].ID, log)
	} else {
		err = m.Remove(ctx, all[i].ID, log)
	}
	if err != nil {
		return err
	}
	if is(all[i]) {
		_, err = fmt.Fprintln(cmd.OutOrStdout(), "This controller has left etcd. Stop k0s and run `k0s reset` here; then it may join again.")
	} else {
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s has left etcd. If it still runs, stop k0s and run `k0s reset` there.\n", all[i].Name)
	}
	return err
}

// withMembers lends the members of etcd, as this host's reaches them.
func withMembers(ctx context.Context, flags *cli.Flags, use func(ctx context.Context, m *etcdmembers.Members, layout host.Layout) error) error {
	if os.Geteuid() != 0 {
		return errors.New("only root may speak to etcd: use sudo")
	}
	layout, err := flags.Layout()
	if err != nil {
		return err
	}
	members, err := etcdmembers.Open(controlplane.EtcdMembers(layout))
	if err != nil {
		return fmt.Errorf("%w: is this a controller with an etcd of k0s, and has it started?", err)
	}
	defer members.Close()
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %v: does k0s run here, and most of the other controllers?", timeout))
	defer cancel()
	err = use(ctx, members, layout)
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w (%w)", context.Cause(ctx), err)
	}
	return err
}
