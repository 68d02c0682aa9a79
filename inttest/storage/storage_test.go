// Package storage proves that a cluster keeps its state wherever spec.storage says: in SQLite, PostgreSQL,
// MariaDB or NATS by way of kine, or in an etcd that k0s does not run.
package storage

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"k0s.io/k0s/inttest/cluster"
	"k0s.io/k0s/inttest/testhost"
)

const configFile = "/etc/k0s/k0s.yaml"

// newHost boots a host with k0s.
func newHost(t *testing.T, n *testhost.Network, name string) *testhost.Host {
	t.Helper()
	h := n.Host(t, name)
	if err := cluster.Install(h); err != nil {
		t.Fatal(err)
	}
	return h
}

// configure writes a k0s.yaml with this spec.storage.
func configure(t *testing.T, h *testhost.Host, storage string) {
	t.Helper()
	config := "apiVersion: k0s.k0sproject.io/v1beta1\nkind: ClusterConfig\nspec:\n  storage: " + storage + "\n"
	if err := h.WriteFile(configFile, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
}

// start starts k0s and waits until its API and its node are ready.
func start(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ready(t, c)
}

func ready(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := c.WaitAPI(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitNode(ctx); err != nil {
		t.Fatal(err)
	}
}

func stop(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	took, err := c.Stop(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if took > 15*time.Second {
		t.Errorf("stopping took %.1f s", took.Seconds())
	}
	t.Logf("k0s stopped in %.1f s", took.Seconds())
}

// remember stores something in the cluster, as soon as that is possible.
func remember(t *testing.T, c *cluster.Cluster, name string) {
	t.Helper()
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"is": "here"}}
	err := c.Eventually(t.Context(), cluster.Patience, "the cluster to store "+name, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		_, err := c.Client.CoreV1().ConfigMaps("default").Create(ctx, object, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) { // if it does: the first answer was lost
			_, err = c.Client.CoreV1().ConfigMaps("default").Get(ctx, name, metav1.GetOptions{})
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// remembered fails the test when the cluster has forgotten.
func remembered(t *testing.T, c *cluster.Cluster, names ...string) {
	t.Helper()
	for _, name := range names {
		object, err := c.Client.CoreV1().ConfigMaps("default").Get(t.Context(), name, metav1.GetOptions{})
		if err != nil || object.Data["is"] != "here" {
			t.Errorf("the cluster has forgotten %s: %v %v", name, object, err)
		}
	}
}

// process is the one process of the host with that name.
func process(t *testing.T, h *testhost.Host, name string) testhost.ProcessInfo {
	t.Helper()
	found := processes(t, h, name)
	if len(found) != 1 {
		t.Fatalf("there are %d processes %s on %s", len(found), name, h.Name)
	}
	return found[0]
}

func noProcess(t *testing.T, h *testhost.Host, name string) {
	t.Helper()
	for _, p := range processes(t, h, name) {
		t.Errorf("there is a process on %s: %q", h.Name, p.Args)
	}
}

func processes(t *testing.T, h *testhost.Host, name string) []testhost.ProcessInfo {
	t.Helper()
	all, err := h.Processes()
	if err != nil {
		t.Fatal(err)
	}
	var found []testhost.ProcessInfo
	for _, p := range all {
		if p.State != "Z" && p.Name() == name {
			found = append(found, p)
		}
	}
	return found
}

// refused starts k0s, which must end soon and say why.
func refused(t *testing.T, c *cluster.Cluster, said ...string) {
	t.Helper()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := c.Process.Wait(ctx)
	if err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("k0s was to refuse, saying %q: %v; the end of its log:\n%s", said, err, c.LogTail(10))
	}
	var sentence string
	for line := range strings.Lines(c.LogTail(20)) {
		if strings.HasPrefix(line, "Error: ") {
			sentence = strings.TrimSpace(line)
		}
	}
	t.Logf("k0s said: %s", sentence)
	for _, words := range said {
		if !strings.Contains(sentence, words) {
			t.Errorf("k0s did not say %q", words)
		}
	}
}

// waitsFor starts nothing: it looks at `k0s status components` until the component says that it waits for this.
func waitsFor(t *testing.T, c *cluster.Cluster, component string, said ...string) {
	t.Helper()
	err := c.Eventually(t.Context(), cluster.Patience, component+" to say what it waits for", func(ctx context.Context) error {
		out, err := c.K0s(ctx, "status", "components")
		if err != nil {
			return err
		}
		for line := range strings.Lines(out) {
			if !strings.HasPrefix(line, component+" ") {
				continue
			}
			for _, words := range said {
				if !strings.Contains(line, words) {
					return fmt.Errorf("it says %q", line)
				}
			}
			t.Logf("status: %s", strings.TrimSpace(line))
			return nil
		}
		return fmt.Errorf("there is no %s in\n%s", component, out)
	})
	if err != nil {
		t.Fatal(err)
	}
}
