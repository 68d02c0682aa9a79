package v1beta1

import (
	"fmt"
	"net/netip"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Host is the host that a configuration is for.
type Host struct {
	// Addresses are those that others can use, the ones to be preferred first.
	Addresses []netip.Addr
	// DataDir is where k0s keeps its data.
	DataDir string
	// CanListen tells whether a program could listen on an address. nil: on any.
	CanListen func(netip.Addr) bool
	// HasUser tells whether there is a user. nil: any there may be.
	HasUser func(name string) bool
}

// OnHost completes a configuration, as [ClusterConfig.Complete] does, and tells
// what in it cannot be on that host.
func OnHost(h Host) Check {
	return func(c *ClusterConfig) []Problem {
		problems := c.complete(h)
		spec := field.NewPath("spec")
		errs := append(c.checkListening(spec, h), c.checkUsers(spec, h)...)
		return append(problems, problemsOf(errs, nil)...)
	}
}

// Complete fills what only the host can tell: spec.api.address, if empty, with the
// first of the host's addresses that is of the primary family, or with the first
// of all where that family is to follow from it; spec.storage.etcd.peerAddress, if empty, with
// spec.api.address; spec.storage.kine.dataSource, if empty and of use, with a
// SQLite database below dataDir. It then validates again, for a host address may
// collide with a CIDR; the error is an *[Error].
func (c *ClusterConfig) Complete(addresses []netip.Addr, dataDir string) error {
	if problems := c.complete(Host{Addresses: addresses, DataDir: dataDir}); len(problems) > 0 {
		return &Error{Problems: problems}
	}
	return nil
}

func (c *ClusterConfig) complete(h Host) []Problem {
	if c.Spec.API.Address == "" {
		open := c.Spec.Network.DualStack.Enabled && c.Spec.Network.PrimaryAddressFamily == AutoFamily && c.Spec.API.ExternalAddress == ""
		for _, address := range h.Addresses {
			if open || familyOf(address) == c.PrimaryFamily() {
				c.Spec.API.Address = address.String()
				break
			}
		}
	}
	if c.Spec.Storage.Etcd.PeerAddress == "" {
		c.Spec.Storage.Etcd.PeerAddress = c.Spec.API.Address
	}
	if c.Spec.Storage.Type == KineStorage && c.Spec.Storage.Kine.DataSource == "" {
		c.Spec.Storage.Kine.DataSource = defaultDataSource(h.DataDir)
	}
	var problems []Problem
	if c.Spec.API.Address == "" {
		problems = append(problems, noAddress(h, c.PrimaryFamily()))
	}
	return append(problems, problemsOf(c.Validate(), nil)...)
}

func noAddress(h Host, family AddressFamily) Problem {
	reason := fmt.Sprintf("required: no usable %s address was found on this host", family)
	if len(h.Addresses) == 0 {
		reason = "required: this host has no address but loopback, which nobody else can use, not even its pods: " +
			"bring a network interface up, or name the address here"
	}
	return Problem{Path: "spec.api.address", Reason: reason}
}

// checkListening tells which addresses the host does not have, though a program is to listen there.
// Others may be elsewhere, on a router that passes on what it gets.
func (c *ClusterConfig) checkListening(spec *field.Path, h Host) field.ErrorList {
	api, peer := spec.Child("api", "address"), spec.Child("storage", "etcd", "peerAddress")
	if c.Spec.Storage.Etcd.PeerAddress == c.Spec.API.Address {
		peer = api
	}
	var errs field.ErrorList
	for _, l := range []struct {
		path    *field.Path
		address string
		listens bool
		who     string
	}{
		{api, c.Spec.API.Address, c.Spec.API.OnlyBindToAddress, "kube-apiserver (spec.api.onlyBindToAddress)"},
		{peer, c.Spec.Storage.Etcd.PeerAddress, c.Spec.Storage.runsEtcd() && !c.Spec.Storage.Etcd.Args.sets("listen-peer-urls"), "etcd"},
	} {
		address, err := netip.ParseAddr(l.address)
		if err != nil || !l.listens || h.CanListen == nil || h.CanListen(address) {
			continue
		}
		errs = append(errs, field.Invalid(l.path, l.address, fmt.Sprintf("is no address of this host, and %s is to listen there: take one of %v", l.who, h.Addresses)))
	}
	return errs
}

// checkUsers tells which users were chosen that the host does not have.
func (c *ClusterConfig) checkUsers(spec *field.Path, h Host) field.ErrorList {
	users, standard := c.Spec.InstallConfig.Users, Default().Spec.InstallConfig.Users
	var errs field.ErrorList
	for _, u := range []struct {
		field, name, standard string
		runs                  bool
	}{
		{"etcdUser", users.EtcdUser, standard.EtcdUser, c.Spec.Storage.runsEtcd()},
		{"kineUser", users.KineUser, standard.KineUser, c.Spec.Storage.Type == KineStorage},
		{"konnectivityUser", users.KonnectivityUser, standard.KonnectivityUser, true},
		{"kubeAPIserverUser", users.KubeAPIServerUser, standard.KubeAPIServerUser, true},
		{"kubeSchedulerUser", users.KubeSchedulerUser, standard.KubeSchedulerUser, true},
	} {
		if u.runs && u.name != "" && u.name != u.standard && h.HasUser != nil && !h.HasUser(u.name) {
			errs = append(errs, field.Invalid(spec.Child("installConfig", "users", u.field), u.name,
				"is no user of this host (/etc/passwd), and what it is for would run as root: make it (useradd --system), or correct the name"))
		}
	}
	return errs
}
