package node

import (
	"cmp"
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/network/kuberouter"
	"k0s.io/k0s/internal/network/kuberouter/forward"
	"k0s.io/k0s/internal/network/kuberouter/policy"
	"k0s.io/k0s/internal/network/kuberouter/routes"
	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

// podNetwork connects this node's pods as soon as the node's pod CIDR is known.
func podNetwork(o Options) component.Component {
	settings := o.Config.Spec.Network.KubeRouter
	return component.Component{Name: "pod-network", Start: func(ctx context.Context) error {
		component.Report(ctx, fmt.Errorf("the controller manager has not given node %s a pod CIDR", o.NodeName))
		node, err := awaitNode(ctx, o, func(n *corev1.Node) bool { return len(n.Spec.PodCIDRs) > 0 })
		if err != nil {
			return err
		}
		network, err := kuberouter.ParseNode(node.Spec.PodCIDRs, o.Config.PodCIDRs())
		if err != nil {
			return err
		}
		network.MTU = settings.MTU
		if settings.AutoMTU {
			if network.MTU, err = kuberouter.UplinkMTU(o.Addresses); err != nil {
				return err
			}
			if network.MTU > 0 {
				network.MTU -= wrapping(o)
			}
		}
		network.Hairpin = settings.Hairpin != v1beta1.HairpinDisabled
		network.Masquerade = settings.IPMasq
		asked, _ := settings.Settings()
		network.Shown = !asked.Egress
		network.IPAMDir = o.Layout.Run("cni")
		if s, _ := settings.Settings(); s.Policy.Enabled {
			network.PolicySocket = policy.Socket(policyDir(o))
		}
		return network.Apply(o.Journal)
	}}
}

// wrapping is how much smaller pods' packets are to be: by what the tunnel adds, where all goes through it. Where
// only some does, those routes have an MTU of their own.
func wrapping(o Options) int {
	s, _ := o.Config.Spec.Network.KubeRouter.Settings()
	if o.Alone || overlay(s.Overlay) != routes.Full {
		return 0
	}
	widest := 0
	for _, address := range o.Addresses {
		widest = max(widest, routes.Overhead(cmp.Or(routes.Encapsulation(s.Overlay.Encapsulation), routes.VXLAN), address))
	}
	return widest
}

// podForwarding lets pods' packets pass where the host's packet filter forwards nothing that it was not told of.
func podForwarding(o Options) component.Component {
	log := o.Log.With("component", "pod-forwarding")
	return component.Background("pod-forwarding", forward.Pods{
		Networks: prefixes(o.Config.PodCIDRs()...), Journal: o.Journal, Log: log,
		Tool: func(name string) string { return o.Layout.Bin(name) },
	}.Keep, log)
}
