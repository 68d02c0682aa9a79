package instance

import (
	"os"
	"strings"
	"testing"

	"k0s.io/k0s/internal/host"
)

func TestOnlyOne(t *testing.T) {
	l := host.Layout{DataDir: t.TempDir(), RunDir: t.TempDir()}
	lock, err := Acquire(l, RuntimeSpec{Role: "controller", StatusSocket: "/run/s.sock"})
	if err != nil {
		t.Fatal(err)
	}
	for name, other := range map[string]host.Layout{
		"same data dir": {DataDir: l.DataDir, RunDir: t.TempDir()},
		"same run dir":  {DataDir: t.TempDir(), RunDir: l.RunDir},
	} {
		if _, err := Acquire(other, RuntimeSpec{Role: "controller"}); err == nil || !strings.Contains(err.Error(), "is using it: stop that one first") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if spec, err := Running(l); err != nil || spec == nil || spec.PID != os.Getpid() || spec.DataDir != l.DataDir {
		t.Errorf("got %+v, %v", spec, err)
	}
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
	if spec, err := Running(l); err != nil || spec != nil {
		t.Errorf("after the release: %+v, %v", spec, err)
	}
	if lock, err = Acquire(l, RuntimeSpec{Role: "controller"}); err != nil {
		t.Fatal(err)
	}
	if err := lock.Release(); err != nil {
		t.Error(err)
	}
}
