package reset

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"k0s.io/k0s/internal/host"
)

// mountPoints lists what is mounted where, the latest last.
func mountPoints() ([]string, error) {
	mountinfo, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("listing mounts: %w", err)
	}
	return parseMountinfo(string(mountinfo)), nil
}

// parseMountinfo takes the mount points from /proc/PID/mountinfo, see proc_pid_mountinfo(5).
func parseMountinfo(mountinfo string) []string {
	// Octal escapes stand for what would break the line.
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var points []string
	for line := range strings.Lines(mountinfo) {
		if fields := strings.Fields(line); len(fields) >= 5 {
			points = append(points, unescape.Replace(fields[4]))
		}
	}
	return points
}

// sortMounts picks from mount points those that containers, containerd and the kubelet made, and those
// that others made below the data directory. In neither list are disks that somebody gave k0s for its
// data, etcd's, containerd's or the kubelet's: they stay mounted, and are emptied.
func sortMounts(points []string, l host.Layout, kubeletRoots []string) (ours, foreign []string) {
	for _, point := range points {
		inKubelet := slices.ContainsFunc(kubeletRoots, func(root string) bool { return isBelow(point, root) })
		// containerd mounts nothing on its own directories, only further down.
		inContainerd := isBelow(filepath.Dir(point), l.Containerd())
		switch {
		case isBelow(point, l.RunDir) || inKubelet || inContainerd:
			ours = append(ours, point)
		case point == l.Etcd() || point == l.Containerd() || filepath.Dir(point) == l.Containerd() || slices.Contains(kubeletRoots, point):
		case isBelow(point, l.DataDir):
			foreign = append(foreign, point)
		}
	}
	return ours, foreign
}

// checkNoForeignMounts refuses mounts in the data directory that k0s did not make and has no use for:
// what is on them would be deleted.
func checkNoForeignMounts(l host.Layout, kubeletRoots []string) error {
	points, err := mountPoints()
	if err != nil {
		return err
	}
	if _, foreign := sortMounts(points, l, kubeletRoots); len(foreign) > 0 {
		return fmt.Errorf("somebody mounted %s, and `k0s reset` would delete what is on it: `umount` it first. Nothing was touched",
			strings.Join(foreign, ", "))
	}
	return nil
}

// unmount unmounts what containers, containerd and the kubelet mounted, the latest first. Only when
// nothing of it is left there is no error.
func unmount(l host.Layout, kubeletRoots []string) error {
	points, err := mountPoints()
	if err != nil {
		return err
	}
	ours, _ := sortMounts(points, l, kubeletRoots)
	var errs []error
	for _, point := range slices.Backward(ours) {
		err := unix.Unmount(point, unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EBUSY) {
			err = unix.Unmount(point, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", point, err))
		}
	}
	// Some fail because they went with another one: what counts is what is left.
	if points, err = mountPoints(); err != nil {
		return err
	}
	if left, _ := sortMounts(points, l, kubeletRoots); len(left) > 0 {
		return errors.Join(append(errs, fmt.Errorf("still mounted: %s", strings.Join(left, ", ")))...)
	}
	return nil
}

// holdsMount tells whether something is mounted on path or below it.
func holdsMount(path string, points []string) bool {
	return slices.ContainsFunc(points, func(point string) bool { return point == path || isBelow(point, path) })
}
