package join

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"k0s.io/k0s/inttest/cluster"
	"k0s.io/k0s/inttest/testhost"
)

// The parts are in the order of a cluster's life; each goes on where the one before ended.
func TestControllers(t *testing.T) {
	h := cluster.Hosts(t, testhost.NewNetwork(t), "c1", "c2", "c3", "w1", "w2")
	c := cluster.New(h[0])
	must(t, c.Start())
	ctx := deadline(t, 2*time.Minute)
	must(t, c.WaitAPI(ctx))
	workers := c.MustJoin(t, cluster.Worker, h[3:]...)
	w1 := workers[0]

	// Two at once.
	joining := c.MustJoin(t, cluster.Controller, h[1:3]...)
	c2, c3 := joining[0], joining[1]
	must(t, c.WaitControllers(ctx, c2, c3))
	t.Logf("two controllers have joined %.1f s after their start", time.Since(c3.Started).Seconds())
	must(t, c.WaitNodes(ctx, workers...))
	t.Logf("3 controllers and 2 workers are Ready after %.1f s", time.Since(c.Started).Seconds())
	must(t, c.CheckOneCluster(ctx))
	voters(t, c, "c1", "c2", "c3")

	t.Run("AnyOneKilled", func(t *testing.T) {
		for _, lost := range []*cluster.Node{&c.Node, c2, c3} {
			survives(t, c, w1, lost, func(ctx context.Context) error { return lost.Kill(ctx) }, lost.Start)
		}
	})
	t.Run("AnyOnePoweredOff", func(t *testing.T) {
		for _, lost := range []*cluster.Node{&c.Node, c2, c3} {
			survives(t, c, w1, lost,
				func(context.Context) error { return lost.Host.Kill() },
				func() error { return errors.Join(lost.Host.Boot(t.Context()), lost.Start()) })
		}
	})
	t.Run("AnyOneCutOff", func(t *testing.T) {
		for _, lost := range []*cluster.Node{&c.Node, c2, c3} {
			survives(t, c, w1, lost,
				func(ctx context.Context) error { return lost.Host.CutLink(ctx) },
				func() error { return lost.Host.JoinLink(t.Context()) })
		}
	})
	t.Run("AllPoweredOff", func(t *testing.T) {
		ctx := deadline(t, 2*time.Minute)
		all := []*cluster.Node{&c.Node, c2, c3}
		for _, n := range all {
			must(t, n.Host.Kill())
		}
		for _, n := range []*cluster.Node{c3, &c.Node, c2} {
			n.Token = ""
			must(t, n.Host.Boot(ctx))
			must(t, n.Start())
		}
		begin := time.Now()
		must(t, c.WaitControllers(ctx, all...))
		t.Logf("all three are back %.1f s after the start of the last", time.Since(begin).Seconds())
		must(t, c.CheckOneCluster(ctx))
		voters(t, c, "c1", "c2", "c3")
	})
}

// voters checks who has a vote in etcd.
func voters(t *testing.T, c *cluster.Cluster, want ...string) {
	t.Helper()
	var got []string
	if err := c.Eventually(t.Context(), 30*time.Second, "all members to have a vote", func(ctx context.Context) error {
		out, err := c.K0s(ctx, "etcd", "member-list")
		if err != nil {
			return err
		}
		var list struct {
			Members map[string]string `json:"members"`
		}
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			return err
		}
		got = nil
		for name := range list.Members {
			got = append(got, name)
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			return fmt.Errorf("the members are %q, not %q", got, want)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// survives loses one controller: a worker's way to the API works on, writes resume within 10 s, and it is
// back by itself when it returns.
func survives(t *testing.T, c *cluster.Cluster, w *cluster.Node, lost *cluster.Node, lose func(context.Context) error, back func() error) {
	t.Helper()
	ctx := deadline(t, 2*time.Minute)
	client, err := c.ThroughBalancer(w)
	must(t, err)
	must(t, lose(ctx))
	begin := time.Now()
	must(t, eventually(ctx, 30*time.Second, func(ctx context.Context) error { return write(ctx, client, begin) }))
	took := time.Since(begin)
	t.Logf("without %s: writes through the balancer resume after %.1f s", lost.Host.Name, took.Seconds())
	if took > 10*time.Second {
		t.Errorf("without %s, writes resumed only after %v", lost.Host.Name, took)
	}
	lost.Token = ""
	must(t, back())
	must(t, c.WaitControllers(ctx, lost))
	must(t, c.CheckOneCluster(ctx))
}

// write changes something through an API server.
func write(ctx context.Context, client kubernetes.Interface, begin time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err := client.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("written-%d", begin.UnixNano())},
	}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) { // by a request whose answer was lost
		return nil
	}
	return err
}

func eventually(ctx context.Context, limit time.Duration, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w; the last answer was: %w", ctx.Err(), err)
		}
	}
}
