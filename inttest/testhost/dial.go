package testhost

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"

	"github.com/vishvananda/netns"
)

// Dial connects to an address as a program on the host would: 127.0.0.1 is the host's own. The address must
// be numeric.
func (h *Host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := h.dial(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", h.Name, err)
	}
	return conn, nil
}

func (h *Host) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if net.ParseIP(host) == nil { // its lookup would make sockets elsewhere
		return nil, fmt.Errorf("dialing %s: not a numeric address", address)
	}
	ns, err := netns.GetFromPid(h.Pid())
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	runtime.LockOSThread()
	own, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	defer own.Close()
	if err := netns.Set(ns); err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	// The thread must go on: hosts die with the one that started them. One that cannot come back must not.
	if back := netns.Set(own); back != nil {
		return nil, errors.Join(err, fmt.Errorf("coming back from the host's network: %w", back))
	}
	runtime.UnlockOSThread()
	return conn, err
}
