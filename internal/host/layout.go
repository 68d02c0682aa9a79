// Package host knows the machine k0s runs on: where files go, its users, addresses, cgroups and
// kernel.
package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Defaults of the layout. The run directory is always the same: k0s runs as root, once on a host.
const (
	DefaultDataDir = "/var/lib/k0s"
	DefaultRunDir  = "/run/k0s"
)

// Layout says where k0s keeps its files. Its paths are free of symbolic links.
type Layout struct {
	// DataDir holds what must outlive a reboot.
	DataDir string
	// DataDirLink is the symbolic link that DataDir was given as; empty when it was none.
	DataDirLink string
	// RunDir holds sockets, pid files and generated configuration, new at every boot.
	RunDir string
	// KubeletRoot is the kubelet's state. Default: DataDir/kubelet.
	KubeletRoot string
}

// NewLayout returns the layout for dataDir (default DefaultDataDir), with symbolic links resolved.
func NewLayout(dataDir, kubeletRoot string) (Layout, error) {
	if dataDir == "" {
		dataDir = DefaultDataDir
	}
	var l Layout
	var err error
	if st, err := os.Lstat(filepath.Clean(dataDir)); err == nil && st.Mode().Type() == fs.ModeSymlink {
		if l.DataDirLink, err = filepath.Abs(dataDir); err != nil {
			return Layout{}, err
		}
	}
	if l.DataDir, err = Resolve(dataDir); err != nil {
		return Layout{}, fmt.Errorf("data directory %s: %w", dataDir, err)
	}
	if l.RunDir, err = Resolve(DefaultRunDir); err != nil {
		return Layout{}, fmt.Errorf("run directory: %w", err)
	}
	if kubeletRoot == "" {
		kubeletRoot = filepath.Join(l.DataDir, "kubelet")
	}
	if l.KubeletRoot, err = Resolve(kubeletRoot); err != nil {
		return Layout{}, fmt.Errorf("the kubelet's directory %s: %w", kubeletRoot, err)
	}
	return l, nil
}

// Resolve makes path absolute and free of symbolic links, of which neither the kernel's table of
// mounts nor /proc/PID/exe know. What does not exist yet, or may not be looked at, stays as it is.
func Resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	missing := ""
	for parent := path; ; parent = filepath.Dir(parent) {
		resolved, err := filepath.EvalSymlinks(parent)
		if err == nil {
			return filepath.Join(resolved, missing), nil
		}
		gone := errors.Is(err, fs.ErrNotExist)
		if !gone && !errors.Is(err, fs.ErrPermission) {
			return "", err
		}
		if target, err := os.Readlink(parent); gone && err == nil {
			return "", fmt.Errorf("%s is a symbolic link to %s, which does not exist: make that directory, or remove the link", parent, target)
		}
		missing = filepath.Join(filepath.Base(parent), missing)
	}
}

// Bin is where the helpers are unpacked.
func (l Layout) Bin(names ...string) string { return l.data("bin", names) }

// PKI is where certificates and the kubeconfigs made from them are.
func (l Layout) PKI(names ...string) string { return l.data("pki", names) }

// Identity says what this node is meant to be.
func (l Layout) Identity() string { return l.data("identity.json", nil) }

// Etcd is etcd's data directory.
func (l Layout) Etcd(names ...string) string { return l.data("etcd", names) }

// DB is where kine keeps its SQLite database.
func (l Layout) DB(names ...string) string { return l.data("db", names) }

// Containerd is containerd's root.
func (l Layout) Containerd() string { return l.data("containerd", nil) }

// Manifests is where users drop their stacks.
func (l Layout) Manifests() string { return l.data("manifests", nil) }

// VolumePlugins is where flex volume plugins are dropped.
func (l Layout) VolumePlugins() string { return l.data("kubelet-plugins", []string{"volume", "exec"}) }

// KubeletConf is the kubelet's kubeconfig.
func (l Layout) KubeletConf() string { return l.data("kubelet.conf", nil) }

// KubeProxyConf is kube-proxy's kubeconfig.
func (l Layout) KubeProxyConf() string { return l.PKI("kube-proxy.conf") }

// AdminConf is the administrator's kubeconfig.
func (l Layout) AdminConf() string { return l.PKI("admin.conf") }

// Journal lists what was changed on the host outside of the layout, for reset.
func (l Layout) Journal() string { return l.data("journal.jsonl", nil) }

// Run joins names to the run directory.
func (l Layout) Run(names ...string) string {
	return filepath.Join(append([]string{l.RunDir}, names...)...)
}

// StatusSocket is where `k0s status` asks.
func (l Layout) StatusSocket() string { return l.Run("status.sock") }

// ContainerdSocket is containerd's API.
func (l Layout) ContainerdSocket() string { return l.Run("containerd.sock") }

// KineSocket is where kine answers, in a directory of its own.
func (l Layout) KineSocket() string { return l.Run("kine", "kine.sock") }

// PIDFile remembers the process of a child.
func (l Layout) PIDFile(name string) string { return l.Run(name + ".pid") }

func (l Layout) data(first string, names []string) string {
	return filepath.Join(append([]string{l.DataDir, first}, names...)...)
}
