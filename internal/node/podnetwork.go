package node

import (
	"context"
	"fmt"
	"log/slog"

	corev1 "k8s.io/api/core/v1"

	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/network/kuberouter"
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

// podRoutes leads to the pods of the other nodes, as the table is told.
func podRoutes(table *routes.Table, log *slog.Logger) component.Component {
	c := component.Background("pod-routes", table.Run, log)
	fallen := c.Trouble
	c.Trouble = func() error {
		if err := fallen(); err != nil {
			return err
		}
		return table.Status().Err
	}
	return c
}

// podPaths tells the table where the pods of the other nodes are.
func podPaths(o Options, table *routes.Table) component.Component {
	return component.Background("pod-paths", func(ctx context.Context) error {
		client, err := o.nodeClient()
		if err != nil {
			return err
		}
		return kuberouter.NodePaths{Client: client, NodeName: o.NodeName, Set: table.Set}.Run(ctx)
	}, o.Log.With("component", "pod-paths"))
}
