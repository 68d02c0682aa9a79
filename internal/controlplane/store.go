package controlplane

import (
	"context"
	"errors"
	"strings"
	"time"

	"k0s.io/k0s/internal/applet/name"
	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/flags"
	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/internal/identity"
	"k0s.io/k0s/internal/probe"
	"k0s.io/k0s/internal/store"
	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

// externalEtcd is the name of the component that waits for an etcd that k0s does not run.
const externalEtcd = "external-etcd"

// storeName is the name of the component that is the store: etcd, kine, or external-etcd.
func storeName(s v1beta1.StorageSpec) string {
	switch {
	case s.Type == v1beta1.KineStorage:
		return name.Kine
	case s.Etcd.ExternalCluster != nil:
		return externalEtcd
	default:
		return name.Etcd
	}
}

// theStore is ready once it answers.
func theStore(o Options) component.Component {
	switch storeName(o.Config.Spec.Storage) {
	case name.Kine:
		return kine(o)
	case externalEtcd:
		return waitForExternalEtcd(o)
	default:
		return etcd(o)
	}
}

// storeAccess is how the API server, and k0s itself, reach the store.
func (o Options) storeAccess() store.Access {
	switch storeName(o.Config.Spec.Storage) {
	case name.Kine:
		return kineAccess(o)
	case externalEtcd:
		return externalEtcdAccess(o)
	default:
		return etcdAccess(o.Layout)
	}
}

// StoreData is the file or directory on this host that is there if the data of the store is; empty for a
// store that keeps its data elsewhere.
func (o Options) StoreData() string {
	switch storeName(o.Config.Spec.Storage) {
	case name.Kine:
		return kineData(o)
	case externalEtcd:
		return ""
	default:
		return o.Layout.Etcd("member")
	}
}

// storePorts lists what the store listens on.
func storePorts(s v1beta1.StorageSpec) []host.Port {
	switch storeName(s) {
	case name.Kine:
		return kinePorts(s.Kine)
	case externalEtcd:
		return nil
	default:
		return []host.Port{
			{Address: "127.0.0.1", Number: v1beta1.EtcdClientPort, Usage: "etcd's clients"},
			{Address: s.Etcd.PeerAddress, Number: v1beta1.EtcdPeerPort, Usage: "etcd's peers"},
		}
	}
}

// storeFlags are the API server's.
func storeFlags(a store.Access) flags.Args {
	args := flags.Args{"etcd-servers": strings.Join(a.Endpoints, ",")}
	for flag, value := range map[string]string{
		"etcd-cafile": a.CAFile, "etcd-certfile": a.CertFile, "etcd-keyfile": a.KeyFile, "etcd-prefix": a.Prefix,
	} {
		if value != "" {
			args[flag] = value
		}
	}
	return args
}

// membership makes sure that the store is this cluster's, and notes that this node now belongs to the
// cluster: when the store has answered, and before the API server writes the first thing that must not
// be lost.
func membership(o Options) component.Component {
	return component.Component{Name: "membership", Ready: func(ctx context.Context) error {
		var refusal *store.Refusal
		err := probe.Until(ctx, func(ctx context.Context) error {
			err := o.storeAccess().Claim(ctx, o.Identity.ClusterID, o.Identity.State == identity.Founding)
			errors.As(err, &refusal)
			return err
		}, func() error {
			if refusal == nil {
				return nil
			}
			return refusal
		})
		if err != nil {
			return err
		}
		return o.Identity.SetMember()
	}}
}

// waitForExternalEtcd takes as long as it takes.
func waitForExternalEtcd(o Options) component.Component {
	return component.Component{Name: externalEtcd, Ready: func(ctx context.Context) error {
		return probe.Until(ctx, func(ctx context.Context) error {
			err := externalEtcdAccess(o).Ask(ctx)
			if err != nil { // it is not ours, and perhaps far away: once a second is enough
				select {
				case <-time.After(time.Second):
				case <-ctx.Done():
				}
			}
			return err
		}, nil)
	}}
}

func externalEtcdAccess(o Options) store.Access {
	e := o.Config.Spec.Storage.Etcd.ExternalCluster
	var endpoints []string
	for _, endpoint := range e.Endpoints {
		endpoints = append(endpoints, strings.TrimSuffix(endpoint, "/"))
	}
	return store.Access{
		Name:      "the etcd at " + strings.Join(endpoints, ",") + " under the prefix " + e.EtcdPrefix,
		Elsewhere: "another spec.storage.etcd.externalCluster.etcdPrefix",
		Endpoints: endpoints, CAFile: e.CAFile, CertFile: e.ClientCertFile, KeyFile: e.ClientKeyFile, Prefix: e.EtcdPrefix,
	}
}
