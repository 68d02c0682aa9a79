package host

import (
	"net"
	"net/netip"
	"strconv"
)

// Port is a TCP port that a component listens on.
type Port struct {
	Address string // empty: all addresses
	Number  int
	Usage   string // what listens, and where the port is configured
}

// String is the address to listen on.
func (p Port) String() string { return net.JoinHostPort(p.Address, strconv.Itoa(p.Number)) }

// Collides tells whether two components cannot listen on both.
func (p Port) Collides(other Port) bool {
	return p.Number == other.Number && (p.Address == other.Address || p.everywhere() || other.everywhere())
}

func (p Port) everywhere() bool {
	ip, err := netip.ParseAddr(p.Address)
	return p.Address == "" || err == nil && ip.IsUnspecified()
}
