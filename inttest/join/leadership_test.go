package join

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"k0s.io/k0s/inttest/cluster"
)

// lead makes the etcd of the first of these controllers lead that of all.
func lead(t *testing.T, first *cluster.Node, others ...*cluster.Node) {
	t.Helper()
	must(t, eventually(deadline(t, time.Minute), 30*time.Second, func(ctx context.Context) error {
		want, is, err := leader(ctx, first, 0)
		if err != nil || is == want {
			return err
		}
		for _, n := range others {
			if self, _, err := leader(ctx, n, want); err != nil || self == is {
				return err
			}
		}
		return fmt.Errorf("none of these leads etcd: %x does", is)
	}))
}

// leader asks a controller's etcd for its own id, and for that of the leader. A leader hands over to another
// member, unless that is 0.
func leader(ctx context.Context, n *cluster.Node, to uint64) (self, is uint64, err error) {
	const endpoint = "127.0.0.1:2379"
	files := map[string][]byte{"apiserver-etcd-client.crt": nil, "apiserver-etcd-client.key": nil, "etcd/ca.crt": nil}
	for name := range files {
		if files[name], err = n.Host.ReadFile(n.DataDir + "/pki/" + name); err != nil {
			return 0, 0, err
		}
	}
	cert, err := tls.X509KeyPair(files["apiserver-etcd-client.crt"], files["apiserver-etcd-client.key"])
	if err != nil {
		return 0, 0, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(files["etcd/ca.crt"])
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{"https://" + endpoint}, Logger: zap.NewNop(),
		TLS: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}, RootCAs: roots},
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return n.Host.Dial(ctx, "tcp", endpoint)
		})},
	})
	if err != nil {
		return 0, 0, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	s, err := client.Status(ctx, "https://"+endpoint)
	if err != nil {
		return 0, 0, err
	}
	if to != 0 && s.Leader == s.Header.MemberId {
		_, err = client.MoveLeader(ctx, to)
	}
	return s.Header.MemberId, s.Leader, err
}

// writing writes through the API servers of controllers, each every 50 ms, until stop, which fails if there was
// an election meanwhile: then nothing is written for 1 s, or more. While one hands over, etcd may lose what is
// written in those milliseconds.
func writing(t *testing.T, c *cluster.Cluster, through ...*cluster.Node) (stop func()) {
	t.Helper()
	ctx := deadline(t, 3*time.Minute)
	var (
		mu             sync.Mutex
		writes, failed int
		longest        time.Duration
		first, last    time.Time
		writers, begun sync.WaitGroup
		end            = make(chan struct{})
	)
	one := func(name string, client kubernetes.Interface, n int) {
		// etcd takes 7 s to say that it has lost a write.
		ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
		defer cancel()
		begin := time.Now()
		_, err := client.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{GenerateName: "written-"},
		}, metav1.CreateOptions{})
		took := time.Since(begin)
		mu.Lock()
		defer mu.Unlock()
		writes++
		if err == nil {
			longest = max(longest, took)
			return
		}
		if failed++; first.IsZero() || begin.Before(first) {
			first = begin
		}
		if begin.After(last) {
			last = begin
		}
		t.Logf("write %d through %s failed after %.1f s: %v", n, name, took.Seconds(), err)
	}
	for _, n := range through {
		client, err := c.Through(n)
		must(t, err)
		writers.Go(func() {
			tick := time.NewTicker(50 * time.Millisecond)
			defer tick.Stop()
			for i := 0; ; i++ {
				begun.Go(func() { one(n.Name(), client, i) }) // the next does not wait for it
				select {
				case <-tick.C:
				case <-end:
					return
				}
			}
		})
	}
	halt := sync.OnceFunc(func() {
		close(end)
		writers.Wait()
		begun.Wait()
	})
	t.Cleanup(halt)
	return func() {
		t.Helper()
		halt()
		without := last.Sub(first)
		t.Logf("of %d writes, %d failed, begun within %.3f s; the longest of the others took %.3f s", writes, failed, without.Seconds(), longest.Seconds())
		if without > 500*time.Millisecond {
			t.Error("the members of etcd had to elect a leader")
		}
	}
}
