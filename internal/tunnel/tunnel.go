// Package tunnel is a node's end of the tunnel from the control plane: it keeps a connection to every
// controller, through which that one's API server reaches this node, its pods and all services.
package tunnel

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// Options say whose end of the tunnel it is.
type Options struct {
	// Addresses, and names if it has others, by which API servers know the node.
	Addresses []string
	// CertFile has the node's client certificate and its key. It is read for every connection, as it may
	// have been renewed.
	CertFile string
	// CAFile has the authority of the controllers' certificates.
	CAFile string
	// Shared: behind each address there may be several controllers, as with a load balancer. So there is
	// an attempt now and then to reach one that is not known yet.
	Shared bool
	// Log is required.
	Log *slog.Logger
}

const (
	firstRetry = 500 * time.Millisecond // after an attempt that failed, then doubled up to
	lastRetry  = 3 * time.Second
	// discovery is how often it is looked for further controllers behind the same address.
	discovery = 10 * time.Second
	// lingering is how long a controller is still tried after it has left the list, which it also does when
	// it is down: its API server waits for the nodes when it is back.
	lingering = 10 * time.Minute
	// connectTimeout bounds an attempt.
	connectTimeout = 5 * time.Second
	// A controller whose host is gone is found out after these two.
	idleTimeout = 12 * time.Second // it asks every 10 s
	pingTimeout = 5 * time.Second
)

// Tunnel is the node's connections.
type Tunnel struct {
	o     Options
	roots *x509.CertPool

	lingering time.Duration

	mu      sync.Mutex
	servers map[string]*server
}

// New returns a tunnel that leads nowhere yet.
func New(o Options) (*Tunnel, error) {
	ca, err := os.ReadFile(o.CAFile)
	if err != nil {
		return nil, fmt.Errorf("reading the controllers' authority: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, errors.New(o.CAFile + " holds no certificate")
	}
	return &Tunnel{o: o, roots: roots, lingering: lingering, servers: map[string]*server{}}, nil
}

// SetServers makes these, HOST:PORT, the controllers to be connected to. Connections to others are given up
// after ten minutes.
func (t *Tunnel) SetServers(addresses []string) error {
	for _, address := range addresses {
		if host, _, err := net.SplitHostPort(address); err != nil || host == "" {
			return fmt.Errorf("%q is not the address of a controller: want HOST:PORT", address)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for address, s := range t.servers {
		listed := slices.Contains(addresses, address)
		switch {
		case listed && s.giveUp != nil:
			s.giveUp.Stop()
			s.giveUp = nil
		case !listed && s.giveUp == nil:
			s.giveUp = time.AfterFunc(t.lingering, func() { t.drop(address, s) })
		}
	}
	for _, address := range addresses {
		if t.servers[address] == nil {
			t.servers[address] = t.connect(address)
		}
	}
	return nil
}

// drop gives a controller up, unless it is listed again.
func (t *Tunnel) drop(address string, s *server) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.servers[address] != s || s.giveUp == nil {
		return
	}
	t.o.Log.Info("The controller is gone for good", "controller", address)
	s.cancel()
	delete(t.servers, address)
}

// Close closes all connections.
func (t *Tunnel) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for address, s := range t.servers {
		s.cancel()
		if s.giveUp != nil {
			s.giveUp.Stop()
		}
		delete(t.servers, address)
	}
}

// Trouble says why no API server at all reaches this node through the tunnel; nil if one does.
func (t *Tunnel) Trouble() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var said []string
	for address, s := range t.servers {
		connected, err := s.state()
		if connected {
			return nil
		}
		if err == nil {
			err = errors.New("no answer yet")
		}
		said = append(said, fmt.Sprintf("%s: %v", address, err))
	}
	if len(said) == 0 {
		return errors.New("no controller is known yet")
	}
	slices.Sort(said)
	return fmt.Errorf("no controller is connected: %s", strings.Join(said, "; "))
}

// connect keeps connected to a controller, or to all behind one address, until it is closed.
func (t *Tunnel) connect(address string) *server {
	ctx, cancel := context.WithCancel(context.Background())
	s := &server{address: address, ctx: ctx, cancel: cancel, log: t.o.Log.With("controller", address), ids: map[string]bool{}}
	s.identity = Identity{Addresses: t.o.Addresses}
	s.tls = t.tlsConfig(address)
	if t.o.Shared {
		go s.findAll()
	} else {
		go s.keepConnected()
	}
	return s
}

func (t *Tunnel) tlsConfig(address string) *tls.Config {
	host, _, _ := net.SplitHostPort(address)
	return &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: t.roots, ServerName: host, NextProtos: []string{Protocol},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(t.o.CertFile, t.o.CertFile)
			if err != nil {
				return nil, fmt.Errorf("reading this node's certificate: %w", err)
			}
			return &cert, nil
		},
	}
}
