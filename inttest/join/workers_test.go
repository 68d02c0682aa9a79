// Package join proves that machines become a cluster: workers join a controller, controllers join each
// other, and the cluster survives losing machines.
package join

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"k0s.io/k0s/inttest/cluster"
	"k0s.io/k0s/inttest/testhost"
)

// pods are one per worker, by the worker's name.
const pods = `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: tools}
spec:
  selector: {matchLabels: {app: tools}}
  template:
    metadata: {labels: {app: tools}}
    spec:
      containers:
      - {name: main, image: "k0s.test/tools:1", imagePullPolicy: Never, command: [tester, serve, ":8080"]}
---
apiVersion: v1
kind: Service
metadata: {name: tools}
spec: {selector: {app: tools}, ports: [{port: 80, targetPort: 8080}]}
`

func deadline(t *testing.T, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestWorkers(t *testing.T) {
	h := cluster.Hosts(t, testhost.NewNetwork(t), "c1", "w1", "W2")
	before := cluster.Snapshot(t, h[1])
	c := cluster.New(h[0])
	must(t, c.Start())
	ctx := deadline(t, time.Minute)
	must(t, c.WaitAPI(ctx))
	t.Logf("the API is ready after %.1f s", time.Since(c.Started).Seconds())

	w1, err := c.Join(ctx, h[1], cluster.Worker, "--labels", "disk=fast", "--taints", "only=some:PreferNoSchedule")
	must(t, err)
	w2, err := c.Join(ctx, h[2], cluster.Worker) // a name that Kubernetes does not allow as it is
	must(t, err)
	must(t, c.WaitNodes(ctx, w1, w2))
	t.Logf("both workers are Ready %.1f s after the start of the second", time.Since(w2.Started).Seconds())
	must(t, c.WaitSystemPods(ctx))
	must(t, c.CheckOneCluster(ctx))

	node, err := c.Client.CoreV1().Nodes().Get(ctx, "w1", metav1.GetOptions{})
	must(t, err)
	if node.Labels["disk"] != "fast" || len(node.Spec.Taints) != 1 || node.Spec.Taints[0].Key != "only" {
		t.Errorf("w1 has labels %v and taints %v", node.Labels, node.Spec.Taints)
	}
	// Nobody on the host is to read the token in a list of processes.
	for _, w := range []*cluster.Node{w1, w2} {
		if out := w.Host.Run(t, "ps", "-ww", "-e", "-o", "args="); strings.Contains(out, w.Token) {
			t.Errorf("the token is in the list of processes of %s", w.Host.Name)
		}
	}

	image := ""
	for _, w := range []*cluster.Node{w1, w2} {
		image = cluster.PutImage(t, w.Host)
		w.Host.Run(t, cluster.Program, "ctr", "-n", "k8s.io", "images", "import", image)
	}
	must(t, h[0].WriteFile("/tmp/pods.yaml", []byte(pods), 0o644))
	c.Must(t, "kubectl", "apply", "-f", "/tmp/pods.yaml")
	ips := waitTools(t, c, w1, w2)
	everyPodReachesEvery(t, c, w1, w2, ips)

	t.Run("RestartWithoutToken", func(t *testing.T) {
		ctx := deadline(t, time.Minute)
		_, err := w1.Stop(ctx)
		must(t, err)
		w1.Token = ""
		must(t, w1.Start())
		must(t, w1.WaitReady(ctx))
		must(t, c.WaitNodes(ctx, w1))
		if again := waitTools(t, c, w1, w2); again["w1"] != ips["w1"] {
			t.Errorf("the pod on w1 has another address now: %s, not %s", again["w1"], ips["w1"])
		}
	})
	t.Run("WithoutController", func(t *testing.T) {
		// Workloads go on while nobody controls them, and a worker started then waits.
		ctx := deadline(t, 2*time.Minute)
		must(t, c.Kill(ctx))
		get := func() (string, error) {
			return w2.Host.Output(ctx, cluster.Tester, "get", "http://"+ips["w1"]+":8080/")
		}
		if out, err := get(); err != nil || !strings.HasPrefix(out, "tools-") {
			t.Errorf("the pod on w1 answers %q, %v", out, err)
		}
		must(t, w1.Kill(ctx))
		must(t, w1.Start())
		must(t, c.Start())
		must(t, c.WaitAPI(ctx))
		must(t, w1.WaitReady(ctx))
		must(t, c.WaitNodes(ctx, w1, w2))
		everyPodReachesEvery(t, c, w1, w2, waitTools(t, c, w1, w2))
	})
	t.Run("ProfileChanges", func(t *testing.T) {
		// The controller starts with another file; workers follow by themselves, and only their kubelets restart.
		ctx := deadline(t, time.Minute)
		before, pids := waitTools(t, c, w1, w2), children(t, w1)
		_, err := c.Stop(ctx)
		must(t, err)
		h[0].Run(t, "mkdir", "-p", "/etc/k0s")
		must(t, h[0].WriteFile("/etc/k0s/k0s.yaml", []byte("spec: {workerProfiles: [{name: default, values: {maxPods: 77}}]}"), 0o600))
		must(t, c.Start())
		must(t, c.WaitAPI(ctx))
		must(t, cluster.Watch(ctx, c.Client.CoreV1().RESTClient(), "nodes", "", func(all map[string]*corev1.Node) error {
			for name, node := range all {
				if got := node.Status.Capacity.Pods().Value(); got != 77 {
					return fmt.Errorf("%s has room for %d pods", name, got)
				}
			}
			return nil
		}))
		for name, pid := range children(t, w1) {
			if (pids[name] != pid) != (name == "kubelet") {
				t.Errorf("%s was process %d, and is %d", name, pids[name], pid)
			}
		}
		if after := waitTools(t, c, w1, w2); after["w1"] != before["w1"] || after["w2"] != before["w2"] {
			t.Errorf("pods had the addresses %v, and have %v", before, after)
		}
	})
	t.Run("DeletedNode", func(t *testing.T) {
		// It comes back with the next start of its k0s, and has other pod CIDRs then.
		ctx := deadline(t, 2*time.Minute)
		nodes := c.Client.CoreV1().Nodes()
		old, err := nodes.Get(ctx, "w2", metav1.GetOptions{})
		must(t, err)
		_, err = w2.Stop(ctx)
		must(t, err)
		must(t, nodes.Delete(ctx, "w2", metav1.DeleteOptions{}))
		// Another one comes between, so that it does not get the same ones again.
		_, err = nodes.Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "between"}}, metav1.CreateOptions{})
		must(t, err)
		must(t, cluster.Watch(ctx, c.Client.CoreV1().RESTClient(), "nodes", "", func(all map[string]*corev1.Node) error {
			if node := all["between"]; node == nil || node.Spec.PodCIDR == "" {
				return fmt.Errorf("it has no pod CIDR: %v", node)
			}
			return nil
		}))
		must(t, c.Client.CoreV1().Pods("default").DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: new(int64)},
			metav1.ListOptions{FieldSelector: "spec.nodeName=w2"}))
		must(t, w2.Start())
		must(t, w2.WaitReady(ctx))
		must(t, c.WaitNodes(ctx, w1, w2))
		must(t, nodes.Delete(ctx, "between", metav1.DeleteOptions{}))
		ips := waitTools(t, c, w1, w2)
		again, err := nodes.Get(ctx, "w2", metav1.GetOptions{})
		must(t, err)
		if again.UID == old.UID || again.Spec.PodCIDR == old.Spec.PodCIDR || !netip.MustParsePrefix(again.Spec.PodCIDR).Contains(netip.MustParseAddr(ips["w2"])) {
			t.Errorf("w2 had the pod CIDR %s, has %s, and its pod has %s", old.Spec.PodCIDR, again.Spec.PodCIDR, ips["w2"])
		}
		everyPodReachesEvery(t, c, w1, w2, ips)
	})
	t.Run("Reset", func(t *testing.T) {
		ctx := deadline(t, time.Minute)
		_, err := w1.Stop(ctx)
		must(t, err)
		h[1].Run(t, cluster.Program, "reset")
		for _, file := range []string{"/tmp/testimage.tar", cluster.Tester} {
			h[1].Run(t, "rm", file)
		}
		cluster.MustBeAsBefore(t, h[1], before)
	})
}

// children are the processes of a worker's programs.
func children(t *testing.T, w *cluster.Node) map[string]int {
	t.Helper()
	all, err := w.Host.Processes()
	must(t, err)
	pids := map[string]int{}
	for _, p := range all {
		switch p.Name() {
		case "kubelet", "containerd", "kube-proxy":
			pids[p.Name()] = p.Pid
		}
	}
	if len(pids) != 3 {
		t.Fatalf("the programs of %s are %v", w.Host.Name, pids)
	}
	return pids
}

// waitTools waits for the pod of each worker, and returns their addresses.
func waitTools(t *testing.T, c *cluster.Cluster, workers ...*cluster.Node) map[string]string {
	t.Helper()
	ips := map[string]string{}
	must(t, cluster.Watch(deadline(t, time.Minute), c.Client.CoreV1().RESTClient(), "pods", "default", func(all map[string]*corev1.Pod) error {
		for _, w := range workers {
			ips[w.Name()] = ""
			for _, pod := range all {
				if pod.Spec.NodeName == w.Name() && cluster.Ready(pod) == nil {
					ips[w.Name()] = pod.Status.PodIP
				}
			}
			if ips[w.Name()] == "" {
				return fmt.Errorf("there is no ready pod on %s", w.Name())
			}
		}
		return nil
	}))
	return ips
}

// everyPodReachesEvery asks from each worker's host and pods' network; the service must reach both.
func everyPodReachesEvery(t *testing.T, c *cluster.Cluster, w1, w2 *cluster.Node, ips map[string]string) {
	t.Helper()
	service, err := c.Client.CoreV1().Services("default").Get(t.Context(), "tools", metav1.GetOptions{})
	must(t, err)
	for _, w := range []*cluster.Node{w1, w2} {
		for name, ip := range ips {
			if err := c.Eventually(t.Context(), 15*time.Second, "the pod on "+name+" to answer "+w.Name(), func(ctx context.Context) error {
				_, err := w.Host.Output(ctx, "timeout", "2", cluster.Tester, "get", "http://"+ip+":8080/")
				return err
			}); err != nil {
				t.Error(err)
			}
		}
		answered := map[string]bool{}
		if err := c.Eventually(t.Context(), 15*time.Second, "the service to reach both pods from "+w.Name(), func(ctx context.Context) error {
			out, err := w.Host.Output(ctx, "timeout", "2", cluster.Tester, "get", "http://"+service.Spec.ClusterIP+"/")
			if err != nil {
				return err
			}
			pod, _, _ := strings.Cut(out, " answers ")
			if answered[pod] = true; len(answered) < 2 {
				return fmt.Errorf("only %s has", pod)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
}
