package node

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func addresses(list string) []netip.Addr {
	var all []netip.Addr
	for _, a := range strings.Fields(list) {
		all = append(all, netip.MustParseAddr(a))
	}
	return all
}

// A node keeps the address that it is known by for as long as its host has it.
func TestFollow(t *testing.T) {
	for _, tc := range []struct{ name, before, host, want string }{
		{"nothing has changed", "192.0.2.1", "192.0.2.1", "192.0.2.1"},
		{"another one", "192.0.2.1", "192.0.2.2", "192.0.2.2"},
		{"one more, which comes first", "192.0.2.1", "192.0.2.9 192.0.2.1", "192.0.2.1 192.0.2.9"},
		{"none for now", "192.0.2.1", "", "192.0.2.1"},
		{"only one of the other family", "192.0.2.1", "2001:db8::1", "192.0.2.1 2001:db8::1"},
		{"one of the other family, too", "192.0.2.1", "192.0.2.1 2001:db8::1", "192.0.2.1 2001:db8::1"},
		{"another prefix", "192.0.2.1 2001:db8::1", "192.0.2.1 2001:db8:1::1", "192.0.2.1 2001:db8:1::1"},
		{"both others", "192.0.2.1 2001:db8::1", "192.0.2.2 192.0.2.3 2001:db8:1::1", "192.0.2.2 192.0.2.3 2001:db8:1::1"},
	} {
		o := Options{Addresses: addresses(tc.before)}
		if got := o.follow(addresses(tc.host)); !slices.Equal(got, addresses(tc.want)) {
			t.Errorf("%s: got %v", tc.name, got)
		}
	}
}

func TestLostAddress(t *testing.T) {
	moved := func(o *Options) { o.Moved = func([]netip.Addr) {} }
	for _, tc := range []struct {
		name   string
		change func(*Options)
		host   string
		want   string // a part of what is said
	}{
		{"nothing has changed", moved, "192.0.2.1", ""},
		{"another one", moved, "192.0.2.2", ""},
		{"none", moved, "", "192.0.2.1 any more, nor another one"},
		{"another one of a controller", nil, "192.0.2.2", "a controller cannot change"},
		{"one that was asked for, from the beginning", func(o *Options) { moved(o); o.KubeletArgs = map[string]string{"node-ip": "192.0.2.7"} }, "192.0.2.1 192.0.2.7", ""},
		{"not the one asked for", func(o *Options) { moved(o); o.KubeletArgs = map[string]string{"node-ip": "192.0.2.7"} }, "192.0.2.1", "--node-ip=192.0.2.7"},
		{"any that was asked for", func(o *Options) { moved(o); o.KubeletArgs = map[string]string{"node-ip": "0.0.0.0"} }, "192.0.2.2", ""},
	} {
		o := options(t, tc.change)
		err := o.lostAddress(addresses(tc.host), addresses(tc.host))
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v", tc.name, err)
		}
	}
}

func TestChangedAddress(t *testing.T) {
	before, after := options(t, nil), options(t, nil)
	after.Addresses = addresses("192.0.2.2")
	got, same, err := Changed(before, after)
	if want := []string{"kubelet", "pod-network", "tunnel", nodeAddressName}; err != nil || !same || !slices.Equal(got, want) {
		t.Errorf("another address: got %q, %t, %v", got, same, err)
	}
	after.Addresses = addresses("192.0.2.1 192.0.2.9")
	if got, same, err = Changed(before, after); err != nil || !same || len(got) > 0 {
		t.Errorf("one more: got %q, %t, %v", got, same, err)
	}
}
