package applet

import (
	"context"
	"flag"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/grpclog"
	"k8s.io/klog/v2"

	"k0s.io/k0s/internal/applet/name"
	"k0s.io/k0s/internal/tunnelserver"
)

// konnectivityServer has flags of its own: that of upstream admits whoever has a certificate of the
// cluster's authority.
func konnectivityServer() int {
	o := tunnelserver.Options{Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	cmd := &cobra.Command{
		Use:  name.KonnectivityServer,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
			defer cancel()
			return tunnelserver.Serve(ctx, o)
		},
		SilenceUsage: true, SilenceErrors: true,
	}
	fs := cmd.Flags()
	fs.StringVar(&o.Socket, "socket", "", "Unix socket for the API server")
	fs.IntVar(&o.SocketUID, "socket-uid", 0, "the only user, beside root, who may use the socket")
	fs.StringVar(&o.AgentAddress, "agent-address", ":8132", "HOST:PORT that the nodes' agents connect to")
	fs.StringVar(&o.AdminAddress, "admin-address", "127.0.0.1:8133", "HOST:PORT of /healthz and /metrics, which are not guarded")
	fs.StringVar(&o.CertFile, "tls-cert-file", "", "the server's certificate")
	fs.StringVar(&o.KeyFile, "tls-private-key-file", "", "the key of the server's certificate")
	fs.StringVar(&o.CAFile, "client-ca-file", "", "authority of the nodes' certificates")
	fs.DurationVar(&o.Patience, "patience", 0, "how long the API server, from its first question on, waits for the first agent")
	return runWithKlog(name.KonnectivityServer, cmd)
}

// runWithKlog adds klog's flags, spelt with dashes as everywhere in Kubernetes, and runs cmd.
func runWithKlog(program string, cmd *cobra.Command) int {
	defer klog.Flush()
	flags := flag.NewFlagSet(program, flag.ContinueOnError)
	klog.InitFlags(flags)
	flags.VisitAll(func(f *flag.Flag) {
		f.Name = strings.ReplaceAll(f.Name, "_", "-")
		cmd.Flags().AddGoFlag(f)
	})
	return report(program, cmd.Execute())
}
