package process

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

const goneTimeoutMS = 10_000

// waitGone blocks until process pid has ended.
func waitGone(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("waiting for process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(poll, goneTimeoutMS)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("waiting for process %d: %w", pid, err)
		case n == 0:
			return fmt.Errorf("process %d, left by an earlier k0s, does not die: it may hang in the kernel; `cat /proc/%d/stack` tells where", pid, pid)
		}
		return nil
	}
}
