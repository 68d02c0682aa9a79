package reset

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/internal/journal"
	"k0s.io/k0s/internal/process"
)

// killTimeout bounds the killing of the processes of one cgroup.
const killTimeout = 30 * time.Second

// endContainers kills every process in the pods' cgroups, and the shims.
func endContainers(ctx context.Context, l host.Layout, entries []journal.Entry) error {
	var errs []error
	for _, e := range entries {
		if e.Kind == journal.Cgroup {
			errs = append(errs, killCgroup(ctx, e.Name))
		}
	}
	// By what they execute: a helper runs for nobody but k0s.
	return errors.Join(append(errs, process.KillExecutablesBelow(l.Bin()))...)
}

// cgroupDirs lists the directories that a cgroup has: one in each hierarchy of cgroup v1.
func cgroupDirs(name string) ([]string, error) {
	version, err := host.CgroupVersion()
	if err != nil {
		return nil, err
	}
	pattern := filepath.Join("/sys/fs/cgroup", name)
	if version == 1 {
		pattern = filepath.Join("/sys/fs/cgroup", "*", name)
	}
	return filepath.Glob(pattern)
}

// descendants lists dir and all directories below it, the deepest last.
func descendants(dir string) ([]string, error) {
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return ignore(err, fs.ErrNotExist)
	})
	return dirs, err
}

func killCgroup(ctx context.Context, name string) error {
	tops, err := cgroupDirs(name)
	if err != nil {
		return err
	}
	for _, top := range tops {
		// Kills all at once, those that fork as well. Cgroup v1 does not have it.
		f, err := os.OpenFile(filepath.Join(top, "cgroup.kill"), os.O_WRONLY, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		_, err = f.WriteString("1")
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	return killUntilNone(ctx, name, func() ([]int, error) { return processesIn(tops) })
}

// killUntilNone kills what list lists until that is nothing: while some are killed, others fork.
func killUntilNone(ctx context.Context, name string, list func() ([]int, error)) error {
	for {
		pids, err := list()
		if err != nil || len(pids) == 0 {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("cgroup %s still has processes, among them %d: %w", name, pids[0], ctx.Err())
		}
		if err := process.Kill(pids...); err != nil { // waits for their end
			return err
		}
	}
}

// processesIn lists the processes in cgroups, given by their directories, and in those below.
func processesIn(tops []string) ([]int, error) {
	var pids []int
	for _, top := range tops {
		dirs, err := descendants(top)
		if err != nil {
			return nil, err
		}
		for _, dir := range dirs {
			content, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
			if err := ignore(err, fs.ErrNotExist, unix.ENODEV); err != nil {
				return nil, err
			}
			for field := range strings.FieldsSeq(string(content)) {
				// 0 stands for a process that this pid namespace does not see.
				if pid, err := strconv.Atoi(field); err == nil && pid > 0 && !slices.Contains(pids, pid) {
					pids = append(pids, pid)
				}
			}
		}
	}
	return pids, nil
}

func removeCgroups(name string) error {
	tops, err := cgroupDirs(name)
	if err != nil {
		return err
	}
	for _, top := range tops {
		dirs, err := descendants(top)
		if err != nil {
			return err
		}
		for _, dir := range slices.Backward(dirs) {
			if err := ignore(os.Remove(dir), fs.ErrNotExist); err != nil {
				return err
			}
		}
	}
	return nil
}
