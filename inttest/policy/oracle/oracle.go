// Package oracle says what NetworkPolicy objects (networking.k8s.io/v1) let through, from the objects alone.
// It shares no code with the engine that puts them into kernels: it is the second opinion on it.
package oracle

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Objects are those that decide.
type Objects struct {
	// Namespaces are the labels of each.
	Namespaces map[string]labels.Set
	Policies   []*networkingv1.NetworkPolicy
}

// End is where traffic comes from or goes to.
type End struct {
	// Node is the name of the node it is on; empty for what is outside of the cluster.
	Node string
	// Addr is its address; the two ends of traffic have addresses of one family.
	Addr netip.Addr
	// Pod is nil for a node itself and for what is outside.
	Pod *corev1.Pod
}

// Traffic is a first packet. What answers it passes if it did.
type Traffic struct {
	From, To End
	Protocol corev1.Protocol
	Port     int32
}

// Passes tells whether traffic is allowed by both of its ends: where it comes from must be allowed to send it,
// where it goes to must be allowed to get it. An error is an object that the API would have refused.
func (o Objects) Passes(t Traffic) (bool, error) {
	switch {
	case t.From.Addr == t.To.Addr: // never leaves the pod
		return true, nil
	case !t.From.inPodNetwork() && t.From.Node != "" && t.From.Node == t.To.Node: // the kubelet's probes
		return true, nil
	}
	for _, direction := range []networkingv1.PolicyType{networkingv1.PolicyTypeEgress, networkingv1.PolicyTypeIngress} {
		if passes, err := o.allowed(t, direction); err != nil || !passes {
			return false, err
		}
	}
	return true, nil
}

// inPodNetwork tells whether policies know the end as a pod. A pod in its node's network is to them that node,
// and one that has ended has given its address back.
func (e End) inPodNetwork() bool {
	return e.Pod != nil && !e.Pod.Spec.HostNetwork && e.Pod.Status.Phase != corev1.PodSucceeded && e.Pod.Status.Phase != corev1.PodFailed
}

// rule is an ingress or egress rule.
type rule struct {
	ports []networkingv1.NetworkPolicyPort
	peers []networkingv1.NetworkPolicyPeer
}

// allowed tells whether the end that a direction is about may send or get the traffic: no policy of that
// direction selects it, or a rule of any that does has the traffic's other end among its peers, and its port.
func (o Objects) allowed(t Traffic, direction networkingv1.PolicyType) (bool, error) {
	subject, peer := t.To, t.From
	if direction == networkingv1.PolicyTypeEgress {
		subject, peer = t.From, t.To
	}
	if !subject.inPodNetwork() {
		return true, nil
	}
	isolated := false
	for _, policy := range o.Policies {
		if policy.Namespace != subject.Pod.Namespace || !slices.Contains(types(policy), direction) {
			continue
		}
		if selected, err := selects(&policy.Spec.PodSelector, subject.Pod.Labels); err != nil || !selected {
			if err != nil {
				return false, fmt.Errorf("policy %s/%s: %w", policy.Namespace, policy.Name, err)
			}
			continue
		}
		isolated = true
		for _, rule := range rules(policy, direction) {
			through, err := o.matchesPeers(rule.peers, policy.Namespace, peer)
			if err != nil {
				return false, fmt.Errorf("policy %s/%s: %w", policy.Namespace, policy.Name, err)
			}
			if through && matchesPorts(rule.ports, t) {
				return true, nil
			}
		}
	}
	return !isolated, nil
}

// types are the directions that a policy is about. The API fills them in; who did not ask it gets the same.
func types(p *networkingv1.NetworkPolicy) []networkingv1.PolicyType {
	if len(p.Spec.PolicyTypes) > 0 {
		return p.Spec.PolicyTypes
	}
	if len(p.Spec.Egress) > 0 {
		return []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}
	}
	return []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
}

func rules(p *networkingv1.NetworkPolicy, direction networkingv1.PolicyType) []rule {
	var all []rule
	if direction == networkingv1.PolicyTypeIngress {
		for _, r := range p.Spec.Ingress {
			all = append(all, rule{r.Ports, r.From})
		}
		return all
	}
	for _, r := range p.Spec.Egress {
		all = append(all, rule{r.Ports, r.To})
	}
	return all
}

func selects(selector *metav1.LabelSelector, of map[string]string) (bool, error) {
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return false, err
	}
	return s.Matches(labels.Set(of)), nil
}

// matchesPeers tells whether an end is among the peers of a rule; no peers are everybody.
func (o Objects) matchesPeers(peers []networkingv1.NetworkPolicyPeer, namespace string, end End) (bool, error) {
	for _, peer := range peers {
		if matches, err := o.matchesPeer(peer, namespace, end); err != nil || matches {
			return matches, err
		}
	}
	return len(peers) == 0, nil
}

func (o Objects) matchesPeer(peer networkingv1.NetworkPolicyPeer, namespace string, end End) (bool, error) {
	if peer.IPBlock != nil {
		return inBlock(peer.IPBlock, end.Addr)
	}
	if !end.inPodNetwork() {
		return false, nil
	}
	if peer.NamespaceSelector == nil {
		if end.Pod.Namespace != namespace {
			return false, nil
		}
	} else if selected, err := selects(peer.NamespaceSelector, o.Namespaces[end.Pod.Namespace]); err != nil || !selected {
		return false, err
	}
	if peer.PodSelector == nil {
		return peer.NamespaceSelector != nil, nil
	}
	return selects(peer.PodSelector, end.Pod.Labels)
}

func inBlock(block *networkingv1.IPBlock, addr netip.Addr) (bool, error) {
	whole, err := netip.ParsePrefix(block.CIDR)
	if err != nil {
		return false, err
	}
	for _, text := range block.Except {
		except, err := netip.ParsePrefix(text)
		if err != nil || except.Contains(addr) {
			return false, err
		}
	}
	return whole.Contains(addr), nil
}

// matchesPorts tells whether traffic goes to any of a rule's ports; no ports are all. A named one is what the
// pod that the traffic goes to calls so.
func matchesPorts(ports []networkingv1.NetworkPolicyPort, t Traffic) bool {
	return len(ports) == 0 || slices.ContainsFunc(ports, func(p networkingv1.NetworkPolicyPort) bool {
		protocol := corev1.ProtocolTCP
		if p.Protocol != nil {
			protocol = *p.Protocol
		}
		switch {
		case protocol != t.Protocol:
			return false
		case p.Port == nil:
			return true
		case p.Port.Type == intstr.String:
			return slices.Contains(named(t.To, p.Port.StrVal, protocol), t.Port)
		case p.EndPort != nil:
			return p.Port.IntVal <= t.Port && t.Port <= *p.EndPort
		}
		return p.Port.IntVal == t.Port
	})
}

// named are the numbers of the ports that a pod calls by a name.
func named(end End, name string, protocol corev1.Protocol) []int32 {
	if !end.inPodNetwork() {
		return nil
	}
	var numbers []int32
	for _, container := range end.Pod.Spec.Containers {
		for _, port := range container.Ports {
			if port.Name == name && (port.Protocol == protocol || port.Protocol == "" && protocol == corev1.ProtocolTCP) {
				numbers = append(numbers, port.ContainerPort)
			}
		}
	}
	return numbers
}
