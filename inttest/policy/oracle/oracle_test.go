package oracle

import (
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"
)

// ends are what the tables speak of: x/a and x/b are on node one, x/c and all of y on node two. "web" is
// another number on each.
func ends() map[string]End {
	all := map[string]End{
		"one":     {Node: "one", Addr: netip.MustParseAddr("192.0.2.1")},
		"two":     {Node: "two", Addr: netip.MustParseAddr("192.0.2.2")},
		"outside": {Addr: netip.MustParseAddr("198.51.100.1")},
		"x/a6":    {Node: "one", Addr: netip.MustParseAddr("fd00::a")},
		"y/a6":    {Node: "two", Addr: netip.MustParseAddr("fd00::1:a")},
	}
	pod := func(namespace, name, node, addr string, web int32) End {
		p := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"pod": name}},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Ports: []corev1.ContainerPort{
				{Name: "web", ContainerPort: web}, {Name: "dns", ContainerPort: 53, Protocol: corev1.ProtocolUDP},
			}}}},
			Status: corev1.PodStatus{Phase: corev1.PodRunning},
		}
		e := End{Node: node, Addr: netip.MustParseAddr(addr), Pod: p}
		all[namespace+"/"+name] = e
		return e
	}
	a := pod("x", "a", "one", "10.0.1.1", 80)
	pod("x", "b", "one", "10.0.1.2", 81)
	pod("x", "c", "two", "10.0.2.1", 80)
	ya := pod("y", "a", "two", "10.0.2.2", 80)
	pod("y", "ended", "two", "10.0.2.3", 80).Pod.Status.Phase = corev1.PodSucceeded
	pod("y", "host", "two", "192.0.2.2", 80).Pod.Spec.HostNetwork = true
	for name, of := range map[string]End{"x/a6": a, "y/a6": ya} {
		e := all[name]
		e.Pod = of.Pod
		all[name] = e
	}
	return all
}

func TestPasses(t *testing.T) {
	const denyX = `{podSelector: {}, policyTypes: [Ingress, Egress]}`
	for _, tc := range []struct {
		name     string
		policies string // specs of policies in namespace x, one a line
		passes   string // FROM>TO[:PORT][/UDP], TCP and port 80 by default
		stops    string
	}{
		{name: "no policy", passes: "x/a>x/b x/a>y/a y/a>x/a outside>x/a x/a>outside one>x/a two>x/a x/a6>y/a6"},
		{
			name: "deny all", policies: denyX,
			passes: "x/a>x/a one>x/a one>x/b two>x/c y/host>x/c y/a>outside outside>y/a y/a>y/ended",
			stops:  "x/a>x/b x/b>x/a x/a>y/a y/a>x/a two>x/a y/host>x/a outside>x/a x/a>outside x/a>one x/a>two x/a6>y/a6 y/a6>x/a6 y/ended>x/a",
		},
		{
			name: "deny ingress, by default", policies: `{podSelector: {}}`,
			passes: "x/a>y/a x/a>outside", stops: "x/a>x/b y/a>x/a",
		},
		{
			name: "egress rules make a policy both, by default", policies: `{podSelector: {}, egress: [{to: [{podSelector: {}}]}]}`,
			passes: "x/a>x/a", stops: "x/a>x/b x/a>y/a y/a>x/a",
		},
		{
			name: "allow all", policies: denyX + "\n" + `{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]}`,
			passes: "x/a>x/b x/a>y/a y/a>x/a outside>x/a x/a>outside x/a6>y/a6 x/a>y/a:5/UDP",
		},
		{
			name: "empty lists are everybody", policies: `{podSelector: {}, ingress: [{from: [], ports: []}]}`,
			passes: "outside>x/a y/a>x/a",
		},
		{
			name: "one pod only is selected", policies: `{podSelector: {matchLabels: {pod: a}}, ingress: []}`,
			passes: "y/a>x/b x/a>y/a", stops: "y/a>x/a x/b>x/a",
		},
		{
			name: "narrow ingress and wide egress in one policy", policies: `{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {matchLabels: {pod: c}}}]}], egress: [{}]}`,
			passes: "x/c>x/a x/c>x/b x/a>y/a", stops: "x/a>x/b x/b>x/a x/a>x/c y/a>x/a",
		},
		{
			name: "pod selector alone is of the policy's namespace", policies: `{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {pod: a}}}]}]}`,
			passes: "x/a>x/b", stops: "y/a>x/b x/c>x/b two>x/b y/host>x/b",
		},
		{
			name: "both selectors in one peer", policies: `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}, podSelector: {matchLabels: {pod: a}}}]}]}`,
			passes: "y/a>x/b", stops: "x/a>x/b y/ended>x/b",
		},
		{
			name: "both selectors in two peers", policies: `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}}, {podSelector: {matchLabels: {pod: a}}}]}]}`,
			passes: "y/a>x/b x/a>x/b", stops: "x/c>x/b y/ended>x/b",
		},
		{
			name: "every namespace is every pod, and no address else", policies: `{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}`,
			passes: "y/a>x/a x/b>x/a y/a6>x/a6", stops: "outside>x/a two>x/a",
		},
		{
			name: "expressions", policies: `{podSelector: {matchExpressions: [{key: pod, operator: NotIn, values: [a]}]}, ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: ns, operator: DoesNotExist}]}}]}]}`,
			passes: "y/a>x/a", stops: "y/a>x/b",
		},
		{
			name: "block with exceptions", policies: `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/16, except: [10.0.2.0/24]}}]}]}`,
			passes: "x/a>x/b", stops: "y/a>x/a x/c>x/a outside>x/a y/a6>x/a6",
		},
		{
			name: "an exception bars its own block only", policies: `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/16, except: [10.0.2.0/24]}}, {ipBlock: {cidr: 10.0.2.2/32}}]}]}`,
			passes: "x/a>x/b y/a>x/a", stops: "x/c>x/a",
		},
		{
			name: "a block of one family", policies: `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: "::/0"}}]}]}`,
			passes: "y/a6>x/a6", stops: "y/a>x/a outside>x/a",
		},
		{
			name: "egress to a node", policies: `{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 192.0.2.1/32}}]}]}`,
			passes: "x/a>one x/c>one", stops: "x/a>two x/c>two x/a>y/host x/a>y/a",
		},
		{
			name: "ports", policies: `{podSelector: {}, ingress: [{ports: [{port: 80}, {port: 53, protocol: UDP}]}]}`,
			passes: "y/a>x/a y/a>x/a:53/UDP", stops: "y/a>x/a:81 y/a>x/a:53 y/a>x/a:80/UDP",
		},
		{
			name: "all ports of a protocol", policies: `{podSelector: {}, ingress: [{ports: [{protocol: UDP}]}]}`,
			passes: "y/a>x/a:9/UDP", stops: "y/a>x/a:9",
		},
		{
			name: "range of ports", policies: `{podSelector: {}, ingress: [{ports: [{port: 80, endPort: 82}]}]}`,
			passes: "y/a>x/a y/a>x/a:82", stops: "y/a>x/a:79 y/a>x/a:83 y/a>x/a:81/UDP",
		},
		{
			name: "named port", policies: `{podSelector: {}, ingress: [{ports: [{port: web}]}]}`,
			passes: "y/a>x/a y/a>x/b:81", stops: "y/a>x/b y/a>x/a:81 y/a>x/a:80/UDP",
		},
		{
			name: "named port's protocol", policies: `{podSelector: {}, ingress: [{ports: [{port: dns}, {port: web, protocol: UDP}]}]}`,
			stops: "y/a>x/a:53/UDP y/a>x/a:53 y/a>x/a:80/UDP",
		},
		{
			name: "named port of egress is the other's", policies: `{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{ports: [{port: web}]}]}`,
			passes: "x/a>x/b:81 x/a>y/a", stops: "x/a>x/b x/a>outside x/a>one x/a>y/host",
		},
		{
			name: "SCTP", policies: `{podSelector: {}, ingress: [{ports: [{port: 80, protocol: SCTP}]}]}`,
			passes: "y/a>x/a:80/SCTP", stops: "y/a>x/a y/a>x/a:80/UDP",
		},
		{
			name: "peer and port are of one rule", policies: `{podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: [{port: 80}]}, {from: [{namespaceSelector: {matchLabels: {ns: "y"}}}], ports: [{port: 81}]}]}`,
			passes: "x/b>x/a y/a>x/a:81", stops: "x/b>x/a:81 y/a>x/a",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			objects := Objects{Namespaces: map[string]labels.Set{"x": {"ns": "x"}, "y": {"ns": "y"}}}
			for spec := range strings.Lines(tc.policies) {
				p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "x"}}
				if err := yaml.UnmarshalStrict([]byte(spec), &p.Spec); err != nil {
					t.Fatal(err)
				}
				objects.Policies = append(objects.Policies, p)
			}
			for list, want := range map[string]bool{tc.passes: true, tc.stops: false} {
				for _, text := range strings.Fields(list) {
					got, err := objects.Passes(traffic(t, text))
					if err != nil || got != want {
						t.Errorf("%s: got %v, %v; want %v", text, got, err, want)
					}
				}
			}
		})
	}
}

func traffic(t *testing.T, text string) Traffic {
	t.Helper()
	all := ends()
	of := Traffic{Protocol: corev1.ProtocolTCP, Port: 80}
	from, rest, _ := strings.Cut(text, ">")
	to, port, found := strings.Cut(rest, ":")
	if found {
		number, protocol, found := strings.Cut(port, "/")
		if found {
			of.Protocol = corev1.Protocol(protocol)
		}
		of.Port = 0
		for _, digit := range number {
			of.Port = of.Port*10 + digit - '0'
		}
	}
	of.From, of.To = all[from], all[to]
	if !of.From.Addr.IsValid() || !of.To.Addr.IsValid() {
		t.Fatalf("%s speaks of an end that is not there", text)
	}
	return of
}

func TestPassesRefuses(t *testing.T) {
	all := ends()
	for name, peer := range map[string]networkingv1.NetworkPolicyPeer{
		"block":     {IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0"}},
		"exception": {IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/8", Except: []string{"10"}}},
		"selector":  {PodSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Like"}}}},
	} {
		p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "wrong"}}
		p.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{peer}}}
		_, err := Objects{Policies: []*networkingv1.NetworkPolicy{p}}.Passes(Traffic{From: all["x/b"], To: all["x/a"], Protocol: corev1.ProtocolTCP})
		if err == nil || !strings.Contains(err.Error(), "x/wrong") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
