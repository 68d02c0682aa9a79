package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"

	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/network/kuberouter"
	"k0s.io/k0s/internal/network/kuberouter/bgp"
	"k0s.io/k0s/internal/network/kuberouter/routes"
	"k0s.io/k0s/internal/network/kuberouter/settings"
)

// podRouting leads to the pods of the other nodes, who tell by BGP where those are.
func routing(o Options) component.Component {
	log := o.Log.With("component", "routing")
	c := component.Background("routing", func(ctx context.Context) error {
		r, err := newRouter(o, log)
		if err != nil {
			return err
		}
		o.Network.router.Store(r)
		defer o.Network.router.Store(nil)
		group, ctx := errgroup.WithContext(ctx)
		group.Go(func() error { return r.table.Run(ctx) })
		group.Go(func() error { return r.speaker.Run(ctx) })
		return group.Wait()
	}, log)
	failed := c.Trouble
	c.Trouble = func() error {
		if r := o.Network.router.Load(); r != nil && failed() == nil {
			return errors.Join(r.table.Status().Err, r.speaker.Trouble())
		}
		return failed()
	}
	c.Details = func(ctx context.Context) any {
		peers, err := o.Network.bgp(ctx)
		if err != nil {
			return nil
		}
		return struct {
			bgp.Status
			Kernel routes.Status `json:"kernel"`
		}{peers, o.Network.routes()}
	}
	return c
}

// withoutRouting takes back what is left of a time with it, as another router may now do the same.
func withoutRouting() component.Component {
	return component.Component{Name: "routing", Start: func(context.Context) error { return routes.Clear() }}
}

// router is what runs of the component routing.
type router struct {
	table   *routes.Table
	speaker *bgp.Speaker
}

func newRouter(o Options, log *slog.Logger) (*router, error) {
	client, err := o.nodeClient()
	if err != nil {
		return nil, err
	}
	network := o.Config.Spec.Network
	s, problems := network.KubeRouter.Settings()
	if len(problems) > 0 {
		return nil, fmt.Errorf("spec.network.kuberouter.%s: %s", problems[0].Field, problems[0].Reason)
	}
	before, err := routes.Present()
	if err != nil {
		return nil, err
	}
	_, err = netlink.LinkByName(kuberouter.Bridge)
	table := routes.New(routes.Options{
		Overlay: overlay(s.Overlay), Encapsulation: routes.Encapsulation(s.Overlay.Encapsulation), Port: int(s.Overlay.Port),
		Bridge: kuberouter.Bridge, BGPPort: int(s.BGP.Port), Journal: o.Journal, Log: log,
	})
	return &router{table, bgp.New(bgp.Options{
		Client: client, NodeName: o.NodeName, Settings: s.BGP, Routes: table, Log: log,
		PodNetworks:     prefixes(o.Config.PodCIDRs()...),
		ServiceNetworks: prefixes(o.Config.ServiceCIDRs()...),
		Before:          before,
		Restarted:       err == nil, // packets to pods have gone on meanwhile
	})}, nil
}

func overlay(s settings.Overlay) routes.Overlay {
	switch {
	case !s.Enabled:
		return routes.Off
	case s.Full:
		return routes.Full
	}
	return routes.Subnet
}

func prefixes(cidrs ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, cidr := range cidrs {
		if p, err := netip.ParsePrefix(cidr); err == nil {
			all = append(all, p.Masked())
		}
	}
	return all
}
