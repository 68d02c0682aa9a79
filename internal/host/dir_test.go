package host

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

func owner(t *testing.T, path string) int {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return int(st.Uid)
}

func TestMakeDirUnlessThereKeepsWhatIsThere(t *testing.T) {
	shared := filepath.Join(t.TempDir(), "shared")
	if err := os.Mkdir(shared, 0o700); err != nil {
		t.Fatal(err)
	}
	const mode = os.ModeSticky | 0o777
	if err := os.Chmod(shared, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(shared, 4321, 0); err != nil {
		t.Fatal(err)
	}
	if err := MakeDirUnlessThere(shared, 0o755); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(shared); err != nil || st.Mode().Type() != os.ModeDir || st.Mode()&^os.ModeDir != mode || owner(t, shared) != 4321 {
		t.Errorf("it became %v of %d: %v", st.Mode(), owner(t, shared), err)
	}

	fresh := filepath.Join(shared, "a", "b")
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	if err := MakeDirUnlessThere(fresh, 0o755); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(fresh); err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("made %v, %v", st, err)
	}
}

func TestMakeTreeGivesAllToANewOwner(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etcd")
	file := filepath.Join(dir, "member", "wal")
	outside := filepath.Join(t.TempDir(), "outside")
	for _, d := range []string{filepath.Dir(file), outside} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, uid := range []int{4321, 0} {
		if err := MakeTree(dir, 0o700, uid); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{dir, filepath.Dir(file), file, filepath.Join(dir, "link")} {
			if got := owner(t, path); got != uid {
				t.Errorf("%s belongs to %d, not to %d", path, got, uid)
			}
		}
	}
	if got := owner(t, outside); got != 0 {
		t.Errorf("what a link points to was given to %d", got)
	}
}

func TestForeign(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"lost+found", "bin", "home-work"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := Foreign(dir, "bin"); err != nil || !slices.Equal(got, []string{"home-work"}) {
		t.Errorf("got %v, %v", got, err)
	}
	if got, err := Foreign(filepath.Join(dir, "missing")); err != nil || got != nil {
		t.Errorf("got %v, %v", got, err)
	}
}
