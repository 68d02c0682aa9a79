package balancer

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// conn is a client's connection and the one to the server that belongs to it.
type conn struct {
	client, server *net.TCPConn
	closing        sync.Once
}

func (c *conn) close() {
	c.closing.Do(func() {
		c.client.Close()
		c.server.Close()
	})
}

func (b *Balancer) accept(ctx context.Context, listener *net.TCPListener) {
	for {
		client, err := listener.AcceptTCP()
		if err == nil {
			b.running.Go(func() { b.serve(ctx, client) })
			continue
		}
		if ctx.Err() != nil {
			return
		}
		b.o.Log.Error("Cannot accept a connection to the API, trying again", "error", err)
		select { // most likely there are no file descriptors left
		case <-ctx.Done():
		case <-time.After(b.time.min):
		}
	}
}

// serve passes a client's connection to the best server that takes it.
func (b *Balancer) serve(ctx context.Context, client *net.TCPConn) {
	defer client.Close()
	tried := map[*server]bool{}
	for s := b.choose(tried); s != nil; s = b.choose(tried) {
		tried[s] = true
		server, err := b.dial(ctx, s)
		if err != nil {
			b.dialFailed(ctx, s, err)
			continue
		}
		c := &conn{client: client, server: server}
		if !b.adopt(s, c) {
			c.server.Close()
			continue
		}
		serverEnded := c.pass()
		b.release(s, c, serverEnded)
		return
	}
	_ = client.SetLinger(0) // says to the client that this is no orderly end
}

// choose picks the server for a connection from those not tried: of the best, the local one, else the one
// with the fewest connections. It returns nil when all were tried.
func (b *Balancer) choose(tried map[*server]bool) *server {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.turn++
	var best *server
	for i := range b.servers {
		s := b.servers[(b.turn+i)%len(b.servers)]
		if !tried[s] && (best == nil || b.better(s, best)) {
			best = s
		}
	}
	if best != nil {
		best.dialing++
	}
	return best
}

func (b *Balancer) better(s, than *server) bool {
	if s.rank() != than.rank() {
		return s.rank() > than.rank()
	}
	if local := s.address == b.o.Local; local != (than.address == b.o.Local) {
		return local
	}
	return len(s.conns)+s.dialing < len(than.conns)+than.dialing
}

func (b *Balancer) dial(ctx context.Context, s *server) (*net.TCPConn, error) {
	dialer := net.Dialer{
		Timeout: b.time.dial,
		// A host that is cut off while no other is well: the client is to learn of it some time.
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3},
	}
	c, err := dialer.DialContext(ctx, "tcp", s.address)
	if err != nil {
		return nil, err
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		c.Close()
		return nil, errors.New("not a TCP connection")
	}
	return tcp, nil
}

// dialFailed makes a server suspect.
func (b *Balancer) dialFailed(ctx context.Context, s *server, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s.dialing--
	if ctx.Err() != nil {
		return
	}
	if s.failures == 0 {
		s.failures, s.err = 1, err
	}
	s.checkSoon()
}

// adopt counts a connection as one of the server's, or refuses it if the server has meanwhile become the
// wrong one.
func (b *Balancer) adopt(s *server, c *conn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	s.dialing--
	if b.ctx.Err() != nil || s.removed || (s.health == Unhealthy && b.anyWell()) {
		return false
	}
	s.conns[c] = struct{}{}
	if len(s.conns) == 1 && s.timer != nil { // from now on somebody relies on it
		s.timer.Reset(min(b.interval(s), time.Until(s.checked.Add(b.time.busy))))
	}
	return true
}

func (b *Balancer) release(s *server, c *conn, serverEnded bool) {
	c.close()
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(s.conns, c)
	if serverEnded {
		s.checkSoon() // perhaps it is gone
	}
}

// CloseFrom closes the connections to API servers that are from addresses which this host has no more: nothing
// comes back by them, and nobody would learn of it before the kernel gives up.
func (b *Balancer) CloseFrom(gone func(netip.Addr) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.servers {
		for c := range s.conns {
			if local, ok := c.server.LocalAddr().(*net.TCPAddr); ok && gone(local.AddrPort().Addr().Unmap()) {
				_ = c.client.SetLinger(0)
				c.close()
			}
		}
		s.checkSoon()
	}
}

// pass copies in both directions until both have ended; the kernel does it, no data comes by here.
// It says whether it was the server that ended first.
func (c *conn) pass() (serverEnded bool) {
	clientEnded := make(chan struct{})
	go func() {
		defer close(clientEnded)
		c.copy(c.server, c.client)
	}()
	c.copy(c.client, c.server)
	select {
	case <-clientEnded:
	default:
		serverEnded = true
		<-clientEnded
	}
	return serverEnded
}

// copy copies until from ends, and ends to the same way.
func (c *conn) copy(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		_ = c.client.SetLinger(0)
		c.close()
		return
	}
	_ = to.CloseWrite()
}
