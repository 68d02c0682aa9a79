// Command onestep runs a program and kills it one step further than the last time: right before the first change of
// the file system that it has not been killed at before.
//
//	onestep DIRECTORY PROGRAM ARGUMENT…
//
// In the directory, the file steps lists the steps that it was killed at, one a line, and the file unsynced what
// the program had written and not synced when it was killed, which a power cut may leave empty. Children of
// the program are let be.
package main

import (
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// killed is the exit status of a program that was killed at a step.
const killed = 137

func main() {
	log.SetFlags(0)
	if len(os.Args) < 3 {
		log.Fatal("usage: onestep DIRECTORY PROGRAM ARGUMENT…")
	}
	code, err := run(os.Args[1], os.Args[2:])
	if err != nil {
		log.Fatal("onestep: ", err)
	}
	os.Exit(code)
}

func run(dir string, args []string) (int, error) {
	steps, unsynced := filepath.Join(dir, "steps"), filepath.Join(dir, "unsynced")
	content, err := os.ReadFile(steps)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	runtime.LockOSThread() // the kernel takes one thread for the tracer
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	t := &tracer{pid: cmd.Process.Pid, known: strings.Split(string(content), "\n"), unsynced: map[string]bool{}, opening: map[int]string{}}
	terminate := make(chan os.Signal, 1)
	signal.Notify(terminate, syscall.SIGTERM)
	go func() {
		for range terminate {
			_ = syscall.Kill(t.pid, syscall.SIGTERM)
		}
	}()
	step, status, err := t.trace()
	if err != nil || step == "" {
		return status.ExitStatus(), err
	}
	log.Print("onestep: killed before ", step)
	var lost strings.Builder
	for file := range t.unsynced {
		fmt.Fprintln(&lost, file)
	}
	if err := os.WriteFile(unsynced, []byte(lost.String()), 0o600); err != nil {
		return 0, err
	}
	f, err := os.OpenFile(steps, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	_, err = fmt.Fprintln(f, step)
	return killed, errors.Join(err, f.Close())
}

// tracer follows all threads of a program.
type tracer struct {
	pid      int
	known    []string
	unsynced map[string]bool
	opening  map[int]string // what a thread is about to open for writing
}

// trace follows the program to its end. step is the change that it was killed before; empty if it ended by itself.
func (t *tracer) trace() (step string, status syscall.WaitStatus, err error) {
	if _, err := syscall.Wait4(t.pid, &status, syscall.WALL, nil); err != nil {
		return "", status, err
	}
	// That follows threads. Children are cloned in another way.
	if err := syscall.PtraceSetOptions(t.pid, syscall.PTRACE_O_TRACECLONE|syscall.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_EXITKILL); err != nil {
		return "", status, err
	}
	tid, deliver := t.pid, 0
	for {
		if err := syscall.PtraceSyscall(tid, deliver); err != nil && !errors.Is(err, syscall.ESRCH) {
			return "", status, err
		}
		for {
			tid, err = syscall.Wait4(-1, &status, syscall.WALL, nil)
			if err != nil {
				return "", status, err
			}
			if status.Stopped() {
				break
			}
			if tid == t.pid {
				return step, status, nil
			}
		}
		deliver = 0
		switch signal := status.StopSignal(); signal {
		case syscall.SIGTRAP | 0x80: // a system call
			if step == "" {
				step = t.see(tid)
				if step != "" {
					_ = syscall.Kill(t.pid, syscall.SIGKILL)
				}
			}
		case syscall.SIGTRAP, syscall.SIGSTOP: // a new thread, and its first stop
		default:
			deliver = int(signal)
		}
	}
}

// see looks at a thread that enters or leaves a system call, and tells which new step that is, if any.
func (t *tracer) see(tid int) string {
	var c call
	if _, _, errno := syscall.Syscall6(syscall.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(tid), unsafe.Sizeof(c), uintptr(unsafe.Pointer(&c)), 0, 0); errno != 0 {
		return "" // it was killed
	}
	if c.op == unix.PTRACE_SYSCALL_INFO_EXIT {
		if path := t.opening[tid]; path != "" && int64(c.nr) >= 0 {
			t.unsynced[path] = true
		}
		delete(t.opening, tid)
		return ""
	}
	name, path := t.change(tid, c)
	if name == "" || !filepath.IsAbs(path) || strings.HasPrefix(path, "/dev/") || strings.HasPrefix(path, "/proc/self/") {
		return ""
	}
	step := path
	if name == "remove" {
		step = trees.ReplaceAllString(step, "$1*")
	}
	step = name + " " + numbers.ReplaceAllString(helpers.ReplaceAllString(step, "$1*"), "#")
	// The state of a file that nobody reads yet is all the same.
	if name == "sync" || name == "write" && strings.HasPrefix(filepath.Base(path), ".") || slices.Contains(t.known, step) {
		return ""
	}
	return step
}

var (
	// helpers are hundreds of files, all written in one way.
	helpers = regexp.MustCompile(`(/bin/(?:.*/)?)[^/]*$`)
	// trees are removed with all that is in them.
	trees = regexp.MustCompile(`(/(?:bin|containerd|kubelet|pki)/).*$`)
	// numbers are what differs in a name from time to time.
	numbers = regexp.MustCompile(`[0-9a-f]{8,}[0-9a-f-]*|[0-9]+`)
)

// call is the kernel's struct ptrace_syscall_info, see ptrace(2).
type call struct {
	op   uint8
	_    [7]byte
	_, _ uint64
	nr   uint64 // what it returns, when it is left
	args [6]uint64
	_    uint64
}

// change tells what a call changes, if that is a file, and keeps count of what is written.
func (t *tracer) change(tid int, c call) (name, path string) {
	at := func(i int) string { return t.path(tid, c.args[i], c.args[i+1]) }
	fd := func() string { return t.descriptor(c.args[0]) }
	switch c.nr {
	case unix.SYS_OPENAT:
		if c.args[2]&(unix.O_WRONLY|unix.O_RDWR|unix.O_CREAT|unix.O_TRUNC) == 0 {
			return "", ""
		}
		if c.args[2]&unix.O_APPEND == 0 { // what was in a file that is added to stays
			t.opening[tid] = at(0)
		}
		return "open", at(0)
	case unix.SYS_WRITE, unix.SYS_PWRITE64:
		if c.args[0] <= 2 { // its log
			return "", ""
		}
		return "write", fd()
	case unix.SYS_FTRUNCATE:
		return "truncate", fd()
	case unix.SYS_FSYNC:
		delete(t.unsynced, fd())
		return "sync", fd()
	case unix.SYS_RENAMEAT:
		from, to := at(0), at(2)
		delete(t.unsynced, to)
		if t.unsynced[from] {
			delete(t.unsynced, from)
			t.unsynced[to] = true
		}
		return "rename", to
	case unix.SYS_UNLINKAT:
		delete(t.unsynced, at(0))
		if _, err := os.Lstat(fmt.Sprintf("/proc/%d/root%s", t.pid, at(0))); err != nil {
			return "", ""
		}
		return "remove", at(0)
	case unix.SYS_MKDIRAT:
		return "mkdir", at(0)
	case unix.SYS_SYMLINKAT:
		return "symlink", at(1)
	case unix.SYS_FCHMODAT:
		return "chmod", at(0)
	case unix.SYS_MOUNT:
		return "mount", t.path(tid, 0, c.args[1])
	case unix.SYS_UMOUNT2:
		return "unmount", t.path(tid, 0, c.args[0])
	}
	return "", ""
}

// descriptor is the path of an open file; something else where it is none.
func (t *tracer) descriptor(fd uint64) string {
	path, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", t.pid, int32(fd)))
	return path
}

// path is what a string in the program's memory names, from an open directory on.
func (t *tracer) path(tid int, dir, address uint64) string {
	name := t.text(tid, address)
	if filepath.IsAbs(name) {
		return filepath.Clean(name)
	}
	return filepath.Join(t.descriptor(dir), name)
}

// text reads a string, which ends with a zero byte, from the program's memory.
func (t *tracer) text(tid int, address uint64) string {
	var all []byte
	for len(all) < unix.PathMax {
		// Not beyond the end of a page: the next one may not be there.
		buf := make([]byte, 4096-address%4096)
		local := []unix.Iovec{{Base: &buf[0]}}
		local[0].SetLen(len(buf))
		n, err := unix.ProcessVMReadv(tid, local,
			[]unix.RemoteIovec{{Base: uintptr(address), Len: len(buf)}}, 0)
		if err != nil {
			break
		}
		if end := slices.Index(buf[:n], 0); end >= 0 {
			return string(append(all, buf[:end]...))
		}
		all, address = append(all, buf[:n]...), address+uint64(n)
	}
	return string(all)
}
