package testhost

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Reboot kills the host and boots it again: all processes are gone, the disk is kept.
func (h *Host) Reboot(ctx context.Context) error {
	if err := h.Kill(); err != nil {
		return err
	}
	return h.Boot(ctx)
}

// Freeze lets no process of the host do anything, as a machine that hangs: its kernel goes on
// acknowledging packets, and nothing answers. Commands on it wait for Thaw, whatever becomes of their context.
func (h *Host) Freeze() error { return h.setFrozen(true) }

// Thaw lets the host's processes go on.
func (h *Host) Thaw() error { return h.setFrozen(false) }

func (h *Host) setFrozen(frozen bool) error {
	for i, dir := range h.groups {
		file, value, state, want := "", "", "", ""
		switch g := h.network.layout[i]; {
		case g.kind == "cgroup2":
			file, value, state, want = "cgroup.freeze", "0", "cgroup.events", "frozen 0"
			if frozen {
				value, want = "1", "frozen 1"
			}
		case slices.Contains(strings.Split(g.options, ","), "freezer"):
			file, value, state, want = "freezer.state", "THAWED", "freezer.state", "THAWED"
			if frozen {
				value, want = "FROZEN", "FROZEN"
			}
		default:
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, file), []byte(value), 0o644); err != nil {
			return fmt.Errorf("freezing or thawing %s: %w", h.Name, err)
		}
		return awaitLine(filepath.Join(dir, state), want)
	}
	return errors.New("no cgroup hierarchy here can freeze processes")
}

// awaitLine waits until a file has a line, for at most ten seconds.
func awaitLine(file, line string) error {
	limit := time.After(10 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond) // a cgroup's file does not tell of changes
	defer tick.Stop()
	for {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if slices.Contains(strings.Split(string(text), "\n"), line) {
			return nil
		}
		select {
		case <-tick.C:
		case <-limit:
			return fmt.Errorf("%s is still %q, not %q", file, text, line)
		}
	}
}
