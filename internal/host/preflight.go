package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// CanListen tells whether the host has an address, or may listen on one that it does not have.
func CanListen(address netip.Addr) bool {
	listener, err := net.Listen("tcp", netip.AddrPortFrom(address, 0).String())
	if err != nil {
		return !errors.Is(err, unix.EADDRNOTAVAIL)
	}
	return listener.Close() == nil
}

// dying is how long a process may take to end that nobody can see any more but by its open port.
const dying = 3 * time.Second

// FreeAddress says who is in the way of listening on a TCP address; nil when nobody is.
func FreeAddress(ctx context.Context, address, usage string) error {
	limit := time.After(dying)
	for {
		listener, err := net.Listen("tcp", address)
		if err == nil {
			return listener.Close()
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			return fmt.Errorf("cannot listen on %s for %s: %w", address, usage, err)
		}
		by := holder(address)
		inUse := fmt.Errorf("address %s, needed for %s, is in use%s", address, usage, by)
		if by != "" {
			return inUse
		}
		// Nobody has it open: whoever had, a child of a k0s that was killed perhaps, is about to be gone.
		select {
		case <-time.After(20 * time.Millisecond):
		case <-limit:
			return inUse
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// holder names the process that listens on address' port, as " by NAME (process PID)".
func holder(address string) string {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return ""
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return ""
	}
	inodes := map[string]bool{}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		content, _ := os.ReadFile(table)
		for line := range strings.Lines(string(content)) {
			const listening = "0A"
			f := strings.Fields(line)
			if len(f) > 9 && f[3] == listening && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", number)) {
				inodes["socket:["+f[9]+"]"] = true
			}
		}
	}
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && inodes[target] {
			pid := strings.Split(link, "/")[2]
			comm, _ := os.ReadFile("/proc/" + pid + "/comm")
			return fmt.Sprintf(" by %s (process %s)", strings.TrimSpace(string(comm)), pid)
		}
	}
	return ""
}

// FreeSpace checks that the file system dir is, or will be, on has so many bytes free.
func FreeSpace(dir string, needed uint64) error {
	existing := dir
	for {
		if _, err := os.Stat(existing); err == nil || existing == "/" {
			break
		}
		existing = filepath.Dir(existing)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(existing, &st); err != nil {
		return fmt.Errorf("asking for the free space of %s: %w", existing, err)
	}
	if free := st.Bavail * uint64(st.Bsize); free < needed {
		return fmt.Errorf("the disk of %s has %d MiB free, at least %d MiB are needed: free some, or choose another --data-dir", dir, free>>20, needed>>20)
	}
	return nil
}
