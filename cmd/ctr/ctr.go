// Package ctr is the command `k0s ctr`.
package ctr

import (
	"os"

	"github.com/spf13/cobra"

	"k0s.io/k0s/cmd/internal/cli"
	"k0s.io/k0s/internal/applet"
	"k0s.io/k0s/internal/applet/name"
)

// Command returns `k0s ctr`: containerd's own client, for this host's containerd.
func Command() *cobra.Command {
	return &cobra.Command{
		Use:                "ctr",
		Short:              "Run containerd's ctr on this node's containers",
		DisableFlagParsing: true, // they are ctr's
		RunE: func(_ *cobra.Command, args []string) error {
			var flags cli.Flags
			layout, err := flags.Layout()
			if err != nil {
				return err
			}
			for key, value := range map[string]string{
				"CONTAINERD_ADDRESS":   layout.ContainerdSocket(),
				"CONTAINERD_NAMESPACE": "k8s.io",
				"PATH":                 layout.Bin() + ":" + os.Getenv("PATH"),
			} {
				if os.Getenv(key) != "" && key != "PATH" {
					continue
				}
				if err := os.Setenv(key, value); err != nil {
					return err
				}
			}
			os.Exit(applet.Run(name.Ctr, args))
			return nil
		},
	}
}
