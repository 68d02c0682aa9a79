package join

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"k0s.io/k0s/inttest/cluster"
	"k0s.io/k0s/inttest/testhost"
)

// TestEtcdMembers: controllers join one by one, and leave when their EtcdMember objects say so.
func TestEtcdMembers(t *testing.T) {
	h := cluster.Hosts(t, testhost.NewNetwork(t), "c1", "c2", "c3", "w1", "w2")
	c := cluster.New(h[0])
	must(t, c.Start())
	must(t, c.WaitAPI(deadline(t, time.Minute)))
	ctx := deadline(t, time.Minute)
	workers := c.MustJoin(t, cluster.Worker, h[3:]...)
	var joined []*cluster.Node
	for _, host := range h[1:3] {
		n, err := c.Join(ctx, host, cluster.Controller)
		must(t, err)
		must(t, c.WaitControllers(ctx, n))
		t.Logf("%s has joined %.1f s after its start", n.Name(), time.Since(n.Started).Seconds())
		joined = append(joined, n)
	}
	must(t, c.WaitNodes(ctx, workers...))
	t.Logf("3 controllers and 2 workers are Ready after %.1f s", time.Since(c.Started).Seconds())
	must(t, c.CheckOneCluster(ctx))
	c2, c3 := joined[0], joined[1]
	shown(t, &c.Node, "c1 True Voter", "c2 True Voter", "c3 True Voter")

	t.Run("Deleted", func(t *testing.T) {
		c.Must(t, "kubectl", "delete", "etcdmember", "c2")
		shown(t, &c.Node, "c1 True Voter", "c2 True Voter", "c3 True Voter")
	})
	t.Run("LeaderStops", func(t *testing.T) {
		ctx := deadline(t, time.Minute)
		lead(t, c3, &c.Node, c2)
		stop := writing(t, c, &c.Node, c2)
		_, err := c3.Stop(ctx)
		must(t, err)
		c3.Token = ""
		must(t, c3.Start())
		must(t, c.WaitControllers(ctx, c3))
		stop()
	})
	t.Run("LeaderLeaves", func(t *testing.T) {
		lead(t, c3, &c.Node, c2)
		stop := writing(t, c, &c.Node, c2)
		leave(t, c, &c.Node, "c3")
		begin := time.Now()
		shown(t, &c.Node, "c1 True Voter", "c2 True Voter", "c3 False Left leave Success")
		t.Logf("c3 has left after %.1f s", time.Since(begin).Seconds())
		stop()
		if log := c3.LogTail(1 << 20); !strings.Contains(log, "Another member leads etcd from now on") {
			t.Error("c3 has not handed over")
		}
		voters(t, c, "c1", "c2")
		ctx := deadline(t, time.Minute)
		must(t, eventually(ctx, 30*time.Second, func(context.Context) error {
			if log := c3.LogTail(20); !strings.Contains(log, "has left its cluster, and waits") {
				return errors.New(log)
			}
			return nil
		}))
		_, err := c3.Stop(ctx)
		must(t, err)
		refuses(t, c3.Host, "has left cluster", "controller")
	})
	t.Run("JoinsAgain", func(t *testing.T) {
		ctx := deadline(t, time.Minute)
		c3.Host.Run(t, cluster.Program, "reset")
		var err error
		c3.Token, err = c.Token(ctx, cluster.Controller)
		must(t, err)
		must(t, c3.Start())
		must(t, c.WaitControllers(ctx, c3))
		shown(t, &c.Node, "c1 True Voter", "c2 True Voter", "c3 True Voter")
		must(t, c.CheckOneCluster(ctx))
	})
	t.Run("KilledWhileLeaving", func(t *testing.T) {
		// etcd has it still: it goes on.
		ctx := deadline(t, time.Minute)
		_, err := c2.Stop(ctx)
		must(t, err)
		c2.Host.Run(t, "sed", "-i", `s/"state": "member"/"state": "left"/`, "/var/lib/k0s/identity.json")
		must(t, c2.Start())
		must(t, c.WaitControllers(ctx, c2))
	})
	t.Run("Lost", func(t *testing.T) {
		must(t, c3.Host.Kill())
		leave(t, c, &c.Node, "c3")
		begin := time.Now()
		shown(t, &c.Node, "c1 True Voter", "c2 True Voter", "c3 False Left leave Success")
		t.Logf("c3, which is lost, was taken out after %.1f s", time.Since(begin).Seconds())
		c.Remove(c3)
		c3.Token = ""
		must(t, c3.Host.Boot(t.Context()))
		refuses(t, c3.Host, "was taken out of its cluster's etcd while it was away", "controller")
	})
	t.Run("AllAtOnce", func(t *testing.T) {
		// One of them must stay. The other's etcd, which led, is gone.
		lead(t, &c.Node, c2)
		leave(t, c, c2, "c1", "c2")
		var stays string
		must(t, eventually(deadline(t, 2*time.Minute), time.Minute, func(ctx context.Context) error {
			var errs []error
			for _, n := range []*cluster.Node{&c.Node, c2} {
				got, err := objects(ctx, n)
				if err == nil && strings.Contains(got, "Failed") && strings.Contains(got, "False Left leave Success") {
					stays = n.Name()
					return nil
				}
				errs = append(errs, fmt.Errorf("%s: %s %w", n.Name(), got, err))
			}
			return errors.Join(errs...)
		}))
		t.Logf("%s stays", stays)
		for _, n := range []*cluster.Node{&c.Node, c2} {
			if n.Name() == stays {
				must(t, c.WaitControllers(deadline(t, 30*time.Second), n))
			}
		}
	})
}

// leave asks members to leave, by their objects, on a controller: of all at the same time.
func leave(t *testing.T, c *cluster.Cluster, on *cluster.Node, names ...string) {
	t.Helper()
	ctx := deadline(t, time.Minute)
	client, err := c.Through(on)
	must(t, err)
	asked := make(chan error)
	for _, name := range names {
		go func() {
			asked <- client.CoreV1().RESTClient().Patch(types.MergePatchType).AbsPath("/apis/etcd.k0sproject.io/v1beta1/etcdmembers", name).
				Body([]byte(`{"spec":{"leave":true}}`)).Do(ctx).Error()
		}()
	}
	for range names {
		err = errors.Join(err, <-asked)
	}
	must(t, err)
}

// shown waits until the EtcdMember objects are these, in lines.
func shown(t *testing.T, on *cluster.Node, want ...string) {
	t.Helper()
	must(t, eventually(deadline(t, 2*time.Minute), 100*time.Second, func(ctx context.Context) error {
		got, err := objects(ctx, on)
		if err == nil && got != strings.Join(want, "\n") {
			err = fmt.Errorf("the EtcdMember objects are:\n%s", got)
		}
		return err
	}))
}

func objects(ctx context.Context, on *cluster.Node) (string, error) {
	out, err := on.K0s(ctx, "kubectl", "get", "etcdmembers", "--no-headers", "--request-timeout=5s", "-o",
		`jsonpath={range .items[*]}{.metadata.name} {.status.conditions[?(@.type=="Joined")].status} {.status.conditions[?(@.type=="Joined")].reason}`+
			`{" "}{.spec.leave} {.status.reconcileStatus}{"\n"}{end}`)
	var lines []string
	for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
		lines = append(lines, strings.Join(strings.Fields(strings.NewReplacer(" true", " leave", " false", "").Replace(line)), " "))
	}
	return strings.Join(lines, "\n"), err
}
