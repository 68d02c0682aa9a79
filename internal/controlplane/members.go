package controlplane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"k0s.io/k0s/internal/applet/name"
	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/etcdmembers"
	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/internal/identity"
	"k0s.io/k0s/internal/memberobjects"
)

// etcdGrows tells whether the store is an etcd of k0s that other controllers may join.
func (o Options) etcdGrows() bool {
	return JoinURL(o) != "" && storeName(o.Config.Spec.Storage) == name.Etcd
}

// memberObjects shows the members of etcd in the API, and lets this controller leave when it is asked to there.
func memberObjects(o Options) component.Component {
	log := o.Log.With("component", "etcd-members")
	return component.Background("etcd-members", func(ctx context.Context) error {
		config, err := o.adminConfig()
		if err != nil {
			return err
		}
		members, err := etcdmembers.Open(EtcdMembers(o.Layout))
		if err != nil {
			return err
		}
		defer members.Close()
		return memberobjects.Run(ctx, memberobjects.Options{
			Config: config, Members: members, Name: o.Identity.MemberName, Log: log,
			Leave: func(ctx context.Context, all []etcdmembers.Member, id uint64) error {
				if err := LeaveEtcd(ctx, o.Layout, members, o.Identity, all, id, log); err != nil {
					return err
				}
				o.Left()
				return nil
			},
			WasRemoved: func(ctx context.Context) bool {
				if !removed(ctx, o) {
					return false
				}
				if err := o.Identity.SetLeft(); err != nil {
					log.Warn("The other controllers have taken this one out of etcd, and this cannot be noted", "error", err)
				}
				o.Left()
				return true
			},
			// By these it can find out whether it is a member still, when it cannot start some day.
			Note: func(all []etcdmembers.Member, self uint64) error {
				return o.Identity.SetEtcd(self, etcdmembers.Pairs(all))
			},
		})
	}, log)
}

// wasRemoved adds to why etcd does not start that the others have taken it out, if they have.
func wasRemoved(ctx context.Context, o Options, err error) error {
	if !removed(ctx, o) {
		return err
	}
	return fmt.Errorf("this controller was taken out of its cluster's etcd while it was away, and its data is of no use to anybody: "+
		"run `k0s reset`, then it may join again (%w)", err)
}

// removed tells whether the other members say that this one is none any more.
func removed(ctx context.Context, o Options) bool {
	state, id, cluster := o.Identity.Etcd()
	if state != identity.Member || id == 0 {
		return false
	}
	standing, err := etcdmembers.Ask(ctx, EtcdMembers(o.Layout), cluster, id)
	return err == nil && standing == etcdmembers.Removed
}

// Resume has a controller that was stopped while it left go on as a member, if it is one still: etcd may have
// refused that it leaves. One that has left stays so.
func Resume(ctx context.Context, l host.Layout, self *identity.Identity) error {
	return resume(self, func() (etcdmembers.Standing, error) {
		return etcdmembers.Ask(ctx, EtcdMembers(l), self.InitialCluster, self.EtcdMember)
	})
}

func resume(self *identity.Identity, ask func() (etcdmembers.Standing, error)) error {
	if self.State != identity.Left || self.EtcdMember == 0 || len(self.InitialCluster) == 0 {
		return nil
	}
	standing, err := ask()
	switch {
	case err == nil && standing == etcdmembers.Known:
		return self.SetMember()
	case err == nil && standing == etcdmembers.Removed:
		return nil
	}
	others := slices.DeleteFunc(slices.Clone(self.InitialCluster), func(pair string) bool { return strings.HasPrefix(pair, self.MemberName+"=") })
	why := fmt.Errorf("this host was about to leave cluster %s when it was stopped, and no other controller says whether it has (asked %s): "+
		"if it has, run `k0s reset`; if not, start the others first, then this one", self.ClusterID, strings.Join(others, ", "))
	if err != nil {
		why = fmt.Errorf("%w (%w)", why, err)
	}
	return why
}

// leaver is what LeaveEtcd needs of etcd's members.
type leaver interface {
	CanLeave(ctx context.Context, all []etcdmembers.Member, id uint64) error
	Remove(ctx context.Context, id uint64, log *slog.Logger) error
}

// LeaveEtcd takes this controller's member out of etcd for good.
func LeaveEtcd(ctx context.Context, l host.Layout, m *etcdmembers.Members, self *identity.Identity, all []etcdmembers.Member, id uint64, log *slog.Logger) error {
	return leaveEtcd(ctx, m, self, all, id, log, func(ctx context.Context) bool { return hasGone(ctx, EtcdMembers(l), all, id) })
}

func leaveEtcd(ctx context.Context, m leaver, self *identity.Identity, all []etcdmembers.Member, id uint64, log *slog.Logger, hasGone func(context.Context) bool) error {
	if err := m.CanLeave(ctx, all, id); err != nil {
		return err
	}
	// First: killed in between, it must not start as if nothing had been. A start asks the others; see Resume.
	if err := self.SetLeft(); err != nil {
		return err
	}
	err := m.Remove(ctx, id, log)
	if err != nil {
		// Remove may have used up all the time there was.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		if hasGone(ctx) { // a member that is removed stops, and may not say any more that it was
			return nil
		}
		return errors.Join(err, self.SetMember())
	}
	return nil
}

// hasGone asks the other members whether this one is still among them.
func hasGone(ctx context.Context, access etcdmembers.Access, all []etcdmembers.Member, id uint64) bool {
	var others []string
	for _, member := range all {
		if member.ID != id && len(member.PeerURLs) > 0 {
			others = append(others, member.Name+"="+member.PeerURLs[0])
		}
	}
	for range 10 {
		if standing, err := etcdmembers.Ask(ctx, access, others, id); err == nil && standing == etcdmembers.Removed {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(200 * time.Millisecond): // they learn of it one after the other
		}
	}
	return false
}
