// Package kubectl is the command `k0s kubectl`.
package kubectl

import (
	"os"
	"strings"

	"github.com/spf13/cobra"

	"k0s.io/k0s/cmd/internal/cli"
	"k0s.io/k0s/internal/applet"
	"k0s.io/k0s/internal/applet/name"
)

// Command returns `k0s kubectl`: kubectl as administrator, unless KUBECONFIG says
// otherwise and --data-dir, which comes first, is not given.
func Command() *cobra.Command {
	return &cobra.Command{
		Use:                "kubectl",
		Aliases:            []string{"kc"},
		Short:              "Run kubectl as this cluster's administrator",
		DisableFlagParsing: true, // they are kubectl's
		RunE: func(_ *cobra.Command, args []string) error {
			dataDir, args := dataDirOf(args)
			if os.Getenv("KUBECONFIG") == "" || dataDir != "" {
				flags := cli.Flags{DataDir: dataDir}
				layout, err := flags.Layout()
				if err != nil {
					return err
				}
				if err := os.Setenv("KUBECONFIG", layout.AdminConf()); err != nil {
					return err
				}
			}
			os.Exit(applet.Run(name.Kubectl, args))
			return nil
		},
	}
}

// dataDirOf takes our own flag --data-dir off the front of kubectl's.
func dataDirOf(args []string) (dataDir string, rest []string) {
	if len(args) == 0 {
		return "", args
	}
	if dir, ok := strings.CutPrefix(args[0], "--data-dir="); ok {
		return dir, args[1:]
	}
	if args[0] == "--data-dir" && len(args) > 1 {
		return args[1], args[2:]
	}
	return "", args
}
