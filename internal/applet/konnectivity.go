package applet

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"k0s.io/k0s/internal/applet/name"
	"k0s.io/k0s/internal/tunnelserver"
)

// konnectivityServer is not upstream's, which admits whoever has a certificate of the cluster's authority,
// and in which a client that stops reading holds up all others, for 10 s.
func konnectivityServer() int {
	var (
		o         tunnelserver.Options
		verbosity int
	)
	cmd := &cobra.Command{
		Use:  name.KonnectivityServer,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			level := slog.LevelInfo
			if verbosity > 0 {
				level = slog.LevelDebug
			}
			o.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
			ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
			defer cancel()
			return tunnelserver.Serve(ctx, o)
		},
		SilenceUsage: true, SilenceErrors: true,
	}
	fs := cmd.Flags()
	fs.IntVarP(&verbosity, "v", "v", 0, "log level: 0, or 1 for each connection that does not come about")
	fs.StringVar(&o.Socket, "socket", "", "Unix socket for the API server")
	fs.IntVar(&o.SocketUID, "socket-uid", 0, "the only user, beside root, who may use the socket")
	fs.StringVar(&o.AgentAddress, "agent-address", ":8132", "HOST:PORT that the nodes' agents connect to")
	fs.StringVar(&o.AdminAddress, "admin-address", "127.0.0.1:8133", "HOST:PORT of /healthz and /metrics, which are not guarded")
	fs.StringVar(&o.CertFile, "tls-cert-file", "", "the server's certificate")
	fs.StringVar(&o.KeyFile, "tls-private-key-file", "", "the key of the server's certificate")
	fs.StringVar(&o.CAFile, "client-ca-file", "", "authority of the nodes' certificates")
	fs.StringVar(&o.NodesFile, "nodes-file", "", "JSON of the nodes and which addresses they have")
	fs.DurationVar(&o.Patience, "patience", 0, "how long the API server, from its first question on, waits for the first agent")
	return report(name.KonnectivityServer, cmd.Execute())
}
