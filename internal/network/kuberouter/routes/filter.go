package routes

import (
	"bytes"
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

// filterTable is our table that refuses wrapped packets from others than nodes: tunnels know no authentication.
const filterTable = "kuberouter-overlay"

var nodeSets = map[int]*nftables.Set{
	netlink.FAMILY_V4: {Name: "nodes4", KeyType: nftables.TypeIPAddr},
	netlink.FAMILY_V6: {Name: "nodes6", KeyType: nftables.TypeIP6Addr},
}

// applyFilter has wrapped packets accepted from these nodes only, by family.
func (t *Table) applyFilter(nodes map[int][]netip.Addr) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("connecting to nftables: %w", err)
	}
	if t.filterKnows(c, nodes) {
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
	input := c.AddChain(&nftables.Chain{
		Name: "input", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityRef(-10),
	})
	for family, shape := range nodeSets {
		set := *shape
		set.Table = table
		var elements []nftables.SetElement
		for _, node := range sorted(nodes[family]) {
			elements = append(elements, nftables.SetElement{Key: node.AsSlice()})
		}
		if err := c.AddSet(&set, elements); err != nil {
			return err
		}
		nfproto, offset, length := byte(unix.NFPROTO_IPV4), uint32(12), uint32(4)
		if family == netlink.FAMILY_V6 {
			nfproto, offset, length = unix.NFPROTO_IPV6, 8, 16
		}
		foreign := []expr.Any{
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
			&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID, Invert: true},
			&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop},
		}
		own := equal(&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, nfproto)
		if t.encapsulation[family] == IPIP {
			own = append(own, equal(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, unix.IPPROTO_IPIP)...)
		} else {
			const vniOffset = 8 + 4 // behind the UDP header, RFC 7348
			own = append(own, equal(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, unix.IPPROTO_UDP)...)
			own = append(own, equal(&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
				binaryutil.BigEndian.PutUint16(uint16(t.Port))...)...)
			own = append(own, equal(&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: vniOffset, Len: 3},
				binaryutil.BigEndian.PutUint32(VNI)[1:]...)...)
		}
		c.AddRule(&nftables.Rule{Table: table, Chain: input, Exprs: append(own, foreign...), UserData: t.comment(family)})
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("writing the nftables table inet %s: %w", filterTable, err)
	}
	return nil
}

// comment says what a family's rule is about: all that makes it another one.
func (t *Table) comment(family int) []byte {
	text := fmt.Sprintf("%s: IPIP from nodes only", tunnelName(family))
	if t.encapsulation[family] != IPIP {
		text = fmt.Sprintf("%s: VXLAN on UDP port %d from nodes only", tunnelName(family), t.Port)
	}
	return userdata.AppendString(nil, userdata.TypeComment, text)
}

// filterKnows tells whether our table is there, for these nodes.
func (t *Table) filterKnows(c *nftables.Conn, nodes map[int][]netip.Addr) bool {
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: filterTable}
	rules, err := c.GetRules(table, &nftables.Chain{Name: "input", Table: table})
	if err != nil || len(rules) != len(nodeSets) {
		return false
	}
	for family, shape := range nodeSets {
		set := *shape
		set.Table = table
		is := func(r *nftables.Rule) bool { return bytes.Equal(r.UserData, t.comment(family)) }
		if !slices.ContainsFunc(rules, is) {
			return false
		}
		elements, err := c.GetSetElements(&set)
		if err != nil {
			return false
		}
		var known []netip.Addr
		for _, e := range elements {
			node, _ := netip.AddrFromSlice(e.Key)
			known = append(known, node)
		}
		if !slices.Equal(sorted(known), sorted(nodes[family])) {
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
