package tunnelserver

import (
	"encoding/json"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"
)

// Addresses is what the API knows of whose addresses are, for a server to tell whether one is an agent's own.
type Addresses struct {
	// Nodes in the order in which they have an address.
	Nodes []Node `json:"nodes,omitempty"`
	// Services are the networks of the services, whose addresses are no node's.
	Services []netip.Prefix `json:"services,omitempty"`
}

// Node is what the API knows of a node.
type Node struct {
	Name string `json:"name"`
	// Addresses and names that the node has.
	Addresses []string `json:"addresses,omitempty"`
	// PodCIDRs are what its pods have their addresses from.
	PodCIDRs []netip.Prefix `json:"podCIDRs,omitempty"`
}

// has tells whether an address, or a name, is the node's or of one of its pods.
func (n Node) has(host string) bool {
	return slices.Contains(n.Addresses, host) || inAny(host, n.PodCIDRs)
}

func inAny(host string, networks []netip.Prefix) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// owners are whose addresses are as a file has it, which is read again when it has changed.
type owners struct {
	path string

	mu    sync.Mutex
	read  time.Time
	known Addresses
}

// of is the name of the node that an address belongs to: the first one of the file that has it. It is empty if
// that is not known, or where there is no such file; free tells that then an agent's own word may count. What
// cannot be read leaves what was known.
func (o *owners) of(host string) (node string, free bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if info, err := os.Stat(o.path); err == nil && info.ModTime() != o.read {
		var known Addresses
		if content, err := os.ReadFile(o.path); err == nil && json.Unmarshal(content, &known) == nil {
			o.known, o.read = known, info.ModTime()
		}
	}
	if i := slices.IndexFunc(o.known.Nodes, func(n Node) bool { return n.has(host) }); i >= 0 {
		return o.known.Nodes[i].Name, false
	}
	return "", !inAny(host, o.known.Services)
}
