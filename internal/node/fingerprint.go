package node

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"k0s.io/k0s/internal/applet/name"
	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

// fingerprints say, by component, what each makes of the cluster's settings.
func fingerprints(o Options) (map[string]string, error) {
	kubelet, err := KubeletConfig(o, false, host.ResolvConf())
	if err != nil {
		return nil, err
	}
	kubeletConfig, err := json.Marshal(kubelet)
	if err != nil {
		return nil, err
	}
	network := o.Config.Spec.Network
	prints := map[string]string{
		name.Kubelet:    string(kubeletConfig) + strings.Join(kubeletArgs(o), "\n"),
		name.Containerd: o.Config.Spec.Images.Ref(o.Config.Spec.Images.Pause),
		nodeAddressName: o.nodeIPs(),
	}
	if !network.KubeProxy.Disabled {
		// The settings of both modes: which of them is used may be for the kernel to say.
		settings, err := json.Marshal(network.KubeProxy)
		if err != nil {
			return nil, err
		}
		prints[name.KubeProxy] = string(settings) + strings.Join(kubeProxyArgs(o, network.KubeProxy.Mode), "\n")
	}
	if !o.Alone && !o.WithoutTunnel {
		prints["tunnel"] = fmt.Sprint(o.Config.TunnelAddress(), o.Config.Spec.Konnectivity.AgentPort, o.tunnelAddresses())
	}
	if network.Provider == v1beta1.KubeRouterProvider {
		k := network.KubeRouter
		s, _ := k.Settings()
		if !o.Alone && s.BGP.Enabled {
			prints["routing"] = fmt.Sprint(o.Config.PodCIDRs(), o.Config.ServiceCIDRs(), k.PeerRouterIPs, k.PeerRouterASNs, k.ExtraArgs, k.RawArgs)
		}
		if s.Policy.Enabled {
			prints["network-policy"] = fmt.Sprint(s.Policy)
		}
		if s.Metrics.Port != 0 {
			prints[networkMetrics] = fmt.Sprint(s.Metrics, s.MetricsPath)
		}
		if s.Health.Port != 0 {
			prints[networkHealth] = fmt.Sprint(s.Health)
		}
		prints["pod-network"] = fmt.Sprint(o.Config.PodCIDRs(), k.AutoMTU, k.MTU, k.Hairpin, k.IPMasq, s.Egress, wrapping(o))
		if k.AutoMTU {
			prints["pod-network"] += o.nodeIPs()
		}
	}
	return prints, nil
}

// Changed lists the components of a worker that other settings of the cluster touch, in the order in which
// to start them anew. It is all of them, said by false, if the worker is to consist of others then.
func Changed(before, after Options) (components []string, sameSet bool, err error) {
	old, err := fingerprints(before)
	if err != nil {
		return nil, false, err
	}
	now, err := fingerprints(after)
	if err != nil {
		return nil, false, err
	}
	if len(old) != len(now) || old["network-policy"] != now["network-policy"] {
		return nil, false, nil
	}
	for _, component := range []string{name.Containerd, name.Kubelet, "pod-network", "routing", name.KubeProxy, "tunnel", nodeAddressName, networkMetrics, networkHealth} {
		was, there := old[component]
		is, stays := now[component]
		if there != stays {
			return nil, false, nil
		}
		if is != was {
			components = append(components, component)
		}
	}
	return slices.Clip(components), true, nil
}
