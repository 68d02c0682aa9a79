// Package version tells which k0s this is.
package version

import (
	"runtime/debug"
	"strings"
)

// Stamped by the Makefile through -ldflags -X.
var (
	version = ""
	commit  = ""
)

// Kubernetes is the version of the Kubernetes programs linked in.
const Kubernetes = "v1.37.1"

// Minor is the minor version of Kubernetes, such as 1.37.
func Minor() string {
	version := strings.TrimPrefix(Kubernetes, "v")
	return version[:strings.LastIndex(version, ".")]
}

// String is k0s' own version, e.g. v1.37.1+k0s.0; an unstamped build says so.
func String() string {
	if version == "" {
		return Kubernetes + "+k0s.dev"
	}
	return version
}

// Commit is the git commit this was built from, or "" when it was not stamped.
func Commit() string { return commit }

// Modules maps the linked-in programs to their module's version, read from the build information
// that the Go linker embeds.
func Modules() map[string]string {
	programs := map[string]string{
		"go.etcd.io/etcd/server/v3":           "etcd",
		"github.com/containerd/containerd/v2": "containerd",
		"github.com/k3s-io/kine":              "kine",
		"k8s.io/kubernetes":                   "kubernetes",
	}
	found := map[string]string{"k0s": String()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return found
	}
	found["go"] = info.GoVersion
	for _, dep := range info.Deps {
		if name, ok := programs[dep.Path]; ok {
			found[name] = dep.Version
		}
	}
	return found
}
