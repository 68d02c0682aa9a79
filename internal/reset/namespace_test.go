package reset

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// alone runs test, a whole test function, in a process with mounts and a network of its own.
func alone(t *testing.T, test func(*testing.T)) {
	t.Helper()
	const inside = "K0S_TEST_ALONE"
	if os.Getenv(inside) != "" {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		test(t)
		return
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1")
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func mount(t *testing.T, source, target string) {
	t.Helper()
	kind, flags := "tmpfs", uintptr(0)
	if source != "tmpfs" {
		kind, flags = "", unix.MS_BIND
	}
	if err := unix.Mount(source, target, kind, flags, ""); err != nil {
		t.Fatalf("mounting %s on %s: %v", source, target, err)
	}
	t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) })
}
