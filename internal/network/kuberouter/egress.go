package kuberouter

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// tableName is that of our own tables, one in each family: never anybody else's. A single table of
// family inet would do for NAT only since Linux 5.2.
const tableName = "kuberouter"

// family is IPv4 or IPv6, and where the addresses are in its header (RFC 791, RFC 8200).
type family struct {
	name                            string
	table                           nftables.TableFamily
	addressLen                      int
	sourceOffset, destinationOffset uint32
}

var families = []family{
	{"ip", nftables.TableFamilyIPv4, net.IPv4len, 12, 16},
	{"ip6", nftables.TableFamilyIPv6, net.IPv6len, 8, 24},
}

// of tells whether an address of prefix is in the family's header.
func (f family) of(prefix netip.Prefix) bool { return prefix.Addr().BitLen() == 8*f.addressLen }

// applyEgress replaces our tables by ones that give pods of this node the node's address when they
// talk to anything outside of the pod network, or, with Masquerade, to anything but pods of this node.
func (n Network) applyEgress() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("connecting to nftables: %w", err)
	}
	inside := n.ClusterCIDRs
	if n.Masquerade {
		inside = n.PodCIDRs
	}
	for _, f := range families {
		table := &nftables.Table{Family: f.table, Name: tableName}
		// Added before it is deleted, so that deleting never fails; all of it is one transaction.
		c.AddTable(table)
		c.DelTable(table)
		if !slices.ContainsFunc(n.PodCIDRs, f.of) {
			continue
		}
		table = c.AddTable(table)
		postrouting := c.AddChain(&nftables.Chain{
			Name: "postrouting", Table: table, Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
		})
		for _, pods := range n.PodCIDRs {
			if f.of(pods) && (!n.Shown || n.Masquerade) {
				c.AddRule(&nftables.Rule{Table: table, Chain: postrouting, Exprs: f.masquerade(pods, inside)})
			}
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("writing the nftables tables %s: %w", tableName, err)
	}
	return nil
}

// masquerade is what hides pods from everything that is not inside.
func (f family) masquerade(pods netip.Prefix, inside []netip.Prefix) []expr.Any {
	exprs := matchPrefix(pods, f.sourceOffset, expr.CmpOpEq)
	for _, prefix := range inside {
		if f.of(prefix) {
			exprs = append(exprs, matchPrefix(prefix, f.destinationOffset, expr.CmpOpNeq)...)
		}
	}
	return append(exprs, &expr.Counter{}, &expr.Masq{FullyRandom: true})
}

// tableExists tells whether a table of ours is in the kernel.
func tableExists() (bool, error) {
	c, err := nftables.New()
	if err != nil {
		return false, fmt.Errorf("connecting to nftables: %w", err)
	}
	for _, f := range families {
		tables, err := c.ListTablesOfFamily(f.table)
		if err != nil {
			return false, fmt.Errorf("listing nftables tables: %w", err)
		}
		if slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == tableName }) {
			return true, nil
		}
	}
	return false, nil
}

// matchPrefix compares the address at offset of the network header with prefix.
func matchPrefix(prefix netip.Prefix, offset uint32, op expr.CmpOp) []expr.Any {
	address := prefix.Masked().Addr()
	length := uint32(address.BitLen() / 8)
	return []expr.Any{
		&expr.Payload{DestRegister: unix.NFT_REG_1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
		&expr.Bitwise{
			SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: length,
			Mask: net.CIDRMask(prefix.Bits(), address.BitLen()), Xor: make([]byte, length),
		},
		&expr.Cmp{Op: op, Register: unix.NFT_REG_1, Data: address.AsSlice()},
	}
}
