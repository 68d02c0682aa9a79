package bgp

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"k0s.io/k0s/internal/network/kuberouter/settings"
)

// Annotations of nodes, as kube-router has them.
const (
	annotationASN            = "kube-router.io/node.asn"
	annotationReflector      = "kube-router.io/rr.server"
	annotationReflected      = "kube-router.io/rr.client"
	annotationPeers          = "kube-router.io/peers"
	annotationPeerIPs        = "kube-router.io/peer.ips"
	annotationPeerASNs       = "kube-router.io/peer.asns"
	annotationPeerPorts      = "kube-router.io/peer.ports"
	annotationPeerPasswords  = "kube-router.io/peer.passwords"
	annotationPeerLocalIPs   = "kube-router.io/peer.localips"
	annotationPrependASN     = "kube-router.io/path-prepend.as"
	annotationPrependTimes   = "kube-router.io/path-prepend.repeat-n"
	annotationCommunities    = "kube-router.io/node.bgp.communities"
	annotationImportReject   = "kube-router.io/node.bgp.customimportreject"
	annotationLocalAddresses = "kube-router.io/bgp-local-addresses"
)

// Annotations of services.
const (
	annotationServiceLocal         = "kube-router.io/service.local"
	annotationAdvertiseClusterIP   = "kube-router.io/service.advertise.clusterip"
	annotationAdvertiseExternalIP  = "kube-router.io/service.advertise.externalip"
	annotationAdvertiseLoadBalance = "kube-router.io/service.advertise.loadbalancerip"
	annotationSkipLoadBalancerIPs  = "kube-router.io/service.skiplbips"
)

// annotated says what a node's annotations ask for; each that cannot be understood is left out.
type annotated struct {
	asn                      uint32     // 0 if there is none
	reflector, reflected     netip.Addr // cluster ids
	peers                    []settings.Peer
	prependASN, prependTimes uint32
	communities              []string
	importReject             []netip.Prefix
	localAddresses           []netip.Addr
	problems                 []string
}

func readAnnotations(node *corev1.Node) annotated {
	var a annotated
	read := func(annotation string, parse func(value string) error) {
		value := strings.TrimSpace(node.Annotations[annotation])
		if value == "" {
			return
		}
		if err := parse(value); err != nil {
			a.problems = append(a.problems, fmt.Sprintf("annotation %s of node %s is ignored: %v", annotation, node.Name, err))
		}
	}
	read(annotationASN, func(value string) (err error) {
		a.asn, err = settings.ParseASN(value)
		return err
	})
	read(annotationReflector, func(value string) (err error) {
		a.reflector, err = parseClusterID(value)
		return err
	})
	read(annotationReflected, func(value string) (err error) {
		if a.reflector.IsValid() {
			return fmt.Errorf("the node has %s, too", annotationReflector)
		}
		a.reflected, err = parseClusterID(value)
		return err
	})
	read(annotationPeers, func(value string) (err error) {
		a.peers, err = parsePeers(value)
		return err
	})
	read(annotationPeerIPs, func(value string) error {
		old, err := parseOldPeers(node.Annotations)
		a.peers = append(a.peers, old...)
		return err
	})
	read(annotationPrependASN, func(value string) (err error) {
		if a.prependASN, err = settings.ParseASN(value); err == nil {
			a.prependTimes = 1
		}
		return err
	})
	read(annotationPrependTimes, func(value string) error {
		times, err := strconv.ParseUint(value, 10, 8)
		if err != nil || times == 0 {
			return fmt.Errorf("%q is not a number from 1 to 255", value)
		}
		if a.prependASN == 0 {
			return fmt.Errorf("there is no %s", annotationPrependASN)
		}
		a.prependTimes = uint32(times)
		return nil
	})
	read(annotationCommunities, func(value string) error {
		for _, text := range strings.Split(value, ",") {
			community, err := parseCommunity(strings.TrimSpace(text))
			if err != nil {
				return err
			}
			a.communities = append(a.communities, community)
		}
		return nil
	})
	read(annotationImportReject, func(value string) error {
		for _, text := range strings.Split(value, ",") {
			prefix, err := netip.ParsePrefix(strings.TrimSpace(text))
			if err != nil {
				return err
			}
			a.importReject = append(a.importReject, prefix.Masked())
		}
		return nil
	})
	read(annotationLocalAddresses, func(value string) error {
		for _, text := range strings.Split(value, ",") {
			address, err := netip.ParseAddr(strings.TrimSpace(text))
			if err != nil {
				return err
			}
			a.localAddresses = append(a.localAddresses, address)
		}
		return nil
	})
	return a
}

// parseClusterID reads the id of a reflector's cluster: a number of 32 bits, or an IPv4 address.
func parseClusterID(value string) (netip.Addr, error) {
	if number, err := strconv.ParseUint(value, 10, 32); err == nil {
		return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, uint32(number)))), nil
	}
	if id, err := netip.ParseAddr(value); err == nil && id.Is4() {
		return id, nil
	}
	return netip.Addr{}, fmt.Errorf("%q is neither a number of 32 bits nor an IPv4 address", value)
}

// wellKnown communities that may be given by name.
func parseCommunity(value string) (string, error) {
	switch strings.ToLower(value) {
	case "no-export", "no-advertise", "internet", "local-as", "planned-shut", "accept-own", "no-peer", "blackhole":
		return strings.ToLower(value), nil
	}
	high, low, ok := strings.Cut(value, ":")
	if !ok {
		number, err := strconv.ParseUint(value, 10, 32)
		if err != nil {
			return "", fmt.Errorf("%q is not a community such as 64512:100", value)
		}
		return fmt.Sprintf("%d:%d", number>>16, number&0xffff), nil
	}
	for _, half := range []string{high, low} {
		if _, err := strconv.ParseUint(half, 10, 16); err != nil {
			return "", fmt.Errorf("%q is not a community such as 64512:100", value)
		}
	}
	return value, nil
}

// parsePeers reads the annotation with all that belongs to a peer in one place. Errors show no password.
func parsePeers(value string) ([]settings.Peer, error) {
	var written []struct {
		RemoteIP  string         `json:"remoteip"`
		RemoteASN uint32         `json:"remoteasn"`
		LocalIP   string         `json:"localip"`
		Port      uint16         `json:"port"`
		Password  string         `json:"password"`
		BFD       map[string]any `json:"bfd"`
	}
	if err := yaml.UnmarshalStrict([]byte(value), &written); err != nil {
		return nil, fmt.Errorf("it must be a YAML list of peers with remoteip, remoteasn, localip, port and password") // the error would show the text
	}
	var peers []settings.Peer
	for i, w := range written {
		peer, err := settings.NewPeer(w.RemoteIP, strconv.FormatUint(uint64(w.RemoteASN), 10), strconv.Itoa(int(w.Port)), w.Password, w.LocalIP)
		if err != nil {
			return nil, fmt.Errorf("peer %d: %w", i+1, err)
		}
		if w.BFD != nil {
			return nil, fmt.Errorf("peer %d: bfd is not supported yet", i+1)
		}
		peers = append(peers, peer)
	}
	return peers, nil
}

// parseOldPeers reads the older annotations, one for each part of a peer.
func parseOldPeers(annotations map[string]string) ([]settings.Peer, error) {
	parts := map[string][]string{}
	for _, name := range []string{annotationPeerIPs, annotationPeerASNs, annotationPeerPorts, annotationPeerPasswords, annotationPeerLocalIPs} {
		text := strings.TrimSpace(annotations[name])
		if text == "" {
			continue
		}
		for _, item := range strings.Split(text, ",") {
			parts[name] = append(parts[name], strings.TrimSpace(item))
		}
	}
	addresses := parts[annotationPeerIPs]
	if len(parts[annotationPeerASNs]) != len(addresses) {
		return nil, fmt.Errorf("%s must have as many items", annotationPeerASNs)
	}
	var peers []settings.Peer
	for i := range addresses {
		item := func(name string) string {
			if i < len(parts[name]) {
				return parts[name][i]
			}
			return ""
		}
		peer, err := settings.NewPeer(addresses[i], item(annotationPeerASNs), item(annotationPeerPorts), item(annotationPeerPasswords), item(annotationPeerLocalIPs))
		if err != nil {
			return nil, fmt.Errorf("peer %d: %w", i+1, err)
		}
		peers = append(peers, peer)
	}
	return peers, nil
}
