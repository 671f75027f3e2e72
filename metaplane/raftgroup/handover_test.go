// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package raftgroup

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
)

// TestHandOverUnderLoad: while commands are proposed all the time, nearly every
// hand-over takes one request of the engine, and none costs an entry. The engine
// lets no heir campaign that has something to apply, as it nearly always has under
// load, and drops what is proposed until it gives up.
func TestHandOverUnderLoad(t *testing.T) {
	const times, proposers = 20, 8
	c := newTrio(t, nil)
	proposeUntil(t, c.leader().group, "/a")
	var done atomic.Bool
	var acks atomic.Int64
	var wg sync.WaitGroup
	for i := range proposers {
		wg.Go(func() {
			for n := 1; !done.Load(); n++ {
				for _, h := range c.hosts {
					if leads, _ := h.group.Leader(); leads {
						proposeAs(t, h.group, fmt.Sprintf("/f%d-%d", i, n), uint64(100+i), uint64(n))
						acks.Add(1)
						break
					}
				}
			}
		})
	}
	sum := func(of func(*Stats) int64) (n int64) {
		for _, h := range c.hosts {
			n += of(&h.group.Stats)
		}
		return n
	}
	term := func() uint64 {
		_, term := c.leader().group.LeaderReplica()
		return term
	}
	// A round counts when nothing else made the leader change: a machine that is
	// busy otherwise may let a heartbeat wait for longer than an election takes.
	rounds, asked, reminded := 0, int64(0), int64(0)
	for end := time.Now().Add(2 * time.Minute); rounds < times && time.Now().Before(end); {
		before := term()
		drops, asks, reminders := sum(dropped), sum(handOvers), sum(summons)
		if err := c.leader().group.Transfer(t.Context(), 0); err != nil {
			require.ErrorIs(t, err, orca.NotLeader, "only when another one was faster")
		}
		seen := acks.Load()
		require.Eventually(t, func() bool { return acks.Load() > seen+10*proposers }, time.Minute, time.Millisecond)
		if term() != before+1 {
			continue
		}
		rounds++
		asked, reminded = asked+sum(handOvers)-asks, reminded+sum(summons)-reminders
		require.Equal(t, drops, sum(dropped), "entries were dropped")
	}
	done.Store(true)
	wg.Wait()
	t.Logf("%d hand-overs: asked %d times, reminded %d times", rounds, asked, reminded)
	require.Positive(t, rounds, "the leader never changed by a hand-over alone")
	require.LessOrEqual(t, asked, int64(rounds+rounds/4), "an heir does not lead when it is told to")
}

func dropped(s *Stats) int64   { return s.Dropped.Load() }
func handOvers(s *Stats) int64 { return s.HandOvers.Load() }
func summons(s *Stats) int64   { return s.Summons.Load() }
