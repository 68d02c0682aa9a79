package tunnelserver

import (
	"encoding/json"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"
)

// Node is what the API knows of a node, for a server to tell whether an address is an agent's own.
type Node struct {
	Name string `json:"name"`
	// Addresses and names that the node has.
	Addresses []string `json:"addresses,omitempty"`
	// PodCIDRs are what its pods have their addresses from.
	PodCIDRs []netip.Prefix `json:"podCIDRs,omitempty"`
}

// has tells whether an address, or a name, is the node's or of one of its pods.
func (n Node) has(host string) bool {
	if slices.Contains(n.Addresses, host) {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && slices.ContainsFunc(n.PodCIDRs, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// owners are the nodes as a file has them, which is read again when it has changed.
type owners struct {
	path string

	mu    sync.Mutex
	read  time.Time
	nodes []Node
}

// of is the name of the node that an address belongs to: the first one of the file that has it. It is empty if
// that is not known, or where there is no such file. What cannot be read leaves what was known.
func (o *owners) of(host string) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if info, err := os.Stat(o.path); err == nil && info.ModTime() != o.read {
		var nodes []Node
		if content, err := os.ReadFile(o.path); err == nil && json.Unmarshal(content, &nodes) == nil {
			o.nodes, o.read = nodes, info.ModTime()
		}
	}
	if i := slices.IndexFunc(o.nodes, func(n Node) bool { return n.has(host) }); i >= 0 {
		return o.nodes[i].Name
	}
	return ""
}
