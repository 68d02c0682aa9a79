package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"k0s.io/k0s/inttest/cluster"
	"k0s.io/k0s/inttest/testhost"
)

// budgets are those of the design, and the peer's figures on the same host where it has some.
// The order is the report's.
var budgets = []struct {
	what, unit   string
	budget, peer float64 // 0 for none; that of a ratio is a least value
}{
	{"size of the executable", "MiB", 0, 0},
	{"size as zstd -19", "MiB", 80, 0},
	{"cold: API ready", "s", 4, 8.0},
	{"cold: node Ready", "s", 6, 25.7},
	{"cold: first pod running", "s", 7, 28.4},
	{"cold: system pods Ready", "s", 15, 59.4},
	{"cold: CPU until first pod running", "s", 9, 26.4},
	{"warm: API ready", "s", 0, 0},
	{"warm: node Ready", "s", 0, 0},
	{"warm: first pod running", "s", 0, 0},
	{"warm: system pods Ready", "s", 0, 0},
	{"warm: CPU until first pod running", "s", 0, 0},
	{"idle: PSS", "MiB", 420, 1045},
	{"idle: private memory", "MiB", 300, 467},
	{"idle: CPU", "% of a core", 4, 11},
	{"disk used by the data directory", "MiB", 500, 1087},
	{"SIGTERM to gone", "s", 2, 0},
	{"k0s version", "s", 0.15, 0},
	{"k0s status", "s", 0.15, 0},
	{"k0s token create", "s", 0.15, 0},
	{"worker alone, idle: PSS", "MiB", 150, 0},
	{"worker alone, idle: private memory", "MiB", 0, 0},
	{"worker alone, idle: CPU", "% of a core", 0, 0},
	{"network: throughput, hosts", "Gbit/s", 0, 0},
	{"network: throughput, pods", "Gbit/s", 0, 0},
	{"network: throughput, pods to hosts", ratio, 0.95, 0},
	{"network: round trip, hosts", "µs", 0, 0},
	{"network: round trip, pods", "µs", 0, 0},
	{"network: round trip, pods to hosts", ratio, 0.95, 0},
	{"network: packet, 10 pods", "µs", 0, 0},
	{"network: packet, 1000 pods", "µs", 0, 0},
	{"network: packet, 10 pods to 1000", ratio, 0.95, 0},
}

// ratio is the unit of a figure of which more is better.
const ratio = "×"

// Report is what was measured.
type Report struct {
	CPUs   int    `json:"cpus"`
	Kernel string `json:"kernel"`
	// Load is the machine's load average over a minute before the first run: what others did
	// meanwhile is in all the times.
	Load      float64    `json:"load"`
	Figures   []*Figure  `json:"figures"`
	Processes []*Process `json:"processes"` // of the node
	Worker    []*Process `json:"worker"`    // of the worker alone

	named map[string]*Figure
}

// Figure is one measured thing: the median of its samples.
type Figure struct {
	Name    string    `json:"name"`
	Unit    string    `json:"unit"`
	Value   float64   `json:"value"`
	Samples []float64 `json:"samples"`
	Budget  float64   `json:"budget,omitempty"`
	Met     bool      `json:"met"`
	Peer    float64   `json:"peer,omitempty"`
}

// Process is what all idle processes of one name use together.
type Process struct {
	Name    string  `json:"name"`
	Count   int     `json:"count"`
	PSS     float64 `json:"pssMiB"`
	Private float64 `json:"privateMiB"`
	CPU     float64 `json:"cpuSeconds"`
}

func newReport() *Report {
	r := &Report{CPUs: runtime.NumCPU(), named: map[string]*Figure{}}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		r.Kernel = strings.TrimSpace(string(release))
	}
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		_, _ = fmt.Sscan(string(load), &r.Load)
	}
	for _, b := range budgets {
		f := &Figure{Name: b.what, Unit: b.unit, Budget: b.budget, Peer: b.peer}
		r.Figures = append(r.Figures, f)
		r.named[b.what] = f
	}
	return r
}

// add adds a sample to one of the figures.
func (r *Report) add(what string, sample float64) {
	f := r.named[what]
	f.Samples = append(f.Samples, sample)
	f.Value = median(f.Samples)
	f.Met = f.Budget == 0 || f.Value <= f.Budget && f.Unit != ratio || f.Value >= f.Budget && f.Unit == ratio
	fmt.Fprintf(os.Stderr, "  %s: %.2f %s\n", what, sample, f.Unit)
}

// sizes are those of the executable.
func (r *Report) sizes(ctx context.Context, compress bool) error {
	file, err := cluster.Binary()
	if err != nil {
		return err
	}
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	r.add("size of the executable", float64(info.Size())/(1<<20))
	if !compress {
		return nil
	}
	cmd := exec.CommandContext(ctx, "zstd", "-19", "-T0", "--stdout", "--quiet", file)
	var size counter
	cmd.Stdout, cmd.Stderr = &size, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("compressing %s: %w (apt-get install zstd, or -zstd=false)", file, err)
	}
	r.add("size as zstd -19", float64(size)/(1<<20))
	return nil
}

// counter counts what is written to it.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// commands times short commands, without what it takes to enter the host.
func (r *Report) commands(ctx context.Context, h *testhost.Host, commands ...string) error {
	timed := func(args ...string) (float64, error) {
		var samples []float64
		for range 9 {
			begin := time.Now()
			if _, err := h.Output(ctx, args...); err != nil {
				return 0, err
			}
			samples = append(samples, time.Since(begin).Seconds())
		}
		return median(samples), nil
	}
	enter, err := timed("true")
	if err != nil {
		return err
	}
	for _, command := range commands {
		took, err := timed(append([]string{cluster.Program}, strings.Fields(command)...)...)
		if err != nil {
			return err
		}
		r.add("k0s "+command, max(0, took-enter))
	}
	return nil
}

// memory adds up what the host's processes use, in MiB.
func memory(h *testhost.Host) (by []*Process, pss, private float64, err error) {
	list, err := h.Processes()
	if err != nil {
		return nil, 0, 0, err
	}
	for _, p := range list {
		u, err := memoryOf(p.Pid)
		if err != nil {
			continue // it has ended
		}
		named := process(&by, p.Name())
		named.Count++
		named.PSS += u.pss
		named.Private += u.private
		pss += u.pss
		private += u.private
	}
	slices.SortFunc(by, func(a, b *Process) int { return cmp.Compare(b.PSS, a.PSS) })
	return by, pss, private, nil
}

type usage struct{ pss, private float64 } // MiB

func memoryOf(pid int) (usage, error) {
	file, err := os.Open("/proc/" + strconv.Itoa(pid) + "/smaps_rollup")
	if err != nil {
		return usage{}, err
	}
	defer file.Close()
	var u usage
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) != 3 {
			continue
		}
		kib, _ := strconv.ParseFloat(fields[1], 64)
		switch fields[0] {
		case "Pss:":
			u.pss += kib / 1024
		case "Private_Clean:", "Private_Dirty:":
			u.private += kib / 1024
		}
	}
	return u, lines.Err()
}

// idleCPU counts the processor time that the host uses while nothing is asked of it, in percent of a core; and that of
// each of its processes in list.
func idleCPU(ctx context.Context, h *testhost.Host, during time.Duration, list *[]*Process) (float64, error) {
	ticks := func() (map[int]testhost.ProcessInfo, error) {
		all, err := h.Processes()
		byPid := map[int]testhost.ProcessInfo{}
		for _, p := range all {
			byPid[p.Pid] = p
		}
		return byPid, err
	}
	before, err := ticks()
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	all, err := h.CPU()
	if err != nil {
		return 0, err
	}
	if err := wait(ctx, during); err != nil {
		return 0, err
	}
	used, err := h.CPU()
	if err != nil {
		return 0, err
	}
	after, err := ticks()
	if err != nil {
		return 0, err
	}
	const perSecond = 100 // USER_HZ, the same on every Linux
	for pid, p := range after {
		if was := before[pid]; was.Started == p.Started {
			process(list, p.Name()).CPU += float64(p.CPU-was.CPU) / perSecond
		}
	}
	return 100 * (used - all).Seconds() / time.Since(begin).Seconds(), nil
}

// process finds a process in list, and puts it there if it is missing.
func process(list *[]*Process, name string) *Process {
	for _, p := range *list {
		if p.Name == name {
			return p
		}
	}
	p := &Process{Name: name}
	*list = append(*list, p)
	return p
}

func (r *Report) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if r.Load > 0.5 {
		fmt.Fprintf(w, "The machine was busy before the first run (load %.1f): times are too long.\n", r.Load)
	}
	fmt.Fprintf(t, "WHAT\tMEDIAN\tUNIT\tBUDGET\t\tUPSTREAM\tSAMPLES\n")
	for _, f := range r.Figures {
		if len(f.Samples) == 0 {
			continue
		}
		budget, met, peer := "", "", ""
		if f.Budget > 0 {
			budget, met = number(f.Budget), "ok"
			if !f.Met {
				met = fmt.Sprintf("MISSED by %.0f %%", 100*math.Abs(f.Value/f.Budget-1))
			}
		}
		if f.Peer > 0 {
			peer = number(f.Peer)
		}
		var samples []string
		for _, s := range f.Samples {
			samples = append(samples, number(s))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", f.Name, number(f.Value), f.Unit, budget, met, peer, strings.Join(samples, " "))
	}
	for _, table := range []struct {
		title string
		list  []*Process
	}{{"IDLE PROCESS", r.Processes}, {"WORKER'S PROCESS", r.Worker}} {
		if len(table.list) == 0 {
			continue
		}
		fmt.Fprintf(t, "\n%s\tCOUNT\tPSS MiB\tPRIVATE MiB\tCPU s\n", table.title)
		for _, p := range table.list {
			fmt.Fprintf(t, "%s\t%d\t%.1f\t%.1f\t%.2f\n", p.Name, p.Count, p.PSS, p.Private, p.CPU)
		}
	}
	return t.Flush()
}

func number(v float64) string {
	switch {
	case v < 1:
		return fmt.Sprintf("%.3f", v)
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}
