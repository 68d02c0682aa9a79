package node

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"strings"

	embeddedbins "k0s.io/k0s/embedded-bins"
	"k0s.io/k0s/internal/assets"
	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/internal/journal"
	"k0s.io/k0s/internal/network/kuberouter"
	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

// helpers unpacks the programs that are executed once per pod.
func helpers(o Options) component.Component {
	return component.Component{Name: "helpers", Start: func(ctx context.Context) error {
		if err := host.MakeDir(o.Layout.Bin(), 0o755, 0); err != nil {
			return err
		}
		return assets.Unpack(ctx, embeddedbins.Assets, o.Layout.Bin())
	}}
}

// path is the children's PATH.
func (o Options) path() string {
	inherited := os.Getenv("PATH")
	if inherited == "" {
		inherited = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	}
	return o.Layout.Bin() + ":" + inherited
}

// modules are kernel modules a node needs, each with a path that shows that it is there.
var modules = map[string]string{
	"overlay":      "/sys/module/overlay",
	"br_netfilter": "/proc/sys/net/bridge/bridge-nf-call-iptables",
	"nf_conntrack": "/proc/sys/net/netfilter/nf_conntrack_max",
}

// kernel prepares the kernel for pods. What this kernel does not have is warned of, not refused: it
// may be built in, or not be needed by this cluster.
func kernel(o Options) component.Component {
	log := o.Log.With("component", "kernel")
	return component.Component{Name: "kernel", Start: func(ctx context.Context) error {
		if o.Config.Spec.Network.Provider == v1beta1.KubeRouterProvider {
			settings, _ := o.Config.Spec.Network.KubeRouter.Settings()
			if err := kuberouter.RemoveStaleConfig(settings.Policy.Enabled); err != nil {
				log.Warn("Cannot tell whether the pod network of an earlier start is still there", "error", err)
			}
		}
		for module, probe := range modules {
			err := host.LoadModule(module, probe, func(name string) error {
				out, err := exec.CommandContext(ctx, "modprobe", name).CombinedOutput()
				if err != nil {
					return errors.New(strings.TrimSpace(string(out) + " " + err.Error()))
				}
				return nil
			})
			if err != nil {
				log.Warn("Cannot load a kernel module", "module", module, "error", err)
			}
		}
		settings := host.NodeSysctls()
		if o.Config.HasFamily(v1beta1.IPv6Family) {
			six, err := host.IPv6Sysctls()
			if err != nil {
				return err
			}
			settings = append(settings, six...)
		}
		for _, s := range settings {
			old, err := s.Get()
			if errors.Is(err, fs.ErrNotExist) {
				log.Debug("This kernel lacks a setting", "sysctl", s.Path)
				continue
			}
			if err == nil && old != s.Value {
				if err = o.Journal.Add(journal.Entry{Kind: journal.Sysctl, Name: s.Path, Old: old}); err == nil {
					err = s.Set()
				}
			}
			if err != nil {
				log.Warn("Cannot change a kernel setting: pods may not reach each other", "sysctl", s.Path, "error", err)
			}
		}
		return nil
	}}
}
