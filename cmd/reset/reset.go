// Package reset is the command `k0s reset`.
package reset

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"k0s.io/k0s/cmd/internal/cli"
	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/internal/reset"
)

// Command returns `k0s reset`.
func Command() *cobra.Command {
	var (
		flags       cli.Flags
		keepData    bool
		kubeletRoot string
	)
	cmd := &cobra.Command{
		Use:   "reset",
		Short: "Take everything back that k0s did to this host, data included",
		Long: "Ends this host's containers, unmounts, takes back what k0s changed on the host, and deletes\n" +
			"its data. It needs no running daemon, and is safe to be run again. What you put into /etc/k0s stays.",
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if os.Geteuid() != 0 {
				return errors.New("k0s reset must run as root: use sudo")
			}
			layout, err := host.NewLayout(flags.DataDir, kubeletRoot)
			if err != nil {
				return err
			}
			if err := reset.Run(cmd.Context(), reset.Options{Layout: layout, KeepData: keepData, Log: flags.Logger(cmd.ErrOrStderr(), false)}); err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), summary(layout, keepData))
			return err
		},
	}
	flags.AddTo(cmd.Flags())
	cmd.Flags().StringVar(&kubeletRoot, "kubelet-root-dir", "", "the kubelet's state, if k0s ran with this flag (default: as the data directory's journal has it)")
	cmd.Flags().BoolVar(&keepData, "keep-data", false, "end containers and take back changes of the host, but keep the data directory")
	return cmd
}

// summary says what a reset has left behind.
func summary(l host.Layout, keptData bool) string {
	if keptData {
		return "No container of k0s runs on this host any more. Kept: " + l.DataDir + " with the cluster's data, certificates and images; " +
			"`k0s controller` goes on from there, `k0s reset` deletes it."
	}
	return "This host is as it was before k0s."
}
