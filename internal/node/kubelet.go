package node

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path"
	"slices"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	"sigs.k8s.io/yaml"

	"k0s.io/k0s/internal/applet/name"
	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/flags"
	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/internal/journal"
	"k0s.io/k0s/internal/pki"
	"k0s.io/k0s/internal/probe"
	"k0s.io/k0s/internal/process"
	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

func kubelet(o Options) component.Component {
	return process.Component(name.Kubelet, func() (process.Spec, error) {
		if err := prepareKubelet(o); err != nil {
			return process.Spec{}, err
		}
		return o.spec(name.Kubelet, kubeletArgs(o)), nil
	}, func(ctx context.Context) error {
		_, healthz, err := kubeletListens(o)
		if err != nil {
			return err
		}
		return probe.PlainHTTP("http://" + healthz.String() + "/healthz")(ctx)
	})
}

// kubeletListens is where the kubelet serves the API server, and its health without TLS.
func kubeletListens(o Options) (server, healthz host.Port, err error) {
	server = host.Port{Number: 10250, Usage: "the kubelet"}
	healthz = host.Port{Address: "127.0.0.1", Number: 10248, Usage: "the kubelet's health"}
	c, err := KubeletConfig(o, false, "")
	if err != nil {
		return server, healthz, err
	}
	if c.Address != "" && c.Address != "0.0.0.0" {
		server.Address = c.Address
	}
	if c.Port != 0 {
		server.Number = int(c.Port)
	}
	if c.HealthzPort != nil {
		healthz.Number = int(*c.HealthzPort)
	}
	if c.HealthzBindAddress != "" {
		healthz.Address = c.HealthzBindAddress
	}
	return server, healthz, nil
}

// nodeIPs are the addresses that the node is to have: the first of the host's of each family that the
// cluster has, the primary one first.
func (o Options) nodeIPs() string {
	families := []v1beta1.AddressFamily{o.Config.PrimaryFamily()}
	for _, other := range []v1beta1.AddressFamily{v1beta1.IPv4Family, v1beta1.IPv6Family} {
		if other != families[0] && o.Config.HasFamily(other) {
			families = append(families, other)
		}
	}
	var ips []string
	for _, family := range families {
		i := slices.IndexFunc(o.Addresses, func(a netip.Addr) bool { return a.Is4() == (family == v1beta1.IPv4Family) })
		if i >= 0 {
			ips = append(ips, o.Addresses[i].String())
		}
	}
	return strings.Join(ips, ",")
}

// checkNodeIPs refuses a host without an address of the primary family: its pods would not have one either.
func (o Options) checkNodeIPs() error {
	given := o.KubeletArgs["node-ip"]
	first, _, _ := strings.Cut(cmp.Or(given, o.nodeIPs()), ",")
	family := o.Config.PrimaryFamily()
	if address, err := netip.ParseAddr(first); given == "" && (err != nil || address.Is4() != (family == v1beta1.IPv4Family)) {
		return fmt.Errorf("this host has no %s address, which nodes of this cluster need (it has %v): give its network interface one, or name one by --kubelet-extra-args=--node-ip=ADDRESS",
			family, o.Addresses)
	}
	return nil
}

// prepareKubelet writes the kubelet's configuration, and down what it will leave on the host.
func prepareKubelet(o Options) error {
	if err := o.checkNodeIPs(); err != nil {
		return err
	}
	config, err := KubeletConfig(o, useSystemdCgroups(), host.ResolvConf())
	if err != nil {
		return err
	}
	for _, dir := range []string{o.Layout.KubeletRoot, o.kubeletPKI(), o.Layout.VolumePlugins()} {
		if err := host.MakeDir(dir, 0o755, 0); err != nil {
			return err
		}
	}
	if err := pki.MendKubeletCertificate(o.kubeletPKI() + "/kubelet-server-current.pem"); err != nil {
		return err
	}
	if dir := config.VolumePluginDir; dir != "" && dir != o.Layout.VolumePlugins() {
		if err := o.Journal.MakeDir(dir); err != nil {
			return err
		}
	}
	// Paths that the kubelet has built in, unless a profile says otherwise.
	logs := cmp.Or(config.PodLogsDir, "/var/log/pods")
	if err := o.Journal.AddUnlessThere(journal.Tree, logs, "/var/log/containers"); err != nil {
		return err
	}
	// Another kubelet may come to use these.
	const plugins = "/var/lib/kubelet/device-plugins"
	if err := o.Journal.AddUnlessThere(journal.Dir, "/var/lib/kubelet", plugins); err != nil {
		return err
	}
	if err := o.Journal.AddUnlessThere(journal.File, plugins+"/kubelet_internal_checkpoint"); err != nil {
		return err
	}
	if err := o.Journal.Add(journal.Entry{Kind: journal.Sockets, Name: plugins}); err != nil {
		return err
	}
	for _, cgroup := range []string{"kubepods", "kubepods.slice"} {
		name := strings.Trim(path.Join("/", config.CgroupRoot, cgroup), "/")
		if err := o.Journal.Add(journal.Entry{Kind: journal.Cgroup, Name: name}); err != nil {
			return err
		}
	}
	content, err := yaml.Marshal(config)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.Layout.Run("kubelet"), 0o755); err != nil {
		return err
	}
	return os.WriteFile(o.kubeletConfigFile(), content, 0o600)
}

func (o Options) kubeletPKI() string        { return o.Layout.KubeletRoot + "/pki" }
func (o Options) kubeletConfigFile() string { return o.Layout.Run("kubelet", "config.yaml") }

func kubeletArgs(o Options) []string {
	args := flags.Args{
		"cert-dir":          o.kubeletPKI(),
		"config":            o.kubeletConfigFile(),
		"hostname-override": o.NodeName,
		"kubeconfig":        o.Layout.KubeletConf(),
		"node-ip":           o.nodeIPs(),
		"root-dir":          o.Layout.KubeletRoot,
		"v":                 o.LogLevels[name.Kubelet],
	}
	if len(o.Labels) > 0 {
		var labels []string
		for _, key := range slices.Sorted(maps.Keys(o.Labels)) {
			labels = append(labels, key+"="+o.Labels[key])
		}
		args["node-labels"] = strings.Join(labels, ",")
	}
	if o.CloudProvider {
		args["cloud-provider"] = "external"
	}
	return flags.Compute(args, o.KubeletArgs, nil)
}

// KubeletConfig is what this node's kubelet is to do: the settings of its profile, laid over ours;
// the rest are the kubelet's own defaults. Where both have one, see v1beta1.WorkerProfile.
func KubeletConfig(o Options, systemdCgroups bool, resolvConf string) (*kubeletv1beta1.KubeletConfiguration, error) {
	ours, err := builtinKubeletConfig(o, systemdCgroups, resolvConf)
	if err != nil {
		return nil, err
	}
	builtin, err := json.Marshal(ours)
	if err != nil {
		return nil, err
	}
	profile, err := o.Config.KubeletSettings(o.Profile)
	if err != nil {
		return nil, err
	}
	merged, err := jsonpatch.MergePatch(builtin, profile)
	if err != nil {
		return nil, fmt.Errorf("laying worker profile %q over the built-in one: %w", o.Profile, err)
	}
	c := &kubeletv1beta1.KubeletConfiguration{}
	if err := json.Unmarshal(merged, c); err != nil {
		return nil, fmt.Errorf("worker profile %q: %w", o.Profile, err)
	}
	return c, nil
}

func builtinKubeletConfig(o Options, systemdCgroups bool, resolvConf string) (*kubeletv1beta1.KubeletConfiguration, error) {
	taints, err := parseTaints(o.Taints)
	if err != nil {
		return nil, err
	}
	dns := ""
	if addresses := o.Config.DNSAddresses(); len(addresses) > 0 {
		dns = addresses[0].String() // of the primary family, which every node has
	}
	c := &kubeletv1beta1.KubeletConfiguration{
		TypeMeta: metav1.TypeMeta{APIVersion: kubeletv1beta1.SchemeGroupVersion.String(), Kind: "KubeletConfiguration"},
		Authentication: kubeletv1beta1.KubeletAuthentication{
			Anonymous: kubeletv1beta1.KubeletAnonymousAuthentication{Enabled: new(false)},
			Webhook:   kubeletv1beta1.KubeletWebhookAuthentication{Enabled: new(true)},
			X509:      kubeletv1beta1.KubeletX509Authentication{ClientCAFile: o.Layout.PKI("ca.crt")},
		},
		Authorization:            kubeletv1beta1.KubeletAuthorization{Mode: kubeletv1beta1.KubeletAuthorizationModeWebhook},
		CgroupDriver:             "cgroupfs",
		ClusterDNS:               []string{dns},
		ClusterDomain:            o.Config.Spec.Network.ClusterDomain,
		ContainerRuntimeEndpoint: "unix://" + o.Layout.ContainerdSocket(),
		EventRecordQPS:           new(int32(0)), // no limit
		FailCgroupV1:             new(false),
		FailSwapOn:               new(false),
		// kube-proxy and the pod network need none of the kubelet's own iptables chains.
		MakeIPTablesUtilChains: new(false),
		RegisterWithTaints:     taints,
		ResolverConfig:         &resolvConf,
		RotateCertificates:     true,
		ServerTLSBootstrap:     true,
		TLSMinVersion:          "VersionTLS12",
		VolumePluginDir:        o.Layout.VolumePlugins(),
	}
	if systemdCgroups {
		c.CgroupDriver = "systemd"
	}
	return c, nil
}

// parseTaints reads key[=value]:effect.
func parseTaints(taints []string) ([]corev1.Taint, error) {
	var parsed []corev1.Taint
	for _, taint := range taints {
		what, effect, ok := strings.Cut(taint, ":")
		key, value, _ := strings.Cut(what, "=")
		switch corev1.TaintEffect(effect) {
		case corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute:
		default:
			ok = false
		}
		if !ok || key == "" {
			return nil, fmt.Errorf("taint %q: want KEY[=VALUE]:EFFECT, where EFFECT is NoSchedule, PreferNoSchedule or NoExecute", taint)
		}
		parsed = append(parsed, corev1.Taint{Key: key, Value: value, Effect: corev1.TaintEffect(effect)})
	}
	return parsed, nil
}

// CheckTaints says what is wrong with taints as given on the command line.
func CheckTaints(taints []string) error {
	_, err := parseTaints(taints)
	return err
}
