package instance

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"k0s.io/k0s/internal/file"
	"k0s.io/k0s/internal/host"
)

// CheckDataDir refuses a data directory that is not k0s' own: `k0s reset` deletes it with all that is
// in it. One without our mark may hold what is put there before the first start: disks to be used,
// a CA, manifests, images.
func CheckDataDir(l host.Layout) error {
	if err := checkDepth(l.DataDir); err != nil {
		return err
	}
	marked, err := IsMarked(l)
	if marked || err != nil {
		return err
	}
	foreign, err := host.Foreign(l.DataDir, "bin", "containerd", "db", "etcd", "images", "kubelet", "kubelet-plugins", "manifests", "pki", "run")
	if err != nil {
		return err
	}
	foreign = slices.DeleteFunc(foreign, func(name string) bool { return isTransient(l, name) })
	if len(foreign) > 0 {
		return fmt.Errorf("%s is in use by something else than k0s: it holds %q. "+
			"Choose a --data-dir that is empty or does not exist: k0s reset deletes it with all that is in it", l.DataDir, foreign[0])
	}
	return nil
}

// CheckMayDelete refuses a data directory that nothing shows to be k0s' own.
func CheckMayDelete(l host.Layout) error {
	if err := checkDepth(l.DataDir); err != nil {
		return err
	}
	marked, err := IsMarked(l)
	if marked || err != nil {
		return err
	}
	found, err := firstFile(l)
	if err != nil {
		return err
	}
	if found != "" {
		return fmt.Errorf("nothing shows that %s is k0s' data directory, and it is not empty: there is %s. Nothing was touched. "+
			"Give the --data-dir that k0s ran with; if this is it all the same, `touch %s` says so", l.DataDir, found, l.Journal())
	}
	return nil
}

// Marks are the files that show that a data directory is k0s'.
func Marks(l host.Layout) []string { return []string{l.Identity(), l.Journal()} }

// IsMarked tells whether any of the marks is there.
func IsMarked(l host.Layout) (bool, error) {
	for _, mark := range Marks(l) {
		st, err := os.Lstat(mark)
		if err == nil && st.Mode().IsRegular() {
			return true, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	return false, nil
}

// checkDepth refuses / and the directories in it: they are never one program's own.
func checkDepth(dir string) error {
	if filepath.Dir(dir) == "/" {
		return fmt.Errorf("%s cannot be a data directory, which k0s reset deletes: choose one further down, such as --data-dir=%s",
			dir, filepath.Join(dir, "k0s"))
	}
	return nil
}

// isTransient tells whether name is that of a file which a k0s killed at its very first start leaves:
// the lock, and an identity that was being written.
func isTransient(l host.Layout, name string) bool {
	return name == lockName || file.IsTemporary(name, filepath.Base(l.Identity()))
}

// firstFile finds a file in the data directory; "" when there is none but transient ones.
func firstFile(l host.Layout) (found string, err error) {
	err = filepath.WalkDir(l.DataDir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == host.LostFound:
			return fs.SkipDir
		case d.IsDir() || filepath.Dir(path) == l.DataDir && isTransient(l, d.Name()):
			return nil
		}
		found = path
		return fs.SkipAll
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return found, err
}
