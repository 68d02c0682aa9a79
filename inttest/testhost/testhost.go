// Package testhost makes hosts for tests out of namespaces: each has its own net, mnt, pid,
// uts, ipc and cgroup namespaces over an overlay of the machine's `/`, joined to the others
// of its network by a bridge. There is no route out of a network and no forwarding into
// one, so nothing can be fetched by mistake. A host is up in a fraction of a second.
//
// A host dies with the process that made it. What a killed process leaves on the machine
// (a bridge, empty cgroups, a directory) is taken back by the next Open.
//
// It needs root and the programs of Debian's iproute2 and util-linux.
package testhost

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// maxNetworks is how many networks a machine can have at a time: 10.77.0.0/24 … 10.77.99.0/24,
// apart from the default networks of pods (10.244.0.0/16) and services (10.96.0.0/12).
const maxNetworks = 100

// Network is a bridge, and the hosts on it.
type Network struct {
	// Gateway is the bridge's own address, where the machine is to be reached from the hosts.
	Gateway string

	families Families

	dir    string // state of this network, on real disk
	bridge string
	number int
	layout cgroups
	lock   *os.File

	mu    sync.Mutex
	hosts []*Host
	count int
	// routes lead to other networks.
	routes []route
}

// Families are those that hosts have addresses of.
type Families int

const (
	// IPv4 is the default.
	IPv4 Families = iota
	// DualStack is IPv4 and IPv6.
	DualStack
	// IPv6 is IPv6 alone.
	IPv6
)

// Use sets the families of the hosts that are booted from now on. Their IPv6 addresses are unique local ones,
// fd00:77:NETWORK::/64, NETWORK in hexadecimal, and there is no route out either.
func (n *Network) Use(ctx context.Context, families Families) error {
	n.families = families
	if families == IPv4 {
		return nil
	}
	if err := run(ctx, "ip", "addr", "replace", n.Gateway6()+"/64", "dev", n.bridge, "nodad"); err != nil {
		return err
	}
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+n.bridge+"/forwarding", []byte("0"), 0o644); err != nil {
		return fmt.Errorf("closing the way out of %s: %w", n.bridge, err)
	}
	return nil
}

// Gateway6 is the bridge's IPv6 address, as Gateway is the other one.
func (n *Network) Gateway6() string { return n.address6(1) }

func (n *Network) address6(host int) string {
	address := netip.MustParseAddr("fd00:77::").As16()
	address[5], address[15] = byte(n.number), byte(host)
	return netip.AddrFrom16(address).String()
}

// Open makes a network without hosts, having swept what dead processes left behind.
// The caller must Close it.
func Open(ctx context.Context) (*Network, error) {
	if err := checkMachine(); err != nil {
		return nil, err
	}
	if err := Sweep(ctx); err != nil {
		return nil, err
	}
	layout, err := readCgroups()
	if err != nil {
		return nil, err
	}
	for number := range maxNetworks {
		n := &Network{
			bridge:  fmt.Sprintf("k0st%d", number),
			number:  number,
			Gateway: fmt.Sprintf("10.77.%d.1", number),
			layout:  layout,
		}
		// Adding the link is what claims the number: only one can succeed.
		out, err := exec.CommandContext(ctx, "ip", "link", "add", n.bridge, "type", "bridge").CombinedOutput()
		if err != nil {
			if strings.Contains(string(out), "File exists") {
				continue
			}
			return nil, fmt.Errorf("adding the bridge %s: %w: %s", n.bridge, err, out)
		}
		if err := n.open(ctx); err != nil {
			return nil, errors.Join(err, n.Close())
		}
		return n, nil
	}
	return nil, fmt.Errorf("all %d networks for test hosts are in use: `ip link show type bridge` lists them", maxNetworks)
}

func (n *Network) open(ctx context.Context) error {
	if err := run(ctx, "ip", "link", "set", n.bridge, "alias", aliasOf(os.Getpid()), "up"); err != nil {
		return err
	}
	n.dir = filepath.Join(stateDir(), strconv.Itoa(os.Getpid()), n.bridge)
	if err := os.MkdirAll(n.dir, 0o755); err != nil {
		return fmt.Errorf("making the state directory: %w", err)
	}
	lock, err := takeLock(n.dir)
	if err != nil {
		return err
	}
	n.lock = lock
	if err := run(ctx, "ip", "addr", "add", n.Gateway+"/24", "dev", n.bridge); err != nil {
		return err
	}
	// A machine that forwards packets for others (Docker's does) must not forward ours.
	forwarding := "/proc/sys/net/ipv4/conf/" + n.bridge + "/forwarding"
	if err := os.WriteFile(forwarding, []byte("0"), 0o644); err != nil {
		return fmt.Errorf("closing the way out of %s: %w", n.bridge, err)
	}
	return nil
}

// Close ends all hosts and leaves nothing of the network on the machine.
func (n *Network) Close() error {
	n.mu.Lock()
	hosts := n.hosts
	n.hosts = nil
	n.mu.Unlock()
	var errs []error
	for _, h := range hosts {
		errs = append(errs, h.Stop())
	}
	errs = append(errs, run(context.Background(), "ip", "link", "del", n.bridge))
	if n.dir != "" {
		errs = append(errs, os.RemoveAll(n.dir))
		removeIfEmpty(filepath.Dir(n.dir))
		removeIfEmpty(stateDir())
	}
	if n.lock != nil {
		errs = append(errs, n.lock.Close())
	}
	return errors.Join(errs...)
}

// Hosts lists the hosts of the network that have not been stopped.
func (n *Network) Hosts() []*Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]*Host(nil), n.hosts...)
}

func (n *Network) forget(h *Host) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := range n.hosts {
		if n.hosts[i] == h {
			n.hosts = append(n.hosts[:i:i], n.hosts[i+1:]...)
			return
		}
	}
}

// checkMachine says what is missing here for test hosts.
func checkMachine() error {
	if os.Getuid() != 0 {
		return errors.New("test hosts are made of namespaces and need root: run the tests as root")
	}
	for program, pkg := range map[string]string{
		"ip": "iproute2", "nsenter": "util-linux", "unshare": "util-linux", "setsid": "util-linux",
		"mount": "mount", "pivot_root": "util-linux", "bash": "bash",
	} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("test hosts need the program %q: apt-get install %s", program, pkg)
		}
	}
	return nil
}

// run runs a short command of the machine; its error carries the command and its output.
func run(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("`%s`: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// stateDir has one directory per process that has networks, named by its pid.
func stateDir() string { return filepath.Join(os.TempDir(), "k0s-inttest") }

func aliasOf(pid int) string { return fmt.Sprintf("k0s-inttest-%d", pid) }

// takeLock marks a network's directory as in use for as long as this process lives.
// It fails when another process, or this one, holds it.
func takeLock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("locking the state directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", f.Name(), err), f.Close())
	}
	return f, nil
}

// Sweep takes back what processes that were killed left of their networks. Open does it too.
func Sweep(ctx context.Context) error {
	dirs, err := filepath.Glob(filepath.Join(stateDir(), "*", "k0st*"))
	if err != nil {
		return fmt.Errorf("looking for left-over test hosts: %w", err)
	}
	for _, dir := range dirs {
		lock, err := takeLock(dir)
		if err != nil {
			continue // its owner lives, or has just removed it
		}
		err = sweepNetwork(ctx, dir)
		if err := errors.Join(err, lock.Close()); err != nil {
			return fmt.Errorf("sweeping the left-over test network %s: %w", dir, err)
		}
	}
	return nil
}

func sweepNetwork(ctx context.Context, dir string) error {
	groups, err := filepath.Glob(filepath.Join(dir, "*", "cgroups"))
	if err != nil {
		return err
	}
	for _, file := range groups {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := thaw(strings.Fields(string(text))); err != nil {
			return err
		}
		for _, group := range strings.Fields(string(text)) {
			if err := endCgroup(ctx, group); err != nil {
				return err
			}
		}
	}
	cables, err := filepath.Glob("/sys/class/net/" + filepath.Base(dir) + "h*")
	if err != nil {
		return err
	}
	for _, cable := range cables { // the kernel removes them too, some time after their other ends
		_ = run(ctx, "ip", "link", "del", filepath.Base(cable))
	}
	bridge, owner := filepath.Base(dir), filepath.Base(filepath.Dir(dir))
	alias, err := os.ReadFile("/sys/class/net/" + bridge + "/ifalias")
	switch {
	case errors.Is(err, fs.ErrNotExist): // gone already
	case err != nil:
		return err
	case strings.TrimSpace(string(alias)) == "k0s-inttest-"+owner:
		if err := run(ctx, "ip", "link", "del", bridge); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	removeIfEmpty(filepath.Dir(dir))
	return nil
}

func removeIfEmpty(dir string) {
	_ = syscall.Rmdir(dir) // an error says that it is in use
}
