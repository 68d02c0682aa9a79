package host

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

func TestIgnoreNoNFTables(t *testing.T) {
	for _, errno := range []error{unix.EINVAL, unix.EPROTONOSUPPORT, unix.EOPNOTSUPP, unix.EAFNOSUPPORT} {
		if err := IgnoreNoNFTables(fmt.Errorf("netlink receive: %w", errno)); err != nil {
			t.Errorf("%v", err)
		}
	}
	if IgnoreNoNFTables(unix.EPERM) == nil {
		t.Error("a lack of rights was taken for a lack of nftables")
	}
}
