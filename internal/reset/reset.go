// Package reset takes a node back: processes, mounts, what the journal lists, and files. It asks no
// daemon, so it works on a node whose daemons do not.
package reset

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/internal/journal"
	"k0s.io/k0s/internal/process"
)

// Options say what to take back.
type Options struct {
	Layout host.Layout
	// KeepData leaves the data directory (but for its mounts) and the journal.
	KeepData bool
	Log      *slog.Logger
}

// Run takes the node back as far as it can; what it could not do is in the error. Calling it again is
// safe. No k0s may be running on the host.
func Run(ctx context.Context, o Options) error {
	j, err := journal.Open(o.Layout.Journal())
	if err != nil {
		return err
	}
	entries := j.Entries()
	var errs []error
	do := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
	}

	do("ending k0s' programs", process.EndAll(o.Layout.RunDir))
	do("ending containers", endContainers(o.Layout, entries))
	dirs := []string{o.Layout.RunDir, o.Layout.KubeletRoot, o.Layout.DataDir}
	do("unmounting", unmountBelow(dirs))
	if len(errs) > 0 {
		// Deleting what is still mounted or in use would destroy other people's data.
		return errors.Join(append(errs, errors.New("nothing was deleted: see to the above and run `k0s reset` again; a reboot helps when a process hangs"))...)
	}
	for _, e := range entries {
		o.Log.Debug("Undoing", "kind", e.Kind, "name", e.Name)
		do(fmt.Sprintf("undoing %s %s", e.Kind, e.Name), undo(ctx, o.Layout, e))
	}
	do("removing "+o.Layout.RunDir, removeAll(o.Layout.RunDir))
	if o.KeepData {
		do("removing the kubelet's sockets", removeSockets(o.Layout.KubeletRoot))
	} else {
		if len(errs) > 0 {
			return errors.Join(append(errs, errors.New("the data directory was left, so that `k0s reset` can try again"))...)
		}
		do("removing "+o.Layout.KubeletRoot, removeAll(o.Layout.KubeletRoot))
		do("removing "+o.Layout.DataDir, removeAll(o.Layout.DataDir))
	}
	return errors.Join(errs...)
}

func undo(ctx context.Context, l host.Layout, e journal.Entry) error {
	switch e.Kind {
	case journal.File:
		return ignore(os.Remove(e.Name), fs.ErrNotExist)
	case journal.Dir:
		return ignore(os.Remove(e.Name), fs.ErrNotExist, unix.ENOTEMPTY)
	case journal.Tree:
		return os.RemoveAll(e.Name)
	case journal.Sysctl:
		return ignore(host.Sysctl{Path: e.Name, Value: e.Old}.Set(), fs.ErrNotExist)
	case journal.Link:
		link, err := netlink.LinkByName(e.Name)
		if errors.As(err, new(netlink.LinkNotFoundError)) {
			return nil
		}
		if err != nil {
			return err
		}
		return netlink.LinkDel(link)
	case journal.NFTTable:
		return deleteTable(e.Name)
	case journal.IPTables:
		// kube-proxy knows its chains best.
		cmd := exec.CommandContext(ctx, process.Self, "--cleanup")
		cmd.Args[0] = "kube-proxy"
		cmd.Env = append(os.Environ(), "PATH="+l.Bin()+":"+os.Getenv("PATH"))
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("kube-proxy --cleanup: %w: %s", err, out)
		}
		return nil
	case journal.Cgroup:
		return removeCgroups(e.Name)
	}
	return fmt.Errorf("this k0s does not know how: it was recorded by a newer one, use that for the reset")
}

// endContainers kills every process in the pods' cgroups, and the shims.
func endContainers(l host.Layout, entries []journal.Entry) error {
	var errs []error
	for _, e := range entries {
		if e.Kind == journal.Cgroup {
			errs = append(errs, killCgroups(e.Name))
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

func killCgroups(name string) error {
	tops, err := cgroupDirs(name)
	if err != nil {
		return err
	}
	var pids []int
	for _, top := range tops {
		dirs, err := descendants(top)
		if err != nil {
			return err
		}
		for _, dir := range dirs {
			content, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
			if ignore(err, fs.ErrNotExist, unix.ENODEV) != nil {
				return err
			}
			for field := range strings.FieldsSeq(string(content)) {
				var pid int
				if _, err := fmt.Sscan(field, &pid); err == nil && !slices.Contains(pids, pid) {
					pids = append(pids, pid)
				}
			}
		}
	}
	return process.Kill(pids...)
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

// deleteTable deletes an nftables table, given as "family name", if it is there.
func deleteTable(name string) error {
	family, table, _ := strings.Cut(name, " ")
	families := map[string]nftables.TableFamily{"ip": nftables.TableFamilyIPv4, "ip6": nftables.TableFamilyIPv6, "inet": nftables.TableFamilyINet}
	c, err := nftables.New()
	if err != nil {
		return err
	}
	tables, err := c.ListTablesOfFamily(families[family])
	if err != nil {
		return ignore(err, unix.EOPNOTSUPP, unix.EAFNOSUPPORT)
	}
	for _, t := range tables {
		if t.Name == table {
			c.DelTable(t)
		}
	}
	return c.Flush()
}

// unmountBelow unmounts what is mounted below dirs, the latest first, but not dirs themselves: a data
// directory may be a disk of its own.
func unmountBelow(dirs []string) error {
	mountinfo, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var points []string
	for line := range strings.Lines(string(mountinfo)) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		point := unescape(fields[4])
		if slices.ContainsFunc(dirs, func(dir string) bool { return strings.HasPrefix(point, dir+"/") }) {
			points = append(points, point)
		}
	}
	var errs []error
	for _, point := range slices.Backward(points) {
		err := unix.Unmount(point, unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EBUSY) {
			err = unix.Unmount(point, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
		}
		if err := ignore(err, unix.EINVAL, unix.ENOENT); err != nil { // gone with another one
			errs = append(errs, fmt.Errorf("%s: %w", point, err))
		}
	}
	return errors.Join(errs...)
}

// unescape undoes the octal escapes of /proc/self/mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// removeSockets removes the sockets in dir and its directories; the kubelet leaves its own behind.
func removeSockets(dir string) error {
	for _, pattern := range []string{"*.sock", "*/*.sock"} {
		sockets, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return err
		}
		for _, socket := range sockets {
			if err := os.Remove(socket); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeAll removes dir with all below it; a dir that is a mount point is emptied.
func removeAll(dir string) error {
	err := os.RemoveAll(dir)
	if errors.Is(err, unix.EBUSY) {
		return nil // all below it is gone by now
	}
	return err
}

func ignore(err error, harmless ...error) error {
	for _, h := range harmless {
		if errors.Is(err, h) {
			return nil
		}
	}
	return err
}
