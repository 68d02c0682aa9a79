// Package config is the command `k0s config`.
package config

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"k0s.io/k0s/cmd/internal/cli"
	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/internal/manifests"
	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

// Command returns `k0s config`. The programs check what k0s.yaml says about them.
func Command(programs v1beta1.Programs) *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Print and check configurations (k0s.yaml)", Args: cli.NoArgs}
	cmd.AddCommand(create(), validate(programs))
	return cmd
}

// Deprecated returns what the commands were called in old versions of upstream
// k0s: `k0s default-config` and `k0s validate config`.
func Deprecated(programs v1beta1.Programs) []*cobra.Command {
	defaultConfig := create()
	defaultConfig.Use, defaultConfig.Deprecated = "default-config", "use `k0s config create`"
	config := validate(programs)
	config.Use, config.Deprecated = "config", "use `k0s config validate`"
	parent := &cobra.Command{Use: "validate", Short: "Check configurations", Hidden: true, Args: cli.NoArgs}
	parent.AddCommand(config)
	return []*cobra.Command{defaultConfig, parent}
}

func create() *cobra.Command {
	var images bool
	cmd := &cobra.Command{
		Use:     "create",
		Short:   "Print the default configuration, with explanations",
		Example: "  k0s config create > k0s.yaml",
		Args:    cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := io.WriteString(cmd.OutOrStdout(), v1beta1.DefaultFile(images))
			return err
		},
	}
	cmd.Flags().BoolVar(&images, "include-images", false, "print the container images, too")
	return cmd
}

func validate(programs v1beta1.Programs) *cobra.Command {
	var (
		file      string
		otherHost bool
	)
	cmd := &cobra.Command{
		Use:   "validate",
		Short: "Check a configuration as `k0s controller` does, and say everything that is wrong with it",
		Long: "Checks a configuration as `k0s controller` does, and says everything that is wrong with it.\n\n" +
			"Unless the file has spec.api.address, k0s uses an address of the host it runs on, which must not\n" +
			"lie in the networks of pods and services. Here it is the address of this host: --other-host leaves\n" +
			"it out. Files that the configuration names are not opened, and nothing is connected to.",
		Example: "  k0s config validate --config k0s.yaml\n  k0s config create | k0s config validate --config -",
		Args:    cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := v1beta1.Load(file, cmd.InOrStdin(), programs, manifests.CheckPatches)
			if err != nil {
				return err
			}
			if !otherHost {
				if err := completeHere(config); err != nil {
					return err
				}
			}
			for _, warning := range config.Warnings() {
				fmt.Fprintln(cmd.ErrOrStderr(), "Warning:", warning)
			}
			if file == "-" {
				file = "stdin"
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is valid.\n", file)
			return err
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "the k0s.yaml, or - for standard input (required)")
	cmd.Flags().BoolVar(&otherHost, "other-host", false, "the file is for another host: leave the address of this one out")
	if err := cmd.MarkFlagRequired("config"); err != nil {
		panic(err) // the flag is two lines above
	}
	return cmd
}

// completeHere is what `k0s controller` does on this host. One without any
// network tells nothing.
func completeHere(config *v1beta1.ClusterConfig) error {
	addresses, err := host.Addresses()
	if err != nil || len(addresses) == 0 {
		return err
	}
	return config.Complete(addresses, host.DefaultDataDir)
}
