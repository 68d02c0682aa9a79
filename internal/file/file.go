// Package file replaces files whole or not at all.
package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Options of a write. The zero value writes a file of root's that need not survive a power cut.
type Options struct {
	// UID is the owner; the group is root. -1 leaves it the writer's.
	UID int
	// Durable: it is on the disk when Write returns.
	Durable bool
}

// Write puts content into path, with this mode whatever the umask is. It clears away what a Write of path that
// was killed has left; so there must be one at a time.
func Write(path string, content []byte, mode fs.FileMode, o Options) error {
	if err := RemoveTemporary(path); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), temporary(filepath.Base(path))+"*")
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(content)
	err = errors.Join(err, tmp.Chmod(mode))
	if o.UID > 0 {
		err = errors.Join(err, tmp.Chown(o.UID, 0))
	}
	if o.Durable {
		err = errors.Join(err, tmp.Sync())
	}
	if err := errors.Join(err, tmp.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := os.Rename(tmp.Name(), path); err != nil || !o.Durable {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir puts the names in dir, as they are now, on the disk.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// RemoveTemporary removes what Writes of path that were killed have left.
func RemoveTemporary(path string) error {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !IsTemporary(entry.Name(), filepath.Base(path)) {
			continue
		}
		if err := os.Remove(filepath.Join(filepath.Dir(path), entry.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// IsTemporary tells whether name is what a Write to a file called base leaves when it is killed.
func IsTemporary(name, base string) bool {
	number, found := strings.CutPrefix(name, temporary(base))
	return found && number != "" && strings.Trim(number, "0123456789") == ""
}

func temporary(base string) string { return "." + base + "-" }
