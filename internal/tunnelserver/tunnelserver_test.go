package tunnelserver

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"k0s.io/k0s/internal/pki"
	"k0s.io/k0s/internal/tunnel"
)

// setup is a server that runs until the end of the test, with an authority.
type setup struct {
	Options
	dir string
	ca  *pki.CA
}

func start(t *testing.T) *setup {
	t.Helper()
	s := newSetup(t)
	s.serve(t)
	return s
}

func newSetup(t *testing.T) *setup {
	t.Helper()
	dir := t.TempDir()
	ca, err := pki.EnsureCA(filepath.Join(dir, "ca"), "ca", time.Hour, pki.Owner{UID: -1})
	if err != nil {
		t.Fatal(err)
	}
	s := &setup{dir: dir, ca: ca}
	server := s.issue(t, ca, pki.Request{CommonName: "server", Names: []string{"127.0.0.1"}, Server: true})
	s.Options = Options{
		Socket: filepath.Join(dir, "socket"), SocketUID: os.Getuid(), AgentAddress: freeAddress(t), AdminAddress: freeAddress(t),
		CertFile: server, KeyFile: server, CAFile: ca.Path(), Patience: 5 * time.Second, Log: slog.New(slog.DiscardHandler),
	}
	return s
}

// serve runs the server until what it returns is called, or the end of the test.
func (s *setup) serve(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := Serve(ctx, s.Options); err != nil {
			t.Error(err)
		}
	}()
	stop = func() {
		cancel()
		select {
		case <-ended:
		case <-time.After(2 * time.Second):
			t.Error("the server does not stop")
		}
	}
	t.Cleanup(stop)
	within(t, "the server to answer", func() error {
		response, err := http.Get("http://" + s.AdminAddress + "/healthz")
		if err == nil {
			response.Body.Close()
		}
		return err
	})
	return stop
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func within(t *testing.T, what string, ask func() error) {
	t.Helper()
	limit := time.Now().Add(10 * time.Second)
	for {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("waiting for %s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// issue writes a certificate with its key into one file.
func (s *setup) issue(t *testing.T, ca *pki.CA, r pki.Request) string {
	t.Helper()
	r.Lifetime = time.Hour
	cert, key, err := ca.Issue(r)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(s.dir, strings.ReplaceAll(r.CommonName, ":", "-")+".pem")
	if err := os.WriteFile(file, append(cert, key...), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func node(name string) pki.Request {
	return pki.Request{CommonName: "system:node:" + name, Organization: "system:nodes", Client: true}
}

// agent connects a node, as workers do.
func (s *setup) agent(t *testing.T, name string) *tunnel.Tunnel {
	t.Helper()
	agent, err := tunnel.New(tunnel.Options{
		Addresses: []string{"127.0.0.1", name}, CertFile: s.issue(t, s.ca, node(name)), CAFile: s.CAFile, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(agent.Close)
	return agent
}

// reach connects to an address through the tunnel, as the API server does.
func (s *setup) reach(t *testing.T, address string) (net.Conn, error) {
	t.Helper()
	conn, err := net.Dial("unix", s.Socket)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", address, "127.0.0.1")
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, errors.New(response.Status)
	}
	return readConn{conn, reader}, nil
}

// readConn is a connection of which something may have been read already.
type readConn struct {
	net.Conn
	reader io.Reader
}

func (c readConn) Read(p []byte) (int, error) { return c.reader.Read(p) }

// ask asks a server of HTTP.
func (s *setup) ask(t *testing.T, address string) (string, error) {
	t.Helper()
	conn, err := s.reach(t, address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET / HTTP/1.0\r\n\r\n")
	line, err := bufio.NewReader(conn).ReadString('\n')
	return line, err
}

// backend is something on a node.
func backend(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.NotFoundHandler()}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return l.Addr().String()
}

func TestTunnel(t *testing.T) {
	s := newSetup(t)
	stop := s.serve(t)
	a := s.agent(t, "w0")
	if err := a.Trouble(); err == nil {
		t.Error("an agent without controllers has no trouble")
	}
	if err := a.SetServers([]string{s.AgentAddress}); err != nil {
		t.Fatal(err)
	}
	// Without waiting: the first agent is waited for.
	if got, err := s.ask(t, backend(t)); err != nil || !strings.Contains(got, "404") {
		t.Errorf("through the tunnel: %q, %v", got, err)
	}
	if _, err := s.ask(t, freeAddress(t)); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("where nobody listens: %v", err)
	}
	within(t, "the agent to be connected", a.Trouble)

	stop()
	within(t, "the agent to notice", func() error {
		if a.Trouble() == nil {
			return errors.New("it has not")
		}
		return nil
	})
	s.serve(t)
	within(t, "the agent to come back", a.Trouble)

	a.Close()
	within(t, "the connection to end", func() error {
		if _, err := s.ask(t, backend(t)); err == nil || !strings.Contains(err.Error(), "no agent available") {
			return fmt.Errorf("it still leads somewhere: %w", err)
		}
		return nil
	})
	if err := a.Trouble(); err == nil {
		t.Error("an agent without any connection has no trouble")
	}
	if err := a.SetServers([]string{"192.0.2.1"}); err == nil {
		t.Error("an address without a port is taken")
	}
}

// Behind a load balancer there are several controllers: the agent finds them all.
func TestShared(t *testing.T) {
	t.Parallel() // it takes as long as agents wait before they look for more
	one := start(t)
	two := &setup{Options: one.Options, dir: one.dir, ca: one.ca}
	two.Socket, two.AgentAddress, two.AdminAddress = filepath.Join(one.dir, "socket2"), freeAddress(t), freeAddress(t)
	two.serve(t)
	balancer, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { balancer.Close() })
	go func() {
		for i := 0; ; i++ {
			conn, err := balancer.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", []string{one.AgentAddress, two.AgentAddress}[i%2])
			if err != nil {
				conn.Close()
				continue
			}
			go func() { io.Copy(to, conn); to.Close() }()
			go func() { io.Copy(conn, to); conn.Close() }()
		}
	}()
	a, err := tunnel.New(tunnel.Options{
		CertFile: one.issue(t, one.ca, node("w0")), CAFile: one.CAFile, Shared: true, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	if err := a.SetServers([]string{balancer.Addr().String()}); err != nil {
		t.Fatal(err)
	}
	to := backend(t)
	within(t, "a connection to the first", func() error { _, err := one.ask(t, to); return err })
	for range 2 { // within has 10 s
		if _, err = two.ask(t, to); err == nil {
			break
		}
		time.Sleep(6 * time.Second)
	}
	within(t, "a connection to the second, too", func() error { _, err := two.ask(t, to); return err })
	if _, err := one.ask(t, to); err != nil {
		t.Errorf("the first is not connected any more: %v", err)
	}
	if err := a.Trouble(); err != nil {
		t.Error(err)
	}
}

func TestAdmission(t *testing.T) {
	s := start(t)
	other, err := pki.EnsureCA(filepath.Join(s.dir, "other"), "ca", time.Hour, pki.Owner{UID: -1})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		ca   *pki.CA // nil: no certificate
		cert pki.Request
		want string // in the error; empty: admitted
	}{
		{"node", s.ca, node("w0"), ""},
		{"no certificate", nil, pki.Request{}, "certificate required"},
		{"administrator", s.ca, pki.Request{CommonName: "kubernetes-admin", Organization: "system:masters", Client: true}, "bad certificate"},
		{"node's name without its group", s.ca, pki.Request{CommonName: "system:node:w1", Client: true}, "bad certificate"},
		{"node's group without a name", s.ca, pki.Request{CommonName: "system:node:", Organization: "system:nodes", Client: true}, "bad certificate"},
		{"kubelet's serving certificate", s.ca, pki.Request{CommonName: "system:node:w2", Organization: "system:nodes", Server: true}, "bad certificate"},
		{"node of another cluster", other, node("w3"), "unknown certificate authority"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{tunnel.Protocol}}
			if tc.ca != nil {
				file := s.issue(t, tc.ca, tc.cert)
				cert, err := tls.LoadX509KeyPair(file, file)
				if err != nil {
					t.Fatal(err)
				}
				// Shown whatever the server asks for.
				config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
			}
			// The certificate is judged after the handshake. Who does not write learns of it for sure.
			conn, err := tls.Dial("tcp", s.AgentAddress, config)
			if err == nil {
				defer conn.Close()
				_, err = conn.Read(make([]byte, 1))
			}
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestAgentWithTooManyAddresses(t *testing.T) {
	s := newSetup(t)
	s.Patience = 0
	s.serve(t)
	a, err := tunnel.New(tunnel.Options{
		Addresses: slices.Repeat([]string{"192.0.2.1"}, maxAddresses+1), CertFile: s.issue(t, s.ca, node("w0")), CAFile: s.CAFile, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	if err := a.SetServers([]string{s.AgentAddress}); err != nil {
		t.Fatal(err)
	}
	within(t, "the agent to be told", func() error {
		if err := a.Trouble(); err == nil || !strings.Contains(err.Error(), "has closed it") {
			return fmt.Errorf("its trouble is %w", err)
		}
		return nil
	})
	if _, err := s.ask(t, backend(t)); err == nil || !strings.Contains(err.Error(), "no agent available") {
		t.Errorf("got %v", err)
	}
}

// A client that does not read holds up nobody else.
func TestStalledReader(t *testing.T) {
	s := start(t)
	a := s.agent(t, "w0")
	if err := a.SetServers([]string{s.AgentAddress}); err != nil {
		t.Fatal(err)
	}
	talkative, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { talkative.Close() })
	const size = 64 << 20
	go func() {
		for {
			conn, err := talkative.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				conn.Write(make([]byte, size))
			}()
		}
	}()
	var stalled []net.Conn
	for range 20 {
		conn, err := s.reach(t, talkative.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		stalled = append(stalled, conn)
	}
	time.Sleep(500 * time.Millisecond) // all buffers are full
	begin := time.Now()
	if got, err := s.ask(t, backend(t)); err != nil || !strings.Contains(got, "404") {
		t.Errorf("got %q, %v", got, err)
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("it took %v", took)
	}
	if n, err := io.Copy(io.Discard, stalled[0]); n != size || err != nil {
		t.Errorf("who reads at last gets %d bytes of %d, %v", n, size, err)
	}
}

// Nor does a target that does not read.
func TestStalledTarget(t *testing.T) {
	s := start(t)
	a := s.agent(t, "w0")
	if err := a.SetServers([]string{s.AgentAddress}); err != nil {
		t.Fatal(err)
	}
	deaf, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { deaf.Close() })
	for range 40 {
		conn, err := s.reach(t, deaf.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		go conn.Write(make([]byte, 16<<20)) // until the test ends
	}
	time.Sleep(500 * time.Millisecond) // all buffers are full
	begin := time.Now()
	if got, err := s.ask(t, backend(t)); err != nil || !strings.Contains(got, "404") {
		t.Errorf("got %q, %v", got, err)
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("it took %v", took)
	}
}

// What is written arrives, although the writer is gone, and the other side learns of its end.
func TestLastWords(t *testing.T) {
	s := start(t)
	a := s.agent(t, "w0")
	if err := a.SetServers([]string{s.AgentAddress}); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	heard := make(chan int64, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		n, _ := io.Copy(io.Discard, conn)
		heard <- n
	}()
	conn, err := s.reach(t, listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	const size = 8 << 20
	if _, err := conn.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	select {
	case n := <-heard:
		if n != size {
			t.Errorf("%d bytes of %d arrived", n, size)
		}
	case <-time.After(10 * time.Second):
		t.Error("the other side was not told of the end")
	}
}

// An agent that is there, but does not answer any more, costs time, and nothing else.
func TestSilentAgent(t *testing.T) {
	t.Parallel() // it takes as long as an agent has to answer
	s := start(t)
	file := s.issue(t, s.ca, node("silent"))
	cert, err := tls.LoadX509KeyPair(file, file)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := tls.Dial("tcp", s.AgentAddress, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{tunnel.Protocol}, Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	introduced := make(chan struct{})
	go (&http2.Server{}).ServeConn(conn, &http2.ServeConnOpts{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodConnect {
			<-r.Context().Done()
			return
		}
		fmt.Fprint(w, `{"addresses": ["127.0.0.1"]}`)
		close(introduced)
	})})
	<-introduced
	a := s.agent(t, "w0")
	if err := a.SetServers([]string{s.AgentAddress}); err != nil {
		t.Fatal(err)
	}
	within(t, "the agent to be connected", a.Trouble)
	if got, err := s.ask(t, backend(t)); err != nil || !strings.Contains(got, "404") {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestSocketIsForOneUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("this test must run as root")
	}
	l, err := listenForUser(filepath.Join(t.TempDir(), "s"), 4242, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	path := l.Addr().String()
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o660 {
		t.Errorf("got %v, %v", st.Mode(), err)
	}
	for uid, want := range map[uint32]bool{0: true, 4242: true, 4243: false} {
		ul := l.(userListener)
		if got := ul.admits(uid); got != want {
			t.Errorf("user %d is admitted: %v", uid, got)
		}
	}
}
