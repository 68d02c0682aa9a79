package node

import (
	"slices"
	"testing"

	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

func TestTunnelServers(t *testing.T) {
	got := tunnelServers([]string{"192.0.2.1:6443", "[2001:db8::1]:6443"}, 8132)
	if want := []string{"192.0.2.1:8132", "[2001:db8::1]:8132"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTunnelAddresses(t *testing.T) {
	o := options(t, func(o *Options) { o.NodeName = "w0" })
	if got := o.tunnelAddresses(); !slices.Equal(got, []string{"192.0.2.1", "w0"}) {
		t.Errorf("got %q", got)
	}
	dual(v1beta1.IPv6Family)(&o)
	if got := o.tunnelAddresses(); !slices.Equal(got, []string{"2001:db8::1", "192.0.2.1", "w0"}) {
		t.Errorf("got %q", got)
	}
	o.KubeletArgs = map[string]string{"node-ip": "192.0.2.2,2001:db8::2"}
	if got := o.tunnelAddresses(); !slices.Equal(got, []string{"192.0.2.2", "2001:db8::2", "w0"}) {
		t.Errorf("got %q", got)
	}
}
