package policy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"k0s.io/k0s/inttest/cluster"
	"k0s.io/k0s/inttest/policy/probe"
	"k0s.io/k0s/inttest/testhost"
)

const (
	// outPort is what new pods send to, inPort what is sent to them.
	outPort, inPort = 9000, 9001
	// 200 pods, as many at once as a machine with two cores starts within seconds.
	waves, perWave = 8, 25
)

// counters count what goes to the two ports once all verdicts are passed: into a pod, from wherever (bridge),
// or into the host itself (inet); and which pods got any.
var counters = fmt.Sprintf(`
table bridge gap {
	counter out { }
	counter in { }
	set got {
		type ipv4_addr
		flags dynamic
		size 1000
	}
	chain delivered {
		type filter hook postrouting priority 300
		ip protocol {tcp, udp} th dport %[2]d add @got { ip daddr }
		ip protocol {tcp, udp} th dport %[1]d counter name out
		ip protocol {tcp, udp} th dport %[2]d counter name in
		ip6 nexthdr {tcp, udp} th dport %[1]d counter name out
		ip6 nexthdr {tcp, udp} th dport %[2]d counter name in
	}
}
table inet gap {
	counter host { }
	chain delivered {
		type filter hook input priority 300
		th dport %[1]d counter name host
	}
}`, outPort, inPort)

// TestStartup starts pods under a policy that denies everything. Each sends to a pod of its node, to one of
// another node and to its node from its first instruction, and others send to it before it is there; whatever
// arrives is counted.
func TestStartup(t *testing.T) {
	b := newShutBed(t, testhost.IPv4, "{}")
	// That the counters count is seen with pods that may do it all.
	b.wave(t, "open", 2, orderly)
	if seen := b.delivered(t); len(seen) != 4 {
		t.Fatalf("what pods send and get that no policy is about is not all counted: %v", seen)
	} else {
		t.Logf("without a policy: %v", seen)
	}
	begin := time.Now()
	for i := range waves {
		end := orderly
		if i == waves-1 {
			end = forced
		}
		sent := b.wave(t, "shut", perWave, end)
		t.Logf("wave %d, until %.0f s after the first began: %d packets were sent to its %d pods", i+1, time.Since(begin).Seconds(), sent, perWave)
		if seen := b.delivered(t); len(seen) > 0 {
			t.Errorf("wave %d: packets got through: %v", i+1, seen)
		}
		if t.Failed() {
			return
		}
	}
}

// TestReboot has a host lose its power, and with it all rules, while it has pods as those of TestStartup.
func TestReboot(t *testing.T) {
	const size = 10
	b := newShutBed(t, testhost.IPv4, "{}")
	w, outside := b.workers[0], b.places[1:]
	b.burst(t, "shut", size, b.places)
	first := b.awaitBurst(t, "shut", size, time.Time{})
	addr := netip.MustParseAddr(first["new-0"].Status.PodIP).AsSlice()
	var addresses []netip.Addr // which begin anew
	for last := range byte(size + 24) {
		addresses = append(addresses, netip.AddrFrom4([4]byte{addr[0], addr[1], addr[2], last + 2}))
	}
	if err := w.Host.Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	rebooted := time.Now()
	count(t, w)
	b.resetCounters(t)
	fire(t, outside, addresses)
	w.Token = ""
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	shut := map[netip.Addr]bool{}
	for name, pod := range b.awaitBurst(t, "shut", size, rebooted) {
		addr := netip.MustParseAddr(pod.Status.PodIP)
		if !slices.Contains(addresses, addr) {
			t.Fatalf("%s has the address %s, and not one of %v that were sent to: this proves nothing", name, addr, addresses)
		}
		shut[addr] = true
	}
	t.Logf("the pods are back %.1f s after the reboot", time.Since(rebooted).Seconds())
	in := "in " + w.Name()
	seen, got := b.delivered(t), b.got(t, w, shut)
	delete(seen, in) // others have some of the addresses
	if len(seen) > 0 || len(got) > 0 {
		t.Errorf("packets got through: %v, and to %v", seen, got)
	}
	// Without the policy they do, which shows that they were counted.
	if err := b.Client.NetworkingV1().NetworkPolicies("shut").Delete(t.Context(), "deny", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := b.Eventually(t.Context(), cluster.Patience, "packets to be counted", func(context.Context) error {
		if seen, got := b.delivered(t), b.got(t, w, shut); len(got) < size || seen["out "+b.workers[1].Name()] == 0 || seen["host "+w.Name()] == 0 {
			return fmt.Errorf("there are %v, and to %v", seen, got)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	t.Logf("%d packets were sent to them", cease(t, outside))
}

// newShutBed is a bed with a namespace without policies, open, with a place on each worker, and one in which
// everything is denied, shut. Packets are counted on its workers.
func newShutBed(t *testing.T, families testhost.Families, network string) *bed {
	t.Helper()
	b := newBed(t, families, network, "w0", "w1")
	b.namespace(t, "open", nil)
	b.namespace(t, "shut", nil)
	if _, err := b.Client.NetworkingV1().NetworkPolicies("shut").Create(t.Context(), &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "deny"},
		Spec:       networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, w := range b.workers {
		b.place(t, w, "open", "near-"+w.Name(), nil)
		count(t, w)
	}
	b.waitPlaces(t)
	return b
}

// nft is the packed program on a host.
const nft = cluster.DataDir + "/bin/nft"

// count begins to count packets on a node.
func count(t *testing.T, n *cluster.Node) {
	t.Helper()
	if err := n.Host.WriteFile("/tmp/counters.nft", []byte(counters), 0o600); err != nil {
		t.Fatal(err)
	}
	n.Host.Run(t, nft, "-f", "/tmp/counters.nft")
}

func (b *bed) resetCounters(t *testing.T) {
	t.Helper()
	for _, w := range b.workers {
		w.Host.Run(t, nft, "reset", "counters")
	}
}

// How pods are deleted: by an orderly deletion the object stays until the pod has ended, by a forced one it
// goes at once, before the pod does.
var (
	orderly = metav1.DeleteOptions{}
	forced  = metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}
)

// wave creates pods on the first worker, under fire, deletes them, and waits until they have ended. It returns
// how many packets were sent to them. What they say that they got fails the test, unless they may.
func (b *bed) wave(t *testing.T, namespace string, size int, end metav1.DeleteOptions) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	b.resetCounters(t)
	node := b.workers[0]
	expected := next(t, node.Host, size)
	fire(t, b.places, expected)
	b.burst(t, namespace, size, b.places)
	pods := b.Client.CoreV1().Pods(namespace)
	for name, pod := range b.awaitBurst(t, namespace, size, time.Time{}) {
		if addr := netip.MustParseAddr(pod.Status.PodIP); !slices.Contains(expected, addr) {
			t.Fatalf("%s has the address %s, and not one of %v that were sent to: this proves nothing", name, addr, expected)
		}
		log, err := pods.GetLogs(name, &corev1.PodLogOptions{LimitBytes: new(int64(4096))}).DoRaw(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if namespace == "shut" && len(log) > 0 {
			t.Errorf("%s %s", name, log)
		}
	}
	if err := pods.DeleteCollection(ctx, end, metav1.ListOptions{LabelSelector: "new"}); err != nil {
		t.Fatal(err)
	}
	if err := b.Eventually(ctx, cluster.Patience, "the pods to end", func(ctx context.Context) error {
		left, err := pods.List(ctx, metav1.ListOptions{LabelSelector: "new"})
		if err != nil || len(left.Items) > 0 {
			return errors.Join(err, fmt.Errorf("%d pods are still there", len(left.Items)))
		}
		all, err := node.Host.Processes()
		if err == nil && slices.ContainsFunc(all, func(p testhost.ProcessInfo) bool { return len(p.Args) > 1 && p.Args[1] == "burst" }) {
			err = errors.New("some still run")
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return cease(t, b.places)
}

// fire has places send to addresses, until cease, which returns how many packets they have sent.
func fire(t *testing.T, from []*place, addresses []netip.Addr) {
	t.Helper()
	for _, p := range from {
		if _, err := probe.Ask[int](t.Context(), p.socket, "flood", probe.Flood{Addresses: addresses, Port: inPort}); err != nil {
			t.Fatal(err)
		}
	}
}

func cease(t *testing.T, from []*place) int {
	t.Helper()
	sent := 0
	for _, p := range from {
		n, err := probe.Ask[int](t.Context(), p.socket, "flood", probe.Flood{})
		if err != nil {
			t.Fatal(err)
		}
		sent += n
	}
	return sent
}

// burst creates pods on the first worker that send to places, and to their node, from their first moment on.
func (b *bed) burst(t *testing.T, namespace string, size int, to []*place) {
	t.Helper()
	node := b.workers[0]
	command := []string{"tester", "burst", strconv.Itoa(inPort), net.JoinHostPort(node.Host.IP, strconv.Itoa(outPort))}
	for _, p := range to {
		for _, end := range p.ends {
			command = append(command, netip.AddrPortFrom(end.Addr, outPort).String())
		}
	}
	grace := int64(1) // in which they go on: they ignore signals
	for i := range size {
		pod := newPod(namespace, fmt.Sprintf("new-%d", i), node.Name(), map[string]string{"new": ""}, image(command...))
		pod.Spec.TerminationGracePeriodSeconds = &grace
		if _, err := b.Client.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// awaitBurst waits until so many pods of burst are Ready that were started after a time.
func (b *bed) awaitBurst(t *testing.T, namespace string, size int, after time.Time) map[string]*corev1.Pod {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var running map[string]*corev1.Pod
	if err := cluster.Watch(ctx, b.Client.CoreV1().RESTClient(), "pods", namespace, func(all map[string]*corev1.Pod) error {
		running = maps.Clone(all)
		maps.DeleteFunc(running, func(_ string, p *corev1.Pod) bool { _, isNew := p.Labels["new"]; return !isNew })
		for name, pod := range running {
			if err := cluster.Ready(pod); err != nil {
				return err
			}
			// A time in the API has whole seconds.
			if r := pod.Status.ContainerStatuses[0].State.Running; r == nil || r.StartedAt.Unix() < after.Unix() {
				return fmt.Errorf("%s is not started again", name)
			}
		}
		if len(running) < size {
			return fmt.Errorf("%d of %d are there", len(running), size)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return running
}

// next are the addresses that the next pods on a host will get: host-local gives them in order.
func next(t *testing.T, host *testhost.Host, size int) []netip.Addr {
	t.Helper()
	last, err := host.ReadFile("/run/k0s/cni/k0s/last_reserved_ip.0")
	if err != nil {
		t.Fatal(err)
	}
	addr, err := netip.ParseAddr(string(bytes.TrimSpace(last)))
	if err != nil {
		t.Fatal(err)
	}
	var all []netip.Addr
	for range size + 3 { // in case others come, too
		addr = addr.Next()
		all = append(all, addr)
	}
	return all
}

// delivered are the packets that were counted since the wave began, by counter and host; without those that
// there were none of.
func (b *bed) delivered(t *testing.T) map[string]int {
	t.Helper()
	seen := map[string]int{}
	for _, w := range b.workers {
		var listed struct {
			Nftables []struct {
				Counter *struct {
					Table, Name string
					Packets     int
				}
			}
		}
		text := w.Host.Run(t, nft, "-j", "list", "counters")
		if err := json.Unmarshal([]byte(text), &listed); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		for _, object := range listed.Nftables {
			if c := object.Counter; c != nil && c.Table == "gap" && c.Packets > 0 {
				seen[c.Name+" "+w.Name()] = c.Packets
			}
		}
	}
	return seen
}

// got are those of some addresses on a node that any of the packets went to.
func (b *bed) got(t *testing.T, n *cluster.Node, of map[netip.Addr]bool) []netip.Addr {
	t.Helper()
	var listed struct {
		Nftables []struct {
			Set *struct{ Elem []netip.Addr }
		}
	}
	text := n.Host.Run(t, nft, "-j", "list", "set", "bridge", "gap", "got")
	if err := json.Unmarshal([]byte(text), &listed); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	var all []netip.Addr
	for _, object := range listed.Nftables {
		if object.Set == nil {
			continue
		}
		for _, addr := range object.Set.Elem {
			if of[addr] {
				all = append(all, addr)
			}
		}
	}
	return all
}
