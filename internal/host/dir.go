package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// MakeDir sees to it that dir exists with this mode and owner (group root): for directories of our
// own. What is in it is left as it is.
func MakeDir(dir string, mode fs.FileMode, uid int) error {
	if err := os.MkdirAll(dir, mode); err != nil {
		return fmt.Errorf("making directory %s: %w", dir, err)
	}
	// MkdirAll is subject to the umask and leaves what exists as it is.
	if err := os.Chmod(dir, mode); err != nil {
		return fmt.Errorf("making directory %s: %w", dir, err)
	}
	if err := os.Chown(dir, uid, 0); err != nil {
		return fmt.Errorf("making directory %s: %w", dir, err)
	}
	return nil
}

// MakeDirUnlessThere makes dir with this mode for the present user (group root). A directory that is
// there keeps the mode and the owner that somebody gave it.
func MakeDirUnlessThere(dir string, mode fs.FileMode) error {
	if st, err := os.Stat(dir); err == nil && st.IsDir() {
		return nil
	}
	return MakeDir(dir, mode, os.Geteuid())
}

// MakeTree is MakeDir for a directory whose content belongs to the same user: when the owner of an
// existing one is to change, all below it changes hands.
func MakeTree(dir string, mode fs.FileMode, uid int) error {
	var st syscall.Stat_t
	if err := syscall.Stat(dir, &st); err == nil && int(st.Uid) != uid {
		err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || path == dir { // dir comes last: until then this is tried again
				return err
			}
			return os.Lchown(path, uid, 0)
		})
		if err != nil {
			return fmt.Errorf("giving %s to user %d: %w", dir, uid, err)
		}
	}
	return MakeDir(dir, mode, uid)
}

// Foreign lists the names in dir that are not among known. A missing directory holds none, and the
// lost+found of a fresh disk is nobody's.
func Foreign(dir string, known ...string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		if name := entry.Name(); name != LostFound && !slices.Contains(known, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// LostFound is the directory that mkfs makes at the root of a disk.
const LostFound = "lost+found"
