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
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"sigs.k8s.io/apiserver-network-proxy/konnectivity-client/pkg/client"
	"sigs.k8s.io/apiserver-network-proxy/proto/agent"
	"sigs.k8s.io/apiserver-network-proxy/proto/header"

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
		NodeName: name, Addresses: []string{"127.0.0.1", name}, CertFile: s.issue(t, s.ca, node(name)), CAFile: s.CAFile, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(agent.Close)
	return agent
}

// ask asks a server of HTTP through the tunnel, as the API server does.
func (s *setup) ask(t *testing.T, address string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	one, err := client.CreateSingleUseGrpcTunnelWithContext(ctx, ctx, "unix://"+s.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return "", err
	}
	conn, err := one.DialContext(ctx, "tcp", address)
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
		if _, err := s.ask(t, backend(t)); err == nil || !strings.Contains(err.Error(), "No agent available") {
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
		NodeName: "w0", CertFile: one.issue(t, one.ca, node("w0")), CAFile: one.CAFile, Shared: true, Log: slog.New(slog.DiscardHandler),
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
		name        string
		ca          *pki.CA
		cert        pki.Request // without a name: none
		id          string
		identifiers string
		want        string // in the error; empty: admitted
	}{
		{"node", s.ca, node("w0"), "w0", "host=w0&ipv4=192.0.2.1", ""},
		{"no certificate", nil, pki.Request{}, "w0", "", "certificate required"},
		{"administrator", s.ca, pki.Request{CommonName: "kubernetes-admin", Organization: "system:masters", Client: true}, "w0", "", "bad certificate"},
		{"node's name without its group", s.ca, pki.Request{CommonName: "system:node:w1", Client: true}, "w1", "", "bad certificate"},
		{"node's group without a name", s.ca, pki.Request{CommonName: "system:node:", Organization: "system:nodes", Client: true}, "", "", "bad certificate"},
		{"kubelet's serving certificate", s.ca, pki.Request{CommonName: "system:node:w2", Organization: "system:nodes", Server: true}, "w2", "", "bad certificate"},
		{"node of another cluster", other, node("w3"), "w3", "", "unknown certificate authority"},
		{"another node's name", s.ca, node("w4"), "w0", "", `node w4 gives itself out for ["w0"]`},
		{"all of the network", s.ca, node("w5"), "w5", "cidr=0.0.0.0/0", "more than a node"},
		{"everything", s.ca, node("w6"), "w6", "default-route=true", "more than a node"},
		{"very much", s.ca, node("w7"), "w7", strings.Repeat("ipv4=192.0.2.1&", 17), "at most 16"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			config := &tls.Config{InsecureSkipVerify: true}
			if tc.ca != nil {
				file := s.issue(t, tc.ca, tc.cert)
				cert, err := tls.LoadX509KeyPair(file, file)
				if err != nil {
					t.Fatal(err)
				}
				// Shown whatever the server asks for.
				config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
			}
			err := connect(t, s.AgentAddress, config, tc.id, tc.identifiers)
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// connect says why somebody is not admitted.
func connect(t *testing.T, address string, config *tls.Config, id, identifiers string) error {
	t.Helper()
	// The certificate is judged after the handshake. Who does not write learns of it for sure.
	config.NextProtos = []string{"h2"}
	silent, err := tls.Dial("tcp", address, config)
	if err != nil {
		return err
	}
	defer silent.Close()
	if _, err := silent.Read(make([]byte, 1)); err != nil {
		return err
	}
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), header.AgentID, id, header.AgentIdentifiers, identifiers), 5*time.Second)
	defer cancel()
	stream, err := agent.NewAgentServiceClient(conn).Connect(ctx)
	if err != nil {
		return err
	}
	if md, err := stream.Header(); err != nil || len(md.Get(header.ServerID)) == 1 {
		return err
	}
	_, err = stream.Recv()
	return errors.New(status.Convert(err).Message())
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
