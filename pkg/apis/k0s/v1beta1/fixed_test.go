package v1beta1

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestFixed(t *testing.T) {
	want := []string{
		"spec.network.calico.mode", "spec.network.calico.overlay", "spec.network.clusterDomain", "spec.network.dualStack.IPv6podCIDR",
		"spec.network.dualStack.IPv6serviceCIDR", "spec.network.dualStack.enabled", "spec.network.podCIDR",
		"spec.network.primaryAddressFamily", "spec.network.provider", "spec.network.serviceCIDR",
		"spec.storage.etcd.externalCluster.etcdPrefix", "spec.storage.type",
	}
	if got := slices.Sorted(maps.Keys(Default().Fixed())); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestCheckFixed(t *testing.T) {
	founded := Default().Fixed()
	for _, test := range []struct {
		name   string
		change func(*ClusterConfig)
		want   []string // the paths complained of
	}{
		{"nothing", func(*ClusterConfig) {}, nil},
		{"what may change", func(c *ClusterConfig) { c.Spec.API.Port, c.Spec.Network.KubeProxy.Disabled = 443, true }, nil},
		{"what was so by default", func(c *ClusterConfig) { c.Spec.Network.PrimaryAddressFamily = IPv4Family }, nil},
		{"provider", func(c *ClusterConfig) { c.Spec.Network.Provider = CustomProvider }, []string{"spec.network.provider"}},
		{"networks", func(c *ClusterConfig) {
			c.Spec.Network.PodCIDR, c.Spec.Network.ServiceCIDR, c.Spec.Network.ClusterDomain = "10.1.0.0/16", "10.2.0.0/16", "a.b"
		}, []string{"spec.network.podCIDR", "spec.network.serviceCIDR", "spec.network.clusterDomain"}},
		{"another etcd", func(c *ClusterConfig) { c.Spec.Storage.Etcd.ExternalCluster = &ExternalCluster{EtcdPrefix: "/a"} },
			[]string{"spec.storage.etcd.externalCluster.etcdPrefix"}},
		{"another store", func(c *ClusterConfig) { c.Spec.Storage.Type = KineStorage }, []string{"spec.storage.type"}},
	} {
		c := Default()
		test.change(c)
		err := c.CheckFixed(founded)
		var got []string
		if err != nil {
			for line := range strings.SplitSeq(err.Error(), "\n") {
				path, _, _ := strings.Cut(line, ":")
				got = append(got, path)
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		}
	}
	// What an older k0s has not recorded is not compared.
	c := Default()
	c.Spec.Network.Provider = CustomProvider
	if err := c.CheckFixed(nil); err != nil {
		t.Error(err)
	}
}
