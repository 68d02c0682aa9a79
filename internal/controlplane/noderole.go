package controlplane

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"k0s.io/k0s/internal/component"
)

const (
	// RoleLabel is what a node says of its role when it registers.
	RoleLabel = "node.k0sproject.io/role"
	// roleLabelPrefix is where kubectl looks for roles; a kubelet may not set it for itself.
	roleLabelPrefix = "node-role.kubernetes.io/"
)

// controlPlane is a role that no node can give itself: each controller gives it to its own node.
const controlPlane = "control-plane"

// nodeRole gives nodes the role that they registered with.
func nodeRole(o Options) component.Component {
	log := o.Log.With("component", "node-role")
	return component.Background("node-role", func(ctx context.Context) error {
		client, err := o.adminClient()
		if err != nil {
			return err
		}
		labelNodes(ctx, client, o.NodeName, log)
		return nil
	}, log)
}

func labelNodes(ctx context.Context, client kubernetes.Interface, self string, log *slog.Logger) {
	label := func(obj any) {
		node, ok := obj.(*corev1.Node)
		if !ok || (node.Labels[RoleLabel] == controlPlane && node.Name != self) {
			return
		}
		if err := labelNode(ctx, client, node); err != nil && ctx.Err() == nil {
			log.Warn("Cannot label a node with its role", "node", node.Name, "error", err)
		}
	}
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(cache.NewFilteredListWatchFromClient(
			client.CoreV1().RESTClient(), "nodes", metav1.NamespaceAll,
			func(lo *metav1.ListOptions) { lo.LabelSelector = RoleLabel }), client),
		ObjectType: &corev1.Node{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    label,
			UpdateFunc: func(_, obj any) { label(obj) },
		},
	})
	informer.RunWithContext(ctx)
}

// labelNode adds the role's label unless the node has a role already.
func labelNode(ctx context.Context, client kubernetes.Interface, node *corev1.Node) error {
	for label := range node.Labels {
		if strings.HasPrefix(label, roleLabelPrefix) {
			return nil
		}
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": map[string]string{roleLabelPrefix + node.Labels[RoleLabel]: "true"}}})
	if err != nil {
		return err
	}
	if _, err := client.CoreV1().Nodes().Patch(ctx, node.Name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("patching node %s: %w", node.Name, err)
	}
	return nil
}
