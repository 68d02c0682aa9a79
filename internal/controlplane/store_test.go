package controlplane

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

func TestStore(t *testing.T) {
	for _, tc := range []struct {
		name      string
		change    func(*Options)
		component string
		data      string // on this host
		ports     []string
		warnings  int
	}{
		{"etcd", nil, "etcd", "/d/etcd/member", []string{"127.0.0.1:2379", "192.0.2.1:2380"}, 0},
		{"external etcd", withExternalEtcd, "external-etcd", "", nil, 0},
		{"kine on SQLite, alone", withKine("sqlite://file:/d/db/state.db?mode=rwc"), "kine", "/d/db/state.db", []string{"127.0.0.1:2380"}, 0},
		{"kine on SQLite, not alone", func(o *Options) {
			withKine("sqlite:///d/db/state.db")(o)
			o.Alone = false
		}, "kine", "/d/db/state.db", []string{"127.0.0.1:2380"}, 1},
		{"kine on SQLite, relative", withKine("sqlite://db/state.db"), "kine", "/d/db/state.db", []string{"127.0.0.1:2380"}, 0},
		{"kine on SQLite where reset does not delete it", withKine("sqlite:///mnt/state.db"), "kine", "", []string{"127.0.0.1:2380"}, 0},
		{"kine on PostgreSQL", func(o *Options) {
			withKine("postgres://u:p@192.0.2.9/k")(o)
			o.Alone = false
		}, "kine", "", []string{"127.0.0.1:2380"}, 0},
		{"kine without metrics", func(o *Options) {
			withKine("postgres://u:p@192.0.2.9/k")(o)
			o.Config.Spec.Storage.Kine.ExtraArgs = map[string]string{"metrics-bind-address": "0"}
		}, "kine", "", nil, 0},
		{"kine with metrics elsewhere", func(o *Options) {
			withKine("postgres://u:p@192.0.2.9/k")(o)
			o.Config.Spec.Storage.Kine.RawArgs = []string{"--metrics-bind-address=:1234"}
		}, "kine", "", nil, 0},
	} {
		o := options(t, tc.change)
		if got := theStore(o).Name; got != tc.component || storeName(o.Config.Spec.Storage) != got {
			t.Errorf("%s: the component is %s", tc.name, got)
		}
		if got := o.StoreData(); got != tc.data {
			t.Errorf("%s: the data is in %q", tc.name, got)
		}
		var ports []string
		for _, port := range storePorts(o.Config.Spec.Storage) {
			ports = append(ports, port.String())
		}
		if !slices.Equal(ports, tc.ports) {
			t.Errorf("%s: ports %q", tc.name, ports)
		}
		if got := o.Warnings(); len(got) != tc.warnings {
			t.Errorf("%s: warnings %q", tc.name, got)
		}
	}
}

func TestDataSource(t *testing.T) {
	const added = "_busy_timeout=30000&_synchronous=FULL&_txlock=immediate&_stmt_cache_size=20"
	for _, tc := range []struct {
		source   string
		endpoint string // for kine
		name     string // in messages
		secrets  []string
	}{
		{"sqlite://file:/d/db/state.db?mode=rwc&_journal=WAL", "sqlite:///d/db/state.db?mode=rwc&_journal=WAL&" + added, "/d/db/state.db", nil},
		{"sqlite:///d/db/state.db", "sqlite:///d/db/state.db?_journal_mode=WAL&" + added, "/d/db/state.db", nil},
		{"sqlite:///d/x.db?_timeout=1&_sync=OFF&_txlock=deferred&_stmt_cache_size=1&_journal=DELETE",
			"sqlite:///d/x.db?_timeout=1&_sync=OFF&_txlock=deferred&_stmt_cache_size=1&_journal=DELETE", "/d/x.db", nil},
		{"sqlite:///d/x.db?a=%zz", "sqlite:///d/x.db?a=%zz", "/d/x.db", nil},
		{"postgres://u:p%40ss@192.0.2.9:5432/k?sslmode=disable", "", "postgres://192.0.2.9:5432/k",
			[]string{"postgres://u:p%40ss@192.0.2.9:5432/k?sslmode=disable", "u:p%40ss@192.0.2.9:5432/k?sslmode=disable", "u:p%40ss", "u:p@ss", "p%40ss", "p@ss"}},
		{"postgres://192.0.2.9/k?user=u&password=xyz", "", "postgres://192.0.2.9/k", []string{"xyz"}},
		{"mysql://u:a,b@c?d@tcp(192.0.2.9:3306)/k?tls=true", "", "mysql://tcp(192.0.2.9:3306)/k", []string{"u:a,b@c?d", "a,b@c?d"}},
		{"nats://u:one@192.0.2.8?noEmbed,nats://u:two@192.0.2.9", "", "nats://192.0.2.9", []string{"one", "two"}},
		{"nats://tokentoken@192.0.2.8", "", "nats://192.0.2.8", []string{"tokentoken"}},
	} {
		d := dataSource(tc.source)
		if tc.endpoint == "" {
			tc.endpoint = tc.source
		}
		if got := d.endpoint(); got != tc.endpoint {
			t.Errorf("%s:\nkine gets %s\n    want %s", tc.source, got, tc.endpoint)
		}
		if got := d.String(); got != tc.name {
			t.Errorf("%s: is called %s", tc.source, got)
		}
		secrets := d.secrets()
		for _, secret := range tc.secrets {
			if !slices.Contains(secrets, secret) {
				t.Errorf("%s: the secret %q is not among %q", tc.source, secret, secrets)
			}
			if strings.Contains(d.String(), secret) {
				t.Errorf("%s: its name holds a secret", tc.source)
			}
		}
		if tc.secrets == nil && len(secrets) > 0 || slices.Contains(secrets, "") {
			t.Errorf("%s: secrets %q", tc.source, secrets)
		}
		for i := 1; i < len(secrets); i++ {
			if len(secrets[i]) > len(secrets[i-1]) {
				t.Errorf("%s: a longer secret after a shorter: %q", tc.source, secrets)
			}
		}
	}
}

func TestKineLog(t *testing.T) {
	d := dataSource("postgres://k0s:geheim@192.0.2.9/k0s")
	for _, tc := range []struct{ line, want string }{
		{"Kine available at unix:///r/kine.sock", "Kine available at unix:///r/kine.sock"},
		{`parse "postgres://k0s:geheim@192.0.2.9/k0s": no`, `parse "***": no`},
		{"no user k0s with geheim", "no user k0s with ***"},
		{`error in txn success:{request_put:{key:"/a"  value:"k8s\x00\n\"top\" \\"  lease:1}}: EOF`,
			`error in txn success:{request_put:{key:"/a"  value:"***"  lease:1}}: EOF`},
		{`value:"top secr`, `value:"***"`},
		{`{"message":"error in txn success:{request_put:{key:\"/a\"  value:\"top secr`,
			`{"message":"error in txn success:{request_put:{key:\"/a\"  value:***`},
	} {
		if got := d.redact(tc.line); got != tc.want {
			t.Errorf("%s\nbecame %s\n  want %s", tc.line, got, tc.want)
		}
	}
}

func TestCertificatesWithoutEtcd(t *testing.T) {
	for name, change := range map[string]func(*Options){"kine": withKine("sqlite://db/state.db"), "external etcd": withExternalEtcd} {
		dir := t.TempDir()
		o := options(t, change)
		o.Layout = host.Layout{DataDir: dir, RunDir: dir, KubeletRoot: filepath.Join(dir, "kubelet")}
		if err := makeCertificates(o); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, file := range []string{"etcd", "apiserver-etcd-client.crt"} {
			if _, err := os.Stat(o.Layout.PKI(file)); !os.IsNotExist(err) {
				t.Errorf("%s: there is %s: %v", name, file, err)
			}
		}
	}
}

// The socket of kine is for one user; the API server must be it, or root.
func TestKineAndAPIServerHaveOneUser(t *testing.T) {
	for _, tc := range []struct {
		kine, apiServer string
		refused         bool
	}{
		{"nobody", "daemon", true},
		{"no-such-user", "daemon", true},
		{"daemon", "daemon", false},
		{"nobody", "no-such-user", false},
	} {
		o := options(t, withKine("sqlite://db/state.db"))
		o.Config.Spec.InstallConfig.Users = v1beta1.UsersSpec{KineUser: tc.kine, KubeAPIServerUser: tc.apiServer, EtcdUser: "root", KubeSchedulerUser: "root"}
		o.Layout = host.Layout{DataDir: t.TempDir(), RunDir: t.TempDir()}
		spec, err := kineProcess(o)
		if (err != nil) != tc.refused || tc.refused && !strings.Contains(err.Error(), "kubeAPIserverUser") {
			t.Errorf("%+v: %v", tc, err)
		}
		if err == nil && !slices.Contains(spec.Env, "KINE_ENDPOINT=sqlite://db/state.db?_journal_mode=WAL&_busy_timeout=30000&_synchronous=FULL&_txlock=immediate&_stmt_cache_size=20") {
			t.Errorf("its environment: %q", spec.Env)
		}
	}
}

func TestExternalEtcdURLs(t *testing.T) {
	config := v1beta1.Default()
	config.Spec.Storage.Etcd.ExternalCluster = &v1beta1.ExternalCluster{Endpoints: []string{"https://a:2379/", "http://b:2379"}, EtcdPrefix: "/c"}
	access := externalEtcdAccess(Options{Config: config})
	if got := storeFlags(access)["etcd-servers"]; got != "https://a:2379,http://b:2379" {
		t.Errorf("got %s", got)
	}
}
