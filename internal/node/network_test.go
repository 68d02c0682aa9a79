package node

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/host"
)

// The health of the network is that of what runs: not of what was there before a change of settings.
func TestTroubleOfTheNetwork(t *testing.T) {
	var network Network
	failing := component.Background("part", func(context.Context) error { return errors.New("it is broken") }, slog.New(slog.DiscardHandler))
	old := network.heard(failing)
	trouble := network.troubles(component.Set{old})
	if err := trouble(); err != nil {
		t.Errorf("what has not been started: %v", err)
	}
	if err := old.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for trouble() == nil {
		runtime.Gosched() // until it has failed
	}
	if err := old.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := trouble(); err != nil {
		t.Errorf("what was stopped: %v", err)
	}
	now := errors.New("the new one is, too")
	next := func(err error) component.Component {
		nothing := func(context.Context) error { return nil }
		return network.heard(component.Component{Name: "part", Start: nothing, Stop: nothing, Trouble: func() error { return err }})
	}
	if err := next(now).Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	next(nil) // of a change that does not touch it: it is not started
	if err := trouble(); !errors.Is(err, now) {
		t.Errorf("what has taken its place: %v", err)
	}
}

// Without policies, nothing is left of what the CNI plugins said: it would be believed later.
func TestNoPolicies(t *testing.T) {
	runtime.LockOSThread() // and never unlocked: the network goes with the thread
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	o := Options{Layout: host.Layout{RunDir: t.TempDir()}}
	claim := filepath.Join(policyDir(o), "c.json")
	if err := os.MkdirAll(filepath.Dir(claim), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(claim, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (&networkPolicies{Options: o}).none().Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(claim); !os.IsNotExist(err) {
		t.Errorf("the addresses of a pod are still there: %v", err)
	}
}
