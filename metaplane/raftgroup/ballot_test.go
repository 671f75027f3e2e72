// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package raftgroup

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"
	"github.com/stretchr/testify/require"
)

// asking and answering make the messages of pre-votes.
func asking(from, to, term, index uint64) *pb.Message {
	return &pb.Message{Type: pb.RequestPreVote, From: from, To: to, Term: term, LogTerm: term - 1, LogIndex: index}
}

func answering(m *pb.Message, yes bool) *pb.Message {
	return &pb.Message{Type: pb.RequestPreVoteResp, From: m.To, To: m.From, Term: m.Term, Reject: !yes}
}

// TestOneOfTwoThatAskAtOnceIsToldYes: whatever the order in which the questions of
// two members cross, one of them is told yes, and one that can win.
func TestOneOfTwoThatAskAtOnceIsToldYes(t *testing.T) {
	for _, x := range []struct {
		name       string
		two, three uint64 // what they have of the journal
		winner     uint64
	}{
		{"as much of the journal", 7, 7, 3},
		{"the higher number has more", 7, 8, 3},
		{"the lower number has more", 8, 7, 2},
	} {
		for _, early := range []bool{false, true} { // a question comes before the own one has left
			var at2, at3 ballot
			from2, from3 := asking(2, 3, 5, x.two), asking(3, 2, 5, x.three)
			if early {
				at2.asked(from3)
				at3.asked(from2)
			}
			at2.asks(from2)
			at3.asks(from3)
			if !early {
				at2.asked(from3)
				at3.asked(from2)
			}
			// The engine says yes to who has as much as itself, or more.
			yes3 := at2.answers(answering(from3, x.three >= x.two)) && x.three >= x.two
			yes2 := at3.answers(answering(from2, x.two >= x.three)) && x.two >= x.three
			require.Equal(t, x.winner == 2, yes2, "%s, early %v", x.name, early)
			require.Equal(t, x.winner == 3, yes3, "%s, early %v", x.name, early)
		}
	}
}

// TestYesGoesToOneAtATime: of two that ask a third one, the first has its turn; the
// other one is told no at once if that is the answer, and yes later.
func TestYesGoesToOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b ballot
		first, second := asking(1, 3, 5, 7), asking(2, 3, 5, 8)
		b.asked(first)
		b.asked(second)
		require.True(t, b.answers(answering(first, true)))
		require.True(t, b.answers(answering(first, true)), "it is its turn")
		require.False(t, b.answers(answering(second, true)))
		require.True(t, b.answers(answering(second, false)), "a no stands in nobody's way")
		b.asked(second)
		later := asking(2, 3, 6, 8)
		b.asked(later)
		require.True(t, b.answers(answering(later, true)), "of another term")
		b.asked(first)
		time.Sleep(turnFor)
		require.True(t, b.answers(answering(first, true)), "its turn has passed")
	})
}

// TestQuestionIsPutAgain: until it is answered, its term is over, or it is old.
func TestQuestionIsPutAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b ballot
		again := func(term uint64) bool {
			m, ok := b.again(2, term)
			require.True(t, !ok || m.LogIndex == 8, "it is put as it was asked last")
			return ok
		}
		require.True(t, b.asked(asking(2, 3, 5, 7)))
		require.False(t, b.asked(asking(2, 3, 5, 8)), "one puts it again")
		require.True(t, again(4))
		require.False(t, again(5), "somebody stands for that term")

		require.True(t, b.asked(asking(2, 3, 6, 8)))
		b.asks(asking(3, 2, 6, 9))
		require.False(t, b.answers(answering(asking(2, 3, 6, 8), true)))
		require.True(t, again(5), "its answer was held")
		time.Sleep(turnFor)
		require.True(t, b.answers(answering(asking(2, 3, 6, 8), true)))
		require.False(t, again(5), "it was answered")

		require.True(t, b.asked(asking(2, 3, 6, 8)))
		time.Sleep(openFor)
		require.False(t, again(5), "who asked does so anew")
	})
}

// elections has the first member lead, the others hear nothing of it any more, and
// miss misses it for them, so many times. each is told what it took.
func elections(t *testing.T, times int, miss func(c *trio), each func(e election)) {
	t.Helper()
	c := newTrio(t, nil)
	proposeUntil(t, c.leader().group, "/a")
	first, left := c.hosts[1], []uint64{2, 3}
	for i := range times {
		for c.leader() != first {
			_ = c.leader().group.Transfer(t.Context(), 1)
		}
		proposeUntil(t, first.group, fmt.Sprintf("/b%d", i))
		_, term := first.group.LeaderReplica()
		asks, broken := c.hosts[3].group.Stats.PreVotes.Load(), first.broken.Load()
		for _, id := range left {
			first.net.Load().cut.Store(c.cfgs[id].Address, true)
		}
		require.Eventually(t, func() bool { return first.broken.Load() >= broken+2 }, time.Minute, time.Millisecond)
		miss(c)
		var e election
		require.Eventually(t, func() bool {
			for _, id := range left {
				if leader, now := c.hosts[id].group.LeaderReplica(); leader == id {
					e = election{leader: id, terms: now - term, asks: c.hosts[3].group.Stats.PreVotes.Load() - asks}
					return true
				}
			}
			return false
		}, time.Minute, time.Millisecond)
		each(e)
		for _, id := range left {
			first.net.Load().cut.Delete(c.cfgs[id].Address)
		}
	}
}

// election is who was elected, in how many terms, and after how many messages of
// the third member that asked for pre-votes.
type election struct {
	leader, terms uint64
	asks          int64
}

// pass lets time pass at a member.
func pass(h *Host, ticks int) {
	batch := pb.MessageBatch{DeploymentId: h.f.Deployment, BinVer: raftio.TransportBinVersion}
	for range ticks {
		batch.Requests = append(batch.Requests, pb.Message{Type: pb.LocalTick, ShardID: firstGroup, From: h.f.Replica, To: h.f.Replica})
	}
	h.net.Load().msgs(batch)
}

// TestTwoThatAskAtOnceElectOne: both members that are left miss their leader in the
// same moment, and one of them is elected in that round. Now and then it takes
// another one, since the time that passes here is the longest that there is: some of
// it may be left for the next one.
func TestTwoThatAskAtOnceElectOne(t *testing.T) {
	const times = 12
	undecided := 0
	elections(t, times, func(c *trio) {
		var wg sync.WaitGroup
		for _, id := range []uint64{2, 3} {
			wg.Go(func() { pass(c.hosts[id], 2*clusterElection-1) })
		}
		wg.Wait()
	}, func(e election) {
		if e.terms > 1 {
			undecided++
		}
	})
	t.Logf("%d elections, %d undecided", times, undecided)
	require.LessOrEqual(t, undecided, times/3)
}

// TestWhoAsksEarlyIsHeardLater: a member that misses its leader before the other one
// would follow anybody else asks each of the others once, and is answered when that
// is over. It may not lead since the other one asks itself in that moment.
func TestWhoAsksEarlyIsHeardLater(t *testing.T) {
	const times = 10
	led, asks := int64(0), int64(0)
	elections(t, times, func(c *trio) {
		stats := &c.hosts[3].group.Stats
		for had := stats.PreVotes.Load(); stats.PreVotes.Load() == had; time.Sleep(time.Millisecond) {
			pass(c.hosts[3], 1)
		}
	}, func(e election) {
		if e.leader == 3 {
			led, asks = led+1, asks+e.asks
		}
	})
	t.Logf("%d of %d were elected who asked early, %d messages", led, times, asks)
	require.Positive(t, led)
	require.LessOrEqual(t, asks, 2*(led+led/3))
}
