package settings

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// flag is one of kube-router's. It is set, or refused with a reason, unless its value is the one that asks
// for nothing.
type flag struct {
	set      func(p *parser, value string) error
	boolean  bool
	secret   bool
	refused  string
	harmless string
}

// Why flags of kube-router mean nothing here.
const (
	servicesAreOthers = "services are kube-proxy's here: see spec.network.kubeProxy"
	noAllocator       = "k0s gives no addresses to Services of type LoadBalancer"
	isBuiltIn         = "the network is a part of the worker here, not a program with a connection of its own"
	noSync            = "there is nothing to repeat here: changes are followed as they happen"
	noAdmin           = "there is no other way to administer BGP than these settings"
	noBFD             = "BFD is not supported yet"
)

// known are the flags of kube-router, and our own.
var known = map[string]flag{
	"run-router":      boolean(func(s *Settings) *bool { return &s.BGP.Enabled }),
	"run-firewall":    boolean(func(s *Settings) *bool { return &s.Policy.Enabled }),
	"enable-ibgp":     boolean(func(s *Settings) *bool { return &s.BGP.Internal }),
	"nodes-full-mesh": boolean(func(s *Settings) *bool { return &s.BGP.FullMesh }),
	"cluster-asn": {set: func(p *parser, value string) (err error) {
		p.settings.BGP.ASN, err = parsePrivateASN(value)
		return err
	}},
	"bgp-port": {set: func(p *parser, value string) (err error) {
		p.settings.BGP.Port, err = parsePort(value)
		return err
	}},
	"bgp-holdtime": seconds(3, 65535, func(s *Settings) *time.Duration { return &s.BGP.HoldTime }),

	"bgp-graceful-restart":               boolean(func(s *Settings) *bool { return &s.BGP.GracefulRestart }),
	"bgp-graceful-restart-time":          seconds(1, 4095, func(s *Settings) *time.Duration { return &s.BGP.RestartTime }),
	"bgp-graceful-restart-deferral-time": seconds(1, 65535, func(s *Settings) *time.Duration { return &s.BGP.DeferralTime }),

	"peer-router-ips":       list(func(l *lists) *[]string { return &l.addresses }),
	"peer-router-asns":      list(func(l *lists) *[]string { return &l.asns }),
	"peer-router-ports":     list(func(l *lists) *[]string { return &l.ports }),
	"peer-router-passwords": {set: list(func(l *lists) *[]string { return &l.passwords }).set, secret: true},
	"peer-router-passwords-file": {set: func(p *parser, value string) error {
		if !filepath.IsAbs(value) {
			return errors.New("must be the absolute path of a file on each node")
		}
		p.settings.BGP.PeerPasswordsFile = value
		return nil
	}},
	"peer-router-multihop-ttl": {set: func(p *parser, value string) error {
		ttl, err := strconv.ParseUint(value, 10, 8)
		if err != nil {
			return errors.New("must be from 0 to 255")
		}
		p.lists.ttl = uint8(ttl)
		return nil
	}},
	"override-nexthop":          boolean(func(s *Settings) *bool { return &s.BGP.OverrideNextHop }),
	"advertise-pod-cidr":        boolean(func(s *Settings) *bool { return &s.BGP.AdvertisePodCIDR }),
	"advertise-cluster-ip":      boolean(func(s *Settings) *bool { return &s.BGP.AdvertiseClusterIP }),
	"advertise-external-ip":     boolean(func(s *Settings) *bool { return &s.BGP.AdvertiseExternalIP }),
	"advertise-loadbalancer-ip": boolean(func(s *Settings) *bool { return &s.BGP.AdvertiseLoadBalancerIP }),
	"service-external-ip-range": ranges(func(s *Settings) *[]netip.Prefix { return &s.BGP.ExternalIPRanges }),
	"loadbalancer-ip-range":     ranges(func(s *Settings) *[]netip.Prefix { return &s.BGP.LoadBalancerIPRanges }),
	"strict-external-ip-validation": {boolean: true, set: func(p *parser, value string) error {
		strict, err := parseBool(value)
		p.settings.BGP.AnyExternalIP = !strict
		return err
	}},

	"enable-overlay": boolean(func(s *Settings) *bool { return &s.Overlay.Enabled }),
	"overlay-type": {set: func(p *parser, value string) error {
		if value != "subnet" && value != "full" {
			return errors.New("must be subnet or full")
		}
		p.settings.Overlay.Full = value == "full"
		return nil
	}},
	"overlay-encap": {set: func(p *parser, value string) error {
		switch value {
		case "ipip", "vxlan":
			p.settings.Overlay.Encapsulation = value
			return nil
		case "fou":
			return errors.New("is not supported: use ipip or vxlan, or leave it out for what the kernel has")
		}
		return errors.New("must be ipip or vxlan")
	}},
	"overlay-encap-port": {set: func(p *parser, value string) (err error) {
		p.settings.Overlay.Port, err = parsePort(value)
		return err
	}},
	"enable-pod-egress": boolean(func(s *Settings) *bool { return &s.Egress }),

	"netpol-default-deny":    boolean(func(s *Settings) *bool { return &s.Policy.DefaultDeny }),
	"netpol-cut-established": boolean(func(s *Settings) *bool { return &s.Policy.CutEstablished }),

	"metrics-port": {set: func(p *parser, value string) (err error) {
		p.settings.Metrics.Port, err = parsePortOrNone(value)
		return err
	}},
	"metrics-addr": address(func(s *Settings) *netip.Addr { return &s.Metrics.Address }),
	"metrics-path": {set: func(p *parser, value string) error {
		if !strings.HasPrefix(value, "/") {
			return errors.New("must begin with /")
		}
		p.settings.MetricsPath = value
		return nil
	}},
	"health-port": {set: func(p *parser, value string) (err error) {
		p.settings.Health.Port, err = parsePortOrNone(value)
		return err
	}},
	"health-addr": address(func(s *Settings) *netip.Addr { return &s.Health.Address }),
	"router-id": {refused: "would be the same on every node: each has one of its own, its IPv4 address, or else made of its IPv6 address",
		harmless: "generate"},

	"auto-mtu":     {refused: "is spec.network.kuberouter.autoMTU"},
	"hairpin-mode": {refused: "is spec.network.kuberouter.hairpin"},
	"enable-cni":   {refused: "cannot be: bring your own CNI plugin with spec.network.provider custom", harmless: "true"},
	"enable-ipv4":  {refused: "follows from spec.network.podCIDR and dualStack"},
	"enable-ipv6":  {refused: "follows from spec.network.podCIDR and dualStack"},

	"service-cluster-ip-range":   {refused: "is spec.network.serviceCIDR"},
	"service-node-port-range":    {refused: "is service-node-port-range in spec.api.extraArgs"},
	"run-service-proxy":          {refused: servicesAreOthers, harmless: "false"},
	"masquerade-all":             {refused: servicesAreOthers},
	"nodeport-bindon-all-ip":     {refused: servicesAreOthers},
	"service-tcp-timeout":        {refused: servicesAreOthers},
	"service-tcpfin-timeout":     {refused: servicesAreOthers},
	"service-udp-timeout":        {refused: servicesAreOthers},
	"excluded-cidrs":             {refused: servicesAreOthers},
	"runtime-endpoint":           {refused: servicesAreOthers},
	"run-loadbalancer":           {refused: noAllocator, harmless: "false"},
	"loadbalancer-default-class": {refused: noAllocator},
	"loadbalancer-sync-period":   {refused: noAllocator},

	"iptables-sync-period":        {refused: noSync},
	"routes-sync-period":          {refused: noSync},
	"injected-routes-sync-period": {refused: noSync},
	"cache-sync-timeout":          {refused: noSync},

	"kubeconfig":        {refused: isBuiltIn},
	"master":            {refused: isBuiltIn},
	"hostname-override": {refused: isBuiltIn},
	"cleanup-config":    {refused: isBuiltIn + ": use k0s reset"},
	"version":           {refused: isBuiltIn},
	"help":              {refused: isBuiltIn},
	"v":                 {refused: isBuiltIn + ": use --debug"},
	"enable-pprof":      {refused: isBuiltIn + ": use --debug", harmless: "false"},

	"gobgp-admin-port":          {refused: noAdmin, harmless: "0"},
	"gobgp-admin-address":       {refused: noAdmin},
	"disable-source-dest-check": {refused: "k0s does not change anything in a cloud", harmless: "false"},
	"use-nftables-for-netpol":   {refused: "network policy always uses nftables here", harmless: "true"},
	"enable-bfd":                {refused: noBFD, harmless: "false"},
}

// find returns a flag by its name.
func find(name string) (flag, bool) {
	f, ok := known[name]
	switch {
	case ok:
	case strings.HasPrefix(name, "bfd-"):
		return flag{refused: noBFD}, true
	case strings.HasPrefix(name, "ipvs-"):
		return flag{refused: servicesAreOthers}, true
	}
	return f, ok
}

func boolean(field func(*Settings) *bool) flag {
	return flag{boolean: true, set: func(p *parser, value string) (err error) {
		*field(&p.settings), err = parseBool(value)
		return err
	}}
}

func list(field func(*lists) *[]string) flag {
	return flag{set: func(p *parser, value string) error {
		*field(&p.lists) = splitList(value)
		return nil
	}}
}

func seconds(smallest, largest int, field func(*Settings) *time.Duration) flag {
	return flag{set: func(p *parser, value string) error {
		d, err := time.ParseDuration(value)
		if err != nil || d%time.Second != 0 || d < time.Duration(smallest)*time.Second || d > time.Duration(largest)*time.Second {
			return fmt.Errorf("must be from %ds to %ds, in whole seconds", smallest, largest)
		}
		*field(&p.settings) = d
		return nil
	}}
}

func ranges(field func(*Settings) *[]netip.Prefix) flag {
	return flag{set: func(p *parser, value string) error {
		var all []netip.Prefix
		for _, text := range splitList(value) {
			prefix, err := netip.ParsePrefix(text)
			if err != nil {
				return fmt.Errorf("%q is not a network such as 203.0.113.0/24", text)
			}
			all = append(all, prefix.Masked())
		}
		*field(&p.settings) = all
		return nil
	}}
}

func address(field func(*Settings) *netip.Addr) flag {
	return flag{set: func(p *parser, value string) error {
		a, err := netip.ParseAddr(value)
		if err != nil {
			return errors.New("must be an IP address")
		}
		*field(&p.settings) = a
		return nil
	}}
}

func parseBool(value string) (bool, error) {
	b, err := strconv.ParseBool(value)
	if err != nil {
		return false, errors.New("must be true or false")
	}
	return b, nil
}

func parsePort(value string) (uint16, error) {
	port, err := strconv.ParseUint(value, 10, 16)
	if err != nil || port == 0 {
		return 0, errors.New("must be a port from 1 to 65535")
	}
	return uint16(port), nil
}

func parsePortOrNone(value string) (uint16, error) {
	port, err := strconv.ParseUint(value, 10, 16)
	if err != nil {
		return 0, errors.New("must be a port from 1 to 65535, or 0 for none")
	}
	return uint16(port), nil
}

// ParseASN accepts AS numbers of 16 and 32 bits.
func ParseASN(value string) (uint32, error) {
	asn, err := strconv.ParseUint(value, 10, 32)
	if err != nil || asn == 0 {
		return 0, fmt.Errorf("%q is not an AS number from 1 to 4294967295", value)
	}
	return uint32(asn), nil
}

func parsePrivateASN(value string) (uint32, error) {
	asn, err := ParseASN(value)
	if err != nil {
		return 0, err
	}
	if (asn < 64512 || asn > 65534) && (asn < 4200000000 || asn > 4294967294) {
		return 0, errors.New("must be an AS number for private use: from 64512 to 65534, or from 4200000000 to 4294967294")
	}
	return asn, nil
}

// NewPeer reads a peer from its parts, as users give them; port, password (in base64) and local address may
// be empty. Errors do not show the password.
func NewPeer(address, asn, port, password, local string) (Peer, error) {
	p := Peer{Port: 179}
	var err error
	if p.Address, err = netip.ParseAddr(address); err != nil {
		return Peer{}, fmt.Errorf("%q is not an IP address", address)
	}
	if p.ASN, err = ParseASN(asn); err != nil {
		return Peer{}, err
	}
	if port != "" && port != "0" {
		if p.Port, err = parsePort(port); err != nil {
			return Peer{}, fmt.Errorf("its port %s", err)
		}
	}
	if p.Password, err = parsePassword(password); err != nil {
		return Peer{}, err
	}
	if local != "" {
		if p.LocalAddress, err = netip.ParseAddr(local); err != nil || p.LocalAddress.Is4() != p.Address.Is4() {
			return Peer{}, fmt.Errorf("its local address %q is not an IP address of its family", local)
		}
	}
	return p, nil
}

// maxPassword is what the kernel takes (TCP_MD5SIG_MAXKEYLEN).
const maxPassword = 80

func parsePassword(encoded string) (Secret, error) {
	password, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return "", errors.New("its password is not in base64")
	}
	if len(password) > maxPassword {
		return "", fmt.Errorf("its password is longer than %d bytes", maxPassword)
	}
	return Secret(password), nil
}

// ParsePasswords reads a file of passwords: as in peer-router-passwords, in base64, separated by commas or
// lines.
func ParsePasswords(text string) ([]Secret, error) {
	var all []Secret
	for i, encoded := range splitList(strings.ReplaceAll(strings.TrimSpace(text), "\n", ",")) {
		password, err := parsePassword(encoded)
		if err != nil {
			return nil, fmt.Errorf("item %d: %w", i+1, err)
		}
		all = append(all, password)
	}
	return all, nil
}

func splitList(text string) []string {
	if text == "" {
		return nil
	}
	items := strings.Split(text, ",")
	for i := range items {
		items[i] = strings.TrimSpace(items[i])
	}
	return items
}
