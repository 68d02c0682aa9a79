package instance

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// heldBy locks a file, and writes somebody's number to it.
func heldBy(t *testing.T, pid int) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "lock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := fmt.Fprintln(f, pid); err != nil {
		t.Fatal(err)
	}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, wholeFile(unix.F_WRLCK)); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestLockOfTheLiving(t *testing.T) {
	f := heldBy(t, os.Getpid())
	begin := time.Now()
	_, err := lockFile(f.Name())
	if want := fmt.Sprintf("another k0s (process %d) is using it", os.Getpid()); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
	if took := time.Since(begin); took > lastGasp/2 {
		t.Errorf("it took %v to say so", took)
	}
}

// TestLockOfTheDead: a child that the dead one was making holds the lock for a moment longer.
func TestLockOfTheDead(t *testing.T) {
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	f := heldBy(t, dead.Process.Pid)
	released := make(chan error, 1)
	time.AfterFunc(100*time.Millisecond, func() { released <- f.Close() })
	locked, err := lockFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer locked.Close()
	if err := <-released; err != nil {
		t.Fatal(err)
	}
}
