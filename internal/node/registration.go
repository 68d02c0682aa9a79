package node

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	watchtools "k8s.io/client-go/tools/watch"

	"k0s.io/k0s/internal/component"
)

// registration is ready once the kubelet has registered this node with the API.
func registration(o Options) component.Component {
	return component.Component{Name: "registration", Ready: func(ctx context.Context) error {
		component.Report(ctx, fmt.Errorf("the kubelet has not registered node %s", o.NodeName))
		_, err := awaitNode(ctx, o, func(*corev1.Node) bool { return true })
		return err
	}}
}

// awaitNode watches this node's object until it is as wanted. It asks as the node itself.
func awaitNode(ctx context.Context, o Options, wanted func(*corev1.Node) bool) (*corev1.Node, error) {
	client, err := o.nodeClient()
	if err != nil {
		return nil, err
	}
	own := fields.OneTermEqualSelector(metav1.ObjectNameField, o.NodeName).String()
	source := cache.ToListWatcherWithWatchListSemantics(cache.NewFilteredListWatchFromClient(
		client.CoreV1().RESTClient(), "nodes", metav1.NamespaceAll,
		func(lo *metav1.ListOptions) { lo.FieldSelector = own }), client)
	event, err := watchtools.UntilWithSync(ctx, source, &corev1.Node{}, nil, func(e watch.Event) (bool, error) {
		node, ok := e.Object.(*corev1.Node)
		return ok && e.Type != watch.Deleted && wanted(node), nil
	})
	if err != nil {
		return nil, fmt.Errorf("watching node %s: %w", o.NodeName, err)
	}
	node, ok := event.Object.(*corev1.Node)
	if !ok {
		return nil, fmt.Errorf("watching node %s: got a %T", o.NodeName, event.Object)
	}
	return node, nil
}

// nodeClient asks as the node itself.
func (o Options) nodeClient() (kubernetes.Interface, error) {
	config, err := clientcmd.BuildConfigFromFlags("", o.Layout.KubeletConf())
	if err != nil {
		return nil, err
	}
	config.UserAgent = "k0s"
	return kubernetes.NewForConfig(config)
}
