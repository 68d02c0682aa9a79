// Package applet holds the programs that are linked into the k0s executable.
//
// It is the only package that imports the big servers. Everything else starts an applet as a
// child process (argv[0] names it) and speaks to it as a user would: flags, files, sockets, APIs.
package applet

import (
	"os"
	"path/filepath"
	"slices"

	"k0s.io/k0s/internal/applet/name"
)

// programs maps an applet's name to its main function, which returns the exit code.
func programs() map[string]func() int {
	return map[string]func() int{
		name.KubeAPIServer:         kubeAPIServer,
		name.KubeControllerManager: kubeControllerManager,
		name.KubeScheduler:         kubeScheduler,
		name.Kubelet:               kubelet,
		name.KubeProxy:             kubeProxy,
		name.Kubectl:               kubectl,
		name.Etcd:                  etcd,
		name.Kine:                  kine,
		name.Containerd:            containerd,
		name.Ctr:                   ctr,
		name.KonnectivityServer:    konnectivityServer,
	}
}

// Names lists the applets in alphabetical order.
func Names() []string {
	var names []string
	for program := range programs() {
		names = append(names, program)
	}
	slices.Sort(names)
	return names
}

// Of tells which applet argv0 names, if any: its base name must be that of an applet.
func Of(argv0 string) (program string, ok bool) {
	program = filepath.Base(argv0)
	_, ok = programs()[program]
	return program, ok
}

// Run becomes the applet: args are its command line without the program's name. The linked-in
// programs read os.Args, so the process belongs to the applet from here on. Run returns the exit
// code; an unknown name gives 127.
func Run(program string, args []string) int {
	run, ok := programs()[program]
	if !ok {
		return 127
	}
	os.Args = append([]string{program}, args...)
	// The process was started through /proc/self/exe; give ps and pgrep the program's own name.
	_ = os.WriteFile("/proc/self/comm", []byte(program), 0)
	settleMemory(program)
	return run()
}
