package host

import (
	"errors"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// NFTables lists the tables of the packet filter by "family name", such as "ip nat". On a kernel without
// nftables there are none.
func NFTables(c *nftables.Conn) (map[string]*nftables.Table, error) {
	byName := map[string]*nftables.Table{}
	for name, family := range map[string]nftables.TableFamily{
		"ip": nftables.TableFamilyIPv4, "ip6": nftables.TableFamilyIPv6, "inet": nftables.TableFamilyINet,
		"bridge": nftables.TableFamilyBridge,
	} {
		tables, err := c.ListTablesOfFamily(family)
		if err := IgnoreNoNFTables(err); err != nil {
			return nil, err
		}
		for _, table := range tables {
			byName[name+" "+table.Name] = table
		}
	}
	return byName, nil
}

// IgnoreNoNFTables passes over the errors by which a kernel says that it has no nftables, or not for
// this family: EINVAL comes from netlink when no module serves the request.
func IgnoreNoNFTables(err error) error {
	for _, lacking := range []error{unix.EOPNOTSUPP, unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT, unix.EINVAL} {
		if errors.Is(err, lacking) {
			return nil
		}
	}
	return err
}
