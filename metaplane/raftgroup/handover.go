// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package raftgroup

import (
	"context"
	"fmt"
	"time"

	pb "github.com/lni/dragonboat/v4/raftpb"

	"orca"
)

// How a leader hands over, so that nobody waits for a timer:
//
//	leader                                     heir
//	proposes nothing new; what waits, waits
//	what is under way is applied
//	TimeoutNow ──────────────────────────────► campaigns as soon as it has applied
//	hears of the next term                     what it knows to be committed
//	refuses what waits: NotLeader, Heir        leads
const (
	// drainFor is how long a hand-over waits for what is under way. It goes on
	// without: a slow disk is a reason to hand over.
	drainFor = 100 * time.Millisecond
	// heirFor is how long the heir has. The engine gives up by itself an
	// election time after it has told the heir, and refuses proposals until then.
	heirFor = clusterElection * clusterTick * time.Millisecond
	// askAgain is after how long a heir that does not lead is asked again.
	askAgain = time.Second
	// summonAgain is how often an heir that has not begun to campaign is told to.
	summonAgain = 2 * time.Millisecond
)

// Transfer hands the leadership to a voter and returns when it leads; 0 means
// any other that answers. It asks only a group that this host leads: NotLeader
// when it does not, or does not any more and another one leads than was to.
func (g *Group) Transfer(ctx context.Context, replica uint64) error {
	const op = "metaplane.Transfer"
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	if leader, _ := g.LeaderReplica(); leader != g.Replica() {
		return g.passed(ctx, op, replica)
	}
	leads, stop := g.whileLeading(ctx)
	m, err := g.Members(leads)
	if err == nil && replica == 0 {
		replica, err = g.successor(leads, m)
	}
	deposed := leads.Err() != nil
	stop()
	switch {
	case deposed:
		return g.passed(ctx, op, replica)
	case err != nil:
		return err
	}
	if to := m.Find(replica); to == nil || !to.Voter {
		return orca.E(op, orca.NotFound, fmt.Sprintf("no voter has the number %d", replica))
	}
	if replica == g.Replica() {
		return nil // Raft drops a transfer to who leads, and would be asked for ever
	}
	for {
		changed := g.LeaderChanged()
		if leader, _ := g.LeaderReplica(); leader != g.Replica() {
			return g.passed(ctx, op, replica)
		}
		again := time.NewTimer(askAgain)
		if err := g.handOver(ctx, replica, changed); err != nil {
			again.Stop()
			return memberError(op, err)
		}
		select {
		case <-changed:
		case <-again.C: // dragonboat promises nothing
		case <-ctx.Done():
			again.Stop()
			return orca.PathE(op, "", orca.EndKind(ctx.Err()), ctx.Err())
		}
		again.Stop()
	}
}

// handOver asks once, and returns when the leadership has changed or the heir
// has had its time.
func (g *Group) handOver(ctx context.Context, heir uint64, changed <-chan struct{}) error {
	select {
	case g.handing <- struct{}{}:
		defer func() { <-g.handing }()
	case <-changed: // somebody else has had it handed over
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
	defer g.hold(ctx)()
	g.leaving(heir)
	defer g.leaving(0)
	g.Stats.HandOvers.Add(1)
	if err := g.host.nh.RequestLeaderTransfer(g.shard, heir); err != nil {
		return err
	}
	late := time.NewTimer(heirFor)
	defer late.Stop()
	select {
	case <-changed:
		g.led(ctx)
	case <-late.C:
	case <-ctx.Done():
	case <-g.quit:
	}
	return nil
}

// hold has no further entry proposed until release is called, and waits for
// those under way: the engine would drop what it is given while it hands over,
// and the heir does not campaign before it has applied what it knows of.
func (g *Group) hold(ctx context.Context) (release func()) {
	ctx, cancel := context.WithTimeout(ctx, drainFor)
	defer cancel()
	take := func(c chan struct{}) bool {
		select {
		case c <- struct{}{}:
			return true
		case <-ctx.Done():
		case <-g.quit:
		}
		return false
	}
	if !take(g.turn) {
		return func() {}
	}
	n := 0
	for n < cap(g.slots) && take(g.slots) {
		n++
	}
	return func() {
		for range n {
			<-g.slots
		}
		<-g.turn
	}
}

// led returns when there is a leader, or it is not worth to wait any longer.
func (g *Group) led(ctx context.Context) {
	late := time.NewTimer(heirFor)
	defer late.Stop()
	for {
		changed := g.LeaderChanged()
		if leader, _ := g.LeaderReplica(); leader != 0 {
			return
		}
		select {
		case <-changed:
		case <-late.C:
			return
		case <-ctx.Done():
			return
		case <-g.quit:
			return
		}
	}
}

// leaving notes that this host hands the leadership to an heir; 0: not any more.
func (g *Group) leaving(heir uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.heir = heir; heir != 0 {
		g.stays = make(chan struct{})
		return
	}
	close(g.stays)
	g.stays = nil
}

// Heir returns the replica that this host is handing the leadership to, with a
// channel that is closed when that is over, whichever way; 0, nil: it is not.
func (g *Group) Heir() (replica uint64, over <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.heir, g.stays
}

// summoned sees to it that this member follows a leader that tells it to take
// over. The engine does not while it has something to apply, which under load it
// nearly always has, and is not told again: the leader would refuse proposals
// until it gave up. To campaign twice, or too late, does no harm.
func (t *transport) summoned(b *pb.MessageBatch) {
	for i := range b.Requests {
		m := b.Requests[i]
		if m.Type != pb.TimeoutNow {
			continue
		}
		g := t.h.find(m.ShardID)
		if g == nil || !g.summons.CompareAndSwap(false, true) {
			continue
		}
		again := pb.MessageBatch{Requests: []pb.Message{m}, DeploymentId: b.DeploymentId, SourceAddress: b.SourceAddress, BinVer: b.BinVer}
		t.wg.Go(func() {
			defer g.summons.Store(false)
			late := time.After(heirFor)
			tick := time.NewTicker(summonAgain)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
				case <-late:
					return
				case <-g.quit:
					return
				}
				if _, term := g.LeaderReplica(); term > m.Term {
					return
				}
				g.Stats.Summons.Add(1)
				t.msgs(again)
			}
		})
	}
}
