package testhost

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ProcessInfo is a process that runs on a host.
type ProcessInfo struct {
	// Pid and Parent are process ids on the machine. A parent that is not of the host is
	// whoever entered it.
	Pid, Parent int
	// State is the letter of ps: "Z" for a zombie.
	State string
	// Started is when it was started, in clock ticks since the machine's boot: with Pid it
	// names a process for good.
	Started uint64
	// CPU is the processor time it has used, in clock ticks (100 a second).
	CPU uint64
	// Args is its command line; for a kernel thread or a zombie, its short name alone.
	Args []string
	// UID is its real user id.
	UID int
}

// Name is the last element of argv[0], without a ":" or what follows it.
func (p ProcessInfo) Name() string {
	name, _, _ := strings.Cut(filepath.Base(p.Args[0]), ":")
	return name
}

// Processes lists the processes of the host and its containers, without its first one.
func (h *Host) Processes() ([]ProcessInfo, error) {
	first := h.Pid()
	if first == 0 {
		return nil, nil
	}
	// The parents of nested pid namespaces cannot be read off simply, but every process of
	// the host and its containers is in its cgroup or below.
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	group := filepath.Base(h.groups[0])
	var list []ProcessInfo
	for _, entry := range procs {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == first {
			continue
		}
		groups, err := os.ReadFile("/proc/" + entry.Name() + "/cgroup")
		if err != nil || !strings.Contains(string(groups), "/"+group) {
			continue // gone, or not of this host
		}
		p, err := readProcess(pid)
		if err != nil || (p.Parent == first && slices.Contains(reaper, p.Args[len(p.Args)-1])) || p.entering() {
			continue
		}
		list = append(list, p)
	}
	return list, nil
}

// reaper is what the last arguments of the first process and its sleep are (init.sh). While the latter is
// about to become sleep, its command line is empty, and its name stands for it.
var reaper = []string{"exec 3>&- </dev/null; while :; do sleep infinity & wait $!; done", "infinity", "sleep"}

// entering says whether this is a process of the machine that waits for one in the host.
func (p ProcessInfo) entering() bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid))
	if err != nil {
		return true // gone
	}
	for line := range strings.Lines(string(status)) {
		if ids, ok := strings.CutPrefix(line, "NSpid:"); ok {
			return len(strings.Fields(ids)) == 1
		}
	}
	return true
}

func readProcess(pid int) (ProcessInfo, error) {
	p := ProcessInfo{Pid: pid}
	dir := "/proc/" + strconv.Itoa(pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return p, err
	}
	open, end := strings.IndexByte(string(stat), '('), strings.LastIndexByte(string(stat), ')')
	fields := strings.Fields(string(stat[end+1:])) // from field 3 of proc(5) on
	if open < 0 || len(fields) < 20 {
		return p, fmt.Errorf("%s/stat cannot be understood: %q", dir, stat)
	}
	number := func(field int) uint64 {
		n, _ := strconv.ParseUint(fields[field-3], 10, 64)
		return n
	}
	p.State = fields[0]
	p.Parent = int(number(4))
	p.CPU = number(14) + number(15)
	p.Started = number(22)
	args, err := os.ReadFile(dir + "/cmdline")
	if err != nil {
		return p, err
	}
	if text := strings.TrimRight(string(args), "\x00"); text != "" {
		p.Args = strings.Split(text, "\x00")
	} else {
		p.Args = []string{string(stat[open+1 : end])}
	}
	if info, err := os.Stat(dir); err == nil {
		p.UID = uidOf(info)
	}
	return p, nil
}

// CPU is the processor time that all processes the host ever had have used.
func (h *Host) CPU() (time.Duration, error) {
	for i, dir := range h.groups {
		switch g := h.network.layout[i]; {
		case g.kind == "cgroup2":
			text, err := os.ReadFile(filepath.Join(dir, "cpu.stat"))
			if err != nil {
				return 0, err
			}
			var used int64
			if _, err := fmt.Sscanf(string(text), "usage_usec %d", &used); err != nil {
				return 0, fmt.Errorf("%s/cpu.stat: %w", dir, err)
			}
			return time.Duration(used) * time.Microsecond, nil
		case strings.Contains(g.options, "cpuacct"):
			text, err := os.ReadFile(filepath.Join(dir, "cpuacct.usage"))
			if err != nil {
				return 0, err
			}
			used, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
			return time.Duration(used), err
		}
	}
	return 0, fmt.Errorf("no cgroup hierarchy of %s counts processor time", h.Name)
}
