// Package balancer is the way of a worker to the API: it listens on loopback and passes each TCP
// connection, TLS and all, to one of the API servers that are well.
//
// A server is well when /readyz says so over a connection whose certificate verifies. A connection
// to a server that is found unwell is closed as soon as another one is well, so that clients
// reconnect rather than wait for an answer that may never come.
package balancer

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"k0s.io/k0s/internal/component"
)

// DefaultPort is the port on loopback that workers reach the API by
// (spec.network.nodeLocalLoadBalancing.envoyProxy.apiServerBindPort).
const DefaultPort = 7443

// Options say between what a Balancer balances.
type Options struct {
	// Listen is the HOST:PORT to listen on; port 0 is any. Default: 127.0.0.1:7443.
	Listen string
	// File remembers the servers, so that a restart works with any one of them alive.
	// Empty: they are not remembered.
	File string
	// Fallback are the servers, HOST:PORT, that the worker was told of when it joined. They are never
	// forgotten, and used while none of the others is well, or no others are known.
	Fallback []string
	// Local is the server, HOST:PORT, on this host. While it is well it gets all connections.
	Local string
	// TLS gives authorities, and a client certificate if there is one, for the checks. It is asked for
	// every connection, so it may follow certificates that are renewed. Required.
	TLS func() (*tls.Config, error)
	// Log is required.
	Log *slog.Logger
}

// How often servers are checked. One that is well costs next to nothing; failing ones are looked at
// often, less and less so while there are others.
const (
	checkTimeout = 2 * time.Second        // of one check
	dialTimeout  = 2 * time.Second        // of a connection, before the next server is tried
	busyInterval = 3 * time.Second        // for a well server with connections
	restInterval = 30 * time.Second       // for a well server without
	firstRetry   = 250 * time.Millisecond // after a failed check, then doubled up to
	lastRetry    = 5 * time.Second        // or, while no server is well,
	urgentRetry  = time.Second
	minInterval  = 100 * time.Millisecond // however many connections fail
)

// unwellAfter is how many checks in a row must fail, unless the server refuses connections:
// one alone may have been unlucky.
const unwellAfter = 2

// timing is the constants above, for tests to hurry.
type timing struct {
	check, dial, busy, rest, firstRetry, lastRetry, urgentRetry, min time.Duration
}

// Balancer passes connections on to API servers.
type Balancer struct {
	o    Options
	time timing

	mu       sync.Mutex
	servers  []*server // sorted by address
	former   []string  // of them, those that the API tells of no more
	listener *net.TCPListener
	ctx      context.Context // nil while it is not running
	cancel   context.CancelFunc
	running  sync.WaitGroup
	turn     int           // makes equals take turns
	changed  chan struct{} // closed when any server's health changes

	setting sync.Mutex // one SetServers at a time
}

// New returns a balancer between the servers it remembers and those to fall back on.
func New(o Options) (*Balancer, error) {
	o.Listen = cmp.Or(o.Listen, net.JoinHostPort("127.0.0.1", strconv.Itoa(DefaultPort)))
	b := &Balancer{o: o, changed: make(chan struct{}), time: timing{
		check: checkTimeout, dial: dialTimeout, busy: busyInterval, rest: restInterval,
		firstRetry: firstRetry, lastRetry: lastRetry, urgentRetry: urgentRetry, min: minInterval,
	}}
	if _, err := checkAddresses(o.Fallback); err != nil {
		return nil, err
	}
	remembered, err := recall(o.File)
	if err != nil {
		o.Log.Warn("The API servers this worker knew are forgotten, beginning with those it joined by", "error", err, "servers", o.Fallback)
	}
	if len(remembered.Servers)+len(o.Fallback) == 0 {
		return nil, errors.New("balancing between API servers: none is known")
	}
	b.replace(remembered)
	return b, nil
}

// Component is the balancer as a part of a worker. It is ready once a server is well.
func (b *Balancer) Component() component.Component {
	return component.Component{Name: "api-balancer", Start: b.start, Ready: b.ready, Stop: b.stop}
}

// start listens and begins to check the servers.
func (b *Balancer) start(ctx context.Context) error {
	listen := net.ListenConfig{KeepAlive: -1} // no need on loopback
	l, err := listen.Listen(ctx, "tcp", b.o.Listen)
	if err != nil {
		return fmt.Errorf("listening on %s, where this worker's programs are to reach the API: %w: "+
			"choose another port in spec.network.nodeLocalLoadBalancing if something else needs this one", b.o.Listen, err)
	}
	listener, ok := l.(*net.TCPListener)
	if !ok {
		return fmt.Errorf("listening on %s: got a %T", b.o.Listen, l)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.listener = listener
	b.ctx, b.cancel = context.WithCancel(context.WithoutCancel(ctx))
	for _, s := range b.servers {
		b.watchOver(s)
	}
	ctx = b.ctx
	b.running.Go(func() { b.accept(ctx, listener) })
	return nil
}

// ready waits until a server is well.
func (b *Balancer) ready(ctx context.Context) error {
	for {
		b.mu.Lock()
		well, changed := b.anyWell(), b.changed
		b.mu.Unlock()
		if well {
			return nil
		}
		component.Report(ctx, b.trouble())
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), b.trouble())
		}
	}
}

// trouble says what ails all servers.
func (b *Balancer) trouble() error {
	var said []string
	for _, s := range b.Status().Servers {
		said = append(said, s.Address+": "+cmp.Or(s.LastError, "no answer yet"))
	}
	return fmt.Errorf("no API server is well: %s", strings.Join(said, "; "))
}

// stop closes all connections.
func (b *Balancer) stop(ctx context.Context) error {
	b.mu.Lock()
	if b.ctx == nil {
		b.mu.Unlock()
		return nil
	}
	b.cancel()
	b.listener.Close()
	for _, s := range b.servers {
		s.closeConns()
	}
	b.mu.Unlock()
	done := make(chan struct{})
	go func() { b.running.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("connections to the API are still open: %w", ctx.Err())
	}
}

// Address is the HOST:PORT it listens on, once it has started.
func (b *Balancer) Address() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.listener == nil {
		return b.o.Listen
	}
	return b.listener.Addr().String()
}

// SetServers makes these, HOST:PORT, the servers to balance between, and remembers them. Connections to
// others are closed. An empty or bad list is refused: it must not replace one that works. When only the
// remembering fails, the list is in use all the same.
func (b *Balancer) SetServers(addresses []string) error {
	addresses, err := checkAddresses(addresses)
	if err != nil {
		return err
	}
	if len(addresses) == 0 {
		return errors.New("no API servers are given: going on with those known")
	}
	b.setting.Lock()
	defer b.setting.Unlock()
	next := memory{Servers: addresses, Former: b.formerThen(addresses)}
	if b.replace(next) {
		b.o.Log.Info("The API servers have changed", "servers", addresses)
	} else if remembered, err := recall(b.o.File); err == nil && slices.Equal(remembered.Servers, addresses) {
		return nil
	}
	return next.remember(b.o.File)
}

// maxFormer is how many servers are kept that are no more among those that the API tells of.
const maxFormer = 8

// formerThen lists the servers that were known before, the last one first, when addresses are those known.
// An API server that starts, or goes, is for a while not among the endpoints of the cluster: if the one that
// said so is lost in that moment, the others must not be forgotten.
func (b *Balancer) formerThen(addresses []string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var former []string
	for _, s := range b.servers {
		if !s.fallback && !slices.Contains(addresses, s.address) {
			former = append(former, s.address)
		}
	}
	for _, address := range b.former {
		if !slices.Contains(addresses, address) && !slices.Contains(former, address) {
			former = append(former, address)
		}
	}
	return former[:min(len(former), maxFormer)]
}

// replace makes these, the fallback, and the former ones the servers, and says whether that changed the
// first of these. Connections to those that are no more among them are closed.
func (b *Balancer) replace(known memory) (changed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.former = known.Former
	addresses := known.Servers
	var servers []*server
	for i, address := range slices.Concat(addresses, b.o.Fallback, known.Former) {
		fallback := i >= len(addresses)
		if slices.ContainsFunc(servers, func(s *server) bool { return s.address == address }) {
			continue
		}
		if at := slices.IndexFunc(b.servers, func(s *server) bool { return s.address == address }); at >= 0 {
			s := b.servers[at]
			if changed = changed || s.fallback != fallback; fallback && !s.fallback {
				s.closeConns()
			}
			s.fallback = fallback
			servers = append(servers, s)
			continue
		}
		s := newServer(address, fallback)
		changed = changed || !fallback
		servers = append(servers, s)
		if b.ctx != nil {
			b.watchOver(s)
		}
	}
	for _, s := range b.servers {
		if !slices.Contains(servers, s) {
			changed = true
			s.removed = true
			s.cancel()
			s.closeConns()
		}
	}
	slices.SortFunc(servers, func(x, y *server) int { return cmp.Compare(x.address, y.address) })
	b.servers = servers
	return changed
}

// checkAddresses returns the list sorted, each address once.
func checkAddresses(addresses []string) ([]string, error) {
	for _, address := range addresses {
		host, port, err := net.SplitHostPort(address)
		if n, badPort := strconv.ParseUint(port, 10, 16); err != nil || badPort != nil || n == 0 || host == "" {
			return nil, fmt.Errorf("%q is not the address of an API server: write HOST:PORT", address)
		}
	}
	return slices.Compact(slices.Sorted(slices.Values(addresses))), nil
}

// Status is how a balancer and its servers are.
type Status struct {
	Listen  string         `json:"listen"`
	Servers []ServerStatus `json:"servers"`
}

// ServerStatus is how one server is.
type ServerStatus struct {
	Address string `json:"address"`
	Health  Health `json:"health"`
	// Since is when that was found; zero before the first check.
	Since       time.Time `json:"since,omitzero"`
	Connections int       `json:"connections"`
	// LastError is what the last check met; empty when all is well.
	LastError string `json:"lastError,omitempty"`
	// Fallback: it is used only while none of the others is well.
	Fallback bool `json:"fallback,omitempty"`
}

// Status tells how the servers are, sorted by address.
func (b *Balancer) Status() Status {
	status := Status{Listen: b.Address()}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.servers {
		one := ServerStatus{Address: s.address, Health: s.health, Since: s.since, Connections: len(s.conns), Fallback: s.fallback}
		if s.err != nil {
			one.LastError = s.err.Error()
		}
		status.Servers = append(status.Servers, one)
	}
	return status
}
