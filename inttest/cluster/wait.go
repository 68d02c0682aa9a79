package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
)

// Watch follows the objects of a kind in a namespace ("" for all, or for a kind without)
// until seen, given all of them, says nil. The error says what seen missed last.
func Watch[T runtime.Object](ctx context.Context, client rest.Interface, resource, namespace string, seen func(all map[string]T) error) error {
	all := map[string]T{}
	missing := fmt.Errorf("no %s seen", resource)
	var example T
	_, err := watchtools.UntilWithSync(ctx,
		cache.NewListWatchFromClient(client, resource, namespace, fields.Everything()),
		newOf(example), nil,
		func(event watch.Event) (bool, error) {
			object, ok := event.Object.(T)
			if !ok {
				return false, nil
			}
			meta := any(object).(metav1.Object)
			if event.Type == watch.Deleted {
				delete(all, meta.GetName())
			} else {
				all[meta.GetName()] = object
			}
			missing = seen(all)
			return missing == nil, nil
		})
	if err != nil {
		return fmt.Errorf("watching %s: %w: %w", resource, err, missing)
	}
	return nil
}

// newOf is an empty object of T's kind.
func newOf[T runtime.Object](example T) runtime.Object {
	switch any(example).(type) {
	case *corev1.Node:
		return &corev1.Node{}
	case *corev1.ServiceAccount:
		return &corev1.ServiceAccount{}
	default:
		return &corev1.Pod{}
	}
}

// WaitNode waits until a node of the cluster is Ready, by a report since k0s was started on the first
// controller.
func (c *Cluster) WaitNode(ctx context.Context) error {
	return Watch(ctx, c.Client.CoreV1().RESTClient(), "nodes", "", func(all map[string]*corev1.Node) error {
		err := errors.New("no node has registered")
		for _, node := range all {
			if err = nodeReady(node, c.Started); err == nil {
				return nil
			}
		}
		return err
	})
}

// nodeReady says why a node is not Ready by a report since a time.
func nodeReady(node *corev1.Node, since time.Time) error {
	for _, condition := range node.Status.Conditions {
		if condition.Type != corev1.NodeReady {
			continue
		}
		// A time in the API has whole seconds.
		if condition.LastHeartbeatTime.Unix() < since.Unix() {
			return fmt.Errorf("node %s has not reported since the start", node.Name)
		}
		if condition.Status != corev1.ConditionTrue {
			return fmt.Errorf("node %s is not ready: %s", node.Name, condition.Message)
		}
		return nil
	}
	return fmt.Errorf("node %s has not reported its readiness", node.Name)
}

// systemPods is what the names of the default system pods begin with.
var systemPods = []string{"coredns-", "metrics-server-"}

// WaitSystemPods waits until there is each of the default system pods, and all pods of
// kube-system are ready.
func (c *Cluster) WaitSystemPods(ctx context.Context) error {
	return Watch(ctx, c.Client.CoreV1().RESTClient(), "pods", "kube-system", func(all map[string]*corev1.Pod) error {
		for _, prefix := range systemPods {
			there := false
			for name := range all {
				there = there || strings.HasPrefix(name, prefix)
			}
			if !there {
				return fmt.Errorf("there is no pod %s…", prefix)
			}
		}
		for _, pod := range all {
			if err := Ready(pod); err != nil {
				return err
			}
		}
		return nil
	})
}

// WaitPod waits until a pod meets a condition.
func (c *Cluster) WaitPod(ctx context.Context, namespace, name string, met func(*corev1.Pod) error) error {
	return Watch(ctx, c.Client.CoreV1().RESTClient(), "pods", namespace, func(all map[string]*corev1.Pod) error {
		pod := all[name]
		if pod == nil {
			return fmt.Errorf("there is no pod %s", name)
		}
		return met(pod)
	})
}

// WaitDefaultServiceAccount waits until pods can be created in the default namespace.
func (c *Cluster) WaitDefaultServiceAccount(ctx context.Context) error {
	return Watch(ctx, c.Client.CoreV1().RESTClient(), "serviceaccounts", metav1.NamespaceDefault, func(all map[string]*corev1.ServiceAccount) error {
		if all["default"] == nil {
			return errors.New("there is no ServiceAccount default/default")
		}
		return nil
	})
}

// Ready says why a pod is not ready.
func Ready(pod *corev1.Pod) error {
	if pod.Status.Phase == corev1.PodSucceeded {
		return nil
	}
	i := slices.IndexFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady })
	if i < 0 || pod.Status.Conditions[i].Status != corev1.ConditionTrue || pod.DeletionTimestamp != nil {
		return fmt.Errorf("pod %s is not ready: %s", pod.Name, states(pod))
	}
	return nil
}

// Running says why a pod is not running.
func Running(pod *corev1.Pod) error {
	if pod.Status.Phase != corev1.PodRunning {
		return fmt.Errorf("pod %s is not running: %s", pod.Name, states(pod))
	}
	return nil
}

// Succeeded says why a pod has not ended well.
func Succeeded(pod *corev1.Pod) error {
	if pod.Status.Phase != corev1.PodSucceeded {
		return fmt.Errorf("pod %s has not succeeded: %s", pod.Name, states(pod))
	}
	return nil
}

// states puts a pod's state in a line.
func states(pod *corev1.Pod) string {
	said := []string{string(pod.Status.Phase)}
	for _, c := range pod.Status.Conditions {
		if c.Status != corev1.ConditionTrue && c.Message != "" {
			said = append(said, c.Message)
		}
	}
	for _, c := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
		switch {
		case c.State.Waiting != nil:
			said = append(said, c.Name+" waits: "+c.State.Waiting.Reason+" "+c.State.Waiting.Message)
		case c.State.Terminated != nil:
			said = append(said, fmt.Sprintf("%s ended with %d: %s %s", c.Name, c.State.Terminated.ExitCode, c.State.Terminated.Reason, c.State.Terminated.Message))
		}
	}
	return strings.Join(said, "; ")
}
