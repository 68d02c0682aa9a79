package controlplane

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"k0s.io/k0s/internal/applet/name"
	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/flags"
	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/internal/process"
	"k0s.io/k0s/internal/store"
	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

// kine speaks etcd's protocol for a database.
func kine(o Options) component.Component {
	return process.Component(name.Kine, func() (process.Spec, error) { return kineProcess(o) }, kineAccess(o).Ask)
}

func kineProcess(o Options) (process.Spec, error) {
	source := dataSource(o.Config.Spec.Storage.Kine.DataSource)
	spec, err := o.spec(name.Kine, kineUser(o.Config), kineArgs(o))
	if err != nil {
		return spec, err
	}
	u, err := o.users()
	if err != nil {
		return spec, err
	}
	if reason := strangers(spec.UID, u.apiServer); reason != "" {
		return spec, errors.New(reason)
	}
	// Everybody can see a command line; a process' environment only its user.
	spec.Env = []string{"KINE_ENDPOINT=" + source.endpoint()}
	spec.Redact = source.redact
	spec.Patient = source.scheme() != sqlite
	if err := host.MakeDir(filepath.Dir(o.Layout.KineSocket()), 0o700, int(spec.UID)); err != nil {
		return spec, err
	}
	if filepath.Dir(source.file(o.Layout.DataDir)) == o.Layout.DB() {
		err = host.MakeTree(o.Layout.DB(), 0o700, int(spec.UID))
	}
	return spec, err
}

// kineUser is who runs kine: unless somebody was chosen, the API server's user, if that is not root.
func kineUser(config *v1beta1.ClusterConfig) string {
	users := config.Spec.InstallConfig.Users
	apiServer, _, err := host.LookupUser(users.KubeAPIServerUser)
	if err == nil && apiServer.UID != 0 && users.KineUser == v1beta1.Default().Spec.InstallConfig.Users.KineUser {
		return users.KubeAPIServerUser
	}
	return users.KineUser
}

// CheckKineUser tells whether the API server will be let into kine's socket, as to the users of this host.
func CheckKineUser(config *v1beta1.ClusterConfig) []v1beta1.Problem {
	if config.Spec.Storage.Type != v1beta1.KineStorage {
		return nil
	}
	names := config.Spec.InstallConfig.Users
	kine, _, err := host.LookupUser(kineUser(config))
	apiServer, _, apiErr := host.LookupUser(names.KubeAPIServerUser)
	if err != nil || apiErr != nil {
		return nil // who needs the user will say so
	}
	if reason := strangers(kine.UID, apiServer); reason != "" {
		return []v1beta1.Problem{{Path: "spec.installConfig.users.kineUser", Value: names.KineUser, Reason: reason}}
	}
	return nil
}

// strangers says why kine does not let the API server in; empty if it does.
func strangers(kine uint32, apiServer host.User) string {
	if apiServer.UID == 0 || apiServer.UID == kine {
		return ""
	}
	return fmt.Sprintf("kine lets nobody but its own user use its socket, and kube-apiserver (user %s) must: "+
		"give kineUser and kubeAPIserverUser the same value", apiServer.Name)
}

func kineArgs(o Options) []string {
	args := flags.Args{
		"listen-address": "unix://" + o.Layout.KineSocket(),
		// Old revisions are removed when the API server asks for it, every five minutes, as from etcd.
		"compact-interval":     "0s",
		"metrics-bind-address": fmt.Sprintf("127.0.0.1:%d", v1beta1.KineMetricsPort),
		"log-format":           "json",
	}
	if level := o.LogLevels[name.Kine]; level == "debug" || level == "trace" {
		args["debug"] = "true"
	}
	return flags.Compute(args, o.Config.Spec.Storage.Kine.ExtraArgs, o.Config.Spec.Storage.Kine.RawArgs)
}

func kineAccess(o Options) store.Access {
	return store.Access{
		Name:      "the database " + dataSource(o.Config.Spec.Storage.Kine.DataSource).String(),
		Elsewhere: "another database in spec.storage.kine.dataSource",
		Endpoints: []string{"unix://" + o.Layout.KineSocket()},
	}
}

// kinePorts is where kine listens unless it was told otherwise.
func kinePorts(k v1beta1.KineSpec) []host.Port {
	const flag = "metrics-bind-address"
	_, other := k.ExtraArgs[flag]
	if other || slices.ContainsFunc(k.RawArgs, func(arg string) bool { return strings.HasPrefix(strings.TrimLeft(arg, "-"), flag) }) {
		return nil
	}
	return []host.Port{{Address: "127.0.0.1", Number: v1beta1.KineMetricsPort, Usage: "kine's metrics"}}
}

// kineData is the database file, where it is in the data directory.
func kineData(o Options) string {
	file := dataSource(o.Config.Spec.Storage.Kine.DataSource).file(o.Layout.DataDir)
	if !strings.HasPrefix(file, o.Layout.DataDir+"/") {
		return "" // it outlives a reset
	}
	return file
}

// Warnings lists what works, but may not for ever.
func (o Options) Warnings() []string {
	s := o.Config.Spec.Storage
	if o.Alone || s.Joinable() {
		return nil
	}
	return []string{fmt.Sprintf("spec.storage: the database %s is on this host alone: no other controller can join this cluster",
		dataSource(s.Kine.DataSource))}
}

// dataSource is a value of spec.storage.kine.dataSource. It may hold a password: String leaves it out.
type dataSource string

const sqlite = "sqlite"

func (d dataSource) scheme() string {
	scheme, _, _ := strings.Cut(string(d), "://")
	return scheme
}

// String says which database it is, without user, password and parameters.
func (d dataSource) String() string {
	scheme, rest, _ := strings.Cut(string(d), "://")
	rest = rest[strings.LastIndex(rest, "@")+1:]
	rest, _, _ = strings.Cut(rest, "?")
	if scheme == sqlite {
		return strings.TrimPrefix(rest, "file:")
	}
	return scheme + "://" + rest
}

// sqliteDefaults are for several connections that write to one file: a log ahead of writing, the lock for
// writing from the beginning of a transaction, and patience while another has it. Each transaction is on
// the disk when it has ended, as with etcd: nodes must not know of anything that is lost with the power.
var sqliteDefaults = [][2]string{
	{"_journal_mode", "WAL"}, {"_busy_timeout", "30000"}, {"_synchronous", "FULL"}, {"_txlock", "immediate"}, {"_stmt_cache_size", "20"},
}

// sqliteShort are other names for these.
var sqliteShort = map[string]string{"_journal_mode": "_journal", "_busy_timeout": "_timeout", "_synchronous": "_sync"}

// endpoint is what kine is to be told. For SQLite that is with what else it needs, and without "file:",
// which this kine would take for a part of the path.
func (d dataSource) endpoint() string {
	rest, ok := strings.CutPrefix(string(d), sqlite+"://")
	if !ok {
		return string(d)
	}
	path, parameters, _ := strings.Cut(strings.TrimPrefix(rest, "file:"), "?")
	given, err := url.ParseQuery(parameters)
	if err != nil {
		return string(d) // kine will say what is wrong with it
	}
	for _, p := range sqliteDefaults {
		if !given.Has(p[0]) && !given.Has(sqliteShort[p[0]]) {
			parameters = strings.TrimPrefix(parameters+"&"+p[0]+"="+p[1], "&")
		}
	}
	return sqlite + "://" + path + "?" + parameters
}

// file is the path of a SQLite database, which may be relative to dir; empty for other databases.
func (d dataSource) file(dir string) string {
	if d.scheme() != sqlite {
		return ""
	}
	path, err := url.PathUnescape(d.String())
	if err != nil {
		path = d.String()
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	return filepath.Clean(path)
}

// storedValue is a value that was to be stored, in what kine says of a request that failed.
var storedValue = regexp.MustCompile(`value: *"(?:[^"\\]|\\.)*("|$)`)

// redact takes out of a line of kine's log what nobody is to read: passwords, and what is stored in the
// cluster, the Secrets among it.
func (d dataSource) redact(line string) string {
	for _, secret := range d.secrets() {
		line = strings.ReplaceAll(line, secret, "***")
	}
	line = storedValue.ReplaceAllString(line, `value:"***"`)
	if i := strings.Index(line, `value:\"`); i >= 0 { // an overlong line of JSON without its end
		line = line[:i] + "value:***"
	}
	return line
}

// secrets are all of the data source that must not be read in a log, longer ones first.
func (d dataSource) secrets() []string {
	if d.scheme() == sqlite {
		return nil
	}
	_, rest, _ := strings.Cut(string(d), "://")
	secrets := []string{string(d), rest}
	add := func(secret string) {
		plain, err := url.PathUnescape(secret)
		if err != nil {
			plain = secret
		}
		secrets = append(secrets, secret, plain)
	}
	// A list of URLs may have a password in each; a password may have a comma in it.
	for _, part := range append(strings.Split(rest, ","), rest) {
		if _, after, ok := strings.Cut(part, "://"); ok {
			part = after
		}
		at := strings.LastIndex(part, "@")
		if at < 0 {
			continue
		}
		add(part[:at])
		if _, password, ok := strings.Cut(part[:at], ":"); ok {
			add(password)
		}
	}
	if _, parameters, ok := strings.Cut(rest, "?"); ok {
		for _, parameter := range strings.Split(parameters, "&") {
			if key, value, _ := strings.Cut(parameter, "="); strings.Contains(key, "pass") || strings.Contains(key, "token") {
				add(value)
			}
		}
	}
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) })
	return slices.DeleteFunc(slices.Compact(secrets), func(s string) bool { return s == "" })
}
