// Package instance makes sure that one k0s runs on a host at a time, and tells the other commands
// about it.
package instance

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"sigs.k8s.io/yaml"

	"k0s.io/k0s/internal/file"
	"k0s.io/k0s/internal/host"
)

// RuntimeConfig is what a running k0s says of itself in <run-dir>/k0s.yaml.
type RuntimeConfig struct {
	APIVersion string      `json:"apiVersion"`
	Kind       string      `json:"kind"`
	Spec       RuntimeSpec `json:"spec"`
}

// RuntimeSpec is the part of RuntimeConfig that says something.
type RuntimeSpec struct {
	DataDir      string `json:"dataDir"`
	KubeletRoot  string `json:"kubeletRootDir"`
	StatusSocket string `json:"statusSocket"`
	PID          int    `json:"pid"`
	Role         string `json:"role"`
	// APIURL is how nodes and users reach the API.
	APIURL string `json:"apiURL,omitempty"`
	// JoinURL is how other controllers reach the join API; empty where no controller can join.
	JoinURL string `json:"joinURL,omitempty"`
	// SingleNode: nobody can join at all.
	SingleNode bool `json:"singleNode,omitempty"`
}

// lockName is the file in run and data directory that is locked. It holds the pid of who locked it.
const lockName = "k0s.yaml.lock"

// LockFile is the file that is locked in run and data directory.
func LockFile(dir string) string { return filepath.Join(dir, lockName) }

// Lock is held by a running k0s.
type Lock struct {
	files []*os.File
	// file is the runtime configuration; empty when none was written.
	file string
}

// Acquire locks run and data directory for this process, and says so, and what else about says, in the
// runtime configuration. A data directory that is not k0s' own is refused.
func Acquire(l host.Layout, about RuntimeSpec) (*Lock, error) {
	if err := CheckDataDir(l); err != nil {
		return nil, err
	}
	lock, err := LockOut(l.DataDir, l.RunDir)
	if err != nil {
		return nil, err
	}
	about.DataDir, about.KubeletRoot, about.PID = l.DataDir, l.KubeletRoot, os.Getpid()
	content, err := yaml.Marshal(RuntimeConfig{APIVersion: "k0s.k0sproject.io/v1beta1", Kind: "RuntimeConfig", Spec: about})
	if err == nil {
		lock.file = l.Run("k0s.yaml")
		err = file.Write(lock.file, content, 0o600, file.Options{}) // whole: others read it
	}
	if err != nil {
		return nil, errors.Join(err, lock.Release())
	}
	return lock, nil
}

// LockOut locks run and data directory, made if missing, so that no k0s runs on them until the Release.
func LockOut(dirs ...string) (*Lock, error) {
	lock := &Lock{}
	for _, dir := range dirs {
		if err := host.MakeDirUnlessThere(dir, 0o755); err != nil {
			return nil, errors.Join(err, lock.Release())
		}
		f, err := lockFile(LockFile(dir))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", dir, err), lock.Release())
		}
		lock.files = append(lock.files, f)
	}
	return lock, nil
}

// Release gives the directories up, which may be gone by now.
func (lock *Lock) Release() error {
	var errs []error
	if lock.file != "" {
		errs = append(errs, removeFile(lock.file))
	}
	for _, f := range lock.files {
		errs = append(errs, removeFile(f.Name()), f.Close())
	}
	lock.files, lock.file = nil, ""
	return errors.Join(errs...)
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// lockFile locks path and writes our pid to it. The lock goes with the process. It is one of those that
// can be asked after without being taken (see F_OFD_GETLK in fcntl(2)): `k0s status` must not be in
// the way of a start.
func lockFile(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		if err := take(f); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		// The one before us may have removed the file between our opening and locking it.
		if !isFile(f, path) {
			f.Close()
			continue
		}
		err = f.Truncate(0)
		if err == nil {
			_, err = fmt.Fprintln(f, os.Getpid())
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("writing %s: %w", path, err), f.Close())
		}
		return f, nil
	}
}

// lastGasp is how long the lock of a dead k0s may last: it was killed between making a child and the
// child's becoming another program, which gives up what it has inherited.
const lastGasp = 2 * time.Second

// take locks an open file.
func take(f *os.File) error {
	deadline := time.Now().Add(lastGasp)
	for {
		err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, wholeFile(unix.F_WRLCK))
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) {
			return fmt.Errorf("locking %s: %w", f.Name(), err)
		}
		content := make([]byte, 20)
		n, _ := f.ReadAt(content, 0)
		holder := strings.TrimSpace(string(content[:n]))
		if isAlive(holder) || time.Now().After(deadline) {
			return fmt.Errorf("another k0s (process %s) is using it: stop that one first", holder)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// isAlive tells whether there is a process with this number that has not ended.
func isAlive(pid string) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	// The state follows the name, which may hold anything: see proc_pid_stat(5).
	_, state, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " ")
	return !strings.HasPrefix(state, "Z") && !strings.HasPrefix(state, "X")
}

// isFile tells whether f is what path names.
func isFile(f *os.File, path string) bool {
	opened, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(path)
	return err == nil && os.SameFile(opened, named)
}

func wholeFile(lock int16) *unix.Flock_t {
	return &unix.Flock_t{Type: lock, Whence: io.SeekStart}
}

// Running returns what the k0s that runs on this host says of itself; nil when none runs.
func Running(l host.Layout) (*RuntimeSpec, error) {
	lock, err := os.Open(LockFile(l.RunDir))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	holder := wholeFile(unix.F_RDLCK)
	if err := unix.FcntlFlock(lock.Fd(), unix.F_OFD_GETLK, holder); err != nil {
		return nil, fmt.Errorf("asking who holds %s: %w", lock.Name(), err)
	}
	if holder.Type == unix.F_UNLCK {
		return nil, nil
	}
	content, err := os.ReadFile(l.Run("k0s.yaml"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // it is about to say, or has just gone
	}
	if err != nil {
		return nil, err
	}
	var config RuntimeConfig
	if err := yaml.Unmarshal(content, &config); err != nil {
		return nil, fmt.Errorf("%s: %w", l.Run("k0s.yaml"), err)
	}
	return &config.Spec, nil
}
