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
