package reset

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/google/nftables"

	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/internal/process"
)

// cleanIPTables removes the chains of kube-proxy, which knows them best, and those it does not remove
// itself because the kubelet used to share them.
func cleanIPTables(ctx context.Context, l host.Layout) error {
	cmd := exec.CommandContext(ctx, process.Self, "--cleanup")
	cmd.Args[0] = "kube-proxy"
	cmd.Env = append(os.Environ(), "PATH="+l.Bin()+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("kube-proxy --cleanup: %w: %s", err, out)
	}
	errs := []error{removeKubeChains(ctx, l.Bin("iptables"))}
	if _, err := os.Stat("/proc/net/if_inet6"); err == nil {
		errs = append(errs, removeKubeChains(ctx, l.Bin("ip6tables")))
	}
	return errors.Join(errs...)
}

// removeKubeChains removes Kubernetes' chains from all tables of iptables or ip6tables, given by path.
func removeKubeChains(ctx context.Context, iptables string) error {
	saved, err := exec.CommandContext(ctx, iptables+"-save").Output()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // never unpacked, so never used
	}
	if err != nil {
		return commandError(iptables+"-save", err)
	}
	script := removalScript(string(saved))
	if script == "" {
		return nil
	}
	restore := exec.CommandContext(ctx, iptables+"-restore", "--noflush", "--wait")
	restore.Stdin = strings.NewReader(script)
	if _, err := restore.Output(); err != nil {
		return commandError(iptables+"-restore", err)
	}
	return nil
}

func commandError(command string, err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return fmt.Errorf("%s: %w: %s", command, err, strings.TrimSpace(string(exit.Stderr)))
	}
	return fmt.Errorf("%s: %w", command, err)
}

// removalScript turns what iptables-save prints into what iptables-restore needs to remove the chains
// of Kubernetes and the jumps to them; "" when there are none.
func removalScript(saved string) string {
	var script strings.Builder
	var table string
	var chains, jumps []string
	for line := range strings.Lines(saved) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0:
		case strings.HasPrefix(line, "*"):
			table, chains, jumps = fields[0], nil, nil
		case strings.HasPrefix(line, ":KUBE-"):
			chains = append(chains, strings.TrimPrefix(fields[0], ":"))
		case fields[0] == "-A" && !isKubeChain(fields[1]) && jumpsToKube(fields):
			jumps = append(jumps, "-D"+strings.TrimPrefix(line, "-A"))
		case fields[0] == "COMMIT" && len(chains) > 0:
			script.WriteString(table + "\n" + strings.Join(jumps, ""))
			for _, command := range []string{"-F", "-X"} { // they may jump to each other
				for _, chain := range chains {
					script.WriteString(command + " " + chain + "\n")
				}
			}
			script.WriteString("COMMIT\n")
		}
	}
	return script.String()
}

func isKubeChain(chain string) bool { return strings.HasPrefix(chain, "KUBE-") }

func jumpsToKube(rule []string) bool {
	i := slices.IndexFunc(rule, func(field string) bool { return field == "-j" || field == "-g" })
	return i >= 0 && i+1 < len(rule) && isKubeChain(rule[i+1])
}

// condition says whether to delete a table.
type condition func(*nftables.Conn, *nftables.Table) (bool, error)

func always(*nftables.Conn, *nftables.Table) (bool, error) { return true, nil }

// ifEmpty is true when a table has no rules and no sets, and its chains let everything pass.
func ifEmpty(c *nftables.Conn, t *nftables.Table) (bool, error) {
	sets, err := c.GetSets(t)
	if err != nil || len(sets) > 0 {
		return false, err
	}
	chains, err := c.ListChainsOfTableFamily(t.Family)
	if err != nil {
		return false, err
	}
	for _, chain := range chains {
		if chain.Table.Name != t.Name {
			continue
		}
		if chain.Hooknum == nil || chain.Policy != nil && *chain.Policy != nftables.ChainPolicyAccept {
			return false, nil // somebody's own
		}
		rules, err := c.GetRules(t, chain)
		if err != nil || len(rules) > 0 {
			return false, err
		}
	}
	return true, nil
}

// deleteTable deletes an nftables table, given as "family name", if it is there and the condition holds.
func deleteTable(name string, when condition) error {
	c, err := nftables.New()
	if err != nil {
		return host.IgnoreNoNFTables(err)
	}
	tables, err := host.NFTables(c)
	if err != nil {
		return err
	}
	table, there := tables[name]
	if !there {
		return nil
	}
	if wanted, err := when(c, table); err != nil || !wanted {
		return err
	}
	c.DelTable(table)
	return c.Flush()
}
