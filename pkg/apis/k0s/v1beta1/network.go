package v1beta1

import (
	"fmt"
	"net/netip"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"k0s.io/k0s/internal/network/kuberouter/settings"
)

// NetworkProvider is who connects the pods.
type NetworkProvider string

const (
	// KubeRouterProvider is built into k0s.
	KubeRouterProvider NetworkProvider = "kuberouter"
	// CalicoProvider is not supported yet.
	CalicoProvider NetworkProvider = "calico"
	// CustomProvider leaves the pod network to the user.
	CustomProvider NetworkProvider = "custom"
)

// AddressFamily is IPv4 or IPv6.
type AddressFamily string

const (
	// AutoFamily is that of spec.api.externalAddress, else of spec.api.address.
	AutoFamily AddressFamily = ""
	// IPv4Family is IPv4.
	IPv4Family AddressFamily = "IPv4"
	// IPv6Family is IPv6.
	IPv6Family AddressFamily = "IPv6"
)

// NetworkSpec configures pod and service networking.
type NetworkSpec struct {
	// Provider connects the pods: kuberouter (built in), or custom: bring your
	// own CNI plugin. It is recorded when the cluster is founded; only a new
	// cluster can have another one.
	Provider NetworkProvider `json:"provider" scope:"cluster" change:"redeploy" enum:"kuberouter,custom" known:"calico" example:"custom"`
	// PodCIDR is the network pod addresses are taken from, IPv4 or IPv6. Each
	// node gets a /24 of it; of an IPv6 one a /117, or if podCIDR is larger than
	// /101 one 65536th of it (node-cidr-mask-size in
	// spec.controllerManager.extraArgs).
	PodCIDR string `json:"podCIDR" scope:"cluster" change:"redeploy" example:"10.42.0.0/16"`
	// ServiceCIDR is the network service addresses are taken from, of the family
	// of podCIDR; an IPv6 one is a /108 or smaller. Its first address is the API
	// server's, its tenth the cluster DNS's (its second if it has no more than
	// eight addresses).
	ServiceCIDR string `json:"serviceCIDR" scope:"cluster" change:"redeploy" example:"10.43.0.0/16"`
	// ClusterDomain is the DNS domain of services and pods.
	ClusterDomain string `json:"clusterDomain" scope:"cluster" change:"redeploy" example:"k8s.example.org"`
	// PrimaryAddressFamily is, in a cluster with both, the family that services
	// get by default and that nodes and pods have their first address of. Empty:
	// that of spec.api.externalAddress if it is an IP address (IPv4 if it is a
	// name), else of spec.api.address. In a cluster with one family it has no
	// effect.
	PrimaryAddressFamily AddressFamily `json:"primaryAddressFamily,omitempty" scope:"cluster" change:"redeploy" enum:",IPv4,IPv6" example:"IPv6"`
	// DualStack gives pods and services addresses of both families.
	DualStack DualStackSpec `json:"dualStack,omitzero"`
	// KubeProxy configures kube-proxy.
	KubeProxy KubeProxySpec `json:"kubeProxy"`
	// CoreDNS configures the cluster DNS.
	CoreDNS CoreDNSSpec `json:"coreDNS,omitzero"`
	// KubeRouter configures the kuberouter provider; without effect for another.
	KubeRouter KubeRouterSpec `json:"kuberouter"`
	// Calico configures the calico provider.
	Calico *CalicoSpec `json:"calico,omitempty"`
	// NodeLocalLoadBalancing configures how workers reach the controllers.
	NodeLocalLoadBalancing NodeLocalLoadBalancingSpec `json:"nodeLocalLoadBalancing"`
	// ControlPlaneLoadBalancing gives the controllers a virtual address.
	ControlPlaneLoadBalancing ControlPlaneLoadBalancingSpec `json:"controlPlaneLoadBalancing,omitzero"`
}

// DualStackSpec gives pods and services addresses of both families.
type DualStackSpec struct {
	// Enabled turns it on: podCIDR and serviceCIDR of spec.network are IPv4
	// then, and those here IPv6.
	Enabled bool `json:"enabled,omitempty" scope:"cluster" change:"redeploy" example:"true"`
	// IPv6PodCIDR is the IPv6 network pod addresses are taken from. Each node
	// gets a /117 of it, or if it is larger than /101 one 65536th
	// (node-cidr-mask-size-ipv6 in spec.controllerManager.extraArgs).
	IPv6PodCIDR string `json:"IPv6podCIDR,omitempty" scope:"cluster" change:"redeploy" example:"fd00::/108"`
	// IPv6ServiceCIDR is the IPv6 network service addresses are taken from: a
	// /108 or smaller, which is what Kubernetes can keep track of.
	IPv6ServiceCIDR string `json:"IPv6serviceCIDR,omitempty" scope:"cluster" change:"redeploy" example:"fd01::/108"`
}

// CoreDNSSpec configures the cluster DNS.
type CoreDNSSpec struct {
	// Patches change the manifests of CoreDNS before they are applied.
	Patches []Patch `json:"patches,omitempty" scope:"cluster" change:"restart" example:"[{target: {kind: Deployment, name: coredns}, patch: {type: MergePatch, content: '{spec: {replicas: 3}}'}}]"`
}

// KubeProxyMode is how kube-proxy programs the kernel.
type KubeProxyMode string

const (
	// AutoProxyMode is nftables where the kernel allows it, else iptables.
	AutoProxyMode KubeProxyMode = ""
	// IPTablesProxyMode uses iptables.
	IPTablesProxyMode KubeProxyMode = "iptables"
	// NFTablesProxyMode uses nftables.
	NFTablesProxyMode KubeProxyMode = "nftables"
	// IPVSProxyMode is not supported.
	IPVSProxyMode KubeProxyMode = "ipvs"
	// UserspaceProxyMode was removed from Kubernetes.
	UserspaceProxyMode KubeProxyMode = "userspace"
)

// KubeProxySpec configures kube-proxy.
type KubeProxySpec struct {
	// Disabled leaves kube-proxy out, for a network that replaces it. The
	// other fields then have no effect.
	Disabled bool `json:"disabled,omitempty" scope:"cluster" change:"restart" example:"true"`
	// Mode is iptables or nftables. Empty, the default: nftables where the
	// kernel allows it, else iptables. Upstream k0s differs: its default is
	// iptables, and it offers ipvs.
	Mode KubeProxyMode `json:"mode,omitempty" scope:"cluster" change:"restart" enum:",iptables,nftables" known:"ipvs,userspace" example:"iptables"`
	// MetricsBindAddress is the IP:port of the metrics server. The default is
	// on loopback, because it asks nobody for a password (upstream k0s:
	// 0.0.0.0:10249).
	MetricsBindAddress string `json:"metricsBindAddress" scope:"cluster" change:"restart" example:"0.0.0.0:10249"`
	// HealthzBindAddress is the IP:port of the health server, which a cloud's
	// load balancers may want to ask. The default is on loopback (upstream k0s:
	// 0.0.0.0:10256).
	HealthzBindAddress string `json:"healthzBindAddress" scope:"cluster" change:"restart" example:"0.0.0.0:10256"`
	// IPTables applies in mode iptables.
	IPTables KubeProxyIPTables `json:"iptables,omitzero"`
	// IPVS would apply in mode ipvs.
	IPVS KubeProxyIPVS `json:"ipvs,omitzero"`
	// NFTables applies in mode nftables.
	NFTables KubeProxyNFTables `json:"nftables,omitzero"`
	// NodePortAddresses are the networks (CIDRs) of node addresses on which
	// NodePorts answer, or only "primary". Empty: kube-proxy's default for the
	// mode.
	NodePortAddresses []string `json:"nodePortAddresses,omitempty" scope:"cluster" change:"restart" example:"[192.0.2.0/24]"`
	// Args are further arguments of kube-proxy.
	Args `json:",inline"`
	// Patches cannot be: kube-proxy is a process of the worker, not a pod.
	Patches []Patch `json:"patches,omitempty" scope:"cluster" change:"none" never:"kube-proxy is a process here, not a DaemonSet that could be patched: use extraArgs"`
}

// KubeProxyIPTables is how kube-proxy uses iptables.
type KubeProxyIPTables struct {
	// MasqueradeBit is the bit of the packet mark (0 to 31) that asks for
	// source NAT. Unset: kube-proxy's default, 14.
	MasqueradeBit *int32 `json:"masqueradeBit,omitempty" scope:"cluster" change:"restart" min:"0" max:"31" default:"14" example:"15"`
	// MasqueradeAll applies source NAT to all traffic to service addresses.
	MasqueradeAll bool `json:"masqueradeAll,omitempty" scope:"cluster" change:"restart" example:"true"`
	// LocalhostNodePorts lets NodePorts answer on 127.0.0.1. Unset:
	// kube-proxy's default, true.
	LocalhostNodePorts *bool `json:"localhostNodePorts,omitempty" scope:"cluster" change:"restart" default:"true" example:"false"`
	// SyncPeriod is the longest time between two complete rewrites of the
	// rules. 0s: kube-proxy's default, 30s.
	SyncPeriod metav1.Duration `json:"syncPeriod,omitzero" scope:"cluster" change:"restart" example:"1m"`
	// MinSyncPeriod is the shortest time between two rewrites of the rules.
	// 0s: kube-proxy's default, 1s.
	MinSyncPeriod metav1.Duration `json:"minSyncPeriod,omitzero" scope:"cluster" change:"restart" example:"5s"`
}

// KubeProxyIPVS is how kube-proxy would use IPVS.
type KubeProxyIPVS struct {
	// SyncPeriod is the longest time between two complete rewrites.
	SyncPeriod metav1.Duration `json:"syncPeriod,omitzero" scope:"cluster" change:"restart" later:"" example:"0s"`
	// MinSyncPeriod is the shortest time between two rewrites.
	MinSyncPeriod metav1.Duration `json:"minSyncPeriod,omitzero" scope:"cluster" change:"restart" later:"" example:"0s"`
	// Scheduler chooses the endpoint.
	Scheduler string `json:"scheduler,omitempty" scope:"cluster" change:"restart" later:"" example:"\"\""`
	// ExcludeCIDRs are networks whose rules kube-proxy leaves alone.
	ExcludeCIDRs []string `json:"excludeCIDRs,omitempty" scope:"cluster" change:"restart" later:"" example:"[]"`
	// StrictARP answers ARP only on the interface that has the address.
	StrictARP bool `json:"strictARP,omitempty" scope:"cluster" change:"restart" later:"" example:"false"`
	// TCPTimeout ends idle connections.
	TCPTimeout metav1.Duration `json:"tcpTimeout,omitzero" scope:"cluster" change:"restart" later:"" example:"0s"`
	// TCPFinTimeout ends connections after a FIN.
	TCPFinTimeout metav1.Duration `json:"tcpFinTimeout,omitzero" scope:"cluster" change:"restart" later:"" example:"0s"`
	// UDPTimeout forgets idle UDP flows.
	UDPTimeout metav1.Duration `json:"udpTimeout,omitzero" scope:"cluster" change:"restart" later:"" example:"0s"`
}

// KubeProxyNFTables is how kube-proxy uses nftables.
type KubeProxyNFTables struct {
	// MasqueradeBit cannot be chosen: kube-proxy has no flag for it, its value
	// is 14.
	MasqueradeBit *int32 `json:"masqueradeBit,omitempty" scope:"cluster" change:"none" min:"0" max:"31" default:"14" never:"kube-proxy has no flag for it" example:"14"`
	// MasqueradeAll applies source NAT to all traffic to service addresses.
	MasqueradeAll bool `json:"masqueradeAll,omitempty" scope:"cluster" change:"restart" example:"true"`
	// SyncPeriod is the longest time between two complete rewrites of the
	// rules. 0s: kube-proxy's default, 30s.
	SyncPeriod metav1.Duration `json:"syncPeriod,omitzero" scope:"cluster" change:"restart" example:"1m"`
	// MinSyncPeriod is the shortest time between two rewrites of the rules.
	// 0s: kube-proxy's default, 1s.
	MinSyncPeriod metav1.Duration `json:"minSyncPeriod,omitzero" scope:"cluster" change:"restart" example:"5s"`
}

// HairpinMode is whether a pod may reach itself through its own service.
type HairpinMode string

const (
	// HairpinEnabled turns it on for every pod.
	HairpinEnabled HairpinMode = "Enabled"
	// HairpinAllowed turns it on in the CNI plugin only.
	HairpinAllowed HairpinMode = "Allowed"
	// HairpinDisabled turns it off.
	HairpinDisabled HairpinMode = "Disabled"
)

// KubeRouterSpec configures the kuberouter provider.
type KubeRouterSpec struct {
	// AutoMTU derives the MTU of the pod network from the host's interfaces.
	AutoMTU bool `json:"autoMTU" scope:"cluster" change:"restart" example:"true"`
	// MTU is the MTU of the pod network in bytes. Only together with
	// autoMTU: false (upstream k0s ignores it otherwise; here it is refused).
	// 0: the kernel's default.
	MTU int `json:"mtu,omitempty" scope:"cluster" change:"restart" example:"1400"`
	// MetricsPort is the port of the provider's metrics on each node; 0, the
	// default: none. It is on loopback, because it asks nobody for a password;
	// metrics-addr in extraArgs changes that (upstream k0s: 8080, on all
	// addresses).
	MetricsPort int `json:"metricsPort" scope:"cluster" change:"restart" min:"0" max:"65535" example:"8080"`
	// Hairpin lets a pod reach itself through its own service: Enabled for
	// every pod, Allowed in the CNI plugin only, Disabled.
	Hairpin HairpinMode `json:"hairpin" scope:"cluster" change:"restart" enum:"Enabled,Allowed,Disabled" example:"Enabled"`
	// HairpinMode is the old way to set hairpin: true is Enabled, false is
	// Disabled. It must not say anything else than hairpin, if both are there.
	HairpinMode *bool `json:"hairpinMode,omitempty" scope:"cluster" change:"restart" example:"true"`
	// IPMasq hides pod addresses behind the node's address for traffic that
	// leaves the node's pod network.
	IPMasq bool `json:"ipMasq,omitempty" scope:"cluster" change:"restart" example:"true"`
	// PeerRouterIPs are BGP routers outside of the cluster that every node talks
	// to, separated by commas; the same as peer-router-ips in extraArgs.
	PeerRouterIPs string `json:"peerRouterIPs,omitempty" scope:"cluster" change:"restart" example:"192.0.2.1"`
	// PeerRouterASNs are their AS numbers, in the same order; the same as
	// peer-router-asns in extraArgs.
	PeerRouterASNs string `json:"peerRouterASNs,omitempty" scope:"cluster" change:"restart" example:"\"64513\""`
	// ExtraArgs are settings by the names of kube-router's flags, without dashes.
	// Which there are, and how peers of single nodes are set, is in
	// networking.md. What means nothing here is refused, with the reason.
	ExtraArgs map[string]string `json:"extraArgs,omitempty" scope:"cluster" change:"restart" example:"{cluster-asn: \"64600\"}"`
	// RawArgs are further settings, as flags of kube-router. They win over
	// extraArgs.
	RawArgs []string `json:"rawArgs,omitempty" scope:"cluster" change:"restart" example:"[--cluster-asn=64600]"`
	// Patches cannot be: the provider is part of the worker, not a pod.
	Patches []Patch `json:"patches,omitempty" scope:"cluster" change:"none" never:"the provider is part of the worker here, not a DaemonSet that could be patched"`
}

// oldHairpin is what the old hairpinMode says; it must be set.
func (k KubeRouterSpec) oldHairpin() HairpinMode {
	if *k.HairpinMode {
		return HairpinEnabled
	}
	return HairpinDisabled
}

// CalicoMode is how Calico carries packets between nodes.
type CalicoMode string

const (
	// CalicoVXLAN wraps packets in VXLAN.
	CalicoVXLAN CalicoMode = "vxlan"
	// CalicoBIRD spreads routes by BGP.
	CalicoBIRD CalicoMode = "bird"
	// CalicoIPIP is an old name of bird.
	CalicoIPIP CalicoMode = "ipip"
)

// CalicoOverlay is when Calico wraps packets.
type CalicoOverlay string

const (
	// OverlayAlways wraps all.
	OverlayAlways CalicoOverlay = "Always"
	// OverlayNever wraps none.
	OverlayNever CalicoOverlay = "Never"
	// OverlayCrossSubnet wraps those that leave the subnet.
	OverlayCrossSubnet CalicoOverlay = "CrossSubnet"
)

// CalicoSpec configures the calico provider.
type CalicoSpec struct {
	// Mode is how packets get to other nodes: vxlan, or bird for BGP (ipip is
	// an old name of it).
	Mode CalicoMode `json:"mode,omitempty" scope:"cluster" change:"redeploy" enum:",vxlan,bird,ipip" later:"vxlan" default:"vxlan" example:"vxlan"`
	// Overlay is when packets are wrapped.
	Overlay CalicoOverlay `json:"overlay,omitempty" scope:"cluster" change:"redeploy" enum:",Always,Never,CrossSubnet" later:"Always" default:"Always" example:"Always"`
	// VXLANPort is the UDP port of VXLAN.
	VXLANPort int `json:"vxlanPort,omitempty" scope:"cluster" change:"restart" min:"0" max:"65535" later:"4789" default:"4789" example:"4789"`
	// VXLANVNI is the network number of VXLAN.
	VXLANVNI int `json:"vxlanVNI,omitempty" scope:"cluster" change:"restart" min:"0" max:"16777215" later:"4096" default:"4096" example:"4096"`
	// MTU of the pod network in bytes; 0: Calico finds it out.
	MTU int `json:"mtu,omitempty" scope:"cluster" change:"restart" min:"0" max:"65535" later:"1450" example:"0"`
	// WireGuard encrypts what goes from node to node.
	WireGuard bool `json:"wireguard,omitempty" scope:"cluster" change:"restart" later:"" example:"false"`
	// FlexVolumeDriverPath has no effect: Calico no longer has such a driver.
	FlexVolumeDriverPath string `json:"flexVolumeDriverPath,omitempty" scope:"cluster" change:"none" gone:"Calico has no FlexVolume driver any more" example:"\"\""`
	// IPAutodetectionMethod is how Calico finds a node's IPv4 address.
	IPAutodetectionMethod string `json:"ipAutodetectionMethod,omitempty" scope:"cluster" change:"restart" later:"" example:"\"\""`
	// IPv6AutodetectionMethod is how Calico finds a node's IPv6 address; empty:
	// as for IPv4.
	IPv6AutodetectionMethod string `json:"ipV6AutodetectionMethod,omitempty" scope:"cluster" change:"restart" later:"" example:"\"\""`
	// EnvVars are further environment variables of calico-node.
	EnvVars map[string]string `json:"envVars,omitempty" scope:"cluster" change:"restart" later:"" example:"{}"`
	// Patches change Calico's manifests before they are applied.
	Patches []Patch `json:"patches,omitempty" scope:"cluster" change:"restart" later:""`
}

func (n NetworkSpec) validate(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if n.Provider == CalicoProvider {
		errs = append(errs, field.Invalid(path.Child("provider"), n.Provider, notYet))
	}
	if problems := validation.IsDNS1123Subdomain(n.ClusterDomain); len(problems) > 0 {
		errs = append(errs, field.Invalid(path.Child("clusterDomain"), n.ClusterDomain, strings.Join(problems, "; ")))
	}
	if !n.KubeProxy.Disabled {
		errs = append(errs, n.KubeProxy.validate(path.Child("kubeProxy"))...)
	}
	if n.DualStack.Enabled && n.Provider == CalicoProvider && (n.Calico == nil || n.Calico.Mode == "" || n.Calico.Mode == CalicoVXLAN) {
		errs = append(errs, field.Forbidden(path.Child("calico", "mode"), "must be bird when dualStack is enabled"))
	}
	if services, err := netip.ParsePrefix(n.ServiceCIDR); n.KubeRouter.MTU != 0 && n.KubeRouter.MTU < smallestIPv6MTU &&
		(n.DualStack.Enabled || err == nil && services.Addr().Is6()) {
		errs = append(errs, field.Invalid(path.Child("kuberouter", "mtu"), n.KubeRouter.MTU, fmt.Sprintf("must be at least %d for IPv6", smallestIPv6MTU)))
	}
	errs = append(errs, validatePatches(path.Child("coreDNS", "patches"), n.CoreDNS.Patches)...)
	errs = append(errs, n.KubeRouter.validate(path.Child("kuberouter"))...)
	return append(errs, n.ControlPlaneLoadBalancing.validate(path.Child("controlPlaneLoadBalancing"))...)
}

// largestIPv6Services is the prefix length of the largest IPv6 service network
// that Kubernetes allows: 20 bits for services. Upstream k0s refuses the smaller ones in
// serviceCIDR and the larger ones in IPv6serviceCIDR.
const largestIPv6Services = 108

// smallestIPv6MTU is what every link of an IPv6 network must carry (RFC 8200).
const smallestIPv6MTU = 1280

func (p KubeProxySpec) validate(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch p.Mode {
	case IPVSProxyMode:
		errs = append(errs, field.Invalid(path.Child("mode"), p.Mode, notYet+"; Kubernetes itself advises nftables in its place"))
	case UserspaceProxyMode:
		errs = append(errs, field.Invalid(path.Child("mode"), p.Mode, "was removed from Kubernetes: use iptables or nftables"))
	}
	errs = append(errs, validateBindAddress(path.Child("metricsBindAddress"), p.MetricsBindAddress)...)
	errs = append(errs, validateBindAddress(path.Child("healthzBindAddress"), p.HealthzBindAddress)...)
	for i, address := range p.NodePortAddresses {
		if address == "primary" && len(p.NodePortAddresses) == 1 {
			continue
		}
		if _, err := netip.ParsePrefix(address); err != nil {
			errs = append(errs, field.Invalid(path.Child("nodePortAddresses").Index(i), address, "must be a CIDR such as 192.0.2.0/24, or \"primary\" alone"))
		}
	}
	errs = append(errs, validateSync(path.Child("iptables"), p.IPTables.SyncPeriod, p.IPTables.MinSyncPeriod)...)
	errs = append(errs, validateSync(path.Child("nftables"), p.NFTables.SyncPeriod, p.NFTables.MinSyncPeriod)...)
	return append(errs, p.Args.validate(path)...)
}

func validateBindAddress(path *field.Path, address string) field.ErrorList {
	if bind, err := netip.ParseAddrPort(address); err != nil || bind.Port() == 0 {
		return field.ErrorList{field.Invalid(path, address, "must be IP:port, such as 0.0.0.0:10249")}
	}
	return nil
}

func validateSync(path *field.Path, sync, minSync metav1.Duration) field.ErrorList {
	var errs field.ErrorList
	if sync.Duration < 0 {
		errs = append(errs, field.Invalid(path.Child("syncPeriod"), sync.Duration.String(), "must not be negative"))
	}
	if minSync.Duration < 0 {
		errs = append(errs, field.Invalid(path.Child("minSyncPeriod"), minSync.Duration.String(), "must not be negative"))
	}
	if sync.Duration > 0 && minSync.Duration > sync.Duration {
		errs = append(errs, field.Invalid(path.Child("minSyncPeriod"), minSync.Duration.String(),
			fmt.Sprintf("must not be longer than syncPeriod, %s", sync.Duration)))
	}
	return errs
}

func (k KubeRouterSpec) validate(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if k.MTU != 0 && (k.MTU < 576 || k.MTU > 65535) {
		errs = append(errs, field.Invalid(path.Child("mtu"), k.MTU, "must be from 576 to 65535, or 0 for the kernel's default"))
	}
	if k.MTU != 0 && k.AutoMTU {
		errs = append(errs, field.Invalid(path.Child("mtu"), k.MTU, "is used only with autoMTU: false"))
	}
	if k.HairpinMode != nil && k.Hairpin != k.oldHairpin() {
		errs = append(errs, field.Invalid(path.Child("hairpinMode"), *k.HairpinMode, fmt.Sprintf("contradicts hairpin, %s: leave hairpinMode out", k.Hairpin)))
	}
	_, problems := k.Settings()
	for _, p := range problems {
		path := path.Child(p.Field)
		switch p.Field {
		case "extraArgs":
			path = path.Key(p.Key)
		case "rawArgs":
			path = path.Index(p.Index)
		}
		if p.Flag != "" {
			errs = append(errs, field.Forbidden(path, p.Reason+Nearest(p.Flag, settings.Names())))
			continue
		}
		errs = append(errs, field.Invalid(path, p.Value, p.Reason))
	}
	return errs
}

// Settings are what the provider is to do, and what is wrong with what is said
// of it.
func (k KubeRouterSpec) Settings() (settings.Settings, []settings.Problem) {
	return settings.Parse(settings.Input{
		PeerRouterIPs: k.PeerRouterIPs, PeerRouterASNs: k.PeerRouterASNs, MetricsPort: k.MetricsPort,
		ExtraArgs: k.ExtraArgs, RawArgs: k.RawArgs,
	})
}
