package policy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

// policies reads NetworkPolicy objects; those without a namespace are of "default".
func policies(t testing.TB, text string) []*networkingv1.NetworkPolicy {
	t.Helper()
	var list []*networkingv1.NetworkPolicy
	for i, document := range strings.Split(text, "---\n") {
		p := &networkingv1.NetworkPolicy{}
		p.Namespace, p.Name = "default", fmt.Sprint("p", i)
		if err := yaml.UnmarshalStrict([]byte(document), p); err != nil {
			t.Fatalf("%v\n%s", err, document)
		}
		list = append(list, p)
	}
	return list
}

// on makes a pod that is on this node; its label app is its name.
func on(node, namespace, name string, addresses ...string) *Pod {
	p := &Pod{
		Namespace: namespace, Name: name, UID: types.UID(namespace + name), Node: node,
		Labels: map[string]string{"app": name}, Created: time.Unix(1000, 0),
	}
	for _, a := range addresses {
		p.Addresses = append(p.Addresses, netip.MustParseAddr(a))
	}
	return p
}

func compile(t testing.TB, o Objects) *Model {
	t.Helper()
	if o.Node == "" {
		o.Node = "here"
	}
	if o.Families == nil {
		o.Families = []Family{IPv4, IPv6}
	}
	m, err := Compile(o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func flow(from, to string, protocol uint8, port uint16) Flow {
	return Flow{netip.MustParseAddr(from), netip.MustParseAddr(to), protocol, port}
}

// A policy that lets little in and much out must not let in what it lets out, between two pods that it
// selects both.
func TestEgressOpensNoIngress(t *testing.T) {
	const a, b, c = "10.0.0.1", "10.0.0.2", "10.0.0.3"
	m := compile(t, Objects{
		Pods: []*Pod{on("here", "default", "a", a), on("here", "default", "b", b), on("here", "default", "c", c)},
		Policies: policies(t, `
spec:
  podSelector: {matchExpressions: [{key: app, operator: In, values: [a, b]}]}
  policyTypes: [Ingress, Egress]
  ingress: [{from: [{podSelector: {matchLabels: {app: c}}}], ports: [{port: 80}]}]
  egress: [{}]
`)})
	for _, tc := range []struct {
		flow Flow
		want bool
	}{
		{flow(a, b, protocolTCP, 80), false},
		{flow(b, a, protocolTCP, 80), false},
		{flow(a, b, protocolUDP, 53), false},
		{flow(c, a, protocolTCP, 80), true},
		{flow(c, a, protocolTCP, 81), false},
		{flow(a, c, protocolTCP, 81), true},
		{flow(a, "192.0.2.1", protocolTCP, 443), true},
		{flow(a, a, protocolTCP, 443), true},
	} {
		if got := m.Allows(tc.flow); got != tc.want {
			t.Errorf("%v: got %v", tc.flow, got)
		}
	}
}

func TestCompile(t *testing.T) {
	pod := func(namespace, name string, n int, change func(*Pod)) *Pod {
		p := on("here", namespace, name, fmt.Sprint("10.0.0.", n), fmt.Sprintf("fd00::%x", n))
		if change != nil {
			change(p)
		}
		return p
	}
	web := func(number uint16) func(*Pod) {
		return func(p *Pod) { p.Ports = []Port{{"web", protocolTCP, number}, {"dns", protocolUDP, 53}} }
	}
	there := func(p *Pod) { p.Node = "there" }
	pods := []*Pod{
		pod("default", "a", 1, web(80)), pod("default", "b", 2, web(8080)), pod("default", "c", 3, nil),
		pod("other", "d", 4, nil), pod("default", "far", 5, func(p *Pod) { there(p); web(90)(p) }),
		pod("default", "host", 6, func(p *Pod) { p.HostNetwork = true }),
		pod("default", "done", 7, func(p *Pod) { p.Done = true }),
	}
	const a, b, c, d, far, host, done = "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.7"
	const a6, b6, d6 = "fd00::1", "fd00::2", "fd00::4"
	const outside, outside6 = "192.0.2.1", "2001:db8::1"
	const tcp, udp, sctp = protocolTCP, protocolUDP, protocolSCTP
	type flows []Flow
	for _, tc := range []struct {
		name, policies     string
		allowed, forbidden flows
	}{
		{"no policy selects the pod", `spec: {podSelector: {matchLabels: {app: nobody}}}`,
			flows{flow(b, a, tcp, 80), flow(outside, a, udp, 1), flow(a, outside6, sctp, 9)}, nil},
		{"an empty pod selector selects all of the namespace", `spec: {podSelector: {}}`,
			flows{flow(a, d, tcp, 80), flow(outside, d, tcp, 80)},
			flows{flow(b, a, tcp, 80), flow(d, a, tcp, 80), flow(outside6, a6, tcp, 80)}},
		{"without types and egress it is ingress", `spec: {podSelector: {matchLabels: {app: a}}}`,
			flows{flow(a, outside, tcp, 80)}, flows{flow(outside, a, tcp, 80)}},
		{"without types, with egress it is both", `spec: {podSelector: {matchLabels: {app: a}}, egress: [{to: [{podSelector: {}}]}]}`,
			flows{flow(a, b, tcp, 80)}, flows{flow(outside, a, tcp, 80), flow(a, outside, tcp, 80), flow(a, d, tcp, 80)}},
		{"only egress", `spec: {podSelector: {matchLabels: {app: a}}, policyTypes: [Egress]}`,
			flows{flow(outside, a, tcp, 80), flow(a, a, tcp, 80)}, flows{flow(a, outside, tcp, 80), flow(a, b, tcp, 80)}},
		{"an empty rule allows all", `spec: {podSelector: {}, ingress: [{}]}`,
			flows{flow(outside, a, tcp, 80), flow(d, a, sctp, 80), flow(outside6, a6, udp, 80)}, nil},
		{"both ends are asked", `
spec: {podSelector: {matchLabels: {app: a}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: b}}}]}]}
---
spec: {podSelector: {matchLabels: {app: b}}, ingress: [{ports: [{port: 80}]}]}`,
			flows{flow(a, b, tcp, 80), flow(outside, b, tcp, 80)}, flows{flow(a, b, tcp, 81), flow(a, c, tcp, 80)}},
		{"policies add up", `
spec: {podSelector: {}}
---
spec: {podSelector: {matchLabels: {app: a}}, ingress: [{from: [{podSelector: {matchLabels: {app: b}}}]}]}
---
spec: {podSelector: {matchLabels: {app: a}}, ingress: [{ports: [{port: 53, protocol: UDP}]}]}`,
			flows{flow(b, a, tcp, 1), flow(outside, a, udp, 53)}, flows{flow(c, a, tcp, 1), flow(outside, b, udp, 53)}},
		{"peers: pods of the own namespace", `spec: {podSelector: {matchLabels: {app: a}}, ingress: [{from: [{podSelector: {}}]}]}`,
			flows{flow(b, a, tcp, 1), flow(b6, a6, tcp, 1), flow(far, a, tcp, 1)},
			flows{flow(d, a, tcp, 1), flow(outside, a, tcp, 1), flow(host, a, tcp, 1), flow(done, a, tcp, 1), flow(d6, a6, tcp, 1)}},
		{"peers: all pods", `spec: {podSelector: {matchLabels: {app: a}}, ingress: [{from: [{namespaceSelector: {}}]}]}`,
			flows{flow(b, a, tcp, 1), flow(d, a, tcp, 1)}, flows{flow(outside, a, tcp, 1), flow(host, a, tcp, 1)}},
		{"peers: namespace and pod", `
spec:
  podSelector: {matchLabels: {app: a}}
  ingress: [{from: [{namespaceSelector: {matchLabels: {team: red}}, podSelector: {matchLabels: {app: d}}}]}]`,
			flows{flow(d, a, tcp, 1)}, flows{flow(b, a, tcp, 1)}},
		{"peers: namespace or pod", `
spec:
  podSelector: {matchLabels: {app: a}}
  ingress: [{from: [{namespaceSelector: {matchLabels: {team: red}}}, {podSelector: {matchLabels: {app: b}}}]}]`,
			flows{flow(d, a, tcp, 1), flow(b, a, tcp, 1)}, flows{flow(c, a, tcp, 1)}},
		{"blocks with exceptions that overlap", `
spec:
  podSelector: {matchLabels: {app: a}}
  policyTypes: [Egress]
  egress:
  - to:
    - {ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.0/25]}}
    - {ipBlock: {cidr: 192.0.2.0/26, except: [192.0.2.1/32]}}
    - {ipBlock: {cidr: 192.0.2.16/28}}
    - {ipBlock: {cidr: "2001:db8::/32", except: ["2001:db8::/112"]}}`,
			flows{flow(a, "192.0.2.128", tcp, 1), flow(a, "192.0.2.0", tcp, 1), flow(a, "192.0.2.63", tcp, 1), flow(a6, "2001:db8::1:0", tcp, 1)},
			flows{flow(a, "192.0.2.1", tcp, 1), flow(a, "192.0.2.64", tcp, 1), flow(a, b, tcp, 1), flow(a6, outside6, tcp, 1), flow(a6, b6, tcp, 1)}},
		{"a block is of one family", `spec: {podSelector: {matchLabels: {app: a}}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}`,
			flows{flow(outside, a, tcp, 1), flow("255.255.255.255", a, tcp, 1), flow("0.0.0.1", a, tcp, 1)}, flows{flow(outside6, a6, tcp, 1)}},
		{"all of IPv6", `spec: {podSelector: {matchLabels: {app: a}}, ingress: [{from: [{ipBlock: {cidr: "::/0"}}]}]}`,
			flows{flow(outside6, a6, tcp, 1), flow("fc00::1", a6, tcp, 1)}, flows{flow(outside, a, tcp, 1)}},
		{"ports", `
spec:
  podSelector: {matchLabels: {app: a}}
  ingress: [{ports: [{port: 80, endPort: 90}, {protocol: UDP}, {port: 5, protocol: SCTP}, {port: 65535}]}]`,
			flows{flow(b, a, tcp, 80), flow(b, a, tcp, 90), flow(b, a, udp, 7), flow(b, a, sctp, 5), flow(b, a, tcp, 65535)},
			flows{flow(b, a, tcp, 79), flow(b, a, tcp, 91), flow(b, a, sctp, 6), flow(b, a, sctp, 80), flow(b, a, tcp, 0)}},
		{"named ports in", `spec: {podSelector: {}, ingress: [{ports: [{port: web}, {port: dns, protocol: UDP}]}]}`,
			flows{flow(c, a, tcp, 80), flow(c, b, tcp, 8080), flow(c, a, udp, 53)},
			flows{flow(c, a, tcp, 8080), flow(c, b, tcp, 80), flow(a, c, tcp, 80), flow(c, a, tcp, 53)}},
		{"named ports out, to anybody", `spec: {podSelector: {matchLabels: {app: c}}, policyTypes: [Egress], egress: [{ports: [{port: web}]}]}`,
			flows{flow(c, a, tcp, 80), flow(c, b, tcp, 8080), flow(c, far, tcp, 90)},
			flows{flow(c, a, tcp, 8080), flow(c, outside, tcp, 80), flow(c, d, tcp, 80)}},
		{"named ports out, to some", `
spec: {podSelector: {matchLabels: {app: c}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: far}}}, {ipBlock: {cidr: 10.0.0.2/32}}], ports: [{port: web}]}]}`,
			flows{flow(c, far, tcp, 90), flow(c, b, tcp, 8080)},
			flows{flow(c, a, tcp, 80), flow(c, far, tcp, 80), flow(c, b, tcp, 80)}},
	} {
		m := compile(t, Objects{
			Pods: pods, Policies: policies(t, tc.policies),
			Namespaces: map[string]map[string]string{"default": {"team": "blue"}, "other": {"team": "red"}},
		})
		for _, f := range tc.allowed {
			if !m.Allows(f) {
				t.Errorf("%s: %v is forbidden", tc.name, f)
			}
		}
		for _, f := range tc.forbidden {
			if m.Allows(f) {
				t.Errorf("%s: %v is allowed", tc.name, f)
			}
		}
	}
}

// Which pods are in the table, and whose an address is.
func TestAddressesBelongToOnePod(t *testing.T) {
	const deny = `spec: {podSelector: {matchLabels: {app: old}}}`
	old, later := on("here", "default", "old", "10.0.0.1"), on("here", "default", "new", "10.0.0.1")
	later.Created = old.Created.Add(time.Second)
	change := func(p *Pod, f func(*Pod)) *Pod { c := *p; f(&c); return &c }
	claimed := func(p *Pod) { p.Claimed = true }
	done := func(p *Pod) { p.Done = true }
	for _, tc := range []struct {
		name               string
		pods               []*Pod
		entered, forbidden bool // of 10.0.0.1
	}{
		{"one pod", []*Pod{old}, true, true},
		{"the later one", []*Pod{old, later}, true, false},
		{"the one that the CNI plugin says", []*Pod{change(old, claimed), later}, true, true},
		{"a pod that is done", []*Pod{change(old, done)}, false, false},
		{"a pod that is done, before its network is gone", []*Pod{change(old, func(p *Pod) { done(p); claimed(p) })}, true, true},
		{"a pod on the node's network", []*Pod{change(old, func(p *Pod) { p.HostNetwork = true })}, false, false},
		{"a pod of another node", []*Pod{change(old, func(p *Pod) { p.Node = "there" })}, false, false},
	} {
		m := compile(t, Objects{Pods: tc.pods, Policies: policies(t, deny)})
		if got := m.Sets[podsSet(IPv4)].has(Element{Address: netip.MustParseAddr("10.0.0.1")}); got != tc.entered {
			t.Errorf("%s: in the table: %v", tc.name, got)
		}
		if got := !m.Allows(flow("192.0.2.1", "10.0.0.1", protocolTCP, 80)); got != tc.forbidden {
			t.Errorf("%s: forbidden: %v", tc.name, got)
		}
	}
}

// What cannot be read opens nothing, and is told of.
func TestCompileErrors(t *testing.T) {
	for _, rule := range []string{
		`{from: [{ipBlock: {cidr: "10.0.0.0/33"}}]}`,
		`{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [x]}}]}`,
		`{from: [{podSelector: {matchExpressions: [{key: app, operator: Like}]}}]}`,
		`{from: [{namespaceSelector: {matchExpressions: [{key: app, operator: Like}]}}]}`,
		`{ports: [{protocol: ICMP}]}`,
	} {
		o := Objects{Node: "here", Families: []Family{IPv4}, Pods: []*Pod{on("here", "default", "a", "10.0.0.1"), on("here", "default", "b", "10.0.0.2")},
			Policies: policies(t, "spec: {podSelector: {matchLabels: {app: a}}, ingress: ["+rule+"]}")}
		m, err := Compile(o)
		if err == nil || !strings.Contains(err.Error(), "default/p0") {
			t.Errorf("%s: got %v", rule, err)
		}
		if m.Allows(flow("10.0.0.2", "10.0.0.1", protocolTCP, 80)) {
			t.Errorf("%s opens the pod", rule)
		}
	}
}

// A large cluster: 110 pods here, the others elsewhere.
func BenchmarkCompile(b *testing.B) {
	objects, list := scale(10000, 300)
	o := Objects{Node: "here", Families: []Family{IPv4}, Policies: list, Namespaces: map[string]map[string]string{"default": nil}}
	for i, p := range objects {
		k := newKnown(p)
		if i >= 110 {
			k.pod.Node = "there"
		}
		o.Pods = append(o.Pods, &k.pod)
	}
	for b.Loop() {
		compile(b, o)
	}
}
