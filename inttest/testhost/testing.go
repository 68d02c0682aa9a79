package testhost

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// NewNetwork makes a network for a test, and removes it and its hosts when the test is over.
// When the test has failed, the hosts' logs are kept in a directory that the output names
// ($K0S_INTTEST_LOGS, else k0s-inttest-logs in the directory for temporary files).
func NewNetwork(t testing.TB) *Network {
	t.Helper()
	n, err := Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			n.keepLogs(t)
		}
		if err := n.Close(); err != nil {
			t.Errorf("taking the test network down: %v", err)
		}
	})
	return n
}

// Host boots a host on the network for a test.
func (n *Network) Host(t testing.TB, name string, bind ...string) *Host {
	t.Helper()
	h, err := n.Boot(t.Context(), name, bind...)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// Router boots a host for a test that joins two networks.
func Router(t testing.TB, name string, a, b *Network) *Host {
	t.Helper()
	h, err := a.Join(t.Context(), name, b)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// Run runs a command on the host and returns its standard output. The test fails with the
// command and its output when it does not exit with 0.
func (h *Host) Run(t testing.TB, args ...string) string {
	t.Helper()
	out, err := h.Output(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (n *Network) keepLogs(t testing.TB) {
	base := os.Getenv("K0S_INTTEST_LOGS")
	if base == "" {
		base = filepath.Join(os.TempDir(), "k0s-inttest-logs")
	}
	dir := filepath.Join(base, fmt.Sprintf("%s-%d", strings.ReplaceAll(t.Name(), "/", "_"), os.Getpid()))
	for _, h := range n.Hosts() {
		if err := h.keepLogs(filepath.Join(dir, h.Name)); err != nil {
			t.Logf("keeping the logs of %s: %v", h.Name, err)
		}
	}
	t.Logf("the logs of the hosts are in %s", dir)
}

// keepLogs copies to a directory of the machine what tells what happened on the host.
func (h *Host) keepLogs(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	errs := []error{copyTree(filepath.Join(h.dir, "logs"), dir)}
	if h.Pid() != 0 {
		errs = append(errs, h.Thaw())
		for name, args := range map[string][]string{
			"ps.txt":     {"ps", "-eHo", "pid,ppid,user,stat,lstart,args"},
			"mounts.txt": {"cat", "/proc/self/mountinfo"},
			"net.txt":    {"sh", "-c", "ip addr; ip route show table all; ip rule"},
			"df.txt":     {"df"},
		} {
			out, err := h.Command(context.Background(), args...).CombinedOutput()
			errs = append(errs, err, os.WriteFile(filepath.Join(dir, name), out, 0o644))
		}
	}
	if log := filepath.Join(h.dir, "up/var/log"); exists(log) {
		errs = append(errs, copyTree(log, filepath.Join(dir, "var-log")))
	}
	return errors.Join(errs...)
}

func copyTree(from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	out, err := exec.Command("cp", "-a", from+"/.", to).CombinedOutput()
	if err != nil {
		return fmt.Errorf("copying %s: %w: %s", from, err, out)
	}
	return nil
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}
