package etcdmembers

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// aliveTimeout is how long a member may take to answer that it lives.
const aliveTimeout = 2 * time.Second

// peerClient talks to members as one of their peers. It reads the certificate files again when they change.
func peerClient(a Access) (*http.Client, error) {
	config, err := transport.TLSInfo{TrustedCAFile: a.CAFile, CertFile: a.PeerCertFile, KeyFile: a.PeerKeyFile}.ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("certificates for etcd's peers: %w", err)
	}
	config.MinVersion = tls.VersionTLS12
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: config,
		DialContext:     (&net.Dialer{Timeout: aliveTimeout}).DialContext,
		IdleConnTimeout: 10 * time.Second,
	}}, nil
}

// peerMember is a member as its peers tell of it.
type peerMember struct {
	ID         uint64   `json:"id"`
	Name       string   `json:"name"`
	PeerURLs   []string `json:"peerURLs"`
	ClientURLs []string `json:"clientURLs"`
}

// askPeer asks a member whom it knows, as its peers do before they join. It answers also while there is no
// quorum. A clusterID of 0 is any.
func askPeer(ctx context.Context, client *http.Client, peerURL string, clusterID uint64) ([]peerMember, error) {
	ctx, cancel := context.WithTimeout(ctx, aliveTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, peerURL+"/members", nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	const enough = 64 << 10
	body, err := io.ReadAll(io.LimitReader(resp.Body, enough))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s/members: %s", peerURL, resp.Status)
	}
	if id := resp.Header.Get("X-Etcd-Cluster-ID"); clusterID != 0 && id != strconv.FormatUint(clusterID, 16) {
		return nil, fmt.Errorf("%s belongs to another etcd cluster (%.20q)", peerURL, id)
	}
	var members []peerMember
	if err := json.Unmarshal(body, &members); err != nil {
		return nil, fmt.Errorf("GET %s/members: %w", peerURL, err)
	}
	return members, nil
}

// NoClients is what a learner says to etcd is the URL for its clients while it waits for the cluster's data.
// Promote leaves it alone.
const NoClients = "https://127.0.0.1:1"

// CaughtUp asks the member with this id, which is running, whether it has the cluster's data. It answers
// before it serves clients. The error says why not.
func CaughtUp(ctx context.Context, a Access, peerURL string, id uint64) error {
	client, err := peerClient(a)
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	members, err := askPeer(ctx, client, peerURL, 0)
	if err != nil {
		return err
	}
	for _, m := range members {
		// A member tells the others of its clients' URLs, and learns of them again with the data.
		if m.ID == id && len(m.ClientURLs) > 0 {
			return nil
		}
	}
	return errors.New("it is waiting for the other members to send it their data")
}

// Standing is what its peers say of a member.
type Standing string

// Standings of a member.
const (
	// Unknown: no peer answered.
	Unknown Standing = "unknown"
	// Known: a peer knows the member.
	Known Standing = "known"
	// Removed: those that answered know of no such member.
	Removed Standing = "removed"
)

// Ask asks the peers among initialCluster (NAME=PEERURL) about the member with this id, which is not running.
// They need no quorum to answer, and no token: it is for a member whose start was interrupted. When it is
// Known, or Unknown, it is to be started with the data that it has; asking the join API for more could wait
// for ever, because without this member the others may have no quorum. When it was Removed, its data is of
// no use, and it has to join anew.
func Ask(ctx context.Context, a Access, initialCluster []string, id uint64) (Standing, error) {
	answers, err := askAll(ctx, a, initialCluster)
	standing := Unknown
	for _, members := range answers {
		if standing == Unknown {
			standing = Removed
		}
		for _, m := range members {
			if m.ID == id {
				standing = Known
			}
		}
	}
	return standing, err
}

// InitialCluster asks the peers among initialCluster for what it is by now. etcd does not start as a new
// member with any other than that of the moment. The error tells that the member with this id and name is
// none any more, or that nobody answered.
func InitialCluster(ctx context.Context, a Access, initialCluster []string, id uint64, name string) ([]string, error) {
	answers, err := askAll(ctx, a, initialCluster)
	if err != nil {
		return nil, err
	}
	for _, members := range answers {
		all, known := []*clientv3.Member{}, false
		for _, m := range members {
			all = append(all, &clientv3.Member{ID: m.ID, Name: m.Name, PeerURLs: m.PeerURLs})
			known = known || m.ID == id
		}
		if known {
			return pairs(all, map[uint64]record{id: {Name: name}}), nil
		}
	}
	if len(answers) > 0 {
		return nil, fmt.Errorf("the cluster's etcd does not know of this member (%x) any more: start k0s again to join anew", id)
	}
	return nil, fmt.Errorf("no member of the cluster's etcd answers, of %s", strings.Join(initialCluster, ", "))
}

// askAll asks all peers among initialCluster (NAME=PEERURL) at once; one that does not answer gives nothing.
func askAll(ctx context.Context, a Access, initialCluster []string) ([][]peerMember, error) {
	client, err := peerClient(a)
	if err != nil {
		return nil, err
	}
	defer client.CloseIdleConnections()
	answers := make(chan []peerMember)
	for _, pair := range initialCluster {
		_, peerURL, _ := strings.Cut(pair, "=")
		go func() {
			members, err := askPeer(ctx, client, peerURL, 0)
			if err != nil {
				members = nil
			}
			answers <- members
		}()
	}
	var all [][]peerMember
	for range initialCluster {
		if members := <-answers; len(members) > 0 {
			all = append(all, members)
		}
	}
	return all, nil
}
