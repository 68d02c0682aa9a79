// Package daemon is what the commands that run for long, `k0s controller` and `k0s worker`, have in common.
package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/internal/instance"
	"k0s.io/k0s/internal/journal"
	"k0s.io/k0s/internal/memory"
	"k0s.io/k0s/internal/process"
	"k0s.io/k0s/internal/status"
	"k0s.io/k0s/internal/version"
)

// StopTimeout bounds the stop of everything.
const StopTimeout = 60 * time.Second

// Hold takes the lock of the only k0s on this host, and ends the children of one that was killed: they die with
// it, but not before it. release gives the lock up.
func Hold(layout host.Layout, spec instance.RuntimeSpec, log *slog.Logger) (release func(), err error) {
	lock, err := instance.Acquire(layout, spec)
	if err != nil {
		return nil, err
	}
	release = func() {
		if err := lock.Release(); err != nil {
			log.Warn("Cannot give up the lock", "error", err)
		}
	}
	if err := process.EndAll(layout.RunDir); err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// FreeSpace tells if there is no room in the data directory for what is put there, the first time above all.
func FreeSpace(layout host.Layout) error {
	const firstStart, laterStart = 400 << 20, 32 << 20
	if _, err := os.Stat(layout.Bin("runc")); err != nil {
		return host.FreeSpace(layout.DataDir, firstStart)
	}
	return host.FreeSpace(layout.DataDir, laterStart)
}

// Fit refuses a host with a problem, or when that is to be ignored, warns of it.
func Fit(problem error, ignore bool, log *slog.Logger) error {
	switch {
	case problem == nil:
		return nil
	case !ignore:
		return fmt.Errorf("this host is not fit to run k0s: %w (--ignore-pre-flight-checks starts it all the same)", problem)
	}
	log.Warn("Starting although this host is not fit to run k0s", "error", problem)
	return nil
}

// OpenJournal opens the list of what is changed on the host, which workloads add the kubelet's directory to.
func OpenJournal(layout host.Layout, workloads bool) (*journal.Journal, error) {
	j, err := journal.Open(layout.Journal())
	if err != nil || !workloads {
		return j, err
	}
	return j, j.AddKubeletRoot(layout.KubeletRoot)
}

// Status is what can be said of this process.
func Status(role string, layout host.Layout, begin time.Time, warnings []string) status.Status {
	return status.Status{
		Version: version.String(), Pid: os.Getpid(), PPid: os.Getppid(), Role: role,
		Args: os.Args, DataDir: layout.DataDir, Started: begin, Warnings: warnings,
	}
}

// ServeStatus answers `k0s status` until stop is called, also when ctx has ended.
func ServeStatus(ctx context.Context, socket string, current func() status.Status, log *slog.Logger) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := status.Serve(ctx, socket, current); err != nil {
			log.Error("Cannot answer k0s status", "error", err)
		}
	}()
	return func() {
		cancel()
		<-served
	}
}

// Ready notes that all is ready: unpacking and importing took memory that is not needed again, and so does what
// follows, the first pods and the sessions with other nodes.
func Ready(begin time.Time, log *slog.Logger) {
	const (
		// How much, in percent, the heap may grow from now on between collections.
		settledGOGC = 30
		// How long what follows may take.
		settling = 20 * time.Second
	)
	log.Info("k0s is ready", "after", time.Since(begin).Round(time.Millisecond))
	for _, after := range []time.Duration{0, settling} {
		memory.Settle(after, settledGOGC)
	}
}
