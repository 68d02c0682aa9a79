package testhost

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
)

// files opens the host's file tree. Absolute symbolic links in it are refused rather than
// followed into the machine's tree: name files by their real paths.
func (h *Host) files() (*os.Root, error) {
	return os.OpenRoot("/proc/" + strconv.Itoa(h.Pid()) + "/root")
}

// ReadFile reads a file of the host.
func (h *Host) ReadFile(name string) ([]byte, error) {
	root, err := h.files()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", h.Name, err)
	}
	defer root.Close()
	data, err := root.ReadFile(relative(name))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", h.Name, err)
	}
	return data, nil
}

// WriteFile writes a file of the host, and makes the directories above it.
func (h *Host) WriteFile(name string, data []byte, mode os.FileMode) error {
	return h.copy(strings.NewReader(string(data)), name, mode)
}

// Copy copies a file of the machine to the host, with its mode, and makes the directories
// above it.
func (h *Host) Copy(from, to string) error {
	file, err := os.Open(from)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	return h.copy(file, to, info.Mode().Perm())
}

func (h *Host) copy(from io.Reader, to string, mode os.FileMode) (err error) {
	root, err := h.files()
	if err != nil {
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	defer root.Close()
	to = relative(to)
	if err := root.MkdirAll(path.Dir(to), 0o755); err != nil {
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	file, err := root.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
	if err != nil {
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	_, err = io.Copy(file, from)
	// Chmod: the mode above is reduced by the umask, and ignored for a file that exists.
	return errors.Join(err, file.Chmod(mode), file.Close())
}

func relative(name string) string { return "." + path.Clean("/"+name) }
