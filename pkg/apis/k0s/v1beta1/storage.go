package v1beta1

import (
	"net/url"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// StorageType is a kind of cluster store.
type StorageType string

const (
	// EtcdStorage keeps the state in etcd.
	EtcdStorage StorageType = "etcd"
	// KineStorage keeps the state in a SQL database or in NATS.
	KineStorage StorageType = "kine"
)

// StorageSpec says where the cluster keeps its state.
type StorageSpec struct {
	// Type is the kind of store: etcd (built in, or an external one), or kine
	// for a SQL database or NATS. The default is etcd also for a single node
	// (upstream k0s: kine), so that it can grow to more controllers later.
	Type StorageType `json:"type" scope:"cluster" change:"redeploy" enum:"etcd,kine" example:"kine"`
	// Etcd configures etcd; without effect for another type.
	Etcd EtcdSpec `json:"etcd"`
	// Kine configures kine; without effect for another type.
	Kine KineSpec `json:"kine,omitzero"`
}

// EtcdSpec configures etcd.
type EtcdSpec struct {
	// PeerAddress is the address other etcd members reach this one at.
	// Empty: the value of spec.api.address.
	PeerAddress string `json:"peerAddress,omitempty" scope:"node" change:"restart" default:"spec.api.address" example:"192.0.2.10"`
	// ExternalCluster is an etcd that k0s does not run. Then there is none on
	// this host: extraArgs and rawArgs must be left out, and the other fields
	// beside this one have no effect.
	ExternalCluster *ExternalCluster `json:"externalCluster,omitempty"`
	// Args are further arguments of etcd.
	Args `json:",inline" scope:"node"`
	// CA is the authority of etcd, a separate one.
	CA CASpec `json:"ca"`
}

// ExternalCluster is an etcd that k0s does not run.
type ExternalCluster struct {
	// Endpoints are the URLs of its members. Required.
	Endpoints []string `json:"endpoints" scope:"cluster" change:"restart" example:"[\"https://192.0.2.21:2379\", \"https://192.0.2.22:2379\"]"`
	// EtcdPrefix is what the keys of this cluster begin with. Required, and
	// different for each cluster on the same etcd.
	EtcdPrefix string `json:"etcdPrefix" scope:"cluster" change:"redeploy" example:"/clusters/one"`
	// CAFile is the authority of etcd's certificates, as PEM. Together with
	// clientCertFile and clientKeyFile, or none of them: then an https endpoint's
	// certificate must be of an authority that this host trusts.
	CAFile string `json:"caFile,omitempty" scope:"node" change:"restart" example:"/etc/k0s/etcd-ca.crt"`
	// ClientCertFile is the certificate k0s shows to etcd, as PEM.
	ClientCertFile string `json:"clientCertFile,omitempty" scope:"node" change:"restart" example:"/etc/k0s/etcd-client.crt"`
	// ClientKeyFile is its key, as PEM. kube-apiserver's user must be able to
	// read it.
	ClientKeyFile string `json:"clientKeyFile,omitempty" scope:"node" change:"restart" example:"/etc/k0s/etcd-client.key"`
}

// KineSpec configures kine.
type KineSpec struct {
	// DataSource is the URL of the database, in the form that its driver wants.
	// Such are postgres://user:password@192.0.2.30:5432/k0s?sslmode=verify-full,
	// mysql://user:password@tcp(192.0.2.30:3306)/k0s,
	// nats://user:password@192.0.2.30:4222?bucket=k0s and sqlite:///srv/k0s.db.
	// What is special in a password is percent-encoded (%2F for /), but with
	// mysql, where it stands as it is. Empty: SQLite in
	// <data-dir>/db/state.db, also when another data directory was chosen. A
	// password in it never shows in a command line; mind the mode of k0s.yaml.
	DataSource string `json:"dataSource,omitempty" scope:"cluster" change:"restart" default:"SQLite in <data-dir>/db/state.db" example:"postgres://k0s:password@192.0.2.30:5432/k0s"`
	// Args are further arguments of kine.
	Args `json:",inline" scope:"node"`
}

// schemes are the databases kine can talk to, by the scheme of the data source.
var schemes = []string{"sqlite", "postgres", "postgresql", "mysql", "nats"}

// Joinable tells whether more controllers can share the store.
func (s StorageSpec) Joinable() bool {
	if s.Type == EtcdStorage {
		return true
	}
	// A NATS server is never inside kine here (upstream k0s: unless the URL says
	// noEmbed).
	scheme, _, ok := strings.Cut(s.Kine.DataSource, "://")
	return ok && scheme != "sqlite"
}

// runsEtcd tells whether controllers have an etcd of their own.
func (s StorageSpec) runsEtcd() bool { return s.Type == EtcdStorage && s.Etcd.ExternalCluster == nil }

func (s StorageSpec) validate(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	etcd := path.Child("etcd")
	errs = append(errs, validateHostAddress(etcd.Child("peerAddress"), s.Etcd.PeerAddress)...)
	errs = append(errs, s.Etcd.Args.validate(etcd)...)
	errs = append(errs, s.Etcd.Args.withoutMaxLearners(etcd)...)
	errs = append(errs, s.Etcd.CA.validate(etcd.Child("ca"))...)
	if s.Etcd.ExternalCluster != nil {
		errs = append(errs, s.Etcd.ExternalCluster.validate(etcd.Child("externalCluster"))...)
		const none = "does nothing beside externalCluster, where k0s runs no etcd: leave it out"
		if len(s.Etcd.ExtraArgs) > 0 {
			errs = append(errs, field.Forbidden(etcd.Child("extraArgs"), none))
		}
		if len(s.Etcd.RawArgs) > 0 {
			errs = append(errs, field.Forbidden(etcd.Child("rawArgs"), none))
		}
	}
	return append(errs, s.Kine.validate(path.Child("kine"))...)
}

// withoutMaxLearners refuses a flag with which members would judge differently who may join.
func (a Args) withoutMaxLearners(path *field.Path) field.ErrorList {
	const flag = "max-learners"
	const reason = "it must be the same on all controllers, or their data may come to differ for good: k0s sets it, leave it out"
	var errs field.ErrorList
	if _, ok := a.ExtraArgs[flag]; ok {
		errs = append(errs, field.Forbidden(path.Child("extraArgs").Key(flag), reason))
	}
	for i, arg := range a.RawArgs {
		if name, _, _ := strings.Cut(arg, "="); strings.HasPrefix(name, "-") && strings.TrimLeft(name, "-") == flag {
			errs = append(errs, field.Forbidden(path.Child("rawArgs").Index(i), reason))
		}
	}
	return errs
}

func (e ExternalCluster) validate(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(e.Endpoints) == 0 {
		errs = append(errs, field.Required(path.Child("endpoints"), "the URLs of etcd's members"))
	}
	for i, endpoint := range e.Endpoints {
		u, err := url.Parse(endpoint)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.TrimPrefix(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
			errs = append(errs, field.Invalid(path.Child("endpoints").Index(i), endpoint, "must be a URL such as https://192.0.2.21:2379"))
		}
	}
	if e.EtcdPrefix == "" {
		errs = append(errs, field.Required(path.Child("etcdPrefix"), "what this cluster's keys begin with, such as /k0s"))
	} else if strings.Trim(e.EtcdPrefix, "/") == "" || strings.ContainsAny(e.EtcdPrefix, " \t\r\n\x00") {
		errs = append(errs, field.Invalid(path.Child("etcdPrefix"), e.EtcdPrefix, "must be a path such as /k0s"))
	}
	files := []struct{ name, value string }{{"caFile", e.CAFile}, {"clientCertFile", e.ClientCertFile}, {"clientKeyFile", e.ClientKeyFile}}
	given := 0
	for _, f := range files {
		if f.value != "" {
			given++
		}
	}
	for _, f := range files {
		switch {
		case f.value == "" && given > 0:
			errs = append(errs, field.Required(path.Child(f.name), "caFile, clientCertFile and clientKeyFile go together"))
		case f.value != "" && !strings.HasPrefix(f.value, "/"):
			errs = append(errs, field.Invalid(path.Child(f.name), f.value, "must be an absolute path"))
		}
	}
	return errs
}

func (k KineSpec) validate(path *field.Path) field.ErrorList {
	errs := k.Args.validate(path)
	if _, ok := k.ExtraArgs["endpoint"]; ok {
		errs = append(errs, field.Forbidden(path.Child("extraArgs").Key("endpoint"), "everybody on the host could read the password in it: use dataSource"))
	}
	if k.DataSource == "" {
		return errs
	}
	scheme, rest, _ := strings.Cut(k.DataSource, "://")
	known := false
	for _, s := range schemes {
		known = known || s == scheme
	}
	// The value is not repeated: it may have a password in it.
	switch {
	case !known:
		errs = append(errs, field.Forbidden(path.Child("dataSource"), "must begin with sqlite://, postgres://, mysql:// or nats://"))
	case rest == "":
		errs = append(errs, field.Forbidden(path.Child("dataSource"), "must say where the database is, such as postgres://user:password@192.0.2.30/k0s"))
	case strings.ContainsAny(k.DataSource, "\r\n\x00"):
		errs = append(errs, field.Forbidden(path.Child("dataSource"), "must not contain line breaks or NUL bytes"))
	}
	return errs
}
