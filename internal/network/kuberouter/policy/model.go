// Package policy enforces NetworkPolicy objects on the pods of one node.
//
// Compile turns API objects into a Model, which is what the kernel is to hold: sets, verdict maps and
// chains of an nftables table of our own. Kernel makes the table equal to a Model. Controller follows the
// API and the CNI plugin and keeps the two in step.
//
// A pod's ingress and its egress are judged in base chains of their own, one after the other: what is
// accepted in the one still has to pass the other.
package policy

import (
	"net/netip"
)

// Direction of traffic, as the pod sees it that it is judged for.
type Direction string

// Directions.
const (
	Ingress Direction = "in"
	Egress  Direction = "out"
)

// Family of addresses.
type Family string

// Families.
const (
	IPv4 Family = "4"
	IPv6 Family = "6"
)

// FamilyOf an address.
func FamilyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// Model is what the table holds beside what is always the same.
type Model struct {
	Sets   map[string]*Set
	Chains map[string]Chain
}

// Names of the sets that every model has, one for each family.
func podsSet(f Family) string                  { return "pods-" + string(f) }
func selfSet(f Family) string                  { return "self-" + string(f) }
func isolatedSet(d Direction, f Family) string { return "isolated-" + string(d) + "-" + string(f) }
func verdictMap(d Direction, f Family) string  { return string(d) + "-" + string(f) }

// Kind of a set.
type Kind int

// Kinds of sets.
const (
	Addresses  Kind = iota // of Element.Address
	Ranges                 // from Element.Address to Element.To, never overlapping
	Endpoints              // of Element.Address, .Protocol and .Port
	Pairs                  // of Element.Address and .To
	Verdicts               // a map of Element.Address to the chain to jump to
	Interfaces             // of Element.Interface
	Senders                // of Element.Interface, .MAC and .Address
)

// Set is a set or a map of the kernel.
type Set struct {
	Kind   Kind
	Family Family
	// Elements with the chain each one leads to, in a map.
	Elements map[Element]string
}

// Element of a set. Which fields count depends on the set's kind.
type Element struct {
	Address, To netip.Addr
	Protocol    uint8
	Port        uint16
	Interface   string
	MAC         [6]byte
}

// Chain lets pass what one of its rules accepts. It belongs to one direction, and is never entered from
// another.
type Chain struct {
	Direction Direction
	Rules     []Rule
}

// Rule accepts packets, or jumps to another chain. All that is set must match.
type Rule struct {
	// Jump is a chain to ask; what it does not accept goes on with the next rule.
	Jump string
	// Comment is shown by nft.
	Comment string
	// Family is empty for both.
	Family Family
	// Peers is a set that the other side's address is in.
	Peers string
	// Protocol is that of IP; 0 is any.
	Protocol uint8
	// First to Last are the ports of the receiver; 0 to 0 are all.
	First, Last uint16
	// Endpoints is a set of the receiver's address, the protocol and the port.
	Endpoints string
}

// Flow is what a connection looks like where it is judged: after a service's address has been replaced by
// that of a pod, and before the sender's has been hidden.
type Flow struct {
	Source, Destination netip.Addr
	Protocol            uint8
	Port                uint16
}

// Allows tells whether both ends may have the flow, as far as they are pods of this node.
func (m *Model) Allows(f Flow) bool {
	return f.Source == f.Destination || m.passes(Egress, f.Source, f) && m.passes(Ingress, f.Destination, f)
}

func (m *Model) passes(d Direction, pod netip.Addr, f Flow) bool {
	family := FamilyOf(pod)
	chain, isolated := m.Sets[verdictMap(d, family)].Elements[Element{Address: pod}]
	return !isolated || m.accepts(m.Chains[chain], f)
}

func (m *Model) accepts(c Chain, f Flow) bool {
	peer := f.Source
	if c.Direction == Egress {
		peer = f.Destination
	}
	for _, r := range c.Rules {
		switch {
		case r.Jump != "":
			if m.accepts(m.Chains[r.Jump], f) {
				return true
			}
		case r.Family != "" && r.Family != FamilyOf(peer),
			r.Peers != "" && !m.Sets[r.Peers].has(Element{Address: peer}),
			r.Protocol != 0 && r.Protocol != f.Protocol,
			r.Last != 0 && (f.Port < r.First || f.Port > r.Last),
			r.Endpoints != "" && !m.Sets[r.Endpoints].has(Element{Address: f.Destination, Protocol: f.Protocol, Port: f.Port}):
		default:
			return true
		}
	}
	return false
}

func (s *Set) has(e Element) bool {
	if s.Kind != Ranges {
		_, there := s.Elements[e]
		return there
	}
	for r := range s.Elements {
		if r.Address.Compare(e.Address) <= 0 && e.Address.Compare(r.To) <= 0 {
			return true
		}
	}
	return false
}
