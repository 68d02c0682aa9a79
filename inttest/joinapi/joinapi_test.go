// Package joinapi tests what a controller offers to others that join, against its real etcd: the tests join
// as a controller would, with nothing but etcd on the other hosts.
package joinapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"k0s.io/k0s/internal/etcdmembers"
	"k0s.io/k0s/internal/joinapi"
	"k0s.io/k0s/internal/pki"
	"k0s.io/k0s/inttest/cluster"
	"k0s.io/k0s/inttest/testhost"
	"k0s.io/k0s/pkg/token"
)

// joiner is a host that becomes a member of etcd.
type joiner struct {
	*testhost.Host
	client *joinapi.Client
	etcd   *testhost.Process
	dir    string // of its certificates, on this machine
}

const etcdDir = "/var/lib/etcd-test"

// join registers the host and returns what it was told.
func (j *joiner) join(t *testing.T, memberID uint64) *joinapi.Etcd {
	t.Helper()
	joined, err := j.client.JoinEtcd(t.Context(), joinapi.EtcdRequest{Node: j.Name, PeerAddress: j.IP, MemberID: memberID})
	if err != nil {
		t.Fatal(err)
	}
	return joined
}

// start starts etcd as the member that was joined.
func (j *joiner) start(t *testing.T, joined *joinapi.Etcd) {
	t.Helper()
	for file, content := range map[string][]byte{"ca.crt": joined.CACert, "ca.key": joined.CAKey} {
		if err := os.WriteFile(filepath.Join(j.dir, file), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ca, err := pki.EnsureCA(filepath.Join(j.dir, "ca"), "etcd-ca", time.Hour, pki.Owner{})
	if err != nil {
		t.Fatal(err)
	}
	if err := ca.Ensure(pki.Request{Path: filepath.Join(j.dir, "peer"), CommonName: j.IP, Names: []string{j.IP}, Server: true, Client: true, Lifetime: time.Hour}); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"ca.crt", "peer.crt", "peer.key"} {
		if err := j.Copy(filepath.Join(j.dir, file), "/etc/"+file); err != nil {
			t.Fatal(err)
		}
	}
	peer, clients := "https://"+net.JoinHostPort(j.IP, "2380"), "https://"+net.JoinHostPort(j.IP, "2379")
	args := []string{"--name=" + j.Name, "--data-dir=" + etcdDir, "--initial-cluster=" + strings.Join(joined.InitialCluster, ","), "--initial-cluster-state=existing", "--max-learners=8",
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--listen-client-urls=" + clients, "--advertise-client-urls=" + clients,
		"--cert-file=/etc/peer.crt", "--key-file=/etc/peer.key", "--trusted-ca-file=/etc/ca.crt", "--client-cert-auth",
		"--peer-cert-file=/etc/peer.crt", "--peer-key-file=/etc/peer.key", "--peer-trusted-ca-file=/etc/ca.crt", "--peer-client-cert-auth"}
	j.etcd, err = j.Host.Start("etcd", append([]string{"bash", "-c", `exec -a etcd ` + cluster.Program + ` "$@"`, "etcd"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
}

func (j *joiner) access() etcdmembers.Access {
	file := func(name string) string { return filepath.Join(j.dir, name) }
	return etcdmembers.Access{
		Endpoints: []string{"https://" + net.JoinHostPort(j.IP, "2379")},
		CAFile:    file("ca.crt"), CertFile: file("peer.crt"), KeyFile: file("peer.key"), PeerCertFile: file("peer.crt"), PeerKeyFile: file("peer.key"),
	}
}

// members are what the joiner's etcd says, once it has a vote.
func (j *joiner) members(ctx context.Context) ([]etcdmembers.Member, error) {
	m, err := etcdmembers.Open(j.access())
	if err != nil {
		return nil, err
	}
	defer m.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return m.List(ctx)
}

// awaitVote waits until this member, with this id, votes.
func (j *joiner) awaitVote(t *testing.T, c *cluster.Cluster, id uint64) {
	t.Helper()
	if err := c.Eventually(t.Context(), cluster.Patience, j.Name+" to vote in etcd", func(ctx context.Context) error { return j.votes(ctx, id) }); err != nil {
		t.Fatal(err)
	}
}

// votes is nil when this member, with this id, votes.
func (j *joiner) votes(ctx context.Context, id uint64) error {
	members, err := j.members(ctx)
	for _, m := range members {
		if m.ID == id && m.Name == j.Name && !m.Learner {
			return nil
		}
	}
	return errors.Join(err, fmt.Errorf("members: %+v", members))
}

func TestJoinAPI(t *testing.T) {
	n := testhost.NewNetwork(t)
	first := n.Host(t, "c0")
	if err := cluster.Install(first); err != nil {
		t.Fatal(err)
	}
	c := cluster.New(first)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	made := c.Must(t, "token", "create", "--role", "controller", "--expiry", "10m", "--wait")
	t.Logf("token create --wait: %.2f s after the start", time.Since(begin).Seconds())
	if err := c.WaitAPI(t.Context()); err != nil {
		t.Fatal(err)
	}
	join, err := token.DecodeFor(token.Controller, made)
	if err != nil {
		t.Fatal(err)
	}
	if want := "https://" + net.JoinHostPort(first.IP, "9443"); join.URL != want {
		t.Fatalf("the token leads to %s, not to %s", join.URL, want)
	}
	joiners := map[string]*joiner{}
	for _, name := range []string{"c1", "c2"} {
		j := &joiner{Host: n.Host(t, name), dir: t.TempDir()}
		if err := cluster.Install(j.Host); err != nil {
			t.Fatal(err)
		}
		if j.client, err = joinapi.NewClient(join, func(err error) { t.Log(err) }); err != nil {
			t.Fatal(err)
		}
		joiners[name] = j
	}

	t.Run("keys", func(t *testing.T) {
		ca, err := joiners["c1"].client.CA(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for file, got := range map[string][]byte{"ca.key": ca.Key, "ca.crt": ca.Cert, "sa.key": ca.SAKey, "sa.pub": ca.SAPub} {
			want, err := first.ReadFile(c.DataDir + "/pki/" + file)
			if err != nil || string(want) != string(got) {
				t.Errorf("%s differs (%v)", file, err)
			}
		}
		if ca.ClusterID == "" {
			t.Error("there is no cluster id")
		}
	})

	t.Run("asked twice", func(t *testing.T) {
		j := joiners["c1"]
		one, two := j.join(t, 0), j.join(t, 0)
		if one.MemberID == 0 || one.MemberID != two.MemberID || len(two.InitialCluster) != 2 {
			t.Errorf("got %+v and %+v", one, two)
		}
	})

	t.Run("killed on its way to a vote", func(t *testing.T) {
		j := joiners["c1"]
		joined := j.join(t, 0)
		j.start(t, joined)
		time.Sleep(300 * time.Millisecond)
		if err := j.etcd.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-j.etcd.Gone()
		// With its data it goes on where it was, and asks no API: if it had a vote already, then the others
		// (one, here) decide nothing without it.
		begin := time.Now()
		j.start(t, joined)
		j.awaitVote(t, c, joined.MemberID)
		t.Logf("votes %.2f s after its etcd was started again", time.Since(begin).Seconds())
		if again := j.join(t, joined.MemberID); again.MemberID != joined.MemberID {
			t.Errorf("member %x became %x", joined.MemberID, again.MemberID)
		}
	})

	t.Run("killed before it could start", func(t *testing.T) {
		j := joiners["c2"]
		joined := j.join(t, 0)
		time.Sleep(2 * time.Second) // several looks at a learner that does not live
		again := j.join(t, 0)
		if again.MemberID != joined.MemberID {
			t.Errorf("member %x became %x", joined.MemberID, again.MemberID)
		}
		begin := time.Now()
		j.start(t, again)
		j.awaitVote(t, c, again.MemberID)
		t.Logf("votes %.2f s after its etcd was started", time.Since(begin).Seconds())
	})

	t.Run("a voter is not replaced", func(t *testing.T) {
		j := joiners["c2"]
		if err := j.etcd.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-j.etcd.Gone()
		_, err := j.client.JoinEtcd(t.Context(), joinapi.EtcdRequest{Node: j.Name, PeerAddress: j.IP})
		if !errors.Is(err, joinapi.ErrRefused) || !strings.Contains(err.Error(), "k0s etcd leave --peer-address "+j.IP) {
			t.Errorf("got %v", err)
		}
	})

	t.Run("wrong tokens change nothing", func(t *testing.T) {
		bad := *join
		bad.Secret.Secret = "0000000000000000"
		client, err := joinapi.NewClient(&bad, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.CA(t.Context()); !errors.Is(err, joinapi.ErrToken) {
			t.Errorf("got %v", err)
		}
		c.Must(t, "token", "invalidate", join.Secret.ID)
		if _, err := joiners["c1"].client.CA(t.Context()); !errors.Is(err, joinapi.ErrToken) {
			t.Errorf("an invalidated token: %v", err)
		}
		if out := c.Must(t, "token", "list"); !strings.Contains(out, "No k0s join tokens found") {
			t.Errorf("there are %s", out)
		}
	})

	t.Run("quick", func(t *testing.T) {
		begin := time.Now()
		const times = 5
		for range times {
			c.Must(t, "token", "create", "--role", "worker")
		}
		t.Logf("token create takes %d ms, entering the host included", time.Since(begin).Milliseconds()/times)
	})
}

// Several join at the same time.
func TestJoinAtOnce(t *testing.T) {
	n := testhost.NewNetwork(t)
	first := n.Host(t, "c0")
	if err := cluster.Install(first); err != nil {
		t.Fatal(err)
	}
	c := cluster.New(first)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	join, err := token.DecodeFor(token.Controller, c.Must(t, "token", "create", "--role", "controller", "--wait"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.WaitAPI(t.Context()); err != nil {
		t.Fatal(err)
	}
	var joiners []*joiner
	for _, name := range []string{"c1", "c2"} {
		j := &joiner{Host: n.Host(t, name), dir: t.TempDir()}
		if err := cluster.Install(j.Host); err != nil {
			t.Fatal(err)
		}
		if j.client, err = joinapi.NewClient(join, func(err error) { t.Logf("%s: %v", name, err) }); err != nil {
			t.Fatal(err)
		}
		joiners = append(joiners, j)
	}
	begin := time.Now()
	var all sync.WaitGroup
	for _, j := range joiners {
		all.Go(func() {
			joined, err := j.client.JoinEtcd(t.Context(), joinapi.EtcdRequest{Node: j.Name, PeerAddress: j.IP})
			if err != nil {
				t.Error(err)
				return
			}
			j.start(t, joined)
			if err := c.Eventually(t.Context(), cluster.Patience, j.Name+" to vote in etcd", func(ctx context.Context) error {
				select {
				case <-j.etcd.Gone(): // the other one has joined since this one was told who is a member
					again, err := j.client.JoinEtcd(ctx, joinapi.EtcdRequest{Node: j.Name, PeerAddress: j.IP, MemberID: joined.MemberID})
					if err != nil {
						return err
					}
					j.start(t, again)
				default:
				}
				return j.votes(ctx, joined.MemberID)
			}); err != nil {
				t.Error(err)
				return
			}
			t.Logf("%s votes after %.2f s", j.Name, time.Since(begin).Seconds())
		})
	}
	all.Wait()
}
