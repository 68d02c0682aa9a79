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

// Write puts content into path, with this mode whatever the umask is.
func Write(path string, content []byte, mode fs.FileMode, o Options) error {
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
	return os.Rename(tmp.Name(), path)
}

// IsTemporary tells whether name is what a Write to a file called base leaves when it is killed.
func IsTemporary(name, base string) bool { return strings.HasPrefix(name, temporary(base)) }

func temporary(base string) string { return "." + base + "-" }
