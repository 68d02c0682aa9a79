package host

import (
	"net"
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
