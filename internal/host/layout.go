// Package host knows the machine k0s runs on: where files go, its users, addresses, cgroups and
// kernel.
package host

import (
	"os"
	"path/filepath"
)

// Defaults of the layout, used when k0s runs as root.
const (
	DefaultDataDir = "/var/lib/k0s"
	DefaultRunDir  = "/run/k0s"
)

// Layout says where k0s keeps its files.
type Layout struct {
	// DataDir holds what must outlive a reboot.
	DataDir string
	// RunDir holds sockets, pid files and generated configuration, new at every boot.
	RunDir string
	// KubeletRoot is the kubelet's state. Default: DataDir/kubelet.
	KubeletRoot string
}

// NewLayout returns the layout for dataDir (default DefaultDataDir), made absolute.
func NewLayout(dataDir, kubeletRoot string) (Layout, error) {
	if dataDir == "" {
		dataDir = DefaultDataDir
	}
	dataDir, err := filepath.Abs(dataDir)
	if err != nil {
		return Layout{}, err
	}
	runDir := DefaultRunDir
	if os.Geteuid() != 0 {
		runDir = filepath.Join(dataDir, "run")
	}
	if kubeletRoot == "" {
		kubeletRoot = filepath.Join(dataDir, "kubelet")
	} else if kubeletRoot, err = filepath.Abs(kubeletRoot); err != nil {
		return Layout{}, err
	}
	return Layout{DataDir: dataDir, RunDir: runDir, KubeletRoot: kubeletRoot}, nil
}

// Bin is where the helpers are unpacked.
func (l Layout) Bin(names ...string) string { return l.data("bin", names) }

// PKI is where certificates and the kubeconfigs made from them are.
func (l Layout) PKI(names ...string) string { return l.data("pki", names) }

// Etcd is etcd's data directory.
func (l Layout) Etcd(names ...string) string { return l.data("etcd", names) }

// Containerd is containerd's root.
func (l Layout) Containerd() string { return l.data("containerd", nil) }

// Images is where image archives for import are dropped.
func (l Layout) Images() string { return l.data("images", nil) }

// Manifests is where users drop their stacks.
func (l Layout) Manifests() string { return l.data("manifests", nil) }

// VolumePlugins is where flex volume plugins are dropped.
func (l Layout) VolumePlugins() string { return l.data("kubelet-plugins", []string{"volume", "exec"}) }

// KubeletConf is the kubelet's kubeconfig.
func (l Layout) KubeletConf() string { return l.data("kubelet.conf", nil) }

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

// PIDFile remembers the process of a child.
func (l Layout) PIDFile(name string) string { return l.Run(name + ".pid") }

func (l Layout) data(first string, names []string) string {
	return filepath.Join(append([]string{l.DataDir, first}, names...)...)
}
