// Package cluster runs k0s on test hosts, and waits for what it becomes.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"k0s.io/k0s/inttest/testhost"
)

const (
	// Program is where Install puts the executable on a host.
	Program = "/usr/local/bin/k0s"
	// DataDir is the default data directory.
	DataDir = "/var/lib/k0s"

	adminConfig = "/pki/admin.conf"
)

// ModuleRoot is the directory of go.mod.
func ModuleRoot() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("`go env GOMOD`: %w", err)
	}
	root := filepath.Dir(strings.TrimSpace(string(out)))
	if root == "." || root == "/dev" {
		return "", errors.New("this is not inside the Go module k0s.io/k0s")
	}
	return root, nil
}

// Binary is the executable under test: $K0S_BIN, else build/k0s of this module.
func Binary() (string, error) {
	file := os.Getenv("K0S_BIN")
	if file == "" {
		root, err := ModuleRoot()
		if err != nil {
			return "", err
		}
		file = filepath.Join(root, "build", "k0s")
	}
	if _, err := os.Stat(file); err != nil {
		return "", fmt.Errorf("the executable to test: %w: run `make build`, or set K0S_BIN", err)
	}
	return file, nil
}

// Install copies the executable under test to a host.
func Install(h *testhost.Host) error {
	file, err := Binary()
	if err != nil {
		return err
	}
	return h.Copy(file, Program)
}

// Cluster is a cluster, first of all the controller that founds it, which the embedded Node is; others Join.
type Cluster struct {
	Node
	// Config and Client reach the API; they are nil until WaitAPI or WaitAnyAPI has returned.
	Config *rest.Config
	Client kubernetes.Interface

	mu     sync.Mutex
	joined []*Node
}

// New is a cluster not yet started: `k0s controller ARGS` on the host, where k0s is installed.
func New(h *testhost.Host, args ...string) *Cluster {
	return &Cluster{Node: *newNode(h, Controller, args...)}
}

// Start starts k0s on the first controller and waits for nothing.
func (c *Cluster) Start() error {
	if err := c.Node.Start(); err != nil {
		return err
	}
	c.Config, c.Client = nil, nil
	return nil
}

// WaitAPI waits until /readyz of the first controller says ok.
func (c *Cluster) WaitAPI(ctx context.Context) error {
	return until(ctx, []*Node{&c.Node}, 20*time.Millisecond, "the API to be ready", func() error {
		if c.Client == nil {
			config, client, err := c.client()
			if err != nil {
				return err
			}
			c.Config, c.Client = config, client
		}
		if err := readyz(ctx, c.Client); err != nil {
			c.Client = nil // the certificates may have been made anew
			return err
		}
		return nil
	})
}

// readyz asks an API server, which has a second, whether it is ready.
func readyz(ctx context.Context, client kubernetes.Interface) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	body, err := client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
	if err != nil {
		return fmt.Errorf("%w: %s", err, body)
	}
	return nil
}

// Eventually asks five times a second until there is no error, k0s has ended on all controllers, or the time
// is up.
func (c *Cluster) Eventually(ctx context.Context, limit time.Duration, what string, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return until(ctx, c.Controllers(), 200*time.Millisecond, what, func() error { return ask(ctx) })
}

// Patience is how long to wait for what takes a moment on a healthy cluster.
const Patience = time.Minute
