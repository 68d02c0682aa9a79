package policy

import (
	"fmt"
	"net/netip"

	"go4.org/netipx"
	networkingv1 "k8s.io/api/networking/v1"
)

// blockRanges are the addresses of all blocks less each one's exceptions: merged, so that nothing overlaps.
// A block that cannot be read is left out.
func blockRanges(blocks []*networkingv1.IPBlock) (*netipx.IPSet, error) {
	var all netipx.IPSetBuilder
	var firstErr error
	for _, block := range blocks {
		one, err := blockSet(block)
		if err != nil {
			firstErr = err
			continue
		}
		all.AddSet(one)
	}
	set, err := all.IPSet()
	if err != nil {
		return set, err
	}
	return set, firstErr
}

func blockSet(block *networkingv1.IPBlock) (*netipx.IPSet, error) {
	var b netipx.IPSetBuilder
	prefix, err := netip.ParsePrefix(block.CIDR)
	if err != nil {
		return nil, fmt.Errorf("ipBlock %q matches nothing: %w", block.CIDR, err)
	}
	b.AddPrefix(prefix.Masked())
	for _, text := range block.Except {
		except, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("ipBlock %q matches nothing: its exception %q: %w", block.CIDR, text, err)
		}
		b.RemovePrefix(except.Masked())
	}
	return b.IPSet()
}

// everything tells whether ranges are all addresses of their family.
func everything(ranges []netipx.IPRange) bool {
	if len(ranges) != 1 {
		return false
	}
	prefix, is := ranges[0].Prefix()
	return is && prefix.Bits() == 0
}
