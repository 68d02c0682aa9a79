package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"k0s.io/k0s/internal/applet/name"
	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/internal/identity"
	"k0s.io/k0s/internal/kubeconfig"
	"k0s.io/k0s/internal/pki"
)

// users are the accounts that a controller's programs run as.
type users struct{ etcd, apiServer, scheduler, konnectivity host.User }

func (o Options) users() (u users, err error) {
	names := o.Config.Spec.InstallConfig.Users
	for _, l := range []struct {
		name string
		user *host.User
	}{{names.EtcdUser, &u.etcd}, {names.KubeAPIServerUser, &u.apiServer}, {names.KubeSchedulerUser, &u.scheduler}, {names.KonnectivityUser, &u.konnectivity}} {
		if *l.user, err = o.lookupUser(l.name); err != nil {
			return users{}, err
		}
	}
	return u, nil
}

// certificates makes the cluster's authorities and what a controller needs from them.
func certificates(o Options) component.Component {
	return component.Component{Name: "certificates", Start: func(context.Context) error { return makeCertificates(o) }}
}

// roots are what every other key of a cluster hangs on.
func roots(o Options) []string {
	if storeName(o.Config.Spec.Storage) == name.Etcd {
		return []string{"ca.crt", "etcd/ca.crt", "sa.key"}
	}
	return []string{"ca.crt", "sa.key"}
}

// checkRoots refuses to make the roots of a cluster a second time: nothing signed by the first would be
// valid any more, on no node.
func checkRoots(o Options) error {
	if o.Identity.State != identity.Member {
		return nil
	}
	for _, file := range roots(o) {
		if _, err := os.Stat(o.Layout.PKI(file)); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("this host is a member of cluster %s, but %s is gone: restore it from a backup; "+
				"a new one would void every certificate and token of the cluster", o.Identity.ClusterID, o.Layout.PKI(file))
		}
	}
	return nil
}

func makeCertificates(o Options) error {
	if err := checkRoots(o); err != nil {
		return err
	}
	u, err := o.users()
	if err != nil {
		return err
	}
	l, api := o.Layout, o.Config.Spec.API
	if err := host.MakeDir(l.PKI(), 0o751, 0); err != nil {
		return err
	}
	apiOwner := pki.Owner{UID: int(u.apiServer.UID)}

	ca, err := pki.EnsureCA(l.PKI("ca"), "kubernetes-ca", api.CA.ExpiresAfter.Duration, apiOwner)
	if err != nil {
		return err
	}
	frontProxyCA, err := pki.EnsureCA(l.PKI("front-proxy-ca"), "kubernetes-front-proxy-ca", api.CA.ExpiresAfter.Duration, pki.Owner{})
	if err != nil {
		return err
	}
	if err := pki.EnsureKeyPair(l.PKI("sa"), apiOwner); err != nil {
		return err
	}

	names, err := serverNames(o)
	if err != nil {
		return err
	}
	apiLife := api.CA.CertificatesExpireAfter.Duration
	certs := []signedBy{
		{ca, pki.Request{Path: l.PKI("server"), CommonName: "kubernetes", Organization: "kubernetes", Names: names, Server: true, Lifetime: apiLife, Owner: apiOwner}},
		{ca, pki.Request{Path: l.PKI("apiserver-kubelet-client"), CommonName: "apiserver-kubelet-client", Organization: "system:masters", Client: true, Lifetime: apiLife, Owner: apiOwner}},
		{frontProxyCA, pki.Request{Path: l.PKI("front-proxy-client"), CommonName: "front-proxy-client", Client: true, Lifetime: apiLife, Owner: apiOwner}},
		{ca, pki.Request{Path: l.PKI("admin"), CommonName: "kubernetes-admin", Organization: "system:masters", Client: true, Lifetime: apiLife}},
		// The managers serve with the certificate they have as clients: else each makes an RSA key at its start.
		{ca, pki.Request{Path: l.PKI("ccm"), CommonName: "system:kube-controller-manager", Organization: "system:kube-controller-manager", Names: local, Server: true, Client: true, Lifetime: apiLife, Owner: apiOwner}},
		{ca, pki.Request{Path: l.PKI("scheduler"), CommonName: "system:kube-scheduler", Organization: "system:kube-scheduler", Names: local, Server: true, Client: true, Lifetime: apiLife, Owner: pki.Owner{UID: int(u.scheduler.UID)}}},
	}
	if o.tunnel() {
		certs = append(certs, signedBy{ca, pki.Request{
			Path: l.PKI("konnectivity-server"), CommonName: "konnectivity-server", Names: append(names, o.tunnelNames()...), Server: true,
			Lifetime: apiLife, Owner: pki.Owner{UID: int(u.konnectivity.UID)},
		}})
	}
	if storeName(o.Config.Spec.Storage) == name.Etcd {
		etcdCerts, err := etcdCertificates(o, apiOwner, pki.Owner{UID: int(u.etcd.UID)})
		if err != nil {
			return err
		}
		certs = append(certs, etcdCerts...)
	}
	for _, c := range certs {
		if err := c.ca.Ensure(c.Request); err != nil {
			return fmt.Errorf("certificate %s: %w", c.Path, err)
		}
	}

	for _, k := range []struct {
		name string
		uid  uint32
	}{{"admin", 0}, {"ccm", u.apiServer.UID}, {"scheduler", u.scheduler.UID}} {
		config, err := inlineKubeconfig(l, k.name, api.LocalURL())
		if err != nil {
			return err
		}
		if err := kubeconfig.Write(l.PKI(k.name+".conf"), config, 0o600, int(k.uid)); err != nil {
			return err
		}
	}
	return nil
}

// local are the names of a server that only this host talks to.
var local = []string{"127.0.0.1", "localhost"}

type signedBy struct {
	ca *pki.CA
	pki.Request
}

// etcdCertificates are those that only an etcd of our own needs; its authority is made.
func etcdCertificates(o Options, apiOwner, etcdOwner pki.Owner) ([]signedBy, error) {
	l, etcd := o.Layout, o.Config.Spec.Storage.Etcd
	if err := host.MakeDir(l.PKI("etcd"), 0o711, 0); err != nil {
		return nil, err
	}
	ca, err := pki.EnsureCA(l.PKI("etcd", "ca"), "etcd-ca", etcd.CA.ExpiresAfter.Duration, pki.Owner{})
	if err != nil {
		return nil, err
	}
	life := etcd.CA.CertificatesExpireAfter.Duration
	return []signedBy{
		{ca, pki.Request{Path: l.PKI("apiserver-etcd-client"), CommonName: "apiserver-etcd-client", Organization: "apiserver-etcd-client", Names: local, Client: true, Lifetime: life, Owner: apiOwner}},
		// etcd's own gateway dials the server with the server's certificate: it is a client, too.
		{ca, pki.Request{Path: l.PKI("etcd", "server"), CommonName: "etcd-server", Organization: "etcd-server", Names: local, Server: true, Client: true, Lifetime: life, Owner: etcdOwner}},
		{ca, pki.Request{Path: l.PKI("etcd", "peer"), CommonName: etcd.PeerAddress, Organization: "etcd-peer", Names: []string{etcd.PeerAddress}, Server: true, Client: true, Lifetime: life, Owner: etcdOwner}},
	}, nil
}

// inlineKubeconfig carries certificate and key inside, so that it can be copied elsewhere.
func inlineKubeconfig(l host.Layout, name, server string) (c kubeconfig.Config, err error) {
	c.Server = server
	if c.CAData, err = os.ReadFile(l.PKI("ca.crt")); err != nil {
		return c, err
	}
	if c.CertData, err = os.ReadFile(l.PKI(name + ".crt")); err != nil {
		return c, err
	}
	c.KeyData, err = os.ReadFile(l.PKI(name + ".key"))
	return c, err
}

// serverNames are the names and addresses that the API server is reached by.
func serverNames(o Options) ([]string, error) {
	addrs, err := host.Addresses()
	if err != nil {
		return nil, err
	}
	var own []string
	for _, a := range addrs {
		own = append(own, a.String())
	}
	return o.Config.SANs(o.NodeName, append(own, "::1")), nil
}
