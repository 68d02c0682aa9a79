package node

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

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
		if err := recordProxyTraces(o.Journal, mode); err != nil {
			return process.Spec{}, err
		}
		return o.spec(name.KubeProxy, kubeProxyArgs(o, mode)), nil
	}, probe.PlainHTTP("http://"+settings.HealthzBindAddress+"/livez"))
}

// recordProxyTraces writes down what kube-proxy is about to make.
func recordProxyTraces(j *journal.Journal, mode v1beta1.KubeProxyMode) error {
	if mode == v1beta1.IPTablesProxyMode {
		return j.AddIPTables(name.KubeProxy)
	}
	for _, table := range proxyTables {
		if err := j.Add(journal.Entry{Kind: journal.NFTTable, Name: table}); err != nil {
			return err
		}
	}
	return nil
}

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

// kubeProxyArgs runs kube-proxy from flags alone: with a configuration file it would ignore extraArgs.
func kubeProxyArgs(o Options, mode v1beta1.KubeProxyMode) []string {
	s := o.Config.Spec.Network.KubeProxy
	args := flags.Args{
		"cluster-cidr":         strings.Join(o.Config.PodCIDRs(), ","),
		"healthz-bind-address": s.HealthzBindAddress,
		"hostname-override":    o.NodeName,
		"kubeconfig":           o.Layout.KubeProxyConf(),
		"metrics-bind-address": s.MetricsBindAddress,
		"proxy-mode":           string(mode),
		"v":                    o.LogLevels[name.KubeProxy],
		// The host's connection tracking table keeps the size and the time-outs it has.
		"conntrack-max-per-core":            "0",
		"conntrack-min":                     "0",
		"conntrack-tcp-timeout-established": "0s",
		"conntrack-tcp-timeout-close-wait":  "0s",
	}
	if len(s.NodePortAddresses) > 0 {
		args["nodeport-addresses"] = strings.Join(s.NodePortAddresses, ",")
	}
	if (mode == v1beta1.NFTablesProxyMode && s.NFTables.MasqueradeAll) || (mode == v1beta1.IPTablesProxyMode && s.IPTables.MasqueradeAll) {
		args["masquerade-all"] = "true"
	}
	if mode == v1beta1.IPTablesProxyMode {
		if bit := s.IPTables.MasqueradeBit; bit != nil {
			args["iptables-masquerade-bit"] = strconv.Itoa(int(*bit))
		}
		if local := s.IPTables.LocalhostNodePorts; local != nil {
			args["iptables-localhost-nodeports"] = strconv.FormatBool(*local)
		}
	}
	// In spite of their names, kube-proxy takes these flags in both modes.
	period, minPeriod := s.IPTables.SyncPeriod, s.IPTables.MinSyncPeriod
	if mode == v1beta1.NFTablesProxyMode {
		period, minPeriod = s.NFTables.SyncPeriod, s.NFTables.MinSyncPeriod
	}
	if period.Duration != 0 {
		args["iptables-sync-period"] = period.Duration.String()
	}
	if minPeriod.Duration != 0 {
		args["iptables-min-sync-period"] = minPeriod.Duration.String()
	}
	return flags.Compute(args.WithFeatureGates(o.Config.FeatureGatesOf(name.KubeProxy)), s.ExtraArgs, s.RawArgs)
}
