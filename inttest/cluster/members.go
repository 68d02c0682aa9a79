package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"k0s.io/k0s/inttest/testhost"
)

// Token makes a join token, on a controller whose k0s runs, with further arguments of `k0s token create`.
func (c *Cluster) Token(ctx context.Context, role string, args ...string) (string, error) {
	for _, n := range c.Controllers() {
		if n.Running() {
			token, err := n.K0s(ctx, append([]string{"token", "create", "--role=" + role}, args...)...)
			return strings.TrimSpace(token), err
		}
	}
	return "", errors.New("k0s runs on no controller to make a token")
}

// Join makes a token and starts k0s with it on a host where k0s is installed: `k0s ROLE ARGS TOKEN`.
// It does not wait for the node to have joined (WaitNodes, WaitControllers).
func (c *Cluster) Join(ctx context.Context, h *testhost.Host, role string, args ...string) (*Node, error) {
	token, err := c.Token(ctx, role)
	if err != nil {
		return nil, err
	}
	return c.JoinWith(h, role, token, args...)
}

// JoinWith is Join with a token that is there already.
func (c *Cluster) JoinWith(h *testhost.Host, role, token string, args ...string) (*Node, error) {
	n := newNode(h, role, args...)
	n.Token = token
	c.Add(n)
	return n, n.Start()
}

// Add counts a node among those of the cluster.
func (c *Cluster) Add(n *Node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.joined = append(c.joined, n)
}

// Remove counts a node no longer among those of the cluster: it has left, or was wiped.
func (c *Cluster) Remove(n *Node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.joined = slices.DeleteFunc(c.joined, func(other *Node) bool { return other == n })
}

// Nodes are all hosts of the cluster, the first controller first.
func (c *Cluster) Nodes() []*Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*Node{&c.Node}, c.joined...)
}

// Controllers are the controllers, the first one first.
func (c *Cluster) Controllers() []*Node { return c.withRole(Controller) }

// Workers are the nodes that joined as workers.
func (c *Cluster) Workers() []*Node { return c.withRole(Worker) }

func (c *Cluster) withRole(role string) []*Node {
	return slices.DeleteFunc(c.Nodes(), func(n *Node) bool { return n.Role != role })
}

// Through returns access to the API as one controller's API server serves it.
func (c *Cluster) Through(controller *Node) (kubernetes.Interface, error) {
	_, client, err := controller.client()
	return client, err
}

// balancerPort is the default port of the balancer in a worker.
const balancerPort = "7443"

// ThroughBalancer returns access to the API from a worker's host, through the balancer in its k0s.
func (c *Cluster) ThroughBalancer(worker *Node) (kubernetes.Interface, error) {
	return c.ThroughPort(worker, balancerPort)
}

// ThroughPort is ThroughBalancer where the balancer has another port.
func (c *Cluster) ThroughPort(worker *Node, port string) (kubernetes.Interface, error) {
	for _, n := range c.Controllers() {
		_, client, err := n.clientBy(func(config *rest.Config, _ *url.URL) {
			config.Host = "https://" + net.JoinHostPort("127.0.0.1", port)
			config.Dial = worker.Host.Dial
		})
		if err == nil {
			return client, nil
		}
	}
	return nil, errors.New("no controller's host is on and has an administrator's kubeconfig")
}

// WaitAnyAPI waits until /readyz of any controller says ok, and makes Config and Client lead to that one.
func (c *Cluster) WaitAnyAPI(ctx context.Context) error {
	return until(ctx, c.Controllers(), 100*time.Millisecond, "any API server to be ready", func() error {
		type answer struct {
			config *rest.Config
			client kubernetes.Interface
			err    error
		}
		controllers := c.Controllers()
		answers := make(chan answer, len(controllers))
		for _, n := range controllers {
			go func() {
				config, client, err := n.client()
				if err == nil {
					err = readyz(ctx, client)
				}
				answers <- answer{config, client, err}
			}()
		}
		var errs []error
		for range controllers {
			a := <-answers
			if a.err == nil {
				c.Config, c.Client = a.config, a.client
				return nil
			}
			errs = append(errs, a.err)
		}
		return errors.Join(errs...)
	})
}

// WaitControllers waits until /readyz of each of these controllers' own API servers says ok.
func (c *Cluster) WaitControllers(ctx context.Context, nodes ...*Node) error {
	return each(nodes, func(n *Node) error {
		return until(ctx, []*Node{n}, 50*time.Millisecond, "its API to be ready", func() error {
			_, client, err := n.client()
			if err != nil {
				return err
			}
			return readyz(ctx, client)
		})
	})
}

// WaitNodes waits until each of these is a Ready node, by a report of its present run of k0s.
func (c *Cluster) WaitNodes(ctx context.Context, nodes ...*Node) error {
	return Watch(ctx, c.Client.CoreV1().RESTClient(), "nodes", "", func(all map[string]*corev1.Node) error {
		for _, n := range nodes {
			node := all[n.Name()]
			if node == nil {
				return fmt.Errorf("there is no node %s", n.Name())
			}
			if err := nodeReady(node, n.Started); err != nil {
				return err
			}
		}
		return nil
	})
}

// each does something for all nodes at once, and returns when all is done.
func each(nodes []*Node, do func(*Node) error) error {
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() { errs[i] = do(n) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// CheckOneCluster says what tells of more than one cluster: another cluster id in the identity.json of any
// node whose host is on, a store without identity, or an API server of a running controller that serves
// other objects than the rest do.
func (c *Cluster) CheckOneCluster(ctx context.Context) error {
	ids, namespaces := map[string][]string{}, map[string][]string{}
	for _, n := range c.Nodes() {
		if n.Host.Pid() == 0 {
			continue
		}
		id, err := n.clusterID()
		if err != nil {
			return err
		}
		if id != "" {
			ids[id] = append(ids[id], n.Host.Name)
		}
		if n.Role != Controller || !n.Running() {
			continue
		}
		// What does not answer is no second cluster.
		if uid, err := n.uid(ctx); err == nil {
			namespaces[uid] = append(namespaces[uid], n.Host.Name)
		}
	}
	if len(ids) != 1 {
		return fmt.Errorf("there is not one cluster id in %s/identity.json everywhere: %v", DataDir, ids)
	}
	if len(namespaces) > 1 {
		return fmt.Errorf("the API servers serve more than one cluster: the uid of the namespace kube-system is %v", namespaces)
	}
	return nil
}

// clusterID is what the node's identity says; empty when it has none, nor anything to identify, and when
// it was told to join and has not yet heard which cluster that is.
func (n *Node) clusterID() (string, error) {
	_, err := n.Host.ReadFile(n.DataDir + "/etcd/member/snap/db")
	store := err == nil
	text, err := n.Host.ReadFile(n.DataDir + "/identity.json")
	if errors.Is(err, fs.ErrNotExist) {
		if store {
			return "", fmt.Errorf("%s has a store and no identity", n.Host.Name)
		}
		return "", nil
	}
	var identity struct {
		ClusterID string `json:"clusterID"`
		State     string `json:"state"`
	}
	if err == nil {
		err = json.Unmarshal(text, &identity)
	}
	switch {
	case err != nil:
		return "", fmt.Errorf("the identity of %s: %w", n.Host.Name, err)
	case identity.ClusterID == "" && identity.State == "joining" && !store:
		return "", nil
	}
	return cmp.Or(identity.ClusterID, "(none)"), nil
}

// uid is that of the namespace kube-system, which is another one in each cluster.
func (n *Node) uid(ctx context.Context) (string, error) {
	_, client, err := n.client()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	ns, err := client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	return string(ns.UID), nil
}
