package controlplane

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"k0s.io/k0s/internal/applet/name"
	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/flags"
	"k0s.io/k0s/internal/probe"
	"k0s.io/k0s/internal/process"
	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

func controllerManager(o Options) component.Component {
	return process.Component(name.KubeControllerManager, func() (process.Spec, error) {
		return o.spec(name.KubeControllerManager, o.Config.Spec.InstallConfig.Users.KubeAPIServerUser, controllerManagerArgs(o))
	}, o.healthz("ccm", v1beta1.ControllerManagerPort))
}

func controllerManagerArgs(o Options) []string {
	l := o.Layout
	extra := maps.Clone(o.ControllerManagerArgs)
	if extra == nil {
		extra = map[string]string{}
	}
	maps.Copy(extra, o.Config.Spec.ControllerManager.ExtraArgs)
	args := flags.Args{
		"allocate-node-cidrs":       "true",
		"authentication-kubeconfig": l.PKI("ccm.conf"),
		"authorization-kubeconfig":  l.PKI("ccm.conf"),
		"bind-address":              "127.0.0.1",
		"client-ca-file":            l.PKI("ca.crt"),
		"cluster-cidr":              strings.Join(o.Config.PodCIDRs(), ","),
		"cluster-name":              "k0s",
		"cluster-signing-cert-file": l.PKI("ca.crt"),
		"cluster-signing-key-file":  l.PKI("ca.key"),
		"controllers":               "*,bootstrapsigner,tokencleaner",
		"flex-volume-plugin-dir":    l.VolumePlugins(),
		// At its start it makes a service account token per controller: at the default of 20 requests a
		// second that alone takes 5 s.
		"kube-api-burst":                   "600",
		"kube-api-qps":                     "300",
		"kubeconfig":                       l.PKI("ccm.conf"),
		"leader-elect":                     strconv.FormatBool(!o.Alone),
		"profiling":                        "false",
		"requestheader-client-ca-file":     l.PKI("front-proxy-ca.crt"),
		"root-ca-file":                     l.PKI("ca.crt"),
		"service-account-private-key-file": l.PKI("sa.key"),
		"service-cluster-ip-range":         strings.Join(o.Config.ServiceCIDRs(), ","),
		"terminated-pod-gc-threshold":      "12500",
		"tls-cert-file":                    l.PKI("ccm.crt"),
		"tls-private-key-file":             l.PKI("ccm.key"),
		"use-service-account-credentials":  "true",
		"v":                                o.LogLevels[name.KubeControllerManager],
	}
	raw := o.Config.Spec.ControllerManager.RawArgs
	maps.Copy(args, nodeMaskSizes(o.Config, extra, raw))
	return flags.Compute(args.WithFeatureGates(o.Config.FeatureGatesOf(name.KubeControllerManager)), extra, raw)
}

// nodeMaskSizes are the flags for the sizes of nodes' parts of the pod CIDRs. Those for one family and
// the one for a cluster of one family exclude each other: where the user has chosen, it is theirs.
func nodeMaskSizes(c *v1beta1.ClusterConfig, extra map[string]string, raw []string) flags.Args {
	const flag = "node-cidr-mask-size"
	args := flags.Args{}
	for i, pods := range c.PodCIDRs() {
		family := "-ipv4"
		if strings.Contains(pods, ":") {
			family = "-ipv6"
		}
		args[flag+family] = strconv.Itoa(c.NodeMaskSizes()[i])
	}
	_, general := extra[flag]
	if general || slices.ContainsFunc(raw, func(arg string) bool { return strings.HasPrefix(strings.TrimLeft(arg, "-"), flag+"=") }) {
		return flags.Args{}
	}
	return args
}

func scheduler(o Options) component.Component {
	return process.Component(name.KubeScheduler, func() (process.Spec, error) {
		return o.spec(name.KubeScheduler, o.Config.Spec.InstallConfig.Users.KubeSchedulerUser, schedulerArgs(o))
	}, o.healthz("scheduler", v1beta1.SchedulerPort))
}

func schedulerArgs(o Options) []string {
	l := o.Layout
	return flags.Compute(flags.Args{
		"authentication-kubeconfig": l.PKI("scheduler.conf"),
		"authorization-kubeconfig":  l.PKI("scheduler.conf"),
		"bind-address":              "127.0.0.1",
		"kubeconfig":                l.PKI("scheduler.conf"),
		"leader-elect":              strconv.FormatBool(!o.Alone),
		"profiling":                 "false",
		"tls-cert-file":             l.PKI("scheduler.crt"),
		"tls-private-key-file":      l.PKI("scheduler.key"),
		"v":                         o.LogLevels[name.KubeScheduler],
	}.WithFeatureGates(o.Config.FeatureGatesOf(name.KubeScheduler)), o.Config.Spec.Scheduler.ExtraArgs, o.Config.Spec.Scheduler.RawArgs)
}

// healthz checks a program that serves on loopback with the certificate cert.
func (o Options) healthz(cert string, port int) check {
	l := o.Layout
	return probe.HTTP(fmt.Sprintf("https://127.0.0.1:%d/healthz", port), l.PKI("ca.crt"), l.PKI(cert+".crt"), l.PKI(cert+".key"))
}
