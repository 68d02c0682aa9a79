package node

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	componentbase "k8s.io/component-base/config/v1alpha1"
	kubeproxyv1alpha1 "k8s.io/kube-proxy/config/v1alpha1"
	"sigs.k8s.io/yaml"

	"k0s.io/k0s/internal/applet/name"
	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/flags"
	"k0s.io/k0s/internal/journal"
	"k0s.io/k0s/internal/probe"
	"k0s.io/k0s/internal/process"
	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

func kubeProxy(o Options) component.Component {
	settings := o.Config.Spec.Network.KubeProxy
	return process.Component(name.KubeProxy, func() (process.Spec, error) {
		mode := settings.Mode
		if mode == v1beta1.AutoProxyMode {
			mode = detectProxyMode(o)
		}
		traces := []journal.Entry{{Kind: journal.NFTTable, Name: "ip kube-proxy"}, {Kind: journal.NFTTable, Name: "ip6 kube-proxy"}}
		if mode == v1beta1.IPTablesProxyMode {
			traces = []journal.Entry{{Kind: journal.IPTables, Name: name.KubeProxy}}
		}
		for _, trace := range traces {
			if err := o.Journal.Add(trace); err != nil {
				return process.Spec{}, err
			}
		}
		content, err := yaml.Marshal(kubeProxyConfig(o, mode))
		if err != nil {
			return process.Spec{}, err
		}
		config := o.Layout.Run("kube-proxy.yaml")
		if err := os.WriteFile(config, content, 0o600); err != nil {
			return process.Spec{}, err
		}
		args := flags.Compute(flags.Args{"config": config, "v": o.LogLevels[name.KubeProxy]}, settings.ExtraArgs, settings.RawArgs)
		return o.spec(name.KubeProxy, args), nil
	}, probe.PlainHTTP("http://"+settings.HealthzBindAddress+"/livez"))
}

// KubeProxyConf is the kubeconfig of kube-proxy.
func KubeProxyConf(o Options) string { return o.Layout.PKI("kube-proxy.conf") }

// detectProxyMode tries a transaction like those of kube-proxy without carrying it out.
func detectProxyMode(o Options) v1beta1.KubeProxyMode {
	nft := exec.Command(filepath.Join(o.Layout.Bin(), "nft"), "--check", "--file", "-")
	nft.Stdin = strings.NewReader("add table ip k0s-probe\nadd chain ip k0s-probe nat { type nat hook prerouting priority -100; }\n" +
		"add map ip k0s-probe services { type ipv4_addr . inet_proto . inet_service : verdict; }\n")
	if out, err := nft.CombinedOutput(); err != nil {
		o.Log.Warn("This kernel cannot do what kube-proxy needs of nftables: using iptables", "component", name.KubeProxy,
			"error", fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out))))
		return v1beta1.IPTablesProxyMode
	}
	return v1beta1.NFTablesProxyMode
}

func kubeProxyConfig(o Options, mode v1beta1.KubeProxyMode) *kubeproxyv1alpha1.KubeProxyConfiguration {
	s := o.Config.Spec.Network.KubeProxy
	return &kubeproxyv1alpha1.KubeProxyConfiguration{
		TypeMeta:           metav1.TypeMeta{APIVersion: kubeproxyv1alpha1.SchemeGroupVersion.String(), Kind: "KubeProxyConfiguration"},
		ClientConnection:   componentbase.ClientConnectionConfiguration{Kubeconfig: KubeProxyConf(o)},
		ClusterCIDR:        o.Config.Spec.Network.PodCIDR,
		HostnameOverride:   o.NodeName,
		MetricsBindAddress: s.MetricsBindAddress,
		HealthzBindAddress: s.HealthzBindAddress,
		Mode:               kubeproxyv1alpha1.ProxyMode(mode),
		NodePortAddresses:  s.NodePortAddresses,
		// The host's connection tracking table keeps the size and the time-outs it has.
		Conntrack: kubeproxyv1alpha1.KubeProxyConntrackConfiguration{
			MaxPerCore: new(int32(0)), Min: new(int32(0)),
			TCPEstablishedTimeout: new(metav1.Duration{}), TCPCloseWaitTimeout: new(metav1.Duration{}),
		},
		IPTables: kubeproxyv1alpha1.KubeProxyIPTablesConfiguration{
			MasqueradeBit: s.IPTables.MasqueradeBit, MasqueradeAll: s.IPTables.MasqueradeAll,
			LocalhostNodePorts: s.IPTables.LocalhostNodePorts,
			SyncPeriod:         s.IPTables.SyncPeriod, MinSyncPeriod: s.IPTables.MinSyncPeriod,
		},
		NFTables: kubeproxyv1alpha1.KubeProxyNFTablesConfiguration{
			MasqueradeBit: s.NFTables.MasqueradeBit, MasqueradeAll: s.NFTables.MasqueradeAll,
			SyncPeriod: s.NFTables.SyncPeriod, MinSyncPeriod: s.NFTables.MinSyncPeriod,
		},
	}
}
