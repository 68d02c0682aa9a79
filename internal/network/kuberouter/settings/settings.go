// Package settings says what the built-in network is to do, as users say it: by the names of kube-router's
// flags.
package settings

import (
	"encoding/json"
	"log/slog"
	"net/netip"
	"time"
)

// Settings are those of the built-in network, for all nodes.
type Settings struct {
	BGP     BGP
	Overlay Overlay
	Policy  Policy
	// Egress gives pods their node's address when they talk to anything outside of the cluster.
	Egress bool
	// Metrics and Health are where Prometheus and a load balancer may ask; a port of 0 is nowhere.
	Metrics, Health Endpoint
	// MetricsPath is the path of the metrics.
	MetricsPath string
}

// BGP says with whom routes are exchanged, and which.
type BGP struct {
	// Enabled: nodes and routers are told where pods are, and tell it.
	Enabled bool
	// ASN is that of the cluster, one of those for private use.
	ASN uint32
	// Port is the TCP port of the nodes.
	Port uint16
	// Internal: nodes talk to each other.
	Internal bool
	// FullMesh: each node talks to each other. Without it, to those of its own AS number, which is in the
	// node's annotation.
	FullMesh bool
	// HoldTime is after how long without a word a peer is given up: a whole number of seconds.
	HoldTime time.Duration
	// GracefulRestart lets routes survive a restart of k0s.
	GracefulRestart bool
	// RestartTime is how long peers wait for a node that restarts.
	RestartTime time.Duration
	// DeferralTime is how long a node that has restarted waits for what its peers know.
	DeferralTime time.Duration
	// Peers outside of the cluster, of every node.
	Peers []Peer
	// PeerPasswordsFile has their passwords, in the order of Peers; empty if there is none. It is read on
	// each node.
	PeerPasswordsFile string
	// OverrideNextHop tells peers outside of the cluster the address that the session with them has.
	OverrideNextHop bool
	// What peers outside of the cluster are told.
	AdvertisePodCIDR, AdvertiseClusterIP, AdvertiseExternalIP, AdvertiseLoadBalancerIP bool
	// ExternalIPRanges are where advertised externalIPs must lie, which whoever may create a Service chooses,
	// unless AnyExternalIP.
	ExternalIPRanges []netip.Prefix
	AnyExternalIP    bool
	// LoadBalancerIPRanges are where advertised addresses of load balancers must lie; empty: anywhere.
	LoadBalancerIPRanges []netip.Prefix
}

// Peer is a router outside of the cluster.
type Peer struct {
	Address netip.Addr
	ASN     uint32
	// Port is 179 unless it is said otherwise.
	Port uint16
	// Password of the TCP connection (RFC 2385); empty for none.
	Password Secret
	// LocalAddress is where this node speaks from; not valid for where the kernel chooses.
	LocalAddress netip.Addr
	// TTL is for a peer that is not on the same network; 0 for one that is.
	TTL uint8
}

// Overlay says what is wrapped on its way to another node.
type Overlay struct {
	// Enabled wraps what leaves the subnet.
	Enabled bool
	// Full wraps what stays in the subnet, too.
	Full bool
	// Encapsulation is ipip or vxlan; empty for what the kernel has.
	Encapsulation string
	// Port is the UDP port of VXLAN; 0 for the default.
	Port uint16
}

// Policy says how NetworkPolicy objects are enforced.
type Policy struct {
	// Enabled: they are.
	Enabled bool
	// DefaultDeny has no effect: a pod is never reached before its rules are there.
	DefaultDeny bool
	// CutEstablished ends connections that a changed policy no longer allows.
	CutEstablished bool
}

// Endpoint is where a server listens. The unspecified address is every one.
type Endpoint struct {
	Address netip.Addr
	Port    uint16
}

// Secret does not show itself.
type Secret string

const hidden = "(hidden)"

// String hides the secret.
func (s Secret) String() string { return hidden }

// GoString hides the secret.
func (s Secret) GoString() string { return hidden }

// LogValue hides the secret.
func (s Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalJSON hides the secret.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(hidden) }

// Default is what holds where nothing is said.
func Default() Settings {
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1}) // because nobody is asked for a password
	return Settings{
		BGP: BGP{
			Enabled: true, ASN: 64512, Port: 179, Internal: true, FullMesh: true,
			HoldTime: 90 * time.Second, GracefulRestart: true, RestartTime: 90 * time.Second, DeferralTime: 360 * time.Second,
			AdvertisePodCIDR: true,
		},
		Overlay:     Overlay{Enabled: true},
		Policy:      Policy{Enabled: true},
		Egress:      true,
		Metrics:     Endpoint{Address: loopback},
		Health:      Endpoint{Address: loopback, Port: 20244},
		MetricsPath: "/metrics",
	}
}
