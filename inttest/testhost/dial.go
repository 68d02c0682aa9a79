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
func (h *Host) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if net.ParseIP(host) == nil { // its lookup would make sockets elsewhere
		return nil, fmt.Errorf("dialing %s: not a numeric address", address)
	}
	err = InNetwork(h.Pid(), func() error {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", h.Name, err)
	}
	return conn, nil
}

// InNetwork does something in the network namespace of a process of a host or a pod, by its process id on the
// machine. Sockets that do makes itself stay there.
func InNetwork(pid int, do func() error) error {
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return err
	}
	defer ns.Close()
	runtime.LockOSThread()
	own, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer own.Close()
	if err := netns.Set(ns); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	err = do()
	// The thread must go on: hosts die with the one that started them. One that cannot come back must not.
	if back := netns.Set(own); back != nil {
		return errors.Join(err, fmt.Errorf("coming back from another network namespace: %w", back))
	}
	runtime.UnlockOSThread()
	return err
}
