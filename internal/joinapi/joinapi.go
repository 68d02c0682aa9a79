// Package joinapi is how a controller joins: an HTTPS service of every controller, by which one that holds a
// join token gets the keys of the cluster's authorities and becomes a member of its etcd, and the client for
// it. Those keys are all there is to a cluster: the service answers two requests and refuses everything else.
package joinapi

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"

	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/etcdmembers"
	"k0s.io/k0s/internal/host"
)

// Name of the component.
const Name = "join-api"

// Options of the service.
type Options struct {
	// Layout says where the keys are.
	Layout host.Layout
	// Address to listen on; empty is all of them.
	Address string
	Port    int
	// CertFile and KeyFile are the service's own. They are read again when they change.
	CertFile, KeyFile string
	// CipherSuites for TLS 1.2, by their names. Default: Go's.
	CipherSuites []string
	// ClusterID is told to those who join. It is called when the component has started.
	ClusterID func() string
	// Founded are the values of k0s.yaml that all controllers must have in common: see v1beta1's Fixed.
	Founded map[string]string
	// Client reaches the API server on this host. It is called when the component has started.
	Client func() (kubernetes.Interface, error)
	// Etcd is how members of etcd are added; nil where k0s does not run etcd.
	Etcd *etcdmembers.Access
	Log  *slog.Logger
}

// Limits of the service. An answer is a few KiB, a request less than one.
const (
	readTimeout    = 5 * time.Second
	writeTimeout   = 15 * time.Second
	idleTimeout    = 15 * time.Second
	stopTimeout    = time.Second
	maxHeader      = 8 << 10
	maxBody        = 4 << 10
	maxConnections = 128
)

// Component answers from Start to Stop. It is ready when it listens and knows the cluster's tokens, so it
// needs the API.
func Component(o Options) component.Component {
	ready := make(chan struct{})
	isReady := sync.OnceFunc(func() { close(ready) })
	c := component.Background(Name, func(ctx context.Context) error { return run(ctx, o, isReady) }, o.Log)
	c.Ready = func(ctx context.Context) error {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ready:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			case <-tick.C:
				if err := c.Trouble(); err != nil {
					component.Report(ctx, err)
				}
			}
		}
	}
	return c
}

func run(ctx context.Context, o Options, ready func()) error {
	client, err := o.Client()
	if err != nil {
		return err
	}
	var members Members
	if o.Etcd != nil {
		opened, err := etcdmembers.Open(*o.Etcd)
		if err != nil {
			return err
		}
		defer opened.Close()
		members = opened
	}
	tokens := NewTokens(client)
	ctx, cancel := context.WithCancel(ctx)
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		tokens.Run(ctx)
	}()
	defer func() {
		cancel()
		<-watching
	}()
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(o.Address, strconv.Itoa(o.Port)))
	if err != nil {
		return fmt.Errorf("join API (spec.api.k0sApiPort): %w", err)
	}
	go func() {
		if tokens.WaitReady(ctx) {
			ready()
		}
	}()
	return serve(ctx, o, listener, newHandler(o, tokens, members))
}

// serve answers on listener until ctx ends.
func serve(ctx context.Context, o Options, listener net.Listener, handler http.Handler) error {
	config, err := tlsConfig(o)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	server := &http.Server{
		Handler:                      handler,
		DisableGeneralOptionsHandler: true,
		TLSConfig:                    config,
		ReadTimeout:                  readTimeout,
		ReadHeaderTimeout:            readTimeout,
		WriteTimeout:                 writeTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHeader,
		ConnContext:                  withConn,
		Protocols:                    new(http.Protocols),       // HTTP/1 is enough, and has fewer ways to ask for much
		ErrorLog:                     log.New(discard{}, "", 0), // anybody can make handshakes fail
		BaseContext:                  func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
	}
	server.Protocols.SetHTTP1(true)
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		shutdown, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		err := server.Shutdown(shutdown)
		if err != nil {
			err = server.Close()
		}
		stopped <- err
	})
	err = server.ServeTLS(limitConnections(listener, maxConnections), "", "")
	if stop() { // it ended by itself
		return errors.Join(err, server.Close())
	}
	return <-stopped
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func tlsConfig(o Options) (*tls.Config, error) {
	cert, err := openCertificate(o.CertFile, o.KeyFile, o.Log)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: cert.get}
	known := map[string]uint16{}
	for _, suite := range tls.CipherSuites() {
		known[suite.Name] = suite.ID
	}
	for _, name := range o.CipherSuites {
		id, ok := known[name]
		if !ok {
			return nil, fmt.Errorf("there is no cipher suite %q", name)
		}
		config.CipherSuites = append(config.CipherSuites, id)
	}
	return config, nil
}
