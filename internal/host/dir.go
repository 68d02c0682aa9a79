package host

import (
	"fmt"
	"io/fs"
	"os"
)

// MakeDir sees to it that dir exists with this mode and owner (group root).
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
