// k0s is a Kubernetes in one executable.
package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	configcmd "k0s.io/k0s/cmd/config"
	"k0s.io/k0s/cmd/controller"
	"k0s.io/k0s/cmd/ctr"
	"k0s.io/k0s/cmd/etcd"
	"k0s.io/k0s/cmd/kubeconfig"
	"k0s.io/k0s/cmd/kubectl"
	"k0s.io/k0s/cmd/reset"
	"k0s.io/k0s/cmd/status"
	"k0s.io/k0s/cmd/token"
	versioncmd "k0s.io/k0s/cmd/version"
	"k0s.io/k0s/cmd/worker"
	"k0s.io/k0s/internal/applet"
	"k0s.io/k0s/internal/applet/name"
	"k0s.io/k0s/internal/version"
)

func main() {
	// k0s starts itself as each of the programs in it; as kubectl and ctr a link may be called, which
	// are then commands of ours, with the cluster at hand.
	args := os.Args[1:]
	switch program, isApplet := applet.Of(os.Args[0]); {
	case strings.TrimPrefix(baseName(os.Args[0]), "k0s-") == name.Kubectl:
		args = append([]string{name.Kubectl}, args...)
	case strings.TrimPrefix(baseName(os.Args[0]), "k0s-") == name.Ctr:
		args = append([]string{name.Ctr}, args...)
	case isApplet:
		os.Exit(applet.Run(program, args))
	}
	// The linked-in programs have put flags of their own into the one set that cobra adds to everyone's.
	pflag.CommandLine = pflag.NewFlagSet(os.Args[0], pflag.ContinueOnError)
	root := command()
	root.SetArgs(args)
	if err := root.Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

func baseName(path string) string { return path[strings.LastIndex(path, "/")+1:] }

func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "k0s",
		Short: "A whole Kubernetes in one executable",
		Long: "k0s turns this host into a Kubernetes control plane, a node, or both.\n" +
			"`k0s controller --single` starts a cluster of one node.",
		Version:       version.String(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(
		controller.Command(applet.Programs{}),
		worker.Command(applet.Programs{}),
		token.Command(),
		etcd.Command(),
		kubectl.Command(),
		ctr.Command(),
		kubeconfig.Command(),
		status.Command(),
		versioncmd.Command(),
		reset.Command(),
		configcmd.Command(applet.Programs{}),
	)
	root.AddCommand(configcmd.Deprecated(applet.Programs{})...)
	return root
}
