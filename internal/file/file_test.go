package file

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

func TestWrite(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	// What killed writes have left, and what others have put there.
	for _, name := range []string{".f-123", ".f-45", ".f-", ".f-6x", ".ff-7", ".g-8"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, content := range []string{"first", "second"} {
		if err := Write(path, []byte(content), 0o644, Options{Durable: true}); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != content {
			t.Errorf("got %q, %v", got, err)
		}
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o644 {
		t.Errorf("got %v, %v", st.Mode(), err)
	}
	if err := Write(filepath.Join(path, "below a file"), nil, 0o600, Options{}); err == nil {
		t.Error("an impossible path must be an error")
	}
	var names []string
	left, err := os.ReadDir(dir)
	for _, entry := range left {
		names = append(names, entry.Name())
	}
	if want := []string{".f-", ".f-6x", ".ff-7", ".g-8", "f"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("there are %v, want %v: %v", names, want, err)
	}
}
