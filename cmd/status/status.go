// Package status is the command `k0s status`.
package status

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"k0s.io/k0s/cmd/internal/cli"
	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/status"
)

// Command returns `k0s status`.
func Command() *cobra.Command {
	var (
		flags    cli.Flags
		output   string
		timeline bool
	)
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Tell how the k0s on this host is",
		Args:  cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := ask(cmd, &flags)
			if err != nil {
				return err
			}
			if output != "" {
				return encode(cmd.OutOrStdout(), output, s)
			}
			if timeline {
				return writeTimeline(cmd.OutOrStdout(), s.Components)
			}
			return write(cmd.OutOrStdout(), s)
		},
	}
	flags.AddTo(cmd.PersistentFlags())
	cmd.PersistentFlags().StringVarP(&output, "out", "o", "", "json or yaml instead of text")
	cmd.Flags().BoolVar(&timeline, "timeline", false, "show what was waited for when k0s started")
	cmd.AddCommand(&cobra.Command{
		Use:   "components",
		Short: "Tell how each component is",
		Args:  cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := ask(cmd, &flags)
			if err != nil {
				return err
			}
			if output == "" {
				return writeComponents(cmd.OutOrStdout(), s.Components)
			}
			return encode(cmd.OutOrStdout(), output, s.Components)
		},
	})
	return cmd
}

func ask(cmd *cobra.Command, flags *cli.Flags) (*status.Status, error) {
	layout, err := flags.Layout()
	if err != nil {
		return nil, err
	}
	return status.Get(cmd.Context(), flags.Socket(layout))
}

func encode(w io.Writer, format string, value any) error {
	var content []byte
	var err error
	switch format {
	case "json":
		content, err = json.MarshalIndent(value, "", "  ")
		content = append(content, '\n')
	case "yaml":
		content, err = yaml.Marshal(value)
	default:
		return fmt.Errorf("--out: there is no format %q; there are json and yaml", format)
	}
	if err != nil {
		return err
	}
	_, err = w.Write(content)
	return err
}

func write(w io.Writer, s *status.Status) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Version: %s\nProcess ID: %d\nRole: %s\nWorkloads: %t\nSingleNode: %t\nData directory: %s\nCluster ID: %s\n",
		s.Version, s.Pid, s.Role, s.Workloads, s.SingleNode, s.DataDir, s.ClusterID)
	fmt.Fprintf(&b, "Running for: %s\n", time.Since(s.Started).Round(time.Second))
	for _, warning := range s.Warnings {
		fmt.Fprintf(&b, "Warning: %s\n", warning)
	}
	if s.Ready {
		fmt.Fprintf(&b, "Components: all %d ready\n", len(s.Components))
	} else {
		fmt.Fprintln(&b, "Components: not all ready")
		if err := writeComponents(&b, s.Components); err != nil {
			return err
		}
	}
	if err := writeDetails(&b, s.Components); err != nil {
		return err
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// writeDetails writes what single components tell of themselves.
func writeDetails(w io.Writer, all []component.Status) error {
	for _, c := range all {
		if c.Details == nil {
			continue
		}
		details, err := yaml.Marshal(map[string]any{c.Name: c.Details})
		if err != nil {
			return err
		}
		if _, err := w.Write(details); err != nil {
			return err
		}
	}
	return nil
}

func writeComponents(w io.Writer, all []component.Status) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tSTATE\tPID\tRESTARTS\tREMARK")
	for _, c := range all {
		pid, restarts := "-", "-"
		if p := c.Process; p != nil {
			restarts = fmt.Sprint(p.Restarts)
			if p.PID != 0 {
				pid = fmt.Sprint(p.PID)
			}
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", c.Name, c.State, pid, restarts, remark(c))
	}
	return t.Flush()
}

// remark is why the component is not as it should be, or was not: in one line.
func remark(c component.Status) string {
	var remarks []string
	if c.Error != "" {
		remarks = append(remarks, c.Error)
	}
	if c.Process != nil && c.Process.LastExit != "" {
		remarks = append(remarks, "ended before: "+c.Process.LastExit)
	}
	return strings.Join(strings.Fields(strings.Join(remarks, "; ")), " ")
}

// writeTimeline shows the start in the order in which components became ready.
func writeTimeline(w io.Writer, all []component.Status) error {
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b component.Status) int { return int(order(a) - order(b)) })
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "COMPONENT\tSTARTED\tREADY\tTOOK\tAFTER WAITING FOR")
	for _, c := range all {
		if c.StartedAt == 0 && c.ReadyAt == 0 {
			fmt.Fprintf(t, "%s\t-\t-\t-\t%s\n", c.Name, strings.Join(c.Needs, ", "))
			continue
		}
		ready, took := "-", "-"
		if c.ReadyAt != 0 {
			ready, took = seconds(c.ReadyAt), seconds(c.ReadyAt-c.StartedAt)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", c.Name, seconds(c.StartedAt), ready, took, c.WaitedFor)
	}
	return t.Flush()
}

func order(c component.Status) time.Duration {
	if c.ReadyAt == 0 {
		return time.Hour + c.StartedAt // not ready: last
	}
	return c.ReadyAt
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.3fs", d.Seconds()) }
