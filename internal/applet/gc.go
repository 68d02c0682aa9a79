package applet

import (
	"time"

	"k0s.io/k0s/internal/applet/name"
	"k0s.io/k0s/internal/memory"
)

// settling is how long a program takes to start; then its memory is made small.
const settling = 20 * time.Second

// settledGOGC is how much, in percent, each program's heap may grow between two collections once it
// has started: most of it is long-lived then. Starting with more than Go's default of 100 would save
// 0.6 s of the API server's start, and scatter its heap for ever: see docs/performance.md.
var settledGOGC = map[string]int{
	name.KubeAPIServer:         25,
	name.KubeControllerManager: 25,
	name.KubeScheduler:         30,
	name.Kubelet:               30,
	name.KubeProxy:             30,
	name.Etcd:                  30,
	name.Kine:                  30,
	name.Containerd:            30,
	name.KonnectivityServer:    30,
}

// settleMemory makes a daemon small once it has started. A GOGC given by the user stays as it is. It
// leaves short-lived programs alone.
func settleMemory(program string) {
	gogc, daemon := settledGOGC[program]
	if !daemon {
		return
	}
	memory.Settle(settling, gogc)
}
