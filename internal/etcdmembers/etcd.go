// Package etcdmembers knows who is a member of the cluster's etcd: it adds, promotes and removes members, from the
// side of those who vote already.
package etcdmembers

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/util/validation"
)

// PeerPort is where members talk to each other.
const PeerPort = 2380

// Access says how the member of etcd on this host is reached, and its peers.
type Access struct {
	// Endpoints are the URLs for clients, of the member on this host only.
	Endpoints []string
	// CAFile is the authority of all certificates here.
	CAFile string
	// CertFile and KeyFile are a client's.
	CertFile, KeyFile string
	// PeerCertFile and PeerKeyFile are this member's own: with them other members are asked whether they live.
	PeerCertFile, PeerKeyFile string
}

// Members of etcd. Its methods may be used at the same time.
type Members struct {
	cluster clientv3.Cluster
	records records
	// leader is who leads, as self, the member on this host, knows; 0 is nobody.
	leader func(context.Context) (self, leader uint64, err error)
	// move has self, who leads, hand over to another member, and waits until that leads.
	move func(ctx context.Context, to uint64) error
	// alive tells whether a member of this cluster answers its peers there.
	alive func(ctx context.Context, peerURL string, clusterID uint64) error
	close func() error

	adding sync.Mutex
}

// Open prepares to talk to etcd; it does not wait for it. The files are read again when they change.
func Open(a Access) (*Members, error) {
	config, err := transport.TLSInfo{TrustedCAFile: a.CAFile, CertFile: a.CertFile, KeyFile: a.KeyFile}.ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("certificates for etcd: %w", err)
	}
	peers, err := peerClient(a)
	if err != nil {
		return nil, err
	}
	config.MinVersion = tls.VersionTLS12
	client, err := clientv3.New(clientv3.Config{Endpoints: a.Endpoints, TLS: config, Logger: zap.NewNop()})
	if err != nil {
		return nil, fmt.Errorf("connecting to etcd: %w", err)
	}
	return &Members{
		cluster: client.Cluster,
		records: keys{client},
		leader: func(ctx context.Context) (self, leader uint64, err error) {
			s, err := client.Status(ctx, a.Endpoints[0])
			if err != nil {
				return 0, 0, fmt.Errorf("asking etcd who leads: %w", err)
			}
			return s.Header.MemberId, s.Leader, nil
		},
		move: func(ctx context.Context, to uint64) error {
			_, err := client.MoveLeader(ctx, to)
			return err
		},
		alive: func(ctx context.Context, peerURL string, clusterID uint64) error {
			_, err := askPeer(ctx, peers, peerURL, clusterID)
			return err
		},
		close: client.Close,
	}, nil
}

// Close ends the connections.
func (m *Members) Close() error { return m.close() }

// Member of etcd.
type Member struct {
	ID uint64
	// Name is empty while the member has never started.
	Name     string
	PeerURLs []string
	// Learner: it has no vote yet.
	Learner bool
}

// List asks the members in agreement who they are.
func (m *Members) List(ctx context.Context) ([]Member, error) {
	resp, err := m.cluster.MemberList(ctx)
	if err != nil {
		return nil, fmt.Errorf("asking etcd for its members: %w", err)
	}
	var all []Member
	for _, member := range resp.Members {
		all = append(all, Member{member.ID, member.Name, member.PeerURLs, member.IsLearner})
	}
	return all, nil
}

// Pairs are the members that have started as NAME=PEERURL, as Ask wants them.
func Pairs(all []Member) []string {
	var list []string
	for _, m := range all {
		if m.Name != "" && len(m.PeerURLs) > 0 {
			list = append(list, m.Name+"="+m.PeerURLs[0])
		}
	}
	slices.Sort(list)
	return list
}

// Leads tells whether the member on this host is the one that leads.
func (m *Members) Leads(ctx context.Context) (bool, error) {
	self, leader, err := m.leader(ctx)
	return err == nil && leader != 0 && leader == self, err
}

// Alive tells whether a member answers its peers.
func (m *Members) Alive(ctx context.Context, member Member) bool {
	return m.livesAnywhere(ctx, &clientv3.Member{PeerURLs: member.PeerURLs}, 0)
}

// Changes sends when members have begun to join, or have got their vote; the channel is closed when nothing
// more will be sent. It does not tell of those that leave.
func (m *Members) Changes(ctx context.Context) <-chan struct{} { return m.records.watch(ctx) }

// CanLeave tells why etcd would refuse, now, that a member with a vote leaves, one of all that lives: the voters
// that stay need a majority of their own.
func (m *Members) CanLeave(ctx context.Context, all []Member, id uint64) error {
	var stay, alive int
	var silent []string
	for _, member := range all {
		switch {
		case member.Learner || member.ID == id:
			continue
		case m.Alive(ctx, member):
			alive++
		default:
			silent = append(silent, member.Name)
		}
		stay++
	}
	switch need := stay/2 + 1; {
	case stay == 0:
		return errors.New("this is the only member of etcd with a vote: without it there is no cluster; `k0s reset` gives it up")
	case alive < need:
		return fmt.Errorf("of the %d members of etcd that would stay, %d must answer, and %s does not: start it, or take that out first",
			stay, need, strings.Join(silent, ", "))
	}
	return nil
}

// PeerAddress is the host of a peer URL.
func PeerAddress(peerURL string) string {
	u, err := url.Parse(peerURL)
	if err != nil {
		return peerURL
	}
	return u.Hostname()
}

// PeerURL is the URL that a peer address stands for: a URL of the form https://HOST:PORT, or a bare address
// or DNS name, which gets PeerPort. Addresses that only one host understands are refused.
func PeerURL(address string) (string, error) {
	host, port := address, strconv.Itoa(PeerPort)
	if u, err := url.Parse(address); err == nil && u.Host != "" {
		if u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "" || (u.Path != "" && u.Path != "/") {
			return "", fmt.Errorf("the peer address %.100q is not of the form https://HOST:PORT", address)
		}
		if host = u.Hostname(); u.Port() != "" {
			port = u.Port()
		}
	}
	if number, err := strconv.ParseUint(port, 10, 16); err != nil || number == 0 {
		return "", fmt.Errorf("the peer address %.100q has no port from 1 to 65535", address)
	}
	ip, err := netip.ParseAddr(host)
	switch {
	case err != nil && len(validation.IsDNS1123Subdomain(host)) > 0:
		return "", fmt.Errorf("the peer address %.100q is neither an IP address nor a DNS name", address)
	case err != nil && host == "localhost":
		return "", errors.New("localhost is another host for each: no peer address")
	case err == nil && (ip.IsLoopback() || ip.IsUnspecified() || ip.IsMulticast() || ip.Zone() != ""):
		return "", fmt.Errorf("%s cannot be reached from other hosts: no peer address", ip)
	}
	if err == nil {
		host = ip.Unmap().String()
	}
	return "https://" + net.JoinHostPort(host, port), nil
}
