package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/host"
)

// nodeAddressName is the component that sees to it that the node's addresses are its host's.
const nodeAddressName = "node-address"

// settle is how long the host's addresses must have stayed as they are: what renews a lease may take the old one
// away first, and an IPv6 address may still turn out to be another host's.
const settle = 2 * time.Second

// nodeAddress has a worker follow when its host gets another address, and says so where it cannot.
func nodeAddress(o Options) component.Component {
	log := o.Log.With("component", nodeAddressName)
	var lost atomic.Pointer[error]
	c := component.Background(nodeAddressName, func(ctx context.Context) error {
		changed := make(chan struct{}, 1)
		notify := func() {
			select {
			case changed <- struct{}{}:
			default: // it will be seen with the change before
			}
		}
		failed, stop, err := host.WatchAddresses(notify)
		if err != nil {
			return err
		}
		defer stop()
		notify() // of what has changed before
		var settled <-chan time.Time
		for {
			select {
			case <-ctx.Done():
				return nil
			case err := <-failed:
				return err
			case <-changed:
				settled = time.After(settle)
				continue
			case <-settled:
			}
			present, err := host.AllAddresses()
			if err != nil {
				return err
			}
			own, err := host.Addresses()
			if err != nil {
				return err
			}
			trouble := o.lostAddress(present, own)
			var before error
			if old := lost.Swap(&trouble); old != nil {
				before = *old
			}
			switch {
			case trouble != nil && (before == nil || before.Error() != trouble.Error()):
				log.Error("The node is not reached", "error", trouble)
			case trouble == nil && before != nil:
				log.Info("The host has the node's address again, or another one")
			}
			if o.Moved != nil {
				o.Moved(o.follow(own))
			}
		}
	}, log)
	failed := c.Trouble
	c.Trouble = func() error {
		if trouble := lost.Load(); trouble != nil && *trouble != nil {
			return *trouble
		}
		return failed()
	}
	return c
}

// follow returns what Addresses are to be on a host that has these now: by the one that a node is known by it is
// known for as long as the host has it, or has no other of its family.
func (o Options) follow(own []netip.Addr) []netip.Addr {
	var next []netip.Addr
	for _, is4 := range []bool{true, false} {
		ofFamily := func(a netip.Addr) bool { return a.Is4() == is4 }
		i := slices.IndexFunc(o.Addresses, ofFamily)
		if i < 0 || !slices.Contains(own, o.Addresses[i]) && slices.ContainsFunc(own, ofFamily) {
			continue
		}
		next = append(next, o.Addresses[i])
	}
	for _, a := range own {
		if !slices.Contains(next, a) {
			next = append(next, a)
		}
	}
	return next
}

// lostAddress says which of the node's addresses the host has no more, and what can be done, unless the node follows.
func (o Options) lostAddress(present, own []netip.Addr) error {
	o.Addresses = slices.Clone(o.Addresses)
	given := o.KubeletArgs["node-ip"]
	if given == "" && o.Moved != nil {
		o.Addresses = o.follow(own)
	}
	for _, text := range o.nodeAddresses() {
		address, err := netip.ParseAddr(text)
		if err != nil || address.IsUnspecified() || slices.Contains(present, address) {
			continue
		}
		switch {
		case given != "":
			return fmt.Errorf("this host does not have the address %s that --kubelet-extra-args=--node-ip=%s says: give it that, or start k0s with another one", address, given)
		case o.Moved != nil:
			return fmt.Errorf("this host does not have the address %s any more, nor another one: the node is to have what it gets next", address)
		}
		return errors.New("this host does not have the address " + address.String() + " any more: a controller cannot change its address " +
			"while it runs: give the host the address back, or restart k0s")
	}
	return nil
}

// nodeAddresses are those that the kubelet tells the API of, the primary one first.
func (o Options) nodeAddresses() []string {
	addresses := o.KubeletArgs["node-ip"]
	if addresses == "" {
		addresses = o.nodeIPs()
	}
	return strings.Split(addresses, ",")
}
