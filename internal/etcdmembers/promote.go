package etcdmembers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// DefaultDeadline is how long a learner may be absent before it is removed.
const DefaultDeadline = 10 * time.Minute

const (
	// resync is how often learners are looked for that nobody told of: those that were not added by us.
	resync = time.Minute
	// Learners are looked after at first in short intervals, because most are ready in a second.
	minTick, maxTick = 100 * time.Millisecond, 5 * time.Second
)

// Promote looks after learners until ctx ends: it gives each a vote as soon as it has caught up, and removes
// those that have not answered, or have not started, for longer than deadline, because they keep all others
// from joining. It runs on every controller; only the one whose member leads etcd acts. While there are no
// learners it does nothing but watch.
func (m *Members) Promote(ctx context.Context, deadline time.Duration, log *slog.Logger) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changed := m.records.watch(ctx)
	p := promoter{Members: m, deadline: deadline, log: log, since: map[uint64]time.Time{}, present: map[uint64]time.Time{}}
	for {
		wait, err := p.tend(ctx)
		if err != nil && ctx.Err() == nil {
			log.Debug("Cannot look after etcd's learners", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case _, watching := <-changed:
			if ctx.Err() == nil && !watching {
				return errors.New("the watch for joining controllers has ended")
			}
		case <-time.After(wait):
		}
	}
}

type promoter struct {
	*Members
	deadline time.Duration
	log      *slog.Logger
	// since is when a learner was first seen, present when it was last known to live (or else first seen,
	// while leading).
	since, present map[uint64]time.Time
}

// tend looks at all learners once, and says when to look again.
func (p *promoter) tend(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	list, err := p.cluster.MemberList(ctx, clientv3.WithSerializable()) // what this host knows is enough
	if err != nil {
		return maxTick, err
	}
	learners := map[uint64]*clientv3.Member{}
	for _, member := range members(list) {
		if member.IsLearner {
			learners[member.ID] = member
		}
	}
	forget(p.since, learners)
	forget(p.present, learners)
	now := time.Now()
	youngest := time.Duration(-1)
	for id := range learners {
		if _, seen := p.since[id]; !seen {
			p.since[id] = now
		}
		if age := now.Sub(p.since[id]); youngest < 0 || age < youngest {
			youngest = age
		}
	}
	wait := resync
	if len(learners) > 0 {
		wait = min(max(youngest/10, minTick), maxTick)
	}
	leads, err := p.Leads(ctx)
	if err != nil || !leads {
		clear(p.present) // whoever leads next counts for itself
		return wait, err
	}
	var errs []error
	for _, learner := range learners {
		if err := p.decide(ctx, learner, list.Header.ClusterId); err != nil {
			errs = append(errs, err)
		}
	}
	return wait, errors.Join(append(errs, p.tidy(ctx, list))...)
}

func forget(times map[uint64]time.Time, learners map[uint64]*clientv3.Member) {
	for id := range times {
		if learners[id] == nil {
			delete(times, id)
		}
	}
}

// decide promotes the learner if it lives and has caught up. etcd itself would promote one that has died
// since, and so could lose its quorum.
func (p *promoter) decide(ctx context.Context, learner *clientv3.Member, clusterID uint64) error {
	now := time.Now()
	if _, counted := p.present[learner.ID]; !counted {
		p.present[learner.ID] = now
	}
	if learner.Name != "" && p.livesAnywhere(ctx, learner, clusterID) {
		p.present[learner.ID] = now
		if slices.Contains(learner.ClientURLs, NoClients) {
			return nil
		}
		_, err := p.cluster.MemberPromote(ctx, learner.ID)
		switch {
		case err == nil:
			p.log.Info("A joined controller has caught up and votes in etcd from now on", "node", learner.Name, "peer", learner.PeerURLs, "member", hex(learner.ID))
			return p.records.delete(ctx, learner.ID)
		case errors.Is(err, rpctypes.ErrMemberNotLearner), errors.Is(err, rpctypes.ErrMemberNotFound):
			return nil // somebody else was faster
		case errors.Is(err, rpctypes.ErrMemberLearnerNotReady):
			return fmt.Errorf("%s has not caught up yet", learner.Name)
		}
		return fmt.Errorf("promoting %s: %w", learner.Name, err)
	}
	absent := now.Sub(p.present[learner.ID])
	if absent < p.deadline {
		return nil
	}
	if err := p.remove(ctx, learner.ID); err != nil {
		return fmt.Errorf("removing the learner %x: %w", learner.ID, err)
	}
	p.log.Warn("Removed a controller from etcd that did not finish joining: start it again to have it join anew",
		"node", learner.Name, "peer", learner.PeerURLs, "member", hex(learner.ID), "absent", absent.Round(time.Second))
	return nil
}

// tidy forgets records of members that are gone, or have a name of their own and a vote.
func (p *promoter) tidy(ctx context.Context, local *clientv3.MemberListResponse) error {
	records, err := p.records.all(ctx)
	if err != nil || len(records) == 0 {
		return err
	}
	joining := map[uint64]bool{}
	for _, member := range members(local) {
		joining[member.ID] = member.Name == "" || member.IsLearner
	}
	for id, r := range records {
		if joining[id] {
			continue
		}
		if _, known := joining[id]; !known {
			// It may be newer than the list.
			list, err := p.cluster.MemberList(ctx)
			if err != nil {
				return err
			}
			if isMember(list, id) {
				continue
			}
		}
		if err := p.records.delete(ctx, id); err != nil {
			return fmt.Errorf("forgetting that %s was joining: %w", r.Name, err)
		}
	}
	return nil
}

func isMember(list *clientv3.MemberListResponse, id uint64) bool {
	for _, member := range list.Members {
		if member.ID == id {
			return true
		}
	}
	return false
}

func hex(id uint64) string { return fmt.Sprintf("%x", id) }
