package etcdmembers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

const (
	// settleInterval is how long to wait for etcd to be settled before asking again.
	settleInterval = 500 * time.Millisecond
	// removeTimeout is how long to wait for etcd's answer before asking again: a leader that is new ignores a
	// change of members until it has caught up with the changes before, and says nothing.
	removeTimeout = 5 * time.Second
	// moveTimeout is how long a member may take to become the leader. The old one takes no writes meanwhile; by
	// default it gives up after 1 s.
	moveTimeout = 2 * time.Second
)

// Remove takes a member out of the cluster for good. One that is no member is none. If it leads, it hands over
// first: otherwise no write succeeds until the others have elected another leader, for a second or two. etcd
// refuses until all members have been connected for five seconds, which is waited for until ctx ends.
func (m *Members) Remove(ctx context.Context, id uint64, log *slog.Logger) error {
	if err := m.handOver(ctx, id, log); err != nil {
		log.Warn("Cannot have another member of etcd lead before this one is removed: writes may fail for a few seconds, until the others have elected a leader",
			"member", hex(id), "error", err)
	}
	for {
		err := m.tryRemove(ctx, id)
		if err == nil {
			return nil
		}
		err = fmt.Errorf("removing member %x from etcd: %w", id, err)
		if !errors.Is(err, rpctypes.ErrUnhealthy) && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: are all its members running?", err)
		case <-time.After(settleInterval):
		}
	}
}

// tryRemove asks once. The error is context.DeadlineExceeded when there was no answer in time.
func (m *Members) tryRemove(ctx context.Context, id uint64) error {
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	err := m.remove(ctx, id)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w (%w)", ctx.Err(), err) // etcd has several names for it
	}
	return err
}

// handOver makes another member the leader if this one is. Of the writes in the milliseconds that it takes
// etcd may lose some.
func (m *Members) handOver(ctx context.Context, id uint64, log *slog.Logger) error {
	self, leader, err := m.leader(ctx)
	switch {
	case err != nil:
		return err
	case leader != id:
		return nil
	case self != id:
		return errors.New("only its own controller can hand over: `k0s etcd leave` there does")
	}
	all, err := m.List(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, other := range all {
		if other.ID == id || other.Learner || other.Name == "" || !m.Alive(ctx, other) {
			continue
		}
		if err := m.tryMove(ctx, other.ID); err != nil {
			errs = append(errs, fmt.Errorf("handing over to %s: %w", other.Name, err))
			continue
		}
		log.Info("Another member leads etcd from now on, so that this one can be removed", "node", other.Name, "member", hex(other.ID), "removed", hex(id))
		return nil
	}
	if len(errs) == 0 {
		return errors.New("no other member with a vote answers")
	}
	return errors.Join(errs...)
}

func (m *Members) tryMove(ctx context.Context, to uint64) error {
	ctx, cancel := context.WithTimeout(ctx, moveTimeout)
	defer cancel()
	return m.move(ctx, to)
}
