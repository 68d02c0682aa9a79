package v1beta1

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

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
	errs = append(errs, validateWorkerProfiles(spec.Child("workerProfiles"), c.Spec.WorkerProfiles)...)
	errs = append(errs, validateFeatureGates(spec.Child("featureGates"), c.Spec.FeatureGates)...)
	errs = append(errs, c.Spec.Images.validate(spec.Child("images"))...)
	errs = append(errs, c.Spec.Extensions.Helm.validate(spec.Child("extensions", "helm"))...)
	errs = append(errs, validatePatches(spec.Child("metricsServer", "patches"), c.Spec.MetricsServer.Patches)...)
	errs = append(errs, validateExternalAddress(spec.Child("konnectivity", "externalAddress"), c.Spec.Konnectivity.ExternalAddress)...)
	errs = append(errs, c.Spec.InstallConfig.Users.validate(spec.Child("installConfig", "users"))...)
	errs = append(errs, c.validatePorts(spec)...)
	errs = append(errs, c.validateNetworks(spec)...)
	if ip, err := netip.ParseAddr(c.Spec.API.ExternalHost()); err == nil && c.WorkersGoExternally() && familyOf(ip) != c.PrimaryFamily() {
		errs = append(errs, field.Invalid(spec.Child("api", "externalAddress"), c.Spec.API.ExternalAddress,
			fmt.Sprintf("is %s, but services are %s: pods could not reach the API by it (with spec.network.nodeLocalLoadBalancing.enabled they need not)", familyOf(ip), c.PrimaryFamily())))
	}
	return append(errs, c.validateTags()...)
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

// shortestLife is that of a certificate that is of any use: k0s renews none before it starts again.
const shortestLife = 10 * time.Minute

func (c CASpec) validate(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, life := range []struct {
		field string
		time.Duration
	}{{"expiresAfter", c.ExpiresAfter.Duration}, {"certificatesExpireAfter", c.CertificatesExpireAfter.Duration}} {
		if life.Duration < shortestLife {
			errs = append(errs, field.Invalid(path.Child(life.field), life.String(), "must be at least "+shortestLife.String()))
		}
	}
	return errs
}

// clamped warns of certificates that will not live as long as they are said to.
func (c CASpec) clamped(path string) []string {
	if c.CertificatesExpireAfter.Duration <= c.ExpiresAfter.Duration {
		return nil
	}
	return []string{fmt.Sprintf("%s.certificatesExpireAfter (%s) is longer than expiresAfter (%s): no certificate outlives its authority",
		path, c.CertificatesExpireAfter.Duration, c.ExpiresAfter.Duration)}
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

// network is a CIDR of the file.
type network struct {
	path *field.Path
	netip.Prefix
}

func (n network) invalid(format string, args ...any) *field.Error {
	return field.Invalid(n.path, n.String(), fmt.Sprintf(format, args...))
}

// networks reads the CIDRs of pods and services; those that are wrong are left out.
func (c *ClusterConfig) networks(path *field.Path) (pods, services []network, errs field.ErrorList) {
	read := func(to *[]network, path *field.Path, cidr string, family AddressFamily) {
		prefix, wrong := parseCIDR(path, cidr, family)
		if errs = append(errs, wrong...); prefix.IsValid() {
			*to = append(*to, network{path, prefix})
		}
	}
	n, family := c.Spec.Network, AutoFamily
	if n.DualStack.Enabled {
		family = IPv4Family
	}
	read(&pods, path.Child("podCIDR"), n.PodCIDR, family)
	read(&services, path.Child("serviceCIDR"), n.ServiceCIDR, family)
	if n.DualStack.Enabled {
		read(&pods, path.Child("dualStack", "IPv6podCIDR"), n.DualStack.IPv6PodCIDR, IPv6Family)
		read(&services, path.Child("dualStack", "IPv6serviceCIDR"), n.DualStack.IPv6ServiceCIDR, IPv6Family)
	} else if len(pods)+len(services) == 2 && pods[0].Addr().Is4() != services[0].Addr().Is4() {
		errs = append(errs, services[0].invalid("is not of the family of %s, %s: for both families, see %s", pods[0].path, pods[0], path.Child("dualStack")))
	}
	return pods, services, errs
}

// unusable are networks whose addresses nothing can be reached by from elsewhere, with what they are for.
var unusable = []struct {
	netip.Prefix
	what string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "this network"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("::/127"), "loopback"},
}

var linkLocal = netip.MustParsePrefix("169.254.0.0/16")

// validateNetworks checks the CIDRs, alone and against each other and the
// addresses of this host.
func (c *ClusterConfig) validateNetworks(spec *field.Path) field.ErrorList {
	pods, services, errs := c.networks(spec.Child("network"))
	for _, n := range append(slices.Clone(pods), services...) {
		for _, u := range unusable {
			if n.Overlaps(u.Prefix) {
				errs = append(errs, n.invalid("has addresses of %s, %s, which cannot be those of pods or services", u.Prefix, u.what))
			}
		}
	}
	for _, p := range pods {
		if p.Overlaps(linkLocal) {
			errs = append(errs, p.invalid("has link-local addresses, of %s, with which no pod can be behind a service", linkLocal))
		}
		mask := c.nodeMaskSize(p.Prefix)
		switch {
		case p.Bits() > mask:
			errs = append(errs, p.invalid("is too small: each node gets a /%d of it (node-cidr-mask-size in spec.controllerManager.extraArgs)", mask))
		case p.Addr().Is6() && mask-p.Bits() > largestIPv6Division:
			errs = append(errs, p.invalid("is too large: each node gets a /%d of it (node-cidr-mask-size in spec.controllerManager.extraArgs), "+
				"and Kubernetes makes no more than 65536 such parts: must be /%d or smaller", mask, mask-largestIPv6Division))
		}
		for _, s := range services {
			if p.Overlaps(s.Prefix) {
				errs = append(errs, s.invalid("overlaps %s, %s", p.path, p))
			}
		}
	}
	for _, s := range services {
		if smallest := s.Addr().BitLen() - 3; s.Bits() > smallest {
			errs = append(errs, s.invalid("is too small: must be /%d or larger", smallest))
		}
		if s.Addr().Is6() && s.Bits() < largestIPv6Services {
			errs = append(errs, s.invalid("is too large: must be /%d or smaller, such as /112", largestIPv6Services))
		}
	}
	if args := spec.Child("controllerManager", "extraArgs").Key("node-cidr-mask-size"); c.Spec.Network.DualStack.Enabled {
		if size, there := c.Spec.ControllerManager.ExtraArgs["node-cidr-mask-size"]; there {
			errs = append(errs, field.Invalid(args, size, "cannot be for both families: use node-cidr-mask-size-ipv4 and node-cidr-mask-size-ipv6"))
		}
	}
	return append(errs, c.validateHostAddresses(spec, pods, services)...)
}

// validateHostAddresses checks that this host's addresses go with the networks.
func (c *ClusterConfig) validateHostAddresses(spec *field.Path, pods, services []network) field.ErrorList {
	var errs field.ErrorList
	hosts := map[string]string{c.Spec.API.Address: "the host's address %s (spec.api.address)"}
	if peer := c.Spec.Storage.Etcd.PeerAddress; hosts[peer] == "" {
		hosts[peer] = "the host's address %s (spec.storage.etcd.peerAddress)"
	}
	if external := c.Spec.API.ExternalHost(); hosts[external] == "" {
		hosts[external] = "the address %s of all controllers (spec.api.externalAddress)"
	}
	taken := append(c.InternalAPIAddresses(), c.DNSAddresses()...)
	for _, host := range slices.Sorted(maps.Keys(hosts)) {
		address, err := netip.ParseAddr(host)
		if err != nil {
			continue // empty, or reported where the address itself is checked
		}
		for _, p := range pods {
			if p.Contains(address) {
				errs = append(errs, p.invalid("contains "+hosts[host]+": choose another network", address))
			}
		}
		// Elsewhere in it the host is in the way of one service at most, some day: see Warnings.
		for _, s := range services {
			if s.Contains(address) && slices.Contains(taken, address) {
				errs = append(errs, s.invalid("contains "+hosts[host]+": choose another network", address))
			}
		}
	}
	// The API server stands behind the service "kubernetes", which has an address of the primary family only.
	address, err := netip.ParseAddr(c.Spec.API.Address)
	if family := c.PrimaryFamily(); err == nil && !address.IsUnspecified() && len(services) > 0 && familyOf(address) != family {
		reason := fmt.Sprintf("must be an %s address, as %s is", family, services[0].path)
		if c.Spec.Network.DualStack.Enabled {
			reason = fmt.Sprintf("must be an %s address, because that is the primary family (spec.network.primaryAddressFamily)", family)
		}
		errs = append(errs, field.Invalid(spec.Child("api", "address"), c.Spec.API.Address, reason))
	}
	return errs
}

// Warnings lists what works, but may not for ever, and what has no effect.
func (c *ClusterConfig) Warnings() []string {
	var warnings []string
	address, err := netip.ParseAddr(c.Spec.API.Address)
	_, services, _ := c.networks(field.NewPath("spec", "network"))
	for _, s := range services {
		if s.Overlaps(linkLocal) {
			warnings = append(warnings, fmt.Sprintf("%s (%s) has link-local addresses, of %s, which not every program goes out by: "+
				"choose another network before you have workloads", s.path, s, linkLocal))
		}
		if err == nil && s.Contains(address) {
			warnings = append(warnings, fmt.Sprintf("%s (%s) contains this host's address %s: pods will not reach the host "+
				"while a service has that address; choose another network before you have workloads", s.path, s, address))
		}
	}
	c.visit(func(path string, f structField, value, standard reflect.Value) {
		if why, gone := f.tag.Lookup("gone"); gone && !isDefault(value, standard) {
			warnings = append(warnings, fmt.Sprintf("%s has no effect: %s", path, why))
		}
	})
	warnings = append(warnings, c.Spec.API.CA.clamped("spec.api.ca")...)
	if c.Spec.Storage.runsEtcd() {
		warnings = append(warnings, c.Spec.Storage.Etcd.CA.clamped("spec.storage.etcd.ca")...)
	}
	warnings = append(warnings, c.notANode()...)
	warnings = append(warnings, inertProfiles(c.Spec.WorkerProfiles)...)
	return append(warnings, c.inert()...)
}

// inert lists the sections that another field leaves without effect.
func (c *ClusterConfig) inert() []string {
	storage, network, standard := c.Spec.Storage, c.Spec.Network, Default().Spec
	balancer := network.NodeLocalLoadBalancing
	peer := storage.Etcd.PeerAddress
	if standard.Storage.Etcd.PeerAddress = peer; peer == c.Spec.API.Address {
		peer = "" // filled by Complete
	}
	external, proxy := storage.Type == EtcdStorage && storage.Etcd.ExternalCluster != nil, network.KubeProxy
	proxy.Disabled = false
	var without []string
	for _, s := range []struct {
		path    string
		inert   bool
		because string
		value   any
		unset   any
	}{
		{"spec.storage.kine", storage.Type != KineStorage, "spec.storage.type is " + string(storage.Type), storage.Kine, KineSpec{}},
		{"spec.storage.etcd", storage.Type != EtcdStorage, "spec.storage.type is " + string(storage.Type), storage.Etcd, standard.Storage.Etcd},
		{"spec.storage.etcd.peerAddress", external, "with externalCluster, k0s runs no etcd", peer, ""},
		{"spec.storage.etcd.ca", external, "with externalCluster, k0s runs no etcd", storage.Etcd.CA, standard.Storage.Etcd.CA},
		{"spec.network.nodeLocalLoadBalancing.envoyProxy", balancer.Type != "EnvoyProxy", "spec.network.nodeLocalLoadBalancing.type is " + balancer.Type, balancer.EnvoyProxy, standard.Network.NodeLocalLoadBalancing.EnvoyProxy},
		{"spec.network.nodeLocalLoadBalancing.traefik", balancer.Type != "Traefik", "spec.network.nodeLocalLoadBalancing.type is " + balancer.Type, balancer.Traefik, standard.Network.NodeLocalLoadBalancing.Traefik},
		{"spec.network.kuberouter", network.Provider != KubeRouterProvider, "spec.network.provider is " + string(network.Provider), network.KubeRouter, standard.Network.KubeRouter},
		{"spec.network.dualStack", !network.DualStack.Enabled, "spec.network.dualStack.enabled is false", network.DualStack, DualStackSpec{}},
		{"spec.network.primaryAddressFamily", network.PrimaryAddressFamily != c.PrimaryFamily(), fmt.Sprintf("pods and services have addresses of one family, %s", c.PrimaryFamily()), network.PrimaryAddressFamily, AutoFamily},
		{"all else in spec.network.kubeProxy", network.KubeProxy.Disabled, "spec.network.kubeProxy.disabled is true", proxy, standard.Network.KubeProxy},
		{"spec.network.kubeProxy.iptables", !network.KubeProxy.Disabled && network.KubeProxy.Mode == NFTablesProxyMode, "spec.network.kubeProxy.mode is nftables", network.KubeProxy.IPTables, KubeProxyIPTables{}},
		{"spec.network.kubeProxy.nftables", !network.KubeProxy.Disabled && network.KubeProxy.Mode == IPTablesProxyMode, "spec.network.kubeProxy.mode is iptables", network.KubeProxy.NFTables, KubeProxyNFTables{}},
	} {
		if s.inert && !reflect.DeepEqual(s.value, s.unset) {
			without = append(without, fmt.Sprintf("%s has no effect: %s", s.path, s.because))
		}
	}
	return without
}

// largestIPv6Division is how many bits longer than an IPv6 pod CIDR those of nodes can be.
const largestIPv6Division = 16

// nodeMaskSize is the prefix length of a node's part of a pod CIDR.
func (c *ClusterConfig) nodeMaskSize(pods netip.Prefix) int {
	flag, size := "node-cidr-mask-size-ipv4", 24
	if pods.Addr().Is6() {
		flag, size = "node-cidr-mask-size-ipv6", min(117, pods.Bits()+largestIPv6Division)
	}
	for _, name := range []string{"node-cidr-mask-size", flag} {
		if given, err := strconv.Atoi(c.Spec.ControllerManager.ExtraArgs[name]); err == nil {
			return given
		}
	}
	for _, arg := range c.Spec.ControllerManager.RawArgs {
		if strings.HasPrefix(strings.TrimLeft(arg, "-"), "node-cidr-mask-size") {
			return pods.Bits() // the controller manager will judge
		}
	}
	return size
}

// parseCIDR returns the zero Prefix if the CIDR is not a valid network of the
// family; of any, with AutoFamily.
func parseCIDR(path *field.Path, cidr string, family AddressFamily) (netip.Prefix, field.ErrorList) {
	example := "10.244.0.0/16"
	if family == IPv6Family {
		example = "fd00::/108"
	}
	prefix, err := netip.ParsePrefix(cidr)
	var reason string
	switch {
	case cidr == "":
		return netip.Prefix{}, field.ErrorList{field.Required(path, "a CIDR such as "+example)}
	case family == IPv6Family && (err != nil || !prefix.Addr().Is6()):
		reason = "must be an IPv6 CIDR such as " + example
	case err != nil || prefix.Addr().Is4In6():
		reason = "must be a CIDR such as " + example
	case family == IPv4Family && !prefix.Addr().Is4():
		reason = "must be IPv4 when dualStack is enabled: IPv6 goes into dualStack"
	case prefix != prefix.Masked():
		reason = fmt.Sprintf("must be a network, not an address in it: did you mean %s?", prefix.Masked())
	default:
		return prefix, nil
	}
	return netip.Prefix{}, field.ErrorList{field.Invalid(path, cidr, reason)}
}

// validateExternalAddress checks a host or host:port that others connect to, or none.
func validateExternalAddress(path *field.Path, address string) field.ErrorList {
	if address == "" {
		return nil
	}
	var errs field.ErrorList
	host, port := splitHostPort(address)
	if port < 0 {
		errs = append(errs, field.Invalid(path, address, "must have a port from 1 to 65535, or none"))
	}
	if !isIPOrName(host) {
		errs = append(errs, field.Invalid(path, address, "must be an IP address or DNS name, with or without :port"))
	} else if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
		errs = append(errs, field.Invalid(path, address, "must be an address others can connect to"))
	}
	return errs
}

// validateHostAddress checks an address of this host; empty is fine.
func validateHostAddress(path *field.Path, address string) field.ErrorList {
	if address == "" {
		return nil
	}
	ip, err := netip.ParseAddr(address)
	var reason string
	switch {
	case err != nil || ip.Is4In6() || ip.Zone() != "":
		reason = "must be an IP address of this host"
	case ip.IsUnspecified() || ip.IsMulticast() || ip.Is6() && (ip.IsLinkLocalUnicast() || ip.IsLoopback()):
		reason = "must be an address others can connect to"
	default:
		return nil
	}
	return field.ErrorList{field.Invalid(path, address, reason)}
}

// isWildcard tells whether s stands for all names directly below a DNS name.
func isWildcard(s string) bool {
	rest, ok := strings.CutPrefix(s, "*.")
	return ok && len(validation.IsDNS1123Subdomain(strings.ToLower(rest))) == 0
}

// isIPOrName leaves out what only looks like a name, an address with a number too
// large or too few: no domain has only digits for its last label.
func isIPOrName(s string) bool {
	if ip, err := netip.ParseAddr(s); err == nil {
		return ip.Zone() == ""
	}
	last := s[strings.LastIndex(s, ".")+1:]
	return strings.Trim(last, "0123456789") != "" && len(validation.IsDNS1123Subdomain(strings.ToLower(s))) == 0
}
