package v1beta1

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/distribution/reference"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const notYet = "not supported yet"

// Validate returns everything wrong with the values, alone and together. An
// empty address is fine: see [ClusterConfig.Complete].
func (c *ClusterConfig) Validate() field.ErrorList {
	var errs field.ErrorList
	if c.APIVersion != APIVersion {
		errs = append(errs, field.Invalid(field.NewPath("apiVersion"), c.APIVersion, "must be "+APIVersion))
	}
	if c.Kind != Kind {
		errs = append(errs, field.Invalid(field.NewPath("kind"), c.Kind, "must be "+Kind))
	}
	spec := field.NewPath("spec")
	errs = append(errs, c.Spec.API.validate(spec.Child("api"))...)
	errs = append(errs, c.Spec.ControllerManager.Args.validate(spec.Child("controllerManager"))...)
	errs = append(errs, c.Spec.Scheduler.Args.validate(spec.Child("scheduler"))...)
	errs = append(errs, c.Spec.Storage.validate(spec.Child("storage"))...)
	errs = append(errs, c.Spec.Network.validate(spec.Child("network"))...)
	errs = append(errs, c.Spec.Images.validate(spec.Child("images"))...)
	errs = append(errs, c.Spec.InstallConfig.Users.validate(spec.Child("installConfig", "users"))...)
	errs = append(errs, c.validatePorts(spec)...)
	errs = append(errs, c.validateNetworks(spec)...)
	return errs
}

func (a Args) validate(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, name := range slices.Sorted(maps.Keys(a.ExtraArgs)) {
		if name == "" || strings.HasPrefix(name, "-") || strings.ContainsAny(name, "= \t\r\n\x00") {
			errs = append(errs, field.Invalid(path.Child("extraArgs").Key(name), name,
				"must be the name of a flag, without leading dashes, \"=\" or blanks"))
		}
		if strings.ContainsRune(a.ExtraArgs[name], 0) {
			errs = append(errs, field.Invalid(path.Child("extraArgs").Key(name), a.ExtraArgs[name], "must not contain a NUL byte"))
		}
	}
	for i, arg := range a.RawArgs {
		if strings.ContainsRune(arg, 0) {
			errs = append(errs, field.Invalid(path.Child("rawArgs").Index(i), arg, "must not contain a NUL byte"))
		}
	}
	return errs
}

func (c CASpec) validate(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if d := c.ExpiresAfter.Duration; d <= 0 {
		errs = append(errs, field.Invalid(path.Child("expiresAfter"), d.String(), "must be longer than 0s"))
	}
	if d := c.CertificatesExpireAfter.Duration; d <= 0 {
		errs = append(errs, field.Invalid(path.Child("certificatesExpireAfter"), d.String(), "must be longer than 0s"))
	}
	return errs
}

func (a APISpec) validate(path *field.Path) field.ErrorList {
	errs := validateHostAddress(path.Child("address"), a.Address)
	if a.ExternalAddress != "" {
		path := path.Child("externalAddress")
		host, port := splitHostPort(a.ExternalAddress)
		if port < 0 {
			errs = append(errs, field.Invalid(path, a.ExternalAddress, "must have a port from 1 to 65535, or none"))
		}
		if !isIPOrName(host) {
			errs = append(errs, field.Invalid(path, a.ExternalAddress, "must be an IP address or DNS name, with or without :port"))
		} else if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
			errs = append(errs, field.Invalid(path, a.ExternalAddress, "must be an address others can connect to"))
		}
	}
	for i, san := range a.SANs {
		if !isIPOrName(san) {
			errs = append(errs, field.Invalid(path.Child("sans").Index(i), san, "must be an IP address or DNS name"))
		}
	}
	errs = append(errs, a.Args.validate(path)...)
	return append(errs, a.CA.validate(path.Child("ca"))...)
}

func (s StorageSpec) validate(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch s.Type {
	case EtcdStorage:
	case KineStorage:
		errs = append(errs, field.Invalid(path.Child("type"), s.Type, notYet))
	case "":
		errs = append(errs, field.Required(path.Child("type"), "must be etcd"))
	default:
		errs = append(errs, field.Invalid(path.Child("type"), s.Type, "must be etcd"))
	}
	etcd := path.Child("etcd")
	errs = append(errs, validateHostAddress(etcd.Child("peerAddress"), s.Etcd.PeerAddress)...)
	errs = append(errs, s.Etcd.Args.validate(etcd)...)
	return append(errs, s.Etcd.CA.validate(etcd.Child("ca"))...)
}

func (n NetworkSpec) validate(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch n.Provider {
	case KubeRouterProvider, CustomProvider:
	case CalicoProvider:
		errs = append(errs, field.Invalid(path.Child("provider"), n.Provider, notYet))
	case "":
		errs = append(errs, field.Required(path.Child("provider"), "must be kuberouter or custom"))
	default:
		errs = append(errs, field.Invalid(path.Child("provider"), n.Provider, "must be kuberouter or custom"))
	}
	if problems := validation.IsDNS1123Subdomain(n.ClusterDomain); len(problems) > 0 {
		errs = append(errs, field.Invalid(path.Child("clusterDomain"), n.ClusterDomain, strings.Join(problems, "; ")))
	}
	if !n.KubeProxy.Disabled {
		errs = append(errs, n.KubeProxy.validate(path.Child("kubeProxy"))...)
	}
	return append(errs, n.KubeRouter.validate(path.Child("kuberouter"))...)
}

func (p KubeProxySpec) validate(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch p.Mode {
	case AutoProxyMode, IPTablesProxyMode, NFTablesProxyMode:
	case "ipvs":
		errs = append(errs, field.Invalid(path.Child("mode"), p.Mode, notYet))
	case "userspace":
		errs = append(errs, field.Invalid(path.Child("mode"), p.Mode, "was removed from Kubernetes: use iptables or nftables"))
	default:
		errs = append(errs, field.Invalid(path.Child("mode"), p.Mode, "must be iptables, nftables or empty"))
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
	errs = append(errs, validateSync(path.Child("iptables"), p.IPTables.MasqueradeBit, p.IPTables.SyncPeriod, p.IPTables.MinSyncPeriod)...)
	return append(errs, p.Args.validate(path)...)
}

func validateBindAddress(path *field.Path, address string) field.ErrorList {
	if bind, err := netip.ParseAddrPort(address); err != nil || bind.Port() == 0 {
		return field.ErrorList{field.Invalid(path, address, "must be IP:port, such as 0.0.0.0:10249")}
	}
	return nil
}

func validateSync(path *field.Path, masqueradeBit *int32, sync, minSync metav1.Duration) field.ErrorList {
	var errs field.ErrorList
	if masqueradeBit != nil && (*masqueradeBit < 0 || *masqueradeBit > 31) {
		errs = append(errs, field.Invalid(path.Child("masqueradeBit"), *masqueradeBit, "must be from 0 to 31"))
	}
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
	switch k.Hairpin {
	case HairpinEnabled, HairpinAllowed, HairpinDisabled:
	default:
		errs = append(errs, field.Invalid(path.Child("hairpin"), k.Hairpin, "must be Enabled, Allowed or Disabled"))
	}
	return errs
}

func (i ImagesSpec) validate(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	errs = append(errs, i.CoreDNS.validate(path.Child("coredns"))...)
	errs = append(errs, i.MetricsServer.validate(path.Child("metricsserver"))...)
	errs = append(errs, i.Pause.validate(path.Child("pause"))...)
	switch i.DefaultPullPolicy {
	case PullIfNotPresent, PullAlways, PullNever:
	default:
		errs = append(errs, field.Invalid(path.Child("default_pull_policy"), i.DefaultPullPolicy, "must be IfNotPresent, Always or Never"))
	}
	return errs
}

func (i Image) validate(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if name, err := reference.ParseNormalizedNamed(i.Image); err != nil {
		errs = append(errs, field.Invalid(path.Child("image"), i.Image, err.Error()))
	} else if !reference.IsNameOnly(name) {
		errs = append(errs, field.Invalid(path.Child("image"), i.Image, "must not have a tag or digest: that goes into version"))
	}
	// With a valid name only the version can be wrong.
	if _, err := reference.Parse("image:" + i.Version); err != nil {
		errs = append(errs, field.Invalid(path.Child("version"), i.Version, "must be an image tag, with or without @sha256:…"))
	}
	return errs
}

func (u UsersSpec) validate(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, u := range []struct{ field, name string }{
		{"etcdUser", u.EtcdUser},
		{"kineUser", u.KineUser},
		{"konnectivityUser", u.KonnectivityUser},
		{"kubeAPIserverUser", u.KubeAPIServerUser},
		{"kubeSchedulerUser", u.KubeSchedulerUser},
	} {
		if u.name == "" || len(u.name) > 32 || strings.HasPrefix(u.name, "-") || strings.ContainsAny(u.name, ":/ \t\r\n\x00") {
			errs = append(errs, field.Invalid(path.Child(u.field), u.name, "must be a user name: 1 to 32 characters, no leading dash, no colon, slash or blank"))
		}
	}
	return errs
}

// validatePorts checks the ports of this controller, alone and against each other.
func (c *ClusterConfig) validatePorts(spec *field.Path) field.ErrorList {
	var errs field.ErrorList
	taken := map[int]*field.Path{}
	for _, p := range []struct {
		path *field.Path
		port int
	}{
		{spec.Child("api", "port"), c.Spec.API.Port},
		{spec.Child("api", "k0sApiPort"), c.Spec.API.K0sAPIPort},
		{spec.Child("konnectivity", "adminPort"), c.Spec.Konnectivity.AdminPort},
		{spec.Child("konnectivity", "agentPort"), c.Spec.Konnectivity.AgentPort},
	} {
		if p.port < 1 || p.port > 65535 {
			errs = append(errs, field.Invalid(p.path, p.port, "must be a port from 1 to 65535"))
		} else if other := taken[p.port]; other != nil {
			errs = append(errs, field.Invalid(p.path, p.port, fmt.Sprintf("is also the port of %s", other)))
		} else {
			taken[p.port] = p.path
		}
	}
	return errs
}

// validateNetworks checks the CIDRs, alone and against each other and the
// addresses of this host.
func (c *ClusterConfig) validateNetworks(spec *field.Path) field.ErrorList {
	network := spec.Child("network")
	pods, errs := parseCIDR(network.Child("podCIDR"), c.Spec.Network.PodCIDR)
	services, serviceErrs := parseCIDR(network.Child("serviceCIDR"), c.Spec.Network.ServiceCIDR)
	errs = append(errs, serviceErrs...)

	if mask := c.nodeMaskSize(); pods.IsValid() && pods.Bits() > mask {
		errs = append(errs, field.Invalid(network.Child("podCIDR"), pods.String(),
			fmt.Sprintf("is too small: each node gets a /%d of it (node-cidr-mask-size in spec.controllerManager.extraArgs)", mask)))
	}
	if services.IsValid() && services.Bits() > 29 {
		errs = append(errs, field.Invalid(network.Child("serviceCIDR"), services.String(), "is too small: must be /29 or larger"))
	}
	if pods.IsValid() && services.IsValid() && pods.Overlaps(services) {
		errs = append(errs, field.Invalid(network.Child("serviceCIDR"), services.String(),
			fmt.Sprintf("overlaps spec.network.podCIDR, %s", pods)))
	}
	hosts := map[string]string{c.Spec.API.Address: "spec.api.address"}
	if peer := c.Spec.Storage.Etcd.PeerAddress; hosts[peer] == "" {
		hosts[peer] = "spec.storage.etcd.peerAddress"
	}
	for _, host := range slices.Sorted(maps.Keys(hosts)) {
		address, err := netip.ParseAddr(host)
		if err != nil {
			continue // empty, or reported where the address itself is checked
		}
		reason := fmt.Sprintf("contains the host's address %s (%s): choose another network", address, hosts[host])
		if pods.Contains(address) {
			errs = append(errs, field.Invalid(network.Child("podCIDR"), pods.String(), reason))
		}
		// Elsewhere in it the host is in the way of one service at most, some day: see Warnings.
		if taken := c.Spec.Network; services.IsValid() && (address == taken.InternalAPIAddress() || address == taken.DNSAddress()) {
			errs = append(errs, field.Invalid(network.Child("serviceCIDR"), services.String(), reason))
		}
	}
	return errs
}

// Warnings lists what works, but may not for ever.
func (c *ClusterConfig) Warnings() []string {
	services, err := netip.ParsePrefix(c.Spec.Network.ServiceCIDR)
	if err != nil {
		return nil
	}
	address, err := netip.ParseAddr(c.Spec.API.Address)
	if err != nil || !services.Contains(address) {
		return nil
	}
	return []string{fmt.Sprintf("spec.network.serviceCIDR (%s) contains this host's address %s: pods will not reach the host "+
		"while a service has that address; choose another network before you have workloads", services, address)}
}

// nodeMaskSize is the prefix length of a node's part of the pod CIDR.
func (c *ClusterConfig) nodeMaskSize() int {
	args := c.Spec.ControllerManager.ExtraArgs
	for _, name := range []string{"node-cidr-mask-size", "node-cidr-mask-size-ipv4"} {
		if size, err := strconv.Atoi(args[name]); err == nil {
			return size
		}
	}
	for _, arg := range c.Spec.ControllerManager.RawArgs {
		if strings.HasPrefix(strings.TrimLeft(arg, "-"), "node-cidr-mask-size") {
			return 32 // the controller manager will judge
		}
	}
	return 24
}

// parseCIDR returns the zero Prefix if the CIDR is not a valid IPv4 network.
func parseCIDR(path *field.Path, cidr string) (netip.Prefix, field.ErrorList) {
	prefix, err := netip.ParsePrefix(cidr)
	var reason string
	switch {
	case err != nil:
		reason = "must be a CIDR such as 10.244.0.0/16"
	case !prefix.Addr().Is4():
		reason = "IPv6 is " + notYet
	case prefix != prefix.Masked():
		reason = fmt.Sprintf("must be a network, not an address in it: did you mean %s?", prefix.Masked())
	default:
		return prefix, nil
	}
	return netip.Prefix{}, field.ErrorList{field.Invalid(path, cidr, reason)}
}

// validateHostAddress checks an IPv4 address of this host; empty is fine.
func validateHostAddress(path *field.Path, address string) field.ErrorList {
	if address == "" {
		return nil
	}
	ip, err := netip.ParseAddr(address)
	var reason string
	switch {
	case err != nil:
		reason = "must be an IPv4 address of this host"
	case ip.IsUnspecified() || ip.IsMulticast():
		reason = "must be an address others can connect to"
	case !ip.Is4():
		reason = "IPv6 is " + notYet
	default:
		return nil
	}
	return field.ErrorList{field.Invalid(path, address, reason)}
}

func isIPOrName(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	return len(validation.IsDNS1123Subdomain(strings.ToLower(s))) == 0
}
