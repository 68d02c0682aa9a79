// Package cluster runs k0s on test hosts, and waits for what it becomes.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

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

// Cluster is a cluster whose controller runs, or ran, on a host.
type Cluster struct {
	Host    *testhost.Host
	DataDir string
	// Process is the supervisor, Started when it was started.
	Process *testhost.Process
	Started time.Time
	// Config and Client reach the API; they are nil until WaitAPI has returned.
	Config *rest.Config
	Client kubernetes.Interface

	args []string
}

// New is a cluster not yet started: `k0s controller ARGS` on the host, where k0s is installed.
func New(h *testhost.Host, args ...string) *Cluster {
	c := &Cluster{Host: h, DataDir: DataDir, args: append([]string{Program, "controller"}, args...)}
	for i, arg := range args {
		if arg == "--data-dir" && i+1 < len(args) {
			c.DataDir = args[i+1]
		}
	}
	return c
}

// Start starts k0s and waits for nothing.
func (c *Cluster) Start() error {
	started := time.Now()
	p, err := c.Host.Start("k0s", c.args...)
	if err != nil {
		return err
	}
	c.Process, c.Started, c.Config, c.Client = p, started, nil, nil
	return nil
}

// Stop asks k0s to stop and waits until it has. It returns how long that took.
func (c *Cluster) Stop(ctx context.Context) (time.Duration, error) {
	begin := time.Now()
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		return 0, fmt.Errorf("stopping k0s: %w", err)
	}
	if err := c.Process.Wait(ctx); err != nil {
		return 0, fmt.Errorf("k0s after SIGTERM: %w", err)
	}
	return time.Since(begin), nil
}

// K0s runs a k0s command on the host and returns its standard output.
func (c *Cluster) K0s(ctx context.Context, args ...string) (string, error) {
	return c.Host.Output(ctx, append([]string{Program}, args...)...)
}

// WaitAPI waits until /readyz says ok.
func (c *Cluster) WaitAPI(ctx context.Context) error {
	return c.until(ctx, 20*time.Millisecond, "the API to be ready", func() error {
		if c.Client == nil {
			if err := c.connect(); err != nil {
				return err
			}
		}
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		body, err := c.Client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		if err != nil {
			c.Client = nil // the certificates may have been made anew
			return fmt.Errorf("%w: %s", err, body)
		}
		return nil
	})
}

// connect reads the administrator's kubeconfig, which names the API by the host's loopback
// address, and goes to the host's address instead.
func (c *Cluster) connect() error {
	text, err := c.Host.ReadFile(c.DataDir + adminConfig)
	if err != nil {
		return err
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(text)
	if err != nil {
		return err
	}
	server, err := url.Parse(config.Host)
	if err != nil {
		return err
	}
	config.Host = "https://" + net.JoinHostPort(c.Host.IP, server.Port())
	config.QPS, config.Burst = 200, 400
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	c.Config, c.Client = config, client
	return nil
}

// until asks over and over, about what cannot be watched, until there is no error. It ends
// early when k0s does.
func (c *Cluster) until(ctx context.Context, every time.Duration, what string, ask func() error) error {
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
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s on %s: %w; the last answer was: %w", what, c.Host.Name, ctx.Err(), last)
		case <-c.Process.Gone():
			end := c.Process.Wait(context.Background())
			return fmt.Errorf("waiting for %s on %s: k0s ended (%v); the end of its log:\n%s", what, c.Host.Name, end, c.LogTail(15))
		}
	}
}

// Eventually asks five times a second until there is no error, k0s ends, or the time is up.
func (c *Cluster) Eventually(ctx context.Context, limit time.Duration, what string, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return c.until(ctx, 200*time.Millisecond, what, func() error { return ask(ctx) })
}

// Patience is how long to wait for what takes a moment on a healthy cluster.
const Patience = time.Minute

// DiskUsed is how many bytes the data directory takes.
func (c *Cluster) DiskUsed(ctx context.Context) (int64, error) {
	out, err := c.Host.Output(ctx, "du", "--summarize", "--one-file-system", "--block-size=1", c.DataDir)
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
func (c *Cluster) LogTail(lines int) string {
	text, err := os.ReadFile(c.Process.Log)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
