package storage

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"k0s.io/k0s/internal/pki"
	"k0s.io/k0s/inttest/cluster"
	"k0s.io/k0s/inttest/testhost"
)

// etcdServer is an etcd on a host of its own that wants a certificate of its clients.
type etcdServer struct {
	host    *testhost.Host
	process *testhost.Process
	dir     string // on the machine, with ca.crt, client.crt and client.key
}

func newEtcd(t *testing.T, h *testhost.Host) *etcdServer {
	t.Helper()
	if err := cluster.Install(h); err != nil {
		t.Fatal(err)
	}
	e := &etcdServer{host: h, dir: t.TempDir()}
	ca, err := pki.EnsureCA(filepath.Join(e.dir, "ca"), "ca", time.Hour, pki.Owner{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []pki.Request{
		{Path: filepath.Join(e.dir, "server"), CommonName: "server", Names: []string{h.IP}, Server: true, Client: true, Lifetime: time.Hour},
		{Path: filepath.Join(e.dir, "client"), CommonName: "client", Client: true, Lifetime: time.Hour},
	} {
		if err := ca.Ensure(r); err != nil {
			t.Fatal(err)
		}
	}
	e.give(t, h, "ca.crt", "server.crt", "server.key")
	return e
}

// give puts files into /etc/etcd of a host.
func (e *etcdServer) give(t *testing.T, h *testhost.Host, files ...string) {
	t.Helper()
	for _, file := range files {
		content, err := os.ReadFile(filepath.Join(e.dir, file))
		if err != nil {
			t.Fatal(err)
		}
		if err := h.WriteFile("/etc/etcd/"+file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func (e *etcdServer) url() string { return "https://" + e.host.IP + ":2379" }

func (e *etcdServer) start(t *testing.T) {
	t.Helper()
	p, err := e.host.Start("etcd", "bash", "-c", `exec -a etcd "$0" "$@"`, cluster.Program,
		"--data-dir=/var/lib/etcd", "--listen-client-urls="+e.url(), "--advertise-client-urls="+e.url(),
		"--client-cert-auth", "--trusted-ca-file=/etc/etcd/ca.crt", "--cert-file=/etc/etcd/server.crt", "--key-file=/etc/etcd/server.key")
	if err != nil {
		t.Fatal(err)
	}
	e.process = p
}

// keys lists all there is.
func (e *etcdServer) keys(t *testing.T) []string {
	t.Helper()
	ca, err := os.ReadFile(filepath.Join(e.dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.LoadX509KeyPair(filepath.Join(e.dir, "client.crt"), filepath.Join(e.dir, "client.key"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{e.url()}, Logger: zap.NewNop(), TLS: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	found, err := client.Get(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithKeysOnly())
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, kv := range found.Kvs {
		keys = append(keys, string(kv.Key))
	}
	return keys
}

func TestExternalEtcd(t *testing.T) {
	network := testhost.NewNetwork(t)
	e := newEtcd(t, network.Host(t, "etcd"))
	storage := func(prefix string) string {
		return fmt.Sprintf("{etcd: {externalCluster: {endpoints: ['%s'], etcdPrefix: '%s', "+
			"caFile: /etc/etcd/ca.crt, clientCertFile: /etc/etcd/client.crt, clientKeyFile: /etc/etcd/client.key}}}", e.url(), prefix)
	}
	one, two := newHost(t, network, "one"), newHost(t, network, "two")
	e.give(t, one, "ca.crt", "client.crt", "client.key")
	e.give(t, two, "ca.crt", "client.crt", "client.key")
	configure(t, one, storage("/clusters/one"))
	configure(t, two, storage("clusters/one")) // written in another way

	// It is off: k0s says so and waits.
	c := cluster.New(one, "--single")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	waitsFor(t, c, "external-etcd", e.url(), "connection refused")
	e.start(t)
	ready(t, c)
	for _, name := range []string{"etcd", "kine"} {
		noProcess(t, one, name)
	}
	if out := strings.TrimSpace(one.Run(t, "find", c.DataDir, "-name", "*etcd*")); out != "" {
		t.Errorf("there is something of an etcd that is not there: %s", out)
	}
	remember(t, c, "at-first")
	for _, key := range e.keys(t) {
		// The second is where API servers agree on what is to be compacted, for all of an etcd.
		if !strings.HasPrefix(key, "/clusters/one/") && key != "compact_rev_key" {
			t.Errorf("there is a key outside of the prefix: %s", key)
		}
	}

	// Each cluster has a prefix of its own.
	second := cluster.New(two, "--single")
	refused(t, second, "the etcd at "+e.url()+" under the prefix clusters/one is the store of cluster", "choose another spec.storage.etcd.externalCluster.etcdPrefix")
	configure(t, two, storage("/clusters/two"))
	start(t, second)
	remember(t, second, "in-two")
	remembered(t, c, "at-first")
	stop(t, second)

	// It goes away and comes back.
	if err := e.process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = e.process.Wait(t.Context()) // it was killed
	e.start(t)
	remember(t, c, "after-etcd-came-back")
	remembered(t, c, "at-first")
	stop(t, c)
	start(t, c)
	remembered(t, c, "at-first", "after-etcd-came-back")
	stop(t, c)

	// The wrong certificate is told from an etcd that is off.
	one.Run(t, "cp", c.DataDir+"/pki/ca.crt", "/etc/etcd/ca.crt")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	waitsFor(t, c, "external-etcd", e.url(), "certificate signed by unknown authority")
	stop(t, c)
	e.give(t, one, "ca.crt")

	// What was a member's store is empty now.
	if err := e.process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = e.process.Wait(t.Context()) // it was killed
	e.host.Run(t, "rm", "-rf", "/var/lib/etcd")
	e.start(t)
	refused(t, c, "this host is a member of cluster", "does not hold that cluster (there is no key /clusters/one/k0s/cluster-id)")
}
