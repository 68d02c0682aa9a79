package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"k0s.io/k0s/internal/applet/name"
	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/etcdmembers"
	"k0s.io/k0s/internal/file"
	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/internal/identity"
	"k0s.io/k0s/internal/joinapi"
)

// join makes this controller one of a cluster that is there already: it gets the cluster's keys, and
// becomes a member of its etcd. Each step is noted in the identity before the next, and may be repeated.
func join(o Options) component.Component {
	return component.Component{Name: "join", Start: func(ctx context.Context) error {
		if o.Identity.State != identity.Joining {
			return nil
		}
		if goesOn, err := hasBegun(ctx, o); err != nil || goesOn {
			return err
		}
		if o.Join == nil {
			return fmt.Errorf("this host was told to join a cluster, and has not become a member of it yet: it needs a join token to go on "+
				"(`k0s token create --role controller` on another controller); "+
				"`k0s reset` makes it forget that. It will not found a cluster of its own (see %s)", o.Layout.Identity())
		}
		client, err := joinapi.NewClient(o.Join, func(err error) { component.Report(ctx, err) })
		if err != nil {
			return err
		}
		o.Log.Info("Joining a cluster", "server", o.Join.URL)
		if err := getKeys(ctx, o, client); err != nil {
			return err
		}
		if storeName(o.Config.Spec.Storage) != name.Etcd {
			return nil
		}
		return joinEtcd(ctx, o, client)
	}}
}

// hasBegun tells whether this controller's etcd has started as a member before, and is one still. Then it
// is to be started again, and nobody asked: it may have got its vote, without which the others have no
// majority and cannot answer.
func hasBegun(ctx context.Context, o Options) (bool, error) {
	id := o.Identity
	if _, err := os.Stat(o.Layout.Etcd("member")); err != nil || id.EtcdMember == 0 {
		return false, nil
	}
	standing, err := etcdmembers.Ask(ctx, EtcdMembers(o.Layout), id.InitialCluster, id.EtcdMember)
	if err != nil {
		return false, err
	}
	if standing != etcdmembers.Removed {
		o.Log.Info("This host has begun to join before, and goes on")
		return true, nil
	}
	o.Log.Warn("This host's member of etcd was removed before it had joined: joining anew")
	if err := os.RemoveAll(o.Layout.Etcd("member")); err != nil {
		return false, err
	}
	return false, id.SetEtcd(0, nil)
}

func getKeys(ctx context.Context, o Options, client *joinapi.Client) error {
	keys, err := client.CA(ctx)
	if err != nil {
		return err
	}
	switch {
	case keys.ClusterID == "":
		return fmt.Errorf("the controller at %s does not say which cluster it is of: this k0s joins only clusters of its own kind", o.Join.URL)
	case o.Identity.ClusterID != "" && o.Identity.ClusterID != keys.ClusterID:
		return fmt.Errorf("this host has begun to join cluster %s, and the token is for cluster %s: take the right token, "+
			"or run `k0s reset` to forget the first", o.Identity.ClusterID, keys.ClusterID)
	}
	if err := o.Config.CheckFixed(keys.Founded); err != nil {
		return fmt.Errorf("this controller cannot join with its k0s.yaml:\n%w", err)
	}
	if err := host.MakeDir(o.Layout.PKI(), 0o751, 0); err != nil {
		return err
	}
	if err := writeKeys(map[string][]byte{
		o.Layout.PKI("ca.key"): keys.Key, o.Layout.PKI("ca.crt"): keys.Cert,
		o.Layout.PKI("sa.key"): keys.SAKey, o.Layout.PKI("sa.pub"): keys.SAPub,
		o.Layout.PKI("front-proxy-ca.key"): keys.FrontProxyKey, o.Layout.PKI("front-proxy-ca.crt"): keys.FrontProxyCert,
	}); err != nil {
		return err
	}
	return o.Identity.SetCluster(keys.ClusterID)
}

// joinEtcd becomes a learner. Data of a member that nobody knows is of no use to it.
func joinEtcd(ctx context.Context, o Options, client *joinapi.Client) error {
	answer, err := client.JoinEtcd(ctx, joinapi.EtcdRequest{Node: o.Identity.MemberName, PeerAddress: o.Config.Spec.Storage.Etcd.PeerAddress})
	if err != nil {
		return err
	}
	if err := os.RemoveAll(o.Layout.Etcd("member")); err != nil {
		return err
	}
	if err := host.MakeDir(o.Layout.PKI("etcd"), 0o711, 0); err != nil {
		return err
	}
	if err := writeKeys(map[string][]byte{o.Layout.PKI("etcd", "ca.key"): answer.CAKey, o.Layout.PKI("etcd", "ca.crt"): answer.CACert}); err != nil {
		return err
	}
	return o.Identity.SetEtcd(answer.MemberID, answer.InitialCluster)
}

func writeKeys(files map[string][]byte) error {
	for path, content := range files {
		if len(content) == 0 {
			continue // made here
		}
		mode := fs.FileMode(0o640)
		if ext := path[len(path)-4:]; ext == ".crt" || ext == ".pub" {
			mode = 0o644
		}
		if err := file.Write(path, content, mode, file.Options{Durable: true}); err != nil {
			return err
		}
	}
	return nil
}

// joinAPI lets other controllers join by this one.
func joinAPI(o Options) component.Component {
	l, api := o.Layout, o.Config.Spec.API
	options := joinapi.Options{
		Layout: l, Port: api.K0sAPIPort, CertFile: l.PKI("server.crt"), KeyFile: l.PKI("server.key"), CipherSuites: cipherSuites,
		ClusterID: o.Identity.Cluster, Founded: o.Config.Fixed(), Client: o.adminClient, Log: o.Log.With("component", joinapi.Name),
	}
	if api.OnlyBindToAddress {
		options.Address = api.Address
	}
	if storeName(o.Config.Spec.Storage) == name.Etcd {
		access := EtcdMembers(o.Layout)
		options.Etcd = &access
	}
	return joinapi.Component(options)
}

// EtcdMembers is how the members of etcd are reached by way of this host's.
func EtcdMembers(l host.Layout) etcdmembers.Access {
	a := etcdAccess(l)
	return etcdmembers.Access{
		Endpoints: a.Endpoints, CAFile: a.CAFile, CertFile: a.CertFile, KeyFile: a.KeyFile,
		PeerCertFile: l.PKI("etcd", "peer.crt"), PeerKeyFile: l.PKI("etcd", "peer.key"),
	}
}

// etcdPromoter gives those who have joined etcd their vote.
func etcdPromoter(o Options) component.Component {
	log := o.Log.With("component", "etcd-promoter")
	return component.Background("etcd-promoter", func(ctx context.Context) error {
		members, err := etcdmembers.Open(EtcdMembers(o.Layout))
		if err != nil {
			return err
		}
		defer members.Close()
		return members.Promote(ctx, etcdmembers.DefaultDeadline, log)
	}, log)
}

// Times of the election of who does what only one controller may do.
const (
	leaseDuration = 15 * time.Second
	renewDeadline = 10 * time.Second
	retryPeriod   = 2 * time.Second
)

// elected runs what only one controller of the cluster may do: on the one that holds the lease.
func (o Options) elected(lease string, run func(context.Context) error) func(context.Context) error {
	if o.Alone {
		return run
	}
	return func(ctx context.Context) error {
		client, err := o.adminClient()
		if err != nil {
			return err
		}
		return o.lead(ctx, client, lease, run)
	}
}

func (o Options) lead(ctx context.Context, client kubernetes.Interface, lease string, run func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var result error
	ran := make(chan struct{})
	started := false
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta: metav1.ObjectMeta{Name: lease, Namespace: metav1.NamespaceSystem}, Client: client.CoordinationV1(),
			// The same after a restart, so that it need not wait for its own lease to run out.
			LockConfig: resourcelock.ResourceLockConfig{Identity: o.Identity.MemberName},
		},
		LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod, ReleaseOnCancel: true, Name: lease,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) {
				started = true
				defer close(ran)
				result = run(ctx)
				cancel()
			},
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return err
	}
	elector.Run(ctx)
	if started {
		<-ran
	}
	if result == nil && ctx.Err() == nil {
		return errors.New("another controller has taken over the lease " + lease)
	}
	return result
}

// JoinURL is how other controllers reach the join API; empty where none can join.
func JoinURL(o Options) string {
	if o.Alone || !o.Config.Spec.Storage.Joinable() {
		return ""
	}
	return o.Config.Spec.API.JoinURL()
}
