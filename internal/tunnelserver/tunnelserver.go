// Package tunnelserver is the controller's end of the tunnel to the nodes: the API server connects by a
// Unix socket, the nodes' agents over the network, and what the API server sends to a node, a pod or a
// service goes through the connection that an agent has made. No controller needs a route to any of them.
package tunnelserver

import (
	"context"
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

	"k0s.io/k0s/internal/tunnel"
)

// Options say where a server listens, and for whom.
type Options struct {
	// Socket is where the API server connects, with HTTP's CONNECT: a Unix socket. One that is left over is
	// replaced.
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
	// NodesFile has a list of Node as JSON, the ones first whose claim to an address is the better one. It may
	// change, and need not be there.
	NodesFile string
	// Patience is how long the API server, from its first question on, is made to wait for the first agent.
	// Agents that know the controller come back within seconds; told meanwhile that there is none, an API
	// server takes all aggregated APIs for unavailable, on all controllers, and asks again ever more rarely.
	// Its start waits for these questions: do not let it wait for agents that do not know of it yet.
	Patience time.Duration
	// Log is required.
	Log *slog.Logger
}

// Serve serves until ctx ends. It waits for nobody then: agents connect again, or to others.
func Serve(ctx context.Context, o Options) error {
	config, err := o.tlsConfig()
	if err != nil {
		return err
	}
	socket, err := listenForUser(o.Socket, o.SocketUID, o.Log)
	if err != nil {
		return fmt.Errorf("listening on %s for the API server: %w", o.Socket, err)
	}
	defer socket.Close()
	incoming, err := net.Listen("tcp", o.AgentAddress)
	if err != nil {
		return fmt.Errorf("listening on %s for the nodes' agents: %w", o.AgentAddress, err)
	}
	defer incoming.Close()
	admin, err := net.Listen("tcp", o.AdminAddress)
	if err != nil {
		return fmt.Errorf("listening on %s for questions about health: %w", o.AdminAddress, err)
	}
	defer admin.Close()

	agents := newAgents(o.Patience, o.NodesFile, o.Log)
	defer agents.closeAll()
	forAPI := &http.Server{Handler: agents, ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug)}
	defer forAPI.Close()
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(agents.metrics.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	questions := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	defer questions.Close()

	ended := make(chan error, 3)
	go func() { ended <- forAPI.Serve(socket) }()
	go func() { ended <- agents.accept(incoming, config) }()
	go func() { ended <- questions.Serve(admin) }()
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
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, NextProtos: []string{tunnel.Protocol},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots, VerifyConnection: verifyNode,
	}, nil
}
