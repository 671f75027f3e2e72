// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package raftgroup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/lni/dragonboat/v4"

	"orca"
	"orca/metaplane/members"
)

// changeTimeout bounds one change of membership when its context does not.
const changeTimeout = 10 * time.Second

// Members asks for the membership; it is linearizable.
func (g *Group) Members(ctx context.Context) (*members.Members, error) {
	const op = "metaplane.Members"
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	var ms *dragonboat.Membership
	if err := g.retry(ctx, func() (err error) {
		// Its round may be lost like that of a read: ask again.
		once, cancel := context.WithTimeout(ctx, 4*readAgain)
		defer cancel()
		ms, err = g.host.nh.SyncGetShardMembership(once, g.shard)
		if err != nil && once.Err() != nil && ctx.Err() == nil {
			return dragonboat.ErrShardNotReady
		}
		return err
	}); err != nil {
		return nil, memberError(op, err)
	}
	leader, _ := g.LeaderReplica()
	out := &members.Members{Version: ms.ConfigChangeID}
	for id, addr := range ms.Nodes {
		out.List = append(out.List, members.Member{Replica: id, Address: addr, Voter: true, Leader: id == leader})
	}
	for id, addr := range ms.NonVotings {
		out.List = append(out.List, members.Member{Replica: id, Address: addr})
	}
	slices.SortFunc(out.List, func(a, b members.Member) int { return cmp.Compare(a.Replica, b.Replica) })
	for id := range ms.Removed {
		out.Removed = append(out.Removed, id)
	}
	slices.Sort(out.Removed)
	return out, nil
}

// AddLearner makes a host that is not running yet a member that learns. The
// same again is done already. Its replica must be a number that was never
// used.
func (g *Group) AddLearner(ctx context.Context, replica uint64, address string) error {
	const op = "metaplane.AddLearner"
	if g.Alone() {
		return orca.E(op, orca.Unsupported, "an Orca of one member stays alone: start the cluster in new folders")
	}
	if replica == 0 || !validAddress(address) {
		return &orca.Error{Op: op, Path: address, Kind: orca.Invalid, Msg: "want a member as REPLICA=HOST:PORT"}
	}
	return g.change(ctx, op, func(ctx context.Context, m *members.Members) error {
		switch have := m.Find(replica); {
		case have != nil && have.Address == address:
			return nil
		case have != nil:
			return orca.E(op, orca.Exists, fmt.Sprintf("replica %d is the member at %s", replica, have.Address))
		case slices.Contains(m.Removed, replica):
			return orca.E(op, orca.Exists, fmt.Sprintf("replica %d was a member once: a new one needs a new number", replica))
		case slices.ContainsFunc(m.List, func(x members.Member) bool { return x.Address == address }):
			return orca.E(op, orca.Exists, "another member has the Raft address "+address)
		}
		return g.host.nh.SyncRequestAddNonVoting(ctx, g.shard, replica, address, m.Version)
	})
}

// Promote gives a learner its vote. It returns when it has caught up and
// votes, or ctx ends.
func (g *Group) Promote(ctx context.Context, replica uint64) error {
	const op = "metaplane.Promote"
	return g.change(ctx, op, func(ctx context.Context, m *members.Members) error {
		have := m.Find(replica)
		if have == nil {
			return orca.E(op, orca.NotFound, fmt.Sprintf("no member has the number %d", replica))
		}
		if have.Voter {
			return nil
		}
		return g.host.nh.SyncRequestAddReplica(ctx, g.shard, replica, have.Address, m.Version)
	})
}

// Remove ends a membership. Those that are left must be able to decide.
func (g *Group) Remove(ctx context.Context, replica uint64) error {
	const op = "metaplane.Remove"
	return g.change(ctx, op, func(ctx context.Context, m *members.Members) error {
		have := m.Find(replica)
		switch {
		case have == nil && slices.Contains(m.Removed, replica):
			return nil
		case have == nil:
			return orca.E(op, orca.NotFound, fmt.Sprintf("no member has the number %d", replica))
		}
		if err := g.spare(ctx, op, m, have); err != nil {
			return err
		}
		return g.host.nh.SyncRequestDeleteReplica(ctx, g.shard, replica, m.Version)
	})
}

// Spare reports why a member cannot be done without; nil when it can.
func (g *Group) Spare(ctx context.Context, replica uint64) error {
	const op = "metaplane.Spare"
	m, err := g.Members(ctx)
	if err != nil {
		return err
	}
	if have := m.Find(replica); have != nil {
		return g.spare(ctx, op, m, have)
	}
	return nil
}

func (g *Group) spare(ctx context.Context, op string, m *members.Members, x *members.Member) error {
	if !x.Voter {
		return nil
	}
	left := m.Voters() - 1
	if left == 0 {
		return orca.E(op, orca.Invalid, "the last voter stays")
	}
	away := g.away(ctx, m)
	delete(away, x.Replica)
	if left-len(away) <= left/2 {
		return orca.E(op, orca.Invalid, fmt.Sprintf("%d of the %d voters that would be left do not answer: they could decide nothing", len(away), left))
	}
	return nil
}

// away are the voters that do not answer.
func (g *Group) away(ctx context.Context, m *members.Members) map[uint64]bool {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	out := map[uint64]bool{}
	for _, x := range m.List {
		if !x.Voter || x.Replica == g.Replica() {
			continue
		}
		wg.Go(func() {
			c, _, err := g.host.greet(ctx, x.Address)
			if err == nil {
				_ = c.Close()
				return
			}
			mu.Lock()
			out[x.Replica] = true
			mu.Unlock()
		})
	}
	wg.Wait()
	return out
}

// successor is another voter that answers.
func (g *Group) successor(ctx context.Context, m *members.Members) (uint64, error) {
	away := g.away(ctx, m)
	for i := range m.List {
		if x := &m.List[i]; x.Voter && x.Replica != g.Replica() && !away[x.Replica] {
			return x.Replica, nil
		}
	}
	return 0, orca.E("metaplane.Transfer", orca.Unavailable, "no other voter answers")
}

// whileLeading returns a context that ends when this host does not lead any
// more.
func (g *Group) whileLeading(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		for {
			changed := g.LeaderChanged()
			if leader, _ := g.LeaderReplica(); leader != g.Replica() {
				return
			}
			select {
			case <-changed:
			case <-g.quit:
				return
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, cancel
}

// electionWait is for how long a transfer waits for somebody to lead after this
// host, in which most elections end.
const electionWait = 2 * time.Second

// passed is what a transfer to replica has come to when this host does not lead:
// nil when that one does.
func (g *Group) passed(ctx context.Context, op string, replica uint64) error {
	late := time.NewTimer(electionWait)
	defer late.Stop()
	for {
		changed := g.LeaderChanged()
		switch leader, _ := g.LeaderReplica(); leader {
		case replica:
			if replica != 0 {
				return nil
			}
		case 0:
		default:
			return orca.E(op, orca.NotLeader, fmt.Sprintf("the member with the number %d leads", leader))
		}
		select {
		case <-changed:
		case <-late.C:
			return orca.E(op, orca.NotLeader, "this member does not lead any more, nor any other so far")
		case <-g.quit:
			return orca.E(op, orca.Unavailable, "shutting down")
		case <-ctx.Done():
			return orca.PathE(op, "", orca.EndKind(ctx.Err()), ctx.Err())
		}
	}
}

// change makes one change on the membership of the moment, anew when another
// one was faster.
func (g *Group) change(ctx context.Context, op string, do func(context.Context, *members.Members) error) error {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	for {
		m, err := g.Members(ctx)
		if err != nil {
			return err
		}
		err = g.retry(ctx, func() error { return do(ctx, m) })
		if !errors.Is(err, dragonboat.ErrRejected) || ctx.Err() != nil {
			return memberError(op, err)
		}
	}
}

// retry repeats what fails because there is no leader just now.
func (g *Group) retry(ctx context.Context, do func() error) error {
	for {
		err := do()
		if !errors.Is(err, dragonboat.ErrShardNotReady) && !errors.Is(err, dragonboat.ErrSystemBusy) {
			return err
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return err
		case <-g.quit:
			return err
		}
	}
}

func memberError(op string, err error) error {
	var e *orca.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e):
		return err
	case errors.Is(err, dragonboat.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		return orca.PathE(op, "", orca.Timeout, err)
	case errors.Is(err, dragonboat.ErrCanceled), errors.Is(err, context.Canceled):
		return orca.PathE(op, "", orca.Canceled, err)
	case errors.Is(err, dragonboat.ErrRejected):
		return orca.PathE(op, "", orca.Busy, err)
	}
	return orca.PathE(op, "", orca.Unavailable, err)
}

// Known returns the replicas as far as this host has applied their changes, in
// order, without a round.
func (g *Group) Known() []uint64 {
	return slices.Sorted(maps.Keys(g.voters()))
}
