package node

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/network/kuberouter"
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
			if network.MTU, err = kuberouter.UplinkMTU(); err != nil {
				return err
			}
		}
		network.Hairpin = settings.EffectiveHairpin() != v1beta1.HairpinDisabled
		network.Masquerade = settings.IPMasq
		network.IPAMDir = o.Layout.Run("cni")
		return network.Apply(o.Journal)
	}}
}
