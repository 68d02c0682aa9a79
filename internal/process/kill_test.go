package process

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// copyOf puts a copy of a program into dir: one with an executable of its own.
func copyOf(t *testing.T, program, dir string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(dir, program)
	if err := os.WriteFile(copied, content, 0o755); err != nil {
		t.Fatal(err)
	}
	return copied
}

// child is a program that answers what it is sent.
type child struct {
	in  io.Writer
	out io.Reader
}

func (c child) alive() bool {
	if _, err := c.in.Write([]byte("x")); err != nil {
		return false
	}
	n, _ := c.out.Read(make([]byte, 1))
	return n == 1
}

// started runs cat in namespaces of its own as asked.
func started(t *testing.T, cat string, namespaces uintptr) child {
	t.Helper()
	cmd := exec.Command(cat)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	c := child{in, out}
	if !c.alive() {
		t.Fatalf("%s does not run", cat)
	}
	return c
}

func TestKillExecutablesBelow(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	bin, beside := filepath.Join(dir, "bin"), filepath.Join(dir, "binary")
	for _, d := range []string{bin, beside} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	helper := copyOf(t, "cat", bin)
	ours := started(t, helper, 0)
	container := started(t, helper, syscall.CLONE_NEWNS)
	stranger := started(t, copyOf(t, "cat", beside), 0)
	if err := KillExecutablesBelow(bin); err != nil {
		t.Fatal(err)
	}
	if ours.alive() {
		t.Error("the helper lives")
	}
	if !container.alive() {
		t.Error("a process of another mount namespace was killed")
	}
	if !stranger.alive() {
		t.Error("a program beside was killed")
	}
}

func TestKillExecutablesBelowSparesItself(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := KillExecutablesBelow(filepath.Dir(exe)); err != nil {
		t.Error(err)
	}
}
