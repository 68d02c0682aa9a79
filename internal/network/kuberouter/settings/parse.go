package settings

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Input is what spec.network.kuberouter says, by the names of its fields.
type Input struct {
	PeerRouterIPs, PeerRouterASNs string
	MetricsPort                   int
	ExtraArgs                     map[string]string
	RawArgs                       []string
}

// Problem is what is wrong with an input.
type Problem struct {
	// Field is the name of the input's field; Key and Index say where in it.
	Field string
	Key   string
	Index int
	// Flag is the name of a flag that there is not; empty if there is.
	Flag string
	// Value is what was given, unless it is secret.
	Value string
	// Reason says why it cannot be.
	Reason string
}

// Parse returns the settings, and what is wrong with them. Later arguments win, raw ones over extra ones.
func Parse(in Input) (Settings, []Problem) {
	p := parser{settings: Default(), said: map[string]Problem{}}
	p.settings.Metrics.Port = uint16(in.MetricsPort) //nolint:gosec // its range is checked with the other fields
	if in.PeerRouterIPs != "" {
		p.set("peer-router-ips", in.PeerRouterIPs, Problem{Field: "peerRouterIPs"})
	}
	if in.PeerRouterASNs != "" {
		p.set("peer-router-asns", in.PeerRouterASNs, Problem{Field: "peerRouterASNs"})
	}
	for _, name := range slices.Sorted(maps.Keys(in.ExtraArgs)) {
		where := Problem{Field: "extraArgs", Key: name}
		if before, twice := p.said[name]; twice {
			p.fail(name, in.ExtraArgs[name], where, fmt.Errorf("is also said by %s: leave one of them out", before.Field))
			continue
		}
		p.set(name, in.ExtraArgs[name], where)
	}
	for i, arg := range in.RawArgs {
		where := Problem{Field: "rawArgs", Index: i}
		text, ok := strings.CutPrefix(arg, "--")
		name, value, given := strings.Cut(text, "=")
		switch f, _ := find(name); {
		case !ok || name == "":
			if i > 0 && secret("", in.RawArgs[i-1]) {
				arg = hidden // what was meant to be its value
			}
			p.fail("", arg, where, errors.New("must be --NAME=VALUE"))
		case !given && f.boolean:
			p.set(name, "true", where)
		case !given && f.set != nil:
			p.fail(name, arg, where, fmt.Errorf("has no value: write --%s=VALUE", name))
		default:
			p.set(name, value, where)
		}
	}
	p.finish()
	return p.settings, p.problems
}

// Names lists the flags that there are.
func Names() []string {
	var names []string
	for name, f := range known {
		if f.set != nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

type parser struct {
	settings Settings
	lists    lists
	said     map[string]Problem // where each flag was said last
	problems []Problem
}

// lists are the flags that belong together, item by item.
type lists struct {
	addresses, asns, ports, passwords []string
	ttl                               uint8
}

func (p *parser) set(name, value string, where Problem) {
	f, ok := find(name)
	if where.Value = value; secret(name, value) {
		where.Value = hidden
	}
	p.said[name] = where
	switch {
	case !ok:
		where.Flag = name
		p.fail(name, value, where, errors.New("kube-router has no such flag"))
	case f.refused != "" && (f.harmless == "" || value != f.harmless):
		p.fail(name, value, where, errors.New(f.refused))
	case f.set != nil:
		if err := f.set(p, strings.TrimSpace(value)); err != nil {
			p.fail(name, value, where, err)
		}
	}
}

func (p *parser) fail(name, value string, where Problem, err error) {
	where.Reason = err.Error()
	if where.Value = value; secret(name, value) {
		where.Value = hidden
	}
	p.problems = append(p.problems, where)
}

// secret tells whether a value, or an argument without a name, is not to be shown: also where the flag is misspelt.
func secret(name, value string) bool {
	f, ok := find(name)
	return f.secret || !ok && strings.Contains(strings.ToLower(name+value), "password")
}

// failBy reports a flag that was accepted, but does not go with others.
func (p *parser) failBy(name string, format string, args ...any) {
	where, ok := p.said[name]
	if !ok {
		where = Problem{Field: "extraArgs", Key: name}
	}
	where.Reason = fmt.Sprintf(format, args...)
	p.problems = append(p.problems, where)
}

// finish puts together what flags say in parts.
func (p *parser) finish() {
	if len(p.problems) > 0 {
		return
	}
	l, b := p.lists, &p.settings.BGP
	for _, other := range []struct {
		flag  string
		items []string
		must  bool
	}{{"peer-router-asns", l.asns, true}, {"peer-router-ports", l.ports, false}, {"peer-router-passwords", l.passwords, false}} {
		if len(other.items) != len(l.addresses) && (other.must || len(other.items) > 0) {
			where := other.flag
			if _, ok := p.said[where]; !ok {
				where = "peer-router-ips"
			}
			p.failBy(where, "must have as many items as peer-router-ips: %s has %d, peer-router-ips %d", other.flag, len(other.items), len(l.addresses))
		}
	}
	if len(l.passwords) > 0 && b.PeerPasswordsFile != "" {
		p.failBy("peer-router-passwords-file", "is also said by peer-router-passwords: leave one of them out")
	}
	if b.PeerPasswordsFile != "" && len(l.addresses) == 0 {
		p.failBy("peer-router-passwords-file", "needs peer-router-ips")
	}
	if b.GracefulRestart && b.HoldTime == 0 {
		p.failBy("bgp-holdtime", "must not be 0 with bgp-graceful-restart")
	}
	if b.AdvertiseExternalIP && len(b.ExternalIPRanges) == 0 && !b.AnyExternalIP {
		p.failBy("advertise-external-ip", "needs service-external-ip-range, where these addresses are: whoever may create a Service could have any address led here otherwise (strict-external-ip-validation: \"false\" allows that)")
	}
	if len(p.problems) > 0 {
		return
	}
	for i := range l.addresses {
		peer, err := NewPeer(l.addresses[i], l.asns[i], item(l.ports, i), item(l.passwords, i), "")
		if err != nil {
			p.failBy("peer-router-ips", "item %d: %v", i+1, err)
			continue
		}
		if slices.ContainsFunc(b.Peers, func(other Peer) bool { return other.Address == peer.Address }) {
			p.failBy("peer-router-ips", "has %s twice", peer.Address)
			continue
		}
		peer.TTL = l.ttl
		b.Peers = append(b.Peers, peer)
	}
	slices.SortFunc(b.ExternalIPRanges, comparePrefixes)
	slices.SortFunc(b.LoadBalancerIPRanges, comparePrefixes)
}

func item(items []string, i int) string {
	if i < len(items) {
		return items[i]
	}
	return ""
}

func comparePrefixes[T fmt.Stringer](a, b T) int { return cmp.Compare(a.String(), b.String()) }
