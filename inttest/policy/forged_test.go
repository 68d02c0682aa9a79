package policy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"k0s.io/k0s/inttest/cluster"
	"k0s.io/k0s/inttest/frame"
	"k0s.io/k0s/inttest/policy/probe"
	"k0s.io/k0s/inttest/testhost"
)

// TestForged has a pod that is denied everything say that its packets come from elsewhere.
func TestForged(t *testing.T) {
	b := newShutBed(t, testhost.DualStack, dualStack)
	w := b.workers[0]
	b.place(t, w, "shut", "forger", nil)
	b.place(t, w, "open", "friend", nil)
	b.waitPlaces(t)
	forger, near, friend := b.find("shut/forger"), b.find("open/near-w0"), b.find("open/friend")
	targets := []netip.Addr{b.find("open/near-w1").ends[0].Addr, netip.MustParseAddr(w.Host.IP)}
	forge := func(from *place, source netip.Addr) map[string]int {
		t.Helper()
		b.resetCounters(t)
		if _, err := probe.Ask[int](t.Context(), from.socket, "flood", probe.Flood{Addresses: targets, Port: outPort, Source: source}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // of sending
		if cease(t, []*place{from}) < 100 {
			t.Fatal("it was not able to send")
		}
		return b.delivered(t)
	}
	// Its own address is no forgery, and shows that they are counted.
	if seen := forge(near, near.ends[0].Addr); len(seen) != 2 {
		t.Fatalf("without a policy: %v", seen)
	}
	targets = append(targets, near.ends[0].Addr)
	shut := func(t *testing.T) {
		for what, source := range map[string]netip.Addr{
			"its own address":           forger.ends[0].Addr,
			"an address outside":        netip.MustParseAddr("198.51.100.1"),
			"its node's address":        netip.MustParseAddr(w.Host.IP),
			"no pod's address":          next(t, w.Host, 1)[2],
			"another node's pods":       netip.MustParseAddr("10.244.77.7"),
			"another pod of its node":   friend.ends[0].Addr,
			"the one that is to get it": near.ends[0].Addr,
		} {
			if seen := forge(forger, source); len(seen) > 0 {
				t.Errorf("packets from %s got through: %v", what, seen)
			}
		}
	}
	shut(t)
	raw := newForger(t, forger, near, friend)
	raw.try(t, false)

	// Without the table that holds pods to their own addresses all of it is possible. It is back when k0s is.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := w.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	raw.try(t, false)
	w.Host.Run(t, nft, "delete", "table", "bridge", "kuberouter-policy")
	if seen := forge(forger, friend.ends[0].Addr); len(seen) != 3 {
		t.Errorf("without the table only this got through: %v", seen)
	}
	raw.try(t, true)
	w.Token = "" // it has joined
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	if err := b.Eventually(ctx, cluster.Patience, "the table", func(context.Context) error {
		_, err := w.Host.Output(ctx, nft, "list", "table", "bridge", "kuberouter-policy")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := w.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	raw.try(t, false)
	shut(t)
}

// rawPort is where what a forger sends is received.
const rawPort = 9002

// interfaceOf is a place's, in whose network the process is.
type interfaceOf struct {
	*net.Interface
	pid int
}

func newInterface(t *testing.T, of *place) (i interfaceOf) {
	t.Helper()
	pid, err := of.node.PodProcess(of.pod)
	if err == nil {
		err = testhost.InNetwork(pid, func() (err error) {
			i.Interface, err = net.InterfaceByName("eth0")
			return err
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	i.pid = pid
	return i
}

// forger sends raw frames from a pod, as another one, to a third one of its node.
type forger struct {
	from, to, as         interfaceOf
	toAddress, asAddress netip.Addr
	// own are frames with its own addresses, which nothing but policies may stop.
	own, forged map[string][]byte
	arp         []byte
	received    chan string
}

func newForger(t *testing.T, from, to, as *place) *forger {
	t.Helper()
	f := &forger{
		from: newInterface(t, from), to: newInterface(t, to), as: newInterface(t, as), toAddress: to.ends[0].Addr, asAddress: as.ends[0].Addr,
		own: map[string][]byte{}, forged: map[string][]byte{}, received: make(chan string, 100),
	}
	for i, end := range to.ends {
		add := func(frames map[string][]byte, what string, tags []byte, source netip.Addr) {
			what = fmt.Sprintf("%s, %v", what, source)
			frames[what] = frame.Ethernet(f.to.HardwareAddr, f.from.HardwareAddr, tags, frame.Datagram(source, end.Addr, rawPort, what))
		}
		add(f.own, "no tag", nil, from.ends[i].Addr)
		add(f.own, "one tag", frame.Tag, from.ends[i].Addr)
		add(f.forged, "another pod's address", nil, as.ends[i].Addr)
		add(f.forged, "two tags", frame.TwoTags, from.ends[i].Addr)
		add(f.forged, "two tags of different kinds", frame.Stacked, from.ends[i].Addr)
	}
	f.arp = frame.Ethernet(f.to.HardwareAddr, f.from.HardwareAddr, nil, frame.ARP(f.from.HardwareAddr, f.asAddress, f.toAddress))
	if err := testhost.InNetwork(f.to.pid, func() error {
		server, err := frame.Receive(rawPort, f.received)
		if err != nil {
			return err
		}
		t.Cleanup(func() { server.Close() })
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return f
}

// try sends everything, and tells of what arrives, or is believed, and should not, or the other way round.
func (f *forger) try(t *testing.T, possible bool) {
	t.Helper()
	missing := map[string]bool{}
	send := func(from interfaceOf, frames ...[]byte) {
		t.Helper()
		if err := testhost.InNetwork(from.pid, func() (err error) {
			for _, content := range frames {
				err = errors.Join(err, frame.Send(from.Index, content))
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	for _, content := range f.own {
		send(f.from, content)
	}
	for what, content := range f.forged {
		send(f.from, content)
		if possible {
			missing[what] = true
		}
	}
	send(f.from, f.arp)
	// Of this one it is true, and it comes last.
	const end = "end"
	missing[end] = true
	send(f.as, frame.Ethernet(f.to.HardwareAddr, f.as.HardwareAddr, nil, frame.Datagram(f.asAddress, f.toAddress, rawPort, end)))
	for deadline := time.After(cluster.Patience); len(missing) > 0; {
		select {
		case text := <-f.received:
			if !missing[text] {
				t.Errorf("got through: %s", text)
			}
			delete(missing, text)
		case <-deadline:
			t.Fatalf("did not get through: %v", slices.Collect(maps.Keys(missing)))
		}
	}
	if got := f.believed(t); got != possible {
		t.Errorf("that another pod's address is the forger's is believed: %t", got)
	}
}

// believed tells whether the receiver takes the forger for the other pod, and has it forget that.
func (f *forger) believed(t *testing.T) (lied bool) {
	t.Helper()
	if err := testhost.InNetwork(f.to.pid, func() error {
		all, err := netlink.NeighList(f.to.Index, netlink.FAMILY_V4)
		for _, n := range all {
			if n.IP.Equal(f.asAddress.AsSlice()) && bytes.Equal(n.HardwareAddr, f.from.HardwareAddr) {
				lied = true
				err = errors.Join(err, netlink.NeighDel(&n))
			}
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return lied
}
