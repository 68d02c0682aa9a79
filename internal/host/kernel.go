package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// CgroupVersion is 2 where cgroup v2 is mounted on /sys/fs/cgroup, else 1.
func CgroupVersion() (int, error) {
	var st unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &st); err != nil {
		return 0, fmt.Errorf("no cgroups are mounted on /sys/fs/cgroup: %w", err)
	}
	if st.Type == unix.CGROUP2_SUPER_MAGIC {
		return 2, nil
	}
	return 1, nil
}

// HasSystemd tells whether systemd is the init system (see sd_booted(3)).
func HasSystemd() bool {
	st, err := os.Stat("/run/systemd/system")
	return err == nil && st.IsDir()
}

// HasCapability tells whether this process has capability c (a number from linux/capability.h).
func HasCapability(c int) bool {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(status)) {
		var effective uint64
		if n, _ := fmt.Sscanf(line, "CapEff: %x", &effective); n == 1 {
			return effective&(1<<c) != 0
		}
	}
	return false
}

// ResolvConf is the resolver configuration that pods are to inherit: the real one behind
// systemd-resolved's stub, where that is in use. It is empty where there is none: then pods get none.
func ResolvConf() string {
	const plain, behindStub = "/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"
	if servers := Nameservers(plain); len(servers) == 1 && servers[0] == "127.0.0.53" {
		if _, err := os.Stat(behindStub); err == nil {
			return behindStub
		}
	}
	if _, err := os.Stat(plain); err != nil {
		return ""
	}
	return plain
}

// Nameservers lists the servers named in a resolv.conf; none when it cannot be read.
func Nameservers(path string) []string {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	var servers []string
	for line := range strings.Lines(string(content)) {
		if fields := strings.Fields(line); len(fields) >= 2 && fields[0] == "nameserver" {
			servers = append(servers, fields[1])
		}
	}
	return servers
}

// Sysctl is a kernel setting by its path below /proc/sys.
type Sysctl struct{ Path, Value string }

// NodeSysctls are the settings that a node's pod network relies on.
func NodeSysctls() []Sysctl {
	return []Sysctl{
		{"net/ipv4/ip_forward", "1"},
		{"net/bridge/bridge-nf-call-iptables", "1"},
		{"net/bridge/bridge-nf-call-ip6tables", "1"},
		// Else a VLAN tag with the number 0, which means none, leads around the packet filter.
		{"net/bridge/bridge-nf-filter-vlan-tagged", "1"},
	}
}

// IPv6Sysctls are those that pods with IPv6 addresses need, too, in this order: a host that forwards ignores
// router advertisements, and forgets the default routes it has of them, unless told otherwise. It is told
// for the interfaces that have such routes; not for all, for on the pods' anybody could advertise.
// The error says, among others, that this host has IPv6 turned off.
func IPv6Sysctls() ([]Sysctl, error) {
	for _, scope := range []string{"all", "default"} {
		off := Sysctl{"net/ipv6/conf/" + scope + "/disable_ipv6", "0"}
		switch value, err := off.Get(); {
		case errors.Is(err, fs.ErrNotExist):
			return nil, errors.New("this kernel has no IPv6, which pods of this cluster need: boot it without ipv6.disable=1")
		case err != nil:
			return nil, err
		case value != off.Value:
			return nil, fmt.Errorf("this host has IPv6 turned off, which pods of this cluster need: sysctl -w net.ipv6.conf.%s.disable_ipv6=0", scope)
		}
	}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V6, &netlink.Route{Protocol: unix.RTPROT_RA}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return nil, fmt.Errorf("listing routes of router advertisements: %w", err)
	}
	var settings []Sysctl
	for _, route := range routes {
		link, err := netlink.LinkByIndex(route.LinkIndex)
		if err != nil {
			continue // gone, with its routes
		}
		// 0 here is a program's that does without the kernel, as systemd-networkd.
		accept := Sysctl{"net/ipv6/conf/" + link.Attrs().Name + "/accept_ra", "2"}
		if old, err := accept.Get(); err == nil && old == "1" && !slices.Contains(settings, accept) {
			settings = append(settings, accept)
		}
	}
	return append(settings, Sysctl{"net/ipv6/conf/all/forwarding", "1"}), nil
}

// Get reads the present value. A setting that this kernel does not have gives fs.ErrNotExist.
func (s Sysctl) Get() (string, error) {
	content, err := os.ReadFile(filepath.Join("/proc/sys", s.Path))
	return strings.TrimSpace(string(content)), err
}

// Set puts the value in force.
func (s Sysctl) Set() error {
	if err := os.WriteFile(filepath.Join("/proc/sys", s.Path), []byte(s.Value), 0o644); err != nil {
		return fmt.Errorf("setting %s to %s: %w", s.Path, s.Value, err)
	}
	return nil
}

// LoadModule has modprobe load a kernel module, unless probe, a path that exists when it is there, does.
func LoadModule(name, probe string, modprobe func(name string) error) error {
	if _, err := os.Stat(probe); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return modprobe(name)
}
