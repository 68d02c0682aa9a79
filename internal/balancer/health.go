package balancer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"
)

// Health of a server.
type Health string

// What a server can be found to be.
const (
	Unknown Health = "unknown" // not checked yet
	Ready   Health = "ready"   // /readyz says ok
	// Answers is a server that is the cluster's, but cannot be asked whether it is ready: this node has no
	// valid client certificate, not yet or not any more. It is used while none is known to be ready.
	Answers   Health = "answers"
	Unhealthy Health = "unhealthy"
)

// server is an API server. All but its address is guarded by the balancer's lock.
type server struct {
	address  string
	fallback bool
	removed  bool

	health   Health
	since    time.Time
	checked  time.Time
	failures int   // in a row, of checks and of clients' connections
	err      error // of the last check

	dialing int // connections on their way to it
	conns   map[*conn]struct{}

	timer  *time.Timer   // of the next check; nil before the first
	wake   chan struct{} // holds one: check it now
	cancel context.CancelFunc
}

func newServer(address string, fallback bool) *server {
	return &server{
		address: address, fallback: fallback, health: Unknown,
		conns: map[*conn]struct{}{}, wake: make(chan struct{}, 1), cancel: func() {},
	}
}

// How good a choice a server is. From useful on it is well.
const (
	unhealthy = iota
	suspect   // has just failed
	unknown
	useful // a fallback that is well
	answers
	ready
)

func (s *server) rank() int {
	switch {
	case s.health == Unhealthy:
		return unhealthy
	case s.failures > 0:
		return suspect
	case s.health == Unknown:
		return unknown
	case s.fallback:
		return useful
	case s.health == Answers:
		return answers
	default:
		return ready
	}
}

func (s *server) well() bool { return s.rank() >= useful }

func (s *server) closeConns() {
	for c := range s.conns {
		c.close()
	}
}

// checkSoon has the server checked out of turn.
func (s *server) checkSoon() {
	select {
	case s.wake <- struct{}{}:
	default: // it is going to be
	}
}

// anyWell says whether any server is well. The caller holds the lock.
func (b *Balancer) anyWell() bool {
	for _, s := range b.servers {
		if s.well() {
			return true
		}
	}
	return false
}

// watchOver checks a server again and again, until it is removed. The caller holds the lock.
func (b *Balancer) watchOver(s *server) {
	ctx, cancel := context.WithCancel(b.ctx)
	s.cancel = cancel
	b.running.Go(func() {
		client := b.checkClient(ctx)
		defer client.CloseIdleConnections()
		for {
			begin := time.Now()
			health, err := b.check(ctx, client, s.address)
			if ctx.Err() != nil {
				return
			}
			next := b.found(s, health, err)
			select {
			case <-ctx.Done():
				next.Stop()
				return
			case <-next.C:
			case <-s.wake:
				next.Stop()
				// Whoever asks has seen a connection fail: that of the last check says nothing.
				client.CloseIdleConnections()
				select {
				case <-ctx.Done():
					return
				case <-time.After(b.time.min - time.Since(begin)):
				}
			}
		}
	})
}

// found notes the result of a check, and returns the timer of the next one.
func (b *Balancer) found(s *server, health Health, err error) *time.Timer {
	b.mu.Lock()
	defer b.mu.Unlock()
	s.checked, s.err = time.Now(), err
	if health != Unhealthy {
		s.failures = 0
	} else {
		s.failures++
		if s.failures < unwellAfter && !errors.Is(err, syscall.ECONNREFUSED) {
			health = s.health // for now
		}
		if s.failures == 1 { // are the others any better?
			for _, other := range b.servers {
				if other != s && other.health != Unhealthy {
					other.checkSoon()
				}
			}
		}
	}
	if health != s.health {
		b.report(s, health)
		s.health, s.since = health, s.checked
	}
	close(b.changed)
	b.changed = make(chan struct{})
	b.cull()

	s.timer = time.NewTimer(b.interval(s))
	return s.timer
}

// interval is how long after a check the next one is due. The caller holds the lock.
func (b *Balancer) interval(s *server) time.Duration {
	switch {
	case s.failures > 0:
		limit := b.time.lastRetry
		if !b.anyWell() {
			limit = b.time.urgentRetry
		}
		return min(b.time.firstRetry<<min(s.failures-1, 10), limit)
	case len(s.conns) > 0:
		return spread(b.time.busy)
	default:
		return spread(b.time.rest)
	}
}

// cull closes the connections to unhealthy servers if there is a better one. The caller holds the lock.
func (b *Balancer) cull() {
	if !b.anyWell() {
		return
	}
	for _, s := range b.servers {
		if s.health == Unhealthy {
			s.closeConns()
		}
	}
}

func (b *Balancer) report(s *server, health Health) {
	switch {
	case health == Unhealthy:
		b.o.Log.Warn("An API server is not well", "server", s.address, "error", s.err, "connections", len(s.conns))
	case s.health == Unhealthy:
		b.o.Log.Info("An API server is well again", "server", s.address, "after", time.Since(s.since).Round(time.Millisecond))
	default:
		b.o.Log.Debug("An API server was checked", "server", s.address, "health", health)
	}
}

// spread shortens a time by up to a tenth, so that a thousand workers do not ask all at once.
func spread(d time.Duration) time.Duration { return d - rand.N(d/10+1) }

// ownTrouble is an error that says nothing about the server.
type ownTrouble struct{ err error }

func (o *ownTrouble) Error() string { return o.err.Error() }

// checkClient keeps its connection from one check to the next: TLS costs more than all the rest.
func (b *Balancer) checkClient(life context.Context) *http.Client {
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:              nil, // whatever HTTPS_PROXY says
			DisableCompression: true,
			// The transport would let a connection come up for longer than anyone waits for it.
			DialTLSContext: func(_ context.Context, network, address string) (net.Conn, error) {
				ctx, cancel := context.WithTimeout(life, b.time.check)
				defer cancel()
				return b.dialTLS(ctx, network, address)
			},
		},
	}
}

func (b *Balancer) dialTLS(ctx context.Context, network, address string) (net.Conn, error) {
	tcp, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	config, err := b.o.TLS()
	if err != nil {
		tcp.Close()
		return nil, &ownTrouble{fmt.Errorf("it accepts connections, but cannot be asked: %w", err)}
	}
	config = config.Clone()
	config.NextProtos = nil // the plainest HTTP will do
	if config.ServerName == "" {
		config.ServerName, _, _ = net.SplitHostPort(address)
	}
	conn := tls.Client(tcp, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		tcp.Close()
		return nil, fmt.Errorf("TLS with %s: %w", address, err)
	}
	return conn, nil
}

// check asks a server whether it is ready. The error says what is not as it should be.
func (b *Balancer) check(ctx context.Context, client *http.Client, address string) (Health, error) {
	ctx, cancel := context.WithTimeout(ctx, b.time.check)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+"/readyz", nil)
	if err != nil {
		return Unhealthy, err
	}
	resp, err := client.Do(req)
	if own := new(ownTrouble); errors.As(err, &own) {
		return Answers, own
	}
	if err != nil {
		return Unhealthy, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	switch {
	case err != nil:
		return Unhealthy, fmt.Errorf("%s: %w", req.URL, err)
	case resp.StatusCode == http.StatusOK:
		return Ready, nil
	case resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden:
		client.CloseIdleConnections() // by the next check the certificate may have been renewed
		return Answers, fmt.Errorf("%s: %s: this node's client certificate is not accepted", req.URL, resp.Status)
	default:
		return Unhealthy, fmt.Errorf("%s: %s: %s", req.URL, resp.Status, failed(string(body)))
	}
}

// failed is those lines of what /readyz says that tell of failures, or all of it where none does.
func failed(body string) string {
	var lines []string
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, "[-]") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	if lines == nil {
		return strings.TrimSpace(body)
	}
	return strings.Join(lines, ", ")
}
