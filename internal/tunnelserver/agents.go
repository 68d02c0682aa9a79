package tunnelserver

import (
	"context"
	cryptorand "crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"k0s.io/k0s/internal/tunnel"
)

const (
	// admissionTimeout is how long somebody may take to prove to be a node.
	admissionTimeout = 10 * time.Second
	// A node whose host is gone is found out after these two.
	idleTimeout = 10 * time.Second
	pingTimeout = 5 * time.Second
)

// agents are the nodes that are connected.
type agents struct {
	id        string // of this server
	log       *slog.Logger
	transport *http2.Transport
	first     *firstAgent
	metrics   *metrics
	owners    *owners

	mu     sync.Mutex
	all    []*agent
	closed bool
}

func newAgents(patience time.Duration, nodesFile string, log *slog.Logger) *agents {
	return &agents{
		id: cryptorand.Text(), log: log, first: newFirstAgent(patience), metrics: newMetrics(), owners: &owners{path: nodesFile},
		transport: &http2.Transport{ReadIdleTimeout: idleTimeout, PingTimeout: pingTimeout, WriteByteTimeout: idleTimeout, DisableCompression: true},
	}
}

// agent is a node that is connected.
type agent struct {
	node      string
	addresses []string
	conn      net.Conn
	client    *http2.ClientConn
}

// accept lets agents in.
func (s *agents) accept(listener net.Listener, config *tls.Config) error {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			if err := s.admit(tls.Server(conn, config)); err != nil {
				level := slog.LevelWarn
				if errors.As(err, new(noAgent)) {
					level = slog.LevelDebug
				}
				s.log.Log(context.Background(), level, "Refused an agent", "from", conn.RemoteAddr(), "error", err)
				conn.Close()
			}
		}()
	}
}

// noAgent is why somebody was refused who has shown no certificate: whoever scans ports, mostly.
type noAgent struct{ error }

// admit counts a node among the agents until its connection ends.
func (s *agents) admit(conn *tls.Conn) error {
	ctx, cancel := context.WithTimeout(context.Background(), admissionTimeout)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		if errors.As(err, new(*tls.CertificateVerificationError)) || errors.As(err, new(notNode)) {
			return err
		}
		return noAgent{err}
	}
	node, err := nodeOf(conn.ConnectionState())
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	a := &agent{node: node, conn: &noticed{Conn: conn, closed: sync.OnceFunc(func() { close(ended) })}}
	if a.client, err = s.transport.NewClientConn(a.conn); err != nil {
		return err
	}
	identity, err := a.introduce(ctx, s.id)
	if err == nil {
		err = checkAddresses(identity.Addresses)
	}
	if errors.Is(err, errDuplicate) {
		return a.conn.Close()
	}
	if err != nil {
		a.conn.Close()
		return fmt.Errorf("node %s: %w", node, err)
	}
	a.addresses = identity.Addresses
	s.add(a)
	go func() {
		<-ended
		s.remove(a)
	}()
	return nil
}

var errDuplicate = errors.New("it is connected already")

// introduce asks an agent who it is.
func (a *agent) introduce(ctx context.Context, server string) (identity tunnel.Identity, err error) {
	request := (&http.Request{
		Method: http.MethodGet, URL: &url.URL{Scheme: "https", Host: "agent", Path: "/"}, Header: http.Header{tunnel.ServerHeader: {server}},
	}).WithContext(ctx)
	response, err := a.client.RoundTrip(request)
	if err != nil {
		return identity, err
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK:
		return identity, json.NewDecoder(io.LimitReader(response.Body, 16<<10)).Decode(&identity)
	case http.StatusConflict:
		return identity, errDuplicate
	}
	return identity, fmt.Errorf("it does not say who it is: %s", response.Status)
}

func (s *agents) add(a *agent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		a.conn.Close()
		return
	}
	// The newest connection of a node is the one that is sure to stand.
	s.all = slices.Insert(s.all, 0, a)
	s.metrics.agents.Set(float64(len(s.all)))
	s.first.end()
	s.log.Debug("Node is connected", "node", a.node, "addresses", a.addresses)
}

func (s *agents) remove(a *agent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = slices.DeleteFunc(s.all, func(other *agent) bool { return other == a })
	s.metrics.agents.Set(float64(len(s.all)))
	s.log.Debug("Node is not connected any more", "node", a.node)
}

func (s *agents) closeAll() {
	s.mu.Lock()
	all := s.all
	s.closed, s.all = true, nil
	s.mu.Unlock()
	for _, a := range all {
		a.conn.Close()
	}
}

// candidates are the agents to try for a host, in this order: that of the node which has the host, as the API
// tells; those that say of themselves that they have it, if it is nobody's by the API; then any others.
func (s *agents) candidates(host string) []*agent {
	owner, free := s.owners.of(host)
	s.mu.Lock()
	defer s.mu.Unlock()
	var own, claim, others []*agent
	for _, a := range s.all {
		switch {
		case a.node == owner:
			own = append(own, a)
		case free && slices.Contains(a.addresses, host):
			claim = append(claim, a)
		default:
			others = append(others, a)
		}
	}
	rand.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	return slices.Concat(own, claim, others)
}

// noticed is a connection whose end is noticed.
type noticed struct {
	net.Conn
	closed func()
}

func (c *noticed) Close() error {
	defer c.closed()
	return c.Conn.Close()
}
