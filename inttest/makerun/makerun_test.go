// Package makerun proves the first thing a newcomer does: `make run`, and then Ctrl-C.
package makerun

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"k0s.io/k0s/inttest/cluster"
	"k0s.io/k0s/inttest/testhost"
)

// The build must have been made: the host has no way out to fetch anything by. That is the
// point: from there on, nothing is fetched.
func TestMakeRun(t *testing.T) {
	root, err := cluster.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cluster.Binary(); err != nil {
		t.Fatal(err)
	}
	var hidden []string
	if strings.HasPrefix(root, os.TempDir()+"/") || strings.HasPrefix(root, "/var/lib/") {
		hidden = append(hidden, root) // a host's /tmp and /var/lib start empty
	}
	host := testhost.NewNetwork(t).Host(t, "makerun", hidden...)
	// A login shell's path and what Go needs of its user's environment.
	goTool := strings.TrimSpace(command(t, "go", "env", "GOROOT")) + "/bin"
	before := snapshot(t, host)
	run, err := host.Start("make-run", "env", "PATH="+goTool+":/usr/sbin:/usr/bin:/sbin:/bin",
		"GOPROXY=off", "GOCACHE="+strings.TrimSpace(command(t, "go", "env", "GOCACHE")),
		"GOMODCACHE="+strings.TrimSpace(command(t, "go", "env", "GOMODCACHE")),
		"make", "-C", root, "run")
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	says(t, ctx, run, "ready", "kubectl", "Ctrl-C")

	if err := run.Interrupt(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if err := run.Wait(ctx); err != nil && ctx.Err() != nil {
		t.Fatal(err)
	}
	t.Logf("`make run` ended %.1f s after Ctrl-C", time.Since(begin).Seconds())

	for _, thing := range before.Added(snapshot(t, host)) {
		kind, what, _ := strings.Cut(thing, " ")
		switch {
		case kind == "process" || kind == "mount":
			t.Errorf("left after Ctrl-C: %s", thing)
		case kind == "file" && strings.Contains(what, " S"):
			t.Errorf("a socket is left after Ctrl-C: %s", thing)
		}
	}
}

// says waits until a process has written all of the words.
func says(t *testing.T, ctx context.Context, p *testhost.Process, words ...string) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		text, err := os.ReadFile(p.Log)
		if err != nil {
			t.Fatal(err)
		}
		missing := ""
		for _, word := range words {
			if !strings.Contains(string(text), word) {
				missing = word
			}
		}
		if missing == "" {
			t.Logf("`make run` said:\n%s", text)
			return
		}
		select {
		case <-tick.C:
		case <-p.Gone():
			t.Fatalf("`make run` ended without having said %q:\n%s", missing, text)
		case <-ctx.Done():
			t.Fatalf("`make run` has not said %q:\n%s", missing, text)
		}
	}
}

func snapshot(t *testing.T, h *testhost.Host) testhost.Snapshot {
	t.Helper()
	s, err := h.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func command(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).Output()
	if err != nil {
		t.Fatal(fmt.Errorf("`%s`: %w", strings.Join(args, " "), err))
	}
	return string(out)
}
