// Package forward lets packets of pods pass on a host whose packet filter forwards nothing that it was not told
// of, as where Docker runs: such a policy of iptables' chain FORWARD counts whatever other tables say.
package forward

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"k0s.io/k0s/internal/journal"
	"k0s.io/k0s/internal/network/kuberouter/tablewatch"
)

const (
	// comment marks our rules.
	comment = "k0s: pods"
	// table is iptables'.
	table = "filter"
)

// families are those that iptables has a table of its own for.
var families = []struct {
	name    string
	family  nftables.TableFamily
	command string // without -legacy
	present string // lists the tables that the legacy variant has
	offsets [2]uint32
}{
	{"ip", nftables.TableFamilyIPv4, "iptables", "/proc/net/ip_tables_names", [2]uint32{12, 16}},
	{"ip6", nftables.TableFamilyIPv6, "ip6tables", "/proc/net/ip6_tables_names", [2]uint32{8, 24}},
}

// Pods are those whose packets are to pass.
type Pods struct {
	// Networks are those of all pods of the cluster.
	Networks []netip.Prefix
	// Tool gives the path of a packet filter tool, for the legacy variant of iptables.
	Tool    func(name string) string
	Journal *journal.Journal
	Log     *slog.Logger
}

// Keep appends rules for pods to each chain FORWARD that drops by policy, now or, in the nft variant of
// iptables, later; what other rules there refuse stays refused. The rules stay after the end of ctx.
func (p Pods) Keep(ctx context.Context) error {
	if err := p.applyLegacy(ctx); err != nil {
		return err
	}
	changed := make(chan struct{}, 1)
	failed, stop, err := tablewatch.Watch(table, func() {
		select {
		case changed <- struct{}{}:
		default: // it will be seen with the change before
		}
	})
	if err != nil {
		return err
	}
	defer stop()
	for {
		if err := p.apply(); err != nil {
			return err
		}
		select {
		case <-changed:
		case err := <-failed:
			return err
		case <-ctx.Done():
			return nil
		}
	}
}

// apply appends what is missing to the chains of the nft variant.
func (p Pods) apply() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("connecting to nftables: %w", err)
	}
	for i, family := range families {
		chain, rules, err := forwardChain(c, family.family)
		if err != nil {
			return err
		}
		if chain == nil || chain.Policy == nil || *chain.Policy != nftables.ChainPolicyDrop || slices.ContainsFunc(rules, isOurs) {
			continue
		}
		if err := p.Journal.Add(journal.Entry{Kind: journal.ForwardRules, Name: family.name}); err != nil {
			return err
		}
		for _, network := range p.Networks {
			if network.Addr().Is4() != (i == 0) {
				continue
			}
			for _, offset := range family.offsets {
				c.AddRule(&nftables.Rule{Table: chain.Table, Chain: chain, Exprs: accept(network, offset),
					UserData: userdata.AppendString(nil, userdata.TypeComment, comment)})
			}
		}
		if err := c.Flush(); err != nil {
			return fmt.Errorf("the policy of the chain %s filter FORWARD is DROP, and a rule for pods cannot be added: %w", family.name, err)
		}
		p.Log.Info("This host's packet filter drops what it forwards: pods' packets are accepted", "table", family.name+" "+table, "chain", "FORWARD")
	}
	return nil
}

// accept lets packets pass that have an address of the network at offset.
func accept(network netip.Prefix, offset uint32) []expr.Any {
	address := network.Masked().Addr()
	length := uint32(address.BitLen() / 8)
	return []expr.Any{
		&expr.Payload{DestRegister: unix.NFT_REG_1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
		&expr.Bitwise{SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: length,
			Mask: net.CIDRMask(network.Bits(), address.BitLen()), Xor: make([]byte, length)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: address.AsSlice()},
		&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictAccept},
	}
}

func isOurs(r *nftables.Rule) bool {
	return bytes.Equal(r.UserData, userdata.AppendString(nil, userdata.TypeComment, comment))
}

// forwardChain is a family's FORWARD of the nft variant of iptables, with its rules; nil if there is none.
func forwardChain(c *nftables.Conn, family nftables.TableFamily) (*nftables.Chain, []*nftables.Rule, error) {
	chains, err := c.ListChainsOfTableFamily(family)
	if err != nil {
		return nil, nil, fmt.Errorf("listing nftables chains: %w", err)
	}
	i := slices.IndexFunc(chains, func(c *nftables.Chain) bool { return c.Table.Name == table && c.Name == "FORWARD" })
	if i < 0 {
		return nil, nil, nil
	}
	rules, err := c.GetRules(chains[i].Table, chains[i])
	if err != nil && !errors.Is(err, unix.ENOENT) { // deleted meanwhile
		return nil, nil, fmt.Errorf("listing the rules of filter FORWARD: %w", err)
	}
	return chains[i], rules, nil
}

// applyLegacy does the same in the legacy variant, if that is in use.
func (p Pods) applyLegacy(ctx context.Context) error {
	for i, family := range families {
		command := p.Tool(family.command + "-legacy")
		if !usesLegacy(family.present) {
			continue
		}
		rules, err := run(ctx, command, "--wait", "5", "-S", "FORWARD")
		if err != nil {
			return err
		}
		if !strings.HasPrefix(rules, "-P FORWARD DROP") || strings.Contains(rules, comment) {
			continue
		}
		if err := p.Journal.Add(journal.Entry{Kind: journal.ForwardRules, Name: command}); err != nil {
			return err
		}
		for _, network := range p.Networks {
			if network.Addr().Is4() != (i == 0) {
				continue
			}
			for _, end := range []string{"-s", "-d"} {
				if _, err := run(ctx, command, "--wait", "5", "-A", "FORWARD", end, network.String(), "-m", "comment", "--comment", comment, "-j", "ACCEPT"); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// usesLegacy tells whether the legacy variant has a table filter.
func usesLegacy(tables string) bool {
	present, err := os.ReadFile(tables)
	return err == nil && slices.Contains(strings.Fields(string(present)), table)
}

func run(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("`%s`: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return string(out), nil
}

// Remove takes back what the journal's entry of that name is about.
func Remove(ctx context.Context, name string) error {
	for _, family := range families {
		if name == family.name {
			return removeRules(family.family)
		}
	}
	if _, err := os.Stat(name); err != nil {
		return fmt.Errorf("the rules for pods in the legacy chain FORWARD need the program that added them: %w", err)
	}
	rules, err := run(ctx, name, "--wait", "5", "-S", "FORWARD")
	if err != nil {
		return err
	}
	var errs []error
	for line := range strings.Lines(rules) {
		if rule, added := strings.CutPrefix(strings.TrimSpace(line), "-A "); added && strings.Contains(rule, comment) {
			args := strings.Fields(strings.ReplaceAll(rule, `"`+comment+`"`, "\x00"))
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "\x00", comment)
			}
			_, err := run(ctx, append([]string{name, "--wait", "5", "-D"}, args...)...)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func removeRules(family nftables.TableFamily) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("connecting to nftables: %w", err)
	}
	_, rules, err := forwardChain(c, family)
	if err != nil {
		return err
	}
	for _, r := range rules {
		if isOurs(r) {
			if err := c.DelRule(r); err != nil {
				return err
			}
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("removing the rules for pods from filter FORWARD: %w", err)
	}
	return nil
}
