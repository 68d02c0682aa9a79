package testhost

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cgroups is how this machine's control groups are laid out, and where this process is.
type cgroups []hierarchy

type hierarchy struct {
	kind    string // "cgroup" or "cgroup2"
	options string // what to mount it again with: "cpu,cpuacct" or "none,name=systemd"
	name    string // where it is mounted, under /sys/fs/cgroup: "cpu,cpuacct", or "." for version 2
	parent  string // the directory our cgroups are made in
}

const cgroupRoot = "/sys/fs/cgroup"

// readCgroups finds the hierarchies that a test host is to have. Where there is a version 1
// one, version 2 is beside it for systemd's use only and left out.
func readCgroups() (cgroups, error) {
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("finding the cgroup mounts: %w", err)
	}
	defer mounts.Close()
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("finding this process's cgroups: %w", err)
	}
	var v1, v2 cgroups
	for lines := bufio.NewScanner(mounts); lines.Scan(); {
		before, after, _ := strings.Cut(lines.Text(), " - ")
		mount, super := strings.Fields(before), strings.Fields(after)
		if len(mount) < 5 || len(super) < 3 {
			continue
		}
		root, point := mount[3], mount[4]
		name, err := filepath.Rel(cgroupRoot, point)
		if err != nil || strings.HasPrefix(name, "..") || root != "/" {
			continue
		}
		switch super[0] {
		case "cgroup":
			options := slices.DeleteFunc(strings.Split(super[2], ","), func(o string) bool {
				return o == "rw" || o == "ro" || strings.HasPrefix(o, "release_agent=") || o == "xattr"
			})
			h := hierarchy{kind: "cgroup", options: strings.Join(options, ","), name: name}
			// Below where this process is, so that whatever bounds it bounds the hosts too.
			h.parent = filepath.Join(point, ownCgroup(string(own), h.options))
			if strings.HasPrefix(h.options, "name=") {
				h.options = "none," + h.options
			}
			v1 = append(v1, h)
		case "cgroup2":
			// Version 2 shares controllers only with groups whose parent has no processes.
			v2 = append(v2, hierarchy{kind: "cgroup2", options: "rw", name: name, parent: point})
		}
	}
	if len(v1) > 0 {
		return v1, nil
	}
	if len(v2) > 0 {
		return v2, nil
	}
	return nil, errors.New("no cgroup hierarchy is mounted at " + cgroupRoot)
}

// ownCgroup picks the path in the hierarchy with these controllers from /proc/self/cgroup.
func ownCgroup(text, controllers string) string {
	for line := range strings.Lines(text) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) == 3 && fields[1] == controllers {
			return fields[2]
		}
	}
	return "/"
}

// make makes a group of this name in every hierarchy and returns their directories.
func (c cgroups) make(dirs []string) error {
	for i, dir := range dirs {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("making the host's cgroup: %w", err)
		}
		switch h := c[i]; {
		case h.kind == "cgroup2":
			controllers, err := os.ReadFile(filepath.Join(h.parent, "cgroup.controllers"))
			if err != nil {
				return fmt.Errorf("making the host's cgroup: %w", err)
			}
			for _, controller := range strings.Fields(string(controllers)) {
				// What cannot be shared out the host does without.
				_ = os.WriteFile(filepath.Join(h.parent, "cgroup.subtree_control"), []byte("+"+controller), 0o644)
			}
		case slices.Contains(strings.Split(h.options, ","), "cpuset"):
			for _, file := range []string{"cpuset.cpus", "cpuset.mems"} { // empty at first, and useless then
				value, err := os.ReadFile(filepath.Join(h.parent, file))
				if err == nil {
					err = os.WriteFile(filepath.Join(dir, file), value, 0o644)
				}
				if err != nil {
					return fmt.Errorf("giving the host's cgroup processors: %w", err)
				}
			}
		}
	}
	return nil
}

// dirs are the directories, one per hierarchy, of the group of this name.
func (c cgroups) dirs(name string) []string {
	var dirs []string
	for _, h := range c {
		dirs = append(dirs, filepath.Join(h.parent, name))
	}
	return dirs
}

// mounts is what init.sh is to mount, one line each.
func (c cgroups) mounts() string {
	var lines []string
	for _, h := range c {
		lines = append(lines, h.kind+" "+h.options+" "+h.name)
	}
	return strings.Join(lines, "\n")
}

// entries are the files through which a process joins a running host's groups.
func (c cgroups) entries(dirs []string) []string {
	var files []string
	for i, dir := range dirs {
		if c[i].kind == "cgroup2" {
			dir = filepath.Join(dir, "init")
		}
		files = append(files, filepath.Join(dir, "cgroup.procs"))
	}
	return files
}

// thaw lets the processes of these groups go on, or they could not even die.
func thaw(dirs []string) error {
	var errs []error
	for _, dir := range dirs {
		for name, thawed := range map[string]string{"freezer.state": "THAWED", "cgroup.freeze": "0"} {
			if file := filepath.Join(dir, name); exists(file) {
				errs = append(errs, os.WriteFile(file, []byte(thawed), 0o644))
			}
		}
	}
	return errors.Join(errs...)
}

// endCgroup kills what is in a cgroup and removes it with all below it.
// It gives up after ten seconds.
func endCgroup(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	// Nothing tells when a killed process has left its cgroup, so this has to ask.
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := tryEndCgroup(dir)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("removing the cgroup %s: %w", dir, err)
		}
	}
}

func tryEndCgroup(dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil // what vanishes meanwhile need not be removed
	})
	if err != nil {
		return err
	}
	slices.Reverse(dirs)
	var errs []error
	for _, d := range dirs {
		procs, _ := os.ReadFile(filepath.Join(d, "cgroup.procs"))
		for _, pid := range strings.Fields(string(procs)) {
			if n, err := strconv.Atoi(pid); err == nil && n > 0 {
				_ = syscall.Kill(n, syscall.SIGKILL)
			}
		}
		if err := syscall.Rmdir(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("rmdir %s: %w", d, err))
		}
	}
	return errors.Join(errs...)
}
