package node

import (
	"context"
	"errors"
	"fmt"
	"os"

	corev1 "k8s.io/api/core/v1"

	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/journal"
	"k0s.io/k0s/internal/network/kuberouter"
	"k0s.io/k0s/internal/network/kuberouter/policy"
	"k0s.io/k0s/internal/network/kuberouter/settings"
)

// networkPolicies enforces network policies on this node's pods, in two steps: the table is there, and the
// CNI plugin can ask, before there is a pod network; what the policies are may take longer to learn.
type networkPolicies struct {
	Options
	settings settings.Policy
}

// policyTable is the component that pods are not to be connected without.
const policyTable = "policy-table"

// policyDir is for the socket of the CNI plugin, and for what it has said.
func policyDir(o Options) string { return o.Layout.Run("policy") }

// table makes the table, in which no pod is, unless it is there, or pods run without it.
func (n *networkPolicies) table() component.Component {
	return component.Component{
		Name: policyTable,
		Start: func(ctx context.Context) error {
			component.Report(ctx, fmt.Errorf("the controller manager has not given node %s a pod CIDR", n.NodeName))
			node, err := awaitNode(ctx, n.Options, func(node *corev1.Node) bool { return len(node.Spec.PodCIDRs) > 0 })
			if err != nil {
				return err
			}
			guard := policy.Guard{Bridge: kuberouter.Bridge}
			network, err := kuberouter.ParseNode(node.Spec.PodCIDRs, n.Config.PodCIDRs())
			if err != nil {
				return err
			}
			for _, prefix := range network.PodCIDRs {
				guard.Families = append(guard.Families, policy.FamilyOf(prefix.Addr()))
			}
			client, err := n.nodeClient()
			if err != nil {
				return err
			}
			for _, table := range []string{policy.Table, policy.SenderTable} {
				if err := n.Journal.Add(journal.Entry{Kind: journal.NFTTable, Name: table}); err != nil {
					return err
				}
			}
			controller, err := policy.New(policy.Options{
				Client: client, NodeName: n.NodeName, Guard: guard, Dir: policyDir(n.Options), CutFlows: n.settings.CutEstablished,
				Log: n.Log.With("component", "network-policy"),
			})
			if err == nil {
				n.Network.policies.Store(controller)
			}
			return err
		},
		Stop: func(context.Context) error {
			if c := n.Network.policies.Swap(nil); c != nil {
				return c.Close()
			}
			return nil
		},
	}
}

// enforcement keeps the table in step with the API.
func (n *networkPolicies) enforcement() component.Component {
	const name = "network-policy"
	c := component.Background(name, func(ctx context.Context) error { return n.Network.policies.Load().Run(ctx) }, n.Log.With("component", name))
	failed := c.Trouble
	c.Trouble = func() error {
		if s := n.Network.policy(); s.Error != "" {
			return errors.New(s.Error)
		}
		return failed()
	}
	c.Details = func(context.Context) any { return n.Network.policy() }
	return c
}

// none takes the tables back that were made when policies were enforced, and what the CNI plugin has said: it says
// nothing more, so that this would be wrong by the time they are enforced again.
func (n *networkPolicies) none() component.Component {
	return component.Component{Name: policyTable, Start: func(context.Context) error {
		return errors.Join(policy.DeleteTables(), os.RemoveAll(policyDir(n.Options)))
	}}
}
