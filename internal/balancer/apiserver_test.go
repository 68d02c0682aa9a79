package balancer

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// authority signs the servers of a test, and its clients.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{pool: x509.NewCertPool()}
	a.cert = &x509.Certificate{Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	pair := a.issue(t, a.cert)
	cert, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	a.cert, a.key = cert, pair.PrivateKey.(*ecdsa.PrivateKey)
	a.pool.AddCert(cert)
	return a
}

// issue signs a certificate like this one; the first signs itself.
func (a *authority) issue(t *testing.T, like *x509.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	like.SerialNumber = big.NewInt(time.Now().UnixNano())
	like.NotBefore, like.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	signer := key
	if a.key != nil {
		signer = a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, like, a.cert, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) client(t *testing.T) tls.Certificate {
	return a.issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "system:node:n"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
}

// mode is how an API server behaves.
type mode int

const (
	isWell     mode = iota
	isNotReady      // /readyz says 500, all else works
	isHung          // accepts connections, and answers nothing on any
	isDead          // all connections are reset, new ones refused
)

func (m mode) String() string { return []string{"well", "not ready", "hung", "dead"}[m] }

// apiServer is a TLS server on loopback: /readyz wants a client certificate, /who tells its name, /watch
// never ends.
type apiServer struct {
	name, address string
	config        *tls.Config

	mu     sync.Mutex
	mode   mode
	since  time.Time
	moved  chan struct{} // closed when the mode changes
	server *http.Server
	checks int
}

func newAPIServer(t *testing.T, a *authority, name string) *apiServer {
	t.Helper()
	s := &apiServer{name: name, mode: isDead, moved: make(chan struct{}), config: &tls.Config{
		Certificates: []tls.Certificate{a.issue(t, &x509.Certificate{
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{apiServerName}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		})},
		ClientCAs: a.pool, ClientAuth: tls.RequestClientCert,
	}}
	s.set(t, isWell)
	t.Cleanup(func() { s.set(t, isDead) })
	return s
}

func (s *apiServer) set(t *testing.T, m mode) {
	t.Helper()
	s.mu.Lock()
	if s.mode == m {
		s.mu.Unlock()
		return
	}
	was, server := s.mode, s.server
	s.mode, s.since = m, time.Now()
	close(s.moved)
	s.moved = make(chan struct{})
	s.mu.Unlock()
	switch {
	case m == isDead:
		server.Close()
	case was == isDead:
		listen := s.address
		if listen == "" {
			listen = "127.0.0.1:0"
		}
		l, err := net.Listen("tcp", listen)
		if err != nil {
			t.Error(err)
			return
		}
		s.address = l.Addr().String()
		server = &http.Server{Handler: s, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
		s.mu.Lock()
		s.server = server
		s.mu.Unlock()
		go server.Serve(tls.NewListener(&freezing{l, s}, s.config))
	}
}

// state is how it behaves and since when.
func (s *apiServer) state() (mode, time.Time, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mode, s.since, s.moved
}

func (s *apiServer) checkCount() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.checks
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m, _, _ := s.state()
	switch r.URL.Path {
	case "/readyz":
		s.mu.Lock()
		s.checks++
		s.mu.Unlock()
		valid := false
		if peers := r.TLS.PeerCertificates; len(peers) > 0 {
			_, err := peers[0].Verify(x509.VerifyOptions{Roots: s.config.ClientCAs, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
			valid = err == nil
		}
		switch {
		case !valid:
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
		case m == isNotReady:
			http.Error(w, "[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed", http.StatusInternalServerError)
		default:
			io.WriteString(w, "ok")
		}
	case "/watch":
		io.WriteString(w, s.name+"\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	default:
		io.WriteString(w, s.name+"\n")
	}
	for { // what was asked before it hung is not answered either
		m, _, moved := s.state()
		if m != isHung {
			return
		}
		<-moved
	}
}

// freezing is a listener whose connections, while the server hangs, stand still, and are reset at their end.
type freezing struct {
	net.Listener
	s *apiServer
}

func (f *freezing) Accept() (net.Conn, error) {
	c, err := f.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &frozen{Conn: c, s: f.s, closed: make(chan struct{})}, c.(*net.TCPConn).SetLinger(0)
}

type frozen struct {
	net.Conn
	s      *apiServer
	closed chan struct{}
	once   sync.Once
}

func (f *frozen) Close() error {
	f.once.Do(func() { close(f.closed) })
	return f.Conn.Close()
}

func (f *frozen) thaw() {
	for {
		m, _, moved := f.s.state()
		if m != isHung {
			return
		}
		select {
		case <-moved:
		case <-f.closed:
			return
		}
	}
}

func (f *frozen) Read(p []byte) (int, error) {
	n, err := f.Conn.Read(p)
	f.thaw()
	return n, err
}

func (f *frozen) Write(p []byte) (int, error) {
	f.thaw()
	return f.Conn.Write(p)
}

// world is some API servers and a balancer between them.
type world struct {
	*Balancer
	ca      *authority
	servers []*apiServer
}

func (w *world) addresses() []string {
	var all []string
	for _, s := range w.servers {
		all = append(all, s.address)
	}
	return all
}

func (w *world) named(name string) *apiServer {
	for _, s := range w.servers {
		if s.name == name {
			return s
		}
	}
	return nil
}

// options are those of a balancer that knows these servers.
func (w *world) options(t *testing.T) Options {
	cert := w.ca.client(t)
	return Options{
		Listen: "127.0.0.1:0", Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		TLS: func() (*tls.Config, error) {
			return &tls.Config{RootCAs: w.ca.pool, Certificates: []tls.Certificate{cert}}, nil
		},
	}
}

// newWorld makes as many servers as there are modes, not yet a balancer.
func newWorld(t *testing.T, modes ...mode) *world {
	t.Helper()
	w := &world{ca: newAuthority(t)}
	for i, m := range modes {
		s := newAPIServer(t, w.ca, string(rune('a'+i)))
		s.set(t, m)
		w.servers = append(w.servers, s)
	}
	return w
}

// balance starts a balancer until the test's end. Without Options.Fallback that is the first server.
func (w *world) balance(t *testing.T, o Options, hurry timing) {
	t.Helper()
	if o.Fallback == nil {
		o.Fallback = w.addresses()[:1]
	}
	b, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	w.Balancer = b
	if hurry != (timing{}) {
		b.time = hurry
	}
	c := b.Component()
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := c.Stop(ctx); err != nil {
			t.Errorf("%v\n%s", err, stacks())
		}
	})
}

// quick is a timing that makes seconds of tenths.
var quick = timing{
	check: 200 * time.Millisecond, dial: 200 * time.Millisecond, busy: 60 * time.Millisecond, rest: 150 * time.Millisecond,
	firstRetry: 10 * time.Millisecond, lastRetry: 60 * time.Millisecond, urgentRetry: 30 * time.Millisecond, min: 5 * time.Millisecond,
}

// settled waits until all servers have been checked.
func (w *world) settled(t *testing.T) {
	t.Helper()
	w.until(t, func(s Status) error {
		for _, server := range s.Servers {
			if server.Health == Unknown {
				return fmt.Errorf("%s is not checked yet: %s", server.Address, server.LastError)
			}
		}
		return nil
	})
}

// until waits, for at most 15 s, until the status is as wanted.
func (w *world) until(t *testing.T, wanted func(Status) error) {
	t.Helper()
	begin := time.Now()
	for {
		err := wanted(w.Status())
		if err == nil {
			return
		}
		if time.Since(begin) > 15*time.Second {
			t.Fatalf("%v; %+v", err, w.Status())
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// health waits until a server is as wanted, and says how long that took.
func (w *world) health(t *testing.T, s *apiServer, want Health) time.Duration {
	t.Helper()
	begin := time.Now()
	w.until(t, func(status Status) error {
		for _, one := range status.Servers {
			if one.Address == s.address && one.Health != want {
				return fmt.Errorf("%s is %s, not %s", s.name, one.Health, want)
			}
		}
		return nil
	})
	return time.Since(begin)
}

// client is a TLS connection through the balancer.
type client struct {
	*tls.Conn
	r *bufio.Reader
}

func (w *world) connect() (*client, error) {
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: w.ca.pool}, NetDialer: &net.Dialer{Timeout: 10 * time.Second}}
	c, err := dialer.Dial("tcp", w.Address())
	if err != nil {
		return nil, err
	}
	return &client{c.(*tls.Conn), bufio.NewReader(c)}, nil
}

// get asks for a path and returns the first line of the answer's body.
func (c *client) get(path string) (string, error) {
	if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return "", err
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return "", err
	}
	line, err := bufio.NewReader(resp.Body).ReadString('\n')
	return strings.TrimSpace(line), err
}

// who connects and asks who answers.
func (w *world) who(t *testing.T) string {
	t.Helper()
	c, err := w.connect()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	name, err := c.get("/who")
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// stacks are those of the goroutines that run this package's code.
func stacks() string {
	buf := make([]byte, 1<<20)
	var own []string
	for _, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(g, "balancer.(*Balancer)") || strings.Contains(g, "balancer.(*conn)") {
			own = append(own, g)
		}
	}
	return strings.Join(own, "\n\n")
}
