package controlplane

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"k0s.io/k0s/internal/applet/name"
	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/file"
	"k0s.io/k0s/internal/flags"
	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/internal/identity"
	"k0s.io/k0s/internal/probe"
	"k0s.io/k0s/internal/process"
	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

// tunnel tells whether the API server reaches nodes and pods through the connections that the nodes make.
// A controller that is alone has no other node than itself.
func (o Options) tunnel() bool { return !o.Alone && !o.WithoutTunnel }

// konnectivityServer is where the API server and the nodes' agents meet.
func konnectivityServer(o Options) component.Component {
	return process.Component(name.KonnectivityServer, func() (process.Spec, error) {
		u, err := o.users()
		if err != nil {
			return process.Spec{}, err
		}
		spec, err := o.spec(name.KonnectivityServer, o.Config.Spec.InstallConfig.Users.KonnectivityUser, konnectivityServerArgs(o, u.apiServer.UID))
		if err != nil {
			return spec, err
		}
		if err := file.Write(o.egressSelector(), egressSelector(o), 0o644, file.Options{}); err != nil {
			return spec, err
		}
		return spec, makeSocketDir(filepath.Dir(o.tunnelSocket()), int(spec.UID), int(u.apiServer.GID))
	}, probe.PlainHTTP("http://"+o.tunnelAdminAddress()+"/healthz"))
}

// makeSocketDir makes a directory in which one user makes a socket that a group uses, too.
func makeSocketDir(dir string, uid, gid int) error {
	if err := host.MakeDir(dir, 0o700, uid); err != nil {
		return err
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		return err
	}
	return os.Chmod(dir, 0o710|fs.ModeSetgid) // what is made in it gets its group
}

func konnectivityServerArgs(o Options, apiServerUID uint32) []string {
	l, address := o.Layout, ""
	if o.Config.Spec.API.OnlyBindToAddress {
		address = o.Config.Spec.API.Address
	}
	args := flags.Args{
		"agent-address":        net.JoinHostPort(address, strconv.Itoa(o.Config.Spec.Konnectivity.AgentPort)),
		"admin-address":        o.tunnelAdminAddress(),
		"client-ca-file":       l.PKI("ca.crt"),
		"nodes-file":           o.tunnelNodesFile(),
		"socket":               o.tunnelSocket(),
		"socket-uid":           strconv.Itoa(int(apiServerUID)),
		"tls-cert-file":        l.PKI("konnectivity-server.crt"),
		"tls-private-key-file": l.PKI("konnectivity-server.key"),
		"v":                    o.LogLevels[name.KonnectivityServer],
	}
	if o.Identity.State == identity.Member { // the agents know it
		args["patience"] = "3s"
	}
	return flags.Compute(args, nil, nil)
}

func (o Options) tunnelSocket() string {
	return o.Layout.Run("konnectivity-server", "konnectivity-server.sock")
}

func (o Options) tunnelAdminAddress() string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(o.Config.Spec.Konnectivity.AdminPort))
}

// egressSelector is the file that tells the API server of the tunnel.
func (o Options) egressSelector() string { return o.Layout.Run("egress-selector.yaml") }

// The selection "cluster" is for nodes, pods and services. The store and the world outside are reached
// directly.
func egressSelector(o Options) []byte {
	return fmt.Appendf(nil, `apiVersion: apiserver.k8s.io/v1beta1
kind: EgressSelectorConfiguration
egressSelections:
- name: cluster
  connection:
    proxyProtocol: HTTPConnect
    transport:
      uds: {udsName: %q}
`, o.tunnelSocket())
}

// tunnelNames are those of the server of the tunnel, beside the API server's.
func (o Options) tunnelNames() []string {
	external := o.Config.Spec.Konnectivity.ExternalAddress
	if host, _, err := net.SplitHostPort(external); err == nil {
		external = host
	}
	return []string{strings.Trim(external, "[]")}
}

// tunnelPorts lists what the server of the tunnel listens on.
func tunnelPorts(c *v1beta1.ClusterConfig) []host.Port {
	agents := host.Port{Number: c.Spec.Konnectivity.AgentPort, Usage: "konnectivity-server, for the nodes (spec.konnectivity.agentPort)"}
	if c.Spec.API.OnlyBindToAddress {
		agents.Address = c.Spec.API.Address
	}
	return []host.Port{agents, {
		Address: "127.0.0.1", Number: c.Spec.Konnectivity.AdminPort, Usage: "konnectivity-server's health (spec.konnectivity.adminPort)",
	}}
}
