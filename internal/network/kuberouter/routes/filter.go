package routes

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"k0s.io/k0s/internal/journal"
)

// filterTable is our table of what only nodes may say to nodes: tunnels know no authentication, and BGP between
// nodes none but addresses.
const filterTable = "kuberouter-overlay"

// nodeSet are addresses of nodes of a family.
type nodeSet struct {
	name   string
	family int
	nodes  []netip.Addr
}

// guard is a rule that drops packets. The comment tells all that makes it another one.
type guard struct {
	chain, comment string
	packets        []expr.Any
}

// guards are the rules, and the sets of nodes that they use: who is at the other ends of tunnels, and all others.
func (t *Table) guards(ends, others map[int][]netip.Addr) (sets []nodeSet, guards []guard) {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		nfproto, source, length, digit := byte(unix.NFPROTO_IPV4), uint32(12), uint32(4), "4"
		if family == netlink.FAMILY_V6 {
			nfproto, source, length, digit = unix.NFPROTO_IPV6, 8, 16, "6"
		}
		address := func(offset uint32, set string, invert bool) []expr.Any {
			return []expr.Any{
				&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
				&expr.Lookup{SourceRegister: 1, SetName: set, Invert: invert},
			}
		}
		own := equal(&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, nfproto)
		// Pods have the address of their node where they talk to others.
		name := make([]byte, unix.IFNAMSIZ)
		copy(name, t.Bridge)
		ofPods := slices.Concat(equal(&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, name...), own)
		if len(ends[family]) > 0 {
			set := "nodes" + digit
			sets = append(sets, nodeSet{set, family, sorted(ends[family])})
			what, wrapped := t.wrapped(family)
			guards = append(guards, guard{"input", what + " from nodes only", slices.Concat(own, wrapped, address(source, set, true))})
			if t.Bridge != "" {
				guards = append(guards, guard{"forward", what + " not from pods", slices.Concat(ofPods, wrapped, address(source+length, set, false))})
			}
		}
		if t.Bridge != "" && t.BGPPort != 0 && len(others[family]) > 0 {
			set := "bgp" + digit
			sets = append(sets, nodeSet{set, family, sorted(others[family])})
			guards = append(guards, guard{"forward", fmt.Sprintf("BGP on TCP port %d of nodes (IPv%s) not from pods", t.BGPPort, digit),
				slices.Concat(ofPods, toPort(unix.IPPROTO_TCP, t.BGPPort), address(source+length, set, false))})
		}
	}
	return sets, guards
}

// wrapped matches the packets that the tunnel of a family takes.
func (t *Table) wrapped(family int) (name string, packets []expr.Any) {
	if t.encapsulation[family] == IPIP {
		return tunnelName(family) + ": IPIP", equal(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, unix.IPPROTO_IPIP)
	}
	const vniOffset = 8 + 4 // behind the UDP header, RFC 7348
	return fmt.Sprintf("%s: VXLAN on UDP port %d", tunnelName(family), t.Port), append(toPort(unix.IPPROTO_UDP, t.Port),
		equal(&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: vniOffset, Len: 3}, binaryutil.BigEndian.PutUint32(VNI)[1:]...)...)
}

func toPort(protocol byte, port int) []expr.Any {
	return append(equal(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, protocol),
		equal(&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}, binaryutil.BigEndian.PutUint16(uint16(port))...)...)
}

// applyFilter has wrapped packets accepted from the nodes at the other ends of tunnels only, and pods not talk to
// nodes as nodes do. Without anything to guard there is no table.
func (t *Table) applyFilter(ends, others map[int][]netip.Addr) error {
	sets, guards := t.guards(ends, others)
	if len(guards) == 0 {
		return removeFilter()
	}
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("connecting to nftables: %w", err)
	}
	if filterIs(c, sets, guards) {
		return nil
	}
	if err := t.Journal.Add(journal.Entry{Kind: journal.NFTTable, Name: "inet " + filterTable}); err != nil {
		return err
	}
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: filterTable}
	// Added before it is deleted, so that deleting never fails; all of it is one transaction.
	c.AddTable(table)
	c.DelTable(table)
	table = c.AddTable(table)
	chains := map[string]*nftables.Chain{}
	for name, hook := range filterChains {
		chains[name] = c.AddChain(&nftables.Chain{
			Name: name, Table: table, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: nftables.ChainPriorityRef(-10),
		})
	}
	for _, s := range sets {
		var elements []nftables.SetElement
		for _, node := range s.nodes {
			elements = append(elements, nftables.SetElement{Key: node.AsSlice()})
		}
		if err := c.AddSet(s.in(table), elements); err != nil {
			return err
		}
	}
	for _, g := range guards {
		c.AddRule(&nftables.Rule{Table: table, Chain: chains[g.chain], UserData: userdata.AppendString(nil, userdata.TypeComment, g.comment),
			Exprs: append(g.packets, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop})})
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("writing the nftables table inet %s: %w", filterTable, err)
	}
	return nil
}

var filterChains = map[string]*nftables.ChainHook{"input": nftables.ChainHookInput, "forward": nftables.ChainHookForward}

func (s nodeSet) in(table *nftables.Table) *nftables.Set {
	set := &nftables.Set{Table: table, Name: s.name, KeyType: nftables.TypeIPAddr}
	if s.family == netlink.FAMILY_V6 {
		set.KeyType = nftables.TypeIP6Addr
	}
	return set
}

// filterIs tells whether our table is there, with these rules for these nodes.
func filterIs(c *nftables.Conn, sets []nodeSet, guards []guard) bool {
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: filterTable}
	var present, wanted []string
	for chain := range filterChains {
		rules, err := c.GetRules(table, &nftables.Chain{Name: chain, Table: table})
		if err != nil {
			return false
		}
		for _, r := range rules {
			comment, _ := userdata.GetString(r.UserData, userdata.TypeComment)
			present = append(present, chain+" "+comment)
		}
	}
	for _, g := range guards {
		wanted = append(wanted, g.chain+" "+g.comment)
	}
	slices.Sort(present)
	slices.Sort(wanted)
	if !slices.Equal(present, wanted) {
		return false
	}
	for _, s := range sets {
		elements, err := c.GetSetElements(s.in(table))
		if err != nil {
			return false
		}
		var known []netip.Addr
		for _, e := range elements {
			node, _ := netip.AddrFromSlice(e.Key)
			known = append(known, node)
		}
		if !slices.Equal(sorted(known), s.nodes) {
			return false
		}
	}
	return true
}

// removeFilter deletes our table, if it is there.
func removeFilter() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("connecting to nftables: %w", err)
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return fmt.Errorf("listing nftables tables: %w", err)
	}
	if !slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == filterTable }) {
		return nil
	}
	c.DelTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: filterTable})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("removing the nftables table inet %s: %w", filterTable, err)
	}
	return nil
}

func equal(load expr.Any, value ...byte) []expr.Any {
	return []expr.Any{load, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: value}}
}

// sorted are the distinct ones in order.
func sorted(nodes []netip.Addr) []netip.Addr {
	all := slices.Clone(nodes)
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}
