package applet

import (
	"os"
	"runtime/debug"
	"time"

	"k0s.io/k0s/internal/applet/name"
)

// startingGOGC is the garbage collector's setting while a program starts: it may take memory, so that
// it takes less time. settling is how long that is.
const (
	startingGOGC = 400
	settling     = 20 * time.Second
)

// settledGOGC is how much, in percent, each program's heap may grow between two collections once it
// has started: less where most of the heap is long-lived. Measured in docs/performance.md.
var settledGOGC = map[string]int{
	name.KubeAPIServer:         40,
	name.KubeControllerManager: 50,
	name.KubeScheduler:         50,
	name.Kubelet:               50,
	name.KubeProxy:             50,
	name.Etcd:                  50,
	name.Containerd:            50,
}

// tuneGC sets the garbage collector up, unless the user does with GOGC. It stays out of short-lived
// programs, which do not live to be settled.
func tuneGC(program string) {
	settled, daemon := settledGOGC[program]
	if os.Getenv("GOGC") != "" || !daemon {
		return
	}
	debug.SetGCPercent(startingGOGC)
	time.AfterFunc(settling, func() {
		debug.SetGCPercent(settled)
		debug.FreeOSMemory() // what the start took is given back now, not some time
	})
}
