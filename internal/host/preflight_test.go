package host

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
)

func TestFreeAddress(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := taken.Addr().String()
	err = FreeAddress(context.Background(), address, "the test")
	if err == nil || !strings.Contains(err.Error(), "needed for the test, is in use by host.test") {
		t.Errorf("got %v", err)
	}
	taken.Close()
	if err := FreeAddress(context.Background(), address, "the test"); err != nil {
		t.Errorf("got %v", err)
	}
	if err := FreeAddress(context.Background(), "192.0.2.1:1", "the test"); err == nil || !strings.Contains(err.Error(), "cannot listen") {
		t.Errorf("not our address: got %v", err)
	}
}

func TestCanListen(t *testing.T) {
	for address, want := range map[string]bool{"127.0.0.1": true, "192.0.2.1": false} {
		if got := CanListen(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: got %t", address, got)
		}
	}
}

func TestFreeSpace(t *testing.T) {
	dir := t.TempDir()
	if err := FreeSpace(dir+"/not/there/yet", 1); err != nil {
		t.Error(err)
	}
	if err := FreeSpace(dir, 1<<60); err == nil || !strings.Contains(err.Error(), "MiB free") {
		t.Errorf("got %v", err)
	}
}

func TestNameservers(t *testing.T) {
	file := t.TempDir() + "/resolv.conf"
	if err := os.WriteFile(file, []byte("# nameserver 1.1.1.1\nsearch a\nnameserver 192.0.2.53\nnameserver\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(Nameservers(file), " "); got != "192.0.2.53" {
		t.Errorf("got %s", got)
	}
	if got := Nameservers(file + "x"); got != nil {
		t.Errorf("got %v", got)
	}
}
