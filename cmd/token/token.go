// Package token is the command `k0s token`.
package token

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"k0s.io/k0s/cmd/internal/cli"
	"k0s.io/k0s/pkg/token"
)

// Command returns `k0s token`.
func Command() *cobra.Command {
	return cli.Group(&cobra.Command{Use: "token", Short: "Make and manage the tokens that other hosts join with"},
		create(), list(), invalidate(), preShared())
}

func create() *cobra.Command {
	var (
		flags  cli.Flags
		role   string
		expiry time.Duration
		wait   bool
	)
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make a token and print it",
		Long: "Makes a token and prints it. A host needs it once, when it joins.\n\n" +
			"Whoever has a controller's token gets the keys of the whole cluster: keep it like these, let it expire,\n" +
			"or invalidate it when all have joined.",
		Example: "  k0s token create --role worker --expiry 1h\n  k0s token create --role controller --expiry 10m > token",
		Args:    cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			role, err := roleFlag(role)
			if err != nil {
				return err
			}
			if expiry < 0 {
				return fmt.Errorf("--expiry: %s has passed: want a time from now, or 0s for never", expiry)
			}
			ctx, cancel := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer cancel()
			joinToken, err := thisHost(&flags).create(ctx, role, expiry, wait, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), joinToken)
			return err
		},
	}
	flags.AddTo(cmd.Flags())
	addRole(cmd.Flags(), &role, string(token.Worker), "what the token is for: worker or controller")
	cmd.Flags().DurationVar(&expiry, "expiry", 0, "how long the token is good; 0s is for ever")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until k0s runs and its API answers, for as long as that takes")
	return cmd
}

func list() *cobra.Command {
	var (
		flags cli.Flags
		role  string
	)
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the tokens there are",
		Args:  cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var only token.Role
			if role != "" {
				var err error
				if only, err = roleFlag(role); err != nil {
					return err
				}
			}
			infos, err := thisHost(&flags).list(cmd.Context(), only)
			if err != nil {
				return err
			}
			return writeList(cmd.OutOrStdout(), infos)
		},
	}
	flags.AddTo(cmd.Flags())
	addRole(cmd.Flags(), &role, "", "only those for worker or controller (default: all)")
	return cmd
}

func writeList(w io.Writer, infos []token.Info) error {
	if len(infos) == 0 {
		_, err := fmt.Fprintln(w, "No k0s join tokens found")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tROLE\tEXPIRES AT")
	for _, info := range infos {
		expires := "never"
		if !info.Expires.IsZero() {
			expires = info.Expires.Format(time.RFC3339)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", info.ID, info.Role, expires)
	}
	return t.Flush()
}

func invalidate() *cobra.Command {
	var flags cli.Flags
	cmd := &cobra.Command{
		Use:     "invalidate ID...",
		Short:   "Make tokens useless, by their ids",
		Long:    "Makes tokens useless, by their ids. Hosts that have joined with them stay.",
		Example: "  k0s token invalidate abc123",
		Args: func(_ *cobra.Command, ids []string) error {
			if len(ids) == 0 {
				return fmt.Errorf("which tokens? Give their ids: `k0s token list` shows them")
			}
			for _, id := range ids {
				if err := token.CheckID(id); err != nil {
					return err
				}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, ids []string) error {
			return thisHost(&flags).invalidate(cmd.Context(), ids, cmd.OutOrStdout())
		},
	}
	flags.AddTo(cmd.Flags())
	return cmd
}

func preShared() *cobra.Command {
	var (
		p    token.PreShared
		role string
		out  string
	)
	cmd := &cobra.Command{
		Use:   "pre-shared",
		Short: "Make a token for a cluster that need not run yet",
		Long: "Makes a token for a cluster that need not run yet, and writes two files:\n" +
			"bootstrap-token-ID.yaml is for <data-dir>/manifests/NAME/ of a controller, which then accepts the token;\n" +
			"token_ID is the token, for the host that joins.",
		Example: "  k0s token pre-shared --cert ca.crt --url https://10.0.0.1:6443 --role worker --valid 24h",
		Args:    cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if p.Role, err = roleFlag(role); err != nil {
				return err
			}
			manifest, joinToken, err := p.Write(out)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n%s\n", manifest, joinToken)
			return err
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&p.CAFile, "cert", "", "file with the certificate of the cluster's authority, as in <data-dir>/pki/ca.crt")
	fs.StringVar(&p.URL, "url", "", "URL that hosts join at: of the API (port 6443) for workers, of the join API (port 9443) for controllers")
	addRole(fs, &role, string(token.Worker), "what the token is for: worker or controller")
	fs.StringVar(&out, "out", ".", "directory to write the files to")
	fs.DurationVar(&p.ValidFor, "valid", 0, "how long from now the token is good; 0s is for ever")
	for _, required := range []string{"cert", "url"} {
		if err := cmd.MarkFlagRequired(required); err != nil {
			panic(err) // there is no such flag
		}
	}
	return cmd
}

func addRole(fs *pflag.FlagSet, role *string, value, usage string) {
	fs.StringVar(role, "role", value, usage)
}

func roleFlag(value string) (token.Role, error) {
	role, err := token.ParseRole(value)
	if err != nil {
		return "", fmt.Errorf("--role: %w", err)
	}
	return role, nil
}

func thisHost(flags *cli.Flags) *controller {
	return &controller{dataDir: flags.DataDir, uid: os.Geteuid(), running: running, attempt: attemptTimeout}
}
