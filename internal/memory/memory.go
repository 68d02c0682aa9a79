// Package memory gives back what a process needed to start, and needs no more. It is a module of its
// own, because the programs in the images of the system pods use it, too.
package memory

import (
	"bufio"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Settle makes the process small once it has started, which takes it a while: from then on its heap may
// grow by gogc percent between two collections, unless the user said otherwise by GOGC.
func Settle(after time.Duration, gogc int) {
	time.AfterFunc(after, func() {
		if os.Getenv("GOGC") == "" {
			debug.SetGCPercent(gogc)
		}
		GiveBack()
	})
}

// GiveBack returns free heap to the kernel, and drops this process' claim on the pages of its
// executable: code that ran once, tables that were read once, archives that were unpacked. What is
// still needed comes back from the page cache by itself.
func GiveBack() {
	debug.FreeOSMemory()
	_ = dropExecutable() // an optimisation: nothing depends on it
}

// dropExecutable calls madvise(2) with MADV_DONTNEED on the unwritable mappings of the executable. On
// those it loses nothing: they are the file.
func dropExecutable() error {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return err
	}
	defer maps.Close()
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		from, to, ok := executableMapping(lines.Text(), exe)
		if !ok {
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); errno != 0 {
			return errno
		}
	}
	return lines.Err()
}

// executableMapping reads a line of /proc/self/maps, see proc_pid_maps(5); ok tells whether it is an
// unwritable mapping of exe.
func executableMapping(line, exe string) (from, to uintptr, ok bool) {
	var permissions, offset, device, inode string
	n, _ := fmt.Sscanf(line, "%x-%x %s %s %s %s", &from, &to, &permissions, &offset, &device, &inode)
	return from, to, n == 6 && strings.HasSuffix(line, " "+exe) && !strings.Contains(permissions, "w")
}
