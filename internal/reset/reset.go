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
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/internal/instance"
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
// safe. It refuses to work while a k0s runs on the host, and on directories that are not k0s' own.
func Run(ctx context.Context, o Options) (err error) {
	l := o.Layout
	if err := instance.CheckMayDelete(l); err != nil {
		return err
	}
	j, err := journal.Open(l.Journal())
	if err != nil {
		return err
	}
	kubeletRoots, err := ownKubeletRoots(l, j)
	if err != nil {
		return err
	}
	if !o.KeepData {
		if err := checkNoForeignMounts(l, kubeletRoots); err != nil {
			return err
		}
	}

	dirs := []string{l.RunDir}
	if _, err := os.Stat(l.DataDir); err == nil {
		dirs = append(dirs, l.DataDir)
	}
	lock, err := instance.LockOut(dirs...)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, lock.Release())
		for _, dir := range dirs {
			err = errors.Join(err, removeIfEmpty(dir))
		}
	}()
	return takeBack(ctx, o, j.Entries(), kubeletRoots)
}

func takeBack(ctx context.Context, o Options, entries []journal.Entry, kubeletRoots []string) error {
	l := o.Layout
	var errs []error
	do := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
	}
	do("ending k0s' programs", process.EndAll(l.RunDir))
	do("ending containers", endContainers(ctx, l, entries))
	do("unmounting", unmount(l, kubeletRoots))
	if len(errs) > 0 {
		// Deleting what is still mounted or in use would destroy other people's data.
		return errors.Join(append(errs, errors.New("nothing was deleted: see to the above and run `k0s reset` again; a reboot helps when a process hangs"))...)
	}

	for _, e := range entries {
		o.Log.Debug("Undoing", "kind", e.Kind, "name", e.Name)
		do(fmt.Sprintf("undoing %s %s", e.Kind, e.Name), undo(ctx, l, e))
	}
	points, err := mountPoints()
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	do("removing what is in "+l.RunDir, removeContent(l.RunDir, points, instance.LockFile(l.RunDir)))
	if o.KeepData {
		for _, root := range kubeletRoots {
			do("removing the kubelet's sockets", removeSockets(root))
		}
		return errors.Join(errs...)
	}
	if len(errs) > 0 {
		return errors.Join(append(errs, errors.New("the data directory was left, so that `k0s reset` can try again"))...)
	}

	for _, root := range kubeletRoots {
		do("removing "+root, removeAll(root, points))
	}
	// The marks go last: without them nothing shows, to the next try, that this is ours.
	marks := instance.Marks(l)
	do("removing what is in "+l.DataDir, removeContent(l.DataDir, points, append(marks, instance.LockFile(l.DataDir))...))
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	for _, mark := range marks {
		do("removing", ignore(os.Remove(mark), fs.ErrNotExist))
	}
	if l.DataDirLink != "" {
		do("removing", ignore(os.Remove(l.DataDirLink), fs.ErrNotExist))
	}
	return errors.Join(errs...)
}

// ownKubeletRoots lists the kubelet's directories: the one of the layout, and those in the journal. One
// outside of the data directory that is not in the journal is refused, unless it is empty.
func ownKubeletRoots(l host.Layout, j *journal.Journal) ([]string, error) {
	roots := j.KubeletRoots()
	if slices.Contains(roots, l.KubeletRoot) {
		return roots, nil
	}
	if !isBelow(l.KubeletRoot, l.DataDir) {
		foreign, err := host.Foreign(l.KubeletRoot)
		if err != nil {
			return nil, err
		}
		if len(foreign) > 0 {
			return nil, fmt.Errorf("nothing shows that %s is the kubelet's directory: it holds %q, and %s does not name it. Nothing was touched. "+
				"Leave --kubelet-root-dir out to reset what k0s used", l.KubeletRoot, foreign[0], l.Journal())
		}
	}
	return append(roots, l.KubeletRoot), nil
}

func isBelow(path, dir string) bool { return strings.HasPrefix(path, dir+"/") }

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

// removeAll removes path with all below it. Disks at or below it are emptied.
func removeAll(path string, points []string) error {
	if holdsMount(path, points) {
		return removeContent(path, points)
	}
	return os.RemoveAll(path)
}

// removeContent removes what is in dir, but for the paths to keep. A disk keeps its lost+found.
func removeContent(dir string, points []string, keep ...string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return ignore(err, fs.ErrNotExist)
	}
	if slices.Contains(points, dir) {
		keep = append(keep, filepath.Join(dir, host.LostFound))
	}
	var errs []error
	for _, entry := range entries {
		if path := filepath.Join(dir, entry.Name()); !slices.Contains(keep, path) {
			errs = append(errs, removeAll(path, points))
		}
	}
	return errors.Join(errs...)
}

// removeIfEmpty removes dir if nothing is in it, and it is no mount point.
func removeIfEmpty(dir string) error {
	err := os.Remove(dir)
	if errors.Is(err, unix.EBUSY) {
		if points, listErr := mountPoints(); listErr == nil && slices.Contains(points, dir) {
			return nil
		}
	}
	return ignore(err, fs.ErrNotExist, unix.ENOTEMPTY)
}

func ignore(err error, harmless ...error) error {
	for _, h := range harmless {
		if errors.Is(err, h) {
			return nil
		}
	}
	return err
}
