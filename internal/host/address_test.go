package host

import (
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

func TestPodInterfaces(t *testing.T) {
	for name, want := range map[string]bool{"kube-bridge": true, "kube-overlay": true, "kube-overlay6": true, "veth1234": true, "eth0": false, "bond0": false} {
		if got := isPodInterface(name); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestWatchAddresses(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	own, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	defer netns.Set(before) //nolint:errcheck // the next test would fail
	changed := make(chan struct{}, 100)
	failed, stop, err := WatchAddresses(func() { changed <- struct{}{} })
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	seen := func() {
		t.Helper()
		select {
		case <-changed:
		case err := <-failed:
			t.Fatal(err)
		case <-time.After(10 * time.Second):
			t.Fatal("nothing was told")
		}
	}
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "far"}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"192.0.2.1/24", "2001:db8::1/64"} {
		own, err := netlink.ParseAddr(address)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.AddrAdd(link, own); err != nil {
			t.Fatal(err)
		}
		seen()
		if all, err := AllAddresses(); err != nil || len(all) != 1 || all[0].String() != own.IP.String() {
			t.Errorf("all addresses are %v, %v", all, err)
		}
		if err := netlink.AddrDel(link, own); err != nil {
			t.Fatal(err)
		}
		seen()
	}
	local := syscall.NetlinkMessage{Data: []byte{unix.AF_INET6, 64, 0, unix.RT_SCOPE_LINK, 0, 0, 0, 0}}
	if isGlobal(local) {
		t.Error("a link-local address of a pod's interface counts")
	}
}
