package controlplane

import (
	"context"
	"net/netip"
	"slices"

	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/internal/manifests"
	"k0s.io/k0s/internal/workerconfig"
)

// manifestDeployer applies our own stacks and the user's.
func manifestDeployer(o Options) component.Component {
	log := o.Log.With("component", "manifests")
	return component.Background("manifests", o.elected("k0s-manifests", func(ctx context.Context) error {
		config, err := o.adminConfig()
		if err != nil {
			return err
		}
		own, err := manifests.Render(stackParams(o, host.Nameservers(host.ResolvConf())))
		if err != nil {
			return err
		}
		if own, err = manifests.Patch(own, o.Config.Spec); err != nil {
			return err
		}
		workers := manifests.Stack{Name: workerconfig.Stack}
		if !o.Alone {
			if workers, err = workerconfig.Objects(workerconfig.Settings{ClusterID: o.Identity.ClusterID, Config: o.Config, WithoutTunnel: o.WithoutTunnel}); err != nil {
				return err
			}
		}
		own = append(own, workers)
		return manifests.New(manifests.Options{Config: config, Dir: o.Layout.Manifests(), Own: own, Logger: log}).Run(ctx)
	}), log)
}

// stackParams fills our own stacks in; nameservers are those of the host.
func stackParams(o Options, nameservers []string) manifests.Params {
	spec := o.Config.Spec
	p := manifests.DefaultParams()
	p.ClusterDomain = spec.Network.ClusterDomain
	p.DNSIPs = nil
	for _, address := range o.Config.DNSAddresses() {
		p.DNSIPs = append(p.DNSIPs, address.String())
	}
	p.CoreDNSImage = spec.Images.Ref(spec.Images.CoreDNS)
	p.MetricsServerImage = spec.Images.Ref(spec.Images.MetricsServer)
	p.PullPolicy = string(spec.Images.DefaultPullPolicy)
	p.EtcdMembers = o.etcdGrows()
	p.Disabled = o.DisabledStacks
	// A resolver on the host's loopback is not there in a pod: CoreDNS would ask itself, and give up.
	reachable := slices.DeleteFunc(slices.Clone(nameservers), func(server string) bool {
		ip, err := netip.ParseAddr(server)
		return err != nil || ip.IsLoopback()
	})
	if len(reachable) != len(nameservers) || len(reachable) == 0 {
		p.DNSUpstreams = reachable
	}
	return p
}
