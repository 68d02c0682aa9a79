package v1beta1

import (
	"net/netip"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// APISpec configures kube-apiserver and the join API of this controller.
type APISpec struct {
	// Address is the address other nodes reach this controller at, of the primary
	// family (spec.network.primaryAddressFamily). Empty: the host's first such
	// address that is not a loopback, secondary or pod network address, IPv4
	// before IPv6.
	Address string `json:"address,omitempty" scope:"node" change:"restart" default:"found on the host" example:"192.0.2.10"`
	// OnlyBindToAddress makes kube-apiserver and the join API listen on
	// address only, instead of on all addresses.
	OnlyBindToAddress bool `json:"onlyBindToAddress,omitempty" scope:"node" change:"restart" example:"true"`
	// ExternalAddress is the name or IP of a load balancer in front of all
	// controllers, which nodes, pods and users connect to; it must pass TCP
	// through. Users only: see spec.network.nodeLocalLoadBalancing.enabled.
	// With a port (host:port) the same host and port serve the Kubernetes API
	// and the join API.
	ExternalAddress string `json:"externalAddress,omitempty" scope:"cluster" change:"restart" example:"k8s.example.org"`
	// Port is the port of kube-apiserver. One below 1024 lets kube-apiserver
	// bind it through CAP_NET_BIND_SERVICE.
	Port int `json:"port" scope:"node" change:"restart" min:"1" max:"65535" example:"443"`
	// K0sAPIPort is the port of the join API, used by joining controllers.
	K0sAPIPort int `json:"k0sApiPort" scope:"node" change:"restart" min:"1" max:"65535" example:"9743"`
	// SANs are further names and IPs the API server certificate is valid for.
	// A name may begin with "*." for all names directly below the rest.
	SANs []string `json:"sans,omitempty" scope:"node" change:"restart" example:"[k8s.example.org, 192.0.2.100]"`
	// Args are further arguments of kube-apiserver.
	Args `json:",inline" scope:"node"`
	// CA is the authority of the Kubernetes API.
	CA CASpec `json:"ca"`
}

func (a APISpec) validate(path *field.Path) field.ErrorList {
	errs := validateHostAddress(path.Child("address"), a.Address)
	if ip, err := netip.ParseAddr(a.Address); err == nil && ip.Is4() && ip.IsLoopback() {
		errs = append(errs, field.Invalid(path.Child("address"), a.Address, "must be an address others can connect to: a loopback address not even pods can use"))
	}
	errs = append(errs, validateExternalAddress(path.Child("externalAddress"), a.ExternalAddress)...)
	for i, san := range a.SANs {
		if !isIPOrName(san) && !isWildcard(san) {
			errs = append(errs, field.Invalid(path.Child("sans").Index(i), san, "must be an IP address or DNS name"))
		}
	}
	errs = append(errs, a.Args.validate(path)...)
	return append(errs, a.CA.validate(path.Child("ca"))...)
}
