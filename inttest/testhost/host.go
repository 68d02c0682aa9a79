package testhost

import (
	"bufio"
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

//go:embed init.sh
var initScript []byte

// Host is one test host. Its file system is a private copy of the machine's, except that
// /var/lib, /tmp and /run start empty.
type Host struct {
	Name string
	// IP is the host's address: IPv4 unless its network has IPv6 alone. IPv6 is that of the other family, if
	// the network has both.
	IP, IPv6 string

	network *Network
	number  int
	dir     string   // up, work, root, var, tmp, logs
	groups  []string // its cgroups, on the machine
	veth    string
	machine string // its machine id
	bind    []string
	disks   []*disk

	mu   sync.Mutex
	init *exec.Cmd // nil while the host is off
	gone chan struct{}
	cut  bool // the cable is out
}

// Boot adds a host to the network and starts it. bind names directories of the machine
// (their real paths) that the host is to see, and can change, as they are.
func (n *Network) Boot(ctx context.Context, name string, bind ...string) (*Host, error) {
	n.mu.Lock()
	n.count++
	number := n.count
	n.mu.Unlock()

	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		return nil, err
	}
	h := &Host{
		Name:    name,
		IP:      fmt.Sprintf("10.77.%d.%d", n.number, 9+number),
		network: n,
		number:  number,
		dir:     filepath.Join(n.dir, name),
		groups:  n.layout.dirs(fmt.Sprintf("k0s-inttest-%d-%s-%s", os.Getpid(), n.bridge, name)),
		veth:    fmt.Sprintf("%sh%d", n.bridge, number),
		machine: hex.EncodeToString(id),
		bind:    bind,
	}
	switch six := n.address6(9 + number); n.families {
	case DualStack:
		h.IPv6 = six
	case IPv6:
		h.IP = six
	}
	if err := os.Mkdir(h.dir, 0o755); err != nil {
		return nil, fmt.Errorf("making the test host %s: %w", name, err)
	}
	for dir, mode := range map[string]os.FileMode{
		"up": 0o755, "work": 0o755, "root": 0o755, "var": 0o755, "logs": 0o755, "tmp": 0o777 | os.ModeSticky,
	} {
		if err := os.Mkdir(filepath.Join(h.dir, dir), 0o755); err != nil {
			return nil, fmt.Errorf("making the test host %s: %w", name, err)
		}
		if err := os.Chmod(filepath.Join(h.dir, dir), mode); err != nil {
			return nil, fmt.Errorf("making the test host %s: %w", name, err)
		}
	}
	if err := os.WriteFile(filepath.Join(h.dir, "init.sh"), initScript, 0o755); err != nil {
		return nil, err
	}
	// Written before they are made, so that a sweep knows of all of them.
	if err := os.WriteFile(filepath.Join(h.dir, "cgroups"), []byte(strings.Join(h.groups, "\n")), 0o644); err != nil {
		return nil, err
	}
	n.mu.Lock()
	n.hosts = append(n.hosts, h)
	n.mu.Unlock()
	if err := h.Boot(ctx); err != nil {
		return nil, errors.Join(err, h.Stop())
	}
	return h, nil
}

// Boot starts a host that was killed again, with the disk it had.
func (h *Host) Boot(ctx context.Context) error {
	if err := h.boot(ctx); err != nil {
		return err
	}
	if err := h.addRoutes(ctx); err != nil {
		return errors.Join(err, h.Kill())
	}
	for _, d := range h.disks {
		if err := h.mountDisk(ctx, d); err != nil {
			return errors.Join(err, h.Kill())
		}
	}
	return nil
}

func (h *Host) boot(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.init != nil {
		return fmt.Errorf("the test host %s is on already", h.Name)
	}
	if err := h.network.layout.make(h.groups); err != nil {
		return err
	}
	var join []string
	for _, dir := range h.groups {
		join = append(join, filepath.Join(dir, "cgroup.procs"))
	}
	upRead, upWrite, err := os.Pipe()
	if err != nil {
		return err
	}
	defer upRead.Close()
	log, err := os.Create(filepath.Join(h.dir, "logs", "boot.log"))
	if err != nil {
		return errors.Join(err, upWrite.Close())
	}
	defer log.Close()
	cmd := exec.Command("bash", filepath.Join(h.dir, "init.sh"), "join", h.dir, h.Name, h.machine)
	cmd.Env = append(environment(),
		"K0ST_JOIN="+strings.Join(join, "\n"),
		"K0ST_ADDRESSES="+h.addresses(),
		"K0ST_CGROUP="+h.network.layout.mounts(),
		"K0ST_BIND="+strings.Join(h.bind, "\n"))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{upWrite}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID |
			syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Setsid:    true,
		Pdeathsig: syscall.SIGKILL, // the host, and with it all its processes, dies with us
	}
	plug, err := cmd.StdinPipe()
	if err != nil {
		return errors.Join(err, upWrite.Close())
	}
	err = cmd.Start()
	upWrite.Close()
	if err != nil {
		return fmt.Errorf("starting the test host %s: %w", h.Name, err)
	}
	h.init, h.gone = cmd, make(chan struct{})
	go func(gone chan struct{}) {
		_ = cmd.Wait() // that it was killed is how it ends
		close(gone)
	}(h.gone)

	pid := strconv.Itoa(cmd.Process.Pid)
	err = run(ctx, "ip", "link", "add", h.veth, "type", "veth",
		"peer", "name", "eth0", "address", fmt.Sprintf("02:00:0a:4d:%02x:%02x", h.network.number, h.number), "netns", pid)
	if err == nil {
		err = run(ctx, "ip", "link", "set", h.veth, "master", h.network.bridge)
	}
	if err == nil {
		err = h.plug(ctx)
	}
	if err := errors.Join(err, plug.Close()); err != nil {
		return errors.Join(err, h.kill())
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	if line, _ := io.ReadAll(upRead); string(line) != "up\n" {
		out, _ := os.ReadFile(log.Name())
		return errors.Join(fmt.Errorf("the test host %s did not come up: %s", h.Name, out), ctx.Err(), h.kill())
	}
	return nil
}

// addresses are one "ADDRESS/LEN GATEWAY" a line.
func (h *Host) addresses() string {
	var lines []string
	for _, ip := range []string{h.IP, h.IPv6} {
		switch {
		case strings.Contains(ip, ":"):
			lines = append(lines, ip+"/64 "+h.network.Gateway6())
		case ip != "":
			lines = append(lines, ip+"/24 "+h.network.Gateway)
		}
	}
	return strings.Join(lines, "\n")
}

// Kill ends all processes of the host at once, as a power failure would. Its disk stays:
// Boot starts it again.
func (h *Host) Kill() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.kill()
}

func (h *Host) kill() error {
	if h.init == nil {
		return nil
	}
	// The kernel kills all others of a pid namespace with its first process, and only then
	// lets that one be waited for.
	errs := []error{thaw(h.groups)}
	_ = h.init.Process.Kill()
	<-h.gone
	h.init = nil
	// The cable goes with its other end, but the kernel removes that some time later.
	if err := run(context.Background(), "ip", "link", "del", h.veth); err != nil && exists("/sys/class/net/"+h.veth) {
		errs = append(errs, err)
	}
	for _, dir := range h.groups {
		errs = append(errs, endCgroup(context.Background(), dir))
	}
	return errors.Join(append(errs, h.awaitDisks())...)
}

// Stop ends the host and removes its disk.
func (h *Host) Stop() error {
	err := h.Kill()
	h.network.forget(h)
	return errors.Join(err, os.RemoveAll(h.dir))
}

// Pid is the process id, on the machine, of the host's first process. It is 0 while the
// host is off.
func (h *Host) Pid() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.init == nil {
		return 0
	}
	return h.init.Process.Pid
}

// environment is what commands on a host get of it.
func environment() []string {
	return []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "USER=root", "LANG=C.UTF-8", "TERM=dumb",
	}
}

// enter is a shell command line that becomes its arguments, on the host.
func (h *Host) enter() string {
	var s strings.Builder
	for _, file := range h.network.layout.entries(h.groups) {
		fmt.Fprintf(&s, "echo 0 >'%s' && ", file)
	}
	fmt.Fprintf(&s, `exec nsenter --target %d --mount --uts --ipc --net --pid --cgroup --root --wd -- "$@"`, h.Pid())
	return s.String()
}

// Command is a command to run on the host, in all its namespaces and cgroups, with a
// minimal environment; set its streams and run it as any other. When ctx ends, its process
// group is killed.
func (h *Host) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "sh", append([]string{"-c", h.enter(), "sh"}, args...)...)
	cmd.Env = environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// Output runs a command on the host and returns what it wrote to its standard output. Its
// error carries the command and all of its output.
func (h *Host) Output(ctx context.Context, args ...string) (string, error) {
	cmd := h.Command(ctx, args...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), &CommandError{Host: h.Name, Args: args, Err: err, Stdout: stdout.String(), Stderr: stderr.String()}
	}
	return stdout.String(), nil
}

// CommandError is a command that failed on a host.
type CommandError struct {
	Host           string
	Args           []string
	Err            error
	Stdout, Stderr string
}

func (e *CommandError) Error() string {
	return fmt.Sprintf("%s# %s: %v\n%s%s", e.Host, strings.Join(e.Args, " "), e.Err, e.Stdout, e.Stderr)
}

func (e *CommandError) Unwrap() error { return e.Err }

// Process is a long-running command on a host.
type Process struct {
	// Pid is its process id on the machine.
	Pid int
	// Log is the file, on the machine, that both its output streams go to.
	Log string

	args []string
	err  error
	gone chan struct{}
}

// Start starts a command on the host in a session of its own, logging to logs/NAME.log of
// the host's directory (what an earlier one of that name wrote stays above).
func (h *Host) Start(name string, args ...string) (*Process, error) {
	p := &Process{args: args, Log: filepath.Join(h.dir, "logs", name+".log"), gone: make(chan struct{})}
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	// nsenter has to fork to enter a pid namespace; the command is its only child, and
	// exists once it has written to the pipe.
	startedRead, startedWrite, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer startedRead.Close()
	cmd := h.Command(context.Background(),
		append([]string{"setsid", "sh", "-c", `echo >&3; exec 3>&-; exec "$@"`, "sh"}, args...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{startedWrite}
	err = cmd.Start()
	startedWrite.Close()
	if err != nil {
		return nil, fmt.Errorf("%s# %s: %w", h.Name, strings.Join(args, " "), err)
	}
	_, started := bufio.NewReader(startedRead).ReadByte()
	outer := strconv.Itoa(cmd.Process.Pid)
	children, err := os.ReadFile("/proc/" + outer + "/task/" + outer + "/children")
	if started != nil || err != nil {
		err = errors.Join(started, err, cmd.Wait())
		return nil, fmt.Errorf("%s# %s: did not start: %w", h.Name, strings.Join(args, " "), err)
	}
	p.Pid, _ = strconv.Atoi(strings.TrimSpace(string(children)))
	go func() {
		p.err = cmd.Wait()
		close(p.gone)
	}()
	return p, nil
}

// Signal sends a signal to the process.
func (p *Process) Signal(sig syscall.Signal) error {
	return p.signal(p.Pid, sig)
}

// Interrupt sends a signal to the process and all others of its process group, as a
// terminal does at Ctrl-C (SIGINT).
func (p *Process) Interrupt(sig syscall.Signal) error {
	return p.signal(-p.Pid, sig)
}

func (p *Process) signal(pid int, sig syscall.Signal) error {
	if p.Pid == 0 { // ended before it could be asked for its pid
		return os.ErrProcessDone
	}
	select {
	case <-p.gone:
		return os.ErrProcessDone
	default:
		return syscall.Kill(pid, sig)
	}
}

// Gone is closed when the process has ended.
func (p *Process) Gone() <-chan struct{} { return p.gone }

// Wait waits for the process's end and returns how it ended: nil for exit code 0.
// When ctx ends first, that is the error, and the process goes on.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.gone:
		return p.err
	case <-ctx.Done():
		return fmt.Errorf("waiting for `%s` to end: %w", strings.Join(p.args, " "), ctx.Err())
	}
}
