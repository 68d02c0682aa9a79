// Package tunnelserver is the controller's end of the tunnel to the nodes: the API server connects by a
// Unix socket, the nodes' agents over the network, and what the API server sends to a node, a pod or a
// service goes through the connection that an agent has made. No controller needs a route to any of them.
package tunnelserver

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"sigs.k8s.io/apiserver-network-proxy/konnectivity-client/proto/client"
	"sigs.k8s.io/apiserver-network-proxy/pkg/server"
	"sigs.k8s.io/apiserver-network-proxy/pkg/server/proxystrategies"
	"sigs.k8s.io/apiserver-network-proxy/proto/agent"
)

// Options say where a server listens, and for whom.
type Options struct {
	// Socket is where the API server connects: a Unix socket. One that is left over is replaced.
	Socket string
	// SocketUID is the only user, beside root, whose connections to it are served.
	SocketUID int
	// AgentAddress is the HOST:PORT that agents connect to; without a host, on all addresses.
	AgentAddress string
	// AdminAddress is the HOST:PORT of /healthz and /metrics, which are not guarded: loopback.
	AdminAddress string
	// CertFile and KeyFile are the server's certificate.
	CertFile, KeyFile string
	// CAFile has the authority of the nodes' certificates.
	CAFile string
	// Patience is how long the API server, from its first question on, is made to wait for the first agent.
	// Agents that know the controller come back within seconds; told meanwhile that there is none, an API
	// server takes all aggregated APIs for unavailable, on all controllers, and asks again ever more rarely.
	// Its start waits for these questions: do not let it wait for agents that do not know of it yet.
	Patience time.Duration
	// Log is required.
	Log *slog.Logger
}

const (
	// An agent whose host is gone is found out, and none of its peers waits for it, after these two.
	keepaliveTime    = 10 * time.Second
	keepaliveTimeout = 5 * time.Second
	// handshakeTimeout is how long somebody may take to prove to be a node.
	handshakeTimeout = 10 * time.Second
	// dialTimeout is how long an agent may take to say whether it has reached what it was asked for.
	dialTimeout = 10 * time.Second
	// queue is how many packets of a connection may wait to be passed on.
	queue = 150
	// maxHeaders bounds, in bytes, what an agent says of itself.
	maxHeaders = 16 << 10
)

// Serve serves until ctx ends. It waits for nobody then: agents connect again, or to others.
func Serve(ctx context.Context, o Options) error {
	config, err := o.tlsConfig()
	if err != nil {
		return err
	}
	proxy := server.NewProxyServer(rand.Text(), []proxystrategies.ProxyStrategy{
		proxystrategies.ProxyStrategyDestHost, // a node is reached by its own agent,
		proxystrategies.ProxyStrategyDefault,  // anything else by any
	}, 1, &server.AgentTokenAuthenticationOptions{}, queue)
	proxy.SetBackendDialTimeout(dialTimeout)

	socket, err := listenForUser(o.Socket, o.SocketUID, o.Log)
	if err != nil {
		return fmt.Errorf("listening on %s for the API server: %w", o.Socket, err)
	}
	defer socket.Close()
	agents, err := net.Listen("tcp", o.AgentAddress)
	if err != nil {
		return fmt.Errorf("listening on %s for the nodes' agents: %w", o.AgentAddress, err)
	}
	defer agents.Close()
	admin, err := net.Listen("tcp", o.AdminAddress)
	if err != nil {
		return fmt.Errorf("listening on %s for questions about health: %w", o.AdminAddress, err)
	}
	defer admin.Close()

	first := newFirstAgent(o.Patience)
	forAPI := grpc.NewServer(grpc.StreamInterceptor(first.await))
	client.RegisterProxyServiceServer(forAPI, proxy)
	forAgents := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(config)),
		grpc.ChainStreamInterceptor(o.admit, first.notice),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveTime / 2, PermitWithoutStream: true}),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.MaxConcurrentStreams(4),
		grpc.MaxHeaderListSize(maxHeaders),
	)
	agent.RegisterAgentServiceServer(forAgents, proxy)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.Handler())
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	questions := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}

	ended := make(chan error, 3)
	go func() { ended <- forAPI.Serve(socket) }()
	go func() { ended <- forAgents.Serve(agents) }()
	go func() { ended <- questions.Serve(admin) }()
	defer forAPI.Stop()
	defer forAgents.Stop()
	defer questions.Close()
	select {
	case <-ctx.Done():
		return nil
	case err := <-ended:
		return err
	}
}

// tlsConfig admits the cluster's nodes only.
func (o Options) tlsConfig() (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("reading the server's certificate: %w", err)
	}
	ca, err := os.ReadFile(o.CAFile)
	if err != nil {
		return nil, fmt.Errorf("reading the nodes' authority: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, errors.New(o.CAFile + " holds no certificate")
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots, VerifyConnection: o.verifyNode,
	}, nil
}
