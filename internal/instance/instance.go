// Package instance makes sure that one k0s runs on a host at a time, and tells the other commands
// about it.
package instance

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	"sigs.k8s.io/yaml"

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
}

// Lock is held by a running k0s.
type Lock struct {
	files []*os.File
	file  string
}

// Acquire locks run and data directory for this process, and says so in the runtime configuration.
func Acquire(l host.Layout, role, statusSocket string) (*Lock, error) {
	lock := &Lock{file: l.Run("k0s.yaml")}
	for _, dir := range []string{l.DataDir, l.RunDir} {
		if err := host.MakeDir(dir, 0o755, os.Geteuid()); err != nil {
			return nil, errors.Join(err, lock.Release())
		}
		f, err := lockFile(filepath.Join(dir, "k0s.yaml.lock"))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", dir, err), lock.Release())
		}
		lock.files = append(lock.files, f)
	}
	content, err := yaml.Marshal(RuntimeConfig{
		APIVersion: "k0s.k0sproject.io/v1beta1", Kind: "RuntimeConfig",
		Spec: RuntimeSpec{DataDir: l.DataDir, KubeletRoot: l.KubeletRoot, StatusSocket: statusSocket, PID: os.Getpid(), Role: role},
	})
	if err == nil {
		err = os.WriteFile(lock.file, content, 0o600)
	}
	if err != nil {
		return nil, errors.Join(err, lock.Release())
	}
	return lock, nil
}

// Release gives the directories up.
func (lock *Lock) Release() error {
	var errs []error
	if len(lock.files) == 2 {
		if err := os.Remove(lock.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	for _, f := range lock.files {
		errs = append(errs, os.Remove(f.Name()), f.Close())
	}
	lock.files = nil
	return errors.Join(errs...)
}

// lockFile locks path, which holds the pid of who has it. The lock goes with the process.
func lockFile(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			defer f.Close()
			if !errors.Is(err, unix.EWOULDBLOCK) {
				return nil, fmt.Errorf("locking %s: %w", path, err)
			}
			holder := make([]byte, 20)
			n, _ := f.Read(holder)
			return nil, fmt.Errorf("another k0s (process %s) is using it: stop that one first",
				strings.TrimSpace(string(holder[:n])))
		}
		// The one before us may have removed the file between our opening and locking it.
		if locked, err := f.Stat(); err == nil {
			if present, err := os.Stat(path); err == nil && os.SameFile(locked, present) {
				_, err := f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
				return f, err
			}
		}
		f.Close()
	}
}

// Running returns what the k0s that runs on this host says of itself; nil when none runs.
func Running(l host.Layout) (*RuntimeSpec, error) {
	lock, err := os.Open(l.Run("k0s.yaml.lock"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB) == nil {
		return nil, nil // nobody holds it
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
