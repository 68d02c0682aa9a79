package testhost

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Snapshot is all that a program can leave on a host, one thing a line: files, mounts,
// network interfaces and their addresses, routes, packet filter rules, cgroups, processes.
type Snapshot map[string]bool

// Snapshot takes down what is on the host now.
func (h *Host) Snapshot() (Snapshot, error) {
	s := Snapshot{}
	err := errors.Join(s.files(h), s.mounts(h), s.network(h), s.cgroups(h), s.processes(h))
	if err != nil {
		return nil, fmt.Errorf("taking down the state of %s: %w", h.Name, err)
	}
	return s, nil
}

// Added lists, sorted, what is in the later snapshot and not in this one.
func (s Snapshot) Added(later Snapshot) []string {
	var added []string
	for thing := range later {
		if !s[thing] {
			added = append(added, thing)
		}
	}
	slices.Sort(added)
	return added
}

// Lines lists all of it, sorted.
func (s Snapshot) Lines() []string { return slices.Sorted(maps.Keys(s)) }

// files takes down what the host has in its own layers, which is all it has written. What is
// there but no different from the machine's own is left out: a directory is copied up as
// soon as something below it changes.
func (s Snapshot) files(h *Host) error {
	var errs []error
	for at, dir := range map[string]string{
		"/":        filepath.Join(h.dir, "up"),
		"/var/lib": filepath.Join(h.dir, "var"),
		"/tmp":     filepath.Join(h.dir, "tmp"),
		"/run":     fmt.Sprintf("/proc/%d/root/run", h.Pid()),
		"/dev/shm": fmt.Sprintf("/proc/%d/root/dev/shm", h.Pid()),
	} {
		errs = append(errs, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			name, _ := filepath.Rel(dir, path)
			if at == "/" && sameAsBelow(path, filepath.Join("/", name)) {
				return nil
			}
			s[fmt.Sprintf("file %s %s", filepath.Join(at, name), d.Type())] = true
			return nil
		}))
	}
	return errors.Join(errs...)
}

// sameAsBelow says whether what an overlay has at upper shows nothing else than lower.
func sameAsBelow(upper, lower string) bool {
	a, errA := os.Lstat(upper)
	b, errB := os.Lstat(lower)
	if errA != nil || errB != nil || a.Mode() != b.Mode() {
		return false
	}
	if a.IsDir() {
		return true
	}
	if !a.Mode().IsRegular() || a.Size() != b.Size() {
		return false
	}
	contentA, errA := os.ReadFile(upper)
	contentB, errB := os.ReadFile(lower)
	return errA == nil && errB == nil && bytes.Equal(contentA, contentB)
}

func (s Snapshot) mounts(h *Host) error {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", h.Pid()))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		before, after, _ := strings.Cut(line, " - ")
		fields := strings.Fields(before)
		s[fmt.Sprintf("mount %s %s %s", fields[4], fields[3], strings.Fields(after)[0])] = true
	}
	return nil
}

func (s Snapshot) network(h *Host) error {
	ns, err := netns.GetFromPid(h.Pid())
	if err != nil {
		return err
	}
	defer ns.Close()
	handle, err := netlink.NewHandleAt(ns, syscall.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer handle.Close()
	links, err := handle.LinkList()
	if err != nil {
		return err
	}
	names := map[int]string{}
	for _, link := range links {
		names[link.Attrs().Index] = link.Attrs().Name
		s[fmt.Sprintf("interface %s %s", link.Attrs().Name, link.Type())] = true
		addrs, err := handle.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, addr := range addrs {
			s[fmt.Sprintf("address %s %s", link.Attrs().Name, addr.IPNet)] = true
		}
	}
	for family, name := range map[int]string{netlink.FAMILY_V4: "ipv4", netlink.FAMILY_V6: "ipv6"} {
		routes, err := handle.RouteListFiltered(family, &netlink.Route{}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return err
		}
		for _, r := range routes {
			s[fmt.Sprintf("route %s table %d %s via %s dev %s", name, r.Table, r.Dst, r.Gw, names[r.LinkIndex])] = true
		}
		rules, err := handle.RuleList(family)
		if err != nil {
			return err
		}
		for _, r := range rules {
			s["rule "+name+" "+r.String()] = true
		}
	}
	filter, err := nftables.New(nftables.WithNetNSFd(int(ns)))
	if err != nil {
		return err
	}
	tables, err := filter.ListTables()
	if err != nil {
		return err
	}
	chains, err := filter.ListChains()
	if err != nil {
		return err
	}
	for _, t := range tables {
		s[fmt.Sprintf("nftables family %d table %s", t.Family, t.Name)] = true
	}
	for _, c := range chains {
		s[fmt.Sprintf("nftables family %d table %s chain %s", c.Table.Family, c.Table.Name, c.Name)] = true
	}
	// The older iptables: a table is listed here once something has used it.
	for _, file := range []string{"ip_tables_names", "ip6_tables_names"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", h.Pid(), file))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, table := range strings.Fields(string(text)) {
			s["iptables "+file+" "+table] = true
		}
	}
	return nil
}

func (s Snapshot) cgroups(h *Host) error {
	for i, dir := range h.groups {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				name, _ := filepath.Rel(dir, path)
				s[fmt.Sprintf("cgroup %s %s", h.network.layout[i].name, name)] = true
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s Snapshot) processes(h *Host) error {
	list, err := h.Processes()
	for _, p := range list {
		s["process "+strconv.Itoa(p.Pid)+" "+strings.Join(p.Args, " ")] = true
	}
	return err
}

func uidOf(info fs.FileInfo) int {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(stat.Uid)
	}
	return -1
}
