// Package config is the command `k0s config`.
package config

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"k0s.io/k0s/cmd/internal/cli"
	"k0s.io/k0s/internal/controlplane"
	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/internal/manifests"
	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

// hostFunc tells what a configuration has to go with on the host it is for.
type hostFunc func(dataDir string) (v1beta1.Host, error)

// Command returns `k0s config`. The programs check what k0s.yaml says about them.
func Command(programs v1beta1.Programs) *cobra.Command { return command(programs, cli.ThisHost) }

func command(programs v1beta1.Programs, thisHost hostFunc) *cobra.Command {
	return cli.Group(&cobra.Command{Use: "config", Short: "Print and check configurations (k0s.yaml)"},
		create(), validate(programs, thisHost))
}

// Deprecated returns what the commands were called in old versions of upstream
// k0s: `k0s default-config` and `k0s validate config`.
func Deprecated(programs v1beta1.Programs) []*cobra.Command {
	defaultConfig := create()
	defaultConfig.Use, defaultConfig.Deprecated = "default-config", "use `k0s config create`"
	config := validate(programs, cli.ThisHost)
	config.Use, config.Deprecated = "config", "use `k0s config validate`"
	return []*cobra.Command{defaultConfig, cli.Group(&cobra.Command{Use: "validate", Short: "Check configurations", Hidden: true}, config)}
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

func validate(programs v1beta1.Programs, thisHost hostFunc) *cobra.Command {
	var (
		file      string
		otherHost bool
	)
	cmd := &cobra.Command{
		Use:   "validate",
		Short: "Check a configuration as `k0s controller` does, and say everything that is wrong with it",
		Long: "Checks a configuration as `k0s controller` does, and says everything that is wrong with it.\n\n" +
			"Unless the file has spec.api.address, k0s uses an address of the host it runs on, which must not\n" +
			"lie in the networks of pods and services; and what it is to listen on must be there. Here that is\n" +
			"this host: --other-host leaves it out. Files that the configuration names are not opened, and\n" +
			"nothing is connected to.",
		Example: "  k0s config validate --config k0s.yaml\n  k0s config create | k0s config validate --config -",
		Args:    cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return errors.New("--config is empty: name a k0s.yaml, or - for the standard input")
			}
			checks := []v1beta1.Check{manifests.CheckPatches}
			if !otherHost {
				here, err := thisHost(host.DefaultDataDir)
				if err != nil {
					return err
				}
				checks = append(checks, controlplane.CheckKineUser, v1beta1.OnHost(here))
			}
			config, err := v1beta1.Load(file, cmd.InOrStdin(), programs, checks...)
			if err != nil {
				return err
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
	cmd.Flags().BoolVar(&otherHost, "other-host", false, "the file is for another host: do not look at this one")
	if err := cmd.MarkFlagRequired("config"); err != nil {
		panic(err) // the flag is two lines above
	}
	return cmd
}
