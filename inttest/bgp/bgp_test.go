// Package bgp runs nodes that tell each other, and a router outside of the cluster, where pods and services are.
package bgp

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"k0s.io/k0s/inttest/cluster"
	"k0s.io/k0s/inttest/testhost"
)

//go:embed testdata/pods.yaml
var podsYAML []byte

const podsFile = "/tmp/pods.yaml"

func TestMesh(t *testing.T) {
	network := testhost.NewNetwork(t)
	s := start(t, network, "    kuberouter: {metricsPort: 8080}\n", nil)
	workers := s.Workers()
	for _, w := range workers {
		s.sessions(t, w, others(workers, w)...)
		s.routes(t, w, others(workers, w)...)
		if tunnels := w.Host.Run(t, "sh", "-c", "ip -o link show type vxlan; ip -o link show type ipip"); tunnels != "" {
			t.Errorf("%s has a tunnel: %s", w.Name(), tunnels)
		}
	}
	s.allReach(t)

	t.Run("what is told of it", func(t *testing.T) { s.told(t, workers[0], workers[1].Host.IP, workers[2].Host.IP) })

	t.Run("k0s is killed, and then stopped, while packets flow", func(t *testing.T) { s.restarts(t) })

	t.Run("a reflector, at once", func(t *testing.T) {
		s.annotate(t, "w0", map[string]any{"kube-router.io/rr.server": "42"})
		s.annotate(t, "w1", map[string]any{"kube-router.io/rr.client": "42"})
		s.annotate(t, "w2", map[string]any{"kube-router.io/rr.client": "42"})
		s.sessions(t, workers[0], workers[1], workers[2])
		s.sessions(t, workers[1], workers[0])
		s.sessions(t, workers[2], workers[0])
		for _, w := range workers {
			s.routes(t, w, others(workers, w)...)
		}
		s.allReach(t)
		if err := workers[1].Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := workers[1].Start(); err != nil {
			t.Fatal(err)
		}
		s.sessions(t, workers[1], workers[0])
		for _, w := range workers {
			s.routes(t, w, others(workers, w)...)
		}
		s.annotate(t, "w1", map[string]any{"kube-router.io/rr.client": nil})
		s.annotate(t, "w2", map[string]any{"kube-router.io/rr.client": nil})
		for _, w := range workers {
			s.sessions(t, w, others(workers, w)...)
			s.routes(t, w, others(workers, w)...)
		}
	})

	t.Run("a node changes its address", func(t *testing.T) {
		moved := workers[2]
		begin := time.Now()
		if err := moved.Host.ChangeAddress(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, from := range []string{"p0", "p1"} {
			s.eventually(t, 30*time.Second, "pods there to be reached", func(ctx context.Context) error {
				out, err := s.Exec(ctx, from, "tester", "get", "http://"+s.podIP(t, "p2")+":8080")
				if err != nil {
					err = fmt.Errorf("%w: %s", err, out)
				}
				return err
			})
		}
		t.Logf("pods there are reached again after %.1f s", time.Since(begin).Seconds())
		for _, w := range workers {
			s.routes(t, w, others(workers, w)...)
			s.sessions(t, w, others(workers, w)...)
		}
		t.Logf("and all have their sessions after %.1f s", time.Since(begin).Seconds())
		s.allReach(t)
	})

	t.Run("a node leaves", func(t *testing.T) {
		gone := workers[2]
		if _, err := gone.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.routes(t, workers[0], workers[1], gone) // its pods go on
		if err := s.Client.CoreV1().Nodes().Delete(t.Context(), gone.Name(), metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		s.eventually(t, 10*time.Second, "its route to go", func(context.Context) error { return s.hasRoutes(t, workers[0], workers[1]) })
	})
}

// told is what k0s status, the metrics and /healthz say on w.
func (s scenario) told(t *testing.T, w *cluster.Node, peers ...string) {
	t.Helper()
	status, err := w.K0s(t.Context(), "status")
	if err != nil {
		t.Fatal(err)
	}
	metrics := w.Host.Run(t, "busybox", "wget", "-qO-", "http://127.0.0.1:8080/metrics")
	wanted := map[string][]string{
		status:  {"routing:", "asn: 64512", "direct: 2", "network-policy:", "policies: 0"},
		metrics: {"kube_router_host_routes_synced 2", `k0s_network_routes{way="tunnelled"} 0`, "k0s_network_policies 0"},
	}
	for _, peer := range peers {
		wanted[status] = append(wanted[status], "peer: "+peer, "state: established")
		wanted[metrics] = append(wanted[metrics], `kube_router_bgp_peer_info{address="`+peer+`",asn="64512",node=`, `kube_router_controller_bgp_advertisements_received{address="`+peer+`"} 1`)
	}
	for text, parts := range wanted {
		for _, part := range parts {
			if !strings.Contains(text, part) {
				t.Errorf("no %q in\n%s", part, text)
			}
		}
	}
	if got := w.Host.Run(t, "busybox", "wget", "-qO-", "http://127.0.0.1:20244/healthz"); got != "OK\n" {
		t.Errorf("/healthz: %q", got)
	}
}

// scenario is a cluster with a pod on each worker.
type scenario struct{ *cluster.Cluster }

// Workers are in the order of their names.
func (s scenario) Workers() []*cluster.Node {
	workers := s.Cluster.Workers()
	slices.SortFunc(workers, func(a, b *cluster.Node) int { return strings.Compare(a.Name(), b.Name()) })
	return workers
}

// start starts it, with these lines in spec.network, on hosts that were prepared.
func start(t *testing.T, network *testhost.Network, spec string, prepare func(*testhost.Host)) scenario {
	t.Helper()
	hosts := cluster.Hosts(t, network, "c0", "w0", "w1", "w2")
	for _, h := range hosts {
		if prepare != nil {
			prepare(h)
		}
	}
	c := cluster.New(hosts[0], "-c", "/etc/k0s.yaml")
	// A machine that builds and tests much may run low on disk: that is not what is tested here.
	const head = `apiVersion: k0s.k0sproject.io/v1beta1
kind: ClusterConfig
spec:
  workerProfiles: [{name: default, values: {evictionHard: {memory.available: 50Mi}}}]
  network:
    provider: kuberouter
`
	config := head + spec
	if err := hosts[0].WriteFile("/etc/k0s.yaml", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := c.WaitAPI(ctx); err != nil {
		t.Fatal(err)
	}
	workers := c.MustJoin(t, cluster.Worker, hosts[1:]...)
	s := scenario{c}
	if err := c.WaitNodes(ctx, workers...); err != nil {
		t.Fatal(err)
	}
	for _, w := range workers {
		w.Host.Run(t, cluster.Program, "ctr", "-n", "k8s.io", "images", "import", cluster.PutImage(t, w.Host))
	}
	if err := c.WaitDefaultServiceAccount(ctx); err != nil {
		t.Fatal(err)
	}
	if err := hosts[0].WriteFile(podsFile, podsYAML, 0o644); err != nil {
		t.Fatal(err)
	}
	c.Must(t, "kubectl", "apply", "-f", podsFile)
	for i := range workers {
		c.Pod(t, fmt.Sprintf("p%d", i), cluster.Ready)
	}
	return s
}

func others(all []*cluster.Node, but *cluster.Node) []*cluster.Node {
	return slices.DeleteFunc(slices.Clone(all), func(n *cluster.Node) bool { return n == but })
}

func (s scenario) eventually(t *testing.T, limit time.Duration, what string, ask func(context.Context) error) {
	t.Helper()
	if err := s.Eventually(t.Context(), limit, what, ask); err != nil {
		t.Fatal(err)
	}
}

// sessions waits until a worker has sessions with these nodes, and with nobody else.
func (s scenario) sessions(t *testing.T, worker *cluster.Node, with ...*cluster.Node) {
	t.Helper()
	var wanted []string
	for _, w := range with {
		wanted = append(wanted, w.Host.IP)
	}
	slices.Sort(wanted)
	s.eventually(t, 30*time.Second, "sessions of "+worker.Name(), func(ctx context.Context) error {
		out, err := worker.Host.Output(ctx, "ss", "-Htn", "state", "established", "( sport = :179 or dport = :179 )")
		if err != nil {
			return err
		}
		var found []string
		for line := range strings.Lines(out) {
			fields := strings.Fields(line)
			address, _, _ := strings.Cut(fields[3], ":")
			found = append(found, address)
		}
		slices.Sort(found)
		if !slices.Equal(found, wanted) {
			return fmt.Errorf("there are sessions with %v, not with %v", found, wanted)
		}
		return nil
	})
}

// podCIDRs are those of the nodes.
func (s scenario) podCIDRs(t *testing.T) map[string]string {
	t.Helper()
	nodes, err := s.Client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cidrs := map[string]string{}
	for _, n := range nodes.Items {
		cidrs[n.Name] = n.Spec.PodCIDR
	}
	return cidrs
}

// routes waits until a worker has direct routes to the pods of these nodes, and to no others.
func (s scenario) routes(t *testing.T, worker *cluster.Node, to ...*cluster.Node) {
	t.Helper()
	s.eventually(t, 30*time.Second, "routes of "+worker.Name(), func(context.Context) error { return s.hasRoutes(t, worker, to...) })
}

func (s scenario) hasRoutes(t *testing.T, worker *cluster.Node, to ...*cluster.Node) error {
	t.Helper()
	cidrs := s.podCIDRs(t)
	wanted := map[string]bool{}
	for _, n := range to {
		if cidr := cidrs[n.Name()]; cidr != "" {
			wanted[fmt.Sprintf("%s via %s dev eth0", cidr, n.Host.IP)] = true
		}
	}
	found := map[string]bool{}
	for line := range strings.Lines(worker.Host.Run(t, "ip", "route", "show", "proto", "107")) {
		found[strings.TrimSpace(line)] = true
	}
	if !maps.Equal(found, wanted) {
		return fmt.Errorf("there are %v, not %v", slices.Sorted(maps.Keys(found)), slices.Sorted(maps.Keys(wanted)))
	}
	return nil
}

// allReach asks each pod from each other.
func (s scenario) allReach(t *testing.T) {
	t.Helper()
	for _, from := range []string{"p0", "p1", "p2"} {
		for _, to := range []string{"p0", "p1", "p2"} {
			if from == to {
				continue
			}
			if out, err := s.Exec(t.Context(), from, "tester", "get", "http://"+s.podIP(t, to)+":8080"); err != nil {
				t.Errorf("%s does not reach %s: %v %s", from, to, err, out)
			}
		}
	}
}

func (s scenario) podIP(t *testing.T, name string) string {
	t.Helper()
	pod, err := s.Client.CoreV1().Pods(metav1.NamespaceDefault).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return pod.Status.PodIP
}

// inPod is a command of the host in the network of its one pod of ours.
func inPod(t *testing.T, worker *cluster.Node, args ...string) []string {
	t.Helper()
	pid := strings.Fields(worker.Host.Run(t, "pgrep", "-x", "tester"))[0]
	return append([]string{"nsenter", "--net", "--target", pid}, args...)
}

// restarts kills k0s on the node that packets go to, and stops it on the node that they come from, and starts
// it again: no packet is lost, no TCP stream held up, and no route removed.
func (s scenario) restarts(t *testing.T) {
	workers := s.Workers()
	from, to := workers[0], workers[1]
	var monitors []*testhost.Process
	for _, w := range workers {
		m, err := w.Host.Start("routes", "ip", "-ts", "monitor", "route")
		if err != nil {
			t.Fatal(err)
		}
		monitors = append(monitors, m)
	}
	const seconds = 40
	// One packet each 5 ms, small ones: the receiver's buffer has room for those of two seconds.
	datagrams := s.stream(t, from, to, "udp", "5201", "--udp", "--bitrate", "100K", "--length", "64", "--time", fmt.Sprint(seconds))
	segments := s.stream(t, from, to, "tcp", "5202", "--bitrate", "2M", "--length", "1K", "--time", fmt.Sprint(seconds))
	if err := to.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.sessions(t, from, workers[2])
	if err := to.Start(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	for _, w := range workers {
		s.sessions(t, w, others(workers, w)...)
	}
	t.Logf("killed and started again, its sessions are back after %.1f s", time.Since(begin).Seconds())
	took, err := from.Stop(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("k0s stopped in %.1f s", took.Seconds())
	if err := from.Start(); err != nil {
		t.Fatal(err)
	}
	for _, w := range workers {
		s.sessions(t, w, others(workers, w)...)
	}
	for _, stream := range []iperf{datagrams, segments} {
		select {
		case <-stream.client.Gone():
			t.Fatal("a stream ended before the restarts did")
		default:
		}
	}
	sent, _ := datagrams.results(t)
	t.Logf("UDP: %d of %d packets lost", sent.End.Sum.Lost, sent.End.Sum.Packets)
	if sent.End.Sum.Lost != 0 || sent.End.Sum.Packets == 0 {
		t.Errorf("packets were lost; the kernel of the receiver counts\n%s",
			to.Host.Run(t, inPod(t, to, "grep", "^Udp:", "/proc/net/snmp")...))
	}
	sent, received := segments.results(t)
	retransmits, silence := 0, 0.0
	for _, i := range sent.Intervals {
		retransmits += i.Sum.Retransmits
	}
	longest := 0.0
	for _, i := range received.Intervals {
		if silence += i.Sum.Seconds; i.Sum.Bytes > 0 {
			silence = 0
		}
		longest = max(longest, silence)
	}
	t.Logf("TCP: %d bytes, %d segments sent twice, %.1f s the longest time without any", received.End.Received.Bytes, retransmits, longest)
	// A busy machine may leave the sender without a processor, but then nothing has to be sent twice.
	if longest > 0.15 && retransmits > 0 || longest > 1 || received.End.Received.Bytes < seconds*200_000 {
		t.Errorf("the TCP stream was held up")
	}
	for i, m := range monitors {
		if err := m.Signal(15); err != nil {
			t.Fatal(err)
		}
		<-m.Gone()
		text, err := os.ReadFile(m.Log)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, "10.244.") {
				t.Errorf("a route of %s was changed: %s", workers[i].Name(), line)
			}
		}
	}
}

// iperf is a stream of packets from a pod on one node to a pod on another.
type iperf struct{ client, server *testhost.Process }

// stream begins one. The server says each 100 ms what it has received.
func (s scenario) stream(t *testing.T, from, to *cluster.Node, name, port string, args ...string) iperf {
	t.Helper()
	server, err := to.Host.Start("iperf-server-"+name, inPod(t, to, "iperf3", "--server", "--one-off", "--port", port, "--interval", "0.1", "--json")...)
	if err != nil {
		t.Fatal(err)
	}
	s.eventually(t, 10*time.Second, "iperf3 to listen", func(ctx context.Context) error {
		_, err := to.Host.Output(ctx, inPod(t, to, "sh", "-c", "ss -Htln sport = :"+port+" | grep -q .")...)
		return err
	})
	client, err := from.Host.Start("iperf-client-"+name, inPod(t, from, append([]string{
		"iperf3", "--client", s.podIP(t, strings.Replace(to.Name(), "w", "p", 1)), "--port", port, "--json"}, args...)...)...)
	if err != nil {
		t.Fatal(err)
	}
	return iperf{client, server}
}

// iperfResult is what one side says of a stream.
type iperfResult struct {
	Intervals []struct {
		Sum struct {
			Seconds     float64 `json:"seconds"`
			Bytes       int     `json:"bytes"`
			Retransmits int     `json:"retransmits"`
		} `json:"sum"`
	} `json:"intervals"`
	End struct {
		Sum struct { // of UDP
			Packets int `json:"packets"`
			Lost    int `json:"lost_packets"`
		} `json:"sum"`
		Received struct { // of TCP
			Bytes int `json:"bytes"`
		} `json:"sum_received"`
	} `json:"end"`
}

// results waits for the end.
func (i iperf) results(t *testing.T) (sent, received iperfResult) {
	t.Helper()
	for process, result := range map[*testhost.Process]*iperfResult{i.client: &sent, i.server: &received} {
		if err := process.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(process.Log)
		if err == nil {
			err = json.Unmarshal(text, result)
		}
		if err != nil {
			t.Fatalf("iperf3: %v: %s", err, text)
		}
	}
	return sent, received
}

// annotate sets annotations of a node; a nil one is removed.
func (s scenario) annotate(t *testing.T, node string, annotations map[string]any) {
	t.Helper()
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": annotations}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Client.CoreV1().Nodes().Patch(t.Context(), node, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}
