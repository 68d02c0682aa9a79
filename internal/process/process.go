// Package process supervises one child process: starts it as its own user and process group,
// restarts it with back-off when it ends, relays its log, and takes it down within a limit.
package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"k0s.io/k0s/internal/component"
)

// Self is the running k0s executable. Children are started from it even after the file was
// replaced by an upgrade, so that a restart never mixes versions.
const Self = "/proc/self/exe"

// DefaultStopTimeout is how long a child has between SIGTERM and SIGKILL.
const DefaultStopTimeout = 5 * time.Second

// killTimeout is how long a child has to vanish after SIGKILL. Only one that hangs in the kernel
// takes longer.
const killTimeout = 5 * time.Second

// Spec says how to run a child.
type Spec struct {
	// Name is argv[0]: of an applet, when Path is Self.
	Name string
	// Path of the executable. Default: Self.
	Path string
	Args []string
	// Env adds to the environment of k0s.
	Env []string
	// Dir is the working directory. Default: that of k0s.
	Dir string
	// UID and GID to run as. Zero is root.
	UID, GID uint32
	// Capabilities that an unprivileged child is to have (ambient).
	Capabilities []uintptr
	// StopTimeout is the time from SIGTERM to SIGKILL. Default: DefaultStopTimeout.
	StopTimeout time.Duration
	// PIDFile remembers the child, so that a successor of this supervisor finds one that
	// outlived it. Required.
	PIDFile string
	// Log receives the child's output, line by line, with the severity found in it.
	Log *slog.Logger
	// Redact takes out of a line of the output what nobody is to read. It may be nil.
	Redact func(line string) string
	// Patient children may end as often as they like before they are ready: what they wait for is
	// elsewhere.
	Patient bool
}

// Process is a supervised child.
type Process struct {
	spec Spec

	mu       sync.Mutex
	pid      int
	restarts int
	since    time.Time
	lastExit string
	lastLog  []string // the child's last words

	cancel  context.CancelFunc // asks the supervision to end the child with SIGTERM, and itself
	kill    context.CancelFunc // asks it to use SIGKILL
	killed  <-chan struct{}    // closed when it was asked to
	stopped chan struct{}      // closed when the supervision has ended
}

// Start starts the child and its supervision, which goes on until Stop. The error tells that the
// child could not be started at all; one that starts and ends at once is restarted instead.
func Start(spec Spec) (*Process, error) {
	if spec.Path == "" {
		spec.Path = Self
	}
	if spec.StopTimeout == 0 {
		spec.StopTimeout = DefaultStopTimeout
	}
	if err := endPredecessor(spec.PIDFile); err != nil {
		return nil, err
	}
	p, ctx := newProcess(spec)
	first := make(chan error, 1)
	go p.supervise(ctx, first)
	if err := <-first; err != nil {
		<-p.stopped
		return nil, err
	}
	return p, nil
}

// newProcess returns a child that is not running yet, and the context of its supervision.
func newProcess(spec Spec) (*Process, context.Context) {
	ctx, cancel := context.WithCancel(context.Background())
	killCtx, kill := context.WithCancel(context.Background())
	return &Process{spec: spec, cancel: cancel, kill: kill, killed: killCtx.Done(), stopped: make(chan struct{})}, ctx
}

// Info returns the process' present state.
func (p *Process) Info() component.Process {
	p.mu.Lock()
	defer p.mu.Unlock()
	return component.Process{PID: p.pid, Restarts: p.restarts, Since: p.since, LastExit: p.lastExit}
}

// hopeless is how often a child may end before it was ever ready.
const hopeless = 5

// Broken returns an error, with the child's last words, when it has ended so often that waiting for
// it is in vain.
func (p *Process) Broken() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.spec.Patient || p.restarts < hopeless {
		return nil
	}
	return p.ended()
}

// Ended returns an error, with the child's last words, when it has ended by itself before it was ready.
func (p *Process) Ended() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.restarts == 0 {
		return nil
	}
	return p.ended()
}

func (p *Process) ended() error {
	return fmt.Errorf("%s has ended %d times without becoming ready, the last time with %q; its last words: %s",
		p.spec.Name, p.restarts, p.lastExit, strings.Join(p.lastLog, " | "))
}

// whatItSays adds to why a child is not ready the last that it said itself.
func (p *Process) whatItSays(err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.lastLog) == 0 {
		return err
	}
	return fmt.Errorf("%w; %s said: %s", err, p.spec.Name, p.lastLog[len(p.lastLog)-1])
}

// lastWords is how many lines of a child's log are kept for errors.
const lastWords = 3

func (p *Process) remember(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.lastLog) == lastWords {
		p.lastLog = p.lastLog[1:]
	}
	p.lastLog = append(p.lastLog, line)
}

// Stop ends the child: SIGTERM, then SIGKILL to its process group after the stop timeout or when
// ctx ends. It returns when the child is gone, and gives up on one that outlives SIGKILL for 5 s.
func (p *Process) Stop(ctx context.Context) error {
	p.cancel()
	limit := time.NewTimer(p.spec.StopTimeout)
	defer limit.Stop()
	select {
	case <-p.stopped:
		return nil
	case <-limit.C:
	case <-ctx.Done():
	}
	p.kill()
	limit.Reset(killTimeout)
	select {
	case <-p.stopped:
		return fmt.Errorf("%s did not end within %v of SIGTERM and was killed", p.spec.Name, p.spec.StopTimeout)
	case <-limit.C:
		pid := p.Info().PID
		return fmt.Errorf("%s (process %d) is still there %v after SIGKILL: it may hang in the kernel; `cat /proc/%d/stack` tells where",
			p.spec.Name, pid, killTimeout, pid)
	}
}

func (p *Process) signal(sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pid != 0 {
		_ = syscall.Kill(-p.pid, sig)
	}
}

func (p *Process) supervise(ctx context.Context, first chan<- error) {
	// The kernel sends the parent-death signal when the *thread* that started the child ends, so
	// this thread must live as long as the supervision.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(p.stopped)
	defer os.Remove(p.spec.PIDFile)
	var backoff component.Backoff
	impossible := false // to start it at all
	for {
		begin := time.Now()
		err := p.runOnce(ctx, func(err error) {
			if first != nil {
				first <- err
				first, impossible = nil, err != nil
			}
		})
		if impossible || ctx.Err() != nil {
			return
		}
		wait := backoff.Next(time.Since(begin))
		p.mu.Lock()
		p.restarts++
		p.lastExit = err.Error()
		p.mu.Unlock()
		p.spec.Log.Warn("Child has ended, starting it again", "reason", err, "after", wait)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// runOnce runs the child until it ends, calling started once it runs or could not be run. When ctx
// ends the child is sent SIGTERM, and SIGKILL when killed says so. The error says how the child ended.
func (p *Process) runOnce(ctx context.Context, started func(error)) error {
	cmd := exec.Command(p.spec.Path, p.spec.Args...)
	cmd.Args[0] = p.spec.Name
	cmd.Dir = p.spec.Dir
	cmd.Env = append(os.Environ(), p.spec.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, AmbientCaps: p.spec.Capabilities}
	if p.spec.UID != 0 || p.spec.GID != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: p.spec.UID, Gid: p.spec.GID}
	}
	out, in, err := os.Pipe()
	if err != nil {
		err = fmt.Errorf("starting %s: %w", p.spec.Name, err)
		started(err)
		return err
	}
	cmd.Stdout, cmd.Stderr = in, in
	err = cmd.Start()
	in.Close()
	if err != nil {
		out.Close()
		err = fmt.Errorf("starting %s: %w", p.spec.Name, err)
		started(err)
		return err
	}
	relayed := make(chan struct{})
	go func() { defer close(relayed); Relay(out, p.spec.Log, p.spec.Redact, p.remember); out.Close() }()
	p.mu.Lock()
	p.pid, p.since = cmd.Process.Pid, time.Now()
	p.mu.Unlock()
	if err := writePIDFile(p.spec.PIDFile, cmd.Process.Pid); err != nil {
		p.spec.Log.Warn("Cannot remember the child's process id", "error", err)
	}
	started(nil)

	ended := make(chan struct{})
	// Signals are sent from here alone: so they reach also a child that is asked to end while it starts.
	go func() {
		for _, when := range []struct {
			asked <-chan struct{}
			send  syscall.Signal
		}{{ctx.Done(), syscall.SIGTERM}, {p.killed, syscall.SIGKILL}} {
			select {
			case <-when.asked:
				p.signal(when.send)
			case <-ended:
				return
			}
		}
	}()
	err = cmd.Wait()
	p.mu.Lock()
	p.pid = 0
	p.mu.Unlock()
	close(ended)
	// Grandchildren may hold the pipe open for as long as they live; do not wait for them long.
	select {
	case <-relayed:
	case <-time.After(200 * time.Millisecond):
	}
	if err == nil {
		err = errors.New("exit status 0")
	}
	return err
}

// writePIDFile records pid and the start time that tells it from a later process of the same pid.
func writePIDFile(path string, pid int) error {
	start, err := startTime(pid)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, fmt.Appendf(nil, "%d %s\n", pid, start), 0o644)
}

// endPredecessor kills the process that pidFile names, if it still is that process, and waits for
// its end: two copies of a component never run at once.
func endPredecessor(pidFile string) error {
	content, err := os.ReadFile(pidFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking for a process left by an earlier k0s: %w", err)
	}
	var pid int
	var start string
	if _, err := fmt.Sscanf(string(content), "%d %s", &pid, &start); err != nil {
		return os.Remove(pidFile) // half-written: its process died with its supervisor
	}
	if now, err := startTime(pid); err != nil || now != start {
		return os.Remove(pidFile)
	}
	process, err := os.FindProcess(pid)
	if err == nil {
		if err := process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("killing process %d left by an earlier k0s: %w", pid, err)
		}
	}
	if err := waitGone(pid); err != nil {
		return err
	}
	return os.Remove(pidFile)
}

// startTime is field 22 of /proc/PID/stat, see proc(5). A process has one until it is reaped: its first
// thread may be a zombie while others, on their way out, still hold its sockets.
func startTime(pid int) (string, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // the name in parentheses may hold spaces
	fields := strings.Fields(rest)
	if len(fields) < 20 {
		return "", fs.ErrNotExist
	}
	return fields[19], nil
}
