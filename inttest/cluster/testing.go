package cluster

import (
	"context"
	"errors"
	"maps"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"k0s.io/k0s/inttest/testhost"
	"k0s.io/k0s/inttest/testimage"
)

// Where PutImage puts the image's archive and its program tester on the host.
const (
	imageFile = "/tmp/testimage.tar"
	Tester    = "/tmp/tester"
)

// Run starts k0s on a host for a test and waits until its API, its node and its system pods
// are ready, and all of its components are, for at most two minutes each. It says how long each took.
func (c *Cluster) Run(t testing.TB) Timings {
	t.Helper()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	timings, err := c.WaitAll(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("API ready after %.1f s, node Ready after %.1f s, system pods Ready after %.1f s",
		timings.API.Seconds(), timings.Node.Seconds(), timings.SystemPods.Seconds())
	// After a restart node and pods pass for ready by what the kubelet said before.
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := c.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	return timings
}

// Timings are times since the start of k0s.
type Timings struct{ API, Node, SystemPods time.Duration }

// WaitAll waits until the API, the node and the system pods are ready, for at most two minutes.
func (c *Cluster) WaitAll(ctx context.Context) (Timings, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	var timings Timings
	for _, step := range []struct {
		wait func(context.Context) error
		took *time.Duration
	}{{c.WaitAPI, &timings.API}, {c.WaitNode, &timings.Node}, {c.WaitSystemPods, &timings.SystemPods}} {
		if err := step.wait(ctx); err != nil {
			return timings, err
		}
		*step.took = time.Since(c.Started)
	}
	return timings, nil
}

// Hosts boots hosts with these names, all at once, with k0s on each; they share one copy of it.
func Hosts(t testing.TB, network *testhost.Network, names ...string) []*testhost.Host {
	t.Helper()
	file, err := Binary()
	if err != nil {
		t.Fatal(err)
	}
	// A copy: the one of the build may be replaced.
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "cp", file, filepath.Join(dir, "k0s")).CombinedOutput(); err != nil {
		t.Fatalf("copying %s: %v: %s", file, err, out)
	}
	hosts, errs := make([]*testhost.Host, len(names)), make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() {
			hosts[i], errs[i] = network.Boot(t.Context(), name, dir)
			if errs[i] == nil {
				_, errs[i] = hosts[i].Output(t.Context(), "ln", "-s", filepath.Join(dir, "k0s"), Program)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return hosts
}

// MustJoin joins hosts to the cluster, all at once, and waits for nothing; the test fails when it does.
func (c *Cluster) MustJoin(t testing.TB, role string, hosts ...*testhost.Host) []*Node {
	t.Helper()
	nodes, errs := make([]*Node, len(hosts)), make([]error, len(hosts))
	var wg sync.WaitGroup
	for i, h := range hosts {
		wg.Go(func() { nodes[i], errs[i] = c.Join(t.Context(), h, role) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return nodes
}

// WithWorkers is a cluster of a controller and these Workers, in this order, on new hosts, all of it ready, with the test image on
// the workers. The k0s.yaml is that of the controller. There are two minutes for it.
func WithWorkers(t testing.TB, network *testhost.Network, config string, workers ...string) *Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	hosts := Hosts(t, network, append([]string{"c"}, workers...)...)
	hosts[0].Run(t, "mkdir", "-p", "/etc/k0s")
	if err := hosts[0].WriteFile("/etc/k0s/k0s.yaml", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	c := New(hosts[0])
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitAPI(ctx); err != nil {
		t.Fatal(err)
	}
	c.joined = c.MustJoin(t, Worker, hosts[1:]...) // in this order, not in that of their joining
	if err := c.WaitNodes(ctx, c.joined...); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitSystemPods(ctx); err != nil {
		t.Fatal(err)
	}
	for _, h := range hosts {
		image := PutImage(t, h)
		if h != hosts[0] {
			h.Run(t, Program, "ctr", "-n", "k8s.io", "images", "import", image)
		}
	}
	return c
}

// Apply applies manifests.
func (c *Cluster) Apply(t testing.TB, manifests string) {
	t.Helper()
	const file = "/tmp/manifests.yaml"
	if err := c.Host.WriteFile(file, []byte(manifests), 0o644); err != nil {
		t.Fatal(err)
	}
	c.Must(t, "kubectl", "apply", "-f", file)
}

// PutImage builds the test image and puts its archive on the host, at a path it returns, and
// the Tester for use on the host itself.
func PutImage(t testing.TB, h *testhost.Host) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "testimage.tar")
	if err := testimage.Build(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	if err := h.Copy(file, imageFile); err != nil {
		t.Fatal(err)
	}
	if err := h.Copy(filepath.Join(filepath.Dir(file), "tester"), Tester); err != nil {
		t.Fatal(err)
	}
	return imageFile
}

// Must runs a k0s command on the host and returns its standard output; the test fails
// when it does.
func (c *Cluster) Must(t testing.TB, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	out, err := c.K0s(ctx, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Exec runs a command in a pod of the default namespace and returns its standard output.
func (c *Cluster) Exec(ctx context.Context, pod string, command ...string) (string, error) {
	out, err := c.K0s(ctx, append([]string{"kubectl", "exec", pod, "--"}, command...)...)
	return strings.TrimSpace(out), err
}

// Pod waits until a pod of the default namespace meets a condition, for at most a minute;
// the test fails when it does not.
func (c *Cluster) Pod(t testing.TB, name string, met func(*corev1.Pod) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := c.WaitPod(ctx, "default", name, met); err != nil {
		t.Fatal(err)
	}
}

// Children are the names of the processes that a single node consists of, beside k0s itself.
func Children() []string {
	return []string{"containerd", "etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubelet"}
}

// ChildProcesses lists the processes of the host that have the name of a child.
func (n *Node) ChildProcesses() (map[string][]testhost.ProcessInfo, error) {
	all, err := n.Host.Processes()
	if err != nil {
		return nil, err
	}
	byPid := map[int]testhost.ProcessInfo{}
	for _, p := range all {
		byPid[p.Pid] = p
	}
	children := map[string][]testhost.ProcessInfo{}
	for _, p := range all {
		// One that has been forked and is about to execute something else has its parent's arguments.
		forked := slices.Equal(byPid[p.Parent].Args, p.Args)
		if p.State != "Z" && !forked && slices.Contains(Children(), p.Name()) {
			children[p.Name()] = append(children[p.Name()], p)
		}
	}
	return children, nil
}

// notOurs are the caches that kubectl keeps for the user who runs it.
var notOurs = regexp.MustCompile(`^file /root(/\.kube\b.*)? `)

// Snapshot takes down what is on the host, but for what does not come from k0s.
func Snapshot(t testing.TB, h *testhost.Host) testhost.Snapshot {
	t.Helper()
	s, err := h.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(s, func(thing string, _ bool) bool { return notOurs.MatchString(thing) })
	return s
}

// MustBeAsBefore fails the test for all that a host has more, or less, than it had before. The kernel has ten seconds
// to take away the interfaces and processes of the last pods.
func MustBeAsBefore(t testing.TB, h *testhost.Host, before testhost.Snapshot) {
	t.Helper()
	after := Snapshot(t, h)
	for begin := time.Now(); len(before.Added(after)) > 0 && time.Since(begin) < 10*time.Second; {
		time.Sleep(100 * time.Millisecond)
		after = Snapshot(t, h)
	}
	for _, thing := range before.Added(after) {
		t.Errorf("left behind: %s", thing)
	}
	for _, thing := range after.Added(before) {
		t.Errorf("taken away: %s", thing)
	}
}
