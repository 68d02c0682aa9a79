package tunnel

import (
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k0s.io/k0s/internal/pki"
)

// newTunnel is a tunnel whose attempts all fail.
func newTunnel(t *testing.T, lingering time.Duration) *Tunnel {
	t.Helper()
	ca, err := pki.EnsureCA(filepath.Join(t.TempDir(), "ca"), "ca", time.Hour, pki.Owner{UID: -1})
	if err != nil {
		t.Fatal(err)
	}
	tunnel, err := New(Options{CertFile: "none", CAFile: ca.Path(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	tunnel.lingering = lingering
	t.Cleanup(tunnel.Close)
	return tunnel
}

func (t *Tunnel) known() map[string]*server {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.servers)
}

func eventually(t *testing.T, met func() bool) {
	t.Helper()
	limit := time.Now().Add(10 * time.Second)
	for !met() {
		if time.Now().After(limit) {
			t.Fatal("it never came to be")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// The list of controllers changes: those that stay keep their connections, those that leave lose them.
func TestSetServers(t *testing.T) {
	tunnel := newTunnel(t, time.Millisecond)
	for _, step := range [][]string{{"127.0.0.1:1"}, {"127.0.0.1:1", "127.0.0.1:2"}, {"127.0.0.1:2", "127.0.0.1:3"}, {"127.0.0.1:1"}, nil} {
		before := tunnel.known()
		if err := tunnel.SetServers(step); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() bool { return slices.Equal(slices.Sorted(maps.Keys(tunnel.known())), step) })
		after := tunnel.known()
		for address, s := range before {
			switch {
			case after[address] != nil && after[address] != s:
				t.Errorf("%s is connected to anew", address)
			case after[address] == nil && s.ctx.Err() == nil:
				t.Errorf("%s has left, and is still connected to", address)
			}
		}
	}
	if err := tunnel.SetServers([]string{"127.0.0.1:1", "nowhere"}); err == nil || len(tunnel.known()) != 0 {
		t.Errorf("a bad list is taken: %v", err)
	}
}

// A controller that was away, and is back, was connected to all the time.
func TestLingering(t *testing.T) {
	tunnel := newTunnel(t, 200*time.Millisecond)
	var first *server
	for _, step := range [][]string{{"127.0.0.1:1"}, nil, {"127.0.0.1:1"}} {
		if err := tunnel.SetServers(step); err != nil {
			t.Fatal(err)
		}
		s := tunnel.known()["127.0.0.1:1"]
		if first == nil {
			first = s
		}
		if s == nil || s != first {
			t.Fatalf("after %q it is connected to anew, or not any more", step)
		}
	}
	time.Sleep(300 * time.Millisecond)
	if tunnel.known()["127.0.0.1:1"] != first {
		t.Error("it was given up although it is back")
	}
}

func TestTrouble(t *testing.T) {
	tunnel := newTunnel(t, time.Hour)
	if err := tunnel.SetServers([]string{"127.0.0.1:1"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool {
		return strings.Contains(tunnel.Trouble().Error(), "127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused")
	})
	tunnel.Close()
	if len(tunnel.known()) != 0 {
		t.Error("it is not closed")
	}
}
