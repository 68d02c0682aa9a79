// Package cli has what the commands share: flags, logging, and finding the k0s that runs.
package cli

import (
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	_ "net/http/pprof" // served with --debug only
	"slices"
	"strings"
	"time"

	"github.com/mattn/go-shellwords"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/klog/v2"

	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/internal/instance"
	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

// Flags are common to all commands that deal with a k0s on this host.
type Flags struct {
	DataDir      string
	StatusSocket string
	Verbose      bool
	Debug        bool
	DebugListen  string
}

// AddTo registers the flags.
func (f *Flags) AddTo(flags *pflag.FlagSet) {
	flags.StringVar(&f.DataDir, "data-dir", "", "where k0s keeps its data; must not change later (default: that of the running k0s, else "+host.DefaultDataDir+")")
	flags.StringVar(&f.StatusSocket, "status-socket", "", "where k0s answers questions about its status (default "+host.DefaultRunDir+"/status.sock)")
	flags.BoolVarP(&f.Verbose, "verbose", "v", false, "say more; long-running commands always do")
	flags.BoolVarP(&f.Debug, "debug", "d", false, "say everything; long-running commands also serve profiles on --debugListenOn")
	flags.StringVar(&f.DebugListen, "debugListenOn", "127.0.0.1:6060", "address of the profiles served with --debug; they are not guarded")
}

// Layout says where the files are: as asked, else as the running k0s has it.
func (f *Flags) Layout() (host.Layout, error) {
	layout, err := host.NewLayout(f.DataDir, "")
	if err != nil || f.DataDir != "" {
		return layout, err
	}
	running, err := instance.Running(layout)
	if err != nil || running == nil {
		return layout, err
	}
	if f.StatusSocket == "" {
		f.StatusSocket = running.StatusSocket
	}
	return host.NewLayout(running.DataDir, running.KubeletRoot)
}

// Socket is where the status is asked for.
func (f *Flags) Socket(l host.Layout) string {
	if f.StatusSocket != "" {
		return f.StatusSocket
	}
	return l.StatusSocket()
}

// Logger writes to w: warnings, with --verbose (or when always is set) information, with --debug
// everything.
func (f *Flags) Logger(w io.Writer, always bool) *slog.Logger {
	level := slog.LevelWarn
	if f.Verbose || always {
		level = slog.LevelInfo
	}
	if f.Debug {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			a.Value = slog.StringValue(a.Value.Time().Format("2006-01-02 15:04:05.000"))
		}
		return a
	}}))
	if always {
		klog.SetSlogLogger(log) // for what the libraries of Kubernetes say
	}
	return log
}

// ServeProfiles serves pprof when --debug is given.
func (f *Flags) ServeProfiles(log *slog.Logger) {
	if !f.Debug {
		return
	}
	server := &http.Server{Addr: f.DebugListen, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		log.Debug("Serving profiles", "address", f.DebugListen)
		log.Warn("Profiles are not served any more", "error", server.ListenAndServe())
	}()
}

// DefaultLogLevels of the programs. From 1 on, those of Kubernetes print every flag they have.
func DefaultLogLevels() map[string]string {
	return map[string]string{
		"containerd": "info", "etcd": "info", "kine": "info", "konnectivity-server": "0",
		"kube-apiserver": "0", "kube-controller-manager": "0", "kube-scheduler": "0", "kubelet": "0", "kube-proxy": "0",
	}
}

// LogLevels merges what was given as --logging onto the defaults.
func LogLevels(given map[string]string) (map[string]string, error) {
	levels := DefaultLogLevels()
	for program, level := range given {
		if _, ok := levels[program]; !ok {
			return nil, fmt.Errorf("--logging: there is no program %q; there are: %s", program, strings.Join(slices.Sorted(maps.Keys(levels)), ", "))
		}
		levels[program] = level
	}
	return levels, nil
}

// ExtraArgs reads a string of flags, split as a shell would: "--a=b --c 'd e' --f" is a=b, c=d e,
// f=true. What else means something to a shell, as < and ;, must be in quotes. A name that the program does not
// know, or a value that it cannot read, is refused, unless programs is nil.
func ExtraArgs(flag, value, program string, programs v1beta1.Programs) (map[string]string, error) {
	parser := shellwords.NewParser()
	words, err := parser.Parse(value)
	if err != nil {
		return nil, fmt.Errorf("%s: cannot split %q: %w", flag, value, err)
	}
	if parser.Position >= 0 { // a shell's command would end here
		return nil, fmt.Errorf("%s: cannot split %q: quote what begins with %q", flag, value, string([]rune(value)[parser.Position:]))
	}
	args := map[string]string{}
	for i := 0; i < len(words); i++ {
		name, isFlag := strings.CutPrefix(words[i], "--")
		if !isFlag || name == "" {
			return nil, fmt.Errorf("%s: %q is not a flag: want --NAME=VALUE", flag, words[i])
		}
		name, val, hasValue := strings.Cut(name, "=")
		switch {
		case hasValue:
		case i+1 < len(words) && !strings.HasPrefix(words[i+1], "-"):
			i++
			val = words[i]
		default:
			val = "true"
		}
		if _, twice := args[name]; twice {
			return nil, fmt.Errorf("%s: --%s is given twice", flag, name)
		}
		args[name] = val
	}
	if len(args) > 0 && programs != nil { // asking takes time
		known := programs.Flags(program)
		for _, name := range slices.Sorted(maps.Keys(args)) {
			if problem := v1beta1.UnknownFlag(program, name, known); problem != "" {
				return nil, fmt.Errorf("%s: --%s: %s", flag, name, problem)
			}
		}
		problems := programs.CheckFlags(program, args)
		for _, name := range slices.Sorted(maps.Keys(problems)) {
			return nil, fmt.Errorf("%s: --%s=%s: %s", flag, name, args[name], problems[name])
		}
	}
	return args, nil
}

// Group makes a command that only has others below it: alone it prints its help, and a name that none of
// them has is refused.
func Group(cmd *cobra.Command, commands ...*cobra.Command) *cobra.Command {
	cmd.AddCommand(commands...)
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		var names []string
		for _, c := range cmd.Commands() {
			names = append(names, c.Name())
		}
		return fmt.Errorf("unknown command %q for %q%s", args[0], cmd.CommandPath(), v1beta1.Nearest(args[0], names))
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	return cmd
}

// NoArgs refuses positional arguments with one sentence.
func NoArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes no arguments, got %q", cmd.CommandPath(), args)
	}
	return nil
}
