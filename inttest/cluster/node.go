package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"k0s.io/k0s/inttest/testhost"
)

// Roles of a node, as `k0s token create` knows them.
const (
	Controller = "controller"
	Worker     = "worker"
)

// Node is k0s on a host: a controller, a worker, or both.
type Node struct {
	Host    *testhost.Host
	DataDir string
	// Role is Controller or Worker.
	Role string
	// Token is what it joins with. It needs that until it has joined: empty it to start what has joined.
	Token string
	// Process is the supervisor, Started when it was started.
	Process *testhost.Process
	Started time.Time

	args []string
}

func newNode(h *testhost.Host, role string, args ...string) *Node {
	n := &Node{Host: h, DataDir: DataDir, Role: role, args: append([]string{Program, role}, args...)}
	for i, arg := range args {
		if arg == "--data-dir" && i+1 < len(args) {
			n.DataDir = args[i+1]
		}
	}
	return n
}

// Name is its name as a node of the cluster.
func (n *Node) Name() string { return strings.ToLower(n.Host.Name) }

// Start starts k0s and waits for nothing.
func (n *Node) Start() error {
	args := n.args
	if n.Token != "" {
		args = append(args[:len(args):len(args)], n.Token)
	}
	started := time.Now()
	p, err := n.Host.Start("k0s", args...)
	if err != nil {
		return err
	}
	n.Process, n.Started = p, started
	return nil
}

// Stop asks k0s to stop and waits until it has. It returns how long that took.
func (n *Node) Stop(ctx context.Context) (time.Duration, error) {
	begin := time.Now()
	if err := n.Process.Signal(syscall.SIGTERM); err != nil {
		return 0, fmt.Errorf("stopping k0s: %w", err)
	}
	if err := n.Process.Wait(ctx); err != nil {
		return 0, fmt.Errorf("k0s after SIGTERM: %w", err)
	}
	return time.Since(begin), nil
}

// Kill kills the supervisor, and with it its children, as `kill -9` does.
func (n *Node) Kill(ctx context.Context) error {
	if err := n.Process.Signal(syscall.SIGKILL); err != nil {
		return fmt.Errorf("killing k0s: %w", err)
	}
	_ = n.Process.Wait(ctx) // that it was killed is how it ends
	return ctx.Err()
}

// Running says whether k0s was started and has not ended.
func (n *Node) Running() bool {
	if n.Process == nil {
		return false
	}
	select {
	case <-n.Process.Gone():
		return false
	default:
		return true
	}
}

// K0s runs a k0s command on the host and returns its standard output.
func (n *Node) K0s(ctx context.Context, args ...string) (string, error) {
	return n.Host.Output(ctx, append([]string{Program}, args...)...)
}

// PodProcess is a process of a pod on this node, by its id on the machine.
func (n *Node) PodProcess(pod *corev1.Pod) (int, error) {
	list, err := n.Host.Processes()
	if err != nil {
		return 0, err
	}
	for _, p := range list {
		groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", p.Pid))
		if err == nil && strings.Contains(string(groups), string(pod.UID)) {
			return p.Pid, nil
		}
	}
	return 0, fmt.Errorf("there is no process of the pod %s on %s", pod.Name, n.Host.Name)
}

// DiskUsed is how many bytes the data directory takes.
func (n *Node) DiskUsed(ctx context.Context) (int64, error) {
	out, err := n.Host.Output(ctx, "du", "--summarize", "--one-file-system", "--block-size=1", n.DataDir)
	if err != nil {
		return 0, err
	}
	var size int64
	if _, err := fmt.Sscan(out, &size); err != nil {
		return 0, fmt.Errorf("du said %q: %w", out, err)
	}
	return size, nil
}

// LogTail is the last lines of k0s's log.
func (n *Node) LogTail(lines int) string {
	text, err := os.ReadFile(n.Process.Log)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// client is the administrator's access to this controller's own API server. The kubeconfig names that by
// the host's loopback address; from here it is the host's.
func (n *Node) client() (*rest.Config, kubernetes.Interface, error) {
	return n.clientBy(func(config *rest.Config, server *url.URL) {
		config.Host = "https://" + net.JoinHostPort(n.Host.IP, server.Port())
	})
}

// clientBy is the administrator's access as this controller's kubeconfig has it, another way.
func (n *Node) clientBy(way func(config *rest.Config, server *url.URL)) (*rest.Config, kubernetes.Interface, error) {
	text, err := n.Host.ReadFile(n.DataDir + adminConfig)
	if err != nil {
		return nil, nil, err
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(text)
	if err != nil {
		return nil, nil, err
	}
	server, err := url.Parse(config.Host)
	if err != nil {
		return nil, nil, err
	}
	way(config, server)
	config.QPS, config.Burst = 200, 400
	client, err := kubernetes.NewForConfig(config)
	return config, client, err
}

// until asks over and over, about what cannot be watched, until there is no error. It ends early when k0s
// has ended on all of these nodes.
func until(ctx context.Context, nodes []*Node, every time.Duration, what string, ask func() error) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	last := errors.New("none")
	for {
		err := ask()
		if err == nil {
			return nil
		}
		if ctx.Err() == nil { // else it may only say that it was cut short
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s on %s: %w; the last answer was: %w", what, names(nodes), ctx.Err(), last)
		case <-tick.C:
		}
		ended := 0
		for _, n := range nodes {
			if !n.Running() {
				ended++
			}
		}
		if ended == len(nodes) {
			n := nodes[0]
			if n.Process == nil {
				return fmt.Errorf("waiting for %s on %s: k0s was not started", what, names(nodes))
			}
			return fmt.Errorf("waiting for %s on %s: k0s ended (%v); the last answer was: %w; the end of its log:\n%s",
				what, names(nodes), n.Process.Wait(ctx), last, n.LogTail(15))
		}
	}
}

func names(nodes []*Node) string {
	var all []string
	for _, n := range nodes {
		all = append(all, n.Host.Name)
	}
	return strings.Join(all, ", ")
}

// WaitReady waits until k0s on this host says that all of it is ready.
func (n *Node) WaitReady(ctx context.Context) error {
	return until(ctx, []*Node{n}, 100*time.Millisecond, "k0s to be ready", func() error {
		out, err := n.K0s(ctx, "status", "--out", "json")
		if err == nil && !strings.Contains(out, `"Ready": true`) {
			err = errors.New(out)
		}
		return err
	})
}
