package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"go4.org/netipx"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Objects are what a model is made from.
type Objects struct {
	// Node is this node's name: its pods are the ones that are judged.
	Node string
	// Families that this node's pods have addresses of.
	Families []Family
	Pods     []*Pod
	// Namespaces are the labels of all namespaces, by name.
	Namespaces map[string]map[string]string
	Policies   []*networkingv1.NetworkPolicy
}

// Pod is what matters of a pod.
type Pod struct {
	Namespace, Name string
	UID             types.UID
	Node            string
	Labels          map[string]string
	HostNetwork     bool
	// Done: it has succeeded or failed, and its addresses may soon be another pod's.
	Done      bool
	Created   time.Time
	Addresses []netip.Addr
	// Claimed: the addresses come from the CNI plugin, which knows better than the API.
	Claimed bool
	Ports   []Port
}

// Port is a named port of a pod.
type Port struct {
	Name     string
	Protocol uint8
	Number   uint16
}

// Compile makes a model of the whole state. An object that cannot be understood makes an error, and opens
// nothing: the model holds without it.
func Compile(o Objects) (*Model, error) {
	c := compiler{Objects: o, model: &Model{Sets: map[string]*Set{}, Chains: map[string]Chain{}}, byNamespace: map[string][]member{}, peersByName: map[string]peers{}}
	for _, f := range o.Families {
		c.set(podsSet(f), Addresses, f)
		c.set(selfSet(f), Pairs, f)
		for _, d := range []Direction{Ingress, Egress} {
			c.set(isolatedSet(d, f), Addresses, f)
			c.set(verdictMap(d, f), Verdicts, f)
		}
	}
	locals := c.index()
	slices.SortFunc(c.Policies, func(a, b *networkingv1.NetworkPolicy) int { return strings.Compare(key(a), key(b)) })
	selecting := make(map[Direction][][]*networkingv1.NetworkPolicy, 2) // of each local pod
	for _, d := range []Direction{Ingress, Egress} {
		selecting[d] = make([][]*networkingv1.NetworkPolicy, len(locals))
	}
	for _, p := range c.Policies {
		selector := c.selector(p, &p.Spec.PodSelector, labels.Everything())
		var selected []member
		for i, local := range locals {
			if local.pod.Namespace != p.Namespace || !selector.Matches(labels.Set(local.pod.Labels)) {
				continue
			}
			selected = append(selected, local)
			for _, d := range directions(p) {
				selecting[d][i] = append(selecting[d][i], p)
			}
		}
		if len(selected) == 0 {
			continue // of no concern to this node
		}
		for _, d := range directions(p) {
			c.model.Chains[policyChain(d, p)] = Chain{Direction: d, Rules: c.rules(d, p, selected)}
		}
	}
	for i, local := range locals {
		c.program(local, selecting[Ingress][i], selecting[Egress][i])
	}
	return c.model, errors.Join(c.errs...)
}

// member is a pod with the addresses that are truly its own.
type member struct {
	pod       *Pod
	addresses []netip.Addr
}

type compiler struct {
	Objects
	model       *Model
	byNamespace map[string][]member // the pods that can be peers
	peersByName map[string]peers    // what was found before: many policies have the same peers
	errs        []error
}

// set returns a set of the model, which it makes if need be.
func (c *compiler) set(name string, k Kind, f Family) *Set {
	s := c.model.Sets[name]
	if s == nil {
		s = &Set{Kind: k, Family: f, Elements: map[Element]string{}}
		c.model.Sets[name] = s
	}
	return s
}

// index finds out which pod each address belongs to, and returns this node's pods.
func (c *compiler) index() []member {
	owners := map[netip.Addr]*Pod{}
	for _, p := range c.Pods {
		if p.HostNetwork || p.Done && !c.holds(p) {
			continue
		}
		for _, a := range p.Addresses {
			if other := owners[a]; other == nil || c.succeeds(p, other) {
				owners[a] = p
			}
		}
	}
	var locals []member
	for _, p := range c.Pods {
		var own []netip.Addr
		for _, a := range p.Addresses {
			if owners[a] == p {
				own = append(own, a)
			}
		}
		if len(own) == 0 {
			continue
		}
		if !p.Done {
			c.byNamespace[p.Namespace] = append(c.byNamespace[p.Namespace], member{p, own})
		}
		if p.Node == c.Node {
			locals = append(locals, member{p, own})
		}
	}
	return locals
}

// holds: the pod has its network on this node until the CNI plugin says otherwise.
func (c *compiler) holds(p *Pod) bool { return p.Claimed && p.Node == c.Node }

// succeeds tells which one of two pods has an address that both say they have.
func (c *compiler) succeeds(p, other *Pod) bool {
	if c.holds(p) != c.holds(other) {
		return c.holds(p)
	}
	if !p.Created.Equal(other.Created) {
		return p.Created.After(other.Created)
	}
	return p.UID > other.UID
}

// program enters a pod of this node.
func (c *compiler) program(local member, ingress, egress []*networkingv1.NetworkPolicy) {
	chains := map[Direction]string{Ingress: c.podChain(Ingress, ingress), Egress: c.podChain(Egress, egress)}
	for _, a := range local.addresses {
		f := FamilyOf(a)
		if !slices.Contains(c.Families, f) {
			continue
		}
		c.model.Sets[podsSet(f)].Elements[Element{Address: a}] = ""
		for d, chain := range chains {
			if chain == "" {
				continue
			}
			c.model.Sets[isolatedSet(d, f)].Elements[Element{Address: a}] = ""
			c.model.Sets[verdictMap(d, f)].Elements[Element{Address: a}] = chain
			c.model.Sets[selfSet(f)].Elements[Element{Address: a, To: a}] = ""
		}
	}
}

// podChain asks the chains of the policies one after the other. Pods that the same policies select share
// it; without any there is none.
func (c *compiler) podChain(d Direction, policies []*networkingv1.NetworkPolicy) string {
	if len(policies) == 0 {
		return ""
	}
	var rules []Rule
	var keys []string
	for _, p := range policies {
		keys = append(keys, key(p))
		rules = append(rules, Rule{Jump: policyChain(d, p), Comment: key(p)})
	}
	name := "pod-" + string(d) + "-" + hash(keys...)
	c.model.Chains[name] = Chain{Direction: d, Rules: rules}
	return name
}

func policyChain(d Direction, p *networkingv1.NetworkPolicy) string {
	return "policy-" + string(d) + "-" + hash(key(p))
}

// directions that a policy is about: the API's rule for when it does not say.
func directions(p *networkingv1.NetworkPolicy) []Direction {
	if len(p.Spec.PolicyTypes) == 0 {
		if len(p.Spec.Egress) > 0 {
			return []Direction{Ingress, Egress}
		}
		return []Direction{Ingress}
	}
	var d []Direction
	if slices.Contains(p.Spec.PolicyTypes, networkingv1.PolicyTypeIngress) {
		d = append(d, Ingress)
	}
	if slices.Contains(p.Spec.PolicyTypes, networkingv1.PolicyTypeEgress) {
		d = append(d, Egress)
	}
	return d
}

// rules of one direction of a policy; selected are this node's pods that it selects.
func (c *compiler) rules(d Direction, p *networkingv1.NetworkPolicy, selected []member) []Rule {
	var rules []Rule
	if d == Ingress {
		for _, r := range p.Spec.Ingress {
			peers := c.peers(p, r.From)
			rules = append(rules, c.combine(p, peers, r.Ports, hash("of", key(p)), func() []member { return selected })...)
		}
		return rules
	}
	for _, r := range p.Spec.Egress {
		peers := c.peers(p, r.To)
		rules = append(rules, c.combine(p, peers, r.Ports, peers.name, peers.receivers)...)
	}
	return rules
}

// combine makes a rule of each way to be a peer and each port. Named ports are those of receivers, which
// receiverName stands for.
func (c *compiler) combine(p *networkingv1.NetworkPolicy, peers peers, ports []networkingv1.NetworkPolicyPort, receiverName string, receivers func() []member) []Rule {
	if len(ports) == 0 {
		return peers.rules
	}
	var rules []Rule
	for _, port := range ports {
		proto, ok := protocolNumber(port.Protocol)
		if !ok {
			c.errs = append(c.errs, fmt.Errorf("NetworkPolicy %s: protocol %s is not known, its rule opens nothing", key(p), *port.Protocol))
			continue
		}
		if port.Port != nil && port.Port.Type == intstr.String {
			rules = append(rules, c.named(peers, port.Port.StrVal, proto, receiverName, receivers())...)
			continue
		}
		for _, r := range peers.rules {
			r.Protocol = proto
			if port.Port != nil {
				r.First = uint16(port.Port.IntVal)
				r.Last = r.First
				if port.EndPort != nil {
					r.Last = uint16(*port.EndPort)
				}
			}
			rules = append(rules, r)
		}
	}
	return rules
}

// named resolves a port's name for each receiver by itself: they may mean different numbers by it.
func (c *compiler) named(peers peers, name string, protocol uint8, receiverName string, receivers []member) []Rule {
	base := "ports-" + hash(receiverName, name, fmt.Sprint(protocol)) + "-"
	for _, f := range c.Families {
		set := c.set(base+string(f), Endpoints, f)
		for _, r := range receivers {
			for _, port := range r.pod.Ports {
				if port.Name != name || port.Protocol != protocol {
					continue
				}
				for _, a := range r.addresses {
					if FamilyOf(a) == f {
						set.Elements[Element{Address: a, Protocol: protocol, Port: port.Number}] = ""
					}
				}
			}
		}
	}
	var rules []Rule
	for _, r := range peers.rules {
		for _, f := range c.Families {
			if r.Family == "" || r.Family == f {
				r := r
				r.Family, r.Endpoints = f, base+string(f)
				rules = append(rules, r)
			}
		}
	}
	return rules
}

// peers are the other side of a rule of a policy.
type peers struct {
	name  string
	rules []Rule // matching them, without ports
	// receivers are the pods among them: what the name of a port is resolved by, if they are the receivers.
	receivers func() []member
}

// peers makes the sets of a list of peers. An empty list is everybody.
func (c *compiler) peers(p *networkingv1.NetworkPolicy, list []networkingv1.NetworkPolicyPeer) peers {
	if len(list) == 0 {
		return peers{name: "everybody", rules: []Rule{{}}, receivers: func() []member {
			return c.matching(func(string) labels.Selector { return labels.Everything() })
		}}
	}
	encoded, err := json.Marshal(list)
	if err != nil {
		c.errs = append(c.errs, fmt.Errorf("NetworkPolicy %s: %w", key(p), err))
		return peers{}
	}
	name := hash(p.Namespace, string(encoded))
	if known, there := c.peersByName[name]; there {
		return known
	}
	result := peers{name: name}
	var blocks []*networkingv1.IPBlock
	pods := map[*Pod]member{}
	byPods := false
	for _, peer := range list {
		if peer.IPBlock != nil {
			blocks = append(blocks, peer.IPBlock)
			continue
		}
		byPods = true
		for _, m := range c.matching(c.peerSelector(p, peer)) {
			pods[m.pod] = m
		}
	}
	inBlocks, err := blockRanges(blocks)
	if err != nil {
		c.errs = append(c.errs, fmt.Errorf("NetworkPolicy %s: %w", key(p), err))
	}
	for _, f := range c.Families {
		if ranges := rangesOf(inBlocks, f); everything(ranges) {
			result.rules = append(result.rules, Rule{Family: f})
			continue
		} else if len(ranges) > 0 {
			name := "blocks-" + hash(fmt.Sprint(ranges)) + "-" + string(f)
			set := c.set(name, Ranges, f)
			for _, r := range ranges {
				set.Elements[Element{Address: r.From(), To: r.To()}] = ""
			}
			result.rules = append(result.rules, Rule{Family: f, Peers: name})
		}
		if byPods {
			name := "peers-" + result.name + "-" + string(f)
			set := c.set(name, Addresses, f)
			for _, m := range pods {
				for _, a := range m.addresses {
					if FamilyOf(a) == f {
						set.Elements[Element{Address: a}] = ""
					}
				}
			}
			result.rules = append(result.rules, Rule{Family: f, Peers: name})
		}
	}
	result.receivers = func() []member {
		receivers := slices.Collect(maps.Values(pods))
		if len(blocks) == 0 {
			return receivers
		}
		for _, members := range c.byNamespace {
			for _, m := range members {
				if _, there := pods[m.pod]; !there && slices.ContainsFunc(m.addresses, inBlocks.Contains) {
					receivers = append(receivers, m)
				}
			}
		}
		return receivers
	}
	c.peersByName[name] = result
	return result
}

// peerSelector gives the selector of a peer for the pods of each namespace; nil for none of them.
func (c *compiler) peerSelector(p *networkingv1.NetworkPolicy, peer networkingv1.NetworkPolicyPeer) func(string) labels.Selector {
	pods := labels.Everything()
	if peer.PodSelector != nil {
		pods = c.selector(p, peer.PodSelector, labels.Nothing())
	}
	if peer.NamespaceSelector == nil {
		return func(namespace string) labels.Selector {
			if namespace == p.Namespace && peer.PodSelector != nil {
				return pods
			}
			return nil
		}
	}
	namespaces := c.selector(p, peer.NamespaceSelector, labels.Nothing())
	return func(namespace string) labels.Selector {
		if own, known := c.Namespaces[namespace]; known && namespaces.Matches(labels.Set(own)) {
			return pods
		}
		return nil
	}
}

// matching lists the pods that the selector of their namespace matches.
func (c *compiler) matching(selectorOf func(namespace string) labels.Selector) []member {
	var found []member
	for namespace, members := range c.byNamespace {
		selector := selectorOf(namespace)
		switch {
		case selector == nil:
		case selector.Empty():
			found = append(found, members...)
		default:
			for _, m := range members {
				if selector.Matches(labels.Set(m.pod.Labels)) {
					found = append(found, m)
				}
			}
		}
	}
	return found
}

// selector reads a selector; one that cannot be read is a wrong one.
func (c *compiler) selector(p *networkingv1.NetworkPolicy, s *metav1.LabelSelector, wrong labels.Selector) labels.Selector {
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		c.errs = append(c.errs, fmt.Errorf("NetworkPolicy %s: %w", key(p), err))
		return wrong
	}
	return selector
}

func rangesOf(set *netipx.IPSet, f Family) []netipx.IPRange {
	if set == nil {
		return nil
	}
	return slices.DeleteFunc(set.Ranges(), func(r netipx.IPRange) bool { return FamilyOf(r.From()) != f })
}

// protocolNumber of a protocol that a policy or a container names; the default is TCP.
func protocolNumber(p *corev1.Protocol) (uint8, bool) {
	if p == nil {
		return protocolTCP, true
	}
	switch *p {
	case corev1.ProtocolTCP, "":
		return protocolTCP, true
	case corev1.ProtocolUDP:
		return protocolUDP, true
	case corev1.ProtocolSCTP:
		return protocolSCTP, true
	}
	return 0, false
}

// Protocol numbers of IP.
const (
	protocolICMP   = 1
	protocolTCP    = 6
	protocolUDP    = 17
	protocolICMPv6 = 58
	protocolSCTP   = 132
)

// key names a policy. Neither part can contain the slash.
func key(p *networkingv1.NetworkPolicy) string { return p.Namespace + "/" + p.Name }

// hash makes a name of texts, none of which contains a zero.
func hash(texts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(texts, "\x00")))
	return hex.EncodeToString(sum[:10])
}
