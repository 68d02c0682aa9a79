package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// server is a controller, or all behind one address.
type server struct {
	address  string
	identity Identity
	tls      *tls.Config
	ctx      context.Context // of the connections
	cancel   context.CancelFunc
	log      *slog.Logger
	giveUp   *time.Timer // of the Tunnel: what is to end it; nil while it is listed

	mu  sync.Mutex
	ids map[string]bool // of the controllers that are connected
	err error           // what went wrong last, since one was connected
}

// state tells whether it is connected, and if not, what is known of why.
func (s *server) state() (connected bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.ids) > 0, s.err
}

// keepConnected is connected to one controller, until the server is closed.
func (s *server) keepConnected() {
	retry := firstRetry
	for s.ctx.Err() == nil {
		if s.once() {
			retry = firstRetry
		}
		s.wait(retry - rand.N(retry/4)) // all nodes lose a controller at once, and need not come back at once
		retry = min(2*retry, lastRetry)
	}
}

// findAll is connected to all controllers behind an address, until the server is closed.
func (s *server) findAll() {
	for s.ctx.Err() == nil {
		go s.once()
		s.wait(discovery - rand.N(discovery/4))
	}
}

func (s *server) wait(d time.Duration) {
	select {
	case <-time.After(d):
	case <-s.ctx.Done():
	}
}

// once connects, and returns when the connection has ended. It tells whether the node was admitted.
func (s *server) once() (admitted bool) {
	conn, err := s.dial()
	if err != nil {
		s.failed(err)
		return false
	}
	defer context.AfterFunc(s.ctx, func() { conn.Close() })()
	defer conn.Close()
	v := &visit{server: s, conn: &lastError{Conn: conn}}
	(&http2.Server{
		MaxConcurrentStreams:         1 << 20,
		MaxUploadBufferPerConnection: 1 << 30, // that of all streams is no limit, but that of each:
		MaxUploadBufferPerStream:     1 << 18,
		ReadIdleTimeout:              idleTimeout, PingTimeout: pingTimeout,
	}).ServeConn(v.conn, &http2.ServeConnOpts{
		Context: s.ctx, Handler: v,
		BaseConfig: &http.Server{ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)},
	})
	switch id := v.leave(); {
	case v.duplicate: // as it should be
	case id != "":
		admitted = true
		s.failed(fmt.Errorf("the connection has ended: %w", v.conn.reason()))
	default:
		s.failed(fmt.Errorf("the controller has not admitted this node: %w", v.conn.reason()))
	}
	return admitted
}

func (s *server) dial() (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.ctx, connectTimeout)
	defer cancel()
	return (&tls.Dialer{Config: s.tls}).DialContext(ctx, "tcp", s.address)
}

// opened notes that a controller has admitted the node, and tells whether that one had before.
func (s *server) opened(id string) (duplicate bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ids[id] {
		return true
	}
	s.ids[id] = true
	s.err = nil
	s.log.Info("Connected: the control plane reaches this node through the controller")
	return false
}

func (s *server) closed(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.ids, id)
}

// failed notes, and says once, that a connection did not come about or has ended.
func (s *server) failed(err error) {
	if s.ctx.Err() != nil { // it was to end
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	level := slog.LevelWarn
	if s.err != nil {
		level = slog.LevelDebug
	}
	s.log.Log(context.Background(), level, "No connection to the controller, trying again", "error", err)
	s.err = err
}

// lastError is a connection that remembers how it ended.
type lastError struct {
	net.Conn
	mu  sync.Mutex
	err error
}

func (c *lastError) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.err == nil {
			c.err = err
		}
	}
	return n, err
}

func (c *lastError) reason() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil || errors.Is(c.err, io.EOF) {
		return errors.New("the controller has closed it")
	}
	return c.err
}
