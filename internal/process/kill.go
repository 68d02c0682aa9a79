package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// EndAll ends the children that an earlier supervisor left running, by the pid files in dir.
func EndAll(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.pid"))
	if err != nil {
		return err
	}
	var errs []error
	for _, file := range files {
		errs = append(errs, endPredecessor(file))
	}
	return errors.Join(errs...)
}

// Kill sends SIGKILL to processes and waits for their end.
func Kill(pids ...int) error {
	var errs []error
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("killing process %d: %w", pid, err))
		}
	}
	for _, pid := range pids {
		errs = append(errs, waitGone(pid))
	}
	return errors.Join(errs...)
}

// KillExecutablesBelow kills the processes whose executable lies, or lay, below dir. In a container
// that path names another file: processes of other mount namespaces are left alone, and so is this one.
func KillExecutablesBelow(dir string) error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	ours, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return err
	}
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		// A process that ends meanwhile has neither link.
		exe, err := os.Readlink(filepath.Join("/proc", entry.Name(), "exe"))
		if err != nil || !strings.HasPrefix(exe, dir+"/") {
			continue
		}
		namespace, err := os.Readlink(filepath.Join("/proc", entry.Name(), "ns/mnt"))
		if err == nil && namespace == ours {
			pids = append(pids, pid)
		}
	}
	return Kill(pids...)
}
