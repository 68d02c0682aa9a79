// Package single proves a cluster of one node, on a host without a route out: first that it
// works, then that nothing which happens to it hurts its pods, then that it goes away whole.
package single

import (
	"context"
	"testing"
	"time"

	"k0s.io/k0s/inttest/cluster"
	"k0s.io/k0s/inttest/testhost"
)

// The parts are in the order of a cluster's life; each goes on where the one before ended.
func TestSingle(t *testing.T) {
	host := testhost.NewNetwork(t).Host(t, "single")
	if err := cluster.Install(host); err != nil {
		t.Fatal(err)
	}
	image := cluster.PutImage(t, host)
	workloads(t, host)
	before := cluster.Snapshot(t, host)

	c := cluster.New(host, "--single")
	cold := c.Run(t)

	if !t.Run("Status", func(t *testing.T) { testStatus(t, c) }) {
		t.Fatal("without a working status the rest says little")
	}
	c.Must(t, "ctr", "-n", "k8s.io", "images", "import", image)
	c.Must(t, "kubectl", "apply", "-f", workloadsFile)

	ran := t.Run("Workloads", func(t *testing.T) {
		t.Run("Pod", func(t *testing.T) { testPod(t, c) })
		t.Run("Init", func(t *testing.T) { testInit(t, c) })
		t.Run("Mounts", func(t *testing.T) { testMounts(t, c) })
		t.Run("Deployment", func(t *testing.T) { testDeployment(t, c) })
		t.Run("StatefulSet", func(t *testing.T) { testStatefulSet(t, c) })
		t.Run("Job", func(t *testing.T) { testJob(t, c) })
		t.Run("Liveness", func(t *testing.T) { testLiveness(t, c) })
	})
	t.Run("Commands", func(t *testing.T) { testCommands(t, c) })
	t.Run("Network", func(t *testing.T) {
		t.Run("DNS", func(t *testing.T) { testDNS(t, c) })
		t.Run("Services", func(t *testing.T) { testServices(t, c) })
		t.Run("API", func(t *testing.T) { testAPI(t, c) })
	})
	t.Run("Kubectl", func(t *testing.T) {
		t.Run("Copy", func(t *testing.T) { testCopy(t, c) })
		t.Run("PortForward", func(t *testing.T) { testPortForward(t, c) })
		t.Run("Top", func(t *testing.T) { testTop(t, c) })
	})
	t.Run("CronJob", func(t *testing.T) { testCronJob(t, c) })
	c.Must(t, "kubectl", "delete", "cronjob", "cron")
	if !ran {
		t.Fatal("without its workloads there is nothing to watch over from here on")
	}

	t.Run("KillChildren", func(t *testing.T) { testKillChildren(t, c) })
	if !t.Run("KillSupervisor", func(t *testing.T) { testKillSupervisor(t, c) }) {
		return
	}
	if !t.Run("Restart", func(t *testing.T) { testRestart(t, c, cold) }) {
		return
	}
	t.Run("Reset", func(t *testing.T) { testReset(t, c, before) })
}

// within runs a function as often as it takes until it succeeds.
func within(t *testing.T, c *cluster.Cluster, limit time.Duration, what string, ask func(context.Context) error) {
	t.Helper()
	if err := c.Eventually(t.Context(), limit, what, ask); err != nil {
		t.Fatal(err)
	}
}
