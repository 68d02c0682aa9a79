package policy

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	engine "k0s.io/k0s/internal/network/kuberouter/policy"
	"k0s.io/k0s/inttest/cluster"
	"k0s.io/k0s/inttest/policy/probe"
	"k0s.io/k0s/inttest/testhost"
)

const (
	manyPods, manyPolicies = 300, 60
	labelChanges           = 100
)

// TestConvergence measures how soon a changed label is in force on a node that has many pods and policies, and
// what they cost a node when nothing happens. All but two of the pods are objects only: bound to the node, with
// a status as the kubelet would give them, while the kubelet is held so that it cannot say otherwise.
func TestConvergence(t *testing.T) {
	b := newBed(t, testhost.IPv4, "{}", "w0", "w1")
	b.namespace(t, "crowd", nil)
	b.place(t, b.workers[0], "crowd", "server", map[string]string{"group": "0"})
	b.place(t, b.workers[1], "crowd", "client", map[string]string{"group": "0"})
	b.waitPlaces(t)
	server, client := b.find("crowd/server"), b.find("crowd/client")
	w := b.workers[0]
	hold(t, w)(syscall.SIGSTOP)
	b.crowd(t)
	b.crowdPolicies(t)
	stream := func(d time.Duration) []probe.Echo {
		t.Helper()
		echoes, err := probe.Ask[[]probe.Echo](t.Context(), client.socket, "stream",
			probe.Stream{Address: netip.AddrPortFrom(server.ends[0].Addr, uint16(probed[0])), For: d})
		if err != nil {
			t.Fatal(err)
		}
		return echoes
	}
	// Before: the client may talk to the server, being of the server's group.
	if err := b.Eventually(t.Context(), cluster.Patience, "the client to reach the server", func(context.Context) error {
		if echoes := stream(50 * time.Millisecond); !echoes[len(echoes)-1].Back {
			return fmt.Errorf("nothing comes back")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}

	t.Run("label", func(t *testing.T) {
		var took [2][]time.Duration // to be let through, to be denied
		for i := range labelChanges {
			group := "elsewhere"
			if i%2 == 1 {
				group = "0"
			}
			var echoes []probe.Echo
			var wg sync.WaitGroup
			wg.Go(func() { echoes = stream(700 * time.Millisecond) })
			time.Sleep(50 * time.Millisecond) // for the stream to be under way, which is looked at below
			patch := fmt.Sprintf(`{"metadata":{"labels":{"group":%q}}}`, group)
			if _, err := b.Client.CoreV1().Pods("crowd").Patch(t.Context(), "client", types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
				t.Fatal(err)
			}
			accepted := time.Now()
			wg.Wait()
			through := group == "0"
			// The last echo that was as before, and the first one of the rest.
			last := -1
			for n, e := range echoes {
				if e.Back != through {
					last = n
				}
			}
			if last < 0 || last == len(echoes)-1 {
				t.Fatalf("change %d, to %s: %d of %d datagrams were as before", i, group, last+1, len(echoes))
			}
			took[i%2] = append(took[i%2], max(0, echoes[last+1].Sent.Sub(accepted)))
		}
		for n, what := range []string{"denies", "lets through"} {
			slices.Sort(took[n])
			of := took[n]
			p99 := of[(len(of)*99+99)/100-1]
			t.Logf("a label that %s is in force after %d ms (median), %d ms (p99) with %d pods and %d policies",
				what, of[len(of)/2].Milliseconds(), p99.Milliseconds(), manyPods, manyPolicies)
			if p99 > 100*time.Millisecond {
				t.Errorf("the p99 of a label that %s is above 100 ms: %v", what, of)
			}
		}
	})

	t.Run("idle", func(t *testing.T) {
		const span = 10 * time.Second
		before := ticks(t, w)
		select {
		case <-time.After(span): // what is measured
		case <-t.Context().Done():
		}
		const perSecond = 100
		t.Logf("k0s itself used %.1f %% of a processor in %d s", float64(ticks(t, w)-before)*100/perSecond/span.Seconds(), int(span.Seconds()))
	})

	// From here on the client is denied, and the rules that say so are taken away.
	patch := `{"metadata":{"labels":{"group":"elsewhere"}}}`
	if _, err := b.Client.CoreV1().Pods("crowd").Patch(t.Context(), "client", types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := b.Eventually(t.Context(), cluster.Patience, "the client to be denied", func(context.Context) error {
		if through := passed(stream(50 * time.Millisecond)); len(through) > 0 {
			return fmt.Errorf("%d datagrams pass", len(through))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, how := range []string{"delete table " + engine.Table, "flush table " + engine.Table, "flush ruleset"} {
		t.Run(how, func(t *testing.T) {
			var echoes []probe.Echo
			var wg sync.WaitGroup
			wg.Go(func() { echoes = stream(3 * time.Second) })
			time.Sleep(200 * time.Millisecond) // so that the stream is under way
			w.Host.Run(t, append([]string{nft}, strings.Fields(how)...)...)
			wg.Wait()
			switch through := passed(echoes); {
			case len(through) == 0:
				t.Logf("nothing passed")
			default:
				open := through[len(through)-1].Sub(through[0])
				t.Logf("%d datagrams of one a millisecond passed; the rules were back after %d ms", len(through), open.Milliseconds())
				if open > time.Second {
					t.Error("that is more than a second")
				}
			}
			if w.Host.Run(t, nft, "list", "table", "inet", strings.Fields(engine.Table)[1]) == "" {
				t.Error("there is no table")
			}
		})
	}

	// restart kills k0s, takes all rules away and starts it again, with the client asking on all the time.
	restart := func() []probe.Echo {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := w.Kill(ctx); err != nil {
			t.Fatal(err)
		}
		w.Host.Run(t, nft, "flush", "ruleset")
		var echoes []probe.Echo
		var wg sync.WaitGroup
		wg.Go(func() { echoes = stream(8 * time.Second) })
		w.Token = ""
		if err := w.Start(); err != nil {
			t.Fatal(err)
		}
		hold(t, w)(syscall.SIGSTOP) // before it tells the API that it knows none of the pods
		wg.Wait()
		if len(passed(echoes)) == 0 {
			t.Fatal("nothing has passed while there were no rules: this measures nothing")
		}
		return echoes
	}
	t.Run("restart, denied", func(t *testing.T) {
		echoes := restart()
		if echoes[len(echoes)-1].Back {
			t.Fatal("what is denied goes on to pass")
		}
		through := passed(echoes)
		took := through[len(through)-1].Sub(w.Started)
		t.Logf("with its rules taken away while it was down, what is denied is denied again %.2f s after the start of k0s", took.Seconds())
		if took > 2*time.Second {
			t.Error("that is more than 2 s")
		}
	})
	t.Run("restart, allowed", func(t *testing.T) {
		patch := `{"metadata":{"labels":{"group":"0"}}}`
		if _, err := b.Client.CoreV1().Pods("crowd").Patch(t.Context(), "client", types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		echoes := restart()
		// The table comes with its contents: one that knows no pod would cut off those that run.
		if lost := len(echoes) - len(passed(echoes)); lost > 0 {
			t.Errorf("%d of %d datagrams that are allowed were lost", lost, len(echoes))
		}
	})
}

// passed are the times of the datagrams of a stream that were answered.
func passed(echoes []probe.Echo) []time.Time {
	var all []time.Time
	for _, e := range echoes {
		if e.Back {
			all = append(all, e.Sent)
		}
	}
	return all
}

// hold finds the kubelet of a node, and returns a function that sends it signals.
func hold(t *testing.T, n *cluster.Node) func(syscall.Signal) {
	t.Helper()
	for begin := time.Now(); time.Since(begin) < cluster.Patience; {
		children, err := n.ChildProcesses()
		if err != nil {
			t.Fatal(err)
		}
		if all := children["kubelet"]; len(all) > 0 {
			return func(s syscall.Signal) { _ = syscall.Kill(all[0].Pid, s) }
		}
	}
	t.Fatal("there is no kubelet")
	return nil
}

// ticks is the processor time of k0s itself on a node, in clock ticks.
func ticks(t *testing.T, n *cluster.Node) uint64 {
	t.Helper()
	all, err := n.Host.Processes()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if p.Pid == n.Process.Pid {
			return p.CPU
		}
	}
	t.Fatal("k0s does not run")
	return 0
}

// crowd creates the pods that are objects only, with addresses of the node that nobody has.
func (b *bed) crowd(t *testing.T) {
	t.Helper()
	w := b.workers[0]
	pods := b.Client.CoreV1().Pods("crowd")
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := worker; i < manyPods; i += 8 {
				pod := newPod("crowd", fmt.Sprintf("crowd-%d", i), w.Name(), map[string]string{"group": fmt.Sprint(i % manyPolicies), "number": fmt.Sprint(i)}, image("sleep", "1"))
				pod, err := pods.Create(t.Context(), pod, metav1.CreateOptions{})
				if err == nil {
					ip := fmt.Sprintf("10.244.%d.%d", 200+i/250, 1+i%250)
					pod.Status = corev1.PodStatus{
						Phase: corev1.PodRunning, HostIP: w.Host.IP, HostIPs: []corev1.HostIP{{IP: w.Host.IP}},
						PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}}, StartTime: new(metav1.Now()),
					}
					_, err = pods.UpdateStatus(t.Context(), pod, metav1.UpdateOptions{})
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// crowdPolicies are of all shapes; each lets a group talk to itself.
func (b *bed) crowdPolicies(t *testing.T) {
	t.Helper()
	for i := range manyPolicies {
		group := &metav1.LabelSelector{MatchLabels: map[string]string{"group": fmt.Sprint(i)}}
		peers := []networkingv1.NetworkPolicyPeer{{PodSelector: group}}
		if i%3 == 1 {
			peers = append(peers, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: fmt.Sprintf("192.0.2.%d/32", i)}})
		}
		p := &networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("group-%d", i)},
			Spec: networkingv1.NetworkPolicySpec{
				PodSelector: *group, PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
				Ingress: []networkingv1.NetworkPolicyIngressRule{{From: peers}},
			},
		}
		if i%2 == 1 {
			p.Spec.PolicyTypes = append(p.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
			p.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{To: peers}}
		}
		if _, err := b.Client.NetworkingV1().NetworkPolicies("crowd").Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}
