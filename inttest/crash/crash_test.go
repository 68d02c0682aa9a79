// Package crash proves that there is no bad moment to be stopped, killed or cut off from
// power, the first start included.
package crash

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"k0s.io/k0s/inttest/cluster"
	"k0s.io/k0s/inttest/testhost"
)

// moments of a first start: certificates, etcd, the API server, the node, the first pods.
var moments = []time.Duration{
	100 * time.Millisecond, 300 * time.Millisecond, 700 * time.Millisecond,
	1500 * time.Millisecond, 2500 * time.Millisecond, 4 * time.Second, 6 * time.Second,
}

// stopLimit is what stopping k0s may take, however far it has come and whatever else runs here.
const stopLimit = 15 * time.Second

func TestStoppedWhileStarting(t *testing.T) {
	host := newHost(t)
	c := cluster.New(host, "--single")
	for _, moment := range moments {
		t.Run(fmt.Sprint(moment), func(t *testing.T) {
			start(t, c, moment)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			took, err := c.Stop(ctx)
			if err != nil && !strings.HasSuffix(err.Error(), "signal: terminated") { // before it could catch it
				t.Fatal(err)
			}
			t.Logf("gone after %.2f s", took.Seconds())
			if took > stopLimit {
				t.Errorf("stopping took %.1f s", took.Seconds())
			}
			noChildren(t, c)
		})
	}
	c.Run(t)
}

func TestKilledWhileStarting(t *testing.T) {
	host := newHost(t)
	c := cluster.New(host, "--single")
	for _, moment := range moments {
		start(t, c, moment)
		if err := c.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		_ = c.Process.Wait(t.Context()) // it was killed
	}
	c.Run(t)
	children, err := c.ChildProcesses()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range cluster.Children() {
		if len(children[name]) != 1 {
			t.Errorf("there are %d processes %s", len(children[name]), name)
		}
	}
}

// etcd has a log on disk for a moment before it is in it that it is a member of the cluster.
// Killed then, it would wait for ever to be made one.
func TestKilledWhileFounding(t *testing.T) {
	host := newHost(t)
	c := cluster.New(host, "--single")
	for _, moment := range []time.Duration{0, 5 * time.Millisecond, 20 * time.Millisecond, 60 * time.Millisecond} {
		t.Run(fmt.Sprint(moment), func(t *testing.T) {
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			log := fmt.Sprintf("/proc/%d/root%s/etcd/member/wal/0000000000000000-0000000000000000.wal", host.Pid(), c.DataDir)
			for begin := time.Now(); ; time.Sleep(time.Millisecond) { // for a millisecond too late is too late
				if _, err := os.Stat(log); err == nil {
					break
				}
				if time.Since(begin) > 20*time.Second {
					t.Fatalf("there is no %s after %v", log, time.Since(begin))
				}
			}
			time.Sleep(moment)
			reboot(t, host)
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			if err := c.WaitAPI(ctx); err != nil {
				t.Error(err)
			}
			reboot(t, host)
			host.Run(t, "rm", "-rf", c.DataDir)
		})
	}
}

func TestPowerFailures(t *testing.T) {
	host := newHost(t)
	c := cluster.New(host, "--single")
	for _, moment := range moments {
		start(t, c, moment)
		reboot(t, host)
	}
	c.Run(t)
}

func newHost(t *testing.T) *testhost.Host {
	t.Helper()
	host := testhost.NewNetwork(t).Host(t, "crash")
	if err := cluster.Install(host); err != nil {
		t.Fatal(err)
	}
	return host
}

// start starts k0s and lets it run for a while.
func start(t *testing.T, c *cluster.Cluster, d time.Duration) {
	t.Helper()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-time.After(d):
	case <-c.Process.Gone():
		t.Fatalf("k0s ended by itself: %v\n%s", c.Process.Wait(t.Context()), c.LogTail(20))
	}
}

func noChildren(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	children, err := c.ChildProcesses()
	if err != nil {
		t.Fatal(err)
	}
	for _, left := range children {
		t.Errorf("still running: %v", left)
	}
}
