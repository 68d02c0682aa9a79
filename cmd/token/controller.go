package token

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/internal/identity"
	"k0s.io/k0s/internal/instance"
	"k0s.io/k0s/internal/probe"
	"k0s.io/k0s/pkg/token"
)

// attemptTimeout bounds what is asked of the API.
const attemptTimeout = 10 * time.Second

// controller is the k0s that runs on this host.
type controller struct {
	// dataDir is as the user said it; empty if not at all.
	dataDir string
	uid     int
	running func() (*instance.RuntimeSpec, error)
	attempt time.Duration
}

func running() (*instance.RuntimeSpec, error) {
	layout, err := host.NewLayout("", "")
	if err != nil {
		return nil, err
	}
	return instance.Running(layout)
}

// notYet is an error that may pass by itself.
type notYet struct {
	// waiting is what for.
	waiting string
	error
}

func (n notYet) Unwrap() error { return n.error }

// ask finds the running controller.
func (c *controller) ask() (*instance.RuntimeSpec, error) {
	if c.uid != 0 {
		return nil, errors.New("only root may manage tokens: use sudo")
	}
	spec, err := c.running()
	switch {
	case err != nil:
		return nil, err
	case spec == nil:
		return nil, notYet{"k0s to run on this host", errors.New("no k0s runs on this host: start it with `k0s controller`; `k0s token create --wait` waits for it")}
	case spec.Role != identity.Controller:
		return nil, fmt.Errorf("the k0s on this host is a %s: tokens are managed on a controller", spec.Role)
	}
	if c.dataDir != "" {
		dir, err := host.Resolve(c.dataDir)
		if err != nil {
			return nil, err
		}
		if dir != spec.DataDir {
			return nil, fmt.Errorf("the k0s that runs on this host has its data in %s, not in %s: leave --data-dir out", spec.DataDir, dir)
		}
	}
	return spec, nil
}

// mayJoin refuses tokens that nobody could use.
func mayJoin(spec *instance.RuntimeSpec, role token.Role) error {
	switch {
	case spec.SingleNode:
		return errors.New("this k0s runs with --single, so nobody can join: start it without, with --enable-worker if it is to be a node, too")
	case role == token.Controller && spec.JoinURL == "":
		return errors.New("no other controller can join: the cluster's data is in a database of this host alone; " +
			"that takes spec.storage.type etcd, or kine with a database that all controllers reach")
	case role == token.Worker && spec.APIURL == "":
		return errors.New("the k0s on this host does not say where its API is: it was started by another version; restart it")
	}
	return nil
}

// connect returns a way to the tokens, and the certificates that the API is recognised by.
func connect(spec *instance.RuntimeSpec) (*token.Manager, []byte, error) {
	layout, err := host.NewLayout(spec.DataDir, spec.KubeletRoot)
	if err != nil {
		return nil, nil, err
	}
	config, err := clientcmd.BuildConfigFromFlags("", layout.AdminConf())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, notYet{"k0s to make its certificates", fmt.Errorf("the k0s on this host is starting: there is no %s yet", layout.AdminConf())}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", layout.AdminConf(), err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, nil, err
	}
	return token.NewManager(client), config.CAData, nil
}

// withManager runs use once, for a limited time.
func (c *controller) withManager(ctx context.Context, use func(context.Context, *token.Manager) error) error {
	spec, err := c.ask()
	if err != nil {
		return err
	}
	manager, _, err := connect(spec)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.attempt)
	defer cancel()
	return use(ctx, manager)
}

// create makes a join token. While it waits it says what for.
func (c *controller) create(ctx context.Context, role token.Role, expiry time.Duration, wait bool, progress io.Writer) (string, error) {
	var joinToken string
	attempt := func(ctx context.Context) (err error) {
		joinToken, err = c.createNow(ctx, role, expiry)
		return err
	}
	if !wait {
		ctx, cancel := context.WithTimeout(ctx, c.attempt)
		defer cancel()
		return joinToken, attempt(ctx)
	}
	var last error
	told := ""
	err := probe.Until(ctx, func(ctx context.Context) error {
		last = attempt(ctx)
		var pending notYet
		if errors.As(last, &pending) && pending.waiting != told {
			told = pending.waiting
			fmt.Fprintf(progress, "Waiting for %s\n", told)
		}
		return last
	}, func() error {
		if errors.As(last, new(notYet)) {
			return nil
		}
		return last
	})
	if err != nil && ctx.Err() != nil {
		return "", fmt.Errorf("no longer waiting for %s: %w", told, last)
	}
	return joinToken, err
}

func (c *controller) createNow(ctx context.Context, role token.Role, expiry time.Duration) (string, error) {
	spec, err := c.ask()
	if err != nil {
		return "", err
	}
	if err := mayJoin(spec, role); err != nil {
		return "", err
	}
	manager, ca, err := connect(spec)
	if err != nil {
		return "", err
	}
	secret, err := manager.Create(ctx, role, expiry)
	if err != nil {
		return "", notYet{fmt.Sprintf("the API (%v)", err), fmt.Errorf("%w; if k0s is starting, --wait waits for it", err)}
	}
	url := spec.APIURL
	if role == token.Controller {
		url = spec.JoinURL
	}
	return token.Join{Role: role, URL: url, CA: ca, Secret: secret}.Encode()
}

func (c *controller) list(ctx context.Context, role token.Role) (infos []token.Info, err error) {
	err = c.withManager(ctx, func(ctx context.Context, m *token.Manager) (err error) {
		infos, err = m.List(ctx, role)
		return err
	})
	return infos, err
}

func (c *controller) invalidate(ctx context.Context, ids []string, out io.Writer) error {
	return c.withManager(ctx, func(ctx context.Context, m *token.Manager) error {
		for _, id := range ids {
			found, err := m.Invalidate(ctx, id)
			if err != nil {
				return err
			}
			said := "Invalidated the token %s\n"
			if !found {
				said = "There is no token %s\n"
			}
			fmt.Fprintf(out, said, id)
		}
		return nil
	})
}
