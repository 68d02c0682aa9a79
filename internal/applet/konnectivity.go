package applet

import (
	"flag"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"
	agent "sigs.k8s.io/apiserver-network-proxy/cmd/agent/app"
	agentoptions "sigs.k8s.io/apiserver-network-proxy/cmd/agent/app/options"
	server "sigs.k8s.io/apiserver-network-proxy/cmd/server/app"
	serveroptions "sigs.k8s.io/apiserver-network-proxy/cmd/server/app/options"

	"k0s.io/k0s/internal/applet/name"
)

func konnectivityServer() int {
	o := serveroptions.NewProxyRunOptions()
	cmd := server.NewProxyCommand(&server.Proxy{}, o)
	cmd.Flags().AddFlagSet(o.Flags())
	return runWithKlog(name.KonnectivityServer, cmd)
}

func konnectivityAgent() int {
	o := agentoptions.NewGrpcProxyAgentOptions()
	cmd := agent.NewAgentCommand(&agent.Agent{}, o)
	cmd.Flags().AddFlagSet(o.Flags())
	return runWithKlog(name.KonnectivityAgent, cmd)
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
