package node

import (
	"context"
	"net"
	"strconv"
	"sync/atomic"

	"k8s.io/client-go/tools/clientcmd"

	"k0s.io/k0s/internal/balancer"
	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/tunnel"
)

// controlTunnel is the way of the controllers to this node, its pods, and services: they need no route.
func controlTunnel(o Options) component.Component {
	log := o.Log.With("component", "tunnel")
	var running atomic.Pointer[tunnel.Tunnel]
	c := component.Background("tunnel", func(ctx context.Context) error {
		external := o.Config.TunnelAddress()
		t, err := tunnel.New(tunnel.Options{
			Addresses: o.tunnelAddresses(), CertFile: currentCertificate(o.Layout), CAFile: o.Layout.PKI("ca.crt"),
			Shared: external != "", Log: log,
		})
		if err != nil {
			return err
		}
		defer t.Close()
		running.Store(t)
		port := o.Config.Spec.Konnectivity.AgentPort
		// A controller's own node does not wait to be told of it: the API may wait for the node.
		var own []string
		if o.Controller != "" {
			own = []string{net.JoinHostPort(o.Controller, strconv.Itoa(port))}
		}
		if external != "" {
			if err := t.SetServers(append([]string{external}, own...)); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		}
		if err := t.SetServers(own); err != nil {
			return err
		}
		config, err := clientcmd.BuildConfigFromFlags("", o.Layout.KubeletConf())
		if err != nil {
			return err
		}
		config.UserAgent = "k0s"
		return balancer.Watch(ctx, config, func(apiServers []string) error {
			return t.SetServers(append(tunnelServers(apiServers, port), own...))
		}, log)
	}, log)
	failed := c.Trouble
	c.Trouble = func() error {
		if t := running.Load(); t != nil && failed() == nil {
			return t.Trouble()
		}
		return failed()
	}
	return c
}

// tunnelServers are where the controllers of these API servers, HOST:PORT, expect the nodes.
func tunnelServers(apiServers []string, port int) []string {
	var servers []string
	for _, server := range apiServers {
		if host, _, err := net.SplitHostPort(server); err == nil {
			servers = append(servers, net.JoinHostPort(host, strconv.Itoa(port)))
		}
	}
	return servers
}

// tunnelAddresses are all that API servers may know this node by.
func (o Options) tunnelAddresses() []string {
	return append(o.nodeAddresses(), o.NodeName)
}
