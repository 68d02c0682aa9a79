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
// or into the host itself (inet).
var counters = fmt.Sprintf(`
table bridge gap {
	counter out { }
	counter in { }
	chain delivered {
		type filter hook postrouting priority 300
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
	b := newBed(t, "", "w0", "w1")
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
		if err := w.Host.WriteFile("/tmp/counters.nft", []byte(counters), 0o600); err != nil {
			t.Fatal(err)
		}
		w.Host.Run(t, nft, "-f", "/tmp/counters.nft")
	}
	b.waitPlaces(t)

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
		sent, heard := b.wave(t, "shut", perWave, end)
		t.Logf("wave %d, until %.0f s after the first began: %d packets were sent to its %d pods", i+1, time.Since(begin).Seconds(), sent, perWave)
		for _, line := range heard {
			t.Errorf("a pod %s", line)
		}
		if seen := b.delivered(t); len(seen) > 0 {
			t.Errorf("wave %d: packets got through (by port and host): %v", i+1, seen)
		}
		if t.Failed() {
			return
		}
	}
}

// nft is the packed program on a host.
const nft = cluster.DataDir + "/bin/nft"

// How pods are deleted: by an orderly deletion the object stays until the pod has ended, by a forced one it
// goes at once, before the pod does.
var (
	orderly = metav1.DeleteOptions{}
	forced  = metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}
)

// wave creates pods on the first worker, under fire, deletes them, and waits until they have ended. It returns
// how many packets were sent to them and what they say that they got.
func (b *bed) wave(t *testing.T, namespace string, size int, end metav1.DeleteOptions) (sent int, heard []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	for _, w := range b.workers {
		w.Host.Run(t, nft, "reset", "counters")
	}
	node := b.workers[0]
	expected := next(t, node.Host, size)
	flood := probe.Flood{Addresses: expected, Port: inPort}
	for _, p := range b.places {
		if _, err := probe.Ask[int](ctx, p.socket, "flood", flood); err != nil {
			t.Fatal(err)
		}
	}
	command := []string{"tester", "burst", strconv.Itoa(inPort)}
	for _, p := range b.places {
		for _, end := range p.ends {
			command = append(command, netip.AddrPortFrom(end.Addr, outPort).String())
		}
	}
	command = append(command, net.JoinHostPort(node.Host.IP, strconv.Itoa(outPort)))
	grace := int64(1) // in which they go on: they ignore signals
	pods := b.Client.CoreV1().Pods(namespace)
	for i := range size {
		pod := newPod(namespace, fmt.Sprintf("new-%d", i), node.Name(), map[string]string{"new": ""}, image(command...))
		pod.Spec.TerminationGracePeriodSeconds = &grace
		if _, err := pods.Create(ctx, pod, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	running := map[string]*corev1.Pod{}
	if err := cluster.Watch(ctx, b.Client.CoreV1().RESTClient(), "pods", namespace, func(all map[string]*corev1.Pod) error {
		running = maps.Clone(all)
		maps.DeleteFunc(running, func(_ string, p *corev1.Pod) bool { _, isNew := p.Labels["new"]; return !isNew })
		for _, pod := range running {
			if err := cluster.Ready(pod); err != nil {
				return err
			}
		}
		if len(running) < size {
			return fmt.Errorf("%d of %d are there", len(running), size)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for name, pod := range running {
		if addr := netip.MustParseAddr(pod.Status.PodIP); !slices.Contains(expected, addr) {
			t.Fatalf("%s has the address %s, and not one of %v that were sent to: this proves nothing", name, addr, expected)
		}
		log, err := pods.GetLogs(name, &corev1.PodLogOptions{LimitBytes: new(int64(4096))}).DoRaw(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(log) {
			heard = append(heard, string(line))
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
	for _, p := range b.places {
		n, err := probe.Ask[int](ctx, p.socket, "flood", probe.Flood{})
		if err != nil {
			t.Fatal(err)
		}
		sent += n
	}
	return sent, heard
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
