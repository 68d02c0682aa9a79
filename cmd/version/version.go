// Package version is the command `k0s version`.
package version

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"k0s.io/k0s/cmd/internal/cli"
	embeddedbins "k0s.io/k0s/embedded-bins"
	"k0s.io/k0s/internal/assets"
	"k0s.io/k0s/internal/version"
)

// Command returns `k0s version`.
func Command() *cobra.Command {
	var all, asJSON bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version of k0s, with --all of everything in it",
		Args:  cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			versions := map[string]string{"k0s": version.String()}
			if all {
				versions = version.Modules()
				if commit := version.Commit(); commit != "" {
					versions["commit"] = commit
				}
				helpers, err := assets.Versions(embeddedbins.Assets)
				if err != nil && !errors.Is(err, assets.ErrNone) {
					return err
				}
				maps.Copy(versions, helpers)
			}
			out := cmd.OutOrStdout()
			if asJSON {
				encoder := json.NewEncoder(out)
				encoder.SetIndent("", "  ")
				return encoder.Encode(versions)
			}
			if !all {
				_, err := fmt.Fprintln(out, versions["k0s"])
				return err
			}
			t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
			for _, name := range slices.Sorted(maps.Keys(versions)) {
				fmt.Fprintf(t, "%s\t%s\n", name, versions[name])
			}
			return t.Flush()
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "print the versions of all components")
	cmd.Flags().BoolVarP(&asJSON, "json", "j", false, "print JSON")
	return cmd
}
