package manifests

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// write puts text into file, making its directory.
func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// parsed makes a stack of YAML text.
func parsed(t *testing.T, name, text string) Stack {
	t.Helper()
	objects, warnings, err := Parse(name+".yaml", []byte(text))
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	return Stack{Name: name, Objects: objects}
}

// run runs d until the returned function is called, or the test ends.
func run(t *testing.T, d *Deployer) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Run does not end with its context")
		}
	}
	t.Cleanup(stop)
	return stop
}

// eventually fails the test if check still fails after a long while.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("still after 20 s: %v", err)
		case <-tick.C:
		}
	}
}
