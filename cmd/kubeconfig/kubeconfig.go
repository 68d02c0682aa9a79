// Package kubeconfig is the command `k0s kubeconfig`.
package kubeconfig

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"

	"k0s.io/k0s/cmd/internal/cli"
	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/internal/instance"
	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

// Command returns `k0s kubeconfig`.
func Command() *cobra.Command {
	return cli.Group(&cobra.Command{Use: "kubeconfig", Short: "Print kubeconfigs of this cluster"},
		admin())
}

func admin() *cobra.Command {
	var (
		flags  cli.Flags
		config string
	)
	cmd := &cobra.Command{
		Use:     "admin",
		Short:   "Print the administrator's kubeconfig, for use from other machines",
		Example: "  k0s kubeconfig admin > ~/.kube/config",
		Args:    cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			layout, err := flags.Layout()
			if err != nil {
				return err
			}
			server, err := apiURL(layout, config, cmd)
			if err != nil {
				return err
			}
			content, err := adminFor(layout, server)
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(content)
			return err
		},
	}
	flags.AddTo(cmd.Flags())
	cmd.Flags().StringVarP(&config, "config", "c", "", "k0s.yaml, or - for standard input (default: that of the running k0s, else /etc/k0s/k0s.yaml, if it is there)")
	return cmd
}

// apiURL is that of the running k0s, unless a configuration file is named.
func apiURL(layout host.Layout, file string, cmd *cobra.Command) (string, error) {
	if file == "" {
		running, err := instance.Running(layout)
		if err != nil {
			return "", err
		}
		if running != nil && running.APIURL != "" {
			return running.APIURL, nil
		}
	}
	config, err := v1beta1.Load(file, cmd.InOrStdin(), nil)
	if err != nil {
		return "", err
	}
	addresses, err := host.Addresses()
	if err != nil {
		return "", err
	}
	if err := config.Complete(addresses, layout.DataDir); err != nil {
		return "", err
	}
	return config.Spec.API.URL(), nil
}

// adminFor is the administrator's kubeconfig with another way to the server.
func adminFor(layout host.Layout, server string) ([]byte, error) {
	config, err := clientcmd.LoadFromFile(layout.AdminConf())
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("only root may read %s: use sudo", layout.AdminConf())
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no %s: a controller makes it at its first start; with another data directory, say --data-dir", layout.AdminConf())
	case err != nil:
		return nil, err
	}
	for _, cluster := range config.Clusters {
		cluster.Server = server
	}
	return clientcmd.Write(*config)
}
