package v1beta1

import (
	"fmt"
	"net/netip"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// NodeLocalLoadBalancingSpec configures how workers reach the controllers: by a
// TCP balancer inside k0s, which is always on.
type NodeLocalLoadBalancingSpec struct {
	// Enabled has workers balance between the controllers' own addresses also
	// when there is a spec.api.externalAddress, which is then for users, and a
	// worker's last resort. Without effect if there is none: workers do so anyway.
	Enabled bool `json:"enabled,omitempty" scope:"cluster" change:"restart" example:"true"`
	// Type says which of the following sections counts. The balancer is the same.
	Type string `json:"type" scope:"cluster" change:"restart" enum:"EnvoyProxy,Traefik" example:"EnvoyProxy"`
	// EnvoyProxy applies to type EnvoyProxy.
	EnvoyProxy NodeLocalProxySpec `json:"envoyProxy"`
	// Traefik applies to type Traefik.
	Traefik NodeLocalProxySpec `json:"traefik"`
}

// NodeLocalProxySpec configures a worker's balancer.
type NodeLocalProxySpec struct {
	// Image has no effect.
	Image *UnusedImage `json:"image,omitempty"`
	// ImagePullPolicy has no effect.
	ImagePullPolicy PullPolicy `json:"imagePullPolicy,omitempty" scope:"cluster" change:"none" enum:",IfNotPresent,Always,Never" gone:"the balancer is inside k0s, not a pod with an image" example:"IfNotPresent"`
	// APIServerBindPort is the port on the worker's loopback that leads to the
	// API; no port of another program of workers. It counts whether or not
	// enabled is set; workers follow a change without a restart of their own.
	APIServerBindPort int `json:"apiServerBindPort" scope:"cluster" change:"restart" min:"1" max:"65535" example:"7444"`
	// KonnectivityServerBindPort has no effect.
	KonnectivityServerBindPort int `json:"konnectivityServerBindPort" scope:"cluster" change:"none" min:"1" max:"65535" gone:"nodes connect to every controller directly (spec.konnectivity)" example:"7132"`
}

// ControlPlaneLoadBalancingSpec gives the controllers a virtual address.
type ControlPlaneLoadBalancingSpec struct {
	// Enabled turns it on.
	Enabled bool `json:"enabled,omitempty" scope:"node" change:"restart" later:"" example:"false"`
	// Type is how it is done: Keepalived.
	Type string `json:"type,omitempty" scope:"node" change:"restart" enum:",Keepalived" example:"Keepalived"`
	// Keepalived applies to type Keepalived.
	Keepalived *KeepalivedSpec `json:"keepalived,omitempty"`
}

// KeepalivedSpec configures virtual addresses.
type KeepalivedSpec struct {
	// VRRPInstances are groups of virtual addresses, at most 255, each on one
	// controller at a time.
	VRRPInstances []VRRPInstance `json:"vrrpInstances,omitempty" scope:"node" change:"restart"`
	// VirtualServers spread the traffic to an address over the controllers.
	VirtualServers []VirtualServer `json:"virtualServers,omitempty" scope:"node" change:"restart"`
	// UserSpaceProxyBindPort is the port of the load balancer that is used when
	// there are no virtual servers.
	UserSpaceProxyBindPort int `json:"userSpaceProxyBindPort,omitempty" scope:"node" change:"restart" min:"0" max:"65535" default:"6444" example:"6444"`
	// DisableLoadBalancer leaves only the virtual addresses.
	DisableLoadBalancer bool `json:"disableLoadBalancer,omitempty" scope:"node" change:"restart" example:"false"`
	// ConfigTemplateVRRP is a file with a template that replaces the built-in one.
	ConfigTemplateVRRP string `json:"configTemplateVRRP,omitempty" scope:"node" change:"restart" example:"\"\""`
	// ConfigTemplateVS is a file with a template that replaces the built-in one.
	ConfigTemplateVS string `json:"configTemplateVS,omitempty" scope:"node" change:"restart" example:"\"\""`
}

// VRRPInstance is a group of virtual addresses.
type VRRPInstance struct {
	// VirtualIPs are addresses with prefix length. Required.
	VirtualIPs []string `json:"virtualIPs" scope:"node" change:"restart" example:"[192.0.2.100/24]"`
	// Interface by name or MAC address; empty: that of the default route.
	Interface string `json:"interface,omitempty" scope:"node" change:"restart" example:"eth0"`
	// VirtualRouterID is the number of the group on its network.
	VirtualRouterID int32 `json:"virtualRouterID,omitempty" scope:"node" change:"restart" min:"0" max:"255" default:"51 + its place in the list" example:"51"`
	// AdvertIntervalSeconds is the time between two signs of life.
	AdvertIntervalSeconds int32 `json:"advertIntervalSeconds,omitempty" scope:"node" change:"restart" min:"0" default:"1" example:"1"`
	// AuthPass is a password of one to eight characters. Required.
	AuthPass string `json:"authPass" scope:"node" change:"restart" example:"secret"`
	// UnicastPeers are the other controllers' addresses, where multicast does
	// not work.
	UnicastPeers []string `json:"unicastPeers,omitempty" scope:"node" change:"restart" example:"[192.0.2.11, 192.0.2.12]"`
	// UnicastSourceIP is this controller's address; required with unicastPeers.
	UnicastSourceIP string `json:"unicastSourceIP,omitempty" scope:"node" change:"restart" example:"192.0.2.10"`
	// AddressLabel is the label of IPv6 virtual addresses in the choice of
	// source addresses (RFC 6724).
	AddressLabel uint32 `json:"addressLabel,omitempty" scope:"node" change:"restart" max:"4294967294" default:"10000" example:"10000"`
}

// VirtualServer spreads the traffic to an address over the controllers.
type VirtualServer struct {
	// IPAddress is the virtual address. Required.
	IPAddress string `json:"ipAddress" scope:"node" change:"restart" example:"192.0.2.100"`
	// DelayLoop is the time between two checks of a controller.
	DelayLoop *metav1.Duration `json:"delayLoop,omitempty" scope:"node" change:"restart" default:"1m" example:"1m"`
	// LBAlgo is how a controller is chosen.
	LBAlgo string `json:"lbAlgo,omitempty" scope:"node" change:"restart" enum:",rr,wrr,lc,wlc,lblc,dh,sh,sed,nq" default:"rr" example:"rr"`
	// LBKind is how packets get there.
	LBKind string `json:"lbKind,omitempty" scope:"node" change:"restart" enum:",NAT,DR,TUN" default:"DR" example:"DR"`
	// PersistenceTimeoutSeconds is how long a client keeps its controller.
	PersistenceTimeoutSeconds *int `json:"persistenceTimeoutSeconds,omitempty" scope:"node" change:"restart" min:"1" max:"2678400" default:"360" example:"360"`
}

func (c ControlPlaneLoadBalancingSpec) validate(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if c.Keepalived == nil {
		return nil
	}
	path = path.Child("keepalived")
	if n := len(c.Keepalived.VRRPInstances); n > 255 {
		errs = append(errs, field.Invalid(path.Child("vrrpInstances"), n, "must have at most 255 items"))
	}
	for i, v := range c.Keepalived.VRRPInstances {
		errs = append(errs, v.validate(path.Child("vrrpInstances").Index(i))...)
	}
	for i, v := range c.Keepalived.VirtualServers {
		path := path.Child("virtualServers").Index(i)
		if _, err := netip.ParseAddr(v.IPAddress); err != nil {
			errs = append(errs, field.Invalid(path.Child("ipAddress"), v.IPAddress, "must be an IP address"))
		}
		if v.DelayLoop != nil && v.DelayLoop.Truncate(time.Microsecond) <= 0 {
			errs = append(errs, field.Invalid(path.Child("delayLoop"), v.DelayLoop.Duration.String(), "must be at least 1µs"))
		}
	}
	return errs
}

func (v VRRPInstance) validate(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(v.VirtualIPs) == 0 {
		errs = append(errs, field.Required(path.Child("virtualIPs"), "at least one address such as 192.0.2.100/24"))
	}
	for i, address := range v.VirtualIPs {
		if _, err := netip.ParsePrefix(address); err != nil {
			errs = append(errs, field.Invalid(path.Child("virtualIPs").Index(i), address, "must be an address with prefix length, such as 192.0.2.100/24"))
		}
	}
	switch n := len(v.AuthPass); {
	case n == 0:
		errs = append(errs, field.Required(path.Child("authPass"), "a password of one to eight characters"))
	case n > 8:
		// The value stays unsaid.
		errs = append(errs, field.Forbidden(path.Child("authPass"), fmt.Sprintf("has %d characters: must not have more than eight", n)))
	}
	source, err := netip.ParseAddr(v.UnicastSourceIP)
	if err != nil && (v.UnicastSourceIP != "" || len(v.UnicastPeers) > 0) {
		errs = append(errs, field.Invalid(path.Child("unicastSourceIP"), v.UnicastSourceIP, "must be an IP address of this controller when there are unicastPeers"))
	}
	for i, peer := range v.UnicastPeers {
		path := path.Child("unicastPeers").Index(i)
		if address, err := netip.ParseAddr(peer); err != nil {
			errs = append(errs, field.Invalid(path, peer, "must be an IP address"))
		} else if address == source {
			errs = append(errs, field.Invalid(path, peer, "is unicastSourceIP: list only the others"))
		}
	}
	return errs
}
