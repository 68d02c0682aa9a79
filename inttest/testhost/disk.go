package testhost

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// disk is a file system of its own on a host.
type disk struct {
	dir   string // where it is mounted
	image string // its file, on the machine
	loop  string // its device while the host is on: /dev/loop0
}

// filler is the file that FillDisk makes.
const filler = ".filler"

// AddDisk mounts an empty disk of so many megabytes at a directory of the host, which is made if need be.
// It stays, with what is on it, through reboots.
func (h *Host) AddDisk(ctx context.Context, dir string, megabytes int) error {
	d := &disk{dir: dir, image: filepath.Join(h.dir, "disk"+strconv.Itoa(len(h.disks)))}
	if err := os.WriteFile(d.image, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(d.image, int64(megabytes)<<20); err != nil {
		return err
	}
	if err := run(ctx, "mkfs.ext4", "-q", "-m", "0", d.image); err != nil {
		return fmt.Errorf("making a disk for %s: %w: it takes Debian's e2fsprogs", h.Name, err)
	}
	if _, err := h.Output(ctx, "mkdir", "-p", dir); err != nil {
		return err
	}
	h.disks = append(h.disks, d)
	if err := h.mountDisk(ctx, d); err != nil {
		return err
	}
	_, err := h.Output(ctx, "rmdir", filepath.Join(dir, "lost+found"))
	return err
}

func (h *Host) mountDisk(ctx context.Context, d *disk) error {
	out, err := exec.CommandContext(ctx, "losetup", "--find", "--show", d.image).CombinedOutput()
	if err != nil {
		return fmt.Errorf("`losetup --find --show %s`: %w: %s", d.image, err, out)
	}
	d.loop = strings.TrimSpace(string(out))
	_, err = h.Output(ctx, "mount", d.loop, d.dir)
	// It goes when it is no longer mounted, so whatever becomes of us or the host.
	return errors.Join(err, run(ctx, "losetup", "--detach", d.loop))
}

// awaitDisks waits until the disks of a host that was killed are free, for at most ten seconds.
func (h *Host) awaitDisks() error {
	limit := time.After(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond) // nothing tells
	defer tick.Stop()
	for _, d := range h.disks {
		for d.loop != "" {
			file, err := os.ReadFile("/sys/block/" + filepath.Base(d.loop) + "/loop/backing_file")
			if errors.Is(err, fs.ErrNotExist) || (err == nil && strings.TrimSpace(string(file)) != d.image) {
				d.loop = ""
				break
			}
			select {
			case <-tick.C:
			case <-limit:
				return fmt.Errorf("the disk %s of %s is still in use at %s (%v)", d.dir, h.Name, d.loop, err)
			}
		}
	}
	return nil
}

// FillDisk fills a disk that AddDisk made to the last byte.
func (h *Host) FillDisk(ctx context.Context, dir string) error {
	for _, d := range h.disks {
		if d.dir != dir {
			continue
		}
		// The file system keeps some back from who wants much.
		_, err := h.Output(ctx, "sh", "-c", `exec 2>/dev/null; cat /dev/zero >"$1"
			while head -c 1024 /dev/zero >>"$1" && sync -f "$1"; do :; done
			[ $(df --output=avail "$1" | tail -1) -eq 0 ]`,
			"sh", filepath.Join(dir, filler))
		if err != nil {
			return fmt.Errorf("the disk is not full: %w", err)
		}
		return nil
	}
	return fmt.Errorf("there is no disk at %s of %s: AddDisk makes one (the machine's own is not to be filled)", dir, h.Name)
}

// FreeDisk takes back what FillDisk has filled.
func (h *Host) FreeDisk(ctx context.Context, dir string) error {
	_, err := h.Output(ctx, "rm", "-f", filepath.Join(dir, filler))
	return err
}
