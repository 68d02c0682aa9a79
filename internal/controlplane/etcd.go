package controlplane

import (
	"net"
	"os"
	"strconv"
	"strings"

	"k0s.io/k0s/internal/applet/name"
	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/flags"
	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/internal/identity"
	"k0s.io/k0s/internal/probe"
	"k0s.io/k0s/internal/process"
	"k0s.io/k0s/internal/store"
)

const etcdClientURL = "https://127.0.0.1:2379"

func etcd(o Options) component.Component {
	l, access := o.Layout, etcdAccess(o.Layout)
	return process.Component(name.Etcd, func() (process.Spec, error) {
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
	}, probe.HTTP(etcdClientURL+"/readyz", access.CAFile, access.CertFile, access.KeyFile))
}

func etcdAccess(l host.Layout) store.Access {
	return store.Access{
		Name: "etcd on this host (" + l.Etcd() + ")", Elsewhere: "another --data-dir", Endpoints: []string{etcdClientURL},
		CAFile: l.PKI("etcd", "ca.crt"), CertFile: l.PKI("apiserver-etcd-client.crt"), KeyFile: l.PKI("apiserver-etcd-client.key"),
	}
}

func etcdArgs(o Options) []string {
	l, spec := o.Layout, o.Config.Spec.Storage.Etcd
	peer := "https://" + net.JoinHostPort(spec.PeerAddress, strconv.Itoa(etcdPeerPort))
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
