package storage

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"k0s.io/k0s/inttest/cluster"
	"k0s.io/k0s/inttest/testhost"
)

// password has what URLs, shells and JSON treat in their own ways. URL-encoded it is the other one.
const (
	password    = `geheim:Wort&"1"`
	passwordURL = `geheim%3AWort%26%221%22`
)

// database is a server on a host of its own.
type database struct {
	host    *testhost.Host
	user    string // who runs it
	group   string
	command []string // to run it in the foreground
	process *testhost.Process
}

// start starts the server and waits until it listens.
func (d *database) start(t *testing.T, port int) {
	t.Helper()
	p, err := d.host.Start("database", append([]string{"setpriv", "--reuid", d.user, "--regid", d.group, "--clear-groups"}, d.command...)...)
	if err != nil {
		t.Fatal(err)
	}
	d.process = p
	d.host.Run(t, "timeout", "30", "bash", "-c", fmt.Sprintf("until (</dev/tcp/%s/%d) 2>/dev/null; do sleep 0.05; done", d.host.IP, port))
}

func (d *database) kill(t *testing.T) {
	t.Helper()
	if err := d.process.Signal(syscall.SIGQUIT); err != nil { // PostgreSQL's word for "at once"
		t.Fatal(err)
	}
	_ = d.process.Wait(t.Context()) // it was killed
}

// postgres makes a database k0s of a user k0s, and leaves the server off.
func postgres(t *testing.T, h *testhost.Host) *database {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(found) == 0 {
		t.Fatalf("there is no PostgreSQL here: apt-get install postgresql: %v", err)
	}
	bin := filepath.Dir(found[0])
	const data = "/var/lib/pg"
	as := func(command ...string) {
		h.Run(t, append([]string{"setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"}, command...)...)
	}
	h.Run(t, "install", "-d", "-o", "postgres", "-g", "postgres", "-m", "700", data)
	as(bin+"/initdb", "--auth-local=trust", "--auth-host=scram-sha-256", "--encoding=UTF8", "--no-sync", data)
	h.Run(t, "sh", "-c", "echo host all all 0.0.0.0/0 scram-sha-256 >>"+data+"/pg_hba.conf")
	setUp := "CREATE USER k0s PASSWORD '" + password + "' CREATEDB;\nCREATE DATABASE k0s OWNER k0s;\n"
	if err := h.WriteFile("/tmp/setup.sql", []byte(setUp), 0o644); err != nil {
		t.Fatal(err)
	}
	as("sh", "-c", bin+"/postgres --single -j -D "+data+" postgres </dev/null >/dev/null")
	as("sh", "-c", "grep -v '^$' /tmp/setup.sql | "+bin+"/postgres --single -D "+data+" postgres >/dev/null")
	return &database{host: h, user: "postgres", group: "postgres", command: []string{bin + "/postgres", "-D", data, "-k", "/tmp", "-c", "listen_addresses=*"}}
}

func TestPostgreSQL(t *testing.T) {
	network := testhost.NewNetwork(t)
	db := postgres(t, network.Host(t, "database"))
	host, other := newHost(t, network, "postgres"), newHost(t, network, "other")
	source := fmt.Sprintf("postgres://k0s:%s@%s:5432/k0s", passwordURL, db.host.IP)
	const component = "kine"
	c := cluster.New(host, "--single", "--debug")

	// A URL that nobody can read: the driver's error would hold all of it.
	configure(t, host, fmt.Sprintf("{type: kine, kine: {dataSource: 'postgres://k0s:%s%%zz@%s/k0s'}}", passwordURL, db.host.IP))
	refused(t, c, "spec.storage.kine.dataSource: the driver cannot read it", "percent-encode")
	noSecrets(t, c)

	// The database is off: k0s says so and waits.
	configure(t, host, fmt.Sprintf("{type: kine, kine: {dataSource: '%s'}}", source))
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	waitsFor(t, c, component, db.host.IP, "connection refused")
	select {
	case <-c.Process.Gone():
		t.Fatalf("k0s did not wait for the database:\n%s", c.LogTail(10))
	case <-time.After(10 * time.Second):
	}
	db.start(t, 5432)
	ready(t, c)
	noProcess(t, host, "etcd")
	remember(t, c, "at-first")
	noSecrets(t, c)

	// It belongs to one cluster.
	configure(t, other, fmt.Sprintf("{type: kine, kine: {dataSource: '%s'}}", source))
	second := cluster.New(other, "--single")
	refused(t, second, "the database postgres://"+db.host.IP+":5432/k0s is the store of cluster", "another database in spec.storage.kine.dataSource")
	noSecrets(t, second)

	// It goes away and comes back.
	kine := process(t, host, "kine")
	db.kill(t)
	err := c.Eventually(t.Context(), cluster.Patience, "the API to notice", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		if _, err := c.Client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx); err == nil {
			return errors.New("it is still ready")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "lost"}, StringData: map[string]string{"word": password}}
	if _, err := c.Client.CoreV1().Secrets("default").Create(t.Context(), secret, metav1.CreateOptions{}); err == nil {
		t.Error("something was stored nowhere")
	}
	db.start(t, 5432)
	remember(t, c, "after-the-database-came-back")
	remembered(t, c, "at-first", "after-the-database-came-back")
	if again := process(t, host, "kine"); again.Pid != kine.Pid {
		t.Log("kine was started anew")
	}
	ready(t, c)
	noSecrets(t, c)

	stop(t, c)
	start(t, c)
	remembered(t, c, "at-first", "after-the-database-came-back")
	stop(t, c)

	// The data is elsewhere and survives a reset; it is still not anybody else's.
	c.Must(t, "reset")
	refused(t, c, "is the store of cluster")
	c.Must(t, "reset")
	configure(t, host, fmt.Sprintf("{type: kine, kine: {dataSource: '%s'}}", source+"two"))
	start(t, c)
	stop(t, c)
}

// noSecrets fails the test when the password is anywhere that others can look.
func noSecrets(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	all, err := c.Host.Processes()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if hasPassword(strings.Join(p.Args, " ")) {
			t.Errorf("the password is in the command line of %s", p.Name())
		}
	}
	for line := range strings.Lines(c.LogTail(1 << 20)) {
		if hasPassword(line) {
			t.Errorf("the password is in the log: %s", line)
		}
	}
	for _, command := range [][]string{{"status", "-o", "json"}, {"status", "components", "-o", "json"}} {
		if out, err := c.K0s(t.Context(), command...); err == nil && hasPassword(out) {
			t.Errorf("the password is in `k0s %s`", strings.Join(command, " "))
		}
	}
	// What is readable for others, and not the k0s.yaml of the user.
	out, err := c.Host.Output(t.Context(), "sh", "-c", "find /run/k0s "+c.DataDir+" -xdev -type f -perm /004 -size -64k -print0 2>/dev/null | xargs -0 -r grep -l -s geheim || true")
	if err != nil {
		t.Fatal(err)
	}
	if out != "" {
		t.Errorf("the password is in files that everybody can read: %s", out)
	}
}

func hasPassword(s string) bool {
	return strings.Contains(s, "geheim")
}

func TestMariaDB(t *testing.T) {
	network := testhost.NewNetwork(t)
	h := network.Host(t, "database")
	const data = "/var/lib/my"
	h.Run(t, "install", "-d", "-o", "nobody", "-m", "700", data)
	h.Run(t, "setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups",
		"mariadb-install-db", "--no-defaults", "--datadir="+data, "--auth-root-authentication-method=normal", "--skip-test-db")
	setUp := "CREATE DATABASE k0s;\nCREATE USER k0s IDENTIFIED BY '" + password + "';\nGRANT ALL ON k0s.* TO k0s;\n"
	if err := h.WriteFile("/tmp/setup.sql", []byte(setUp), 0o644); err != nil {
		t.Fatal(err)
	}
	db := &database{host: h, user: "nobody", group: "nogroup", command: []string{"mariadbd", "--no-defaults", "--datadir=" + data, "--socket=/tmp/my.sock",
		"--pid-file=/tmp/my.pid", "--bind-address=0.0.0.0", "--skip-name-resolve", "--init-file=/tmp/setup.sql"}}
	db.start(t, 3306)
	works(t, network, fmt.Sprintf("mysql://k0s:%s@tcp(%s:3306)/k0s", password, h.IP))
}

func TestNATS(t *testing.T) {
	network := testhost.NewNetwork(t)
	h := network.Host(t, "database")
	h.Run(t, "install", "-d", "-o", "nats", "-m", "700", "/var/lib/js")
	db := &database{host: h, user: "nats", group: "nats", command: []string{"nats-server", "-js", "-sd", "/var/lib/js", "--user", "k0s", "--pass", "geheim"}}
	db.start(t, 4222)
	works(t, network, fmt.Sprintf("nats://k0s:geheim@%s:4222?bucket=k0s&noEmbed", h.IP))
}

// works runs a cluster on the data source, and restarts it.
func works(t *testing.T, n *testhost.Network, source string) {
	host := newHost(t, n, "k0s")
	configure(t, host, "{type: kine, kine: {dataSource: '"+source+"'}}")
	c := cluster.New(host, "--single")
	start(t, c)
	remember(t, c, "at-first")
	noSecrets(t, c)
	stop(t, c)
	start(t, c)
	remembered(t, c, "at-first")
	stop(t, c)
}
