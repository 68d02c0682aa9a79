package crash

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k0s.io/k0s/inttest/cluster"
	"k0s.io/k0s/inttest/testhost"
)

// Where a host of these tests has k0s, what kills it, and what that keeps. cluster.Program starts both.
const (
	realProgram = "/usr/local/lib/k0s"
	killer      = "/usr/local/lib/onestep"
	killerDir   = "/etc/onestep"
)

// installKiller makes a host's k0s, when it is run with one of these commands, be killed one step further each time.
func installKiller(t *testing.T, host *testhost.Host, commands ...string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "onestep")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", file, "k0s.io/k0s/inttest/crash/onestep").CombinedOutput(); err != nil {
		t.Fatalf("compiling onestep: %v: %s", err, out)
	}
	if err := host.Copy(file, killer); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("#!/bin/sh\ncase $1 in\n%s) exec %s %s %s \"$@\" ;;\n*) exec %[4]s \"$@\" ;;\nesac\n",
		strings.Join(commands, "|"), killer, killerDir, realProgram)
	host.Run(t, "mv", cluster.Program, realProgram)
	host.Run(t, "mkdir", "-p", killerDir)
	host.Run(t, "touch", killerDir+"/steps")
	if err := host.WriteFile(cluster.Program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
}

// steps are those that k0s was killed at.
func steps(t *testing.T, host *testhost.Host) []string {
	t.Helper()
	content, err := host.ReadFile(killerDir + "/steps")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(content), "\n")
	return lines[:len(lines)-1]
}

// powerCut cuts the power of a host and gives it back. What k0s had written on its disk and not synced is empty then.
func powerCut(t *testing.T, host *testhost.Host) {
	t.Helper()
	reboot(t, host)
	host.Run(t, "sh", "-c", `while read -r file; do
		case $file in /var/* | /etc/*) [ ! -f "$file" ] || : >"$file" ;; esac
	done <`+killerDir+"/unsynced")
}

// removeKiller lets the host's k0s live from now on.
func removeKiller(t *testing.T, host *testhost.Host) {
	t.Helper()
	host.Run(t, "mv", realProgram, cluster.Program)
	host.Run(t, "rm", "-r", killer, killerDir)
}

func reboot(t *testing.T, host *testhost.Host) {
	t.Helper()
	if err := host.Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// everyStep starts k0s, which runs already the first time, again whenever it was killed, a step further each time,
// until it is ready or was killed often enough (0: never).
func everyStep(t *testing.T, n *cluster.Node, power bool, enough int, ready func(context.Context) error) {
	t.Helper()
	for known := 0; enough == 0 || known < enough; known++ {
		if known > 0 {
			if err := n.Start(); err != nil {
				t.Fatal(err)
			}
		}
		err := untilGone(t.Context(), n, ready)
		if err == nil {
			t.Logf("k0s was killed at %d steps", known)
			return
		}
		all := steps(t, n.Host)
		if n.Running() || len(all) != known+1 {
			t.Fatalf("killed before these steps,\n%s\nk0s gets no further: %v\n%s", strings.Join(all, "\n"), err, n.LogTail(20))
		}
		t.Logf("%.1f s: killed before %s", time.Since(n.Started).Seconds(), all[known])
		if power {
			powerCut(t, n.Host)
		}
	}
}

// everyStepOf runs a command of k0s again whenever it was killed, a step further each time, until it succeeds.
func everyStepOf(ctx context.Context, t *testing.T, n *cluster.Node, args ...string) {
	t.Helper()
	for known := 0; ; known++ {
		_, err := n.K0s(ctx, args...)
		if err == nil {
			t.Logf("k0s %s was killed at %d steps", args[0], known)
			return
		}
		all := steps(t, n.Host)
		if len(all) != known+1 {
			t.Fatalf("killed before these steps,\n%s\nk0s %s gets no further: %v", strings.Join(all, "\n"), args[0], err)
		}
		t.Logf("killed before %s", all[known])
	}
}

// untilGone waits until k0s is ready. It is an error if it ends before, or is not in two minutes.
func untilGone(ctx context.Context, n *cluster.Node, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- ready(ctx) }()
	select {
	case err := <-done:
		return err
	case <-n.Process.Gone():
		cancel()
		<-done
		return errors.Join(errors.New("k0s has ended"), n.Process.Wait(context.WithoutCancel(ctx)))
	}
}

// TestFirstSteps is the beginning of TestEveryStep: up to the keys.
func TestFirstSteps(t *testing.T) { firstStart(t, false, 40) }

// TestEveryStep kills k0s right before each of its changes of files, wherever it comes to them first, and starts it again.
func TestEveryStep(t *testing.T) {
	t.Run("FirstStart", func(t *testing.T) { firstStart(t, false, 0) })
	t.Run("FirstStartPowerCut", func(t *testing.T) { firstStart(t, true, 0) })
	for role, ready := range map[string]func(context.Context, *cluster.Cluster, *cluster.Node) error{
		cluster.Worker: func(ctx context.Context, c *cluster.Cluster, n *cluster.Node) error { return c.WaitNodes(ctx, n) },
		cluster.Controller: func(ctx context.Context, c *cluster.Cluster, n *cluster.Node) error {
			return c.WaitControllers(ctx, &c.Node, n)
		},
	} {
		t.Run("Joining/"+role, func(t *testing.T) {
			c, n := joining(t, role, role)
			everyStep(t, n, false, 0, func(ctx context.Context) error { return ready(ctx, c, n) })
			if err := c.CheckOneCluster(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("Leave", func(t *testing.T) {
		c, n := joining(t, cluster.Controller, "etcd")
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		if err := c.WaitControllers(ctx, &c.Node, n); err != nil {
			t.Fatal(err)
		}
		everyStepOf(ctx, t, n, "etcd", "leave")
		if list := c.Must(t, "etcd", "member-list"); !strings.Contains(list, c.Host.Name) || strings.Contains(list, n.Host.Name) {
			t.Errorf("etcd's members are %s", list)
		}
	})
	t.Run("Reset", func(t *testing.T) {
		host := newHost(t)
		before := cluster.Snapshot(t, host)
		installKiller(t, host, "reset")
		c := cluster.New(host, "--single")
		c.Run(t)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		if _, err := c.Stop(ctx); err != nil {
			t.Fatal(err)
		}
		everyStepOf(ctx, t, &c.Node, "reset")
		removeKiller(t, host)
		cluster.MustBeAsBefore(t, host, before)
	})
}

// firstStart is of a single node.
func firstStart(t *testing.T, power bool, enough int) {
	host := newHost(t)
	before := cluster.Snapshot(t, host)
	installKiller(t, host, "controller")
	c := cluster.New(host, "--single")
	ready := func(ctx context.Context) error {
		_, err := c.WaitAll(ctx)
		return err
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	everyStep(t, &c.Node, power, enough, ready)
	if c.Running() {
		kill(t, &c.Node)
	}
	removeKiller(t, host)
	c.Run(t)
	kill(t, &c.Node)
	c.Must(t, "reset")
	cluster.MustBeAsBefore(t, host, before)
}

// joining starts a cluster of one controller, and another host that joins it and has k0s killed when it is run
// with one of these commands.
func joining(t *testing.T, role string, commands ...string) (*cluster.Cluster, *cluster.Node) {
	t.Helper()
	hosts := cluster.Hosts(t, testhost.NewNetwork(t), "founder", "joining")
	installKiller(t, hosts[1], commands...)
	c := cluster.New(hosts[0])
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := c.WaitAPI(ctx); err != nil {
		t.Fatal(err)
	}
	n, err := c.Join(ctx, hosts[1], role)
	if err != nil {
		t.Fatal(err)
	}
	return c, n
}
