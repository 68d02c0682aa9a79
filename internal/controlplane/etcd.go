package controlplane

import (
	"context"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"k0s.io/k0s/internal/applet/name"
	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/etcdmembers"
	"k0s.io/k0s/internal/flags"
	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/internal/identity"
	"k0s.io/k0s/internal/probe"
	"k0s.io/k0s/internal/process"
	"k0s.io/k0s/internal/store"
	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

const etcdClientURL = "https://127.0.0.1:2379"

func etcd(o Options) component.Component {
	l, access := o.Layout, etcdAccess(o.Layout)
	spec := func() (process.Spec, error) {
		spec, err := o.spec(name.Etcd, o.Config.Spec.InstallConfig.Users.EtcdUser, etcdArgs(o))
		if err != nil {
			return spec, err
		}
		if o.Identity.State == identity.Founding {
			// An earlier attempt at founding may have left a log without members, which etcd can never
			// start from. Nothing but etcd itself has written there yet: see membership.
			if err := os.RemoveAll(l.Etcd("member")); err != nil {
				return spec, err
			}
		}
		return spec, host.MakeTree(l.Etcd(), 0o700, int(spec.UID))
	}
	c := process.Component(name.Etcd, spec, probe.HTTP(etcdClientURL+"/readyz", access.CAFile, access.CertFile, access.KeyFile))
	start, ready := c.Start, c.Ready
	c.Ready = func(ctx context.Context) error {
		err := ready(ctx)
		if err != nil && ctx.Err() == nil {
			err = wasRemoved(ctx, o, err)
		}
		return err
	}
	c.Start = func(ctx context.Context) error {
		if o.Identity.State == identity.Joining {
			if err := catchUp(ctx, o, spec); err != nil {
				return err
			}
		}
		return start(ctx)
	}
	return c
}

// catchUp runs a joining controller's etcd until it has the cluster's data. etcd serves nobody before it sees
// that the others have noted its name, and misses that when it comes with the data as a whole: then it sits
// out 7 s. Started again with the data, it serves at once. Meanwhile it says that it has no clients, so that
// it is not given a vote before it is back.
func catchUp(ctx context.Context, o Options, spec func() (process.Spec, error)) error {
	id, access := o.Identity, EtcdMembers(o.Layout)
	const attempts = 10
	for attempt := 1; ; attempt++ {
		ended, err := runUntil(ctx, spec, func(ctx context.Context) error {
			return etcdmembers.CaughtUp(ctx, access, etcdPeerURL(o), id.EtcdMember)
		})
		if err == nil || !ended || attempt == attempts {
			return err
		}
		// When others join at the same time, it may be told of too few, or too many.
		members, err := etcdmembers.InitialCluster(ctx, access, id.InitialCluster, id.EtcdMember, id.MemberName)
		if err != nil {
			return err
		}
		if err := id.SetEtcd(id.EtcdMember, members); err != nil {
			return err
		}
	}
}

// runUntil runs etcd once, until check succeeds. It tells whether etcd has ended before by itself.
func runUntil(ctx context.Context, spec func() (process.Spec, error), check func(context.Context) error) (ended bool, err error) {
	s, err := spec()
	if err != nil {
		return false, err
	}
	s.Name, s.Args = name.Etcd, append(slices.Clone(s.Args), "--advertise-client-urls="+etcdmembers.NoClients)
	p, err := process.Start(s)
	if err != nil {
		return false, err
	}
	defer func() { _ = p.Stop(context.WithoutCancel(ctx)) }() // the next start makes sure that it is gone
	err = probe.Until(ctx, check, func() error {
		reason := p.Ended()
		ended = reason != nil
		return reason
	})
	return ended, err
}

func etcdPeerURL(o Options) string {
	return "https://" + net.JoinHostPort(o.Config.Spec.Storage.Etcd.PeerAddress, strconv.Itoa(v1beta1.EtcdPeerPort))
}

// maxLearners is how many controllers may be joining at the same time. etcd must have the same on all of
// them, so it never changes.
const maxLearners = "8"

func etcdAccess(l host.Layout) store.Access {
	return store.Access{
		Name: "etcd on this host (" + l.Etcd() + ")", Elsewhere: "another --data-dir", Endpoints: []string{etcdClientURL},
		CAFile: l.PKI("etcd", "ca.crt"), CertFile: l.PKI("apiserver-etcd-client.crt"), KeyFile: l.PKI("apiserver-etcd-client.key"),
	}
}

func etcdArgs(o Options) []string {
	l, spec := o.Layout, o.Config.Spec.Storage.Etcd
	peer := etcdPeerURL(o)
	args := flags.Args{
		"name":                        o.Identity.MemberName,
		"data-dir":                    l.Etcd(),
		"listen-client-urls":          etcdClientURL,
		"advertise-client-urls":       etcdClientURL,
		"client-cert-auth":            "true",
		"cert-file":                   l.PKI("etcd", "server.crt"),
		"key-file":                    l.PKI("etcd", "server.key"),
		"trusted-ca-file":             l.PKI("etcd", "ca.crt"),
		"listen-peer-urls":            peer,
		"initial-advertise-peer-urls": peer,
		"initial-cluster":             o.Identity.MemberName + "=" + peer,
		"peer-client-cert-auth":       "true",
		"peer-cert-file":              l.PKI("etcd", "peer.crt"),
		"peer-key-file":               l.PKI("etcd", "peer.key"),
		"peer-trusted-ca-file":        l.PKI("etcd", "ca.crt"),
		"tls-min-version":             "TLS1.2",
		"max-learners":                maxLearners,
		"log-level":                   o.LogLevels[name.Etcd],
	}
	if len(o.Identity.InitialCluster) > 0 {
		args["initial-cluster"], args["initial-cluster-state"] = strings.Join(o.Identity.InitialCluster, ","), "existing"
	}
	if o.Alone {
		// After a restart a member sits an election time-out out before it elects itself.
		args["heartbeat-interval"], args["election-timeout"] = "50", "250" // ms
	}
	return flags.Compute(args, spec.ExtraArgs, spec.RawArgs)
}
