package kuberouter

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Our own table: never anybody else's.
const (
	tableName   = "kuberouter"
	tableFamily = "ip"
)

// applyEgress replaces our table by one that gives pods of this node the node's address when they
// talk to anything outside of the pod network.
func (n Network) applyEgress() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("connecting to nftables: %w", err)
	}
	table := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: tableName}
	// Added before it is deleted, so that deleting never fails; all of it is one transaction.
	c.AddTable(table)
	c.DelTable(table)
	table = c.AddTable(table)
	postrouting := c.AddChain(&nftables.Chain{
		Name: "postrouting", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	const sourceOffset, destinationOffset = 12, 16 // in the IPv4 header, RFC 791
	var exprs []expr.Any
	exprs = append(exprs, matchPrefix(n.PodCIDR, sourceOffset, expr.CmpOpEq)...)
	exprs = append(exprs, matchPrefix(n.ClusterCIDR, destinationOffset, expr.CmpOpNeq)...)
	exprs = append(exprs, &expr.Counter{}, &expr.Masq{FullyRandom: true})
	c.AddRule(&nftables.Rule{Table: table, Chain: postrouting, Exprs: exprs})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("writing the nftables table %s %s: %w", tableFamily, tableName, err)
	}
	return nil
}

// tableExists tells whether our table is in the kernel.
func tableExists() (bool, error) {
	c, err := nftables.New()
	if err != nil {
		return false, fmt.Errorf("connecting to nftables: %w", err)
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return false, fmt.Errorf("listing nftables tables: %w", err)
	}
	return slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == tableName }), nil
}

// matchPrefix compares the address at offset of the IPv4 header with prefix.
func matchPrefix(prefix netip.Prefix, offset uint32, op expr.CmpOp) []expr.Any {
	mask := binaryutil.BigEndian.PutUint32(^uint32(0) << (32 - prefix.Bits()))
	return []expr.Any{
		&expr.Payload{DestRegister: unix.NFT_REG32_00, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{SourceRegister: unix.NFT_REG32_00, DestRegister: unix.NFT_REG32_00, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: unix.NFT_REG32_00, Data: prefix.Masked().Addr().AsSlice()},
	}
}
