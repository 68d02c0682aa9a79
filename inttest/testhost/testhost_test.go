package testhost

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What a host must be, so that Kubernetes runs on it and the machine does not notice.
func TestHost(t *testing.T) {
	n := NewNetwork(t)
	start := time.Now()
	a, b := n.Host(t, "a"), n.Host(t, "b")
	t.Logf("two hosts up in %v", time.Since(start))

	for _, test := range []struct {
		what string
		on   *Host
		cmd  string
		want string
	}{
		{"has a name", a, "hostname", "a"},
		{"has an address", a, "ip -o -4 addr show dev eth0 | tr -s ' ' | cut -d' ' -f4", a.IP + "/24"},
		{"has a default route", a, "ip route show default", "default via " + n.Gateway + " dev eth0"},
		{"reaches its network", a, "timeout 2 bash -c '</dev/tcp/" + b.IP + "/9' 2>&1 | grep -o -m1 refused | head -1", "refused"},
		{"reaches nothing else", a, "timeout 1 bash -c '</dev/tcp/198.51.100.1/9' || echo no answer", "no answer"},
		{"sees only its processes", a, "[ $(ls /proc | grep -c '^[0-9]') -lt 10 ] && echo few", "few"},
		{"has a cgroup root of its own", a, "cut -d: -f3 /proc/self/cgroup | grep -v '^/$' | sort -u", ""},
		{"has /var/lib empty, but for Debian's", a, "ls /var/lib", "dpkg"},
		{"has /var/lib on disk", a, "stat -f -c %T /var/lib", "ext2/ext3"},
		{"is writable", a, "echo a >/etc/k0s && mkdir -p /opt/x && cat /etc/k0s", "a"},
		{"shares no files", b, "cat /etc/k0s 2>&1 || true", "cat: /etc/k0s: No such file or directory"},
		{"may be an upper layer", a, "mkdir -p /var/lib/o/{l,u,w,m} && mount -t overlay o -o lowerdir=/var/lib/o/l,upperdir=/var/lib/o/u,workdir=/var/lib/o/w /var/lib/o/m && touch /var/lib/o/m/f && ls /var/lib/o/u", "f"},
		{"propagates mounts", a, "findmnt -no PROPAGATION /", "shared"},
		{"keeps kernel settings to itself", a, "echo 77 >/proc/sys/kernel/panic; cat /proc/sys/kernel/panic", "77"},
		{"has machine ids of their own", b, "cat /etc/machine-id", b.machine},
	} {
		got := strings.TrimSpace(test.on.Run(t, "bash", "-c", test.cmd))
		if got != test.want {
			t.Errorf("a host %s: `%s` said %q, not %q", test.what, test.cmd, got, test.want)
		}
	}
	if panics, _ := os.ReadFile("/proc/sys/kernel/panic"); string(panics) == "77\n" {
		t.Error("a host has changed a kernel setting of the machine")
	}
	if _, err := os.Stat("/etc/k0s"); err == nil {
		t.Error("a host has changed a file of the machine")
	}
}

func TestCommandErrorTells(t *testing.T) {
	h := NewNetwork(t).Host(t, "a")
	_, err := h.Output(t.Context(), "sh", "-c", "echo out; echo err >&2; exit 3")
	exit := new(exec.ExitError)
	if !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("the exit code 3 came back as %v", err)
	}
	for _, want := range []string{"a# sh -c", "out\n", "err\n", "exit status 3"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not contain %q: %v", want, err)
		}
	}
}

func TestCommandEndsWithContext(t *testing.T) {
	h := NewNetwork(t).Host(t, "a")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := h.Output(ctx, "sleep", "1000"); err == nil {
		t.Error("a command went on after its context's end")
	}
	for _, p := range processes(t, h) {
		if p.State != "Z" {
			t.Errorf("still running: %v", p.Args)
		}
	}
}

func TestFiles(t *testing.T) {
	h := NewNetwork(t).Host(t, "a")
	if err := h.WriteFile("/etc/new/dir/file", []byte("hello"), 0o640); err != nil {
		t.Fatal(err)
	}
	if got := h.Run(t, "stat", "-c", "%a %s", "/etc/new/dir/file"); got != "640 5\n" {
		t.Errorf("a written file is %q", got)
	}
	if err := h.Copy("/bin/true", "/var/lib/x/true"); err != nil {
		t.Fatal(err)
	}
	h.Run(t, "/var/lib/x/true")
	h.Run(t, "sh", "-c", "echo made inside >/run/there")
	if got, err := h.ReadFile("/run/there"); err != nil || string(got) != "made inside\n" {
		t.Errorf("read %q, %v", got, err)
	}
	h.Run(t, "ln", "-s", "/etc/hostname", "/run/link")
	if _, err := h.ReadFile("/run/link"); err == nil {
		t.Error("an absolute symbolic link led out of the host")
	}
}

func TestProcess(t *testing.T) {
	h := NewNetwork(t).Host(t, "a")
	p, err := h.Start("sleeper", "bash", "-c", "trap 'echo got it; exit 7' TERM; echo ready; while :; do sleep 0.05; done")
	if err != nil {
		t.Fatal(err)
	}
	for ready := ""; !strings.Contains(ready, "ready"); time.Sleep(5 * time.Millisecond) {
		text, _ := os.ReadFile(p.Log)
		ready = string(text)
	}
	if list := processes(t, h); !slices.ContainsFunc(list, func(i ProcessInfo) bool { return i.Pid == p.Pid && i.Name() == "bash" }) {
		t.Errorf("the process %d is not in %v", p.Pid, list)
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	exit := new(exec.ExitError)
	if err := p.Wait(ctx); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("the process ended with %v, not with its exit code 7", err)
	}
	if log, _ := os.ReadFile(p.Log); string(log) != "ready\ngot it\n" {
		t.Errorf("its log is %q", log)
	}
	if err := p.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("a signal to an ended process: %v", err)
	}
}

func TestOrphansAreReaped(t *testing.T) {
	h := NewNetwork(t).Host(t, "a")
	h.Run(t, "bash", "-c", "(sleep 0.2 &) ; (setsid sleep 0.1 &)")
	deadline := time.Now().Add(5 * time.Second)
	for len(processes(t, h)) > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("still there: %+v", processes(t, h))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestCPU(t *testing.T) {
	h := NewNetwork(t).Host(t, "a")
	before, err := h.CPU()
	if err != nil {
		t.Fatal(err)
	}
	h.Run(t, "sh", "-c", "sh -c 'ulimit -t 1; while :; do :; done' || true") // ended by the kernel
	after, err := h.CPU()
	if err != nil {
		t.Fatal(err)
	}
	if used := after - before; used < 800*time.Millisecond || used > 3*time.Second {
		t.Errorf("a second of work cost %v", used)
	}
}

func TestPowerFailure(t *testing.T) {
	h := NewNetwork(t).Host(t, "a")
	if _, err := h.Start("sleeper", "sleep", "1000"); err != nil {
		t.Fatal(err)
	}
	h.Run(t, "sh", "-c", "echo disk >/var/lib/f; echo etc >/etc/f; echo memory >/run/f; for c in /sys/fs/cgroup/*; do mkdir $c/left; done")
	if err := h.Kill(); err != nil {
		t.Fatal(err)
	}
	if list := processes(t, h); len(list) > 0 {
		t.Errorf("survived a power failure: %v", list)
	}
	if err := h.Boot(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := h.Run(t, "sh", "-c", "cat /var/lib/f /etc/f /run/f 2>/dev/null; find /sys/fs/cgroup -name left; hostname; ip -o link show up dev eth0 | grep -o LOWER_UP")
	if got != "disk\netc\na\nLOWER_UP\n" {
		t.Errorf("after a power failure: %q", got)
	}
}

func TestSnapshot(t *testing.T) {
	h := NewNetwork(t).Host(t, "a")
	before := snapshot(t, h)
	if again := snapshot(t, h); len(before.Added(again))+len(again.Added(before)) > 0 {
		t.Errorf("a host at rest changes: %v, %v", before.Added(again), again.Added(before))
	}
	h.Run(t, "bash", "-c", `set -e
		touch /etc/f /var/lib/f /run/f; rm /etc/hostname
		ip link add br9 type bridge; ip addr add 10.1.2.3/24 dev br9; ip link set br9 up; ip rule add fwmark 9 lookup 9
		mkdir /mnt/x; mount -t tmpfs x /mnt/x; for c in /sys/fs/cgroup/*; do mkdir $c/g; done; setsid sleep 1000 >/dev/null 2>&1 &`)
	after := snapshot(t, h)
	added := strings.Join(before.Added(after), "\n")
	for _, want := range []string{
		"file /etc/f ", "file /var/lib/f ", "file /run/f ", "file /etc/hostname D", "interface br9 bridge", "address br9 10.1.2.3/24",
		"route ipv4 table 254 10.1.2.0/24 ", "rule ipv4", "mount /mnt/x / tmpfs", "cgroup ", "process ",
	} {
		if !strings.Contains(added, want) {
			t.Errorf("the difference does not contain %q:\n%s", want, added)
		}
	}
}

func TestNothingIsLeft(t *testing.T) {
	before := machine(t)
	n, err := Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h := n.Host(t, "a")
	if _, err := h.Start("sleeper", "sleep", "1000"); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if after := machine(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// A killed test binary takes its hosts with it, and what stays is swept.
func TestSweepAfterCrash(t *testing.T) {
	if os.Getenv("TESTHOST_CRASH") != "" {
		h := NewNetwork(t).Host(t, "a")
		if _, err := h.Start("sleeper", "sleep", "1000"); err != nil {
			t.Fatal(err)
		}
		must(t, h.AddDisk(t.Context(), "/var/lib/k0s", 16))
		must(t, h.Freeze())
		os.Stdout.WriteString("up\n")
		select {}
	}
	before := machine(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestSweepAfterCrash$")
	cmd.Env = append(os.Environ(), "TESTHOST_CRASH=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	during := machine(t)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if during == before {
		t.Fatal("the other process made nothing that machine() sees")
	}
	if err := Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := machine(t); after != before {
		t.Errorf("before:\n%s\nafter the sweep:\n%s", before, after)
	}
}

// machine is what of hosts can be seen on the machine.
func machine(t *testing.T) string {
	t.Helper()
	var lines []string
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		lines = append(lines, "interface "+link.Name)
	}
	layout, err := readCgroups()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range layout {
		groups, _ := filepath.Glob(filepath.Join(h.parent, "k0s-inttest-*"))
		lines = append(lines, groups...)
	}
	dirs, _ := filepath.Glob(filepath.Join(stateDir(), "*", "*"))
	lines = append(lines, dirs...)
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(append(lines, string(mounts)), "\n")
}

func processes(t *testing.T, h *Host) []ProcessInfo {
	t.Helper()
	list, err := h.Processes()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func snapshot(t *testing.T, h *Host) Snapshot {
	t.Helper()
	s, err := h.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	return s
}
