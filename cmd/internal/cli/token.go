package cli

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"k0s.io/k0s/internal/process"
	"k0s.io/k0s/pkg/token"
)

// TokenVariable is the environment variable that may hold the join token.
const TokenVariable = "K0S_TOKEN"

// TokenFlags say where the join token is.
type TokenFlags struct {
	file string
	arg  string
}

// AddTo registers the flags.
func (f *TokenFlags) AddTo(fs *pflag.FlagSet) {
	fs.StringVar(&f.file, "token-file", "", "file with the join token")
}

// Arg takes the join token from the only positional argument, if it is there.
func (f *TokenFlags) Arg(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return fmt.Errorf("%s takes one join token, got %d arguments", cmd.CommandPath(), len(args))
	}
	if len(args) == 1 {
		f.arg = args[0]
	}
	return nil
}

// Hide starts this process anew, with the token in its environment, if it is in its command line, which
// everybody on the host can read. Otherwise it does nothing.
func (f *TokenFlags) Hide() error {
	if f.arg == "" || os.Getenv(TokenVariable) != "" {
		return nil
	}
	args := slices.Clone(os.Args)
	if i := slices.Index(args[1:], f.arg); i >= 0 {
		args = slices.Delete(args, i+1, i+2)
	}
	err := syscall.Exec(process.Self, args, append(os.Environ(), TokenVariable+"="+f.arg))
	return fmt.Errorf("starting %s anew: %w", process.Self, err)
}

// Take reads the token from the one place where it is, and takes it out of the environment, which the
// children inherit. It is nil if there is none.
func (f *TokenFlags) Take(role token.Role) (*token.Join, error) {
	var sources []string
	encoded := os.Getenv(TokenVariable)
	if encoded != "" {
		sources = append(sources, "the environment variable "+TokenVariable)
		if err := os.Unsetenv(TokenVariable); err != nil {
			return nil, err
		}
	}
	if f.arg != "" {
		sources, encoded = append(sources, "the argument"), f.arg
	}
	if f.file != "" {
		sources = append(sources, "--token-file")
		content, err := os.ReadFile(f.file)
		if err != nil {
			return nil, fmt.Errorf("reading the join token: %w", err)
		}
		encoded = string(content)
	}
	switch {
	case len(sources) > 1:
		return nil, fmt.Errorf("the join token is given by %s: give it once", strings.Join(sources, " and "))
	case len(sources) == 0:
		return nil, nil
	}
	join, err := token.DecodeFor(role, encoded)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", sources[0], err)
	}
	return join, nil
}
