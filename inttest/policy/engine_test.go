package policy

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"text/template"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"

	engine "k0s.io/k0s/internal/network/kuberouter/policy"
	"k0s.io/k0s/inttest/policy/oracle"
)

// world are objects as the engine and as the oracle get them.
type world struct {
	namespaces map[string]labels.Set
	pods       []*corev1.Pod
	policies   []*networkingv1.NetworkPolicy
}

var nodeNames = []string{"w0", "w1", "w2"}

// smallWorld has the namespaces and pods of the matrix, with addresses of both families.
func smallWorld() world {
	w := world{namespaces: map[string]labels.Set{
		"red":   {"colour": "red", "tier": "front", "kubernetes.io/metadata.name": "red"},
		"green": {"colour": "green", "tier": "back", "kubernetes.io/metadata.name": "green"},
		"blue":  {"colour": "blue", "kubernetes.io/metadata.name": "blue"},
	}}
	for n, namespace := range []string{"red", "green", "blue"} {
		for p, name := range []string{"a", "b", "c"} {
			node := (n + p/2) % 3
			pod := newPod(namespace, name, nodeNames[node], map[string]string{"pod": name}, corev1.Container{})
			pod.UID = types.UID(namespace + name)
			switch name {
			case "a":
				pod.Labels["role"] = "web"
				pod.Spec.Containers[0].Ports = []corev1.ContainerPort{{Name: "web", ContainerPort: 8000}, {Name: "dns", ContainerPort: 8005, Protocol: corev1.ProtocolUDP}}
			case "b":
				pod.Labels["role"], pod.Labels["env"] = "db", "prod"
				pod.Spec.Containers[0].Ports = []corev1.ContainerPort{{Name: "web", ContainerPort: 8001}, {Name: "dns", ContainerPort: 8000, Protocol: corev1.ProtocolUDP}}
			case "c":
				pod.Labels["role"], pod.Labels["env"] = "web", "test"
				pod.Spec.Containers[0].Ports = []corev1.ContainerPort{{Name: "web", ContainerPort: 8005}}
			}
			last := 10*n + p + 2
			pod.Status.Phase = corev1.PodRunning
			pod.Status.PodIPs = []corev1.PodIP{{IP: fmt.Sprintf("10.244.%d.%d", node, last)}, {IP: fmt.Sprintf("fd00:%d::%x", node+1, last)}}
			w.pods = append(w.pods, pod)
		}
	}
	return w
}

func (w world) ends() []oracle.End {
	var all []oracle.End
	for _, p := range w.pods {
		for _, ip := range p.Status.PodIPs {
			all = append(all, oracle.End{Node: p.Spec.NodeName, Addr: netip.MustParseAddr(ip.IP), Pod: p})
		}
	}
	for n, name := range nodeNames {
		all = append(all, oracle.End{Node: name, Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(n)})})
	}
	return append(all, oracle.End{Addr: netip.MustParseAddr("198.51.100.1")}, oracle.End{Addr: netip.MustParseAddr("2001:db8::1")})
}

var protocolNumbers = map[corev1.Protocol]uint8{corev1.ProtocolTCP: 6, corev1.ProtocolUDP: 17, corev1.ProtocolSCTP: 132}

// compare says for which flows the engine's model and the oracle differ.
func (w world) compare(t *testing.T) []string {
	t.Helper()
	objects := engine.Objects{Families: []engine.Family{engine.IPv4, engine.IPv6}, Namespaces: map[string]map[string]string{}, Policies: w.policies}
	for name, label := range w.namespaces {
		objects.Namespaces[name] = label
	}
	for _, p := range w.pods {
		pod := &engine.Pod{Namespace: p.Namespace, Name: p.Name, UID: p.UID, Node: p.Spec.NodeName, Labels: p.Labels}
		for _, ip := range p.Status.PodIPs {
			pod.Addresses = append(pod.Addresses, netip.MustParseAddr(ip.IP))
		}
		for _, port := range p.Spec.Containers[0].Ports {
			protocol := port.Protocol
			if protocol == "" {
				protocol = corev1.ProtocolTCP
			}
			pod.Ports = append(pod.Ports, engine.Port{Name: port.Name, Protocol: protocolNumbers[protocol], Number: uint16(port.ContainerPort)})
		}
		objects.Pods = append(objects.Pods, pod)
	}
	var models []*engine.Model
	for _, node := range nodeNames {
		objects.Node = node
		model, err := engine.Compile(objects)
		if err != nil {
			t.Fatal(err)
		}
		models = append(models, model)
	}
	var differences []string
	second := oracle.Objects{Namespaces: w.namespaces, Policies: w.policies}
	ends := w.ends()
	for _, from := range ends {
		for _, to := range ends {
			// A node reaches its own pods by another way than through the engine's rules.
			if from.Addr.Is4() != to.Addr.Is4() || from.Pod == nil && from.Node != "" && from.Node == to.Node {
				continue
			}
			for protocol, number := range protocolNumbers {
				for _, port := range []int32{1, 7999, 8000, 8001, 8004, 8005, 65535} {
					want, err := second.Passes(oracle.Traffic{From: from, To: to, Protocol: protocol, Port: port})
					if err != nil {
						t.Fatal(err)
					}
					got := true
					for _, m := range models {
						got = got && m.Allows(engine.Flow{Source: from.Addr, Destination: to.Addr, Protocol: number, Port: uint16(port)})
					}
					if got != want {
						differences = append(differences, fmt.Sprintf("%s -> %s %s/%d: the engine says %v, the oracle %v", from.Addr, to.Addr, protocol, port, got, want))
					}
				}
			}
		}
	}
	return differences
}

// TestModel compares the engine's model, without a kernel, with the oracle: under the matrix's policies, then
// under ones made by chance.
func TestModel(t *testing.T) {
	w := smallWorld()
	var text bytes.Buffer
	addr := func(family int) func(string) string {
		return func(name string) string {
			for _, p := range w.pods {
				if p.Namespace+"/"+p.Name == name {
					return p.Status.PodIPs[family].IP
				}
			}
			return "192.0.2." + strings.TrimPrefix(name, "w")
		}
	}
	template.Must(template.New("policies").Funcs(template.FuncMap{
		"addr": addr(0), "addr6": addr(1), "node": addr(0),
		"pods":  func(node string) string { return "10.244." + strings.TrimPrefix(node, "w") + ".0/24" },
		"pods6": func(node string) string { return "fd00:" + string(node[1]+1) + "::/64" },
	}).Parse(policiesYAML)).Execute(&text, nil)
	var groups map[string]map[string]networkingv1.NetworkPolicySpec
	if err := yaml.UnmarshalStrict(text.Bytes(), &groups); err != nil {
		t.Fatal(err)
	}
	for group, specs := range groups {
		var all []*networkingv1.NetworkPolicy
		for full, spec := range specs {
			namespace, name, _ := strings.Cut(full, "/")
			all = append(all, &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: spec})
		}
		w.policies = all
		report(t, group, w)
		for _, one := range all {
			w.policies = []*networkingv1.NetworkPolicy{one}
			report(t, group+" "+one.Name, w)
		}
	}
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		w := smallWorld()
		for i := range 1 + r.IntN(6) {
			w.policies = append(w.policies, randomPolicy(r, fmt.Sprint("policy-", i)))
		}
		report(t, fmt.Sprint("seed ", seed), w)
	}
}

func report(t *testing.T, what string, w world) {
	t.Helper()
	differences := w.compare(t)
	if len(differences) == 0 {
		return
	}
	t.Errorf("%s: %d flows differ, as %s", what, len(differences), differences[0])
	for _, p := range w.policies {
		spec, _ := yaml.Marshal(p.Spec)
		t.Logf("policy %s/%s:\n%s", p.Namespace, p.Name, spec)
	}
}

func randomPolicy(r *rand.Rand, name string) *networkingv1.NetworkPolicy {
	p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: pick(r, "red", "green", "blue"), Name: name}}
	p.Spec.PodSelector = *randomSelector(r, "pod", "role", "env")
	p.Spec.PolicyTypes = pick(r, nil, []networkingv1.PolicyType{"Ingress"}, []networkingv1.PolicyType{"Egress"}, []networkingv1.PolicyType{"Ingress", "Egress"})
	for range r.IntN(3) {
		p.Spec.Ingress = append(p.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: randomPeers(r), Ports: randomPorts(r)})
	}
	for range r.IntN(3) {
		p.Spec.Egress = append(p.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: randomPeers(r), Ports: randomPorts(r)})
	}
	return p
}

func randomPeers(r *rand.Rand) []networkingv1.NetworkPolicyPeer {
	var peers []networkingv1.NetworkPolicyPeer
	for range r.IntN(4) {
		var peer networkingv1.NetworkPolicyPeer
		switch r.IntN(4) {
		case 0:
			peer.PodSelector = randomSelector(r, "pod", "role", "env")
		case 1:
			peer.NamespaceSelector = randomSelector(r, "colour", "tier")
		case 2:
			peer.PodSelector, peer.NamespaceSelector = randomSelector(r, "pod", "role", "env"), randomSelector(r, "colour", "tier")
		case 3:
			peer.IPBlock = pick(r,
				&networkingv1.IPBlock{CIDR: "0.0.0.0/0"},
				&networkingv1.IPBlock{CIDR: "0.0.0.0/0", Except: []string{"10.244.1.0/24", "10.244.1.12/32", "198.51.100.0/24"}},
				&networkingv1.IPBlock{CIDR: "10.244.0.0/16", Except: []string{"10.244.0.0/23"}},
				&networkingv1.IPBlock{CIDR: "10.244.1.0/24"}, &networkingv1.IPBlock{CIDR: "10.244.2.0/24"},
				&networkingv1.IPBlock{CIDR: "10.244.0.2/32"}, &networkingv1.IPBlock{CIDR: "192.0.2.0/31"},
				&networkingv1.IPBlock{CIDR: "::/0"}, &networkingv1.IPBlock{CIDR: "fd00::/8", Except: []string{"fd00:2::/32"}},
				&networkingv1.IPBlock{CIDR: "128.0.0.0/1"}, &networkingv1.IPBlock{CIDR: "fd00:1::2/128"})
		}
		peers = append(peers, peer)
	}
	return peers
}

func randomPorts(r *rand.Rand) []networkingv1.NetworkPolicyPort {
	var ports []networkingv1.NetworkPolicyPort
	for range r.IntN(3) {
		port := networkingv1.NetworkPolicyPort{Protocol: pick(r, nil, new(corev1.ProtocolTCP), new(corev1.ProtocolUDP), new(corev1.ProtocolSCTP))}
		switch r.IntN(4) {
		case 0:
			port.Port = new(intstr.FromInt32(pick[int32](r, 8000, 8001, 8005)))
		case 1:
			port.Port = new(intstr.FromString(pick(r, "web", "dns", "none")))
		case 2:
			port.Port, port.EndPort = new(intstr.FromInt32(pick[int32](r, 1, 8000, 8001))), new(pick[int32](r, 8001, 8004, 65535))
		}
		ports = append(ports, port)
	}
	return ports
}

func randomSelector(r *rand.Rand, keys ...string) *metav1.LabelSelector {
	s := &metav1.LabelSelector{}
	key := pick(r, keys...)
	value := map[string][]string{"pod": {"a", "b", "c"}, "role": {"web", "db"}, "env": {"prod", "test"}, "colour": {"red", "green", "blue"}, "tier": {"front", "back"}}[key]
	switch r.IntN(4) {
	case 0:
		s.MatchLabels = map[string]string{key: pick(r, value...)}
	case 1:
		s.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: key, Operator: pick(r, metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn), Values: []string{pick(r, value...), pick(r, value...)}}}
	case 2:
		s.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: key, Operator: pick(r, metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist)}}
	}
	return s
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }
