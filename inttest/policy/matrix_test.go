package policy

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/template"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"k0s.io/k0s/inttest/cluster"
	"k0s.io/k0s/inttest/policy/oracle"
	"k0s.io/k0s/inttest/policy/probe"
)

//go:embed testdata/policies.yaml
var policiesYAML string

const (
	// answerWithin is how long an answer to a probe may take. What is not denied takes a millisecond; on a
	// machine that is busy it is asked again.
	answerWithin = 500 * time.Millisecond
	// inForceWithin is how long what has changed may take to be in force on a machine that is busy with
	// other things, and what passes may fail to.
	inForceWithin = 30 * time.Second
)

// matrix compares what passes with what the oracle says.
type matrix struct {
	*bed
	groups map[string]map[string]networkingv1.NetworkPolicySpec
	// present are the policies that are in the API, by NAMESPACE/NAME.
	present map[string]*networkingv1.NetworkPolicy
	flows   []flow
	expects []bool // of the present objects, by flow
	// For the summary: how long changes took, and the slowest probe that passed.
	inForce []time.Duration
	slowest time.Duration
	probes  int
	ways    map[string]int // how denied probes ended
}

// flow is traffic between two places.
type flow struct {
	from *place
	oracle.Traffic
	to string
	// at is the address that is asked: that of To, or of a service.
	at netip.Addr
}

func (f flow) String() string {
	return fmt.Sprintf("%s (%s) -> %s (%s) by %s, %s/%d", f.from.name, f.From.Addr, f.to, f.To.Addr, f.at, f.Protocol, f.Port)
}

func newMatrix(t *testing.T, b *bed) *matrix {
	t.Helper()
	m := &matrix{bed: b, present: map[string]*networkingv1.NetworkPolicy{}, ways: map[string]int{}}
	m.pair()
	var text bytes.Buffer
	parsed, err := template.New("policies").Funcs(b.addresses(t)).Parse(policiesYAML)
	if err == nil {
		err = parsed.Execute(&text, nil)
	}
	if err == nil {
		err = yaml.UnmarshalStrict(text.Bytes(), &m.groups)
	}
	if err != nil {
		t.Fatal(err)
	}
	m.expects = m.oracle(t)
	return m
}

// pair makes the flows: between all places, and to the services of pods from other pods. (A pod's own service
// is a matter of hairpins.)
func (m *matrix) pair() {
	m.flows = nil
	for _, from := range m.places {
		for _, to := range m.places {
			if from.pod.Spec.HostNetwork && to.pod.Spec.HostNetwork {
				continue // no pod has part in it
			}
			for _, end := range to.ends {
				own, ok := from.end(end.Addr.Is6())
				if !ok {
					continue
				}
				for _, protocol := range []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP} {
					for _, port := range probed {
						m.flows = append(m.flows, flow{from, oracle.Traffic{From: own, To: end, Protocol: protocol, Port: port}, to.name, end.Addr})
					}
					for _, service := range to.services {
						if service.Is6() == end.Addr.Is6() && from != to && !from.pod.Spec.HostNetwork {
							m.flows = append(m.flows, flow{from, oracle.Traffic{From: own, To: end, Protocol: protocol, Port: servedPort}, to.name, service})
						}
					}
				}
			}
		}
	}
}

// replace has a pod be another one of its name, with other labels, on another node, and compares.
func (m *matrix) replace(t *testing.T, name string, to *cluster.Node, label map[string]string) {
	t.Helper()
	p := m.find(name)
	pods := m.Client.CoreV1().Pods(p.pod.Namespace)
	if err := pods.Delete(t.Context(), p.pod.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := m.Eventually(t.Context(), cluster.Patience, "the pod to go", func(ctx context.Context) error {
		_, err := pods.Get(ctx, p.pod.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errors.Join(errors.New("it is still there"), err)
	}); err != nil {
		t.Fatal(err)
	}
	m.place(t, to, p.pod.Namespace, p.pod.Name, label, p.pod.Spec.Containers[0].Ports...)
	m.waitPlaces(t)
	since := time.Now()
	m.pair()
	m.expects = m.oracle(t)
	for i := range m.expects { // all of it is new
		m.expects[i] = !m.expects[i]
	}
	m.settle(t, since)
	m.check(t)
}

// addresses are what the policies call places and nodes by.
func (b *bed) addresses(t *testing.T) template.FuncMap {
	made := netip.MustParsePrefix("2001:db8::/32").Addr()
	addr := func(v6 bool) func(string) netip.Addr {
		return func(name string) netip.Addr {
			p := b.find(name)
			if p == nil {
				t.Fatalf("the policies speak of %s, which is not there", name)
			}
			if end, ok := p.end(v6); ok {
				return end.Addr
			}
			made = made.Next()
			return made
		}
	}
	pods := func(v6 bool) func(string) (netip.Prefix, error) {
		return func(node string) (netip.Prefix, error) {
			n, err := b.Client.CoreV1().Nodes().Get(t.Context(), node, metav1.GetOptions{})
			if err != nil {
				return netip.Prefix{}, err
			}
			for _, text := range n.Spec.PodCIDRs {
				if prefix, err := netip.ParsePrefix(text); err != nil || prefix.Addr().Is6() == v6 {
					return prefix, err
				}
			}
			made = made.Next()
			return netip.PrefixFrom(made, 128), nil
		}
	}
	node := func(v6 bool) func(string) netip.Addr {
		return func(name string) netip.Addr { return addr(v6)("red/host-" + name) }
	}
	return template.FuncMap{"addr": addr(false), "addr6": addr(true), "node": node(false), "node6": node(true), "pods": pods(false), "pods6": pods(true)}
}

// oracle says what is expected of each flow.
func (m *matrix) oracle(t *testing.T) []bool {
	t.Helper()
	objects := oracle.Objects{Namespaces: m.namespaces, Policies: slices.Collect(maps.Values(m.present))}
	expects := make([]bool, len(m.flows))
	for i, f := range m.flows {
		var err error
		if expects[i], err = objects.Passes(f.Traffic); err != nil {
			t.Fatal(err)
		}
	}
	return expects
}

// apply makes these the policies in the API, by creating, updating and deleting.
func (m *matrix) apply(t *testing.T, want map[string]networkingv1.NetworkPolicySpec) {
	t.Helper()
	var wg sync.WaitGroup
	var mu sync.Mutex
	names := slices.Collect(maps.Keys(m.present))
	for name := range want {
		if m.present[name] == nil {
			names = append(names, name)
		}
	}
	for _, full := range names {
		spec, wanted := want[full]
		before := m.present[full]
		namespace, name, _ := strings.Cut(full, "/")
		wg.Go(func() {
			var after *networkingv1.NetworkPolicy
			var err error
			policies := m.Client.NetworkingV1().NetworkPolicies(namespace)
			switch object := (&networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: spec}); {
			case !wanted:
				err = policies.Delete(t.Context(), name, metav1.DeleteOptions{})
			case before == nil:
				after, err = policies.Create(t.Context(), object, metav1.CreateOptions{})
			default:
				after, err = policies.Update(t.Context(), object, metav1.UpdateOptions{})
			}
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			delete(m.present, full)
			if after != nil {
				m.present[full] = after
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// probe probes some flows, all at once, and returns the answers in their order.
func (m *matrix) probe(t *testing.T, indexes []int) []probe.Answer {
	t.Helper()
	bySource := map[*place][]int{} // positions in indexes
	for at, i := range indexes {
		bySource[m.flows[i].from] = append(bySource[m.flows[i].from], at)
	}
	answers := make([]probe.Answer, len(indexes))
	var wg sync.WaitGroup
	for from, positions := range bySource {
		request := probe.Request{Patience: answerWithin}
		for _, at := range positions {
			f := m.flows[indexes[at]]
			request.Targets = append(request.Targets, probe.Target{Protocol: strings.ToLower(string(f.Protocol)), Address: netip.AddrPortFrom(f.at, uint16(f.Port))})
		}
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			got, err := probe.Ask[[]probe.Answer](ctx, from.socket, "probe", request)
			if err == nil && len(got) != len(positions) {
				err = fmt.Errorf("%s has sent %d answers to %d questions", from.name, len(got), len(positions))
			}
			if err != nil {
				t.Error(err)
				return
			}
			for n, at := range positions {
				answers[at] = got[n]
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	for _, a := range answers {
		m.probes++
		if a.Passed {
			m.slowest = max(m.slowest, a.Took)
		} else {
			m.ways[wayOf(a)]++
		}
	}
	return answers
}

// wayOf is how a probe was denied, without its addresses.
func wayOf(a probe.Answer) string { return a.Why[strings.LastIndex(a.Why, ": ")+1:] }

// settle waits until what has been changed since a time is in force where it makes a difference.
func (m *matrix) settle(t *testing.T, since time.Time) {
	t.Helper()
	expects := m.oracle(t)
	var open []int
	for i := range m.flows {
		if expects[i] != m.expects[i] {
			open = append(open, i)
		}
	}
	m.expects = expects
	if len(open) == 0 {
		return
	}
	for time.Since(since) < inForceWithin {
		asked := time.Now()
		var left []int
		for at, a := range m.probe(t, open) {
			if a.Passed != expects[open[at]] {
				left = append(left, open[at])
			}
		}
		if open = left; len(open) == 0 {
			m.inForce = append(m.inForce, asked.Sub(since))
			return
		}
	}
	// What is left is reported by check.
}

// check probes all flows. Nothing that is to be denied may pass, ever; what is to pass is asked again a few
// times, since a busy machine may be late.
func (m *matrix) check(t *testing.T) {
	t.Helper()
	open := make([]int, len(m.flows))
	for i := range open {
		open[i] = i
	}
	var wrong []string
	begin := time.Now()
	for len(open) > 0 {
		late := time.Since(begin) > inForceWithin
		var left []int
		for at, a := range m.probe(t, open) {
			i := open[at]
			switch expects := m.expects[i]; {
			case a.Passed && !expects:
				wrong = append(wrong, fmt.Sprintf("%s passes", m.flows[i]))
			case !a.Passed && expects && late:
				wrong = append(wrong, fmt.Sprintf("%s does not pass: %s", m.flows[i], a.Why))
			case !a.Passed && expects:
				left = append(left, i)
			}
		}
		open = left
	}
	if len(wrong) == 0 {
		return
	}
	t.Errorf("%d of %d are not as they should be", len(wrong), len(m.flows))
	for _, text := range wrong[:min(len(wrong), 12)] {
		t.Error(text)
	}
	for name, p := range m.present {
		spec, _ := yaml.Marshal(p.Spec)
		t.Logf("policy %s:\n%s", name, spec)
	}
}

// compare makes these the policies and compares all flows with the oracle, once they are in force.
func (m *matrix) compare(t *testing.T, want map[string]networkingv1.NetworkPolicySpec) {
	t.Helper()
	m.apply(t, want)
	m.settle(t, time.Now())
	m.check(t)
}

// names are the groups, sorted: each run is the same.
func (m *matrix) names() []string { return slices.Sorted(maps.Keys(m.groups)) }

// all are the policies of all groups, named NAMESPACE/GROUP-NAME.
func (m *matrix) all() map[string]networkingv1.NetworkPolicySpec {
	all := map[string]networkingv1.NetworkPolicySpec{}
	for group, policies := range m.groups {
		for full, spec := range policies {
			namespace, name, _ := strings.Cut(full, "/")
			all[namespace+"/"+strings.ToLower(strings.ReplaceAll(group, " ", "-"))+"-"+name] = spec
		}
	}
	return all
}

// mixture is a choice of so many policies, the same for the same seed.
func (m *matrix) mixture(seed uint64, size int) map[string]networkingv1.NetworkPolicySpec {
	all := m.all()
	names := slices.Sorted(maps.Keys(all))
	chosen := map[string]networkingv1.NetworkPolicySpec{}
	for _, i := range rand.New(rand.NewPCG(seed, 0)).Perm(len(names))[:size] {
		chosen[names[i]] = all[names[i]]
	}
	return chosen
}

// label changes a label of a place's pod or of a namespace; "" takes it away.
func (m *matrix) label(t *testing.T, what, key, value string) {
	t.Helper()
	text := fmt.Sprintf(`{"metadata":{"labels":{%q:%q}}}`, key, value)
	if value == "" {
		text = fmt.Sprintf(`{"metadata":{"labels":{%q:null}}}`, key)
	}
	namespace, name, isPod := strings.Cut(what, "/")
	if isPod {
		pod, err := m.Client.CoreV1().Pods(namespace).Patch(t.Context(), name, types.StrategicMergePatchType, []byte(text), metav1.PatchOptions{})
		if err != nil {
			t.Fatal(err)
		}
		m.find(what).pod.Labels = pod.Labels
		return
	}
	ns, err := m.Client.CoreV1().Namespaces().Patch(t.Context(), what, types.StrategicMergePatchType, []byte(text), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	m.namespaces[what] = labels.Set(ns.Labels)
}

// figures says how it went.
func (m *matrix) figures(t *testing.T) {
	t.Helper()
	slices.Sort(m.inForce)
	if n := len(m.inForce); n > 0 {
		t.Logf("%d changes were in force after %d ms (median), %d ms (longest)", n, m.inForce[n/2].Milliseconds(), m.inForce[n-1].Milliseconds())
	}
	t.Logf("%d flows, %d probes; the slowest that passed took %d ms; denied ones ended so: %v", len(m.flows), m.probes, m.slowest.Milliseconds(), m.ways)
}
