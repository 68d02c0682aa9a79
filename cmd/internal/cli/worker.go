package cli

import (
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"strings"

	"github.com/spf13/pflag"

	"k0s.io/k0s/internal/applet/name"
	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/internal/node"
	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

// WorkerFlags are common to all that can be a node.
type WorkerFlags struct {
	Profile         string
	Logging         map[string]string
	Labels          map[string]string
	Taints          []string
	KubeletRoot     string
	KubeletArgs     string
	CloudProvider   bool
	IgnorePreflight bool
}

// AddTo registers the flags.
func (f *WorkerFlags) AddTo(fs *pflag.FlagSet) {
	fs.StringVar(&f.Profile, "profile", v1beta1.DefaultProfile, "the node's worker profile: kubelet settings by this name in spec.workerProfiles")
	fs.StringToStringVarP(&f.Logging, "logging", "l", DefaultLogLevels(), "log level of each program, merged onto the defaults")
	fs.StringToStringVar(&f.Labels, "labels", nil, "labels the node registers with")
	fs.StringSliceVar(&f.Taints, "taints", nil, "taints the node registers with: KEY[=VALUE]:EFFECT")
	fs.StringVar(&f.KubeletRoot, "kubelet-root-dir", "", "the kubelet's state (default <data-dir>/kubelet)")
	fs.StringVar(&f.KubeletArgs, "kubelet-extra-args", "", "flags that override the kubelet's, as one string")
	fs.BoolVar(&f.CloudProvider, "enable-cloud-provider", false, "leave initialising the node to an external cloud provider")
	fs.BoolVar(&f.IgnorePreflight, "ignore-pre-flight-checks", false, "start even if a check of the host fails")
}

// Node turns the flags into what a node is to be, but for its configuration and its journal. Labels are
// those that it has anyway, taints those beside the given ones. programs, which may be nil, know
// the kubelet's flags.
func (f *WorkerFlags) Node(layout host.Layout, addresses []netip.Addr, labels map[string]string, taints []string, programs v1beta1.Programs, log *slog.Logger) (node.Options, error) {
	o := node.Options{
		Network:   &node.Network{},
		Addresses: addresses, Layout: layout, Labels: maps.Clone(labels), Taints: append(append([]string(nil), f.Taints...), taints...),
		CloudProvider: f.CloudProvider, Profile: f.Profile, Log: log,
	}
	if o.Labels == nil {
		o.Labels = map[string]string{}
	}
	maps.Copy(o.Labels, f.Labels)
	if err := node.CheckTaints(o.Taints); err != nil {
		return o, err
	}
	var err error
	if o.NodeName, err = host.NodeName(); err != nil {
		return o, err
	}
	if o.LogLevels, err = LogLevels(f.Logging); err != nil {
		return o, err
	}
	if o.KubeletArgs, err = ExtraArgs("--kubelet-extra-args", f.KubeletArgs, name.Kubelet, programs); err != nil {
		return o, err
	}
	if override := o.KubeletArgs["hostname-override"]; override != "" {
		o.NodeName = strings.ToLower(override)
	}
	return o, nil
}

// FitForWorkloads tells why this host cannot run pods.
func FitForWorkloads() error {
	if _, err := host.CgroupVersion(); err != nil {
		return fmt.Errorf("pods need control groups: %w", err)
	}
	return nil
}
