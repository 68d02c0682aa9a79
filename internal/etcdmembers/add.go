package etcdmembers

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Learner is who wants to join.
type Learner struct {
	// Name is the node's, and is to be that of the member.
	Name string
	// PeerURL is as PeerURL returns it.
	PeerURL string
	// MemberID is that of the member whose data the node has on its disk; 0 when it has none.
	MemberID uint64
}

// Joined is what a new member needs to know.
type Joined struct {
	// MemberID is the member's identity. Data of any other member must not be used to start it.
	MemberID uint64
	// InitialCluster are all members as NAME=PEERURL, as etcd's flag --initial-cluster wants them.
	InitialCluster []string
}

// Conflict says why a node cannot join until somebody does something about it.
type Conflict struct{ reason string }

func (c *Conflict) Error() string { return c.reason }

// ErrBusy says that etcd can take nobody in right now: try again in a few seconds.
var ErrBusy = errors.New("etcd can take no member in right now")

// AddLearner makes l a member without a vote; Promote gives it one later. Asked again it gives the same
// answer, as long as the node may use its data. A member that has never started, or a learner that does not
// live and whose data is gone, is replaced. The error is a *Conflict when a member that counts is in the way,
// and is ErrBusy when it is worth trying again soon.
func (m *Members) AddLearner(ctx context.Context, l Learner) (Joined, error) {
	m.adding.Lock()
	defer m.adding.Unlock()
	const attempts = 5 // another controller may be changing members, too
	for range attempts {
		list, err := m.cluster.MemberList(ctx)
		if err != nil {
			return Joined{}, explain("asking etcd for its members", err)
		}
		records, err := m.records.all(ctx)
		if err != nil {
			return Joined{}, explain("asking etcd", err)
		}
		clusterID := uint64(0)
		if list.Header != nil {
			clusterID = list.Header.ClusterId
		}
		same, obsolete, err := m.judge(ctx, l, members(list), records, clusterID)
		if err != nil {
			return Joined{}, err
		}
		for _, id := range obsolete {
			if err := m.remove(ctx, id); err != nil {
				return Joined{}, explain("removing a member that never came to be", err)
			}
		}
		if len(obsolete) > 0 {
			continue
		}
		if same == nil {
			resp, err := m.cluster.MemberAddAsLearner(ctx, []string{l.PeerURL})
			if errors.Is(err, rpctypes.ErrPeerURLExist) || errors.Is(err, rpctypes.ErrMemberExist) {
				continue
			}
			if err != nil {
				return Joined{}, explain("adding a member to etcd", err)
			}
			list.Members = resp.Members
			same = &clientv3.Member{ID: resp.Member.ID}
		}
		if same.Name == "" && records[same.ID].Name != l.Name {
			records[same.ID] = record{Name: l.Name}
			if err := m.records.put(ctx, same.ID, records[same.ID]); err != nil {
				return Joined{}, explain("noting a member's name", err)
			}
		}
		return Joined{MemberID: same.ID, InitialCluster: pairs(members(list), records)}, nil
	}
	return Joined{}, fmt.Errorf("%w: its members go on changing", ErrBusy)
}

// judge looks at the members that have l's name or URL: same is l itself, the obsolete may be removed.
func (m *Members) judge(ctx context.Context, l Learner, all []*clientv3.Member, records map[uint64]record, clusterID uint64) (same *clientv3.Member, obsolete []uint64, err error) {
	for _, other := range all {
		started := other.Name != ""
		name := other.Name
		if !started {
			name = records[other.ID].Name
		}
		sameName, sameURL := name == l.Name, slices.Contains(other.PeerURLs, l.PeerURL)
		switch {
		case !sameName && !sameURL:
		case sameName && sameURL && l.MemberID == other.ID:
			same = other
		case !started && sameURL && (sameName || name == ""):
			same = other
		case !started:
			obsolete = append(obsolete, other.ID)
		case !other.IsLearner:
			return nil, nil, conflict(l, other, sameName, sameURL)
		case !m.livesAnywhere(ctx, other, clusterID):
			// A learner that was started and whose data is gone can never catch up: what it has confirmed is
			// not sent to it again.
			obsolete = append(obsolete, other.ID)
		case sameName && sameURL:
			same = other
		case sameName:
			return nil, nil, &Conflict{fmt.Sprintf("another host named %s is joining right now, from %s: names must differ", l.Name, other.PeerURLs[0])}
		default:
			return nil, nil, &Conflict{fmt.Sprintf("the host %s is joining right now with the peer address %s: addresses must differ", other.Name, l.PeerURL)}
		}
	}
	return same, obsolete, nil
}

func (m *Members) livesAnywhere(ctx context.Context, member *clientv3.Member, clusterID uint64) bool {
	return slices.ContainsFunc(member.PeerURLs, func(peerURL string) bool { return m.alive(ctx, peerURL, clusterID) == nil })
}

// conflict tells of a member with a vote, whose place nobody can simply take: etcd might forget what that
// member has confirmed.
func conflict(l Learner, other *clientv3.Member, sameName, sameURL bool) error {
	address := PeerAddress(other.PeerURLs[0])
	leave := fmt.Sprintf("if that controller, or its data, is gone for good, remove the member with `k0s etcd leave --peer-address %s` "+
		"on another controller, and join again", address)
	switch {
	case sameName && sameURL:
		return &Conflict{fmt.Sprintf("%s with the peer URL %s is a member of etcd already (%x), and this host does not have its data: %s", l.Name, l.PeerURL, other.ID, leave)}
	case sameName:
		return &Conflict{fmt.Sprintf("etcd has a member named %s already (%x), with the peer URL %s: %s; else give this host another name", l.Name, other.ID, other.PeerURLs[0], leave)}
	case sameURL:
		return &Conflict{fmt.Sprintf("%s is the peer URL of etcd's member %s (%x) already: %s; else set spec.storage.etcd.peerAddress to an address of this host only",
			l.PeerURL, other.Name, other.ID, leave)}
	}
	return nil
}

// remove is done when there is no such member.
func (m *Members) remove(ctx context.Context, id uint64) error {
	if _, err := m.cluster.MemberRemove(ctx, id); err != nil && !errors.Is(err, rpctypes.ErrMemberNotFound) {
		return err
	}
	return m.records.delete(ctx, id)
}

func members(list *clientv3.MemberListResponse) []*clientv3.Member {
	var all []*clientv3.Member
	for _, member := range list.Members {
		all = append(all, (*clientv3.Member)(member))
	}
	return all
}

// pairs gives members that have never started the name they are going to have. etcd compares URLs
// only, but wants a name for each.
func pairs(all []*clientv3.Member, records map[uint64]record) []string {
	var list []string
	for _, member := range all {
		name := member.Name
		if name == "" {
			name = records[member.ID].Name
		}
		if name == "" {
			name = fmt.Sprintf("%x", member.ID)
		}
		for _, peerURL := range member.PeerURLs {
			list = append(list, name+"="+peerURL)
		}
	}
	slices.Sort(list)
	return list
}

// explain tells what passes by itself from what does not.
func explain(doing string, err error) error {
	switch {
	case errors.Is(err, rpctypes.ErrTooManyLearners):
		return fmt.Errorf("%w: another controller is joining", ErrBusy)
	case errors.Is(err, rpctypes.ErrUnhealthy), errors.Is(err, rpctypes.ErrMemberNotEnoughStarted):
		return fmt.Errorf("%w: its members are not all up, or have not been connected with each other for 5 s yet", ErrBusy)
	case errors.Is(err, rpctypes.ErrNoLeader), errors.Is(err, rpctypes.ErrLeaderChanged), errors.Is(err, rpctypes.ErrTimeout),
		errors.Is(err, rpctypes.ErrTimeoutDueToLeaderFail), errors.Is(err, rpctypes.ErrTimeoutDueToConnectionLost),
		errors.Is(err, rpctypes.Error(rpctypes.ErrGRPCNotSupportedForLearner)), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %s: %w", ErrBusy, doing, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}
