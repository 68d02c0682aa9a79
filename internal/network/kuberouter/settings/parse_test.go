package settings

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for _, test := range []struct {
		name string
		in   Input
		want func(*Settings)
	}{
		{"nothing", Input{}, func(*Settings) {}},
		{"a peer by the fields", Input{PeerRouterIPs: "192.0.2.1, 2001:db8::1", PeerRouterASNs: "64513,4200000001"}, func(s *Settings) {
			s.BGP.Peers = []Peer{
				{Address: netip.MustParseAddr("192.0.2.1"), ASN: 64513, Port: 179},
				{Address: netip.MustParseAddr("2001:db8::1"), ASN: 4200000001, Port: 179},
			}
		}},
		{"a peer by arguments", Input{ExtraArgs: map[string]string{
			"peer-router-ips": "192.0.2.1", "peer-router-asns": "64513", "peer-router-ports": "1790",
			"peer-router-passwords": "c2VjcmV0", "peer-router-multihop-ttl": "4",
		}}, func(s *Settings) {
			s.BGP.Peers = []Peer{{Address: netip.MustParseAddr("192.0.2.1"), ASN: 64513, Port: 1790, Password: "secret", TTL: 4}}
		}},
		{"raw arguments win", Input{ExtraArgs: map[string]string{"cluster-asn": "64600"}, RawArgs: []string{"--cluster-asn=64601", "--override-nexthop", "--advertise-pod-cidr=false"}}, func(s *Settings) {
			s.BGP.ASN, s.BGP.OverrideNextHop, s.BGP.AdvertisePodCIDR = 64601, true, false
		}},
		{"all else of BGP", Input{ExtraArgs: map[string]string{
			"bgp-port": "1179", "bgp-holdtime": "9s", "bgp-graceful-restart-time": "2m", "bgp-graceful-restart-deferral-time": "30s",
			"nodes-full-mesh": "false", "advertise-cluster-ip": "true", "advertise-external-ip": "true", "advertise-loadbalancer-ip": "true",
			"service-external-ip-range": "203.0.113.7/24", "loadbalancer-ip-range": "198.51.100.0/25,198.51.100.128/25", "enable-ibgp": "false",
		}}, func(s *Settings) {
			b := &s.BGP
			b.Port, b.HoldTime, b.RestartTime, b.DeferralTime = 1179, 9*time.Second, 2*time.Minute, 30*time.Second
			b.FullMesh, b.Internal, b.AdvertiseClusterIP, b.AdvertiseExternalIP, b.AdvertiseLoadBalancerIP = false, false, true, true, true
			b.ExternalIPRanges = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
			b.LoadBalancerIPRanges = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/25"), netip.MustParsePrefix("198.51.100.128/25")}
		}},
		{"without a hold time to wait for", Input{ExtraArgs: map[string]string{"bgp-graceful-restart": "false"}}, func(s *Settings) {
			s.BGP.GracefulRestart = false
		}},
		{"overlay and policy", Input{ExtraArgs: map[string]string{
			"overlay-type": "full", "overlay-encap": "vxlan", "overlay-encap-port": "4790", "netpol-default-deny": "true",
			"netpol-cut-established": "true", "enable-pod-egress": "false",
		}}, func(s *Settings) {
			s.Overlay = Overlay{Enabled: true, Full: true, Encapsulation: "vxlan", Port: 4790}
			s.Policy = Policy{Enabled: true, DefaultDeny: true, CutEstablished: true}
			s.Egress = false
		}},
		{"off", Input{ExtraArgs: map[string]string{"enable-overlay": "false", "run-router": "false", "run-firewall": "false", "health-port": "0"}}, func(s *Settings) {
			s.Overlay.Enabled, s.BGP.Enabled, s.Policy.Enabled, s.Health.Port = false, false, false, 0
		}},
		{"where metrics are", Input{MetricsPort: 9000, ExtraArgs: map[string]string{"metrics-addr": "0.0.0.0", "metrics-path": "/m", "health-addr": "::1"}}, func(s *Settings) {
			s.Metrics = Endpoint{netip.MustParseAddr("0.0.0.0"), 9000}
			s.Health.Address = netip.MustParseAddr("::1")
			s.MetricsPath = "/m"
		}},
		{"what asks for nothing", Input{ExtraArgs: map[string]string{"run-service-proxy": "false", "enable-cni": "true", "router-id": "generate"}}, func(*Settings) {}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.in.MetricsPort == 0 {
				test.in.MetricsPort = int(Default().Metrics.Port)
			}
			want := Default()
			test.want(&want)
			got, problems := Parse(test.in)
			if len(problems) > 0 {
				t.Errorf("problems: %+v", problems)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %#v, want %#v", got, want)
			}
		})
	}
}

func TestProblems(t *testing.T) {
	args := func(pairs ...string) Input {
		in := Input{ExtraArgs: map[string]string{}}
		for i := 0; i < len(pairs); i += 2 {
			in.ExtraArgs[pairs[i]] = pairs[i+1]
		}
		return in
	}
	for _, test := range []struct {
		name string
		in   Input
		want string // FIELD KEY INDEX FLAG: VALUE: REASON
	}{
		{"misspelt", args("cluster-ans", "64600"), `extraArgs cluster-ans 0 cluster-ans: 64600: kube-router has no such flag`},
		{"of the service proxy", args("ipvs-sync-period", "1m"), `extraArgs ipvs-sync-period 0 : 1m: services are kube-proxy's here`},
		{"BFD", args("bfd-multiplier", "3"), `extraArgs bfd-multiplier 0 : 3: BFD is not supported yet`},
		{"not private", args("cluster-asn", "3320"), `extraArgs cluster-asn 0 : 3320: must be an AS number for private use`},
		{"hold time", args("bgp-holdtime", "65536s"), `extraArgs bgp-holdtime 0 : 65536s: must be from 3s to 65535s`},
		{"half a second", args("bgp-holdtime", "3500ms"), `extraArgs bgp-holdtime 0 : 3500ms: must be from 3s to 65535s, in whole seconds`},
		{"one router id for all", args("router-id", "192.0.2.1"), `extraArgs router-id 0 : 192.0.2.1: would be the same on every node`},
		{"no boolean", args("advertise-cluster-ip", "yes"), `extraArgs advertise-cluster-ip 0 : yes: must be true or false`},
		{"fou", args("overlay-encap", "fou"), `extraArgs overlay-encap 0 : fou: is not supported: use ipip or vxlan`},
		{"no flag", Input{RawArgs: []string{"--v=2", "cluster-asn=64600"}}, `rawArgs  0 : 2: the network is a part of the worker here`},
		{"without dashes", Input{RawArgs: []string{"cluster-asn=64600"}}, `rawArgs  0 : cluster-asn=64600: must be --NAME=VALUE`},
		{"without a value", Input{RawArgs: []string{"--advertise-cluster-ip", "--cluster-asn", "64600"}}, `rawArgs  1 : --cluster-asn: has no value`},
		{"said twice", Input{PeerRouterIPs: "192.0.2.1", PeerRouterASNs: "64513", ExtraArgs: map[string]string{"peer-router-ips": "192.0.2.2"}},
			`extraArgs peer-router-ips 0 : 192.0.2.2: is also said by peerRouterIPs`},
		{"no numbers", Input{PeerRouterIPs: "192.0.2.1"}, `peerRouterIPs  0 : 192.0.2.1: must have as many items as peer-router-ips: peer-router-asns has 0, peer-router-ips 1`},
		{"too many numbers", Input{PeerRouterIPs: "192.0.2.1", PeerRouterASNs: "64513,64514"}, `peerRouterASNs  0 : 64513,64514: must have as many items as peer-router-ips: peer-router-asns has 2, peer-router-ips 1`},
		{"no address", Input{PeerRouterIPs: "router", PeerRouterASNs: "64513"}, `peerRouterIPs  0 : router: item 1: "router" is not an IP address`},
		{"twice the same", Input{PeerRouterIPs: "192.0.2.1,192.0.2.1", PeerRouterASNs: "64513,64513"}, `peerRouterIPs  0 : 192.0.2.1,192.0.2.1: has 192.0.2.1 twice`},
		{"whoever may create a Service", args("advertise-external-ip", "true"), `extraArgs advertise-external-ip 0 : true: needs service-external-ip-range`},
		{"relative file", args("peer-router-passwords-file", "passwords"), `extraArgs peer-router-passwords-file 0 : passwords: must be the absolute path`},
		{"a password that is none", args("peer-router-ips", "192.0.2.1", "peer-router-asns", "64513", "peer-router-passwords", "not base64!"),
			`extraArgs peer-router-ips 0 : 192.0.2.1: item 1: its password is not in base64`},
		{"a password of a misspelt flag", args("peer-router-password", "c2VjcmV0"), `extraArgs peer-router-password 0 peer-router-password: (hidden): kube-router has no such flag`},
		{"a password after too few dashes", Input{RawArgs: []string{"-peer-router-passwords=c2VjcmV0"}}, `rawArgs  0 : (hidden): must be --NAME=VALUE`},
		{"a password without dashes", Input{RawArgs: []string{"Peer-Router-Passwords=c2VjcmV0"}}, `rawArgs  0 : (hidden): must be --NAME=VALUE`},
		{"a password by itself", Input{RawArgs: []string{"--peer-router-passwords", "c2VjcmV0"}}, `rawArgs  0 : (hidden): has no value`},
		{"a password too many", args("peer-router-passwords", "c2VjcmV0"), `extraArgs peer-router-passwords 0 : (hidden): must have as many items`},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, problems := Parse(test.in)
			if len(problems) == 0 {
				t.Fatal("nothing is wrong with it")
			}
			p := problems[0]
			if got := fmt.Sprintf("%s %s %d %s: %s: %s", p.Field, p.Key, p.Index, p.Flag, p.Value, p.Reason); !strings.HasPrefix(got, test.want) {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			if strings.Contains(fmt.Sprint(problems), "c2VjcmV0") {
				t.Errorf("a password shows: %v", problems)
			}
		})
	}
}

// TestFlags: each is set or refused, and the refusals say why.
func TestFlags(t *testing.T) {
	for name, f := range known {
		if (f.set == nil) == (f.refused == "") {
			t.Errorf("%s is neither set nor refused, or both", name)
		}
	}
}

func TestSecret(t *testing.T) {
	peer := Peer{Password: "geheim"}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("peer", "peer", peer, "password", peer.Password)
	text, err := json.Marshal(peer)
	if err != nil {
		t.Fatal(err)
	}
	for _, shown := range []string{fmt.Sprint(peer), fmt.Sprintf("%+v", &peer), fmt.Sprintf("%#v", peer), fmt.Sprintf("%s %q", peer.Password, peer.Password), log.String(), string(text)} {
		if strings.Contains(shown, "geheim") {
			t.Errorf("a password shows: %s", shown)
		}
	}
}

func TestParsePasswords(t *testing.T) {
	for text, want := range map[string]string{
		"YQ==,,Yg==\n": "[a  b]", "YQ==\nYg==\n": "[a b]", "YQ": "error", strings.Repeat("YWFh", 30): "error",
	} {
		passwords, err := ParsePasswords(text)
		plain := []string{}
		for _, p := range passwords {
			plain = append(plain, string(p))
		}
		if got := fmt.Sprint(plain); err != nil && want != "error" || err == nil && got != want {
			t.Errorf("%q: got %s, %v", text, got, err)
		}
	}
}
